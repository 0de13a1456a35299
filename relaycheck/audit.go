package relaycheck

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sortie-mail/sortie/dsn/reason"
)

// How wide a network of public addresses may be before it is worth a warning, and when it is nobody's own any more: a /24
// and a /8 of IPv4, a /48 and a /16 of IPv6, in addresses.
const (
	narrowV4 = 1 << (32 - 24)
	vastV4   = 1 << (32 - 8)
	narrowV6 = 1 << (128 - 48)
	vastV6   = 1 << (128 - 16)
)

// maxNetworkFindings is how many networks have a finding of their own.
const maxNetworkFindings = 50

// AuditPolicy finds out who may relay through a server by its own rules, and names every stranger among them by an example
// that the policy really lets pass. It misses no public address that may relay without a login. The findings, whose ids begin
// with "policy/", come the worst first; a policy that keeps strangers out has "policy/closed" among them, of severity [OK].
func AuditPolicy(p *Policy) []Finding {
	a := &auditor{policy: p, rules: append(slices.Clone(p.Rules), Rule{Action: p.Default})}
	for _, front := range p.Server.FrontEnds {
		a.fronts = append(a.fronts, spaceOf(front))
	}
	for i := range a.rules {
		if r := &a.rules[i]; r.Action == Allow {
			a.rule(i)
		}
		a.pass(&a.rules[i])
	}
	a.open = unionOf(a.spans)
	a.together()
	a.ownNetworks()
	a.notAudited()
	a.closed()
	sortFindings(a.findings)
	return a.findings
}

// rule looks at one rule that allows.
func (a *auditor) rule(i int) {
	r := &a.rules[i]
	switch {
	case r.Auth:
		a.logins = true
		a.login(i)
		return
	case r.receives():
		a.receives = true
		return
	}
	for _, g := range a.grants(i) {
		for j, c := range g.fronts {
			if c.Addr.IsValid() {
				a.add(frontEndFinding(a.policy.Server.FrontEnds[j], c, c.may(a.label(&g)), a.ruleName(i)))
			}
		}
		a.itself = a.itself || len(g.region.and(loopback)) > 0
		if public := g.region.minus(notPublic); len(public) > 0 {
			a.stranger(&g, public)
		} else if len(g.region.and(private)) > 0 {
			a.inside = append(a.inside, g.network)
		}
	}
}

// stranger tells of a grant to public addresses.
func (a *auditor) stranger(g *grant, public space) {
	v4, v6 := public.sizes()
	if !g.local {
		if len(a.spans) == 0 {
			a.first = g.client
		}
		a.spans = append(a.spans, public...)
	}
	f, vast := a.finding(g), v4 >= vastV4 || v6 >= vastV6
	switch {
	case g.straddles(vast):
		a.straddling(f, g, public)
	case vast:
		a.vast(f, g)
	case v4 > narrowV4 || v6 > narrowV6:
		a.wide(f, g)
	default:
		a.narrow = append(a.narrow, *g)
		return
	}
	if g.local {
		f.behindLoopback(g.client.Listener)
	}
	a.add(*f)
}

// straddles reports whether the network seems meant for private addresses and is wider than they are.
func (g *grant) straddles(vast bool) bool {
	if g.everywhere {
		return false
	}
	n, inside := unmapPrefix(g.network), private.plus(loopback)
	if vast {
		return n.Bits() >= 4 && inside.contains(n.Addr()) // 10.0.0.0/7; a shorter one is the internet, whatever it begins with
	}
	return len(spaceOf(n).and(inside)) > 0
}

// add adds a finding. A second one of the same matter adds its evidence to the first, and beyond the limit none is added.
func (a *auditor) add(f Finding) {
	i := slices.IndexFunc(a.findings, func(g Finding) bool { return g.ID == f.ID })
	switch {
	case i >= 0:
		a.findings[i].Evidence = append(a.findings[i].Evidence, f.Evidence...)
	case len(a.findings) < maxNetworkFindings:
		a.findings = append(a.findings, f)
	default:
		a.more++
	}
}

// finding begins the finding of a grant: with its stranger.
func (a *auditor) finding(g *grant) *Finding {
	c := g.client
	words := c.may(a.label(g))
	return &Finding{
		Severity: Critical,
		Evidence: []Evidence{{"counter-example", words}},
		Remedy:   slices.Clone(remedyOpen),
		Links:    slices.Clone(linksOpen),
		Clues: []Clue{{reason.OpenRelay, true, "Your own relay policy lets strangers send: " + words + ". This is very " +
			"likely the cause."}},
		Stranger: &c,
	}
}

// label names a rule and what of it lets through: "rule 3 (network 0.0.0.0/0)".
func (a *auditor) label(g *grant) string {
	if g.rule == len(a.policy.Rules) {
		return "the default of the policy"
	}
	r := a.rules[g.rule]
	if !g.everywhere {
		r.Networks = []netip.Prefix{g.network}
	}
	return a.ruleName(g.rule) + " (" + clean(r.String(), maxSaid) + ")"
}

func (a *auditor) ruleName(i int) string {
	if i == len(a.policy.Rules) {
		return "the default of the policy"
	}
	name := fmt.Sprintf("rule %d", i+1)
	if a.rules[i].Name != "" {
		name += ", " + clean(a.rules[i].Name, maxName)
	}
	return name
}

// may is the sentence that says what a client may do, and by what.
func (c *Client) may(by string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s may send from anyone to anyone", c.Addr)
	if c.TLS {
		b.WriteString(" over TLS")
	}
	return b.String() + ", by " + by
}

// together tells of networks that are much only taken together: the two halves of the internet, or a list of countries.
func (a *auditor) together() {
	v4, v6 := a.open.sizes()
	critical := 0
	for i := range a.findings {
		if a.findings[i].Severity == Critical {
			critical++
		}
	}
	everyone := slices.ContainsFunc(a.findings, func(f Finding) bool { return f.ID == "policy/everyone" })
	if everyone || critical == 1 || (v4 < vastV4 && v6 < vastV6) {
		return
	}
	all4, all6 := internet.minus(notPublic).sizes()
	c := a.first
	a.findings = append(a.findings, Finding{
		ID: "policy/together", Severity: Critical,
		Title: "Taken together, the rules let a large part of the internet send mail through this server",
		Text: "Each network in the rules is only a part of the internet. Together they are so much of it that strangers are " +
			"among them for certain: to these, this server is an open relay.",
		Evidence: []Evidence{
			{"how much", fmt.Sprintf("%s of the public addresses of IPv4, %s of those of "+
				"IPv6", percent(v4/all4), percent(v6/all6))},
			{"counter-example", c.may(a.deciding(c))},
		},
		Remedy: append([]Step{{Who: you, Do: "Name the networks of your own machines in the rules, and nothing " +
			"else."}}, remedyOpen[1:]...),
		Links: slices.Clone(linksOpen),
		Clues: []Clue{{reason.OpenRelay, true, "Your own relay policy lets a large part of the internet send mail through " +
			"this server. This is very likely the cause."}},
		Stranger: &c,
	})
}

func percent(part float64) string {
	if part > 0 && part < 0.01 {
		return "less than 1 %"
	}
	return fmt.Sprintf("%.0f %%", 100*part)
}

// deciding names the rule that decides about a client.
func (a *auditor) deciding(c Client) string {
	if _, by := a.policy.Decide(c); by > 0 {
		return a.ruleName(by - 1)
	}
	return a.ruleName(len(a.policy.Rules))
}

// ownNetworks tells of the networks that look like the server's own.
func (a *auditor) ownNetworks() {
	if len(a.narrow) > 0 {
		a.findings = append(a.findings, a.publicNetworks())
	}
	if n := len(a.inside); n > 0 && len(a.fronts) == 0 {
		a.findings = append(a.findings, Finding{
			ID: "policy/private-networks", Severity: Info,
			Title: "Machines at private addresses can send mail through this server",
			Text: "That is as it should be where they are yours, and where the server sees who really connects. Behind a " +
				"proxy, a NAT or a container bridge it may see everybody come from one private address.",
			Evidence: []Evidence{{"networks", joinSome(texts(a.inside), n)}},
			Remedy: []Step{{Who: you, Do: "If such a thing stands before this server, name its address among the front ends " +
				"of the policy, and look at this summary again."}},
		})
	}
}

func (a *auditor) publicNetworks() Finding {
	networks := make([]netip.Prefix, len(a.narrow))
	for i := range a.narrow {
		networks[i] = a.narrow[i].network
	}
	c := a.narrow[0].client
	return Finding{
		ID: "policy/public-networks", Severity: Info,
		Title: "Machines at a few public addresses can send mail through this server",
		Text: "That is as it should be where these addresses are yours. Addresses that were yours once and are others' now " +
			"should go.",
		Evidence: []Evidence{
			{"networks", joinSome(texts(networks), len(networks))},
			{"example", c.may(a.label(&a.narrow[0]))},
		},
		Stranger: &c,
	}
}

// notAudited tells of what is too much for an audit, or for its reader.
func (a *auditor) notAudited() {
	if a.more > 0 {
		a.findings = append(a.findings, Finding{
			ID: "policy/more", Severity: Warning,
			Title:  "The relay policy lets more networks send than are told here",
			Text:   fmt.Sprintf("There are %d more findings about its rules.", a.more),
			Remedy: []Step{{Who: you, Do: "Mend what is told, and look at this summary again."}},
		})
	}
	for _, i := range a.unaudited {
		a.findings = append(a.findings, Finding{
			ID: fmt.Sprintf("policy/not-audited/rule-%d", i+1), Severity: Warning,
			Title: fmt.Sprintf("Rule %d of the relay policy has too many combinations to be checked", i+1),
			Text: fmt.Sprintf("Its conditions can be met in more than %d ways, of which only the first were looked "+
				"at.", maxProfiles),
			Remedy: []Step{{Who: you, Do: "Make several rules of it, each with one list of names."}},
		})
	}
}

// closed says that strangers get nothing, where that is so.
func (a *auditor) closed() {
	stranger := func(f Finding) bool { return f.Stranger != nil && f.Severity > Info }
	if len(a.unaudited) > 0 || slices.ContainsFunc(a.findings, stranger) {
		return
	}
	f := Finding{
		ID: "policy/closed", Severity: OK, Title: "Strangers cannot send mail through this server",
		Text:     "By its own rules this server passes on mail for " + a.whoMay() + ". It is no open relay, as far as its rules go.",
		Evidence: []Evidence{{"tried", a.refusedStranger()}},
		Clues: []Clue{{reason.OpenRelay, false, "Your own relay policy gives strangers nothing: an open relay is not the " +
			"cause, by its own rules." + a.exceptions()}},
	}
	if a.itself && len(a.inside)+len(a.narrow) == 0 && !a.logins {
		f.Title = "Only this machine itself can send mail through this server"
	}
	a.findings = append(a.findings, f)
}

// whoMay lists who may relay.
func (a *auditor) whoMay() string {
	var who []string
	for _, w := range []struct {
		may  bool
		what string
	}{
		{a.itself, "programs on this machine"},
		{len(a.inside) > 0, "machines at private addresses"},
		{len(a.narrow) > 0, "machines at the public addresses that the rules name"},
		{a.logins, "people who log in"},
	} {
		if w.may {
			who = append(who, w.what)
		}
	}
	switch n := len(who); n {
	case 0:
		return "nobody"
	case 1:
		return who[0] + ", and for nobody else"
	default:
		return strings.Join(who[:n-1], ", ") + " and " + who[n-1] + ", and for nobody else"
	}
}

// exceptions are what the rules cannot keep out.
func (a *auditor) exceptions() string {
	text := ""
	if a.logins {
		text += " But whoever has a stolen password can send like its owner: look for accounts that send far more than they " +
			"used to."
	}
	if len(a.narrow) > 0 {
		text += " But make sure that the public addresses that the rules name are still yours."
	}
	return text
}

// refusedStranger tells of somebody whom the policy refuses.
func (a *auditor) refusedStranger() string {
	for _, addr := range append(slices.Clone(standIns), internet.minus(notPublic).minus(a.open).example()) {
		c := Client{Addr: addr, HELO: "stranger.example", Sender: "anyone@stranger.example", Recipient: "someone@stranger.example"}
		if action, _ := a.policy.Decide(c); action == Refuse {
			return fmt.Sprintf("%s may not send from anyone to anyone: %s refuses", addr, a.deciding(c))
		}
	}
	return "nobody can connect to where the rules would let them"
}

func texts(networks []netip.Prefix) []string {
	all := make([]string, min(len(networks), maxListed))
	for i := range all {
		all[i] = networks[i].String()
	}
	return all
}
