package deliver

import (
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/route"
)

// A hello is the dialogue that opens a session: the greeting, EHLO, and STARTTLS where it is wanted. After the handshake
// another one follows that begins with EHLO, since what was offered in the clear counts no more (RFC 3207, section 4.2).
type hello struct {
	peer  *peer
	name  string // ours
	lmtp  bool
	mode  route.TLSMode // what to do about STARTTLS
	state helloState
	asked bool // the command of the state was said

	secure bool   // the host expects the handshake
	err    *Error // the session came to nothing
}

type helloState uint8

const (
	helloGreeting helloState = iota
	helloEHLO
	helloHELO
	helloSTARTTLS
	helloEnd
)

func (h *hello) next() move {
	switch {
	case h.err != nil || h.state == helloEnd:
		return move{do: doEnd}
	case h.asked || h.state == helloGreeting:
		return move{do: doHear, stage: h.stage()}
	}
	h.asked = true
	return move{do: doSay, stage: h.stage(), line: h.command()}
}

func (h *hello) stage() Stage {
	switch h.state {
	case helloGreeting:
		return StageGreeting
	case helloSTARTTLS:
		return StageTLS
	}
	return StageEHLO
}

func (h *hello) command() string {
	switch {
	case h.state == helloSTARTTLS:
		return "STARTTLS"
	case h.state == helloHELO:
		return "HELO " + h.name
	case h.lmtp:
		return "LHLO " + h.name // RFC 2033, section 4.1
	}
	return "EHLO " + h.name
}

func (h *hello) hear(reply dsn.Reply) {
	h.asked = false
	switch {
	case h.state == helloEHLO && reply.Permanent() && !h.lmtp: // RFC 5321, section 3.2
		h.state = helloHELO
	case reply.Code != h.wanted(): // a refusal of this host only (RFC 5321, section 3.1)
		h.fail(hostErr(h.stage(), reply))
		h.peer.broken = reply.Code == 421
	case h.state == helloGreeting:
		h.state = helloEHLO
	case h.state == helloSTARTTLS:
		h.secure, h.state = true, helloEnd
	case h.state == helloHELO:
		h.greeted(capabilities{})
	default:
		h.greeted(parseCapabilities(reply))
	}
}

// wanted is the code of a yes.
func (h *hello) wanted() int {
	if h.state == helloGreeting || h.state == helloSTARTTLS {
		return 220
	}
	return 250
}

// greeted decides about TLS, with what the host offers.
func (h *hello) greeted(caps capabilities) {
	h.peer.caps = caps
	switch {
	case h.mode == route.TLSNone || (h.mode == route.TLSOpportunistic && !caps.startTLS):
		h.state = helloEnd
	case !caps.startTLS:
		e := tempErr(StageTLS, "4.7.4", "the host offers no TLS, and tls=%s is asked for", h.mode)
		e.noTLS = true
		h.fail(e)
	default:
		h.state = helloSTARTTLS
	}
}

func (h *hello) fail(e *Error) { h.err = h.peer.at(e) }

func (*hello) sent(bool) {}
