package memory

import (
	"fmt"
	"slices"
	"time"

	"github.com/sortie-mail/sortie/queue"
)

// Op is a change of entries other than a settlement.
type Op string

// The changes of [queue.Inspector], and Lapse: a lease has ended without a settlement.
const (
	Hold    Op = "hold"
	Release Op = "release"
	Retry   Op = "retry"
	Fail    Op = "fail"
	Delete  Op = "delete"
	Lapse   Op = "lapse"
)

// A target is an entry to change. Its number may be another's by the time that somebody looks.
type target struct {
	id    uint64
	lane  string
	entry uint32
}

func (x *Index) target(n uint32) target {
	e := x.entries.at(n)
	return target{x.messageOf(e).id, x.laneOf(e).name, n}
}

// resolve gives the entry of a target, nil where it is gone.
func (x *Index) resolve(t target) *entry {
	m := x.order.get(t.id)
	if m == 0 {
		return nil
	}
	numbers := x.entriesOf(m, x.messages.at(m))
	if i, ok := x.find(numbers, t.lane); ok && numbers[i] == t.entry {
		return x.entries.at(t.entry)
	}
	return nil
}

func (x *Index) isFree(e *entry) bool { return !e.is(busy) && x.messageOf(e).flags&moving == 0 }

func (x *Index) begin(e *entry) {
	e.set(busy, true)
	x.messageOf(e).busy++
}

func (x *Index) end(e *entry) {
	if e.is(busy) {
		e.set(busy, false)
		x.messageOf(e).busy--
		x.free.Broadcast()
	}
}

// abort ends changes that could not be written or need not be: the entries are as they were.
func (x *Index) abort(targets []target) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, t := range targets {
		if e := x.resolve(t); e != nil {
			x.end(e)
		}
	}
}

// How many entries a change writes at once; and how many it marks at once of which the words must be read first, so that
// those that it is not about are not marked for long.
const (
	maxKeys = 50_000
	maxRead = 1_000
)

// Change applies op to the entries that match f: each is marked, written with others of its kind, and changed. Of
// leased entries only Hold and Delete take hold. It waits for entries that are being changed otherwise, holding no other
// meanwhile, and looks at them again then. With an error, n entries were changed, and the others are as they were; where it is
// about words that cannot be read, they are all those of which it is known that they match.
func (x *Index) Change(op Op, why string, f queue.Filter, now time.Time, write func([]Key) error) (n int, err error) {
	s := x.searchFor(f, now)
	all := x.targets(op, &s)
	most := maxKeys
	if s.words {
		most = maxRead
	}
	for part := range slices.Chunk(all, most) {
		done, err := x.changePart(op, why, &s, part, write)
		n += done
		if err != nil {
			return n, err
		}
	}
	return n, s.unread
}

// changePart changes those of some entries that match.
func (x *Index) changePart(op Op, why string, s *search, part []target, write func([]Key) error) (n int, err error) {
	for len(part) > 0 {
		var views []view
		var mine []target
		mine, views, part = x.claim(op, s, part)
		if s.words {
			mine = x.matching(s, mine, views)
		}
		done, err := x.commit(op, why, mine, s.now, write)
		n += done
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// targets gives the entries that may match.
func (x *Index) targets(op Op, s *search) (all []target) {
	x.mu.Lock()
	defer x.mu.Unlock()
	l := x.lanes[s.lane]
	x.scan(s, func(n uint32) bool {
		e := x.entries.at(n)
		if x.may(s, l, e) && (!x.isFree(e) || (op.applies(e) && s.state(e))) { // what a busy one will be is seen then
			all = append(all, x.target(n))
		}
		return true
	})
	return all
}

// claim marks those of some entries that match and are free. Where none is free it waits for one of the busy ones.
func (x *Index) claim(op Op, s *search, part []target) (mine []target, views []view, busy []target) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for {
		for _, t := range part {
			e := x.resolve(t)
			switch {
			case e == nil:
			case !x.isFree(e):
				busy = append(busy, t)
			case op.applies(e) && s.state(e):
				x.begin(e)
				mine = append(mine, t)
				if s.words {
					views = append(views, x.view(t.entry))
				}
			}
		}
		if len(busy) < len(part) {
			return mine, views, busy
		}
		busy = nil
		x.free.Wait()
	}
}

// matching gives those of some marked entries whose words match, and takes the mark off the others.
func (x *Index) matching(s *search, mine []target, views []view) (match []target) {
	var others []target
	i := 0
	x.readAll(views, func(v *view, m *Message, e *Entry) {
		matches := false
		if v.err == nil {
			info := v.info(m, e)
			matches = s.f.Matches(&info, s.now)
		} else if s.unread == nil {
			s.unread = fmt.Errorf("whether %s for %s is meant cannot be told: %w", v.ID, v.Lane, v.err)
		}
		if matches {
			match = append(match, mine[i])
		} else {
			others = append(others, mine[i])
		}
		i++
	})
	x.abort(others)
	return match
}

// Lapse ends the leases that have ended without a settlement. Backends call it before Lease. The attempt counts: a
// message that kills its worker must not be tried at full speed for ever.
func (x *Index) Lapse(now time.Time, write func([]Key) error) error {
	_, err := x.commit(Lapse, "", x.beginLapse(now), now, write)
	return err
}

// commit writes a change that was begun, and applies it.
func (x *Index) commit(op Op, why string, targets []target, now time.Time, write func([]Key) error) (n int, err error) {
	for part := range slices.Chunk(targets, maxKeys) {
		if err := write(named(part)); err != nil {
			x.abort(targets[n:])
			return n, err
		}
		x.apply(op, why, part, now)
		n += len(part)
	}
	return n, nil
}

func named(part []target) []Key {
	keys := make([]Key, len(part))
	for i, t := range part {
		keys[i] = Key{encodeID(t.id), t.lane}
	}
	return keys
}

func (op Op) applies(e *entry) bool {
	switch op {
	case Release:
		return e.is(held)
	case Retry:
		return !e.is(held | leased)
	case Fail:
		return !e.is(leased)
	}
	return op == Delete || op == Hold // holding what is held gives it another reason
}

// Apply applies a change when a log is read again. Keys without an entry are passed over.
func (x *Index) Apply(op Op, why string, keys []Key, now time.Time) {
	var part []target
	x.mu.Lock()
	for _, k := range keys {
		if n := x.entry(k); n != 0 {
			part = append(part, x.target(n))
		}
	}
	x.mu.Unlock()
	x.apply(op, why, part, now)
}

func (x *Index) apply(op Op, why string, part []target, now time.Time) {
	if len(part) == 0 {
		return
	}
	x.mu.Lock()
	at := x.clock.instant(now)
	var all []gone
	for _, t := range part {
		if e := x.resolve(t); e != nil {
			x.end(e)
			all = x.change(t.entry, e, op, why, at, all)
		}
	}
	x.signal()
	x.mu.Unlock()
	x.release(all)
}

func (x *Index) change(n uint32, e *entry, op Op, why string, now instant, all []gone) []gone {
	if op == Delete {
		return x.drop(n, e, all)
	}
	l := x.laneOf(e)
	x.unpark(e)
	switch op {
	case Hold:
		x.setWhy(e, held, why)
	case Release:
		x.setWhy(e, 0, "")
		e.dueAt(now)
	case Retry:
		e.dueAt(now)
		l.paused, l.again = never, never
	case Fail:
		x.setWhy(e, failing, why)
		e.dueAt(now)
		l.paused, l.again = never, never
	case Lapse:
		x.endLease(e)
		e.count()
	}
	if !e.is(leased) {
		x.park(n, e)
	}
	x.place(l) // its pause may have ended
	return all
}

// dueAt makes the entry due because a person says so.
func (e *entry) dueAt(now instant) {
	e.due, e.wait = now, 0
	e.set(unreached, false)
}
