package deliver

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/sortie-mail/sortie/dsn/reason"
	"github.com/sortie-mail/sortie/route"
)

// An attempt is one hop being tried for recipients that go the same way: host after host until each recipient is taken
// or refused for good.
type attempt struct {
	d       *Deliverer
	hop     *route.Hop
	m       *Message
	pending []*Outcome // neither taken nor refused for good
	budget  int        // addresses that may still be tried
	clear   []place    // where opportunistic TLS failed: tried again in the clear when no host is left
	over    bool       // the trouble is ours: no other host would do better
}

// A place is an address of a target.
type place struct {
	target *target
	addr   netip.Addr
}

// attempt tries the targets that find gives for the pending outcomes.
func (d *Deliverer) attempt(ctx context.Context, hop *route.Hop, m *Message, pending []*Outcome, find func(context.Context) ([]target, *Error)) {
	targets, e := find(ctx)
	if e != nil {
		failAll(pending, e)
		return
	}
	a := &attempt{d: d, hop: hop, m: m, pending: pending, budget: d.Limits.Addresses}
	var hopeless *Error // why no host can be connected to, ever
	alive := len(targets)
	for i := range targets {
		if a.done(ctx) {
			return
		}
		if e := a.host(ctx, &targets[i]); e != nil {
			hopeless = e
			alive--
		}
	}
	if alive == 0 && hopeless != nil {
		failAll(a.pending, hopeless)
		return
	}
	for _, p := range a.clear {
		if a.done(ctx) {
			return
		}
		a.address(ctx, p, true)
	}
}

func (a *attempt) done(ctx context.Context) bool {
	return len(a.pending) == 0 || a.over || ctx.Err() != nil
}

// host tries the addresses of one host. It returns an error where DNS says for good that it has none to go to; that is the
// recipients' failure only when it is so for every host (RFC 5321, section 5.1).
func (a *attempt) host(ctx context.Context, t *target) *Error {
	if t.unix != "" {
		a.address(ctx, place{target: t}, false)
		return nil
	}
	addrs, e := a.d.addresses(ctx, t)
	if e != nil {
		e.Host = t.host
		if t.free {
			e.Status = "4" + e.Status[1:]
			e.trouble()
		}
		now := *e
		now.Temporary, now.Status = true, "4"+e.Status[1:]
		failAll(a.pending, &now)
		if e.Temporary {
			return nil
		}
		return e
	}
	for _, addr := range addrs {
		if a.done(ctx) || a.budget == 0 {
			break
		}
		a.budget--
		if a.address(ctx, place{t, addr}, false) {
			break // it said what it thinks; its other addresses are the same host
		}
	}
	return nil
}

// address tries one address for everything that is pending. It reports whether a mail transaction came about.
func (a *attempt) address(ctx context.Context, p place, plain bool) (spoke bool) {
	k := newKey(a.hop, p.target, p.addr, plain)
	addr := netip.AddrPort{}
	if p.addr.IsValid() {
		addr = netip.AddrPortFrom(p.addr, p.target.port)
	}
	rest := a.pending
	connect := a.d.connect
	for len(rest) > 0 {
		s, e := connect(ctx, a.hop, k, addr, a.m.ID)
		if e != nil {
			a.refused(rest, e, p, plain)
			return spoke
		}
		stale := false
		rest, stale = a.serve(ctx, s, k, rest)
		spoke = spoke || !stale
		if stale {
			connect = a.d.newSession // a connection that died idle costs no try
		}
	}
	a.settle()
	return spoke
}

// refused notes that no session came about.
func (a *attempt) refused(rest []*Outcome, e *Error, p place, plain bool) {
	opportunistic := a.hop.Mode() == route.TLSOpportunistic && a.hop.Protocol != route.SMTPS
	if e.Stage == StageTLS && opportunistic && !plain {
		a.clear = append(a.clear, p)
	}
	failAll(rest, e)
	a.settle()
}

// settle keeps as pending what another host may do better.
func (a *attempt) settle() {
	a.pending = slices.DeleteFunc(slices.Clone(a.pending), func(o *Outcome) bool { return o.Result != TempFail || o.PossiblyDelivered })
}

// serve runs transactions for recipients on a session, and keeps or ends it. rest are the recipients that it did not
// come to; stale says that the session was dead when it was taken out of the pool.
func (a *attempt) serve(ctx context.Context, s *session, k key, rest []*Outcome) (_ []*Outcome, stale bool) {
	detach := s.attach(ctx, a.m.ID)
	for len(rest) > 0 && !s.broken && s.served < a.d.Limits.Messages {
		n := min(len(rest), a.d.Limits.Recipients)
		t := &transaction{d: a.d, s: s, hop: a.hop, m: a.m, to: rest[:n:n]}
		e := t.run(ctx)
		if e != nil && e.stale {
			detach()
			s.close()
			return rest, true
		}
		rest = append(t.later, rest[n:]...)
		if e != nil { // nobody else will fare better on this session
			shared := *e
			shared.PossiblyDelivered = false
			failAll(rest, &shared)
			rest = nil
			a.over = a.over || e.local
		}
	}
	if !detach() {
		s.close()
	}
	a.d.keep(k, s)
	return rest, false
}

// keep puts a session into the pool, or ends it.
func (d *Deliverer) keep(k key, s *session) {
	switch {
	case s.broken:
		s.close()
	case s.served >= d.Limits.Messages || time.Since(s.born) >= d.Limits.Age || d.Limits.Idle < 0:
		d.pool.quits.Go(func() { s.quit(d.Timeouts.Quit) })
	default:
		d.pool.put(k, s, d.Timeouts.Quit)
	}
}

func failAll(list []*Outcome, e *Error) {
	for _, o := range list {
		o.fail(e)
	}
}

// classify says of every failure with a reply why it was refused.
func (d *Deliverer) classify(pending []*Outcome) {
	for _, o := range pending {
		failed := o.Result == TempFail || o.Result == PermFail
		if failed && !o.Reply.IsZero() {
			o.Reason = d.Rules.Classify(reason.Input{Reply: o.Reply, Stage: string(o.Stage), Host: o.Host, Site: siteOf(o.Host)})
		}
	}
}
