package queue

import (
	"context"
	"strings"
	"time"

	"github.com/sortie-mail/sortie/deliver"
)

// An Inspector shows people what is in a queue and lets them intervene. The backends of this project implement it;
// it is safe for concurrent use. Each change is durable when it returns, and tells how many entries it
// changed; a filter that would match everything needs All, or the change fails with [ErrNoFilter].
type Inspector interface {
	// List gives the entries that match, oldest first, from the one after cursor on ("" is the start), at most
	// limit of them. next is the cursor for the rest; "" is the end.
	List(ctx context.Context, f Filter, cursor string, limit int) (entries []Info, next string, err error)
	// Show gives everything about a message, or [ErrNotFound].
	Show(ctx context.Context, id ID) (Detail, error)
	// Stats counts.
	Stats(ctx context.Context) (Stats, error)

	// Hold keeps entries from being leased; an entry that is leased now is held when it is settled. why is shown
	// to whoever looks, and takes the place of an earlier reason: what a person holds, no new route releases.
	Hold(ctx context.Context, f Filter, why string) (int, error)
	// Release makes held entries wait for a try again, now.
	Release(ctx context.Context, f Filter) (int, error)
	// Retry makes waiting entries due now, and ends their lanes' pauses.
	Retry(ctx context.Context, f Filter) (int, error)
	// Fail makes waiting and held entries due now, to end as failed with a report that says why, without a try.
	Fail(ctx context.Context, f Filter, why string) (int, error)
	// Delete removes entries without a report. One that is leased now is removed too: its lease is lost.
	Delete(ctx context.Context, f Filter) (int, error)
}

// A Filter matches entries that match all its fields; zero fields match all.
type Filter struct {
	ID        ID
	Lane      string        // exactly
	Sender    string        // reverse-path, without regard to case; "<>" is the null sender
	Recipient string        // one of the recipients, without regard to case
	State     State         // "" is any
	OlderThan time.Duration // accepted at least this long ago
	All       bool          // a change really means everything
}

// Matches reports whether an entry matches at the time now.
func (f *Filter) Matches(e *Info, now time.Time) bool {
	return (f.ID == "" || f.ID == e.ID) &&
		(f.Lane == "" || f.Lane == e.Lane) &&
		(f.State == "" || f.State == e.State) &&
		(f.Sender == "" || strings.EqualFold(f.Sender, e.From) || (f.Sender == "<>" && e.From == "")) &&
		(f.OlderThan <= 0 || now.Sub(e.Accepted) >= f.OlderThan) &&
		(f.Recipient == "" || f.hasRecipient(e.To))
}

func (f *Filter) hasRecipient(to []Recipient) bool {
	for i := range to {
		if strings.EqualFold(f.Recipient, to[i].Address) {
			return true
		}
	}
	return false
}

// CheckChange returns [ErrNoFilter] for a filter that would change everything without saying so.
func (f *Filter) CheckChange() error {
	what := *f
	what.OlderThan = max(what.OlderThan, 0) // every message is older than less than nothing
	if what == (Filter{}) {
		return ErrNoFilter
	}
	return nil
}

// State is where an entry stands.
type State string

// The states. An entry that is settled for good is gone.
const (
	Waiting State = "waiting" // for its time, or for its turn
	Leased  State = "leased"  // being tried now
	Held    State = "held"    // by a person, a route, or because its failure cannot be reported
)

// An Info is one entry as a list shows it.
type Info struct {
	ID       ID          `json:"id"`
	Lane     string      `json:"lane"`
	State    State       `json:"state"`
	Why      string      `json:"why,omitempty"` // why it is held or is to fail
	From     string      `json:"from"`
	To       []Recipient `json:"to"` // of this lane, not yet settled
	Accepted time.Time   `json:"accepted"`
	Due      time.Time   `json:"due"`
	Size     int64       `json:"size"`
	Attempts int         `json:"attempts"`
	Last     Attempt     `json:"last,omitzero"` // the newest attempt

	RequireTLS bool              `json:"requiretls,omitempty"` // these three are of the [Envelope]
	Priority   int               `json:"priority,omitempty"`
	DeliverBy  deliver.DeliverBy `json:"deliverby,omitzero"`
}

// A Detail is everything about one message.
type Detail struct {
	ID       ID        `json:"id"`
	Envelope Envelope  `json:"envelope"` // as it was enqueued
	Accepted time.Time `json:"accepted"`
	Size     int64     `json:"size"`
	Hops     int       `json:"hops"` // Received fields in its header
	Entries  []History `json:"entries"`
}

// A History is one entry of a message with its newest attempts, oldest first, at most [MaxHistory] of them.
type History struct {
	Info
	Attempts []Attempt `json:"history,omitempty"`
}

// MaxHistory is how many attempts an entry's history keeps.
const MaxHistory = 30

// MaxResults is for how many recipients an attempt in the history of an entry has results, besides one of each kind that
// they do not show: an entry may have [MaxRecipients].
const MaxResults = 1000

// Stats are counts of entries, and of lanes that have any.
type Stats struct {
	Messages int       `json:"messages"`
	Waiting  int       `json:"waiting"`
	Leased   int       `json:"leased"`
	Held     int       `json:"held"`
	Lanes    int       `json:"lanes"`
	Bytes    int64     `json:"bytes"`
	Oldest   time.Time `json:"oldest,omitzero"`
}
