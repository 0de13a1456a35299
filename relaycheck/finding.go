package relaycheck

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sortie-mail/sortie/dsn/reason"
)

// A Severity says how much a finding matters. Higher ones are worse.
type Severity uint8

// The severities.
const (
	OK       Severity = iota // looked at, and in order
	Info                     // worth knowing; nothing needs doing
	Warning                  // some mail is in trouble, or may come to be
	Serious                  // mail stays here or comes back
	Critical                 // strangers can misuse this server, or all mail is in trouble
)

var severityNames = [...]string{"ok", "info", "warning", "serious", "critical"}

// String is the name in lower case, as JSON has it.
func (s Severity) String() string {
	if int(s) >= len(severityNames) {
		return fmt.Sprintf("Severity(%d)", uint8(s))
	}
	return severityNames[s]
}

// MarshalText gives the name.
func (s Severity) MarshalText() ([]byte, error) {
	if int(s) >= len(severityNames) {
		return nil, fmt.Errorf("relaycheck: %d is no severity", uint8(s))
	}
	return []byte(severityNames[s]), nil
}

// UnmarshalText reads the name.
func (s *Severity) UnmarshalText(b []byte) error {
	i := slices.Index(severityNames[:], string(b))
	if i < 0 {
		return fmt.Errorf("relaycheck: %q is no severity: want one of %s", b, strings.Join(severityNames[:], ", "))
	}
	*s = Severity(i)
	return nil
}

// A Finding is one thing that an administrator should know. All its texts are plain text, and hold no credentials.
type Finding struct {
	ID       string   `json:"id"` // the same for the same matter at all times: "refusal/aol.com/open-relay"
	Severity Severity `json:"severity"`
	Title    string   `json:"title"`           // one line
	Text     string   `json:"text"`            // what it means, for anybody; an empty line between paragraphs
	Quote    *Quote   `json:"quote,omitempty"` // what another server said

	// Possibilities are what may be behind it, in the order in which to check them. Clues are what this finding tells about
	// the possibilities of others: [Summarize] brings them together.
	Possibilities []Possibility `json:"possibilities,omitempty"`
	Clues         []Clue        `json:"clues,omitempty"`

	Evidence []Evidence    `json:"evidence,omitempty"`
	Remedy   []Step        `json:"remedy,omitempty"` // what to do, in this order
	Links    []reason.Link `json:"links,omitempty"`

	First time.Time `json:"first_seen,omitzero"` // of what happens again and again; of what just is, the zero time
	Last  time.Time `json:"last_seen,omitzero"`
	Ended time.Time `json:"ended,omitzero"` // when it was over; the zero time is not yet
	Count int       `json:"count,omitempty"`

	Stranger *Client `json:"stranger,omitempty"` // who may relay and should not: an example that the policy really lets pass
}

// A Quote is what another server said, whole, up to 4,096 octets.
type Quote struct {
	By    string `json:"by"`    // who said it: a host and its address
	Words string `json:"words"` // as it was said, one line of the session a line
}

// Evidence is one fact that a finding rests on.
type Evidence struct {
	Label string `json:"label"` // what it is: "counter-example"
	Text  string `json:"text"`
}

// A Step is one thing to do.
type Step struct {
	Who   string   `json:"who"`             // who does it: "you", or somebody else in a few words, the subject of Do
	Do    string   `json:"do"`              // a sentence or two; "takes the address off its list" where Who is not you
	Lines []string `json:"lines,omitempty"` // to be copied letter by letter, into the place that Do names
}

// A Possibility is what may be behind a finding.
type Possibility struct {
	Class reason.Class `json:"class"`
	Title string       `json:"title"`
	Text  string       `json:"text"`            // what that is, and how to check it
	Known []string     `json:"known,omitempty"` // what other findings tell about it
}

// A Clue is what a finding tells about one possibility, for findings that have it.
type Clue struct {
	Class    reason.Class `json:"class"`
	Confirms bool         `json:"confirms,omitempty"` // it speaks for that possibility; otherwise against it
	Text     string       `json:"text"`               // a sentence to stand behind the possibility
}

// you are the reader: the administrator.
const you = "you"

// sortFindings puts the worst first, and those of a severity in the order of their ids.
func sortFindings(all []Finding) {
	slices.SortStableFunc(all, func(a, b Finding) int {
		if a.Severity != b.Severity {
			return int(b.Severity) - int(a.Severity)
		}
		return strings.Compare(a.ID, b.ID)
	})
}
