package lab

import (
	"net/netip"
	"time"
)

// A Stage is a point of a session at which a server can behave in its own way.
type Stage string

// The stages, in the order of a session.
const (
	AtConnect  Stage = "connect" // before the connection exists; only Hang, Drop and delays mean anything
	AtGreeting Stage = "greeting"
	AtEHLO     Stage = "ehlo" // EHLO, HELO and LHLO
	AtTLS      Stage = "starttls"
	AtAuth     Stage = "auth"
	AtMail     Stage = "mail"
	AtRcpt     Stage = "rcpt"
	AtData     Stage = "data"  // the DATA command; not used for BDAT
	AtBody     Stage = "body"  // the body is about to come: only Hang, Drop and delays mean anything
	AtChunk    Stage = "chunk" // the end of a chunk by BDAT that is not the last one; refused, the message fails
	AtDot      Stage = "dot"   // the end of the message; in LMTP once for each recipient
	AtRset     Stage = "rset"
	AtQuit     Stage = "quit"
	AtOther    Stage = "other" // NOOP, VRFY, HELP and commands that do not exist
	Anywhere   Stage = ""      // every stage, where a function takes one
)

// A Step is what a server is about to answer.
type Step struct {
	Stage    Stage
	Line     string         // the command as it came; "" where there is none
	Client   netip.AddrPort // who is connected
	Session  int            // counts the connections of the server, from 1
	Sender   string         // reverse-path, from MAIL on
	Size     int64          // octets of the message so far, at AtChunk and AtDot
	To       []string       // the recipient at AtRcpt and, in LMTP, at AtDot; all accepted recipients from AtData on
	TLS      bool
	LoggedIn bool
}

// An Answer is what a server does at a Step. The zero value leaves the step to the next behaviour, in the end to the
// standard answer.
type Answer struct {
	Accept  bool          // give the standard answer, and ask no further behaviour
	Reply   string        // "550 5.1.1 No such user"; lines after the first one are joined to a multi-line reply
	Raw     string        // octets to send as they are, instead of a reply
	Endless bool          // send Raw again and again until the connection ends
	Twice   bool          // send the reply, or Raw, a second time
	Mute    bool          // do what the standard answer says, and say nothing
	Hang    bool          // say nothing, for as long as the client stays
	Drop    bool          // close the connection, after Raw if there is some
	Reset   bool          // end the connection with a reset (RST) that throws away what is on its way, after Raw if there is some
	Close   bool          // close the connection after the answer
	After   int64         // at AtBody: read so many octets of the message before Hang, Drop or Reset
	Keep    bool          // at AtDot: the message counts as arrived whatever the client is told
	Delay   time.Duration // wait first; delays of several behaviours add up, and alone they decide nothing
}

func (a Answer) decides() bool {
	a.Delay = 0
	return a != Answer{}
}

// A Behaviour is a way in which a [Server] behaves: made by [On], [Refuse], [Hang] and the others, or an [Offer].
type Behaviour interface{ behave(*conduct) }

// conduct is all that a server does, put together from behaviours.
type conduct struct {
	offers  []Offer
	rules   []rule
	script  *script
	latency time.Duration
	taps    []tap
}

// A rule decides one step. It must be safe for concurrent use, as sessions are concurrent.
type rule func(Step) Answer

func (r rule) behave(c *conduct) { c.rules = append(c.rules, r) }

// newConduct puts behaviours together; those in front win.
func newConduct(behaviours ...Behaviour) *conduct {
	c := new(conduct)
	for _, b := range behaviours {
		b.behave(c)
	}
	return c
}

func (c *conduct) offer() Offer {
	if len(c.offers) == 0 {
		return Offer{}
	}
	return c.offers[0]
}

// decide asks the rules in turn.
func (c *conduct) decide(step Step) Answer {
	var delay time.Duration
	for _, r := range c.rules {
		a := r(step)
		delay += a.Delay
		if a.decides() {
			a.Delay = delay
			return a
		}
	}
	return Answer{Delay: delay}
}

// On lets f decide what to do at a stage, or at every one with [Anywhere]. f may be called from several sessions at
// once.
func On(at Stage, f func(Step) Answer) Behaviour {
	return rule(func(s Step) Answer {
		if at != Anywhere && s.Stage != at {
			return Answer{}
		}
		return f(s)
	})
}
