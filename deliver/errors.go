package deliver

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/sortie-mail/sortie/dsn"
)

// An Error is why an attempt, or one host of it, failed.
type Error struct {
	Status    dsn.Status
	Reply     dsn.Reply // what the host answered; zero where none did
	Host      string    // "" where no host was asked
	Addr      netip.AddrPort
	Stage     Stage
	TLS       TLSState
	Temporary bool
	Err       error // what failed, where there is no reply

	PossiblyDelivered bool // see Outcome
	RouteTrouble      bool // see Outcome

	local bool // the trouble is on our side: no other host would do better
	stale bool // the session was found dead when it was taken out of the pool
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("deliver: ")
	if e.Host != "" {
		fmt.Fprintf(&b, "%s: ", e.Host)
	}
	fmt.Fprintf(&b, "%s: %s ", e.Stage, e.Status)
	if !e.Reply.IsZero() {
		b.WriteString("answered " + oneLine(e.Reply.String()))
	} else if e.Err != nil {
		b.WriteString(oneLine(e.Err.Error()))
	}
	return b.String()
}

// Unwrap gives Err.
func (e *Error) Unwrap() error { return e.Err }

// tempErr is a temporary failure without a reply.
func tempErr(stage Stage, status dsn.Status, format string, args ...any) *Error {
	return &Error{Stage: stage, Status: status, Temporary: true, Err: fmt.Errorf(format, args...)}
}

// permErr is a permanent failure without a reply.
func permErr(stage Stage, status dsn.Status, format string, args ...any) *Error {
	return &Error{Stage: stage, Status: status, Err: fmt.Errorf(format, args...)}
}

// trouble marks an error as the route's.
func (e *Error) trouble() *Error {
	e.Temporary, e.RouteTrouble = true, true
	return e
}

// replyErr is a refusal. The reply code decides whether it is permanent; the enhanced status says more where it agrees
// (RFC 2034, section 4).
func replyErr(stage Stage, r dsn.Reply) *Error {
	e := &Error{Stage: stage, Reply: r, Status: r.Status(), Temporary: !r.Permanent()}
	if e.Status == "" {
		e.Status = statusOf(stage, r.Code)
	}
	return e
}

// hostErr is a refusal of the host, not of a recipient: another host may take the mail, and later this one may too
// (RFC 5321, sections 3.1 and 4.2.4.2), so it is temporary whatever the code.
func hostErr(stage Stage, r dsn.Reply) *Error {
	e := replyErr(stage, r)
	e.Temporary = true
	if e.Status.Class() == 5 {
		e.Status = "4" + e.Status[1:]
	}
	return e
}

// statusOf is the enhanced status of a code that came without one (RFC 3463 and the mapping of RFC 5248).
func statusOf(stage Stage, code int) dsn.Status {
	detail := ".0.0"
	switch code {
	case 421:
		detail = ".3.2"
	case 450, 550:
		if stage == StageRcpt {
			detail = ".1.1"
		}
	case 452:
		detail = ".3.1"
	case 552:
		detail = ".3.4"
	case 551:
		detail = ".1.6"
	case 553:
		detail = ".1.3"
	case 530, 535:
		detail = ".7.8"
	case 554:
		if stage == StageGreeting {
			detail = ".3.2"
		}
	}
	if code/100 == 4 {
		return dsn.Status("4" + detail)
	}
	return dsn.Status("5" + detail)
}
