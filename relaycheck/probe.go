package relaycheck

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/sortie-mail/sortie/dsn/reason"
)

// maxTried is how many of the server's names, listeners and front ends are tried.
const maxTried = 10

// AuditFunc is [AuditPolicy] for a host whose rules are code: it asks allows about strangers from all over the internet, from
// just beyond the private networks, and with the server's own names in their mouths. A stranger who is let pass proves an open
// relay; that none is proves nothing, and the finding "policy/closed" says so. allows is called a few thousand times, from this
// goroutine.
func AuditFunc(allows func(Client) bool, s Server) []Finding {
	t := &trial{allows: allows, server: &s}
	t.listeners = s.Listeners[:min(len(s.Listeners), maxTried)]
	if len(t.listeners) == 0 {
		t.listeners = []Listener{{}}
	}
	t.addresses()
	if len(t.findings) == 0 { // otherwise these pass for their addresses
		t.names()
		t.frontEnds()
	}
	t.login()
	t.closed()
	sortFindings(t.findings)
	return t.findings
}

// A trial asks a decision about strangers.
type trial struct {
	allows    func(Client) bool
	server    *Server
	listeners []Listener
	tried     int
	findings  []Finding
}

// ask tries a stranger at every listener, in the clear and over TLS. It returns the first who may.
func (t *trial) ask(c Client) (Client, bool) {
	for _, l := range t.listeners {
		for _, tls := range []bool{false, true} {
			c.Listener, c.TLS = l.Addr, tls
			if l.TLS && !tls {
				continue
			}
			t.tried++
			if t.allows(c) {
				return c, true
			}
		}
	}
	return Client{}, false
}

// strangerAt is somebody without a login who tells nothing of interest.
func strangerAt(addr netip.Addr) Client {
	return Client{Addr: addr, HELO: "stranger.example", Sender: "anyone@stranger.example", Recipient: "someone@elsewhere.example"}
}

// addresses tries strangers everywhere.
func (t *trial) addresses() {
	var in []Client
	var v4, v6, in4, in6 int
	all := everywhere()
	for _, addr := range all {
		c, ok := t.ask(strangerAt(addr))
		if ok {
			in = append(in, c)
		}
		count(addr, ok, &v4, &in4, &v6, &in6)
	}
	switch n := len(in); {
	case n == 0:
	case in4 > v4/4 || in6 > v6/4:
		t.open(Finding{
			ID:       "policy/everyone",
			Title:    "Anyone on the internet can send mail through this server",
			Text:     textOpenRelay,
			Evidence: []Evidence{{"how much", fmt.Sprintf("%d of %d strangers from all over the internet may send", n, len(all))}},
		}, in[0], "")
	default:
		for _, c := range in[:min(n, maxTried)] {
			t.open(Finding{
				ID:    "policy/address/" + c.Addr.String(),
				Title: fmt.Sprintf("A stranger at %s can send mail through this server", c.Addr),
				Text: "The server takes an address that is public for one of its own. Perhaps a network in its rules is " +
					"wider than it was meant to be, or a form of the address is read wrongly.",
				Evidence: []Evidence{{"how much", fmt.Sprintf("%d of %d strangers from all over the internet may "+
					"send", n, len(all))}},
			}, c, "")
		}
	}
}

// count counts a stranger of a family, and one who may.
func count(addr netip.Addr, may bool, v4, in4, v6, in6 *int) {
	all, in := v6, in6
	if addr.Unmap().Is4() {
		all, in = v4, in4
	}
	*all++
	if may {
		*in++
	}
}

// open adds a finding about a stranger who may relay.
func (t *trial) open(f Finding, c Client, given string) {
	words := c.may("the decision of the server")
	if given != "" {
		words += "; it need only give " + given
	}
	f.Severity = Critical
	f.Evidence = append([]Evidence{{"counter-example", words}}, f.Evidence...)
	f.Remedy = slices.Clone(remedyOpen)
	f.Remedy[0].Do = "Find out why the server's rules let this stranger pass, and change them so that only your own " +
		"machines may send."
	f.Links = slices.Clone(linksOpen)
	f.Clues = []Clue{{reason.OpenRelay, true, "Your own relay rules let strangers send: " + words + ". This is very likely " +
		"the cause."}}
	f.Stranger = &c
	t.findings = append(t.findings, f)
}

// names tries strangers who call themselves, or their sender, by one of the server's names.
func (t *trial) names() {
	names := t.ownNames()
	for _, helo := range append([]string{"localhost", "[127.0.0.1]"}, names...) {
		t.claim(Client{HELO: helo, Sender: "anyone@stranger.example"}, "policy/helo/"+clean(helo, maxName), "the name "+
			""+clean(helo, maxName)+" in its greeting")
	}
	t.claim(Client{HELO: "stranger.example"}, "policy/sender-domain/"+nullSender, "the empty sender address")
	for _, domain := range append([]string{"localhost"}, names...) {
		for _, local := range []string{"postmaster", "anyone"} {
			sender := local + "@" + domain
			t.claim(Client{HELO: "stranger.example", Sender: sender}, "policy/sender-domain/"+clean(domain, maxName), "the "+
				"sender address "+clean(sender, maxName))
		}
	}
}

// ownNames are the server's names, as many as are tried.
func (t *trial) ownNames() (names []string) {
	for _, n := range append([]string{t.server.Hostname}, t.server.Domains...) {
		if n != "" && len(names) < maxTried {
			names = append(names, n)
		}
	}
	return names
}

// claim tries strangers of both families who give what a client can give freely.
func (t *trial) claim(c Client, id, what string) {
	if slices.ContainsFunc(t.findings, func(f Finding) bool { return f.ID == id }) {
		return
	}
	c.Recipient = "someone@elsewhere.example"
	for _, addr := range standIns {
		c.Addr = addr
		if who, ok := t.ask(c); ok {
			t.open(Finding{
				ID: id, Title: "Anyone can send mail through this server by giving " + what,
				Text: fmt.Sprintf(textSpoofed, what),
			}, who, what)
			return
		}
	}
}

// frontEnds tries the addresses that strangers come under.
func (t *trial) frontEnds() {
	for _, front := range t.server.FrontEnds[:min(len(t.server.FrontEnds), maxTried)] {
		s := spaceOf(front)
		if len(s) == 0 {
			continue
		}
		for _, addr := range []netip.Addr{s[0].lo, s.example(), s[0].hi} {
			if c, ok := t.ask(strangerAt(addr)); ok {
				t.findings = append(t.findings, frontEndFinding(front, c, c.may("the decision of the server"), "the "+
					"server's rules"))
				break
			}
		}
	}
}

// login tries whether a login counts that crossed the network in the clear.
func (t *trial) login() {
	c := strangerAt(standIns[0])
	for _, l := range t.listeners {
		c.Listener = l.Addr
		c.User, c.TLS = "", false
		if l.TLS || t.allows(c) || l.Addr.Addr().Unmap().IsLoopback() {
			continue
		}
		if c.User = "anyone"; t.allows(c) {
			f := clearLogin("the server takes the login of " + c.Addr.String() + " without TLS")
			t.findings = append(t.findings, f)
			return
		}
	}
}

// closed says that no stranger was let pass, where that is so.
func (t *trial) closed() {
	if slices.ContainsFunc(t.findings, func(f Finding) bool { return f.Stranger != nil }) {
		return
	}
	t.findings = append(t.findings, Finding{
		ID: "policy/closed", Severity: OK, Title: "No stranger was found who can send mail through this server",
		Text: fmt.Sprintf("The server's own rules refused all of the %d strangers that were tried. That is a good sign, "+
			"though no proof: "+
			"there are more addresses than can be tried.", t.tried),
		Clues: []Clue{{reason.OpenRelay, false, "Your own relay rules refused every stranger that was tried: an open relay " +
			"is not likely the cause."}},
	})
}

// everywhere are addresses all over the internet: in every /8 of IPv4, at both ends of the private and reserved networks, in
// every /8 of IPv6 that is in use, and some of IPv4 in the form of IPv6, as sockets for both families give them.
func everywhere() []netip.Addr {
	all := slices.Clone(standIns)
	for first := range 224 {
		all = append(all, netip.AddrFrom4([4]byte{byte(first), 77, 113, 5}))
	}
	for first := 0x20; first < 0x40; first++ {
		all = append(all, netip.AddrFrom16([16]byte{byte(first), 1, 0x07, 0x7b, 15: 5}))
		all = append(all, netip.AddrFrom16([16]byte{byte(first), 0, 0x07, 0x7b, 15: 5}))
	}
	for _, s := range notPublic {
		for _, a := range []netip.Addr{s.lo.Prev(), s.hi.Next()} {
			if a.IsValid() {
				all = append(all, a)
			}
		}
	}
	all = slices.DeleteFunc(all, notPublic.contains)
	for _, a := range []string{"203.0.113.5", "8.77.113.5", "192.169.0.5", "11.0.0.5"} {
		all = append(all, netip.AddrFrom16(netip.MustParseAddr(a).As16()))
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}
