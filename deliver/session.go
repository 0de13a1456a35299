package deliver

import (
	"time"

	"github.com/sortie-mail/sortie/route"
)

// A session is a connection on which the greeting, EHLO, TLS and the login are done: transactions may follow.
type session struct {
	*conn
	key    key
	born   time.Time
	below  *session    // another one in the pool for the same key, idle for longer
	rested time.Time   // when it became idle
	timer  *time.Timer // ends it when it is idle for too long
	budget *budget     // of which it has a place until it is closed

	site     siteKey // where it counts until then
	census   *census
	messages int // that it may serve
}

// greet takes a new connection through TLS, greeting, EHLO and login.
func (d *Deliverer) greet(s *session, hop *route.Hop) *Error {
	h := hello{name: d.greetingName(s.key.helo), lmtp: s.key.protocol == route.LMTP, mode: s.key.mode}
	if s.key.plain {
		h.mode = route.TLSNone
	}
	if s.key.protocol == route.SMTPS {
		h.mode = route.TLSNone // it is there from the start
		if e := d.secure(s); e != nil {
			return e
		}
	}
	if e := d.hello(s, h); e != nil {
		return e
	}
	return d.login(s, hop)
}

func (d *Deliverer) greetingName(helo string) string {
	if name := oneWord(helo); name != "" {
		return name
	}
	return d.set.hostname
}

// hello plays the opening, with the handshake where it comes to one. A failure of opportunistic TLS has TLS as its stage:
// the caller tries other hosts, then this one in the clear.
func (d *Deliverer) hello(s *session, h hello) *Error {
	again := h
	h.peer = &s.peer
	if e := d.playHello(s, &h); e != nil || !h.secure {
		return e
	}
	if e := d.secure(s); e != nil {
		return e
	}
	again.peer, again.state, again.mode = &s.peer, helloEHLO, route.TLSNone
	s.caps = capabilities{}
	e := d.playHello(s, &again)
	if e != nil && e.Reply.IsZero() {
		e.Stage = StageTLS // a host may end a handshake that we think done (RFC 8446, section 4.4.2.4)
	}
	return e
}

func (d *Deliverer) playHello(s *session, h *hello) *Error {
	if e := s.play(h, &d.set.timeouts, nil); e != nil {
		return e
	}
	return h.err
}

func (d *Deliverer) secure(s *session) *Error {
	begin := time.Now()
	err := d.startTLS(s)
	s.times.TLS += time.Since(begin)
	switch {
	case err == nil:
		return nil
	case s.ctx.Err() != nil:
		return s.lost(StageTLS, err)
	}
	s.broken = true
	return tempErr(StageTLS, "4.7.5", "TLS with the host failed: %w", err)
}

// close ends a session without a word.
func (s *session) close() {
	s.broken = true
	s.raw.Close()
	s.gone()
}

// quit says QUIT and does not wait longer than it must for the answer, on which nothing depends.
func (s *session) quit(wait time.Duration) {
	s.raw.SetDeadline(time.Now().Add(wait))
	s.say("QUIT")
	if s.w.Flush() == nil {
		s.read()
	}
	s.net.Close()
	s.gone()
}

// gone gives its places back.
func (s *session) gone() {
	s.census.leave(s.site)
	s.budget.give(1)
}
