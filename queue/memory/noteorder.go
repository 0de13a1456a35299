package memory

import (
	"container/heap"
	"slices"
)

// noteHeap has the note that ends first in front; those without end are last.
type noteHeap []*note

func (h noteHeap) Len() int { return len(h) }

func (h noteHeap) Less(i, j int) bool {
	a, b := h[i].ends, h[j].ends
	return !a.IsZero() && (b.IsZero() || a.Before(b))
}

func (h noteHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i, j
}

func (h *noteHeap) Push(x any) {
	n := x.(*note)
	n.pos = len(*h)
	*h = append(*h, n)
}

func (h *noteHeap) Pop() any {
	last := len(*h) - 1
	n := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return n
}

// noteOrder holds notes by key, so that a list of all takes one pass however many pages it has. New ones are sorted in when
// somebody looks.
type noteOrder struct {
	all, added []*note
	gone       int
}

func (o *noteOrder) add(n *note) { o.added = append(o.added, n) }

// remove leaves the note to the next tidying, which comes before half of all are such.
func (o *noteOrder) remove(n *note) {
	n.gone = true
	if o.gone++; o.gone > (len(o.all)+len(o.added))/2 {
		isGone := func(n *note) bool { return n.gone }
		o.all, o.added, o.gone = slices.DeleteFunc(o.all, isGone), slices.DeleteFunc(o.added, isGone), 0
	}
}

// keyed is a note with its key, which can be read without the lock.
type keyed struct {
	key string
	*note
}

func (o *noteOrder) take() []keyed {
	added := make([]keyed, len(o.added))
	for i, n := range o.added {
		added[i] = keyed{n.Key, n}
	}
	o.added = nil
	return added
}

func (o *noteOrder) merge(b []keyed) {
	merged := make([]*note, 0, len(o.all)+len(b))
	for a := o.all; len(a)+len(b) > 0; {
		if len(b) == 0 || (len(a) > 0 && a[0].Key <= b[0].key) {
			merged, a = append(merged, a[0]), a[1:]
		} else {
			merged, b = append(merged, b[0].note), b[1:]
		}
	}
	o.all = merged
}

var _ heap.Interface = (*noteHeap)(nil)
