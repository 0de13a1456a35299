package queue

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/idna"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/shape"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/route"
)

// A Runner takes mail out of a queue, finds its route, has it delivered, and settles what became of it: done, tried
// again later, or returned to its sender with a report. Its fields must not change once Run is called; Queue and
// Deliverer are needed, all else has a default, also where it is negative. Its methods are safe for concurrent use.
type Runner struct {
	Queue     Queue
	Router    route.Router // nil is route.Direct
	Deliverer Deliverer

	Hostname string // names this host in reports; "" is that of a *deliver.Deliverer, else the system's
	Schedule Schedule

	Concurrency     int           // attempts at once; 0 is 5,000. A waiting attempt costs some 30 KiB
	LaneConcurrency int           // attempts at once in one lane; 0 is 20. A lane begins with fewer and earns them
	HostConcurrency int           // attempts at once through one smarthost that has no rule; 0 is 50, at most half of Concurrency
	AttemptTime     time.Duration // the longest that one attempt may take; 0 is an hour
	MaxHops         int           // Received fields of a message that loops; 0 is 100 (RFC 5321, section 6.3)

	// KeepUnreported holds mail that failed and whose failure nobody is told of, because its sender is null or asked
	// not to be told (NOTIFY=NEVER), until a person looks at it; what a person ends is dropped. Otherwise it is dropped at
	// once. It is logged in all cases.
	KeepUnreported bool
	// BounceBlocked returns mail at once where a server refuses it for good because of our address. Otherwise it
	// waits as after a temporary failure, and goes out when the address is delisted or the route changed: the
	// recipient is not to blame, and the sender could not send it otherwise either.
	BounceBlocked bool
	// SuppressFor is for how long an address goes on the suppression list ([KindSuppress]) that a host, or DNS, refuses for good
	// because there is nobody. 0 is not at all; what is on the list already is refused all the same. The Queue must be a [Notebook].
	SuppressFor time.Duration

	// Shaper says how much each site gets at once and in a time. nil is one with the rules of a *deliver.Deliverer, or the embedded
	// ones, that gives a site what LaneConcurrency says where that is more than its rules say, and a smarthost what HostConcurrency says.
	Shaper *shape.Shaper

	Reports ReportBuilder // writes reports; nil is a zero dsn.Builder
	Logger  *slog.Logger  // nil is no log
	Trace   *Trace        // nil is no trace

	once    sync.Once
	book    Notebook // nil where the Queue is none
	lanes   lanes
	down    outages
	gates   gates
	ways    *shape.Shaper // knows which routes are down as a whole that have several hops
	crowd   crowd
	records records
	reroute atomic.Uint64      // counts the calls of Reroute
	early   early              // the lanes that Reroute freed
	slots   chan struct{}      // one for each attempt under way
	freed   chan struct{}      // has a value after a slot became free
	stop    chan struct{}      // closed by Shutdown: no more leases
	work    context.Context    // of all attempts
	abandon context.CancelFunc // ends work
	ended   chan struct{}      // closed when Run has returned
	running sync.WaitGroup     // attempts under way

	mu    sync.Mutex
	begun bool // guarded by mu: Run was called
	shut  bool // guarded by mu: Shutdown was called
}

// A Deliverer makes one attempt of one message by a route, and says of each recipient, in their order, what became of it.
// [deliver.Deliverer] is one. It must return soon after ctx has ended: Shutdown waits for it.
type Deliverer interface {
	Deliver(ctx context.Context, r route.Route, m *deliver.Message) []deliver.Outcome
}

// A ReportBuilder writes reports as mail. [dsn.Builder] is one.
type ReportBuilder interface {
	Build(r *dsn.Report) ([]byte, error)
}

// A Trace is a set of hooks that a Runner calls, from the goroutine of an attempt, several at once. Any may be nil; all must
// return quickly.
type Trace struct {
	// Settled tells what became of a lease, once it is recorded.
	Settled func(l Lease, outcomes []deliver.Outcome, s Settlement)
}

func (r *Runner) init() {
	r.once.Do(func() {
		r.Router = orDefault(r.Router, route.Direct)
		r.Reports = orDefault[ReportBuilder](r.Reports, new(dsn.Builder))
		r.Logger = orDefault(r.Logger, slog.New(slog.DiscardHandler))
		r.Trace = orDefault(r.Trace, new(Trace))
		r.Concurrency = positive(r.Concurrency, 5000)
		r.AttemptTime = min(positive(r.AttemptTime, time.Hour), longestWait) // a lease is longer yet
		r.MaxHops = positive(r.MaxHops, 100)
		if d, ok := r.Deliverer.(*deliver.Deliverer); ok && d != nil && r.Hostname == "" {
			r.Hostname = d.Hostname
		}
		if r.Hostname == "" {
			r.Hostname, _ = os.Hostname()
		}
		r.Hostname = orDefault(hostname(r.Hostname), "localhost")
		r.openBook()
		r.Schedule = r.Schedule.filled()
		r.lanes.max = positive(r.LaneConcurrency, 20)
		r.slots = make(chan struct{}, r.Concurrency)
		r.crowd.slots = r.Concurrency
		r.freed = make(chan struct{}, 1)
		r.stop = make(chan struct{})
		r.gates.shaper, r.ways = r.shaper(), &shape.Shaper{SmarthostConnections: r.Concurrency, Connections: r.Concurrency}
		r.gates.queue, r.gates.stop = r.Concurrency/4, r.stop
		r.ended = make(chan struct{})
		r.work, r.abandon = context.WithCancel(context.Background())
	})
}

// shaper is the Runner's, or one made of its settings.
func (r *Runner) shaper() *shape.Shaper {
	if r.Shaper != nil {
		return r.Shaper
	}
	s := &shape.Shaper{Logger: r.Logger, SmarthostConnections: max(r.HostConcurrency, 0)}
	if d, ok := r.Deliverer.(*deliver.Deliverer); ok && d != nil {
		s.Rules = d.Sites
	}
	if r.LaneConcurrency > s.Rules.Limits("").Connections {
		s.Connections = r.LaneConcurrency
	}
	if half := max(r.Concurrency/2, 1); s.SmarthostConnections == 0 && half < s.Rules.Limits(anySmarthost).Connections {
		s.SmarthostConnections = half // the rest is for other ways
	}
	return s
}

// anySmarthost is a name that a smarthost's site may have.
const anySmarthost = "localhost:25"

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// hostname is a host's name as it may stand in a report: no failure shall go untold because of how the system was named.
func hostname(name string) string {
	name = strings.TrimSpace(name)
	if a, err := idna.Lookup.ToASCII(name); err == nil {
		return a
	}
	return strings.Map(func(r rune) rune {
		if badLabel(string(r)) && r != '.' {
			return '-'
		}
		return r
	}, name)
}

// positive is a setting that makes no sense when it is zero or negative.
func positive[T int | time.Duration](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}

// Run does the Runner's work until Shutdown is called, and then returns nil; or until ctx ends, and then returns its
// error. What was under way when ctx ended is put back. It can be called once. An error of the queue that more tries
// will not mend, [ErrClosed] for one, ends it too.
func (r *Runner) Run(ctx context.Context) error {
	r.init()
	r.mu.Lock()
	again, shut := r.begun, r.shut
	r.begun = again || !shut
	r.mu.Unlock()
	switch {
	case again:
		return errors.New("queue: the Runner was run before: make a new one")
	case shut:
		return nil
	}
	defer close(r.ended)
	defer context.AfterFunc(ctx, r.abandon)()
	err := r.dispatch(ctx)
	if err != nil {
		r.abandon()
	}
	_ = r.putBack()
	r.running.Wait()
	return err
}

// Shutdown takes on nothing more, waits until what is under way has ended, and returns nil. When ctx ends before that, it
// puts back what is still under way, which takes an instant, and returns ctx's error. A Runner that does not run has nothing
// under way, and will not run any more. It can be called more than once, but not by what it waits for: a Deliverer or a Trace.
func (r *Runner) Shutdown(ctx context.Context) error {
	r.init()
	r.mu.Lock()
	begun, again := r.begun, r.shut
	r.shut = true
	r.mu.Unlock()
	if !again {
		close(r.stop)
	}
	if !begun {
		return nil
	}
	select {
	case <-r.ended:
		return nil
	case <-ctx.Done():
		r.abandon()
		<-r.ended
		return ctx.Err()
	}
}

// leaseBatch is how many entries are asked for at once.
const leaseBatch = 64

// dispatch leases entries and begins their attempts, until it is told to stop.
func (r *Runner) dispatch(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.stop:
			return nil
		default:
		}
		next, err := r.lease(ctx)
		if err != nil && ctx.Err() == nil {
			return err
		}
		if !next.IsZero() {
			timer.Reset(max(time.Until(next), 0))
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
		case <-r.stop:
		case <-r.Queue.Changed():
		case <-r.freed:
		case <-timer.C:
		}
	}
}

// lease takes entries for as long as there are some, and slots for them. next is when to ask again; the zero time is when
// something changes.
func (r *Runner) lease(ctx context.Context) (next time.Time, err error) {
	for {
		free := cap(r.slots) - len(r.slots)
		if free == 0 {
			return time.Time{}, nil
		}
		if r.records.stopped() {
			return r.probe(ctx)
		}
		r.records.asked = time.Time{}
		if err := r.putBack(); err != nil && !isFinal(err) {
			return time.Now().Add(probeWait), nil
		}
		leases, next, err := r.take(ctx, min(free, leaseBatch))
		if err != nil {
			return r.cannotLease(ctx, err)
		}
		for _, l := range leases {
			r.begin(l)
		}
		if len(leases) < min(free, leaseBatch) {
			return next, nil
		}
	}
}

func (r *Runner) take(ctx context.Context, most int) ([]Lease, time.Time, error) {
	return r.Queue.Lease(ctx, LeaseRequest{Max: most, For: r.AttemptTime + leaseSlack, Room: r.room})
}

// cannotLease returns an error that ends Run, or waits a while, whatever changes meanwhile.
func (r *Runner) cannotLease(ctx context.Context, err error) (next time.Time, _ error) {
	if errors.Is(err, ErrClosed) || ctx.Err() != nil {
		return time.Time{}, err
	}
	r.Logger.Error("no mail can be leased from the queue; asking again in 10 s", "error", err)
	select {
	case <-time.After(10 * time.Second):
	case <-ctx.Done():
	case <-r.stop:
	}
	return time.Now(), nil
}

// leaseSlack is how much longer than an attempt a lease lasts: for recording the outcome, also on a disk in trouble.
const leaseSlack = 15 * time.Minute

func (r *Runner) begin(l Lease) {
	r.slots <- struct{}{}
	var w *waiter
	if !r.lanes.begin(l.Lane) {
		w = r.crowd.enter()
	}
	r.running.Go(func() {
		defer func() {
			if p := recover(); p != nil { // a defect of ours or of the queue's; the lease ends by itself, and the attempt counts
				r.Logger.Error("an attempt broke down", "id", l.ID, "lane", l.Lane, "panic", p, "stack", string(debug.Stack()))
			}
			r.crowd.leave(w)
			r.lanes.end(l.Lane)
			<-r.slots
			select {
			case r.freed <- struct{}{}:
			default:
			}
		}()
		r.process(l, w)
	})
}
