package deliver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/route"
)

// A session is a connection on which the greeting, EHLO, TLS and the login are done: transactions may follow.
type session struct {
	*conn
	caps   capabilities
	tls    TLSState
	born   time.Time
	served int  // transactions
	reused bool // it was idle before this attempt
	broken bool // nothing more can be said on it
	open   bool // a transaction was begun and not ended: RSET must come before the next
	timer  *time.Timer
}

// key tells which sessions may serve a hop at an address.
type key struct {
	network, address, host string
	plain                  bool
	protocol               route.Protocol
	mode                   route.TLSMode
	user                   string
	secret                 route.Secret
	source                 netip.Addr
	helo                   string
}

func newKey(hop *route.Hop, t *target, addr netip.Addr, plain bool) key {
	k := key{
		network: "tcp", address: net.JoinHostPort(addr.String(), strconv.Itoa(int(t.port))), host: t.host, plain: plain,
		protocol: hop.Protocol, mode: hop.Mode(), user: hop.User, secret: hop.Secret, source: hop.Source, helo: hop.HELO,
	}
	if t.unix != "" {
		k.network, k.address = "unix", t.unix
	}
	return k
}

// connect gives a session to a host at an address: one that was kept, or a new one. plain leaves opportunistic TLS out.
func (d *Deliverer) connect(ctx context.Context, hop *route.Hop, k key, addr netip.AddrPort, id string) (*session, *Error) {
	if s := d.pool.take(k); s != nil {
		if d.Trace.Connect != nil {
			d.Trace.Connect(k.host, addr, true, nil)
		}
		return s, nil
	}
	return d.newSession(ctx, hop, k, addr, id)
}

func (d *Deliverer) newSession(ctx context.Context, hop *route.Hop, k key, addr netip.AddrPort, id string) (*session, *Error) {
	nc, err := d.dial(ctx, hop, k)
	if d.Trace.Connect != nil {
		d.Trace.Connect(k.host, addr, false, err)
	}
	if err != nil {
		return nil, at(tempErr(StageConnect, "4.4.1", "no connection: %w", err), k.host, addr)
	}
	s := &session{conn: newConn(nc, k.host, addr, d.Transcript), born: time.Now()}
	detach := s.attach(ctx, id)
	defer detach()
	if e := d.greet(ctx, s, hop, k); e != nil {
		e.TLS = s.tls
		s.close()
		return nil, at(e, k.host, addr)
	}
	return s, nil
}

func at(e *Error, host string, addr netip.AddrPort) *Error {
	e.Host, e.Addr = host, addr
	return e
}

func (d *Deliverer) dial(ctx context.Context, hop *route.Hop, k key) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.Timeouts.Connect)
	defer cancel()
	if d.Dial != nil && !hop.Source.IsValid() {
		return d.Dial(ctx, k.network, k.address)
	}
	dialer := net.Dialer{}
	if hop.Source.IsValid() && k.network == "tcp" {
		dialer.LocalAddr = &net.TCPAddr{IP: hop.Source.AsSlice()}
	}
	return dialer.DialContext(ctx, k.network, k.address)
}

// greet takes a new connection through greeting, EHLO, TLS and login.
func (d *Deliverer) greet(ctx context.Context, s *session, hop *route.Hop, k key) *Error {
	mode := k.mode
	if k.protocol == route.SMTPS {
		if e := d.secure(ctx, s, mode); e != nil {
			return e
		}
	}
	if e := d.greeting(ctx, s); e != nil {
		return e
	}
	if e := d.ehlo(ctx, s, hop); e != nil {
		return e
	}
	if s.tls.Version == "" && !k.plain {
		if e := d.upgrade(ctx, s, hop, mode); e != nil {
			return e
		}
	}
	return d.login(ctx, s, hop)
}

// greeting reads the host's first words. A refusal here is of this host only (RFC 5321, section 3.1).
func (d *Deliverer) greeting(ctx context.Context, s *session) *Error {
	if err := s.within(ctx, d.Timeouts.Greeting); err != nil {
		return s.lost(StageGreeting, err)
	}
	reply, err := s.read()
	if err != nil {
		return s.lost(StageGreeting, err)
	}
	if reply.Code != 220 {
		return hostErr(StageGreeting, reply)
	}
	return nil
}

// ehlo greets with EHLO, and where that is unknown with HELO (RFC 5321, section 3.2).
func (d *Deliverer) ehlo(ctx context.Context, s *session, hop *route.Hop) *Error {
	name := hop.HELO
	if name == "" {
		name = d.Hostname
	}
	verb := "EHLO "
	if hop.Protocol == route.LMTP {
		verb = "LHLO "
	}
	reply, err := s.ask(ctx, d.Timeouts.EHLO, verb+name)
	if err == nil && reply.Permanent() && hop.Protocol != route.LMTP {
		s.caps = capabilities{}
		reply, err = s.ask(ctx, d.Timeouts.EHLO, "HELO "+name)
		if err == nil && reply.Code == 250 {
			return nil
		}
	}
	switch {
	case err != nil:
		return s.lost(StageEHLO, err)
	case reply.Code != 250:
		return hostErr(StageEHLO, reply)
	}
	s.caps = parseCapabilities(reply)
	return nil
}

// upgrade does what the mode asks of STARTTLS. A failure of opportunistic TLS has TLS in its stage: the caller tries
// other hosts, then this one in the clear.
func (d *Deliverer) upgrade(ctx context.Context, s *session, hop *route.Hop, mode route.TLSMode) *Error {
	switch {
	case mode == route.TLSNone || (mode == route.TLSOpportunistic && !s.caps.startTLS):
		return nil
	case mode == route.TLSDANE:
		return tempErr(StageTLS, "4.7.5", "tls=dane is not built in yet: write tls=verified or tls=required in the route").trouble()
	case !s.caps.startTLS:
		return tempErr(StageTLS, "4.7.4", "the host offers no TLS, and the route asks for tls=%s", mode)
	}
	reply, err := s.ask(ctx, d.Timeouts.EHLO, "STARTTLS")
	if err != nil {
		return s.lost(StageTLS, err)
	}
	if reply.Code != 220 {
		return hostErr(StageTLS, reply)
	}
	if e := d.secure(ctx, s, mode); e != nil {
		return e
	}
	return d.ehlo(ctx, s, hop) // what was offered in the clear counts no more (RFC 3207, section 4.2)
}

func (d *Deliverer) secure(ctx context.Context, s *session, mode route.TLSMode) *Error {
	state, err := d.startTLS(ctx, s.conn, mode)
	s.tls = state
	if err != nil {
		return tempErr(StageTLS, "4.7.5", "TLS with the host failed: %w", err)
	}
	return nil
}

// lost is the error of a connection that broke, said junk or fell silent.
func (c *conn) lost(stage Stage, err error) *Error {
	status := "4.4.2"
	var timeout net.Error
	switch {
	case errors.Is(err, errProtocol):
		status = "4.5.0"
	case errors.As(err, &timeout) && timeout.Timeout():
		err = fmt.Errorf("the host did not answer in time: %w", err)
	default:
		err = fmt.Errorf("the connection was lost: %w", err)
	}
	c.note('*', err.Error())
	return tempErr(stage, dsnStatus(status), "%w", err)
}

// close ends a session without a word.
func (s *session) close() {
	s.broken = true
	s.net.Close()
}

// quit says QUIT and does not wait longer than it must for the answer, on which nothing depends.
func (s *session) quit(wait time.Duration) {
	if !s.broken {
		s.net.SetDeadline(time.Now().Add(wait))
		s.say("QUIT")
		if s.w.Flush() == nil {
			s.read()
		}
	}
	s.close()
}

func dsnStatus(s string) dsn.Status { return dsn.Status(s) }
