package relaycheck

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
)

// Action is what a rule does with those whom it covers. The zero value refuses.
type Action uint8

// The actions.
const (
	Refuse Action = iota
	Allow
)

// String is the name in lower case.
func (a Action) String() string {
	if a == Allow {
		return "allow"
	}
	return "refuse"
}

// A Client is who asks the server to take one message for one recipient.
type Client struct {
	Addr      netip.Addr     `json:"addr,omitzero"`     // where the connection comes from, as the server sees it
	Listener  netip.AddrPort `json:"listener,omitzero"` // where it arrived; the zero AddrPort is unknown
	HELO      string         `json:"helo,omitempty"`    // what it called itself
	User      string         `json:"user,omitempty"`    // who it logged in as; "" is nobody
	TLS       bool           `json:"tls,omitempty"`
	Sender    string         `json:"sender"`    // reverse-path without angle brackets; "" is the null sender
	Recipient string         `json:"recipient"` // forward-path without angle brackets
}

// A Server is what an audit must know of the server around the rules. The zero value is a server of which nothing is known.
type Server struct {
	Hostname  string     // what it calls itself
	Domains   []string   // the domains whose mail it sends
	Listeners []Listener // where it takes connections; none is "somewhere that strangers can reach"
	// FrontEnds are addresses from which a proxy, a NAT or a container bridge passes on the connections of strangers. The
	// server sees everybody come from there.
	FrontEnds []netip.Prefix
}

// A Listener is where a server takes connections.
type Listener struct {
	Addr netip.AddrPort
	TLS  bool // from the start (RFC 8314), so that nothing crosses it in the clear
}

// A Policy says who may send mail to others through a server. The first rule that covers a client decides; without one,
// Default does. The zero value lets nobody relay. A Policy must not change while it is used, and is then safe for
// concurrent use. A host can enforce the very value that it has audited, with [Policy.Allows].
type Policy struct {
	Rules   []Rule
	Default Action
	Server  Server // for the audit alone
}

// A Rule covers the clients that meet all of its conditions; a condition left empty is met by everybody.
//
// Domains and names are written as "example.org" for that one, "*.example.org" for those below it at any depth, "*" for any,
// and "<>" for the null sender. They compare as A-labels and without regard to case.
type Rule struct {
	Name   string // what the host's configuration calls it; "" is none
	Action Action // the zero value refuses

	Networks         []netip.Prefix   // where the client is; ::ffff:192.0.2.0/120 is 192.0.2.0/24, and ::/0 covers no IPv4
	Auth             bool             // it has logged in
	TLS              bool             // its connection is encrypted
	SenderDomains    []string         // of the reverse-path. Whoever sends writes there what he likes.
	RecipientDomains []string         // of the forward-path: with the server's own domains, this receives mail and does not relay
	HELO             []string         // what it calls itself. That too is what it likes.
	Listeners        []netip.AddrPort // where it arrived; an unspecified address or port 0 stands for any
}

// Allows reports whether a client may have its message sent.
func (p *Policy) Allows(c Client) bool {
	action, _ := p.Decide(c)
	return action == Allow
}

// Decide tells what is done with a client's message and by which rule: 1 is the first, 0 is Default.
func (p *Policy) Decide(c Client) (Action, int) {
	c.Addr = c.Addr.Unmap().WithZone("")
	for i := range p.Rules {
		if r := &p.Rules[i]; r.covers(&c) && r.reaches(c.Addr) {
			return r.Action, i + 1
		}
	}
	return p.Default, 0
}

// covers reports whether a client meets all conditions but that of the networks.
func (r *Rule) covers(c *Client) bool {
	arrives := func(l netip.AddrPort) bool { return matchListener(l, c.Listener) }
	return (!r.Auth || c.User != "") && (!r.TLS || c.TLS) &&
		(len(r.SenderDomains) == 0 || matchAny(r.SenderDomains, senderKey(c.Sender))) &&
		(len(r.RecipientDomains) == 0 || matchAny(r.RecipientDomains, nameKey(domainOf(c.Recipient)))) &&
		(len(r.HELO) == 0 || matchAny(r.HELO, nameKey(c.HELO))) &&
		(len(r.Listeners) == 0 || slices.ContainsFunc(r.Listeners, arrives))
}

// reaches reports whether an unmapped address without zone is in the rule's networks.
func (r *Rule) reaches(a netip.Addr) bool {
	if len(r.Networks) == 0 {
		return true
	}
	return slices.ContainsFunc(r.Networks, func(n netip.Prefix) bool { return unmapPrefix(n).Contains(a) })
}

// receives reports whether the rule covers mail for certain domains only, which is receiving it and not relaying. All
// domains below a public suffix are no certain ones.
func (r *Rule) receives() bool {
	wide := func(pattern string) bool {
		rest, sub := strings.CutPrefix(nameKey(pattern), "*.")
		suffix, icann := publicsuffix.PublicSuffix(rest)
		listed := icann || strings.Contains(suffix, ".") // others are names of somebody's own network, such as "lan"
		return pattern == "*" || (sub && listed && suffix == rest)
	}
	return len(r.RecipientDomains) > 0 && !slices.ContainsFunc(r.RecipientDomains, wide)
}

// unmapPrefix turns a network of IPv4-mapped addresses (RFC 4291, section 2.5.5.2) into the one of IPv4 that it means.
func unmapPrefix(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

func matchListener(pattern, l netip.AddrPort) bool {
	return (pattern.Port() == 0 || pattern.Port() == l.Port()) &&
		(pattern.Addr().IsUnspecified() || pattern.Addr().Unmap() == l.Addr().Unmap())
}

// matchAny reports whether one of the patterns covers a key.
func matchAny(patterns []string, key string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matchName(nameKey(p), key) })
}

func matchName(pattern, key string) bool {
	if parent, sub := strings.CutPrefix(pattern, "*."); sub {
		return strings.HasSuffix(key, "."+parent) && len(key) > len(parent)+1
	}
	return pattern == "*" || pattern == key
}

// nullSender is how patterns write the reverse-path of reports.
const nullSender = "<>"

func senderKey(sender string) string {
	if sender == "" {
		return nullSender
	}
	return nameKey(domainOf(sender))
}

func domainOf(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }

// nameKey is a name as A-labels in lower case without the final dot. What is no name is only put in lower case.
func nameKey(name string) string {
	name = strings.TrimSuffix(name, ".")
	for i := range len(name) {
		if name[i] >= 0x80 {
			if a, err := idna.Lookup.ToASCII(name); err == nil {
				return a
			}
			break
		}
	}
	return strings.ToLower(name)
}

// String is the rule's conditions in a few words.
func (r *Rule) String() string {
	var parts []string
	add := func(one, many string, n int, names func(int) string) {
		if n > 0 {
			parts = append(parts, listWords(one, many, n, names))
		}
	}
	add("network", "networks", len(r.Networks), func(i int) string { return r.Networks[i].String() })
	if r.Auth {
		parts = append(parts, "logged in")
	}
	if r.TLS {
		parts = append(parts, "over TLS")
	}
	add("senders of", "senders of", len(r.SenderDomains), func(i int) string { return r.SenderDomains[i] })
	add("recipients of", "recipients of", len(r.RecipientDomains), func(i int) string { return r.RecipientDomains[i] })
	add("greeting as", "greeting as", len(r.HELO), func(i int) string { return r.HELO[i] })
	add("arriving at", "arriving at", len(r.Listeners), func(i int) string { return r.Listeners[i].String() })
	if len(parts) == 0 {
		return "no condition"
	}
	return strings.Join(parts, "; ")
}

// maxListed is how many names a sentence tells one by one.
const maxListed = 3

// listWords is "networks a, b, c and 7 more".
func listWords(one, many string, n int, name func(int) string) string {
	word := many
	if n == 1 {
		word = one
	}
	names := make([]string, min(n, maxListed))
	for i := range names {
		names[i] = name(i)
	}
	return word + " " + joinSome(names, n)
}

// joinSome joins the names that stand for n.
func joinSome(names []string, n int) string {
	if n > len(names) {
		return fmt.Sprintf("%s and %d more", strings.Join(names, ", "), n-len(names))
	}
	return strings.Join(names, ", ")
}
