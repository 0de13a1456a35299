package deliver

import (
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/route"
)

// A transaction hands the message to a session for some recipients.
type transaction struct {
	d    *Deliverer
	s    *session
	hop  *route.Hop
	m    *Message
	form form

	waiting []*Outcome // without an answer yet, in the order of their RCPT
	later   []*Outcome // the host has enough recipients: they go in the next transaction
}

// run makes the transaction and decides all of waiting, but for later. An error says that the session, or the message on
// this session, has no future; recipients that were not part of the transaction share it.
func (t *transaction) run() *Error {
	t.s.times.transaction()
	e := t.prepare()
	if e == nil && len(t.waiting) > 0 {
		e = t.perform()
	}
	if e != nil && !e.stale {
		if !e.local {
			t.s.at(e)
		}
		failAll(t.waiting, e)
	}
	return e
}

// perform plays the transfer. What it leaves in waiting was not decided.
func (t *transaction) perform() *Error {
	body, e := t.sender()
	if e != nil {
		return e
	}
	defer body.close()
	t.s.served++
	x := transfer{peer: &t.s.peer, form: &t.form, rcpts: t.waiting, lmtp: t.s.key.protocol == route.LMTP, judge: t, told: answered(t.s.ctx)}
	x.begin()
	t.s.together = t.form.by == byChunk
	if e = t.s.play(&x, &t.d.set.timeouts, body); e == nil {
		e = x.err
	}
	if e == nil && !x.out && t.s.r.Buffered() > 0 { // are the refusals what they seem?
		e = t.s.unasked(StageMail)
	}
	t.s.inStep = e == nil && x.out && t.s.caps.chunking && !t.s.speaks()
	if e = x.lost(e); e != nil {
		e.stale = (t.s.reused || t.s.worn) && !e.PossiblyDelivered && t.s.ctx.Err() == nil // it died while it was idle, which is nobody's failure
	}
	t.later, t.waiting = x.later, x.undecided()
	return e
}

// refusal is the error of a 4yz or 5yz reply. That we should have logged in, used TLS, or said something else before, is no
// word about the recipient.
func (t *transaction) refusal(stage Stage, r dsn.Reply) *Error {
	switch r.Code {
	case 503:
		return hostErr(stage, r)
	case 530, 534, 535, 538: // RFC 4954, section 6; RFC 3207, section 4
		switch {
		case t.hop.Kind == route.Smarthost || t.s.key.mode == route.TLSNone:
			return replyErr(stage, r).trouble()
		case t.s.key.plain:
			return hostErr(stage, r)
		}
	}
	return replyErr(stage, r)
}
