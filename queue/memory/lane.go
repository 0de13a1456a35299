package memory

import (
	"container/heap"
	"maps"
	"time"
)

// A lane holds the entries of one destination. At any time it stands in exactly one place: in the heap of lanes
// that wait for a time, in one of the rings of lanes that are ready, aside because it is full, or nowhere because nothing in it waits.
type lane struct {
	name    string
	levels  []level // the waiting entries; none is empty
	entries int     // of the lane in all
	first   *entry  // of them; each leads to the next, so that a change of one lane does not look through all others
	leased  int
	reach   map[*entry]struct{} // the waiting entries that are Unreached; nil until there is one
	paused  time.Time           // nothing is leased before; the zero time is no pause
	place   place
	pos     int       // in the heap of waiting lanes
	wake    time.Time // its key there
	in      tier      // of the ring in which it is
	slot    uint64    // its place there
	site    *site     // nil where none is known
}

type place uint8

const (
	nowhere place = iota
	inTimers
	inRing
	isFull
)

// join puts an entry among those of the lane.
func (l *lane) join(e *entry) {
	l.entries++
	if e.next = l.first; e.next != nil {
		e.next.previous = e
	}
	l.first = e
}

// start is the lane's first entry; nil where there is none, or no lane.
func (l *lane) start() *entry {
	if l == nil {
		return nil
	}
	return l.first
}

// leave takes it out.
func (l *lane) leave(e *entry) {
	l.entries--
	if e.next != nil {
		e.next.previous = e.previous
	}
	if e.previous != nil {
		e.previous.next = e.next
	} else {
		l.first = e.next
	}
	e.next, e.previous = nil, nil
}

// next is when the lane has something to lease.
func (l *lane) next() time.Time {
	due := l.levels[0].waiting[0].Due
	for i := range l.levels[1:] {
		if other := l.levels[i+1].waiting[0].Due; other.Before(due) {
			due = other
		}
	}
	if l.paused.After(due) {
		return l.paused
	}
	return due
}

// wait adds an entry to the waiting ones.
func (l *lane) wait(e *entry) {
	l.push(e)
	if e.Unreached {
		if l.reach == nil {
			l.reach = map[*entry]struct{}{}
		}
		l.reach[e] = struct{}{}
	}
}

// take takes an entry out of the waiting ones.
func (l *lane) take(e *entry) {
	l.pull(e)
	delete(l.reach, e)
}

// reached makes the entries due that wait because of the destination. What it costs goes with their number, and not with
// the length of the lane, because it may happen with every message that the destination takes.
func (l *lane) reached(now time.Time) {
	l.paused = time.Time{}
	for e := range l.reach {
		e.Unreached = false
		if e.Due.After(now) {
			e.Due, e.Wait = now, 0
			heap.Fix(&l.level(e.priority()).waiting, e.pos)
		}
	}
	clear(l.reach)
}

// pauses are those of lanes that have no entry just now.
type pauses struct {
	until map[string]time.Time
	now   time.Time // as the newest Lease told it
	most  int       // how many there are when those that are over are dropped
}

func (p *pauses) begin(lane string, until time.Time) {
	if !until.After(p.now) {
		return
	}
	if len(p.until) >= p.most {
		maps.DeleteFunc(p.until, func(_ string, until time.Time) bool { return !until.After(p.now) })
		p.most = 2*len(p.until) + 100
	}
	if until.After(p.until[lane]) {
		p.until[lane] = until
	}
}

// end gives when the pause of a lane ends, and forgets it.
func (p *pauses) end(lane string) time.Time {
	until := p.until[lane]
	delete(p.until, lane)
	return until
}

// entryHeap orders entries by the time they are due, then by the age of their message.
type entryHeap []*entry

func (h entryHeap) Len() int { return len(h) }

func (h entryHeap) Less(i, j int) bool {
	if !h[i].Due.Equal(h[j].Due) {
		return h[i].Due.Before(h[j].Due)
	}
	return h[i].msg.ID < h[j].msg.ID
}

func (h entryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i, j
}

func (h *entryHeap) Push(x any) {
	e := x.(*entry)
	e.pos = len(*h)
	*h = append(*h, e)
}

func (h *entryHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	e.pos = -1
	return e
}

// laneHeap orders lanes by the time at which they have something to lease.
type laneHeap []*lane

func (h laneHeap) Len() int           { return len(h) }
func (h laneHeap) Less(i, j int) bool { return h[i].wake.Before(h[j].wake) }

func (h laneHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i, j
}

func (h *laneHeap) Push(x any) {
	l := x.(*lane)
	l.pos = len(*h)
	*h = append(*h, l)
}

func (h *laneHeap) Pop() any {
	last := len(*h) - 1
	l := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return l
}

// leaseHeap orders leased entries by the end of their leases.
type leaseHeap []*entry

func (h leaseHeap) Len() int           { return len(h) }
func (h leaseHeap) Less(i, j int) bool { return h[i].until.Before(h[j].until) }

func (h leaseHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].lpos, h[j].lpos = i, j
}

func (h *leaseHeap) Push(x any) {
	e := x.(*entry)
	e.lpos = len(*h)
	*h = append(*h, e)
}

func (h *leaseHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return e
}

var (
	_ heap.Interface = (*entryHeap)(nil)
	_ heap.Interface = (*laneHeap)(nil)
	_ heap.Interface = (*leaseHeap)(nil)
)
