package memory

import (
	"iter"
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

// BeginSettle marks a leased entry as being settled. It fails with [queue.ErrLeaseLost].
func (x *Index) BeginSettle(l queue.Lease) (Key, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for {
		e := x.leases[l.Token]
		switch {
		case e == nil || e.msg.ID != l.ID || e.Lane != l.Lane:
			return Key{}, queue.ErrLeaseLost
		case !e.busy && !e.msg.moving:
			x.begin(e)
			return e.key(), nil
		}
		x.free.Wait()
	}
}

func (x *Index) begin(e *entry) {
	e.busy = true
	e.msg.busy++
}

func (x *Index) end(e *entry) {
	if e.busy {
		e.busy = false
		e.msg.busy--
		x.free.Broadcast()
	}
}

// Abort ends changes that could not be written: the entries are as they were.
func (x *Index) Abort(keys ...Key) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, k := range keys {
		if e := x.entry(k); e != nil {
			x.end(e)
		}
	}
}

func (x *Index) entry(k Key) *entry {
	if m := x.messages[k.ID]; m != nil {
		return m.entry(k.Lane)
	}
	return nil
}

// CommitSettle applies a settlement made at now, and adds the reports that came with it. The entry may be gone when
// a log is read again whose older part was given back; its reports live on.
func (x *Index) CommitSettle(k Key, s queue.Settlement, now time.Time, reports []Message) {
	x.mu.Lock()
	var gone *Message
	if e := x.entry(k); e != nil {
		x.end(e)
		x.endLease(e)
		gone = x.settle(e, s, now)
	}
	for _, m := range reports {
		x.add(m)
	}
	x.hint(k.Lane, s, now)
	x.signal()
	x.mu.Unlock()
	x.release(gone)
}

func (x *Index) release(gone ...*Message) {
	for _, m := range gone {
		if m != nil && x.dropped != nil {
			x.dropped(*m)
		}
	}
}

// settle writes the outcome into the entry, and drops it where no recipient is left.
func (x *Index) settle(e *entry, s queue.Settlement, now time.Time) (gone *Message) {
	x.unpark(e) // it waits only where a log is read again: there it was never leased
	e.To = without(e.To, s.Done)
	if len(e.To) == 0 {
		return x.drop(e)
	}
	if !s.Attempt.Time.IsZero() {
		e.Attempts++
		e.History = append(e.History, s.Attempt)
		if over := len(e.History) - queue.MaxHistory; over > 0 {
			e.History = slices.Delete(e.History, 0, over)
		}
	}
	e.Warned = append(e.Warned, s.Warned...)
	e.Unreached = s.Unreached
	e.Due, e.Wait = s.Next, max(s.Next.Sub(now), 0)
	if s.Next.IsZero() {
		e.Due, e.Wait = now, 0
	}
	if s.Hold != "" {
		e.Held, e.Why, e.Fail = true, s.Hold, ""
	}
	x.park(e)
	return nil
}

// without gives the recipients that are not settled, in one pass: an entry may have tens of thousands.
func without(to []queue.Recipient, done []string) []queue.Recipient {
	if len(done) == 0 {
		return to
	}
	settled := make(map[string]struct{}, len(done))
	for _, address := range done {
		settled[address] = struct{}{}
	}
	var rest []queue.Recipient
	for _, r := range to {
		if _, ok := settled[r.Address]; !ok {
			rest = append(rest, r)
		}
	}
	return rest
}

// hint applies what a settlement says about its lane and others. A pause outlives the lane's last entry, and a shorter one
// does not end a longer one.
func (x *Index) hint(name string, s queue.Settlement, now time.Time) {
	for _, other := range s.WakeLanes {
		x.hint(other, queue.Settlement{Wake: true}, now)
	}
	l := x.lanes[name]
	if l != nil {
		x.enter(l, s.Site)
	}
	until := now.Add(s.Pause)
	switch {
	case s.Wake && l != nil:
		l.reached(now)
		x.place(l)
	case s.Wake:
		x.pauses.end(name)
	case s.Pause <= 0:
	case l == nil:
		x.pauses.begin(name, until)
	case until.After(l.paused):
		l.paused = until
		x.place(l)
	}
}

// maxKeys is how many entries a change writes at once.
const maxKeys = 50_000

// Change applies op to the entries that match f: each is marked, written with others of its kind, and changed. Of
// leased entries only Hold and Delete take hold. It waits for entries that are being changed otherwise, holding no other
// meanwhile, and looks at them again then. With an error, n entries were changed, and the others are as they were.
func (x *Index) Change(op Op, why string, f queue.Filter, now time.Time, write func([]Key) error) (n int, err error) {
	keys, busy := x.beginChange(op, f, now)
	for {
		done, err := x.commit(op, why, keys, now, write)
		n += done
		if err != nil || len(busy) == 0 {
			return n, err
		}
		keys, busy = x.beginRest(op, f, now, busy)
	}
}

// Lapse ends the leases that have ended without a settlement. Backends call it before Lease. The attempt counts: a
// message that kills its worker must not be tried at full speed for ever.
func (x *Index) Lapse(now time.Time, write func([]Key) error) error {
	_, err := x.commit(Lapse, "", x.beginLapse(now), now, write)
	return err
}

// commit writes a change that was begun, and applies it.
func (x *Index) commit(op Op, why string, keys []Key, now time.Time, write func([]Key) error) (n int, err error) {
	for part := range slices.Chunk(keys, maxKeys) {
		if err := write(part); err != nil {
			x.Abort(keys[n:]...)
			return n, err
		}
		x.CommitChange(op, why, part, now)
		n += len(part)
	}
	return n, nil
}

// beginChange marks the entries to change. busy are those that are being changed otherwise now.
func (x *Index) beginChange(op Op, f queue.Filter, now time.Time) (keys, busy []Key) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for e := range x.among(&f) {
		if x.claim(op, e, &f, now, &busy) {
			keys = append(keys, e.key())
		}
	}
	return keys, busy
}

// among gives the entries that a filter may match: of one message, of one lane, or all.
func (x *Index) among(f *queue.Filter) iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		if l := x.lanes[f.Lane]; f.Lane != "" && f.ID == "" {
			for e := l.start(); e != nil && yield(e); e = e.next {
			}
			return
		}
		for m := range x.from("", f.ID) {
			for _, e := range m.entries {
				if !yield(e) {
					return
				}
			}
		}
	}
}

// beginRest waits until one of the busy entries is free, and marks those that are.
func (x *Index) beginRest(op Op, f queue.Filter, now time.Time, busy []Key) (keys, still []Key) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for {
		keys, still = nil, nil
		for _, k := range busy {
			if e := x.entry(k); e != nil && x.claim(op, e, &f, now, &still) {
				keys = append(keys, k)
			}
		}
		if len(still) < len(busy) {
			return keys, still
		}
		x.free.Wait()
	}
}

// claim marks an entry that the change is about, or notes that it is busy.
func (x *Index) claim(op Op, e *entry, f *queue.Filter, now time.Time, busy *[]Key) bool {
	info := e.info()
	switch {
	case e.busy || e.msg.moving:
		info.State = f.State // what it will be is seen then
		if f.Matches(&info, now) {
			*busy = append(*busy, e.key())
		}
		return false
	case !op.applies(e) || !f.Matches(&info, now):
		return false
	}
	x.begin(e)
	return true
}

func (op Op) applies(e *entry) bool {
	switch op {
	case Release:
		return e.Held
	case Retry:
		return !e.Held && e.token == 0
	case Fail:
		return e.token == 0
	}
	return op == Delete || op == Hold // holding what is held gives it another reason
}

// CommitChange applies a change to entries. Keys without an entry are passed over.
func (x *Index) CommitChange(op Op, why string, keys []Key, now time.Time) {
	if len(keys) == 0 {
		return
	}
	x.mu.Lock()
	var gone []*Message
	for _, k := range keys {
		if e := x.entry(k); e != nil {
			x.end(e)
			gone = append(gone, x.change(e, op, why, now))
		}
	}
	x.signal()
	x.mu.Unlock()
	x.release(gone...)
}

func (x *Index) change(e *entry, op Op, why string, now time.Time) (gone *Message) {
	if op == Delete {
		return x.drop(e)
	}
	x.unpark(e)
	switch op {
	case Hold:
		e.Held, e.Why, e.Fail = true, why, ""
	case Release:
		e.Held, e.Why = false, ""
		e.dueAt(now)
	case Retry:
		e.dueAt(now)
		e.lane.paused = time.Time{}
	case Fail:
		e.Held, e.Why, e.Fail = false, "", why
		e.dueAt(now)
		e.lane.paused = time.Time{}
	case Lapse:
		x.endLease(e)
		e.Attempts++
	}
	if e.token == 0 {
		x.park(e)
	}
	x.place(e.lane) // its pause may have ended
	return nil
}

// dueAt makes the entry due because a person says so.
func (e *entry) dueAt(now time.Time) { e.Due, e.Wait, e.Unreached = now, 0, false }

// BeginMove marks a message as being written anew, and gives it with its entries. It reports false where the
// message is gone or one of its entries is being changed.
func (x *Index) BeginMove(id queue.ID) (Message, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	m := x.messages[id]
	if m == nil || m.busy > 0 || m.moving {
		return Message{}, false
	}
	m.moving = true
	return m.snapshot(), true
}

// EndMove ends what BeginMove began; body is where the bytes are now.
func (x *Index) EndMove(id queue.ID, body any) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if m := x.messages[id]; m != nil {
		m.moving = false
		m.Body = body
	}
	x.free.Broadcast()
}
