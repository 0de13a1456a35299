package memory

import (
	"container/heap"
	"time"

	"github.com/sortie-mail/sortie/queue"
)

// Lease hands out due entries as [queue.Queue] says, once those whose leases ended were taken back by Lapse.
func (x *Index) Lease(now time.Time, req queue.LeaseRequest) (leases []queue.Lease, next time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.wake(now)
	x.pauses.now = now
	for len(leases) < req.Max {
		l := x.rings.next()
		if l == nil {
			break
		}
		if e := x.serve(l, now, req.Room); e != nil {
			leases = append(leases, x.lease(e, now.Add(max(req.For, time.Second))))
		}
	}
	return leases, x.next(now)
}

// beginLapse marks the entries whose leases have ended without a settlement.
func (x *Index) beginLapse(now time.Time) []Key {
	x.mu.Lock()
	defer x.mu.Unlock()
	var keys []Key
	for len(x.ends) > 0 && !x.ends[0].until.After(now) {
		e := x.ends[0]
		e.until = now.Add(time.Second) // looked at again then, where its settlement is being written now
		heap.Fix(&x.ends, 0)
		if !e.busy && !e.msg.moving {
			x.begin(e)
			keys = append(keys, e.key())
		}
	}
	return keys
}

// wake moves the lanes whose time has come to the rings.
func (x *Index) wake(now time.Time) {
	for len(x.timers) > 0 && !x.timers[0].wake.After(now) {
		l := heap.Pop(&x.timers).(*lane)
		x.ready(l, now)
	}
}

// serve takes one entry from a lane whose turn it is, and puts the lane where it belongs next.
func (x *Index) serve(l *lane, now time.Time, room func(queue.Ask) queue.Grant) *entry {
	if len(l.levels) == 0 || l.next().After(now) {
		x.place(l)
		return nil
	}
	if room != nil {
		if g := room(l.ask()); g.N < 1 {
			x.setAside(l, g, now)
			return nil
		}
	}
	e := l.best(now)
	l.take(e)
	if len(l.levels) > 0 && !l.next().After(now) {
		x.ready(l, now)
	} else {
		x.place(l)
	}
	return e
}

func (x *Index) lease(e *entry, until time.Time) queue.Lease {
	x.token++
	e.token, e.until = x.token, until
	x.leases[e.token] = e
	heap.Push(&x.ends, e)
	e.lane.leased++
	if e.lane.site != nil {
		e.lane.site.leased++
	}
	m := e.msg
	l := queue.Lease{
		Token: e.token, Until: until, ID: m.ID, Lane: e.Lane, Accepted: m.Accepted, Size: m.Size, Hops: m.Hops,
		Envelope: m.Envelope, Attempts: e.Attempts, FailWhy: e.Fail,
	}
	l.Envelope.To = e.To
	if n := len(e.History); n > 0 {
		l.Last = e.History[n-1]
	}
	if len(e.Warned) > 0 {
		l.Warned = make(map[string]bool, len(e.Warned))
		for _, address := range e.Warned {
			l.Warned[address] = true
		}
	}
	return l
}

// next is when Lease may have more: when a lane wakes or a lease ends, or at once when lanes are ready.
func (x *Index) next(now time.Time) time.Time {
	if !x.rings.empty() {
		return now
	}
	var t time.Time
	if len(x.timers) > 0 {
		t = x.timers[0].wake
	}
	if len(x.ends) > 0 && (t.IsZero() || x.ends[0].until.Before(t)) {
		t = x.ends[0].until
	}
	return t
}
