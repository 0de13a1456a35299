package deliver

import (
	"net/netip"
	"time"

	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/dsn/reason"
	"github.com/sortie-mail/sortie/route"
)

// Result is what became of one recipient in one attempt.
type Result uint8

const (
	TempFail  Result = iota // try again later; the zero value, so that what is unknown is never lost
	Delivered               // the recipient domain's host has it, or a smarthost that takes DSN parameters
	Relayed                 // a host has it that will not report success: RFC 3461, section 5.2.2
	PermFail                // it will not be tried again
	Held                    // the route says hold
	Discarded               // the route says discard
)

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
	Status    dsn.Status // never ""
	Reply     dsn.Reply  // what the host answered; zero when none did
	Detail    string     // in our words, where there is no reply: what failed, on what
	Stage     Stage
	Hop       route.Hop      // the hop that decided
	Route     route.Route    // the route it stands in
	Host      string         // the host's name; "" when none was reached
	Addr      netip.AddrPort // its address
	TLS       TLSState
	Reason    reason.Verdict // why, for a refusal
	Tried     []Try          // hosts tried before Host, and why each failed

	// PossiblyDelivered is set where the connection was lost between the end of the message and the reply: the
	// host may have it all the same (RFC 1047). The Result is TempFail.
	PossiblyDelivered bool
	// RouteTrouble is set where the route itself is at fault (a login refused, a smarthost's name that does not
	// resolve): an alarm for the administrator, and never a failure of the recipient.
	RouteTrouble bool

	Start, End time.Time
}

// A Try is one host of an attempt that did not take the message.
type Try struct {
	Host  string
	Addr  netip.AddrPort
	Stage Stage
	Err   string // what it answered or what failed, in one line
}

// TLSState is how a connection was protected. The zero value is a connection in the clear.
type TLSState struct {
	Version  string // "TLS 1.3"; "" in the clear
	Cipher   string
	Verified bool // the certificate is valid for the host's name
}
