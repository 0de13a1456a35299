package deliver

import (
	"net/netip"
	"strings"
	"time"
)

// A peer is what is known of the far end of a session, and how far the session has come. It has nothing of a connection.
type peer struct {
	host  string
	addr  netip.AddrPort
	caps  capabilities
	tls   TLSState
	times Timing

	served int  // transactions
	inStep bool // the last transaction has shown that it gives each command one reply
	most   int  // recipients that the host takes in a transaction; 0 is not known
	reused bool // it was idle before, and has not answered since
	warm   bool // only for a moment: it can hardly have died
	worn   bool // it takes no more messages
	broken bool // nothing more can be said
	open   bool // a transaction was begun and not ended: RSET must come before the next
}

// at completes an error with the host.
func (p *peer) at(e *Error) *Error {
	e.Host, e.Addr, e.TLS, e.Timing = p.host, p.addr, p.tls, p.times
	return e
}

// Timing is how long each stage of an attempt at one host took. The stages of a connection that was kept from before are
// zero, and so are those that did not come. Commands that were sent together share the time of the first answer.
type Timing struct {
	Lookup   time.Duration `json:"lookup,omitempty"` // of the host's addresses and, for its domain, of the MX records
	Connect  time.Duration `json:"connect,omitempty"`
	Greeting time.Duration `json:"greeting,omitempty"`
	EHLO     time.Duration `json:"ehlo,omitempty"`
	TLS      time.Duration `json:"tls,omitempty"`
	Auth     time.Duration `json:"auth,omitempty"`
	Mail     time.Duration `json:"mail,omitempty"`
	Rcpt     time.Duration `json:"rcpt,omitempty"`
	Data     time.Duration `json:"data,omitempty"` // until the host wanted the message
	Body     time.Duration `json:"body,omitempty"` // until it was sent
	Dot      time.Duration `json:"dot,omitempty"`  // until the host said what becomes of it
}

// of is where the time of a stage is counted.
func (t *Timing) of(stage Stage) *time.Duration {
	switch stage {
	case StageConnect:
		return &t.Connect
	case StageGreeting:
		return &t.Greeting
	case StageEHLO:
		return &t.EHLO
	case StageTLS:
		return &t.TLS
	case StageAuth:
		return &t.Auth
	case StageMail:
		return &t.Mail
	case StageRcpt:
		return &t.Rcpt
	case StageData:
		return &t.Data
	case StageDot:
		return &t.Dot
	}
	return &t.Lookup
}

// String names the stages and how long each took: "connect 21ms, greeting 120ms, dot 2.3s". It is "" where none did.
func (t Timing) String() string {
	var b strings.Builder
	for _, stage := range t.stages() {
		if took := stage.took.Round(time.Millisecond); took > 0 {
			if b.Len() > 0 {
				b.WriteString(", ")
			}
			b.WriteString(stage.name + " " + took.String())
		}
	}
	return b.String()
}

// Sum is how long all stages took together.
func (t Timing) Sum() (sum time.Duration) {
	for _, stage := range t.stages() {
		sum += stage.took
	}
	return sum
}

type stageTime struct {
	name string
	took time.Duration
}

func (t *Timing) stages() [11]stageTime {
	return [...]stageTime{
		{"lookup", t.Lookup},
		{"connect", t.Connect},
		{"greeting", t.Greeting},
		{"ehlo", t.EHLO},
		{"tls", t.TLS},
		{"auth", t.Auth},
		{"mail", t.Mail},
		{"rcpt", t.Rcpt},
		{"data", t.Data},
		{"body", t.Body},
		{"dot", t.Dot},
	}
}

// used forgets what a connection cost that is used again.
func (t *Timing) used() { *t = Timing{} }

// transaction forgets what the transaction before took.
func (t *Timing) transaction() { t.Mail, t.Rcpt, t.Data, t.Body, t.Dot = 0, 0, 0, 0, 0 }
