package deliver

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/sortie-mail/sortie/route"
)

// key tells which sessions may serve a hop at an address.
type key struct {
	network, address, host string
	plain                  bool // opportunistic TLS is left out
	protocol               route.Protocol
	mode                   route.TLSMode
	user, password         string
	source                 netip.Addr
	helo                   string
}

func newKey(hop *route.Hop, p place, plain bool) key {
	k := key{
		network: "unix", address: p.target.unix, host: p.target.host, plain: plain,
		protocol: route.SMTP, mode: hop.Mode(), user: hop.User, password: hop.Secret.Value(), source: hop.Source, helo: hop.HELO,
	}
	if p.target.unix == "" {
		k.network, k.address = "tcp", net.JoinHostPort(p.addr.String(), strconv.Itoa(int(p.target.port)))
	}
	if hop.Kind == route.Smarthost {
		k.protocol = hop.Protocol
	}
	return k
}

// session gives a session to a host: one that was kept, unless fresh asks for a new one.
func (a *attempt) session(ctx context.Context, k key, addr netip.AddrPort, fresh bool) (*session, *Error) {
	d := a.d
	if !fresh {
		if s := d.pool.take(k); s != nil {
			s.attach(ctx, a.m.ID)
			s.notef("connection used again")
			if d.set.trace.Connect != nil {
				d.set.trace.Connect(k.host, addr, true, nil)
			}
			return s, nil
		}
	}
	nc, err := d.dial(ctx, k)
	if d.set.trace.Connect != nil {
		d.set.trace.Connect(k.host, addr, false, err)
	}
	if err != nil {
		return nil, a.noConnection(ctx, k, addr, err)
	}
	s := &session{conn: newConn(nc, k.host, addr, d.Transcript), key: k, born: time.Now()}
	s.attach(ctx, a.m.ID)
	s.notef("connected to %s", k.address)
	if e := d.greet(s, a.hop); e != nil {
		s.broken = e.Reply.IsZero() || e.Reply.Code == 421
		d.dismiss(s)
		return nil, s.at(e)
	}
	return s, nil
}

func (a *attempt) noConnection(ctx context.Context, k key, addr netip.AddrPort, err error) *Error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	c := &conn{host: k.host, addr: addr, script: a.d.Transcript, id: a.m.ID}
	c.notef("no connection: %v", err)
	e := tempErr(StageConnect, "4.4.1", "no connection: %w", err)
	e.Host, e.Addr = k.host, addr
	return e
}

func (d *Deliverer) dial(ctx context.Context, k key) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.set.timeouts.Connect)
	defer cancel()
	if d.Dial != nil && !k.source.IsValid() {
		return d.Dial(ctx, k.network, k.address)
	}
	dialer := net.Dialer{}
	if k.source.IsValid() && k.network == "tcp" {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(k.source, 0))
	}
	return dialer.DialContext(ctx, k.network, k.address)
}
