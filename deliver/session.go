package deliver

import (
	"time"

	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/route"
)

// A session is a connection on which the greeting, EHLO, TLS and the login are done: transactions may follow.
type session struct {
	*conn
	key    key
	caps   capabilities
	tls    TLSState
	born   time.Time
	served int         // transactions
	most   int         // recipients that the host takes in a transaction; 0 is not known
	reused bool        // it was idle before, and has not answered since
	broken bool        // nothing more can be said on it
	open   bool        // a transaction was begun and not ended: RSET must come before the next
	timer  *time.Timer // ends it when it is idle for too long
}

// at completes an error with the host.
func (s *session) at(e *Error) *Error {
	e.Host, e.Addr, e.TLS = s.host, s.addr, s.tls
	return e
}

// greet takes a new connection through TLS, greeting, EHLO and login.
func (d *Deliverer) greet(s *session, hop *route.Hop) *Error {
	if s.key.protocol == route.SMTPS {
		if e := d.secure(s); e != nil {
			return e
		}
	}
	if e := d.greeting(s); e != nil {
		return e
	}
	if e := d.ehlo(s); e != nil {
		return e
	}
	if s.key.protocol != route.SMTPS && !s.key.plain {
		if e := d.upgrade(s); e != nil {
			return e
		}
	}
	return d.login(s, hop)
}

// greeting reads the host's first words. A refusal here is of this host only (RFC 5321, section 3.1).
func (d *Deliverer) greeting(s *session) *Error {
	err := s.within(d.set.timeouts.Greeting)
	var reply dsn.Reply
	if err == nil {
		reply, err = s.read()
	}
	switch {
	case err != nil:
		return s.lost(StageGreeting, err)
	case reply.Code != 220:
		return hostErr(StageGreeting, reply)
	}
	return nil
}

// ehlo greets with EHLO, and where that is unknown with HELO (RFC 5321, section 3.2).
func (d *Deliverer) ehlo(s *session) *Error {
	name := oneWord(s.key.helo)
	if name == "" {
		name = d.set.hostname
	}
	verb := "EHLO "
	if s.key.protocol == route.LMTP {
		verb = "LHLO "
	}
	s.caps = capabilities{}
	reply, err := s.ask(d.set.timeouts.EHLO, verb+name)
	if err == nil && reply.Permanent() && s.key.protocol != route.LMTP {
		reply, err = s.ask(d.set.timeouts.EHLO, "HELO "+name)
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
func (d *Deliverer) upgrade(s *session) *Error {
	mode := s.key.mode
	switch {
	case mode == route.TLSNone || (mode == route.TLSOpportunistic && !s.caps.startTLS):
		return nil
	case !s.caps.startTLS:
		return tempErr(StageTLS, "4.7.4", "the host offers no TLS, and the route asks for tls=%s", mode)
	}
	reply, err := s.ask(d.set.timeouts.EHLO, "STARTTLS")
	switch {
	case err != nil:
		return s.lost(StageTLS, err)
	case reply.Code != 220:
		return hostErr(StageTLS, reply)
	}
	if e := d.secure(s); e != nil {
		return e
	}
	e := d.ehlo(s) // what was offered in the clear counts no more (RFC 3207, section 4.2)
	if e != nil && e.Reply.IsZero() {
		e.Stage = StageTLS // a host may end a handshake that we think done (RFC 8446, section 4.4.2.4)
	}
	return e
}

func (d *Deliverer) secure(s *session) *Error {
	err := d.startTLS(s)
	switch {
	case err == nil:
		return nil
	case s.ctx.Err() != nil:
		return s.lost(StageTLS, err)
	}
	return tempErr(StageTLS, "4.7.5", "TLS with the host failed: %w", err)
}

// close ends a session without a word.
func (s *session) close() {
	s.broken = true
	s.raw.Close()
}

// quit says QUIT and does not wait longer than it must for the answer, on which nothing depends.
func (s *session) quit(wait time.Duration) {
	s.raw.SetDeadline(time.Now().Add(wait))
	s.say("QUIT")
	if s.w.Flush() == nil {
		s.read()
	}
	s.net.Close()
}
