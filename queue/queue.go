package queue

import (
	"context"
	"io"
	"time"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/dsn"
)

// An ID names one message in a queue. It is unique for the life of the spool, safe in file names and URLs, and
// sorts by the time of acceptance.
type ID string

// A Queue keeps mail safe until it is settled. Implementations are safe for concurrent use, keep every promise
// written here, and prove it with package queuetest.
//
// The unit of work is an entry: one message × one lane, where a lane is a recipient domain. The body is stored
// once a message. An entry that waits, hangs or is held never keeps an entry of another lane from being leased.
//
// Of the entries of a lane that are due, the one with the higher [Envelope.Priority] goes first, then the one that was due
// first. Nothing waits for ever: a level of priority is worth a [PriorityStep] of having been due. Lanes in which something
// above the normal priority is due have their turns before the others, and those in which all that is due is below it after
// them; but of ten turns each of the three kinds has one.
type Queue interface {
	// Enqueue accepts a message. When it returns without an error, the message, its envelope and every
	// directory entry that leads to them are durable (of a memory queue: kept until the process ends). When it
	// returns an error, nothing of the message is in the queue.
	//
	// Where a message with the same [Envelope.Key] was accepted within [KeyMemory], or is in the queue still, nothing is enqueued,
	// and the ID is that message's, whatever the envelope and body are; body may be read or not. Of two calls with one key
	// at the same time, the later one waits for the outcome of the other.
	//
	// Errors: an [*EnvelopeError] for an envelope or a message that no retry would make acceptable; one that wraps
	// [ErrFull] when there is no room now; one that wraps [ErrClosed]; an error of body as it is.
	Enqueue(ctx context.Context, env Envelope, body io.Reader) (ID, error)

	// Lease hands out entries that are due, at most req.Max, in turn by lane. Nobody else gets them until they are
	// settled or until the lease ends, when they become due again and the attempt counts. It does not
	// wait for mail: with nothing due it returns no entries. next is when something more will be due if nothing
	// changes until then; the zero time is never.
	Lease(ctx context.Context, req LeaseRequest) (leases []Lease, next time.Time, err error)

	// Changed has a value after anything happened that may let Lease return more, or sooner, than it said.
	Changed() <-chan struct{}

	// Settle ends a lease. The outcome, the time of the next try, and the reports and notes that follow from the outcome
	// become durable together: after a crash either all of it happened or nothing. It fails with
	// [ErrLeaseLost], and changes nothing, where the lease had ended or the entry was deleted; any other error
	// leaves the lease as it was, and Settle may be called again.
	Settle(ctx context.Context, l Lease, s Settlement) error

	// Open gives the message's bytes as they were enqueued. A message that is deleted while it is read may
	// end in an error; a leased message stays readable. An unknown id gives [ErrNotFound].
	Open(ctx context.Context, id ID) (io.ReadCloser, error)

	// Close waits for calls under way, releases the spool and ends all leases: their entries are due
	// at once when the queue is opened again. Calls after Close fail with [ErrClosed].
	Close() error
}

// A LeaseRequest says what a caller of Lease wants.
type LeaseRequest struct {
	Max int           // entries; at least 1
	For time.Duration // how long the leases last; at least a second

	// Room says how many more entries the caller takes from a lane now. nil is no limit. It is called with locks held and
	// must return at once without calling the queue.
	Room func(Ask) Grant
}

// An Ask is the question whether a caller of Lease has room for an entry of a lane.
type Ask struct {
	Lane       string
	Site       string // to which the lane belongs, see [Settlement]; "" where none is known
	Leased     int    // entries of the lane that are leased now
	SiteLeased int    // entries of all lanes of the site that are

	// Of the message whose turn it is in the lane:
	Accepted time.Time
	Timed    bool // it has an [Envelope.DeliverBy], as far as the backend remembers
	Attempts int  // made for it in the lane
}

// A Grant is the answer. Where there is no room, the lane is asked about again when one of its leases is settled or at the
// time Again, whichever comes first; where none of it is leased and Again is zero, after a second. Of a site without room all
// lanes are left alone, at no cost, until one of the site's leases is settled or Again comes.
type Grant struct {
	N     int       // entries that there is room for
	Again time.Time // when to ask again where there is none; the zero time is when a lease is settled
	Site  string    // names the site that has no room, to which the lane belongs from now on; "": it is the lane alone
}

// A Lease is an entry that one caller may work on until a certain time.
type Lease struct {
	Token    uint64 // names this lease among all of the process
	Until    time.Time
	ID       ID
	Lane     string
	Accepted time.Time // when the message was enqueued
	Size     int64     // of the message, in octets
	Hops     int       // Received fields in its header
	Envelope Envelope  // with the recipients of this lane that are not settled

	Attempts int             // made before this one
	Warned   map[string]bool // recipients whose delay was reported
	FailWhy  string          // a person asked that it fail now, and why; "" otherwise
	Last     Attempt         // the newest of those before; zero where there was none
}

// A Settlement is what became of a leased entry.
type Settlement struct {
	Attempt Attempt      // for the history; the zero Attempt adds nothing to it
	Done    []string     // recipients that are settled for good; the others stay
	Next    time.Time    // when the others are due; the zero time is at once
	Warned  []string     // recipients whose delay is reported by this settlement
	Hold    string       // why the others are held; "" leaves them waiting
	Reports []Submission // mail that follows from it
	Notes   []Note       // facts that follow from it, where the queue is a [Notebook]

	// Unreached says that the others wait because of the destination, and not for a reason of their own: a Wake of
	// their lane makes them due.
	Unreached bool

	// What the attempt says about the lane. Hints: a backend may forget them in a crash.
	Pause time.Duration // nothing more of the lane is leased for this long, because the destination asks for it
	Wake  bool          // the destination took mail: the lane's pause ends, and its entries that are Unreached are due

	// Site names the group to which the lane belongs, whose lanes share the limits of [LeaseRequest.Room]; "" leaves it in that
	// in which it is. It is forgotten with the lane's last entry.
	Site string

	// WakeLanes are other lanes to wake in the same way: their mail waits for the smarthost that has taken this.
	WakeLanes []string
}

// A Submission is a message to enqueue together with a settlement, whatever its key.
type Submission struct {
	Envelope Envelope
	Body     []byte
}

// An Attempt is one try of an entry, as its history tells it.
type Attempt struct {
	Time    time.Time       `json:"time,omitzero"`
	Route   string          `json:"route,omitempty"`   // the hops, as the routing file writes them, of who is not settled
	Results []AttemptResult `json:"results,omitempty"` // see [MaxResults]
	Freed   int             `json:"freed,omitempty"`   // tries up to this one that [Runner.Reroute] caused: no steps of the [Schedule]
}

// An AttemptResult is what one try said about one recipient.
type AttemptResult struct {
	Recipient string         `json:"recipient"`
	Result    deliver.Result `json:"result"`
	Status    dsn.Status     `json:"status,omitempty"`
	Reply     dsn.Reply      `json:"reply,omitzero"`
	Detail    string         `json:"detail,omitempty"`
	Stage     deliver.Stage  `json:"stage,omitempty"`
	Host      string         `json:"host,omitempty"`
	Addr      string         `json:"addr,omitempty"`
	Class     string         `json:"class,omitempty"` // of the refusal, as package reason names it

	Tried []string `json:"tried,omitempty"` // what else was tried, and why each failed: "host (stage): words"

	PossiblyDelivered bool `json:"possibly_delivered,omitempty"` // see deliver.Outcome
	RouteTrouble      bool `json:"route_trouble,omitempty"`      // see deliver.Outcome
}
