package relaycheck

import (
	"fmt"
	"net/netip"
	"slices"
)

// An auditor goes through the rules of a policy, the default being the last.
type auditor struct {
	policy *Policy
	rules  []Rule

	plain space // what the rules so far decide whatever a client says: those that have no condition but networks

	fronts []space // of the server's front ends

	spans     []span         // public addresses that may relay without a login
	open      space          // and their union, at the end
	first     Client         // somebody there
	narrow    []grant        // to public networks that look like the server's own
	inside    []netip.Prefix // private networks that may relay
	itself    bool           // programs on this machine may
	logins    bool           // who logs in may
	receives  bool           // anybody may send to certain domains
	unaudited []int          // rules with more combinations than are looked at
	more      int            // findings that are left out
	findings  []Finding
}

// A grant is what one network of a rule lets through that no rule before it decides.
type grant struct {
	rule       int // its index
	network    netip.Prefix
	everywhere bool     // the rule has no networks
	region     space    // from where
	client     Client   // somebody who may, with a public address where there is one
	fronts     []Client // somebody at each of the front ends who may; without an address, nobody
	local      bool     // only who is on this machine can connect to where the rule holds
}

// maxProfiles is how many combinations of sender, recipient, greeting and listener are looked at for a rule.
const maxProfiles = 1000

// grants tells what an allowing rule lets through without a login. It is exact: conditions only ever narrow a rule, so a
// client that meets as few of the earlier rules as it can gets as far as anybody.
func (a *auditor) grants(i int) []grant {
	rule := &a.rules[i]
	profiles, local := a.profiles(i)
	all := make([]grant, max(1, len(rule.Networks)))
	for j := range all {
		all[j] = grant{rule: i, everywhere: true, local: local, fronts: make([]Client, len(a.fronts))}
	}
	for j, n := range rule.Networks {
		all[j].network, all[j].everywhere = n, false
	}
	for _, c := range profiles {
		decided := a.decided(i, &c)
		for j := range all {
			all[j].add(all[j].reach().minus(decided), c, a.fronts)
		}
	}
	return slices.DeleteFunc(all, func(g grant) bool { return len(g.region) == 0 })
}

// reach is where the grant's network is.
func (g *grant) reach() space {
	if g.everywhere {
		return internet
	}
	return spaceOf(g.network)
}

// add widens a grant by a region for one profile.
func (g *grant) add(region space, c Client, fronts []space) {
	from := func(who *Client, s space) {
		if !who.Addr.IsValid() && len(s) > 0 {
			*who = c
			who.Addr = s.example()
		}
	}
	from(&g.client, region.minus(notPublic))
	for i, front := range fronts {
		from(&g.fronts[i], region.and(front))
	}
	g.region = g.region.plus(region)
}

// decided is from where a client's fate is sealed before rule i, whatever the rules before it say.
func (a *auditor) decided(i int, c *Client) space {
	decided := a.plain
	for j := range a.rules[:i] {
		r := &a.rules[j]
		switch {
		case r.plain() || !r.covers(c):
		case len(r.Networks) == 0:
			return internet
		default:
			decided = decided.plus(spaceOf(r.Networks...))
		}
	}
	return decided
}

// plain reports whether a rule has no condition but its networks.
func (r *Rule) plain() bool {
	return !r.Auth && !r.TLS && len(r.SenderDomains)+len(r.RecipientDomains)+len(r.HELO)+len(r.Listeners) == 0
}

// pass makes a plain rule one of those before.
func (a *auditor) pass(r *Rule) {
	switch {
	case !r.plain():
	case len(r.Networks) == 0:
		a.plain = internet
	default:
		for _, sp := range spaceOf(r.Networks...) {
			a.plain = a.plain.with(sp)
		}
	}
}

// profiles are clients without an address that meet the conditions of rule i, and between them as few of the earlier rules
// as anybody can. local says that only who is on this machine can connect to where the rule holds.
func (a *auditor) profiles(i int) (profiles []Client, local bool) {
	rule, earlier := &a.rules[i], a.rules[:i]
	senders := candidates(rule.SenderDomains, earlier, func(r *Rule) []string { return r.SenderDomains })
	recipients := candidates(rule.RecipientDomains, earlier, func(r *Rule) []string { return r.RecipientDomains })
	greetings := candidates(rule.HELO, earlier, func(r *Rule) []string { return r.HELO })
	listeners, local := a.listeners(i)
	if len(senders)*len(recipients)*len(greetings)*len(listeners) > maxProfiles {
		a.unaudited = append(a.unaudited, i)
	}
	for _, l := range listeners {
		for _, s := range senders {
			for _, to := range recipients {
				for _, helo := range greetings {
					if len(profiles) == maxProfiles {
						return profiles, local
					}
					profiles = append(profiles, Client{
						Listener: l.Addr, HELO: helo, TLS: rule.TLS || l.TLS, Sender: addressAt(s), Recipient: "someone@" + to,
					})
				}
			}
		}
	}
	return profiles, local
}

func addressAt(domain string) string {
	if domain == nullSender {
		return ""
	}
	return "anyone@" + domain
}

// candidates are names that meet a condition, and as few of the earlier rules as they can. One is enough where no earlier
// rule looks at such names.
func candidates(own []string, earlier []Rule, of func(*Rule) []string) []string {
	taken := map[string]bool{}
	for i := range earlier {
		for _, p := range of(&earlier[i]) {
			taken[nameKey(p)] = true
		}
	}
	if len(own) == 0 {
		own = []string{"*"}
	}
	if len(taken) == 0 {
		own = own[:1]
	}
	names := make([]string, len(own))
	for i, p := range own {
		names[i] = fresh(nameKey(p), taken)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// fresh is a name that a pattern covers, and none of the patterns taken that need not.
func fresh(pattern string, taken map[string]bool) string {
	for k := 1; ; k++ {
		number := ""
		if k > 1 {
			number = fmt.Sprint(k)
		}
		switch {
		case pattern == "*":
			if tld := "example" + number; !taken["stranger."+tld] && !taken["*."+tld] {
				return "stranger." + tld
			}
		case len(pattern) > 2 && pattern[:2] == "*.":
			if name := "stranger" + number + pattern[1:]; !taken[name] {
				return name
			}
		default:
			return pattern
		}
	}
}

// listeners are where strangers can connect and rule i holds. Where they can connect to none that it holds at, but
// who is on this machine can, these are returned, and local.
func (a *auditor) listeners(i int) (all []Listener, local bool) {
	patterns, known := a.rules[i].Listeners, a.policy.Server.Listeners
	switch {
	case len(patterns)+len(known) == 0:
		return []Listener{{}}, false
	case len(patterns) == 0:
		patterns = []netip.AddrPort{anywhere}
	case len(known) == 0:
		known = []Listener{{Addr: anywhere}}
	}
	var inside []Listener
	for _, l := range known {
		for _, p := range patterns {
			addr, ok := meeting(p, l.Addr)
			switch {
			case !ok:
			case addr.Addr().Unmap().IsLoopback():
				inside = append(inside, Listener{addr, l.TLS})
			default:
				all = append(all, Listener{addr, l.TLS})
			}
		}
	}
	if len(all) == 0 {
		return inside, len(inside) > 0
	}
	return all, false
}

// anywhere is every address and port; ownAddress stands for an address of the server that nobody has named (RFC 5737).
var (
	anywhere   = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	ownAddress = netip.MustParseAddr("192.0.2.25")
)

// meeting is where a connection arrives that both a rule's listener and one of the server mean.
func meeting(pattern, l netip.AddrPort) (netip.AddrPort, bool) {
	addr, port := l.Addr(), l.Port()
	if addr.IsUnspecified() {
		addr = pattern.Addr()
	}
	if addr.IsUnspecified() {
		addr = ownAddress
	}
	if port == 0 {
		port = pattern.Port()
	}
	at := netip.AddrPortFrom(addr, port)
	return at, matchListener(pattern, at)
}
