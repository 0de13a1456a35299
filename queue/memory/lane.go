package memory

import (
	"container/heap"
	"maps"
)

// A lane holds the entries of one destination. At any time it stands in exactly one place: in the heap of lanes
// that wait for a time, in one of the rings of lanes that are ready, aside because it or its site is full, or nowhere because
// nothing in it waits.
type lane struct {
	name      string
	number    uint32
	entries   uint32 // of the lane in all
	leased    uint32
	unreached uint32   // of the waiting entries
	levels    []level  // the waiting entries; none is empty
	held      []uint32 // the entries that are held and not leased
	paused    instant  // nothing is leased before
	again     instant  // the caller has no room before, unless something is settled
	wake      instant  // its key in the heap of waiting lanes
	site      *site    // nil where none is known
	slot      uint64   // its place in the ring
	pos       int32    // in the heap of waiting lanes
	in        tier     // of the ring in which it is
	place     standing
}

// A standing says where a lane stands.
type standing uint8

const (
	nowhere standing = iota
	inTimers
	inRing
	isFull
	inSite // its site is full
)

// next is when the lane has something to lease.
func (x *Index) nextIn(l *lane) instant {
	due := x.due(&l.levels[0])
	for i := range l.levels[1:] {
		due = min(due, x.due(&l.levels[i+1]))
	}
	return max(due, l.paused, l.again)
}

// lane gives the lane of a name, and makes it where there is none.
func (x *Index) lane(name string) *lane {
	l := x.lanes[name]
	if l != nil {
		return l
	}
	l = &lane{name: string([]byte(name)), again: never} // not a part of what the caller read
	l.paused = x.pauses.end(name)
	if last := len(x.spare) - 1; last >= 0 {
		l.number = x.spare[last]
		x.spare = x.spare[:last]
	} else {
		x.table = append(x.table, nil)
		l.number = uint32(len(x.table) - 1)
	}
	x.table[l.number] = l
	x.lanes[l.name] = l
	return l
}

// forget drops a lane that has no entries, so that a lane costs nothing once its mail is gone.
func (x *Index) forget(l *lane) {
	if l.entries > 0 || l.place != nowhere || x.table[l.number] != l {
		return
	}
	x.exit(l)
	delete(x.lanes, l.name)
	x.table[l.number] = nil
	x.spare = append(x.spare, l.number)
	x.pauses.begin(l.name, l.paused)
}

// park puts an entry that is not leased where it belongs: among the waiting or the held ones of its lane.
func (x *Index) park(n uint32, e *entry) {
	l := x.laneOf(e)
	if e.is(held) {
		e.set(inHeld, true)
		e.pos = uint32(len(l.held))
		l.held = append(l.held, n)
		x.held++
		return
	}
	e.set(inFlow, true)
	x.push(l, n, e)
	if e.is(unreached) {
		l.unreached++
	}
	if e.pos == 0 {
		x.place(l)
	}
	x.promote(l, e)
}

// unpark takes an entry out of where park has put it.
func (x *Index) unpark(e *entry) {
	l := x.laneOf(e)
	switch {
	case e.is(inHeld):
		e.set(inHeld, false)
		last := len(l.held) - 1
		moved := l.held[last]
		l.held[e.pos] = moved
		x.entries.at(moved).pos = e.pos
		if l.held = l.held[:last]; last == 0 {
			l.held = nil
		}
		x.held--
	case e.is(inFlow):
		x.take(l, e)
		x.place(l)
	}
}

// take takes an entry out of the waiting ones.
func (x *Index) take(l *lane, e *entry) {
	e.set(inFlow, false)
	x.pull(l, e)
	if e.is(unreached) {
		l.unreached--
	}
}

// place puts a lane where it belongs after its waiting entries or its pause changed. A lane that is ready or
// full stays there until Lease looks at it.
func (x *Index) place(l *lane) {
	switch {
	case l.place == inSite && len(l.levels) == 0:
		l.place = nowhere
	case l.place == inRing || l.place == isFull || l.place == inSite:
		return
	}
	if len(l.levels) == 0 {
		if l.place == inTimers {
			heap.Remove(&x.timers, int(l.pos))
			l.place = nowhere
		}
		x.forget(l)
		return
	}
	l.wake = x.nextIn(l)
	if l.place == inTimers {
		heap.Fix(&x.timers, int(l.pos))
		return
	}
	l.place = inTimers
	heap.Push(&x.timers, l)
}

// reached makes the entries due that wait because of the destination. It looks through the lane where there are such, and makes
// sure that there are none the next time.
func (x *Index) reached(l *lane, now instant) {
	l.paused, l.again = never, never
	if l.unreached == 0 {
		return
	}
	l.unreached = 0
	for i := range l.levels {
		for k := range l.levels[i].flows {
			h := l.levels[i].flows[k].heap
			for _, n := range h {
				e := x.entries.at(n)
				if e.is(unreached) && e.due > now {
					e.due, e.wait = now, 0
				}
				e.set(unreached, false)
			}
			x.heapify(h)
		}
	}
}

// pauses are those of lanes that have no entry just now.
type pauses struct {
	until map[string]instant
	now   instant // as the newest Lease told it
	most  int     // how many there are when those that are over are dropped
}

func (p *pauses) begin(lane string, until instant) {
	if until <= p.now {
		return
	}
	if len(p.until) >= p.most {
		maps.DeleteFunc(p.until, func(_ string, until instant) bool { return until <= p.now })
		p.most = 2*len(p.until) + 100
	}
	p.until[lane] = max(until, p.end(lane))
}

// end gives when the pause of a lane ends, and forgets it.
func (p *pauses) end(lane string) instant {
	until, ok := p.until[lane]
	if !ok {
		return never
	}
	delete(p.until, lane)
	return until
}

// laneHeap orders lanes by the time at which they have something to lease.
type laneHeap []*lane

func (h laneHeap) Len() int           { return len(h) }
func (h laneHeap) Less(i, j int) bool { return h[i].wake < h[j].wake }

func (h laneHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = int32(i), int32(j)
}

func (h *laneHeap) Push(x any) {
	l := x.(*lane)
	l.pos = int32(len(*h))
	*h = append(*h, l)
}

func (h *laneHeap) Pop() any {
	last := len(*h) - 1
	l := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return l
}
