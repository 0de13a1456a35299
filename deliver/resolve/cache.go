package resolve

import (
	"container/list"
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

// cache keeps results until they expire or until there is no room, the longest unused going first.
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
}

func (c *cache) get(k key) (result, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	element, ok := c.entries[k]
	if !ok {
		return result{}, false
	}
	entry := element.Value.(*cached)
	if !time.Now().Before(entry.result.answer.Expires) {
		c.remove(element)
		return result{}, false
	}
	c.order.MoveToFront(element)
	return entry.result, true
}

// put keeps a result within limit octets for the whole cache.
func (c *cache) put(k key, res result, limit int) {
	weight, ok := weigh(k, res.answer)
	if !ok || weight > limit || !time.Now().Before(res.answer.Expires) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries == nil {
		c.entries = make(map[key]*list.Element)
	}
	if old, ok := c.entries[k]; ok {
		c.remove(old)
	}
	c.entries[k] = c.order.PushFront(&cached{k, res, weight})
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
	const entry, record = 400, 96
	octets := len(k.name)
	for _, alias := range answer.Aliases {
		octets += len(alias)
	}
	for _, rr := range answer.Records {
		octets += dns.Len(rr)
	}
	return entry + record*len(answer.Records) + octets, octets <= maxCachedAnswer
}
