package deliver

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/dsn/reason"
	"github.com/sortie-mail/sortie/route"
)

// Result is what became of one recipient in one attempt.
type Result uint8

const (
	TempFail  Result = iota // try again later; the zero value, so that what is unknown is never lost
	Delivered               // a host has it that reports success itself where that was asked for
	Relayed                 // a host has it that will not report success (RFC 3461, section 5.2.2)
	PermFail                // it will not be tried again
	Held                    // the route says hold
	Discarded               // the route says discard
)

var resultNames = [...]string{"tempfail", "delivered", "relayed", "permfail", "held", "discarded"}

// String is the name in lower case, as logs and JSON have it.
func (r Result) String() string { return resultNames[r] }

// MarshalText gives the name.
func (r Result) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads the name.
func (r *Result) UnmarshalText(b []byte) error {
	for i, name := range resultNames {
		if name == string(b) {
			*r = Result(i)
			return nil
		}
	}
	return fmt.Errorf("deliver: %q is no result", b)
}

// Success reports whether a host has taken the message.
func (r Result) Success() bool { return r == Delivered || r == Relayed }

// Stage is how far a session had come when an outcome was decided.
type Stage string

// The stages, in the order of a session.
const (
	StageRoute    Stage = "route" // no host was asked: the route or DNS decided
	StageConnect  Stage = "connect"
	StageGreeting Stage = "greeting"
	StageEHLO     Stage = "ehlo"
	StageTLS      Stage = "starttls"
	StageAuth     Stage = "auth"
	StageMail     Stage = "mail"
	StageRcpt     Stage = "rcpt"
	StageData     Stage = "data" // the DATA command
	StageDot      Stage = "dot"  // the body and the reply to its end
)

// An Outcome says everything about one recipient in one attempt.
type Outcome struct {
	Recipient string
	Result    Result
	Status    dsn.Status // never ""; its class agrees with Result
	Reply     dsn.Reply  // what the host answered; zero when none did
	Detail    string     // in our words: what failed, on what; "" where the reply says it all
	Stage     Stage
	Route     route.Route    // the route
	Hop       route.Hop      // the hop of it that decided
	Host      string         // the host that decided, or the last one tried; "" where none was known
	Addr      netip.AddrPort // its address
	TLS       TLSState
	Timing    Timing         // how long each stage at the host took
	Reason    reason.Verdict // why a host refused
	Tried     []Try          // what else was tried, in order, and why each failed

	// PossiblyDelivered is set where the connection was lost between the end of the message and the reply: the
	// host may have it all the same (RFC 1047). The Result is TempFail.
	PossiblyDelivered bool
	// RouteTrouble is set where the route itself is at fault (a login refused, a smarthost's name that does not
	// resolve): an alarm for the administrator, and never a failure of the recipient.
	RouteTrouble bool
	// Shortage is set where this machine is short of files, ports or connections (Limits.Connections): it was not the host that
	// did not answer, and the try tells nothing. The Result is TempFail.
	Shortage bool

	Start, End time.Time

	to      *Recipient
	decided bool // something is known of the hop, and moves to Tried when more is
	met     bool // a host of the hop was connected to
	lacked  bool // a host of the hop cannot do what the message needs
	failing bool // another failed in another way
	local   bool // the message cannot be read
}

// A Try is one host of an attempt that did not take the message.
type Try struct {
	Hop    route.Hop // the hop that led there
	Host   string    // "" where none was known
	Addr   netip.AddrPort
	Stage  Stage
	Status dsn.Status
	Reply  dsn.Reply // what it answered; zero where it did not
	TLS    TLSState
	Timing Timing
	Reason reason.Verdict // why, for the last word of a hop that another hop followed
	Err    string         // what it answered or what failed, in one line
}

// TLSState is how a connection was protected. The zero value is a connection in the clear.
type TLSState struct {
	Version  string // "TLS 1.3"; "" in the clear
	Cipher   string
	Verified bool // the certificate is valid for the host's name
}

// String is "TLS 1.3 TLS_AES_128_GCM_SHA256 verified", and "in the clear" without TLS.
func (t TLSState) String() string {
	switch {
	case t.Version == "":
		return "in the clear"
	case t.Verified:
		return t.Version + " " + t.Cipher + " verified"
	}
	return t.Version + " " + t.Cipher + " not verified"
}

// begin makes the outcome one of a hop that is being tried; what earlier hops left moves to Tried.
func (o *Outcome) begin(hop *route.Hop) {
	o.leave()
	*o = Outcome{
		Recipient: o.Recipient, to: o.to, Route: o.Route, Hop: *hop, Start: o.Start, Tried: o.Tried,
		Stage: StageRoute, Status: "4.4.1", Detail: "no host was tried",
	}
}

// leave moves what is known to Tried.
func (o *Outcome) leave() {
	if o.decided {
		o.Tried = append(o.Tried, Try{o.Hop, o.Host, o.Addr, o.Stage, o.Status, o.Reply, o.TLS, o.Timing, o.Reason, o.words()})
	}
}

// words is why it failed, in one line.
func (o *Outcome) words() string { return words(o.Reply, o.Detail) }

func (o *Outcome) failed() bool { return o.Result == TempFail || o.Result == PermFail }

// fail makes an error the outcome, and what it was before one of the tries. A host's own words say more than a
// connection that did not come about: they stay the outcome when only that follows.
func (o *Outcome) fail(e *Error) {
	if e.isOurs() {
		e.shortage()
	}
	o.met = o.met || (e.Stage != StageRoute && e.Stage != StageConnect)
	o.lacked, o.failing = o.lacked || e.lacking, o.failing || !e.lacking
	if !o.Reply.IsZero() && e.Reply.IsZero() && e.Temporary && !e.PossiblyDelivered && !e.local {
		o.Tried = append(o.Tried, Try{
			Hop: o.Hop, Host: e.Host, Addr: e.Addr, Stage: e.Stage, Status: e.Status, TLS: e.TLS, Timing: e.Timing, Err: e.detail(),
		})
		o.RouteTrouble = o.RouteTrouble || e.RouteTrouble
		return
	}
	o.leave()
	o.decided, o.Result = true, PermFail
	if e.Temporary {
		o.Result = TempFail
	}
	o.Status, o.Reply, o.Detail, o.Stage, o.Host, o.Addr, o.TLS = e.Status, e.Reply, e.detail(), e.Stage, e.Host, e.Addr, e.TLS
	o.Timing = e.Timing
	o.PossiblyDelivered, o.RouteTrouble, o.Shortage, o.local = e.PossiblyDelivered, e.RouteTrouble, e.Shortage, e.local
}

// conclude ends a hop. What no host of it can do is a permanent failure, though each of them left it to the others.
func (o *Outcome) conclude() {
	if o.Result == TempFail && o.lacked && !o.failing {
		o.harden()
	}
}

// reopen makes a refusal temporary that may not have been this recipient's.
func (o *Outcome) reopen() {
	o.Result, o.Status = TempFail, withClass("4", o.Status)
	o.Detail = notInStep
}

const notInStep = "the host does not give each command one reply"

// harden makes a failure permanent that was temporary only as long as another host was left.
func (o *Outcome) harden() {
	o.Result, o.Status = PermFail, withClass("5", o.Status)
}

// succeed makes the outcome a host's yes.
func (o *Outcome) succeed(p *peer, reply dsn.Reply) {
	o.leave()
	o.decided, o.Result, o.Reply, o.Detail, o.Stage = true, Delivered, reply, "", StageDot
	if o.to.Notify.Success() && !p.caps.dsn {
		o.Result = Relayed // RFC 3461, section 5.2.2
	}
	if o.Status = reply.Status(); o.Status == "" {
		o.Status = "2.0.0"
	}
	o.Host, o.Addr, o.TLS, o.Timing = p.host, p.addr, p.tls, p.times
	o.RouteTrouble, o.Shortage = false, false
}

// meets reports whether a later hop with a condition is to be tried.
func (o *Outcome) meets(on route.Condition) bool {
	if !o.failed() || o.local || o.Shortage || o.PossiblyDelivered { // another way would deliver it twice
		return false
	}
	switch on {
	case route.OnBlocked:
		return o.Reason.Blocked()
	case route.OnUnreachable:
		return o.Result == TempFail && !o.met
	case route.OnTempfail:
		return o.Result == TempFail
	}
	return true
}

// Err is the failure as an [*Error], nil where there is none.
func (o *Outcome) Err() error {
	if !o.failed() {
		return nil
	}
	e := &Error{
		Status: o.Status, Reply: o.Reply, Host: o.Host, Addr: o.Addr, Stage: o.Stage, TLS: o.TLS, Timing: o.Timing,
		Temporary: o.Result == TempFail, PossiblyDelivered: o.PossiblyDelivered, RouteTrouble: o.RouteTrouble,
		Shortage: o.Shortage,
	}
	if o.Detail != "" {
		e.Err = errors.New(o.Detail)
	}
	return e
}

// slow is from when on it is told how long an attempt took.
const slow = time.Second

// String is the outcome in one line that can be pasted into a ticket.
func (o Outcome) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "<%s>: %s %s", oneLine(o.Recipient), o.Result, o.Status)
	if o.Host != "" {
		b.WriteString(" at " + where(o.Host, o.Addr.Addr()))
		if o.Addr.IsValid() {
			fmt.Fprintf(&b, ":%d", o.Addr.Port())
		}
	}
	fmt.Fprintf(&b, " (%s)", o.Stage)
	if o.TLS.Version != "" {
		fmt.Fprintf(&b, " %s", o.TLS)
	}
	if w := o.words(); w != "" {
		fmt.Fprintf(&b, ": %s", w)
	}
	if o.PossiblyDelivered {
		b.WriteString(" [possibly delivered]")
	}
	if len(o.Tried) > 0 {
		fmt.Fprintf(&b, " [%d other tries]", len(o.Tried))
	}
	if o.Timing.Sum() >= slow {
		fmt.Fprintf(&b, " [%s]", o.Timing)
	}
	return b.String()
}

// where names a host and its address: "mx.aol.com[192.0.2.1]", and "[192.0.2.1]" alone where that is its name.
func where(host string, addr netip.Addr) string {
	switch {
	case !addr.IsValid():
		return host
	case host == addr.String() || strings.HasPrefix(host, "["):
		host = ""
	}
	return host + "[" + addr.String() + "]"
}

// LogValue gives the fields that logs have.
func (o Outcome) LogValue() slog.Value {
	attrs := append(make([]slog.Attr, 0, 16),
		slog.String("recipient", o.Recipient), slog.String("result", o.Result.String()), slog.String("status", string(o.Status)),
		slog.String("route", o.Hop.String()), slog.String("host", o.Host), slog.String("stage", string(o.Stage)))
	if o.Addr.IsValid() {
		attrs = append(attrs, slog.String("addr", o.Addr.String()))
	}
	if !o.Reply.IsZero() {
		attrs = append(attrs, slog.String("reply", oneLine(o.Reply.String())))
	}
	if o.Detail != "" {
		attrs = append(attrs, slog.String("detail", o.Detail))
	}
	if o.TLS.Version != "" {
		attrs = append(attrs, slog.String("tls", o.TLS.Version))
	}
	if c := o.Reason.Class(); c != reason.Unknown {
		attrs = append(attrs, slog.String("reason", string(c)))
	}
	if t := o.Timing.String(); t != "" {
		attrs = append(attrs, slog.String("timing", t))
	}
	if o.PossiblyDelivered {
		attrs = append(attrs, slog.Bool("possibly_delivered", true))
	}
	if o.RouteTrouble {
		attrs = append(attrs, slog.Bool("route_trouble", true))
	}
	if o.Shortage {
		attrs = append(attrs, slog.Bool("shortage", true))
	}
	if n := len(o.Tried); n > 0 {
		attrs = append(attrs, slog.Int("other_tries", n), slog.String("before", o.Tried[n-1].Host+": "+o.Tried[n-1].Err))
	}
	return slog.GroupValue(attrs...)
}

// rejectAll fails outcomes with the reply of a reject hop.
func rejectAll(hop *route.Hop, pending []*Outcome) {
	reply, err := dsn.ParseReply(hop.Reply)
	if err != nil || (!reply.Permanent() && !reply.Temporary()) {
		reply = dsn.Reply{Code: 550, Lines: []string{"5.7.1 The route rejects this"}}
	}
	failAll(pending, replyErr(StageRoute, reply))
}

func settleAll(pending []*Outcome, r Result, status dsn.Status, detail string) {
	for _, o := range pending {
		o.decided, o.Result, o.Status, o.Detail = true, r, status, detail
	}
}

// maxLine is how much of a reply or an error one line of a log has.
const maxLine = 1000

// oneLine makes remote text fit for one line of a log: control characters become spaces, and it is bounded.
func oneLine(s string) string {
	if len(s) > maxLine {
		s = strings.ToValidUTF8(s[:maxLine], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if isControl(r) || r == 0x2028 || r == 0x2029 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
