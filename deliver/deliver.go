package deliver

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/sortie-mail/sortie/deliver/resolve"
	"github.com/sortie-mail/sortie/deliver/shape"
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
	Hostname string // the name to greet with and to look for in MX records; "" is the system's
	Port     uint16 // for direct delivery; 0 is 25, what the internet speaks (others are for labs)

	// Resolver asks DNS; nil is a resolver with the system's configuration. Where it is a [resolve.Resolver] with MaxStale,
	// what follows from a stale answer alone, for example that a host has no address, is temporary (4.4.3).
	Resolver Resolver

	// AllowPrivate lets MX hosts have loopback, private and link-local addresses. Without it a stranger's MX record
	// cannot lead mail into your network.
	AllowPrivate bool
	// Self are addresses of this server that the system does not know, those before a NAT for instance. An MX host
	// with one of them is this server, and mail to it would loop (RFC 5321, section 5.1). Those of the system's
	// interfaces are looked up once; loopback is not among them.
	Self []netip.Addr

	// Dial makes connections, of network "tcp" or "unix"; nil is a net.Dialer. It ends when ctx does, and may be called for
	// several addresses of a host at once. Of hops with a proxy it connects to the proxy; it is not asked for hops with a
	// source address.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// TLS is where roots, client certificates and versions come from; nil is the system's roots, TLS 1.2 at least, and
	// for opportunistic TLS 1.0. Server names and verification are the Deliverer's own matter.
	TLS *tls.Config
	// Token gives the access token (RFC 6750) for a hop that has a user and no secret, to log in with OAUTHBEARER or
	// XOAUTH2; a routing file has such a hop with auth=oauthbearer or auth=xoauth2. It is asked for every login and caches
	// by itself; ctx ends after Timeouts.Auth. When a host refuses a token (535), or Token fails, the attempt ends with
	// RouteTrouble, and nothing is tried again within it: the next attempt asks Token again, which should have a fresh one
	// by then. What its error says is shown to administrators, except for what looks like a token in it. nil is no tokens:
	// such a hop logs in by the client certificate of TLS.
	Token func(ctx context.Context, hop route.Hop) (string, error)

	Timeouts Timeouts
	Limits   Limits
	Sites    *shape.Rules // what the large providers take on a connection and in a transaction; nil is the embedded rules

	// NoConversion fails a message that a host cannot take as it is (5.6.3, 5.6.7), where otherwise 8-bit text, headers in
	// UTF-8 and lines over 998 octets are re-encoded for it. Signed parts are never re-encoded.
	NoConversion bool

	Rules      *reason.Rules // how refusals are classed; nil is the embedded rules
	Logger     *slog.Logger  // nil is no log
	Trace      *Trace        // nil is no trace
	Transcript Transcript    // nil is no transcript

	once   sync.Once
	set    settings
	pool   pool
	budget budget
	absent absences
}

// Deliver makes one attempt for a message by a route, and returns an outcome for each recipient, in their order. The hops
// of the route are tried in turn, each for the recipients whose outcome meets its condition; a later hop without a
// condition is tried after any failure. It ends when ctx does, or after Timeouts.Total; what is not decided then is a
// temporary failure. It never panics for what the far end does.
func (d *Deliverer) Deliver(ctx context.Context, r route.Route, m *Message) []Outcome {
	d.init()
	ctx, cancel := context.WithTimeoutCause(ctx, d.set.timeouts.Total, d.set.tooLong)
	defer cancel()
	ctx = d.set.trace.lookups(ctx)
	outcomes := newOutcomes(r, m)
	original := m
	m = &Message{}
	*m = *original // what is learnt of it stays here
	for i := range r.Hops {
		hop := &r.Hops[i]
		pending := meeting(hop.On, i == 0, outcomes)
		if len(pending) == 0 {
			continue
		}
		if i > 0 && ctx.Err() != nil {
			break // an attempt that was cut short is no reason to go another way
		}
		d.hop(ctx, hop, m, pending)
	}
	d.tell(ctx, original, outcomes)
	return outcomes
}

func newOutcomes(r route.Route, m *Message) []Outcome {
	outcomes := make([]Outcome, len(m.To))
	start := time.Now()
	for i, to := range m.To {
		outcomes[i] = Outcome{
			Recipient: to.Address, to: &m.To[i], Route: r, Start: start,
			Stage: StageRoute, Status: "4.3.5", Detail: "the route has no hops", RouteTrouble: true,
		}
	}
	return outcomes
}

// meeting picks the outcomes after which a hop is tried: all for the first one.
func meeting(on route.Condition, first bool, outcomes []Outcome) (pending []*Outcome) {
	for i := range outcomes {
		if o := &outcomes[i]; first || o.meets(on) {
			pending = append(pending, o)
		}
	}
	return pending
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
	default:
		d.send(ctx, hop, m, pending)
		for _, o := range pending {
			o.conclude()
		}
		d.classify(pending)
	}
}

// send tries a hop that leads to hosts.
func (d *Deliverer) send(ctx context.Context, hop *route.Hop, m *Message, pending []*Outcome) {
	pending = addressable(pending)
	switch {
	case len(pending) == 0:
	case m.tlsMode(hop) == route.TLSDANE:
		failAll(pending, tempErr(StageTLS, "4.7.5",
			"tls=dane is not built in yet: write tls=verified or tls=required in the route").trouble())
	case hop.Kind == route.MX && (hop.Host != "" || hop.LogsIn() || !hop.Secret.IsZero()): // whose host is a stranger's
		failAll(pending, tempErr(StageRoute, "4.3.5",
			"the hop leads to the recipients' own hosts, and has a host or a login: set its Kind to route.Smarthost").trouble())
	case hop.Kind == route.Smarthost:
		d.attempt(ctx, hop, m, pending, func() ([]target, *Error) { return d.smarthostTargets(ctx, hop, d.mxTargets) })
	default:
		for _, group := range byDomain(pending) {
			domain := domainOf(group[0].Recipient)
			d.attempt(ctx, hop, m, group, func() ([]target, *Error) { return d.mxTargets(ctx, domain) })
		}
	}
}

// classify says of every refusal by a host why it was.
func (d *Deliverer) classify(pending []*Outcome) {
	for _, o := range pending {
		if o.failed() && o.Reply.Code >= 400 {
			o.Reason = d.Rules.Classify(reason.Input{Reply: o.Reply, Stage: string(o.Stage), Host: o.Host, Site: siteOf(o.Host)})
		}
	}
}

// Close ends the connections that are kept for reuse, and waits until each has said goodbye. It closes the Resolver only
// where that is nil, and its own. The Deliverer can be used again.
func (d *Deliverer) Close() error {
	d.init()
	d.pool.close()
	if d.set.made != nil {
		return d.set.made.Close()
	}
	return nil
}

// tell reports outcomes to the log and the trace.
func (d *Deliverer) tell(ctx context.Context, m *Message, outcomes []Outcome) {
	now := time.Now()
	for i := range outcomes {
		o := &outcomes[i]
		o.End = now
		level := slog.LevelInfo
		if o.RouteTrouble {
			level = slog.LevelError
		}
		if d.set.log.Enabled(ctx, level) {
			d.set.log.LogAttrs(ctx, level, "attempt", slog.String("id", m.ID), slog.Any("outcome", o))
		}
		if d.set.trace.Outcome != nil {
			d.set.trace.Outcome(m, *o)
		}
	}
}
