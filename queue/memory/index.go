package memory

import (
	"math"
	"sync"
	"time"

	"github.com/sortie-mail/sortie/queue"
)

// An Index knows every entry of a queue and when it is due. Of a message it keeps some 130 octets; the words are in its [Store],
// and of the bodies it knows nothing. [Queue] is an Index with a Store in memory; package disk puts a log under one. Its zero
// value is not usable: call [NewIndex]. It is safe for concurrent use, and each method happens at one instant, but for those
// that read words.
//
// A change that must be made durable first goes in three steps: it marks the entries, so that nothing else changes them;
// the backend writes; the change is applied or taken back.
type Index struct {
	changed chan struct{}
	store   Store

	mu       sync.Mutex // guards all below
	free     *sync.Cond // signalled when a change ends
	clock    clock
	order    order
	messages slab[message]
	entries  slab[entry]
	several  map[uint32][]uint32 // the entries of messages that have more than one, by lane
	lanes    map[string]*lane
	table    []*lane  // by number
	spare    []uint32 // numbers of no lane
	pauses   pauses
	timers   laneHeap
	rings    rings
	sites    map[string]*site
	closed   siteHeap
	leases   map[uint64]*lease
	ends     []*lease // a heap
	token    uint64
	reasons  reasons
	cache    cache
	bytes    int64
	held     int // entries that are held and not leased
}

// NewIndex makes an empty index of what is in a store. Call Rebase once what a log says is in it. It keeps the words of messages that are to be leased soon in so many
// octets of memory.
func NewIndex(store Store, words int64) *Index {
	x := &Index{
		changed: make(chan struct{}, 1),
		store:   store,
		clock:   clock{base: time.Now().Round(0)}, // the times of records have no monotonic reading
		several: map[uint32][]uint32{},
		lanes:   map[string]*lane{},
		pauses:  pauses{until: map[string]instant{}, now: never},
		sites:   map[string]*site{},
		leases:  map[uint64]*lease{},
		cache:   cache{most: words},
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

// A Placed is a message with the place of its record.
type Placed struct {
	*Message
	Place

	// Bare says that the message is without words: its envelope has no more than the priority, its entries no recipients, and
	// Sender is what [SenderOf] gives of its reverse-path.
	Bare   bool
	Sender uint32
}

// Add puts a message into the index, whose words nobody changes from now on. A message with the same ID is replaced. Its ID must
// be one that [IsID] knows.
func (x *Index) Add(p Placed) { x.AddWithin(p, math.MaxInt64) }

// AddWithin does so where all messages together stay within max octets, and reports false where they would not.
func (x *Index) AddWithin(p Placed, max int64) bool {
	if !p.Bare {
		p.Split()
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.bytes+p.Size > max {
		return false
	}
	x.add(p)
	x.signal()
	return true
}

func (x *Index) add(p Placed) {
	id, ok := number(p.ID)
	if !ok {
		panic("memory: the ID " + string(p.ID) + " is not one that IDs make")
	}
	if old := x.order.get(id); old != 0 {
		x.replace(old)
	}
	n := x.messages.add()
	m := x.messages.at(n)
	*m = message{
		id: id, accepted: x.clock.instant(p.Accepted), size: p.Size, sender: p.Sender,
		hops: uint16(min(p.Hops, math.MaxUint16)), priority: int8(p.Envelope.Priority),
	}
	m.move(p.Place)
	if !p.Bare {
		m.sender = SenderOf(p.Envelope.From)
		if !p.Envelope.DeliverBy.Time.IsZero() {
			m.flags |= timed
		}
		x.cache.add(id, p.Message, p.Place, len(p.Entries))
	}
	x.order.put(id, n)
	x.bytes += p.Size
	numbers := m.only[:0]
	if len(p.Entries) > 1 {
		numbers = make([]uint32, 0, len(p.Entries))
	}
	for i := range p.Entries {
		numbers = append(numbers, x.addEntry(n, &p.Entries[i]))
	}
	if len(numbers) > 1 {
		x.several[n] = numbers
	}
}

// addEntry makes an entry of a message.
func (x *Index) addEntry(m uint32, state *Entry) uint32 {
	l := x.lane(state.Lane)
	l.entries++
	n := x.entries.add()
	e := x.entries.at(n)
	*e = entry{
		due: x.clock.instant(state.Due), message: m, lane: l.number, wait: seconds(state.Wait),
		attempts: uint16(min(state.Attempts, math.MaxUint16)),
	}
	switch {
	case state.Held:
		x.setWhy(e, held, state.Why)
	case state.Fail != "":
		x.setWhy(e, failing, state.Fail)
	}
	e.set(unreached, state.Unreached)
	x.park(n, e)
	return n
}

// setWhy makes an entry held or failing, or neither, for a reason.
func (x *Index) setWhy(e *entry, flag uint8, why string) {
	x.reasons.drop(e.why)
	e.flags &^= held | failing
	e.flags |= flag
	e.why = x.reasons.take(why)
}

// replace takes out a message of which another record was read.
func (x *Index) replace(n uint32) {
	m := x.messages.at(n)
	for _, e := range append([]uint32(nil), x.entriesOf(n, m)...) {
		x.remove(x.entries.at(e))
		x.detach(e, x.entries.at(e))
	}
	x.dropMessage(n, m)
}

// dropMessage takes a message out of the index, whose entries are out of it already.
func (x *Index) dropMessage(n uint32, m *message) {
	x.order.remove(m.id)
	x.cache.drop(m.id)
	x.bytes -= m.size
	x.messages.remove(n)
}

// remove takes an entry out of everything but its message.
func (x *Index) remove(e *entry) {
	l := x.laneOf(e)
	l.entries--
	x.unpark(e)
	x.endLease(e)
	x.forget(l)
}

// A gone is a message whose last entry is gone.
type gone struct {
	id   queue.ID
	at   Place
	size int64
}

// drop removes an entry for good, and its message with the last one.
func (x *Index) drop(n uint32, e *entry, all []gone) []gone {
	x.remove(e)
	number := e.message
	m := x.messages.at(number)
	if x.detach(n, e) {
		all = append(all, gone{encodeID(m.id), m.at(), m.size})
		x.dropMessage(number, m)
	}
	return all
}

func (x *Index) release(all []gone) {
	for i := range all {
		x.store.Dropped(all[i].id, all[i].at, all[i].size)
	}
}

// Place tells where a message is.
func (x *Index) Place(id queue.ID) (at Place, size int64, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	n := x.message(id)
	if n == 0 {
		return Place{}, 0, false
	}
	m := x.messages.at(n)
	return m.at(), m.size, true
}

// In gives the messages whose records are in a segment, oldest first.
func (x *Index) In(segment uint32) (ids []queue.ID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.order.from(0, func(n uint32) bool {
		if m := x.messages.at(n); m.place.segment == segment {
			ids = append(ids, encodeID(m.id))
		}
		return true
	})
	return ids
}

// Shift moves every time that the index knows by d. It is for times read from a record, which have no monotonic
// reading: the clock jumped by d after they were written.
func (x *Index) Shift(d time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.clock.shift(d)
}

// Rebase expresses every time by the clock as it stands at now, and gives it now's monotonic reading. Waits and ages go by the
// monotonic clock, and a jump of the wall clock changes neither.
func (x *Index) Rebase(now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.clock.rebase(now)
}

// Clamp bounds what a clock that was set back between two runs has done: nothing was accepted after now, and
// nothing waits longer than it was told to.
func (x *Index) Clamp(now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	at := x.clock.instant(now)
	x.order.from(0, func(n uint32) bool {
		m := x.messages.at(n)
		m.accepted = min(m.accepted, at)
		for _, n := range x.entriesOf(n, m) {
			e := x.entries.at(n)
			if latest := at + instant(e.wait)*instant(time.Second); e.due > latest {
				x.again(n, e, func() { e.due = latest })
			}
		}
		return true
	})
	x.signal()
}

// again changes an entry and puts it where it belongs then.
func (x *Index) again(n uint32, e *entry, change func()) {
	if e.is(leased) {
		change()
		return
	}
	x.unpark(e)
	change()
	x.park(n, e)
}
