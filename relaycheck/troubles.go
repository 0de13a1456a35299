package relaycheck

import (
	"fmt"
	"slices"
	"strings"
)

// refusedBySmarthost tells of a smarthost that refuses what we send through it.
func (e *entry) refusedBySmarthost(f *Finding) {
	v := &e.verdict
	f.Severity, f.Title = Serious, e.subject()+" refuses our mail"
	f.Text = fmt.Sprintf("The routing file sends mail through another mail server, the smarthost %s, which does not take "+
		"it.", e.name)
	if s := says(v); s != "" {
		f.Text = fmt.Sprintf("The routing file sends mail through another mail server, the smarthost %s, which does not "+
			"take it: it says that this server %s.", e.name, s)
	}
	f.Text += e.fate()
	if v.Admin != "" {
		f.Text += "\n\n" + e.advice()
	}
	f.Possibilities = possibilities(v)
	f.Links = slices.Clone(v.Links)
	switch {
	case e.aboutUs() || e.trouble:
	case e.count < many:
		f.Severity = Info
	default:
		f.Severity = Warning
	}
	f.Remedy = []Step{
		{Who: you, Do: fmt.Sprintf("Ask whoever runs %s, and quote its words. It may want a login, or another sender "+
			"address.", e.name)},
		{Who: you, Do: "Until that is settled, give the entry of the routing file another smarthost, or direct."},
	}
}

// routeFailed tells of a smarthost that cannot be used as the routing file says.
func (e *entry) routeFailed(f *Finding) {
	f.Severity = Serious
	stays := fmt.Sprintf(" All mail that the routing file sends through %s stays here, and is tried again until its "+
		"lifetime ends. Then it goes back to its senders.", e.name)
	switch {
	case e.detour != "":
		stays = e.fate()
	case !e.smarthost:
		stays = " All mail that takes this way stays here, and is tried again until its lifetime ends. Then it goes back to its senders."
	}
	switch e.kind {
	case loginFailed:
		f.Title = e.subject() + " refuses our login"
		f.Text = fmt.Sprintf("The routing file sends mail through another mail server, the smarthost %s, and logs in "+
			"there. It does not let us in.", e.name) + stays
		f.Remedy = []Step{
			{Who: you, Do: fmt.Sprintf("Check the user and the password with which the routing file logs in at %s: has the "+
				"password been changed, "+
				"or is the account closed?", e.name)},
			{Who: "whoever runs " + e.name, Do: "can tell why the login is refused."},
		}
	case nameFailed:
		answer := "gives no address for that name"
		if strings.Contains(e.detail, lookupFailed) {
			answer = "does not answer when asked for it"
		}
		f.Title = e.subject() + " cannot be found by its name"
		f.Text = fmt.Sprintf("The routing file sends mail through another mail server, the smarthost %s, and DNS %s.",
			e.name, answer) + stays
		f.Remedy = []Step{
			{Who: you, Do: "Check how the name " + e.name + " is written in the routing file. If it is right, check that " +
				"this server's DNS works, and ask whoever runs the smarthost for its name of today."},
		}
	default:
		f.Title = e.subject() + " cannot be used as the routing file says"
		change := "Change the entry of the routing file for " + e.who() + ": what failed says how."
		switch {
		case e.own:
			f.Title = e.subject() + " cannot be used as it stands"
			change = "Change " + e.who() + ": what failed says how."
		case !e.smarthost:
			f.Title = "Mail for " + e.who() + " cannot be sent as the routing file says"
		}
		f.Text = "The routing file asks for something that does not work." + stays
		f.Remedy = []Step{{Who: you, Do: change}}
	}
}

// tlsFailed tells of encryption that did not come about.
func (e *entry) tlsFailed(f *Finding) {
	if e.clear {
		f.Severity, f.Title = Info, "Mail to "+e.who()+" goes unencrypted, though it offers encryption"
		f.Text = fmt.Sprintf("Encryption with %s was tried and failed. The mail went without, as it does with whoever "+
			"offers none: on its way it can "+
			"be read.%s", e.who(), e.hosted())
		f.Remedy = []Step{{Who: "the postmaster of " + e.who(), Do: "can mend the encryption. Tell what failed."}}
		return
	}
	f.Severity, f.Title = Warning, "Mail to "+e.who()+" cannot be encrypted, and stays here"
	f.Text = fmt.Sprintf("The routing file asks for an encrypted connection with %s, and none comes "+
		"about.%s%s", e.who(), e.hosted(), e.fate())
	if e.smarthost {
		f.Severity = Serious
	}
	f.Remedy = []Step{
		{Who: "whoever runs " + e.name, Do: "can mend the encryption, or the certificate. Tell what failed."},
		{Who: you, Do: "If the mail may go with less protection, change tls= in the entry of the routing file: tls=required " +
			"takes any certificate."},
	}
}

// unreachable tells of a place that cannot be spoken to.
func (e *entry) unreachable(f *Finding) {
	f.Severity, f.Title = Warning, e.subject()+" cannot be reached"
	if e.smarthost {
		e.unreachableSmarthost(f)
		return
	}
	if e.detour != "" {
		f.Severity = Info
	}
	f.Text = fmt.Sprintf("Again and again no connection with %s comes about, or it breaks off.%s%s", e.who(), e.hosted(), e.fate())
	f.Remedy = []Step{
		{Who: you, Do: fmt.Sprintf("Wait, if others can be reached: most likely the servers of %s are down, and the mail "+
			"goes out when they are back.", e.who())},
		{Who: you, Do: fmt.Sprintf("If it lasts for more than a day, call somebody at %s. Perhaps it keeps this server's "+
			"address out.", e.who())},
	}
}

// unreachableSmarthost tells of it at once: somebody chose the smarthost, and all that mail depends on it.
func (e *entry) unreachableSmarthost(f *Finding) {
	if e.count >= few || e.lasting >= long {
		f.Severity = Serious
	}
	f.Text = fmt.Sprintf("The routing file sends mail through another mail server, the smarthost %s. No connection with it "+
		"comes about, or it breaks off.%s", e.name, e.fate())
	if e.detour == "" {
		f.Text += " While that lasts a message now and then tries it and the others wait: how many times it failed says little."
	}
	f.Remedy = []Step{{Who: you, Do: fmt.Sprintf("Check that %s is up and that a firewall lets this server connect to it. "+
		"Meanwhile, give the entry of the routing file another smarthost, or direct.", e.name)}}
}

// noWayOut reports whether a place could not be reached while nobody else was, and its mail has no other way. One that could not be reached before has reasons
// of its own.
func (e *entry) noWayOut() bool {
	return e.kind == unreachable && !e.smarthost && e.connect && e.ended.IsZero() && e.cut && e.detour == ""
}

// wayOutBlocked tells that nobody can be reached, which is not everybody's fault at once.
func wayOutBlocked(entries []*entry, smarthost string) *Finding {
	entries = slices.DeleteFunc(slices.Clone(entries), func(e *entry) bool { return !e.noWayOut() })
	if len(entries) < suspectPlaces {
		return nil
	}
	f := &Finding{
		ID: "unreachable/port-25", Severity: Warning, Title: "This server reaches no mail server on the internet",
		Text: "Connections to the mail servers of several providers do not come about, and none has since. Most likely " +
			"something on the way out stops them: many internet providers and hosting companies block port 25, by which " +
			"mail servers speak to each other. The mail stays here, and is tried again until its lifetime ends. Then it goes " +
			"back to its senders.",
		First: entries[0].since(),
	}
	often, lasts := 0, false
	for i, e := range entries {
		f.Count += e.count
		if e.since().Before(f.First) {
			f.First = e.since()
		}
		if e.last.After(f.Last) {
			f.Last = e.last
		}
		if e.count >= few {
			often++
		}
		if lasts = lasts || e.lasting >= long; i < maxListed {
			f.Evidence = append(f.Evidence, Evidence{e.name, e.detail})
		}
	}
	switch {
	case len(entries) >= blockedPlaces && (lasts || often >= blockedPlaces):
		f.Severity = Critical
	case len(entries) >= blockedPlaces || lasts || often >= suspectPlaces:
		f.Severity = Serious
	default:
		f.Text += " It may still be chance, and those servers be down."
	}
	f.Remedy = wayOutSteps(entries, smarthost)
	return f
}

// wayOutSteps are what to do where nobody can be reached.
func wayOutSteps(entries []*entry, smarthost string) []Step {
	const why = "Until then, send all mail through its mail server"
	steps := []Step{
		{Who: you, Do: "Check that this server is on the internet at all, and that no firewall of yours stops " +
			"connections to port 25 outside."},
		{Who: you, Do: "Ask your internet provider or hosting company whether it blocks port 25, and to open it for " +
			"this server's address."},
	}
	c := &change{}
	for _, e := range entries {
		if e.from.pattern == "*" {
			c.set("*", smarthost, e.from)
			return append(steps, c.steps(why, ispNote(smarthost))...)
		}
	}
	return append(steps, Step{
		Who: you, Do: why + ": make this the entry for * in the routing file." + ispNote(smarthost), Lines: []string{"* " + smarthost},
	})
}
