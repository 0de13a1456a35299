package resolve

import (
	"container/list"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// key is what answers are kept and shared under. NXDOMAIN is kept for each type too, although it speaks for all (RFC 2308, section 5):
// servers that deny a name when asked for AAAA alone are known (RFC 4074, section 4.2), and they must not bounce mail.
type key struct {
	name  string
	qtype uint16
}

// result is the outcome of a lookup: an answer, with err if the name does not exist.
type result struct {
	answer Answer
	err    *Error
}

// unpack returns the result as a caller may keep it.
func (r result) unpack() (Answer, error) {
	if r.err == nil {
		return r.answer, nil
	}
	failure := *r.err
	return r.answer, &failure
}

// cache keeps results until they expire, or longer for bad times, or until there is no room: then the longest unused go first.
type cache struct {
	mu      sync.Mutex // guards the fields below
	entries map[key]*list.Element
	order   list.List // of *cached, the last used at the front
	size    int
}

type cached struct {
	key    key
	result result
	weight int
	life   time.Duration // from when it was put until it expires
	uses   int
	asked  bool // for again, before its end

	failure  *Error    // of the last attempt to ask again, if result has outlived its time
	patience time.Time // until when the next attempt waits
}

// get returns a result that may be used, and whether it is time to ask again because it is much used and near its end. That is said once.
func (c *cache) get(k key, maxStale time.Duration) (res result, ok, ageing bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	element, ok := c.entries[k]
	if !ok {
		return result{}, false, false
	}
	entry, now := element.Value.(*cached), time.Now()
	left := entry.result.answer.Expires.Sub(now)
	switch {
	case left > 0:
		c.order.MoveToFront(element)
		entry.uses++
		ageing = !entry.asked && entry.uses >= busyUses && left <= entry.life/prefetchShare && lasting(entry.result)
		entry.asked = entry.asked || ageing
		return entry.result, true, ageing
	case !entry.lasts(now, maxStale):
		c.remove(element)
	case now.Before(entry.patience):
		c.order.MoveToFront(element)
		return entry.stale(), true, false
	}
	return result{}, false, false
}

// fallback returns the last known answer after a failure to get a new one (RFC 8767, section 4), and lets it serve for a while without
// asking again, so that servers in trouble are not pressed (section 5).
func (c *cache) fallback(k key, failure *Error, maxStale time.Duration) (result, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	element, ok := c.entries[k]
	if !ok {
		return result{}, false
	}
	entry, now := element.Value.(*cached), time.Now()
	if now.Before(entry.result.answer.Expires) {
		return entry.result, true
	}
	if !entry.lasts(now, maxStale) {
		return result{}, false
	}
	entry.failure, entry.patience = failure, now.Add(failureRest)
	return entry.stale(), true
}

// lasts reports whether a result whose time is over may still be used if need be.
func (e *cached) lasts(now time.Time, maxStale time.Duration) bool {
	return now.Sub(e.result.answer.Expires) < maxStale && lasting(e.result)
}

func (e *cached) stale() result {
	res := e.result
	res.answer.Stale = e.failure
	return res
}

// lasting reports whether a result may be used after its time, or renewed before: one that leads somewhere. Absence, a null MX and
// others without a host would return mail, which only a DNS that works may do.
func lasting(res result) bool {
	if res.err != nil || len(res.answer.Records) == 0 {
		return false
	}
	return res.answer.Type != dns.TypeMX || slices.ContainsFunc(res.answer.MX(), func(mx MX) bool { return mx.Err() == nil })
}

// put keeps a result within limit octets for the whole cache. Whatever was known before has been overtaken, even if the result itself may
// not be kept.
func (c *cache) put(k key, res result, limit int) {
	weight, ok := weigh(k, res.answer)
	life := time.Until(res.answer.Expires)
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.entries[k]; ok {
		c.remove(old)
	}
	if !ok || weight > limit || life <= 0 {
		return
	}
	if c.entries == nil {
		c.entries = make(map[key]*list.Element)
	}
	c.entries[k] = c.order.PushFront(&cached{key: k, result: res, weight: weight, life: life})
	c.size += weight
	for c.size > limit {
		c.remove(c.order.Back())
	}
}

// remove is called with mu held.
func (c *cache) remove(element *list.Element) {
	entry := c.order.Remove(element).(*cached)
	delete(c.entries, entry.key)
	c.size -= entry.weight
}

// weigh estimates the memory an answer takes: the fixed parts of an entry, and each record as a struct with its names and data. It
// reports false if the answer is too large to be kept.
func weigh(k key, answer Answer) (int, bool) {
	const entry, record = minCachedAnswer, 96
	octets := len(k.name)
	for _, alias := range answer.Aliases {
		octets += len(alias)
	}
	for _, rr := range answer.Records {
		octets += dns.Len(rr)
	}
	return entry + record*len(answer.Records) + octets, octets <= maxCachedAnswer
}
