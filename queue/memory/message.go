package memory

import (
	"slices"
	"strings"
	"time"

	"github.com/sortie-mail/sortie/queue"
)

// A Message is one message with the state of its entries, as records hold it: what [Index.Add] takes and [Store] gives.
type Message struct {
	ID       queue.ID       `json:"id"`
	Envelope queue.Envelope `json:"env"`
	Accepted time.Time      `json:"at"`
	Size     int64          `json:"size"`
	Hops     int            `json:"hops,omitempty"`
	Entries  []Entry        `json:"entries,omitempty"` // by lane; nil is one for each lane of the envelope, due at once
}

// OnClock expresses the message's own times by the clock as it stands at now, and gives them now's monotonic reading.
func (m *Message) OnClock(now time.Time) {
	change := onClock(now)
	m.Accepted = change(m.Accepted)
	if by := &m.Envelope.DeliverBy; !by.Time.IsZero() {
		by.Time = change(by.Time)
	}
}

func onClock(now time.Time) func(time.Time) time.Time {
	return func(t time.Time) time.Time { return now.Add(t.Sub(now)) }
}

// Split makes the entries of a message that has none yet.
func (m *Message) Split() {
	if m.Entries == nil {
		lanes, members := m.Envelope.Lanes()
		m.Entries = make([]Entry, len(lanes))
		for i, lane := range lanes {
			m.Entries[i] = Entry{Lane: lane, To: members[lane], Due: m.Accepted}
		}
	}
	slices.SortFunc(m.Entries, func(a, b Entry) int { return strings.Compare(a.Lane, b.Lane) })
}

// Entry gives the entry of a lane, nil where there is none.
func (m *Message) Entry(lane string) *Entry {
	i, ok := slices.BinarySearchFunc(m.Entries, lane, func(e Entry, lane string) int { return strings.Compare(e.Lane, lane) })
	if !ok {
		return nil
	}
	return &m.Entries[i]
}

// An Entry is the state of one entry of a [Message]. What an [Index] leaves to its [Store] are To, Warned and History.
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

// Settle writes into the entry what a settlement says about its recipients and its history. What others may be reading of it
// stays as it is.
func (e *Entry) Settle(done, warned []string, a queue.Attempt) {
	e.To = Without(e.To, done)
	if !a.Time.IsZero() {
		over := max(len(e.History)+1-queue.MaxHistory, 0)
		e.History = append(slices.Clip(e.History[over:]), a)
	}
	e.Warned = append(slices.Clip(e.Warned), warned...)
}

// Without gives the recipients that are not settled, in one pass: an entry may have tens of thousands.
func Without(to []queue.Recipient, done []string) []queue.Recipient {
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

// A Key names an entry.
type Key struct {
	ID   queue.ID `json:"id"`
	Lane string   `json:"lane"`
}
