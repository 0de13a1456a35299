package memory

import (
	"container/heap"
	"time"

	"github.com/sortie-mail/sortie/queue"
)

// A lease is an entry that somebody works on.
type lease struct {
	token uint64
	entry uint32
	until instant
	to    []queue.Recipient // of the entry, once they are known
}

// Lease hands out due entries as [queue.Queue] says, once those whose leases ended were taken back by Lapse. What of them the
// backend cannot read any more is held; what it cannot read now is due again soon.
func (x *Index) Lease(now time.Time, req queue.LeaseRequest) (leases []queue.Lease, next time.Time) {
	views, until, next := x.pick(now, req)
	if len(views) == 0 {
		return nil, next
	}
	leases = make([]queue.Lease, 0, len(views))
	read := x.readAll(views, func(v *view, m *Message, e *Entry) {
		if v.err == nil {
			leases = append(leases, v.lease(m, e, until))
		}
	})
	if read < len(views) {
		next = now
	}
	x.told(views, leases, now)
	return leases, next
}

// pick chooses entries and marks them as leased. next is when there may be more: when a lane wakes or a lease ends, or at once
// when lanes are ready.
func (x *Index) pick(now time.Time, req queue.LeaseRequest) (views []view, until, next time.Time) {
	until = now.Add(max(req.For, time.Second))
	x.mu.Lock()
	defer x.mu.Unlock()
	at := x.clock.instant(now)
	x.pauses.now = at
	x.wake(at)
	for len(views) < req.Max {
		l := x.rings.next()
		if l == nil {
			break
		}
		s := l.site
		n := x.serve(l, now, at, req.Room)
		x.scouted(l, s)
		if n != 0 {
			x.lease(n, x.clock.instant(until))
			views = append(views, x.view(n))
			x.cache.use(views[len(views)-1].id)
		}
	}
	return views, until, x.next(now)
}

// wake moves the lanes whose time has come to the rings.
func (x *Index) wake(now instant) {
	for len(x.closed) > 0 && x.closed[0].again <= now {
		x.reopen(x.closed[0])
	}
	for len(x.timers) > 0 && x.timers[0].wake <= now {
		l := heap.Pop(&x.timers).(*lane)
		l.again = never
		x.ready(l, now)
	}
}

// serve takes one entry from a lane whose turn it is, and puts the lane where it belongs next.
func (x *Index) serve(l *lane, now time.Time, at instant, room func(queue.Ask) queue.Grant) uint32 {
	switch {
	case len(l.levels) == 0 || x.nextIn(l) > at:
		x.place(l)
		return 0
	case room == nil:
	case l.site != nil && l.site.full:
		x.stand(l)
		return 0
	default:
		if g := room(x.ask(l, x.entries.at(x.best(l, at)))); g.N < 1 {
			x.refuse(l, g, now)
			return 0
		}
	}
	n := x.best(l, at)
	x.take(l, x.entries.at(n))
	if len(l.levels) > 0 && x.nextIn(l) <= at {
		x.ready(l, at)
	} else {
		x.place(l)
	}
	return n
}

func (x *Index) lease(n uint32, until instant) {
	x.token++
	e := x.entries.at(n)
	e.set(leased, true)
	l := x.laneOf(e)
	l.leased++
	if l.site != nil {
		l.site.leased++
	}
	made := &lease{token: x.token, entry: n, until: until}
	x.leases[x.token] = made
	x.pushEnd(made)
}

// endLease takes back the lease of an entry that has one.
func (x *Index) endLease(e *entry) {
	if !e.is(leased) {
		return
	}
	old := x.ends[e.pos]
	heap.Remove((*leaseHeap)(x), int(e.pos))
	delete(x.leases, old.token)
	e.set(leased, false)
	l := x.laneOf(e)
	l.leased--
	x.settledIn(l)
}

// told keeps what is known now of the entries that were leased, and takes those back that could not be read.
func (x *Index) told(views []view, leases []queue.Lease, now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := range leases {
		if l := x.leases[leases[i].Token]; l != nil {
			l.to = leases[i].Envelope.To
		}
	}
	for i := range views {
		v := &views[i]
		l := x.leases[v.token]
		switch {
		case l == nil:
		case v.err != nil:
			x.unreadable(l.entry, v.err, now)
		default:
			x.keep(v)
		}
	}
}

// keep keeps the words of a message of which other entries will be leased, too.
func (x *Index) keep(v *view) {
	if n := len(v.cached.Entries); n > 1 && x.cache.get(v.id, v.at) == nil {
		x.cache.add(v.id, v.cached, v.at, n-1)
	}
}

// unreadableWait is how long an entry waits whose words cannot be read for a reason that may pass.
const unreadableWait = time.Minute

// unreadable takes back the lease of an entry whose words could not be read. Damage does not pass: it is held, and the others of
// its lane go on.
func (x *Index) unreadable(n uint32, err error, now time.Time) {
	e := x.entries.at(n)
	x.endLease(e)
	if IsDamage(err) {
		x.setWhy(e, held, "it cannot be read: "+err.Error())
	} else {
		e.due, e.wait = x.clock.instant(now.Add(unreadableWait)), seconds(unreadableWait)
	}
	x.park(n, e)
	x.place(x.laneOf(e))
}

// next is when Lease may have more.
func (x *Index) next(now time.Time) time.Time {
	if !x.rings.empty() {
		return now
	}
	next := never
	earlier := func(t instant) {
		if next == never || t < next {
			next = t
		}
	}
	if len(x.timers) > 0 {
		earlier(x.timers[0].wake)
	}
	if len(x.closed) > 0 {
		earlier(x.closed[0].again)
	}
	if len(x.ends) > 0 {
		earlier(x.ends[0].until)
	}
	if next == never {
		return time.Time{}
	}
	return x.clock.time(next)
}

// beginLapse marks the entries whose leases have ended without a settlement.
func (x *Index) beginLapse(now time.Time) (found []target) {
	x.mu.Lock()
	defer x.mu.Unlock()
	at := x.clock.instant(now)
	for len(x.ends) > 0 && x.ends[0].until <= at {
		l := x.ends[0]
		l.until = at + instant(time.Second) // looked at again then, where its settlement is being written now
		heap.Fix((*leaseHeap)(x), 0)
		if e := x.entries.at(l.entry); x.isFree(e) {
			x.begin(e)
			found = append(found, x.target(l.entry))
		}
	}
	return found
}

// leaseHeap orders leases by their ends.
type leaseHeap Index

func (h *leaseHeap) Len() int           { return len(h.ends) }
func (h *leaseHeap) Less(i, j int) bool { return h.ends[i].until < h.ends[j].until }

func (h *leaseHeap) Swap(i, j int) {
	h.ends[i], h.ends[j] = h.ends[j], h.ends[i]
	h.entries.at(h.ends[i].entry).pos, h.entries.at(h.ends[j].entry).pos = uint32(i), uint32(j)
}

func (h *leaseHeap) Push(l any) {
	h.entries.at(l.(*lease).entry).pos = uint32(len(h.ends))
	h.ends = append(h.ends, l.(*lease))
}

func (h *leaseHeap) Pop() any {
	last := len(h.ends) - 1
	l := h.ends[last]
	h.ends[last] = nil
	h.ends = h.ends[:last]
	return l
}

func (x *Index) pushEnd(l *lease) { heap.Push((*leaseHeap)(x), l) }
