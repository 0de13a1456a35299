package queue

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/idna"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/dsn"
)

// MaxRecipients is how many recipients one message may have.
const MaxRecipients = 50_000

// An Envelope is what travels beside a message: who sent it, who gets it, and what its sender wants to hear.
type Envelope struct {
	From       string      `json:"from"` // reverse-path without angle brackets; "" is the null sender
	To         []Recipient `json:"to"`
	EnvelopeID string      `json:"envid,omitempty"` // ENVID, decoded (RFC 3461, section 4.4)
	Return     dsn.Return  `json:"ret,omitempty"`   // RET (RFC 3461, section 4.3)
	UTF8       bool        `json:"utf8,omitempty"`  // SMTPUTF8 (RFC 6531)

	// Binary is BODY=BINARYMIME (RFC 3030): lines mean nothing, and only a host with CHUNKING and BINARYMIME gets it.
	Binary bool `json:"binary,omitempty"`
	// RequireTLS is REQUIRETLS (RFC 8689): it goes only to hosts with verified TLS that promise the same. So do reports about it.
	RequireTLS bool `json:"requiretls,omitempty"`
	// Priority is MT-PRIORITY (RFC 6710), from -9 to 9: what is higher goes first, see [Queue]. Reports have that of their message.
	Priority int `json:"priority,omitempty"`
	// DeliverBy is BY (RFC 2852): when its time is over, the message comes back with status 5.4.7, or its sender is told that it
	// is late, once and in place of the Schedule's own warning. What is held then is looked at when it is released.
	DeliverBy deliver.DeliverBy `json:"deliverby,omitzero"`

	// Key makes Enqueue idempotent: a message with the key of one that was accepted within [KeyMemory], or is in the queue, is not
	// enqueued again, see [Queue]. It is any text of at most [MaxKey] octets; "" is none.
	Key string `json:"key,omitempty"`
	// Anyway has recipients tried that are on the suppression list, see [KindSuppress]. One that takes the mail is on it no more.
	Anyway bool `json:"anyway,omitempty"`
}

// MaxPriority is the highest priority; the lowest is -MaxPriority.
const MaxPriority = 9

// PriorityStep is what a level of priority is worth, as time that an entry has been due: see [Queue].
const PriorityStep = time.Hour

// A Recipient is one forward-path with what its sender asked to hear about it.
type Recipient = deliver.Recipient

// To makes recipients of plain addresses.
func To(addresses ...string) []Recipient {
	to := make([]Recipient, len(addresses))
	for i, a := range addresses {
		to[i].Address = a
	}
	return to
}

// Validate reports what no retry would make right about the envelope, as an [*EnvelopeError]. Enqueue calls it.
func (e *Envelope) Validate() error {
	if e.From != "" {
		if err := CheckAddress(e.From); err != nil {
			return &EnvelopeError{"reverse-path", e.From, err.Error()}
		}
	}
	switch n := len(e.To); {
	case n == 0:
		return &EnvelopeError{"recipients", "", "there are none: name at least one"}
	case n > MaxRecipients:
		return &EnvelopeError{"recipients", "", fmt.Sprintf("there are %d, and the limit is %d: send several messages", n, MaxRecipients)}
	}
	for _, r := range e.To {
		if err := CheckAddress(r.Address); err != nil {
			return &EnvelopeError{"recipient", r.Address, err.Error()}
		}
	}
	if e.Priority < -MaxPriority || e.Priority > MaxPriority {
		return &EnvelopeError{"priority", strconv.Itoa(e.Priority), "write -9 to 9 (RFC 6710)"}
	}
	return checkKey(e.Key)
}

// LaneOf is the lane of a recipient: its domain, as an A-label in lower case (RFC 5321, section 2.4).
func LaneOf(address string) string {
	domain := strings.TrimSuffix(address[strings.LastIndexByte(address, '@')+1:], ".")
	if a, err := idna.Lookup.ToASCII(domain); err == nil {
		return a
	}
	return strings.ToLower(domain)
}

// Lanes sorts the envelope's recipients by lane. The lanes come in order of their first recipient. A recipient
// named twice is kept once.
func (e *Envelope) Lanes() (lanes []string, members map[string][]Recipient) {
	members = make(map[string][]Recipient, 1)
	seen := make(map[string]bool, len(e.To))
	for _, r := range e.To {
		if seen[r.Address] {
			continue
		}
		seen[r.Address] = true
		lane := LaneOf(r.Address)
		if _, ok := members[lane]; !ok {
			lanes = append(lanes, lane)
		}
		members[lane] = append(members[lane], r)
	}
	return lanes, members
}

// CheckAddress says what is wrong with the syntax of an address (RFC 5321, section 4.1.2; RFC 6531, section 3.3):
// a local part of at most 64 octets, "@", and a domain or an address literal. It returns nil for one that is right.
func CheckAddress(address string) error {
	at := strings.LastIndexByte(address, '@')
	switch {
	case address == "":
		return fmt.Errorf("it is empty: write local-part@domain")
	case address[0] != '"' && strings.ContainsAny(address, "<>, "):
		return fmt.Errorf("write one address alone, local-part@domain, without name, angle brackets, commas or spaces")
	case at < 0:
		return fmt.Errorf("there is no @: write local-part@domain")
	case len(address) > 254+64:
		return fmt.Errorf("it is longer than an address may be")
	case strings.ContainsFunc(address, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }):
		return fmt.Errorf("it has a control character or is not UTF-8")
	}
	if err := checkLocal(address[:at]); err != nil {
		return err
	}
	return checkDomain(address[at+1:])
}

func checkLocal(local string) error {
	switch {
	case local == "":
		return fmt.Errorf("there is nothing before the @")
	case len(local) > 64:
		return fmt.Errorf("the part before the @ is longer than 64 octets (RFC 5321, section 4.5.3.1.1)")
	case local[0] == '"':
		return checkQuoted(local)
	}
	for atom := range strings.SplitSeq(local, ".") {
		if atom == "" {
			return fmt.Errorf("the part before the @ has a dot at its start or end, or two dots in a row")
		}
		if i := strings.IndexAny(atom, "()<>[]:;@\\,\" "); i >= 0 {
			return fmt.Errorf("%q before the @ must stand in double quotes", atom[i])
		}
	}
	return nil
}

func checkQuoted(local string) error {
	if len(local) < 2 || local[len(local)-1] != '"' {
		return fmt.Errorf("the double quote before the @ is not closed")
	}
	inner := local[1 : len(local)-1]
	for i := 0; i < len(inner); i++ {
		switch inner[i] {
		case '\\':
			i++
			if i == len(inner) {
				return fmt.Errorf("the part before the @ ends in a lone backslash")
			}
		case '"':
			return fmt.Errorf("a double quote within the quoted part before the @ needs a backslash")
		}
	}
	return nil
}

func checkDomain(domain string) error {
	if strings.HasPrefix(domain, "[") {
		return checkLiteral(domain)
	}
	ascii, err := idna.Lookup.ToASCII(strings.TrimSuffix(domain, "."))
	if err != nil && !isASCII(domain) {
		return fmt.Errorf("%q is no domain name: %v", domain, err)
	}
	if err != nil {
		ascii = strings.TrimSuffix(domain, ".") // underscores and the like: wrong in host names, alive in the field
	}
	if ascii == "" || len(ascii) > 253 {
		return fmt.Errorf("there is no domain name of 1 to 253 octets after the @")
	}
	if slices.ContainsFunc(strings.Split(ascii, "."), badLabel) {
		return fmt.Errorf("%q is no domain name: each label has 1 to 63 letters, digits or hyphens", domain)
	}
	return nil
}

// checkLiteral checks an address literal (RFC 5321, section 4.1.3). Nobody has registered other kinds than these two.
func checkLiteral(literal string) error {
	inner, closed := strings.CutSuffix(literal[1:], "]")
	if !closed {
		return fmt.Errorf("the address literal after the @ is not closed with ]")
	}
	text, is6 := inner, false
	if len(inner) > 5 && strings.EqualFold(inner[:5], "IPv6:") {
		text, is6 = inner[5:], true
	}
	if addr, err := netip.ParseAddr(text); err != nil || addr.Is6() != is6 || addr.Zone() != "" {
		return fmt.Errorf("%s is no address literal: write [192.0.2.1] or [IPv6:2001:db8::1]", literal)
	}
	return nil
}

func badLabel(label string) bool {
	return label == "" || len(label) > 63 || strings.ContainsFunc(label, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	})
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
