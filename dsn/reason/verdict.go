package reason

import (
	"slices"

	"github.com/sortie-mail/sortie/dsn"
)

// An Input is a refusal and where it happened.
type Input struct {
	Reply dsn.Reply
	Stage string // of the session, as package deliver names it: "greeting", "mail", "rcpt", "dot" …; "" is unknown
	Host  string // the host that answered; "" is unknown
	Site  string // the domain that names the provider: the registered domain of its MX hosts; "" leaves it to Host
}

// stages are what Input.Stage may be, in the order of a session.
var stages = []string{"route", "connect", "greeting", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "dot"}

// A Matter says whose a refusal is: who could do something about it.
type Matter string

// The matters.
const (
	MatterMailbox Matter = "recipient's mailbox"
	MatterDomain  Matter = "recipient's domain"
	MatterSender  Matter = "sender"
	MatterMessage Matter = "message"
	MatterAddress Matter = "our address"
	MatterConfig  Matter = "our configuration"
	MatterNetwork Matter = "network"
	MatterUnknown Matter = "unknown"
)

var matters = []Matter{
	MatterMailbox, MatterDomain, MatterSender, MatterMessage, MatterAddress, MatterConfig, MatterNetwork, MatterUnknown,
}

// A Retry says whether trying again may help, and when.
type Retry string

// The values of Retry.
const (
	RetryNormal Retry = "normal" // at the usual times
	RetrySoon   Retry = "soon"   // within minutes: greylisting
	RetrySlowly Retry = "slowly" // it takes hours, or somebody's help
	RetryNever  Retry = "never"  // it will be refused again
)

var retries = []Retry{RetryNormal, RetrySoon, RetrySlowly, RetryNever}

// A Link leads to a page that helps.
type Link struct {
	Title string `json:"title"`
	URL   string `json:"url"` // http or https
}

// A Verdict is why a server refused. The zero Verdict says that nothing was looked at.
type Verdict struct {
	Classes    []Class `json:"classes,omitempty"` // every possibility that the words leave, likeliest first
	Confidence float64 `json:"confidence,omitempty"`
	Matter     Matter  `json:"matter,omitempty"`
	Retry      Retry   `json:"retry,omitempty"`
	Sender     string  `json:"sender,omitempty"` // what the sender can do, in one plain sentence
	Admin      string  `json:"admin,omitempty"`  // what the administrator can do
	Links      []Link  `json:"links,omitempty"`  // for the administrator
	Rule       string  `json:"rule,omitempty"`   // file and line of the rule that matched
	List       string  `json:"list,omitempty"`   // the blocklist that is named
}

// Class is the likeliest class, [Unknown] where there is none.
func (v *Verdict) Class() Class {
	if len(v.Classes) == 0 {
		return Unknown
	}
	return v.Classes[0]
}

// Is reports whether a class is among the possibilities.
func (v *Verdict) Is(c Class) bool { return slices.Contains(v.Classes, c) }

// Blocked reports whether the refusal is about our address or its reputation, with enough confidence to take another way.
func (v *Verdict) Blocked() bool { return v.Matter == MatterAddress && v.Confidence >= 0.5 }
