package deliver

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/sortie-mail/sortie/deliver/resolve"
	"github.com/sortie-mail/sortie/dsn/reason"
	"github.com/sortie-mail/sortie/route"
)

// A Resolver answers what the MX rules ask of DNS. [resolve.Resolver] is one. An error is temporary unless it is a
// [*resolve.Error] with NotFound, or wraps [resolve.ErrBadName].
type Resolver interface {
	// LookupMX gives the MX records of a domain; none, and no error, where the domain exists without any.
	LookupMX(ctx context.Context, domain string) ([]resolve.MX, error)
	// LookupAddr gives the addresses of a host; none, and no error, where the name exists without any.
	LookupAddr(ctx context.Context, host string) ([]netip.Addr, error)
}

// A Deliverer makes attempts. Its fields must not change once it is in use; the zero value works. It is safe for
// concurrent use.
type Deliverer struct {
	Hostname string   // the name to greet with and to look for in MX records; "" is the system's
	Resolver Resolver // nil is a resolver with the system's configuration
	Port     uint16   // for direct delivery; 0 is 25, what the internet speaks (others are for labs)

	// AllowPrivate lets MX hosts have loopback, private and link-local addresses. Without it a stranger's MX record
	// cannot lead mail into your network.
	AllowPrivate bool
	// Self are addresses of this server that the system does not know, those before a NAT for instance. An MX host
	// with one of them is this server, and mail to it would loop (RFC 5321, section 5.1).
	Self []netip.Addr

	// Dial makes connections; nil is a net.Dialer. It is not asked for hops with a source address.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// TLS is where roots, client certificates and versions come from; nil is the system's roots, TLS 1.2 at least, and
	// for opportunistic TLS 1.0. Server names and verification are the Deliverer's own matter.
	TLS *tls.Config

	Timeouts Timeouts
	Limits   Limits

	Rules      *reason.Rules // how refusals are classed; nil is the embedded rules
	Logger     *slog.Logger  // nil is no log
	Trace      *Trace        // nil is no trace
	Transcript Transcript    // nil is no transcript

	once     sync.Once
	pool     pool
	sessions tls.ClientSessionCache
	own      map[netip.Addr]bool
}

// Timeouts bound every step of a session (RFC 5321, section 4.5.3.2). Zero fields have the default of their comment.
type Timeouts struct {
	Connect  time.Duration // 30 s, for each address
	Greeting time.Duration // 5 min
	EHLO     time.Duration // 5 min
	TLS      time.Duration // 1 min, for the handshake
	Auth     time.Duration // 2 min, for each answer
	Mail     time.Duration // 5 min
	Rcpt     time.Duration // 5 min, for each answer
	Data     time.Duration // 2 min
	Block    time.Duration // 3 min, for each write of the body
	Dot      time.Duration // 10 min
	Quit     time.Duration // 2 s: nothing depends on the answer
	Total    time.Duration // 1 h, for all of an attempt
}

// Limits bound an attempt. Zero fields have the default of their comment.
type Limits struct {
	Hosts      int           // 5 MX hosts are tried
	Addresses  int           // 10 addresses in all
	Recipients int           // 100 in a transaction (RFC 5321, section 4.5.3.1.8)
	Idle       int           // 100 idle connections are kept; negative is none
	IdleTime   time.Duration // 5 s, how long each is
	Messages   int           // 100 transactions on a connection
	Age        time.Duration // 5 min, after which a connection is used no more
}

func orElse[T int | time.Duration](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}

func (t Timeouts) filled() Timeouts {
	return Timeouts{
		Connect: orElse(t.Connect, 30*time.Second), Greeting: orElse(t.Greeting, 5*time.Minute), EHLO: orElse(t.EHLO, 5*time.Minute),
		TLS: orElse(t.TLS, time.Minute), Auth: orElse(t.Auth, 2*time.Minute), Mail: orElse(t.Mail, 5*time.Minute),
		Rcpt: orElse(t.Rcpt, 5*time.Minute), Data: orElse(t.Data, 2*time.Minute), Block: orElse(t.Block, 3*time.Minute),
		Dot: orElse(t.Dot, 10*time.Minute), Quit: orElse(t.Quit, 2*time.Second), Total: orElse(t.Total, time.Hour),
	}
}

func (l Limits) filled() Limits {
	return Limits{
		Hosts: max(1, orElse(l.Hosts, 5)), Addresses: max(1, orElse(l.Addresses, 10)), Recipients: max(1, orElse(l.Recipients, 100)),
		Idle: orElse(l.Idle, 100), IdleTime: orElse(l.IdleTime, 5*time.Second), Messages: max(1, orElse(l.Messages, 100)),
		Age: orElse(l.Age, 5*time.Minute),
	}
}

// step is how long the reply of a stage of a transaction may take.
func (d *Deliverer) step(stage Stage) time.Duration {
	switch stage {
	case StageMail:
		return d.Timeouts.Mail
	case StageRcpt:
		return d.Timeouts.Rcpt
	case StageData:
		return d.Timeouts.Data
	}
	return d.Timeouts.Dot
}

// init fills in what the zero value leaves out.
func (d *Deliverer) init() {
	d.once.Do(func() {
		d.Timeouts, d.Limits = d.Timeouts.filled(), d.Limits.filled()
		if d.Hostname == "" {
			d.Hostname, _ = os.Hostname()
		}
		if d.Hostname == "" {
			d.Hostname = "localhost"
		}
		if d.Resolver == nil {
			d.Resolver = new(resolve.Resolver)
		}
		if d.Port == 0 {
			d.Port = 25
		}
		if d.Logger == nil {
			d.Logger = slog.New(slog.DiscardHandler)
		}
		if d.Trace == nil {
			d.Trace = new(Trace)
		}
		d.sessions = tls.NewLRUClientSessionCache(1000)
		d.own = ownAddresses(d.Self)
		d.pool.max, d.pool.idleTime = d.Limits.Idle, d.Limits.IdleTime
	})
}

// Deliver makes one attempt for a message by a route, and returns an outcome for each recipient, in their order. The hops
// of the route are tried in turn, each for the recipients whose outcome meets its condition. It ends when ctx does,
// or after Timeouts.Total; what is not decided then is a temporary failure. It never panics for what the far end does.
func (d *Deliverer) Deliver(ctx context.Context, r route.Route, m *Message) []Outcome {
	d.init()
	ctx, cancel := context.WithTimeout(ctx, d.Timeouts.Total)
	defer cancel()
	outcomes := make([]Outcome, len(m.To))
	pending := make([]*Outcome, len(m.To))
	start := time.Now()
	for i, to := range m.To {
		outcomes[i] = Outcome{Recipient: to.Address, to: &m.To[i], Route: r, Stage: StageRoute, Status: "4.3.5", Detail: "the route has no hops", Start: start}
		pending[i] = &outcomes[i]
	}
	for i := range r.Hops {
		hop := &r.Hops[i]
		if i > 0 {
			pending = meeting(hop.On, outcomes)
		}
		if len(pending) > 0 {
			d.hop(ctx, hop, m, pending)
		}
	}
	d.tell(m, outcomes)
	return outcomes
}

// meeting picks the outcomes after which a hop with a condition is tried.
func meeting(on route.Condition, outcomes []Outcome) (pending []*Outcome) {
	for i := range outcomes {
		if o := &outcomes[i]; o.meets(on) {
			pending = append(pending, o)
		}
	}
	return pending
}

func (o *Outcome) meets(on route.Condition) bool {
	failed := o.Result == TempFail || o.Result == PermFail
	if !failed || o.PossiblyDelivered { // another way would deliver it twice
		return false
	}
	switch on {
	case route.OnAny:
		return true
	case route.OnTempfail:
		return o.Result == TempFail
	case route.OnUnreachable:
		return o.Stage == StageConnect
	case route.OnBlocked:
		return o.Reason.Blocked()
	}
	return false
}

// hop tries one hop for the outcomes that are pending, and decides each of them.
func (d *Deliverer) hop(ctx context.Context, hop *route.Hop, m *Message, pending []*Outcome) {
	for _, o := range pending {
		o.begin(hop)
	}
	switch hop.Kind {
	case route.Reject:
		rejectAll(hop, pending)
	case route.Hold:
		settleAll(pending, Held, "2.0.0", "the route says hold")
	case route.Discard:
		settleAll(pending, Discarded, "2.0.0", "the route says discard")
	case route.Smarthost:
		d.attempt(ctx, hop, m, pending, func(ctx context.Context) ([]target, *Error) { return d.smarthostTargets(ctx, hop) })
	default:
		for _, group := range byDomain(pending) {
			domain := domainOf(group[0].Recipient)
			d.attempt(ctx, hop, m, group, func(ctx context.Context) ([]target, *Error) { return d.mxTargets(ctx, domain) })
		}
	}
	d.classify(pending)
}

// Close ends the connections that are kept for reuse. The Deliverer can be used again.
func (d *Deliverer) Close() error {
	d.pool.close()
	return nil
}

// tell reports outcomes to the log and the trace.
func (d *Deliverer) tell(m *Message, outcomes []Outcome) {
	now := time.Now()
	for i := range outcomes {
		o := &outcomes[i]
		o.End = now
		level := slog.LevelInfo
		if o.RouteTrouble {
			level = slog.LevelError
		}
		if d.Logger.Enabled(context.Background(), level) {
			d.Logger.LogAttrs(context.Background(), level, "attempt", slog.String("id", m.ID), slog.Any("outcome", o))
		}
		if d.Trace.Outcome != nil {
			d.Trace.Outcome(m, *o)
		}
	}
}
