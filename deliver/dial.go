package deliver

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"
	"unique"

	"github.com/sortie-mail/sortie/route"
)

// key tells which sessions may serve a hop at an address.
type key struct {
	to       netip.AddrPort // the zero AddrPort for a unix socket
	host     string         // or the path of the socket
	plain    bool           // opportunistic TLS is left out
	protocol route.Protocol
	mode     route.TLSMode
	auth     route.Auth
	user     string
	password hidden
	source   netip.Addr
	helo     string
	proxy    via
}

// via is a proxy by what it is, and not by where its password came from.
type via struct {
	address, user string
	password      hidden
}

// A hidden text is compared by what it says, and not shown: package fmt, which prints unexported fields too, has an address.
type hidden struct{ handle unique.Handle[string] }

func hide(text string) (h hidden) {
	if text != "" {
		h.handle = unique.Make(text)
	}
	return h
}

func (h hidden) value() string {
	if h == (hidden{}) {
		return ""
	}
	return h.handle.Value()
}

func newKey(hop *route.Hop, mode route.TLSMode, p place, plain bool) key {
	k := key{
		to: p.addrPort(), host: p.target.host, plain: plain,
		protocol: route.SMTP, mode: mode, auth: hop.Auth, user: hop.User, password: hide(hop.Secret.Value()), helo: hop.HELOFor(p.addr),
	}
	k.source, _ = hop.SourceFor(p.addr)
	if hop.Kind == route.Smarthost {
		k.protocol = hop.Protocol
	}
	if !hop.Proxy.IsZero() {
		k.proxy = via{hop.Proxy.Address(), hop.Proxy.User, hide(hop.Proxy.Secret.Value())}
	}
	return k
}

func (k key) way() way { return way{k.to, k.source, k.proxy.address} }

// network and address are where to dial.
func (k key) network() (network, address string) {
	if !k.to.IsValid() {
		return "unix", k.host
	}
	return "tcp", k.to.String()
}

// session gives a session to one of the addresses that are left: one that was kept, or else the first that connects. It
// gives nil where none came about, with the outcomes told why.
func (h *approach) session(ctx context.Context) *session {
	if !h.fresh {
		for _, p := range h.left {
			if s := h.kept(ctx, newKey(h.hop, h.mode, p, h.plain)); s != nil {
				s.times.used()
				s.times.Lookup = p.target.looked
				h.take(p)
				return s
			}
		}
	}
	won, ok := h.connect(ctx)
	if !ok {
		return nil
	}
	return h.open(ctx, won)
}

// kept takes a session out of the pool, but for those that have died there.
func (a *attempt) kept(ctx context.Context, k key) *session {
	for s := a.d.pool.take(k); s != nil; s = a.d.pool.take(k) {
		s.attach(ctx, a.m.ID)
		if s.r.Buffered() > 0 || !quiet(s.raw) {
			s.notef("the host ended the connection while it was idle")
			s.detach()
			s.close()
			continue
		}
		s.notef("connection used again")
		if a.d.set.trace.Connect != nil {
			a.d.set.trace.Connect(k.host, k.to, true, nil)
		}
		return s
	}
	return nil
}

// connect connects to the first of the addresses that are left that answers, and takes it and those that failed out.
func (h *approach) connect(ctx context.Context) (won dialed, ok bool) {
	d, places := h.d, h.left
	if e := d.budget.wait(ctx, d.pool.makeRoom); e != nil {
		h.refused(e, h.at)
		return dialed{}, false
	}
	d.pool.enterSite(&h.site)
	r := race{delay: d.set.timeouts.NextAddress, aside: d.pool.aside, budget: &d.budget}
	r.dial = func(ctx context.Context, i int) (net.Conn, error) {
		return d.dial(ctx, newKey(h.hop, h.mode, places[i], h.plain))
	}
	r.failed = func(end dialed) bool {
		h.take(places[end.i])
		h.noConnection(ctx, end)
		return !h.over
	}
	if won, ok = r.run(ctx, len(places)); !ok {
		d.budget.give(1)
		d.pool.census.leave(h.site.at)
		return won, false
	}
	h.take(places[won.i])
	return won, true
}

// take takes an address out of those that are left: it is the one that is being tried.
func (h *approach) take(p place) {
	h.at = p
	if len(h.left) == 1 {
		h.left = nil // which is what nearly always is
		return
	}
	h.left = slices.DeleteFunc(slices.Clone(h.left), func(q place) bool { return q == p })
}

// open makes a session of a connection.
func (h *approach) open(ctx context.Context, won dialed) *session {
	d, k := h.d, newKey(h.hop, h.mode, h.at, h.plain)
	s := &session{conn: newConn(won.conn, k.host, k.to, d.Transcript), key: k, born: time.Now(), budget: &d.budget}
	s.site, s.census, s.messages = h.site.at, &d.pool.census, d.messages(&h.site)
	s.times.Lookup, s.times.Connect = h.at.target.looked, won.took
	s.attach(ctx, h.m.ID)
	_, address := k.network()
	s.notef("connected to %s", address)
	if d.set.trace.Connect != nil {
		d.set.trace.Connect(k.host, k.to, false, nil)
	}
	e := d.greet(s, h.hop)
	h.learn(ctx, k.way(), e)
	h.release()
	if e == nil {
		return s
	}
	s.broken = e.Reply.IsZero() || e.Reply.Code == 421
	if e.Reply.Code == 421 { // idle connections may be what there are too many of
		d.pool.shed(s.site)
	}
	if e.noTLS && h.m.insistsOnTLS() { // RFC 8689, section 4.2.1
		e.Status, e.lacking = "4.7.10", true
		e.Err = errors.New("the host offers no TLS, and the message asks for REQUIRETLS")
	}
	if h.hop.Kind == route.Smarthost && errors.Is(e.Err, errCertificate) {
		e.trouble()
	}
	d.dismiss(s)
	h.refused(s.at(e), h.at)
	return nil
}

// noConnection notes that an address could not be connected to.
func (h *approach) noConnection(ctx context.Context, end dialed) {
	k, err := newKey(h.hop, h.mode, h.at, h.plain), end.err
	if h.d.set.trace.Connect != nil {
		h.d.set.trace.Connect(k.host, k.to, false, err)
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	e := tempErr(StageConnect, "4.4.1", "no connection: %w", err)
	if isProxyTrouble(err) {
		e.trouble().ends = true
	}
	e.Host, e.Addr = k.host, k.to
	e.Timing.Lookup, e.Timing.Connect = h.at.target.looked, end.took
	h.note(e)
	h.learn(ctx, k.way(), e)
	h.refused(e, h.at)
}

// dial connects to an address, within Timeouts.Connect.
func (d *Deliverer) dial(ctx context.Context, k key) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.set.timeouts.Connect)
	defer cancel()
	if k.proxy != (via{}) {
		return d.dialThrough(ctx, k.proxy, k.to)
	}
	network, address := k.network()
	return d.dialFrom(ctx, k.source, network, address)
}

func (d *Deliverer) dialFrom(ctx context.Context, source netip.Addr, network, address string) (net.Conn, error) {
	if d.Dial != nil && !source.IsValid() {
		return d.Dial(ctx, network, address)
	}
	dialer := net.Dialer{}
	if source.IsValid() && network == "tcp" {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	}
	return dialer.DialContext(ctx, network, address)
}
