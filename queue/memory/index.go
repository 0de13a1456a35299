package memory

import (
	"cmp"
	"container/heap"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sortie-mail/sortie/queue"
)

// An Index knows every entry of a queue and when it is due, and nothing of where bodies and records are kept.
// [Queue] is an Index with bodies in memory; package disk puts a log under one. Its zero value is not usable: call
// [NewIndex]. It is safe for concurrent use, and each method happens at one instant.
//
// A change that must be made durable first goes in three steps: it marks the entries, so that nothing else changes them;
// the backend writes; the change is applied or taken back.
type Index struct {
	changed chan struct{}

	mu       sync.Mutex // guards all below
	free     *sync.Cond // signalled when a change ends
	messages map[queue.ID]*message
	order    order
	lanes    map[string]*lane
	sites    map[string]*site
	pauses   pauses
	timers   laneHeap
	rings    rings
	leases   map[uint64]*entry
	ends     leaseHeap
	token    uint64
	bytes    int64
	dropped  func(Message)
}

// NewIndex makes an empty index. dropped is called, without locks held, with each message whose last entry is
// gone, so that the backend frees its bytes; nil is no call.
func NewIndex(dropped func(Message)) *Index {
	x := &Index{
		changed:  make(chan struct{}, 1),
		messages: map[queue.ID]*message{},
		lanes:    map[string]*lane{},
		sites:    map[string]*site{},
		pauses:   pauses{until: map[string]time.Time{}},
		leases:   map[uint64]*entry{},
		dropped:  dropped,
	}
	x.free = sync.NewCond(&x.mu)
	return x
}

// Changed is the channel of [queue.Queue].
func (x *Index) Changed() <-chan struct{} { return x.changed }

func (x *Index) signal() {
	select {
	case x.changed <- struct{}{}:
	default:
	}
}

// Add puts a message into the index. A message with the same ID is replaced.
func (x *Index) Add(m Message) { x.AddWithin(m, math.MaxInt64) }

// AddWithin does so where all messages together stay within max octets, and reports false where they would not.
func (x *Index) AddWithin(m Message, max int64) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.bytes+m.Size > max {
		return false
	}
	x.add(m)
	x.signal()
	return true
}

func (x *Index) add(m Message) {
	if old := x.messages[m.ID]; old != nil {
		for _, e := range old.entries {
			x.remove(e)
		}
		x.take(old)
	}
	msg := &message{Message: m}
	if m.Entries == nil {
		msg.Message.Entries = newEntries(m)
	}
	msg.entries = make([]*entry, 0, len(msg.Message.Entries))
	for _, state := range msg.Message.Entries {
		l := x.lane(state.Lane)
		e := &entry{Entry: state, msg: msg, lane: l, pos: -1}
		l.join(e)
		msg.entries = append(msg.entries, e)
		x.park(e)
	}
	slices.SortFunc(msg.entries, func(a, b *entry) int { return strings.Compare(a.Lane, b.Lane) })
	msg.Message.Entries = nil
	x.messages[m.ID] = msg
	x.order.add(msg)
	x.bytes += m.Size
}

// take takes a message out of the index, whose entries are out of it already.
func (x *Index) take(m *message) {
	delete(x.messages, m.ID)
	x.bytes -= m.Size
	x.order.remove(m)
}

func newEntries(m Message) []Entry {
	lanes, members := m.Envelope.Lanes()
	entries := make([]Entry, len(lanes))
	for i, lane := range lanes {
		entries[i] = Entry{Lane: lane, To: members[lane], Due: m.Accepted}
	}
	return entries
}

func (x *Index) lane(name string) *lane {
	l := x.lanes[name]
	if l == nil {
		l = &lane{name: name, paused: x.pauses.end(name)}
		x.lanes[name] = l
	}
	return l
}

// park puts an entry that is not leased where it belongs: among the waiting of its lane, or nowhere when held.
func (x *Index) park(e *entry) {
	if e.Held {
		return
	}
	e.lane.wait(e)
	if e.pos == 0 {
		x.place(e.lane)
	}
	x.promote(e.lane, e)
}

// unpark takes an entry out of the waiting of its lane.
func (x *Index) unpark(e *entry) {
	if e.pos < 0 {
		return
	}
	e.lane.take(e)
	x.place(e.lane)
}

// place puts a lane where it belongs after its waiting entries or its pause changed. A lane that is ready or
// full stays there until Lease looks at it.
func (x *Index) place(l *lane) {
	if l.place == inRing || l.place == isFull {
		return
	}
	if len(l.levels) == 0 {
		if l.place == inTimers {
			heap.Remove(&x.timers, l.pos)
			l.place = nowhere
		}
		x.forget(l)
		return
	}
	l.wake = l.next()
	if l.place == inTimers {
		heap.Fix(&x.timers, l.pos)
		return
	}
	l.place = inTimers
	heap.Push(&x.timers, l)
}

// forget drops a lane that has no entries, so that a lane costs nothing once its mail is gone.
func (x *Index) forget(l *lane) {
	if l.entries > 0 || l.place != nowhere {
		return
	}
	x.exit(l)
	delete(x.lanes, l.name)
	x.pauses.begin(l.name, l.paused)
}

// remove takes an entry out of everything but its message.
func (x *Index) remove(e *entry) {
	x.unpark(e)
	x.endLease(e)
	e.lane.leave(e)
	x.forget(e.lane)
}

func (x *Index) endLease(e *entry) {
	if e.token == 0 {
		return
	}
	delete(x.leases, e.token)
	heap.Remove(&x.ends, e.lpos)
	e.token = 0
	l := e.lane
	l.leased--
	if l.site != nil {
		l.site.leased--
		x.settledIn(l.site)
	}
	if l.place == isFull {
		l.place = nowhere
		x.place(l)
		x.signal()
	}
}

// drop removes an entry for good, and its message with the last one. It returns the message if it is gone.
func (x *Index) drop(e *entry) *Message {
	x.remove(e)
	m := e.msg
	if i, ok := m.find(e.Lane); ok {
		m.entries = slices.Delete(m.entries, i, i+1)
	}
	if len(m.entries) > 0 {
		return nil
	}
	gone := m.Message
	x.take(m)
	return &gone
}

// Get gives a message without its entries.
func (x *Index) Get(id queue.ID) (Message, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	m := x.messages[id]
	if m == nil {
		return Message{}, false
	}
	return m.Message, true
}

// Messages gives the messages for which want says yes, without their entries.
func (x *Index) Messages(want func(*Message) bool) []Message {
	x.mu.Lock()
	defer x.mu.Unlock()
	var found []Message
	for _, m := range x.messages {
		if want(&m.Message) {
			found = append(found, m.Message)
		}
	}
	slices.SortFunc(found, func(a, b Message) int { return cmp.Compare(a.ID, b.ID) })
	return found
}

// snapshot gives a message with the state of its entries.
func (m *message) snapshot() Message {
	s := m.Message
	s.Entries = make([]Entry, 0, len(m.entries))
	for _, e := range m.entries {
		s.Entries = append(s.Entries, e.Entry)
	}
	return s
}

// Shift moves every time that the index knows by d. It is for times read from a record, which have no monotonic
// reading: the clock jumped by d after they were written.
func (x *Index) Shift(d time.Duration) {
	x.times(func(t time.Time) time.Time { return t.Add(d) })
}

// Rebase expresses every time by the clock as it stands at now, and gives it now's monotonic reading: from then on
// waits and ages go by the monotonic clock, and a jump of the wall clock changes neither.
func (x *Index) Rebase(now time.Time) {
	x.times(onClock(now))
}

// times changes all times alike, which leaves their order as it is.
func (x *Index) times(change func(time.Time) time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, m := range x.messages {
		m.times(change)
		for _, e := range m.entries {
			e.Due = change(e.Due)
		}
	}
	for _, l := range x.lanes {
		l.wake = change(l.wake)
		if !l.paused.IsZero() {
			l.paused = change(l.paused)
		}
	}
	for name, until := range x.pauses.until {
		x.pauses.until[name] = change(until)
	}
}

// Clamp bounds what a clock that was set back between two runs has done: nothing was accepted after now, and
// nothing waits longer than it was told to.
func (x *Index) Clamp(now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, m := range x.messages {
		if back := m.Accepted.Sub(now); back > 0 {
			m.times(func(t time.Time) time.Time { return t.Add(-back) })
		}
		for _, e := range m.entries {
			if latest := now.Add(e.Wait); e.Due.After(latest) {
				e.Due = latest
				x.requeue(e)
			}
		}
	}
	x.signal()
}

// requeue puts an entry whose time or state changed back in its place.
func (x *Index) requeue(e *entry) {
	if e.token != 0 {
		return
	}
	x.unpark(e)
	x.park(e)
}
