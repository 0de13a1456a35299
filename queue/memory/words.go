package memory

import (
	"fmt"
	"time"

	"github.com/sortie-mail/sortie/queue"
)

// A view is what the index knows of an entry at one instant, with what it takes to read its words afterwards.
type view struct {
	Key
	id       uint64
	entry    uint32
	at       Place
	last     Mark
	cached   *Message
	token    uint64 // of its lease; 0 where it is not leased
	state    queue.State
	why      string // it is held or to fail
	fails    bool
	accepted time.Time
	due      time.Time
	wait     time.Duration
	size     int64
	hops     int
	priority int
	attempts int
	chain    uint8
	flags    uint8

	err error // it could not be read
}

func (x *Index) view(n uint32) view {
	e := x.entries.at(n)
	m := x.messageOf(e)
	v := view{
		Key: x.key(e), id: m.id, entry: n, at: m.at(), last: e.last, state: e.state(), why: x.reasons.text(e.why), fails: e.is(failing),
		accepted: x.clock.time(m.accepted), due: x.clock.time(e.due), wait: time.Duration(e.wait) * time.Second,
		size: m.size, hops: int(m.hops), priority: int(m.priority), attempts: int(e.attempts), chain: e.chain, flags: e.flags,
	}
	v.cached = x.cache.get(m.id, v.at)
	if e.is(leased) {
		v.token = x.ends[e.pos].token
	}
	return v
}

// lease is what a caller of Lease gets.
func (v *view) lease(m *Message, e *Entry, until time.Time) queue.Lease {
	l := queue.Lease{
		Token: v.token, Until: until, ID: v.ID, Lane: v.Lane, Accepted: v.accepted, Size: v.size, Hops: v.hops,
		Envelope: v.envelope(m), Attempts: v.attempts,
	}
	l.Envelope.To = e.To
	if v.fails {
		l.FailWhy = v.why
	}
	if n := len(e.History); n > 0 {
		l.Last = e.History[n-1]
	}
	if len(e.Warned) > 0 {
		l.Warned = make(map[string]bool, len(e.Warned))
		for _, address := range e.Warned {
			l.Warned[address] = true
		}
	}
	return l
}

// envelope is that of the message, by the clock as it stands now: its record has times by the clock of then.
func (v *view) envelope(m *Message) queue.Envelope {
	env := m.Envelope
	if by := &env.DeliverBy; !by.Time.IsZero() {
		by.Time = v.accepted.Add(by.Time.Sub(m.Accepted))
	}
	return env
}

func (v *view) info(m *Message, e *Entry) queue.Info {
	env := v.envelope(m)
	i := queue.Info{
		ID: v.ID, Lane: v.Lane, State: v.state, Why: v.why, From: env.From, To: e.To,
		Accepted: v.accepted, Due: v.due, Size: v.size, Attempts: v.attempts,
		RequireTLS: env.RequireTLS, Priority: env.Priority, DeliverBy: env.DeliverBy,
	}
	if n := len(e.History); n > 0 {
		i.Last = e.History[n-1]
	}
	return i
}

// unread is an entry that cannot be read, as a list shows it.
func (v *view) unread() queue.Info {
	i := v.info(&Message{Envelope: queue.Envelope{Priority: v.priority}}, &Entry{})
	if i.Why == "" {
		i.Why = "it cannot be read: " + v.err.Error()
	}
	return i
}

// readAll reads the words of some entries, each message once, and calls got with them; or with nothing where view.err is not
// nil. It returns how many it could read.
func (x *Index) readAll(views []view, got func(*view, *Message, *Entry)) (read int) {
	var several map[uint64]*view // of messages that were read, with several entries
	for i := range views {
		v := &views[i]
		if other := several[v.id]; other != nil && v.cached == nil && other.at == v.at {
			v.cached = other.cached
		}
		m, e, err := x.read(v)
		if v.err = err; err != nil {
			got(v, nil, nil)
			continue
		}
		if v.cached = m; len(m.Entries) > 1 && several[v.id] == nil {
			if several == nil {
				several = map[uint64]*view{}
			}
			several[v.id] = v
		}
		got(v, m, &e)
		read++
	}
	return read
}

// read gives the words of an entry. The message may be written anew meanwhile, and what was there be removed.
func (x *Index) read(v *view) (m *Message, e Entry, err error) {
	for {
		m, err = v.cached, nil
		if m == nil {
			m, err = x.store.Message(v.ID, v.at)
		}
		if err == nil {
			e, err = x.settledEntry(m, v)
		}
		if err == nil {
			return m, e, nil
		}
		if err = x.look(v, err); err != nil {
			return nil, Entry{}, err
		}
	}
}

func (x *Index) settledEntry(m *Message, v *view) (Entry, error) {
	if v.last != (Mark{}) {
		return x.store.Entry(m, v.Lane, v.last)
	}
	if e := m.Entry(v.Lane); e != nil {
		return *e, nil
	}
	return Entry{}, fmt.Errorf("%w: %s has nothing for %s", ErrDamaged, v.ID, v.Lane)
}

// look tells the view where its words are now, if they are elsewhere since. Otherwise it returns why they could not be read.
func (x *Index) look(v *view, err error) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	n := x.entry(v.Key)
	if n == 0 {
		return queue.ErrNotFound
	}
	e := x.entries.at(n)
	at := x.messageOf(e).at()
	if at == v.at && e.last == v.last {
		return err
	}
	v.at, v.last, v.cached = at, e.last, x.cache.get(v.id, at)
	return nil
}

// A cache has the words of messages that are to be leased soon: of those that came in just now, and of those of many lanes of
// which one was leased. Whoever has to wait for it longer than others goes out of it first.
type cache struct {
	most, size int64
	words      map[uint64]*cached
	oldest     *cached
	newest     *cached
}

type cached struct {
	m            *Message
	id           uint64
	at           Place
	size         int64
	uses         int // entries that were not leased since
	older, newer *cached
}

func (c *cache) get(id uint64, at Place) *Message {
	if w := c.words[id]; w != nil && w.at == at {
		return w.m
	}
	return nil
}

// add keeps the words of a message for so many leases.
func (c *cache) add(id uint64, m *Message, at Place, uses int) {
	c.drop(id)
	w := &cached{m: m, id: id, at: at, size: m.room(), uses: uses}
	if w.size > c.most {
		return
	}
	if c.words == nil {
		c.words = map[uint64]*cached{}
	}
	c.words[id] = w
	if w.older = c.newest; w.older != nil {
		w.older.newer = w
	} else {
		c.oldest = w
	}
	c.newest = w
	for c.size += w.size; c.size > c.most; {
		c.drop(c.oldest.id)
	}
}

// use counts a lease. After the last one the words are with those who lease.
func (c *cache) use(id uint64) {
	if w := c.words[id]; w != nil {
		if w.uses--; w.uses <= 0 {
			c.drop(id)
		}
	}
}

func (c *cache) drop(id uint64) {
	w := c.words[id]
	if w == nil {
		return
	}
	delete(c.words, id)
	c.size -= w.size
	if w.older != nil {
		w.older.newer = w.newer
	} else {
		c.oldest = w.newer
	}
	if w.newer != nil {
		w.newer.older = w.older
	} else {
		c.newest = w.older
	}
}

// room is about how much memory a message takes.
func (m *Message) room() int64 {
	const each = 200 // of a message or an entry; a recipient is half of that beside its address, which is there twice
	n := each * (2 + len(m.Entries))
	n += len(m.Envelope.From) + len(m.Envelope.EnvelopeID) + len(m.Envelope.Key)
	for i := range m.Envelope.To {
		n += each + 2*len(m.Envelope.To[i].Address) + len(m.Envelope.To[i].Original.Addr)
	}
	for i := range m.Entries {
		n += 2000 * len(m.Entries[i].History)
	}
	return int64(n)
}
