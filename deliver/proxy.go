package deliver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/net/proxy"
)

// errNotThere is a proxy's word that it cannot connect to a host.
var errNotThere = errors.New("the proxy has no connection to the host")

// A proxyError is trouble with a proxy itself: no host of the hop was asked, and none can be.
type proxyError struct {
	address string
	err     error
}

func (e *proxyError) Error() string { return fmt.Sprintf("the proxy %s: %v", e.address, e.err) }
func (e *proxyError) Unwrap() error { return e.err }

func isProxyTrouble(err error) bool {
	var e *proxyError
	return errors.As(err, &e)
}

// hostReplies are the replies of a proxy that tell of the host it was to connect to, in the words of x/net (RFC 1928,
// section 6). A general failure is what many say when a host does not answer, and a proxy without IPv6 is no trouble as
// long as the host has other addresses.
var hostReplies = []string{
	"general SOCKS server failure", "network unreachable", "host unreachable", "connection refused", "TTL expired",
	"address type not supported",
}

// dialThrough connects to an address through a proxy. One that did not answer a moment ago is asked by one attempt at a
// time.
func (d *Deliverer) dialThrough(ctx context.Context, p via, to netip.AddrPort) (net.Conn, error) {
	w := way{proxy: p.address}
	if why := d.absent.enter(w); why != nil {
		return nil, &proxyError{p.address, why.Err}
	}
	conn, heard, err := d.askProxy(ctx, p, to)
	switch {
	case heard:
		d.absent.end(w)
	case isSilence(err):
		d.absent.begin(w, err.Error())
	default:
		d.absent.release([]way{w})
	}
	return conn, err
}

// askProxy asks a SOCKS 5 proxy (RFC 1928) for a connection to an address: it is given no names to look up. heard reports
// that it answered something.
func (d *Deliverer) askProxy(ctx context.Context, p via, to netip.AddrPort) (_ net.Conn, heard bool, _ error) {
	conn, err := d.dialProxy(ctx, p.address)
	if err != nil {
		return nil, false, &proxyError{p.address, err}
	}
	var auth *proxy.Auth
	if p.user != "" {
		auth = &proxy.Auth{User: p.user, Password: p.password.value()}
	}
	talk := &proxyTalk{Conn: conn}
	dialer, err := proxy.SOCKS5("tcp", p.address, auth, talk)
	if err == nil {
		_, err = dialer.(proxy.ContextDialer).DialContext(ctx, "tcp", to.String())
	}
	switch {
	case err == nil:
		return conn, true, nil // and not what the dialer wraps it in
	case talk.heard && (isTimeout(err) || ctx.Err() != nil || saysOfHost(err.Error())):
		return nil, true, fmt.Errorf("%w through %s: %w", errNotThere, p.address, err)
	}
	return nil, talk.heard, &proxyError{p.address, err}
}

func saysOfHost(text string) bool {
	for _, reply := range hostReplies {
		if strings.HasSuffix(text, ": unknown error "+reply) {
			return true
		}
	}
	return false
}

// proxyTalk is a connection to a proxy while it is told where to connect to: what package proxy dials with.
type proxyTalk struct {
	net.Conn
	heard bool // the proxy has answered something
}

func (t *proxyTalk) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	t.heard = t.heard || n > 0
	return n, err
}

// Dial implements proxy.Dialer.
func (t *proxyTalk) Dial(string, string) (net.Conn, error) { return t, nil }

// DialContext implements proxy.ContextDialer.
func (t *proxyTalk) DialContext(context.Context, string, string) (net.Conn, error) { return t, nil }

// dialProxy connects to a proxy at the first of its addresses that answers.
func (d *Deliverer) dialProxy(ctx context.Context, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addrs := []netip.Addr{}
	if addr, err := netip.ParseAddr(host); err == nil {
		addrs = append(addrs, addr)
	} else if addrs, err = d.set.resolver.LookupAddr(ctx, host); err != nil {
		return nil, err
	} else if len(addrs) == 0 {
		return nil, errors.New("it has no address")
	}
	addrs = interleave(addrs)
	err = ctx.Err()
	r := race{
		delay: d.set.timeouts.NextAddress, aside: d.pool.aside, budget: &d.budget,
		dial: func(ctx context.Context, i int) (net.Conn, error) {
			return d.dialFrom(ctx, netip.Addr{}, "tcp", net.JoinHostPort(addrs[i].String(), port))
		},
		failed: func(end dialed) bool { err = end.err; return true },
	}
	if won, ok := r.run(ctx, min(len(addrs), d.set.limits.Addresses)); ok {
		return won.conn, nil
	}
	return nil, err
}
