package deliver

import (
	"context"
	"net/netip"
	"slices"

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
	over    bool       // no other host would do better
}

// A place is an address of a target.
type place struct {
	target *target
	addr   netip.Addr // the zero Addr for a unix socket
}

// attempt tries the targets that find gives for the pending outcomes.
func (d *Deliverer) attempt(ctx context.Context, hop *route.Hop, m *Message, pending []*Outcome, find func() ([]target, *Error)) {
	a := &attempt{d: d, hop: hop, m: m, pending: pending, budget: d.set.limits.Addresses}
	targets, e := find()
	if e != nil {
		a.fail(e)
		return
	}
	a.hosts(ctx, targets)
	var said *target // the last one that answered in the clear: its other addresses are the same host
	for _, p := range a.clear {
		if !a.done(ctx) && p.target != said && a.address(ctx, p, true) {
			said = p.target
		}
	}
	if ctx.Err() != nil {
		a.cutShort(ctx)
	}
}

// cutShort says why no host was tried, where none was before ctx ended.
func (a *attempt) cutShort(ctx context.Context) {
	for _, o := range a.pending {
		if !o.decided {
			o.fail(tempErr(StageRoute, "4.4.1", "given up before a host was tried: %w", context.Cause(ctx)))
		}
	}
}

func (a *attempt) done(ctx context.Context) bool {
	return len(a.pending) == 0 || a.over || ctx.Err() != nil
}

func (a *attempt) fail(e *Error) {
	failAll(a.pending, e)
	a.settle()
}

// settle keeps as pending what another host may do better.
func (a *attempt) settle() {
	decided := func(o *Outcome) bool { return o.Result != TempFail || o.PossiblyDelivered }
	a.pending = slices.DeleteFunc(slices.Clone(a.pending), decided)
}

// hosts tries the hosts in their order. What DNS says for good about a host (it has no address) is the recipients' failure
// only when it is so for every host (RFC 5321, section 5.1).
func (a *attempt) hosts(ctx context.Context, targets []target) {
	first := targets[:min(len(targets), a.d.set.limits.Hosts)]
	hopeless := 0
	for i := range first {
		if a.done(ctx) {
			return
		}
		if e := a.d.loops(ctx, first[i:], i == 0 || first[i].preference != first[i-1].preference); e != nil {
			if hopeless == i { // no better host is left
				a.fail(e)
			}
			return
		}
		if a.host(ctx, &first[i], len(first)-i-1) {
			hopeless++
		}
	}
	if hopeless == len(targets) {
		for _, o := range a.pending {
			o.harden()
		}
		a.settle()
	}
}

// host tries the addresses of one host, and leaves two tries for each of the others. It reports whether DNS says for good
// that there are none.
func (a *attempt) host(ctx context.Context, t *target, others int) (hopeless bool) {
	if t.unix != "" {
		a.address(ctx, place{target: t}, false)
		return false
	}
	addrs, e := a.d.usable(ctx, a.hop, t)
	if e != nil {
		hopeless = !e.Temporary
		e.Host = t.host
		a.fail(e.soften())
		return hopeless
	}
	share := max(1, a.budget-2*others)
	for _, addr := range addrs[:min(len(addrs), share, a.budget)] {
		if a.done(ctx) {
			break
		}
		a.budget--
		if a.address(ctx, place{t, addr}, false) {
			break // it said what it thinks; its other addresses are the same host
		}
	}
	return false
}

// address tries one address for everything that is pending. It reports whether the host answered what it was asked.
func (a *attempt) address(ctx context.Context, p place, plain bool) (answered bool) {
	k := newKey(a.hop, p, plain)
	addr := netip.AddrPort{}
	if p.addr.IsValid() {
		addr = netip.AddrPortFrom(p.addr, p.target.port)
	}
	defer a.settle()
	fresh := false
	for rest := a.pending; len(rest) > 0; {
		s, e := a.session(ctx, k, addr, fresh)
		if e != nil {
			a.refused(rest, e, p, plain)
			return false
		}
		rest, e = a.serve(s, rest)
		a.d.release(s)
		fresh = e != nil && e.stale // a connection that died idle costs no try
		if e != nil && !e.stale {
			a.over = a.over || e.ends
			return !e.Reply.IsZero() || !e.Temporary
		}
	}
	return true
}

// refused notes that no session came about. Where opportunistic TLS failed the host has another chance in the clear, but
// no password goes there.
func (a *attempt) refused(rest []*Outcome, e *Error, p place, plain bool) {
	opportunistic := a.hop.Mode() == route.TLSOpportunistic && a.hop.User == ""
	if e.Stage == StageTLS && opportunistic && !plain {
		a.clear = append(a.clear, p)
	}
	a.over = a.over || e.ends
	failAll(rest, e)
}

// serve runs transactions for recipients on a session, and returns those that it did not come to: because the session has
// served enough, or because it was found dead. Any other error has decided them all.
func (a *attempt) serve(s *session, rest []*Outcome) ([]*Outcome, *Error) {
	for len(rest) > 0 && s.served < a.d.set.limits.Messages {
		n := min(len(rest), a.d.set.limits.Recipients)
		if s.most > 0 {
			n = min(n, s.most)
		}
		t := &transaction{d: a.d, s: s, hop: a.hop, m: a.m, waiting: rest[:n:n]}
		e := t.run()
		if e != nil && e.stale {
			return append(t.waiting, rest[n:]...), e
		}
		rest = append(t.later, rest[n:]...)
		if e != nil { // the others would not fare better on this session
			shared := *e
			shared.PossiblyDelivered = false
			failAll(rest, &shared)
			return nil, e
		}
	}
	return rest, nil
}

func failAll(list []*Outcome, e *Error) {
	for _, o := range list {
		o.fail(e)
	}
}
