package memory

import (
	"slices"
	"strings"
	"time"

	"github.com/sortie-mail/sortie/queue"
)

// A Message is one message with the state of its entries: what [Index.Add] takes and [Index.Snapshot] gives.
type Message struct {
	ID       queue.ID       `json:"id"`
	Envelope queue.Envelope `json:"env"`
	Accepted time.Time      `json:"at"`
	Size     int64          `json:"size"`
	Hops     int            `json:"hops,omitempty"`
	Entries  []Entry        `json:"entries,omitempty"` // nil is one for each lane of the envelope, due at once

	Body any `json:"-"` // where the backend keeps the bytes
}

// OnClock expresses the message's own times by the clock as it stands at now, and gives them now's monotonic reading: see
// [Index.Rebase].
func (m *Message) OnClock(now time.Time) { m.times(onClock(now)) }

func onClock(now time.Time) func(time.Time) time.Time {
	return func(t time.Time) time.Time { return now.Add(t.Sub(now)) }
}

// times changes the message's own times.
func (m *Message) times(change func(time.Time) time.Time) {
	m.Accepted = change(m.Accepted)
	if by := &m.Envelope.DeliverBy; !by.Time.IsZero() {
		by.Time = change(by.Time)
	}
}

// An Entry is the state of one entry of a [Message].
type Entry struct {
	Lane     string            `json:"lane"`
	To       []queue.Recipient `json:"to"`
	Due      time.Time         `json:"due,omitzero"`
	Wait     time.Duration     `json:"wait,omitempty"` // how long before Due the entry began to wait: bounds Due after a clock jump
	Attempts int               `json:"tries,omitempty"`
	Warned   []string          `json:"warned,omitempty"`
	Held     bool              `json:"held,omitempty"`
	Why      string            `json:"why,omitempty"`  // why it is held
	Fail     string            `json:"fail,omitempty"` // why it is to fail
	History  []queue.Attempt   `json:"history,omitempty"`

	// Unreached: it waits because of the destination, and a wake of its lane makes it due.
	Unreached bool `json:"unreached,omitempty"`
}

// message and entry are the same inside the index, with their places in its structures.
type message struct {
	Message
	entries []*entry // by lane
	busy    int      // entries with a change under way
	moving  bool     // a snapshot is being written
	gone    bool     // it is out of the index, and out of its order at the next tidying
}

// find tells where the entry of a lane is, or would be.
func (m *message) find(lane string) (int, bool) {
	return slices.BinarySearchFunc(m.entries, lane, func(e *entry, lane string) int { return strings.Compare(e.Lane, lane) })
}

// entry gives the entry of a lane, nil where there is none.
func (m *message) entry(lane string) *entry {
	if i, ok := m.find(lane); ok {
		return m.entries[i]
	}
	return nil
}

type entry struct {
	Entry
	msg   *message
	lane  *lane
	pos   int    // in lane.waiting; -1 when it is not there
	token uint64 // of the lease; 0 when it is not leased
	until time.Time
	lpos  int // in the heap of leases
	busy  bool

	next, previous *entry // of the lane
}

func (e *entry) key() Key { return Key{e.msg.ID, e.Lane} }

// A Key names an entry.
type Key struct {
	ID   queue.ID `json:"id"`
	Lane string   `json:"lane"`
}

func (e *entry) info() queue.Info {
	i := queue.Info{
		ID: e.msg.ID, Lane: e.Lane, State: e.state(), Why: e.Why, From: e.msg.Envelope.From, To: e.To,
		Accepted: e.msg.Accepted, Due: e.Due, Size: e.msg.Size, Attempts: e.Attempts,
		RequireTLS: e.msg.Envelope.RequireTLS, Priority: e.msg.Envelope.Priority, DeliverBy: e.msg.Envelope.DeliverBy,
	}
	if e.Fail != "" {
		i.Why = e.Fail
	}
	if n := len(e.History); n > 0 {
		i.Last = e.History[n-1]
	}
	return i
}

func (e *entry) state() queue.State {
	switch {
	case e.token != 0:
		return queue.Leased
	case e.Held:
		return queue.Held
	}
	return queue.Waiting
}
