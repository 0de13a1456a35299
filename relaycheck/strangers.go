package relaycheck

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/sortie-mail/sortie/dsn/reason"
)

// remedyOpen is what to do about a server that relays for strangers. The first step depends on how it does.
var remedyOpen = []Step{
	{Who: you},
	{Who: you, Do: "Let people who send from elsewhere log in, with TLS, instead of trusting where they come from."},
	{Who: you, Do: "Look through the queue for mail that strangers have left there, and delete it before it goes out."},
}

// What is said of open relays, whoever finds them.
const (
	textOpenRelay = "This server passes on mail from anybody to anybody: it is an open relay. " + textSpammers
	textSpammers  = "Spammers look for such servers all the time and find them within days; then their mail goes out in " +
		"your name, and the rest of the world stops taking yours."
	textSpoofed = "The rules trust clients that give %s. But whoever connects can write there what he likes, and nothing " +
		"proves it. To spammers that is an open relay: they try the server's own names first."
)

var linksOpen = []reason.Link{
	{Title: "RFC 2505: how mail servers keep from relaying for strangers", URL: "https://www.rfc-editor.org/rfc/rfc2505"},
}

// vast tells that a large part of the internet may relay, or all of it.
func (a *auditor) vast(f *Finding, g *grant) {
	r := &a.rules[g.rule]
	f.ID = "policy/everyone"
	f.Title = "Anyone on the internet can send mail through this server"
	f.Text = textOpenRelay
	first := "Change " + a.ruleName(g.rule) + ": name the networks of your own machines in it, and nothing wider"
	switch {
	case trusts(r.SenderDomains):
		a.spoofed(f, "sender-domain", r.SenderDomains, senderKey(g.client.Sender), "a sender address at "+domainOf(g.client.Sender))
		first = "Take the trust in sender addresses out of " + a.ruleName(g.rule)
	case trusts(r.HELO):
		a.spoofed(f, "helo", r.HELO, nameKey(g.client.HELO), "the name "+g.client.HELO+" in its greeting")
		first = "Take the trust in names out of " + a.ruleName(g.rule)
	case g.rule == len(a.policy.Rules):
		first = "Make the default of the policy refuse"
	case !g.everywhere && unmapPrefix(g.network).Bits() > 0:
		f.ID = "policy/network/" + g.network.String()
		f.Title = fmt.Sprintf("A large part of the internet (%s) can send mail through this server", g.network)
		f.Text = fmt.Sprintf("This server passes on mail to anybody from whoever is in %s: to all of these it is an open "+
			"relay. %s", g.network, textSpammers)
		fallthrough
	case !g.everywhere:
		first = fmt.Sprintf("Take %s out of %s, and name the networks of your own machines instead", g.network, a.ruleName(g.rule))
		f.spellOut(g.network)
	}
	f.Remedy[0].Do = first + "."
}

// trusts reports whether a condition on names makes a difference.
func trusts(patterns []string) bool { return len(patterns) > 0 && !slices.Contains(patterns, "*") }

// spoofed tells that a rule believes what a client says of itself: a name that one of the patterns covers.
func (a *auditor) spoofed(f *Finding, kind string, patterns []string, name, what string) {
	if name == nullSender {
		what = "the empty sender address"
	}
	for _, p := range patterns {
		if matchName(nameKey(p), name) {
			f.ID = "policy/" + kind + "/" + clean(nameKey(p), maxName)
			break
		}
	}
	f.Title = "Anyone can send mail through this server by giving " + what
	f.Text = fmt.Sprintf(textSpoofed, what)
	f.Evidence[0].Text += "; it need only give " + what
	f.Clues[0].Text = "Your own relay policy lets strangers send: " + f.Evidence[0].Text + ". This is very likely the cause."
}

// spellOut explains a network that does not say what it seems to.
func (f *Finding) spellOut(n netip.Prefix) {
	switch plain := unmapPrefix(n); {
	case plain != n:
		f.Evidence = append(f.Evidence, Evidence{"what the network means", fmt.Sprintf("%s is %s, in the form of "+
			"IPv6", n, plain.Masked())})
	case plain.Masked() != n:
		f.Evidence = append(f.Evidence, Evidence{"what the network means", fmt.Sprintf("%s is all of %s, and not the "+
			"address %s alone", n, n.Masked(), n.Addr())})
	}
}

// straddling tells of a network that begins among private addresses and ends among those of others.
func (a *auditor) straddling(f *Finding, g *grant, public space) {
	f.ID = "policy/network/" + g.network.String()
	f.Title = fmt.Sprintf("The network %s reaches beyond the private addresses: strangers can send mail through this "+
		"server", g.network)
	f.Text = fmt.Sprintf("The network seems meant for private addresses, and is wider than they are. The addresses from %s "+
		"to %s, for instance, "+
		"belong to others on the internet, who can send mail to anyone through this server.", public[0].lo, public[0].hi)
	f.spellOut(g.network)
	f.Remedy[0].Do = fmt.Sprintf("Put the right network in the place of %s in %s. The private networks are 10.0.0.0/8, "+
		"172.16.0.0/12, "+
		"192.168.0.0/16 and fc00::/7.", g.network, a.ruleName(g.rule))
}

// wide tells of public networks that may be somebody's own, and are more than most have.
func (a *auditor) wide(f *Finding, g *grant) {
	f.Severity = Warning
	f.ID = "policy/network/" + g.network.String()
	f.Title = fmt.Sprintf("The network %s is wide: are all of its addresses yours?", g.network)
	f.Text = fmt.Sprintf("Every machine in %s can send mail to anyone through this server. Where some of them are not "+
		"yours, strangers can.", g.network)
	f.spellOut(g.network)
	f.Remedy = []Step{{Who: you, Do: fmt.Sprintf("If not all of %s is yours, name in %s the smaller networks that "+
		"are.", g.network, a.ruleName(g.rule))}}
	f.Clues[0].Text = "Your own relay policy lets a wide network send: " + f.Evidence[0].Text + ". If not all of it is " +
		"yours, this may be the cause."
}

// behindLoopback lessens a finding about rules that strangers cannot get at.
func (f *Finding) behindLoopback(l netip.AddrPort) {
	f.Severity--
	if f.Severity == Serious {
		f.Severity = Warning
	}
	f.Title = "Only its listening address keeps strangers out of this server"
	f.Text = fmt.Sprintf("The server takes connections at %s, where only programs on this machine get to, and so nobody "+
		"else can misuse it. "+
		"But its rules would let strangers send, and do so from the day on which it listens elsewhere or something passes "+
		"connections on to it.", l)
	f.Clues = []Clue{{reason.OpenRelay, false, "Your server takes connections from this machine alone: an open relay is not " +
		"the cause, unless something on this machine passes connections on to it."}}
}

// frontEndFinding tells that everybody comes under an address that is trusted. c is somebody who does, words say so, and by is
// the rule.
func frontEndFinding(front netip.Prefix, c Client, words, by string) Finding {
	return Finding{
		ID: "policy/front-end/" + front.String(), Severity: Warning,
		Title: fmt.Sprintf("Whoever comes through the front end %s can send mail through this server", front),
		Text: "A proxy, a NAT or a container bridge passes connections on to this server from " + front.String() + ", " +
			"and the server sees everybody come from there. The rules trust that address as if it were one of your machines: to " +
			"strangers who come that way, this server is an open relay.",
		Evidence: []Evidence{{"counter-example", words + "; so may everybody who comes through it"}},
		Remedy: append([]Step{{
			Who: you, Do: "Have the front end tell the server who connects (the PROXY protocol, or no address translation " +
				"on the way in), or refuse " + front.String() + " before " + by + " lets it pass.",
		}}, remedyOpen[1:]...),
		Links: slices.Clone(linksOpen),
		Clues: []Clue{{reason.OpenRelay, true, "Your relay policy trusts the address of a front end, through which " +
			"strangers come as well: " + words + ". This is very likely the cause."}},
		Stranger: &c,
	}
}

// login looks at how people log in.
func (a *auditor) login(i int) {
	r := &a.rules[i]
	listeners, local := a.listeners(i)
	encrypted := r.TLS || !slices.ContainsFunc(listeners, func(l Listener) bool { return !l.TLS })
	from := internet
	if len(r.Networks) > 0 {
		from = spaceOf(r.Networks...)
	}
	if from = from.minus(loopback); encrypted || local || len(from) == 0 {
		return
	}
	f := clearLogin(a.ruleName(i) + " (" + clean(r.String(), maxSaid) + ") does not ask for TLS")
	if len(from.minus(notPublic)) == 0 {
		f.Severity = Info
		f.Text = "People on your own networks may log in to this server without encryption. Whoever can listen there learns " +
			"the password."
	}
	a.add(f)
}

// clearLogin tells of logins that anybody can listen to.
func clearLogin(evidence string) Finding {
	return Finding{
		ID: "policy/login-in-the-clear", Severity: Warning,
		Title: "Passwords can cross the network in the clear",
		Text: "People may log in to this server without encryption. Whoever can listen on the way learns the password, and " +
			"can then send mail in their name.",
		Evidence: []Evidence{{"rule", evidence}},
		Remedy: []Step{{Who: you, Do: "Ask for TLS wherever a login lets somebody send, and offer the login only on " +
			"connections that are encrypted."}},
		Links: []reason.Link{{Title: "RFC 8314: mail submission over TLS", URL: "https://www.rfc-editor.org/rfc/rfc8314"}},
	}
}
