package memory

import (
	"math"
	"time"

	"github.com/sortie-mail/sortie/queue"
)

// An Outcome is what the index needs to know of a settlement.
type Outcome struct {
	End       bool      // no recipient is left
	Counts    bool      // the attempt counts
	Next      time.Time // see [queue.Settlement], like all that follow
	Hold      string
	Unreached bool
	Pause     time.Duration
	Wake      bool
	WakeLanes []string
	Site      string

	// Mark is where the settlement is. Whole says that all of the entry's words are there, and not only what has changed.
	Mark  Mark
	Whole bool
}

// OutcomeOf is that of a settlement after which no recipient is left, or some.
func OutcomeOf(s *queue.Settlement, end bool) Outcome {
	return Outcome{
		End: end, Counts: !s.Attempt.Time.IsZero(), Next: s.Next, Hold: s.Hold, Unreached: s.Unreached,
		Pause: s.Pause, Wake: s.Wake, WakeLanes: s.WakeLanes, Site: s.Site,
	}
}

// A Settling is an entry that is marked as being settled.
type Settling struct {
	Key
	To    []queue.Recipient // that are not settled yet
	Last  Mark              // of the settlement before; the zero Mark is none
	Chain int               // settlements from Last on back to a record that has all words of the entry

	view view
}

// BeginSettle marks a leased entry as being settled. It fails with [queue.ErrLeaseLost].
func (x *Index) BeginSettle(l queue.Lease) (Settling, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for {
		made := x.leases[l.Token]
		if made == nil {
			return Settling{}, queue.ErrLeaseLost
		}
		e := x.entries.at(made.entry)
		if k := x.key(e); k.ID != l.ID || k.Lane != l.Lane {
			return Settling{}, queue.ErrLeaseLost
		}
		if x.isFree(e) {
			x.begin(e)
			v := x.view(made.entry)
			return Settling{Key: v.Key, To: made.to, Last: e.last, Chain: int(e.chain), view: v}, nil
		}
		x.free.Wait()
	}
}

// Words gives the entry that is being settled, with its recipients and history.
func (x *Index) Words(s Settling) (Entry, error) {
	v := s.view
	_, e, err := x.read(&v)
	return e, err
}

// AbortSettle ends a settlement that could not be written: the lease is as it was.
func (x *Index) AbortSettle(s Settling) { x.abort([]target{{s.view.id, s.Lane, s.view.entry}}) }

// CommitSettle applies a settlement made at now, and adds the reports that came with it.
func (x *Index) CommitSettle(s Settling, o Outcome, now time.Time, reports ...Placed) {
	x.Settled(s.Key, o, now, reports...)
}

// Settled does so when a log is read again. The entry may be gone whose message is in an older part that was given back; its
// reports live on.
func (x *Index) Settled(k Key, o Outcome, now time.Time, reports ...Placed) {
	for i := range reports {
		if !reports[i].Bare {
			reports[i].Split()
		}
	}
	x.mu.Lock()
	var all []gone
	if n := x.entry(k); n != 0 {
		e := x.entries.at(n)
		x.end(e)
		x.endLease(e)
		all = x.settle(n, e, &o, now)
	}
	for _, m := range reports {
		x.add(m)
	}
	x.hint(k.Lane, &o, now)
	x.signal()
	x.mu.Unlock()
	x.release(all)
}

// settle writes the outcome into the entry, and drops it where no recipient is left.
func (x *Index) settle(n uint32, e *entry, o *Outcome, now time.Time) []gone {
	x.unpark(e) // it waits only where a log is read again: there it was never leased
	if o.End {
		return x.drop(n, e, nil)
	}
	if o.Counts {
		e.count()
	}
	if e.last = o.Mark; o.Whole {
		e.chain = 0
	} else {
		e.chain++
	}
	e.set(unreached, o.Unreached)
	next, wait := o.Next, max(o.Next.Sub(now), 0)
	if o.Next.IsZero() {
		next, wait = now, 0
	}
	e.due, e.wait = x.clock.instant(next), seconds(wait)
	if o.Hold != "" {
		x.setWhy(e, held, o.Hold)
	}
	x.park(n, e)
	return nil
}

func (e *entry) count() {
	if e.attempts < math.MaxUint16 {
		e.attempts++
	}
}

// hint applies what a settlement says about its lane and others. A pause outlives the lane's last entry, and a shorter one
// does not end a longer one.
func (x *Index) hint(name string, o *Outcome, now time.Time) {
	for _, other := range o.WakeLanes {
		x.hint(other, &Outcome{Wake: true}, now)
	}
	l := x.lanes[name]
	if l != nil {
		x.enter(l, o.Site)
		l = x.lanes[name]
	}
	at := x.clock.instant(now)
	until := at + instant(o.Pause)
	switch {
	case o.Wake && l != nil:
		x.reached(l, at)
		x.place(l)
	case o.Wake:
		x.pauses.end(name)
	case o.Pause <= 0:
	case l == nil:
		x.pauses.begin(name, until)
	case until > l.paused:
		l.paused = until
		x.place(l)
	}
}
