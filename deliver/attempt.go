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
	mode    route.TLSMode // what is asked of TLS
	m       *Message
	pending []*Outcome // neither taken nor refused for good
	budget  int        // addresses that may still be tried
	clear   []place    // where opportunistic TLS failed: tried again in the clear when no host is left
	absent  []absentee // what did not answer a moment ago: tried last
	asking  []way      // addresses of which other attempts wait to hear from this one whether they are back
	over    bool       // no other host would do better
	site    site       // whose hosts they are
}

// A place is an address of a target.
type place struct {
	target *target
	addr   netip.Addr // the zero Addr for a unix socket
}

// addrPort is the zero AddrPort for a unix socket.
func (p place) addrPort() netip.AddrPort {
	if !p.addr.IsValid() {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(p.addr, p.target.port)
}

// attempt tries the targets that find gives for the pending outcomes.
func (d *Deliverer) attempt(ctx context.Context, hop *route.Hop, m *Message, pending []*Outcome, find func() ([]target, *Error)) {
	a := &attempt{d: d, hop: hop, mode: m.tlsMode(hop), m: m, pending: pending, budget: d.set.limits.Addresses}
	targets, e := find()
	if e != nil {
		a.fail(e)
		return
	}
	a.site = d.siteFor(hop, targets)
	a.hosts(ctx, targets)
	a.again(ctx)
	a.last(ctx)
	a.again(ctx)
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
	switch first := slices.IndexFunc(a.pending, decided); {
	case first == 0 && len(a.pending) == 1:
		a.pending = nil
	case first >= 0:
		a.pending = slices.DeleteFunc(slices.Clone(a.pending), decided)
	}
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
	places, e := a.places(ctx, t)
	if e != nil {
		hopeless = !e.Temporary
		e.Host = t.host
		a.fail(e.soften())
		return hopeless
	}
	defer a.release()
	n := min(max(1, a.budget-2*others), a.budget)
	present, absent := a.attend(places)
	present = present[:min(len(present), n)]
	absent = absent[:min(len(absent), n-len(present))]
	a.budget -= len(absent)
	a.absent = append(a.absent, absent...)
	if len(present) > 0 {
		a.pass()
		tried, answered := a.approach(ctx, present, false)
		a.budget -= tried
		if answered {
			a.forget(t)
		}
	}
	return false
}

// forget drops what was passed over of a host that has answered: its other addresses are the same host.
func (a *attempt) forget(t *target) {
	a.absent = slices.DeleteFunc(a.absent, func(at absentee) bool { return at.target == t })
}

// places gives what may be tried of a target, families interleaved.
func (a *attempt) places(ctx context.Context, t *target) ([]place, *Error) {
	if t.unix != "" {
		return []place{{target: t}}, nil
	}
	addrs, e := a.d.usable(ctx, a.hop, t)
	places := make([]place, len(addrs))
	for i, addr := range addrs {
		places[i] = place{t, addr}
	}
	return places, e
}

// again tries the hosts with which TLS failed in the clear.
func (a *attempt) again(ctx context.Context) {
	var said *target // the last one that answered: its other addresses are the same host
	list := a.clear
	a.clear = nil
	for _, p := range list {
		if a.done(ctx) || p.target == said {
			continue
		}
		a.pass()
		if _, answered := a.approach(ctx, []place{p}, true); answered {
			said = p.target
			a.forget(said)
		}
	}
}

// An approach is one host being tried: address after address until it has answered what it was asked.
type approach struct {
	*attempt
	left  []place    // not tried, best first
	at    place      // where the session is
	rest  []*Outcome // of pending: not decided by the host
	plain bool       // without TLS
	fresh bool       // a kept session was found dead: no other one is used
}

// approach tries the addresses of one host for everything that is pending. It tells how many it tried, and whether the
// host answered what it was asked.
func (a *attempt) approach(ctx context.Context, places []place, plain bool) (tried int, answered bool) {
	h := &approach{attempt: a, left: places, rest: a.pending, plain: plain}
	for len(h.rest) > 0 && len(h.left) > 0 && !answered && !a.done(ctx) {
		if s := h.session(ctx); s != nil {
			answered = h.use(s)
		} else {
			h.retry()
		}
	}
	a.settle()
	return len(places) - len(h.left), answered
}

// retry leaves what the host has not decided for good to its next address.
func (h *approach) retry() {
	h.settle()
	h.rest = h.pending
}

// use hands the message over on a session. It reports whether the host answered what it was asked.
func (h *approach) use(s *session) (answered bool) {
	rest, e := h.serve(s, h.rest)
	h.rest = rest
	h.d.release(s)
	switch {
	case e == nil:
		if len(rest) == 0 {
			return true
		}
		h.left = append([]place{h.at}, h.left...) // the session has served enough
	case e.stale: // a connection that died idle costs no try
		h.fresh = true
		h.left = append([]place{h.at}, h.left...)
	case !e.Reply.IsZero() || !e.Temporary || e.lacking:
		h.over = h.over || e.ends
		return true
	default:
		h.over = h.over || e.ends
		h.retry()
	}
	return false
}

// refused notes that no session came about. Where opportunistic TLS failed the host has another chance in the clear, but
// no password goes there.
func (h *approach) refused(e *Error, p place) {
	opportunistic := h.mode == route.TLSOpportunistic && !h.hop.LogsIn()
	if e.Stage == StageTLS && opportunistic && !h.plain {
		h.clear = append(h.clear, p)
	}
	h.over = h.over || e.ends
	failAll(h.rest, e)
}

// serve runs transactions for recipients on a session, and returns those that it did not come to: because the session has
// served enough, or because it was found dead. Any other error has decided them all.
func (a *attempt) serve(s *session, rest []*Outcome) ([]*Outcome, *Error) {
	for len(rest) > 0 && !a.d.enough(s) {
		n := s.room(rest, a.d.recipients(&a.site))
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

// enough reports whether a session has served as many messages as it may.
func (d *Deliverer) enough(s *session) bool {
	return s.worn || s.served >= atMost(s.messages, s.caps.maxMails)
}

// room is how many of the recipients go in one transaction: at most limit, and no more than the host takes, as far as it has
// told (RFC 9422, section 4) or shown.
func (s *session) room(rest []*Outcome, limit int) int {
	n := atMost(atMost(min(len(rest), limit), s.most), s.caps.maxRcpt)
	if s.caps.maxDomains == 0 {
		return n
	}
	domains := map[string]bool{}
	for i, o := range rest[:n] {
		if domains[asciiDomain(domainOf(o.Recipient))] = true; len(domains) > s.caps.maxDomains {
			return i
		}
	}
	return n
}

// atMost bounds n, where there is a limit.
func atMost(n, limit int) int {
	if limit > 0 {
		return min(n, limit)
	}
	return n
}

func failAll(list []*Outcome, e *Error) {
	for _, o := range list {
		o.fail(e)
	}
}
