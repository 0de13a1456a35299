package memory

import (
	"slices"

	"github.com/sortie-mail/sortie/queue"
)

// A level holds the waiting entries of one priority in a lane, in flows by sender that have turns. Most lanes have one level, and
// most levels one flow: while they are few, all entries are in one, because then nobody waits for long.
type level struct {
	priority int8
	split    bool  // by sender
	turn     uint8 // which of the flows is next
	flows    []flow
}

// A flow is a heap of entries by the time they are due, then by the age of their message.
type flow struct {
	key  uint8
	heap []uint32
}

// splitOver is how many entries a level may have in one flow: as many as it has flows at most, so that it makes no sender wait
// for longer than flows do. joinUnder is at how many they come together again.
const (
	splitOver = flows
	joinUnder = flows / 4
)

func (v *level) waiting() (n int) {
	for i := range v.flows {
		n += len(v.flows[i].heap)
	}
	return n
}

// turnOf is when an entry would have become due to stand where its priority puts it. It does not change while the entry waits,
// so that what comes later passes it for a bounded time only.
func turnOf(due instant, priority int8) instant {
	return due - instant(priority)*instant(queue.PriorityStep)
}

// level gives the level of a priority, and makes it where there is none. They stand in order, the highest first.
func (l *lane) level(priority int8) *level {
	i, ok := slices.BinarySearchFunc(l.levels, priority, func(v level, priority int8) int { return int(priority) - int(v.priority) })
	if !ok {
		l.levels = slices.Insert(l.levels, i, level{priority: priority})
	}
	return &l.levels[i]
}

// flow gives the flow of a sender, and makes it where there is none.
func (v *level) flow(sender uint32) *flow {
	key := uint8(0)
	if v.split {
		key = flowOf(sender)
	}
	for i := range v.flows {
		if v.flows[i].key == key {
			return &v.flows[i]
		}
	}
	v.flows = append(v.flows, flow{key: key})
	return &v.flows[len(v.flows)-1]
}

// push adds an entry to those of its level.
func (x *Index) push(l *lane, n uint32, e *entry) {
	m := x.messageOf(e)
	v := l.level(m.priority)
	if !v.split && len(v.flows) == 1 && len(v.flows[0].heap) >= splitOver {
		x.split(v, true)
	}
	x.pushFlow(v.flow(m.sender), n, e)
}

// split takes the entries of a level apart by sender, or puts them together.
func (x *Index) split(v *level, apart bool) {
	old := v.flows
	v.split, v.turn, v.flows = apart, 0, nil
	for i := range old {
		for _, n := range old[i].heap {
			e := x.entries.at(n)
			x.pushFlow(v.flow(x.messageOf(e).sender), n, e)
		}
	}
}

// pull takes an entry out of its level, and what is empty then out of the lane.
func (x *Index) pull(l *lane, e *entry) {
	m := x.messageOf(e)
	v := l.level(m.priority)
	f := v.flow(m.sender)
	x.removeFlow(f, int(e.pos))
	left := len(f.heap)
	switch {
	case left > 0:
	case len(v.flows) == 1:
		l.levels = slices.DeleteFunc(l.levels, func(v level) bool { return v.priority == m.priority })
		return
	default:
		i := slices.IndexFunc(v.flows, func(o flow) bool { return o.key == f.key })
		v.flows = slices.Delete(v.flows, i, i+1)
		if int(v.turn) > i {
			v.turn--
		}
	}
	if v.split && left < joinUnder && v.waiting() < joinUnder {
		x.split(v, false)
	}
}

// due is when the level has something to lease.
func (x *Index) due(v *level) instant {
	due := x.entries.at(v.flows[0].heap[0]).due
	for i := range v.flows[1:] {
		due = min(due, x.entries.at(v.flows[i+1].heap[0]).due)
	}
	return due
}

// best gives the entry whose turn it is of those of a lane that are due; 0 where none is. Of the levels it is the one where
// something has waited for longest, and of its flows the next one that has something due.
func (x *Index) best(l *lane, now instant) uint32 {
	var chosen *level
	var turn instant
	for i := range l.levels {
		v := &l.levels[i]
		if due := x.due(v); due <= now && (chosen == nil || turnOf(due, v.priority) < turn) {
			chosen, turn = v, turnOf(due, v.priority)
		}
	}
	if chosen == nil {
		return 0
	}
	return x.nextOf(chosen, now)
}

// nextOf gives the first entry of the flow whose turn it is, of a level in which something is due.
func (x *Index) nextOf(v *level, now instant) uint32 {
	for range v.flows {
		if int(v.turn) >= len(v.flows) {
			v.turn = 0
		}
		f := &v.flows[v.turn]
		v.turn++
		if n := f.heap[0]; x.entries.at(n).due <= now {
			return n
		}
	}
	return 0
}

// A tier says before which other lanes a lane has its turns.
type tier uint8

const (
	above  tier = iota // something of more than the normal priority is due
	normal             // something of the normal priority is
	below              // all that is due is below it

	tiers
)

func tierOf(priority int8) tier {
	switch {
	case priority > 0:
		return above
	case priority == 0:
		return normal
	}
	return below
}

// tier is that of the lane, by the highest priority that is due.
func (x *Index) tier(l *lane, now instant) tier {
	for i := range l.levels {
		if v := &l.levels[i]; x.due(v) <= now {
			return tierOf(v.priority)
		}
	}
	return below
}

// less is the order of a flow.
func (x *Index) less(a, b uint32) bool {
	e, f := x.entries.at(a), x.entries.at(b)
	if e.due != f.due {
		return e.due < f.due
	}
	return x.messageOf(e).id < x.messageOf(f).id
}

func (x *Index) pushFlow(f *flow, n uint32, e *entry) {
	e.pos = uint32(len(f.heap))
	f.heap = append(f.heap, n)
	x.up(f.heap, len(f.heap)-1)
}

func (x *Index) removeFlow(f *flow, i int) {
	last := len(f.heap) - 1
	moved := f.heap[last]
	f.heap = f.heap[:last]
	if i == last {
		return
	}
	f.heap[i] = moved
	x.entries.at(moved).pos = uint32(i)
	if !x.down(f.heap, i) {
		x.up(f.heap, i)
	}
	if c := cap(f.heap); c > 1024 && len(f.heap) < c/4 { // a burst is over
		f.heap = append(make([]uint32, 0, c/2), f.heap...)
	}
}

func (x *Index) up(h []uint32, i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !x.less(h[i], h[parent]) {
			return
		}
		x.swap(h, i, parent)
		i = parent
	}
}

// down reports whether the entry has moved.
func (x *Index) down(h []uint32, i int) bool {
	start := i
	for {
		child := 2*i + 1
		if child >= len(h) {
			break
		}
		if child+1 < len(h) && x.less(h[child+1], h[child]) {
			child++
		}
		if !x.less(h[child], h[i]) {
			break
		}
		x.swap(h, i, child)
		i = child
	}
	return i > start
}

func (x *Index) swap(h []uint32, i, j int) {
	h[i], h[j] = h[j], h[i]
	x.entries.at(h[i]).pos, x.entries.at(h[j]).pos = uint32(i), uint32(j)
}

// heapify makes a flow of entries whose times have changed.
func (x *Index) heapify(h []uint32) {
	for i := len(h)/2 - 1; i >= 0; i-- {
		x.down(h, i)
	}
}
