package memory

import (
	"container/heap"
	"time"
)

// A lane holds the entries of one destination. At any time it stands in exactly one place: in the heap of lanes
// that wait for a time, in the ring of lanes that are ready, aside because it is full, or nowhere because nothing in it waits.
type lane struct {
	name    string
	waiting entryHeap
	entries int // of the lane in all
	leased  int
	paused  time.Time // nothing is leased before; the zero time is no pause
	place   place
	pos     int       // in the heap of waiting lanes
	wake    time.Time // its key there
}

type place uint8

const (
	nowhere place = iota
	inTimers
	inRing
	isFull
)

// next is when the lane has something to lease.
func (l *lane) next() time.Time {
	due := l.waiting[0].Due
	if l.paused.After(due) {
		return l.paused
	}
	return due
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

// reheap restores the order of a lane's waiting entries after their times changed.
func reheap(l *lane) { heap.Init(&l.waiting) }
