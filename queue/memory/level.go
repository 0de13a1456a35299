package memory

import (
	"container/heap"
	"slices"
	"time"

	"github.com/sortie-mail/sortie/queue"
)

// A level holds the waiting entries of one priority in a lane. Most lanes have one.
type level struct {
	priority int
	waiting  entryHeap
}

func (e *entry) priority() int { return e.msg.Envelope.Priority }

// turn is when the entry would have become due to stand where its priority puts it. It does not change while the entry waits,
// so that what comes later passes it for a bounded time only.
func (e *entry) turn() time.Time {
	return e.Due.Add(-time.Duration(e.priority()) * queue.PriorityStep)
}

// level gives the level of a priority, and makes it where there is none. They stand in order, the highest first.
func (l *lane) level(priority int) *level {
	i, ok := slices.BinarySearchFunc(l.levels, priority, func(v level, priority int) int { return priority - v.priority })
	if !ok {
		l.levels = slices.Insert(l.levels, i, level{priority: priority})
	}
	return &l.levels[i]
}

// push adds an entry to those of its level.
func (l *lane) push(e *entry) { heap.Push(&l.level(e.priority()).waiting, e) }

// pull takes an entry out of its level, and an empty level out of the lane.
func (l *lane) pull(e *entry) {
	v := l.level(e.priority())
	heap.Remove(&v.waiting, e.pos)
	if len(v.waiting) == 0 {
		l.levels = slices.DeleteFunc(l.levels, func(v level) bool { return len(v.waiting) == 0 })
	}
}

// best is the entry whose turn it is of those that are due; nil where none is.
func (l *lane) best(now time.Time) (best *entry) {
	for i := range l.levels {
		e := l.levels[i].waiting[0]
		if !e.Due.After(now) && (best == nil || e.turn().Before(best.turn())) {
			best = e
		}
	}
	return best
}

// A tier says before which other lanes a lane has its turns.
type tier uint8

const (
	above  tier = iota // something of more than the normal priority is due
	normal             // something of the normal priority is
	below              // all that is due is below it

	tiers
)

func tierOf(priority int) tier {
	switch {
	case priority > 0:
		return above
	case priority == 0:
		return normal
	}
	return below
}

// tier is that of the lane, by the highest priority that is due.
func (l *lane) tier(now time.Time) tier {
	for i := range l.levels {
		if v := &l.levels[i]; !v.waiting[0].Due.After(now) {
			return tierOf(v.priority)
		}
	}
	return below
}
