package deliver

import (
	"fmt"
	"net/netip"
	"strconv"
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
	Timing    Timing
	Temporary bool
	Err       error // what failed; nil where the reply says it all

	PossiblyDelivered bool // see Outcome
	RouteTrouble      bool // see Outcome
	Shortage          bool // see Outcome

	local   bool // the message cannot be read: no hop would do better
	ends    bool // no other host of the hop would do better
	stale   bool // the session was found dead when it was taken out of the pool
	unsent  bool // the connection was lost before all that was said had gone out
	noTLS   bool // the host offers none
	lacking bool // the host cannot do what the message needs: permanent, unless another host can
}

// Error says in one line where it failed, and what the host answered or what went wrong.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("deliver: ")
	if e.Host != "" {
		fmt.Fprintf(&b, "%s: ", e.Host)
	}
	fmt.Fprintf(&b, "%s: %s ", e.Stage, e.Status)
	if !e.Reply.IsZero() {
		b.WriteString("answered ")
	}
	b.WriteString(words(e.Reply, e.detail()))
	return b.String()
}

// Unwrap gives Err.
func (e *Error) Unwrap() error { return e.Err }

func (e *Error) detail() string {
	if e.Err == nil {
		return ""
	}
	return oneLine(e.Err.Error())
}

// words is what a host answered and what is to say about it, in one line.
func words(reply dsn.Reply, detail string) string {
	said := oneLine(reply.String())
	if said != "" && detail != "" {
		return said + " (" + detail + ")"
	}
	return said + detail
}

// tempErr is a temporary failure without a reply.
func tempErr(stage Stage, status dsn.Status, format string, args ...any) *Error {
	return &Error{Stage: stage, Status: status, Temporary: true, Err: fmt.Errorf(format, args...)}
}

// permErr is a permanent failure without a reply.
func permErr(stage Stage, status dsn.Status, format string, args ...any) *Error {
	return &Error{Stage: stage, Status: status, Err: fmt.Errorf(format, args...)}
}

// localErr is trouble with the message itself, on our side: no host is to blame, and no other one is asked.
func localErr(stage Stage, err error) *Error {
	e := tempErr(stage, "4.3.0", "the message could not be read: %w", err)
	e.local, e.ends = true, true
	return e
}

// soften makes an error temporary.
func (e *Error) soften() *Error {
	e.Temporary = true
	e.Status = withClass("4", e.Status)
	return e
}

// trouble makes an error the route's, and so never the end of a recipient.
func (e *Error) trouble() *Error {
	e.RouteTrouble = true
	return e.soften()
}

// shortage makes an error that of this machine, which is short of files or ports: another host would fare no better now.
func (e *Error) shortage() *Error {
	e.Shortage, e.RouteTrouble, e.ends = true, false, true
	e.Temporary, e.Status = true, "4.3.0"
	return e
}

func withClass(class, s dsn.Status) dsn.Status { return class + s[1:] }

// replyErr is a refusal. The reply code decides whether it is permanent; the enhanced status says more where it agrees
// (RFC 2034, section 4). What is neither a 4yz nor a 5yz makes no sense where it stands, and refuses nothing for good.
func replyErr(stage Stage, r dsn.Reply) *Error {
	e := &Error{Stage: stage, Reply: r, Status: r.Status(), Temporary: !r.Permanent()}
	switch {
	case !r.Permanent() && !r.Temporary():
		e.Status, e.Err = "4.5.0", fmt.Errorf("which makes no sense here")
	case e.Status == "":
		e.Status = statusOf(stage, r.Code)
	}
	return e
}

// hostErr is a refusal of the host, not of a recipient: another host may take the mail, and later this one may too
// (RFC 5321, sections 3.1 and 4.2.4.2), so it is temporary whatever the code.
func hostErr(stage Stage, r dsn.Reply) *Error { return replyErr(stage, r).soften() }

// statusDetails are what a code says that came without an enhanced status, where it can mean one thing only (RFC 5248,
// section 2.3; RFC 7504).
var statusDetails = map[int]string{
	421: ".3.2", 452: ".3.1", 521: ".3.2", 530: ".7.0", 534: ".7.9", 535: ".7.8", 538: ".7.11", 551: ".1.6", 556: ".1.10",
}

// statusOf is the enhanced status of a code that came without one.
func statusOf(stage Stage, code int) dsn.Status {
	detail := statusDetails[code]
	switch {
	case detail != "":
	case code == 554 && stage == StageGreeting: // "no SMTP service here" (RFC 5321, section 4.2.2)
		detail = ".3.2"
	default:
		detail = ".0.0"
	}
	return dsn.Status(strconv.Itoa(code/100) + detail)
}
