package dsn

import (
	"fmt"
	"strings"
)

// Notify is when a sender wants to hear about a recipient (RFC 3461, section 4.1): a set of flags. The zero
// value is "not said", which asks for failures and delays.
type Notify uint8

// The NOTIFY keywords. NotifyNever stands alone.
const (
	NotifyNever Notify = 1 << iota
	NotifySuccess
	NotifyFailure
	NotifyDelay
)

var notifyWords = []struct {
	flag Notify
	word string
}{{NotifyNever, "NEVER"}, {NotifySuccess, "SUCCESS"}, {NotifyFailure, "FAILURE"}, {NotifyDelay, "DELAY"}}

// ParseNotify reads the value of a NOTIFY parameter: "NEVER" or a list of "SUCCESS", "FAILURE" and "DELAY".
// The empty string is the zero Notify.
func ParseNotify(s string) (Notify, error) {
	if s == "" {
		return 0, nil
	}
	var n Notify
words:
	for word := range strings.SplitSeq(s, ",") {
		for _, w := range notifyWords {
			if strings.EqualFold(word, w.word) {
				n |= w.flag
				continue words
			}
		}
		return 0, fmt.Errorf("dsn: NOTIFY=%s: %q is none of NEVER, SUCCESS, FAILURE, DELAY", s, word)
	}
	if n&NotifyNever != 0 && n != NotifyNever {
		return 0, fmt.Errorf("dsn: NOTIFY=%s: NEVER must stand alone", s)
	}
	return n, nil
}

// String is the value of the NOTIFY parameter; "" for the zero Notify.
func (n Notify) String() string {
	var words []string
	for _, w := range notifyWords {
		if n&w.flag != 0 {
			words = append(words, w.word)
		}
	}
	return strings.Join(words, ",")
}

// MarshalText and UnmarshalText make JSON carry the parameter's value.
func (n Notify) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (n *Notify) UnmarshalText(b []byte) (err error) { *n, err = ParseNotify(string(b)); return err }

// Failure reports whether a failed delivery is to be reported.
func (n Notify) Failure() bool { return n == 0 || n&NotifyFailure != 0 }

// Delay reports whether a delay is to be reported.
func (n Notify) Delay() bool { return n == 0 || n&NotifyDelay != 0 }

// Success reports whether a delivery is to be reported.
func (n Notify) Success() bool { return n&NotifySuccess != 0 }

// Return is how much of the original comes back in a failure report: the RET parameter (RFC 3461, section 4.3).
type Return string

// The values of RET. ReturnDefault leaves it to the size of the message.
const (
	ReturnDefault Return = ""
	ReturnFull    Return = "FULL"
	ReturnHeaders Return = "HDRS"
)

// Action is what happened to a recipient's copy (RFC 3464, section 2.3.3).
type Action string

// The actions.
const (
	Failed    Action = "failed"
	Delayed   Action = "delayed"
	Delivered Action = "delivered"
	Relayed   Action = "relayed"
	Expanded  Action = "expanded"
)
