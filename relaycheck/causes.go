package relaycheck

import (
	"slices"
	"strings"

	"github.com/sortie-mail/sortie/dsn/reason"
)

// A cause is what a class of refusal means to somebody who runs a server.
type cause struct {
	class reason.Class
	says  string // completes "it says that this server …"
	title string // of the possibility; "" is none to check here
	text  string // what it is, and how to check it
}

// causes are in the order in which to check them: what would do harm to others first, then what only others can mend.
var causes = []cause{
	{
		reason.OpenRelay, "is an open relay", "An open relay",
		"a mail server that passes on mail from anybody to anybody. Check who may send through this server without logging in.",
	},
	{
		reason.OpenProxy, "is an open proxy", "An open proxy",
		"a program that passes on connections of strangers: a web proxy, a tunnel, or malicious software on a PC. It need " +
			"not be this server: look at every machine that shares its internet address, and let none but this server " +
			"connect to port 25 outside.",
	},
	{
		reason.Blocklisted, "is on a list of senders of spam", "A blocklist",
		"a public list of addresses that have sent spam. Look up the address of this server there; the list says why, and " +
			"how to get off it.",
	},
	{
		reason.BadReputation, "has a bad reputation", "Bad reputation",
		"people or filters there took much of the mail from this server's address for spam. Check whether an account or a " +
			"web form here sends mail that nobody asked for, and whether addresses on your lists still want it.",
	},
	{
		reason.ReverseDNS, "has no proper name in reverse DNS", "Reverse DNS",
		"the name that belongs to an internet address, which whoever gave you the address enters. It should be the name of " +
			"this server, and lead back to the address.",
	},
	{
		reason.DynamicAddress, "has a dynamic (residential) address", "A dynamic address",
		"one from the ranges that internet providers give to homes. Many take no mail from these, whatever is in it. If " +
			"this server's address is a fixed one, ask your internet provider to say so (by a reverse DNS name of your " +
			"own); if not, send all mail through the provider's server.",
	},
	{class: reason.RelayingDenied, says: "has no business sending mail for that domain there"},
	{class: reason.RateLimited, says: "sends too much at a time"},
	{class: reason.TooManyConnections, says: "opens too many connections at a time"},
	{class: reason.AuthRequired, says: "must log in first"},
	{class: reason.AuthenticationFailed, says: "may not log in, or could not prove whom its mail is from"},
	{class: reason.TLSRequired, says: "must encrypt its connections"},
	{class: reason.NotCompliant, says: "does not keep to the standards"},
	{class: reason.SenderRefused, says: "sends from an address that is not welcome"},
	{class: reason.Policy, says: "sends what its rules do not allow"},
	{class: reason.Spam, says: "sends spam"},
	{class: reason.Virus, says: "sends a virus"},
	{class: reason.Security, says: "sends what is a danger"},
}

// possibilities are those among the classes of a verdict that can be checked, in the order in which to do it.
func possibilities(v *reason.Verdict) (all []Possibility) {
	for i := range causes {
		if c := &causes[i]; c.title != "" && v.Is(c.class) {
			all = append(all, Possibility{Class: c.class, Title: c.title, Text: c.text})
		}
	}
	return all
}

// says is what a verdict's classes mean, as the end of "it says that this server …"; "" where none is known.
func says(v *reason.Verdict) string {
	var parts []string
	for i := range causes {
		if v.Is(causes[i].class) {
			parts = append(parts, causes[i].says)
		}
	}
	if v.List != "" {
		parts = slices.DeleteFunc(parts, func(p string) bool { return strings.HasPrefix(p, "is on a list") })
		parts = append(parts, "is on the list "+v.List)
	}
	switch n := len(parts); n {
	case 0:
		return ""
	case 1:
		return parts[0]
	case 2:
		return parts[0] + " or " + parts[1]
	default:
		return strings.Join(parts[:n-1], ", ") + ", or " + parts[n-1]
	}
}
