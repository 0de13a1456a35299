package relaycheck

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sortie-mail/sortie/dsn/reason"
)

// How often something must happen before it is told: what happens to everybody at times, and what a smarthost should not do
// even a few times.
const (
	many = 10
	few  = 3
	// suspectPlaces is how many providers must be out of reach, and none in reach, before it may be the way out that is blocked;
	// blockedPlaces is how many before it is.
	suspectPlaces = 2
	blockedPlaces = 3
	// long is how long an outage lasts that does not pass by itself in a moment. Mail that waits for it is not tried meanwhile, so
	// that counts say little.
	long = 10 * time.Minute
)

const defaultSmarthost = "smtp://mail.isp.example"

// Findings tells what is known now, the worst first. Ids begin with "refusal/", "unreachable/", "tls/", "route/", "smarthost/" and
// "dns/", and then name the provider, the smarthost or the entry of the routing file. What is over is told for a week, what has
// not been seen again for 30 days. "deliveries/since" is always there: since when anything is known.
func (r *Refusals) Findings() []Finding {
	now := time.Now()
	r.mu.Lock()
	if r.began.IsZero() {
		r.begin(now)
	}
	since := cmp.Or(r.Since, r.began)
	entries := r.told(now)
	r.mu.Unlock()
	findings := []Finding{seenSince(since)}
	blocked := wayOutBlocked(entries, cmp.Or(r.Smarthost, defaultSmarthost))
	if blocked != nil {
		findings = append(findings, *blocked)
	}
	for _, e := range entries {
		if f, ok := e.finding(r.Smarthost); ok && (blocked == nil || !e.noWayOut()) {
			findings = append(findings, f)
		}
	}
	sortFindings(findings)
	return findings
}

// sinceID is the id of the finding that tells since when deliveries were seen. [Summarize] puts it into the head.
const sinceID = "deliveries/since"

func seenSince(t time.Time) Finding {
	return Finding{
		ID: sinceID, Severity: Info, Title: "Deliveries were seen since " + when(t), First: t,
		Text: "What other servers did with this server's mail before that is not remembered here. The log has it.",
	}
}

// told are copies of the entries to tell of, in the order of their names. What is too old is forgotten.
func (r *Refusals) told(now time.Time) (entries []*entry) {
	for _, matters := range r.places {
		for _, e := range matters {
			if now.Sub(e.last) > keepSilent || (!e.ended.IsZero() && now.Sub(e.ended) > keepEnded) {
				r.forget(e)
				continue
			}
			told := *e
			told.domains, told.lasting = maps.Clone(e.domains), now.Sub(e.since())
			told.alone, told.cut = !r.taken.After(e.since()), e.since().After(r.direct)
			entries = append(entries, &told)
		}
	}
	slices.SortFunc(entries, func(a, b *entry) int { return cmp.Compare(a.findingID(), b.findingID()) })
	return entries
}

// finding tells of an entry. ok is false for what is not worth it yet.
func (e *entry) finding(smarthost string) (f Finding, ok bool) {
	if !e.worth() {
		return f, false
	}
	f = Finding{ID: e.findingID(), First: e.first, Last: e.last, Ended: e.ended, Count: e.count}
	if len(e.words) > 0 {
		f.Quote = &Quote{By: e.host, Words: strings.Join(e.words, "\n")}
	}
	if e.detail != "" {
		f.Evidence = append(f.Evidence, Evidence{"what failed", e.detail})
	}
	e.evidence(&f)
	switch {
	case !e.ended.IsZero():
		e.over(&f)
	case e.kind == refused && e.smarthost:
		e.refusedBySmarthost(&f)
	case e.kind == refused:
		e.refused(&f, cmp.Or(smarthost, defaultSmarthost))
	case e.kind == tlsFailed:
		e.tlsFailed(&f)
	case e.kind == unreachable:
		e.unreachable(&f)
	case e.kind == dnsFailed:
		e.dnsFailed(&f)
	default:
		e.routeFailed(&f)
	}
	return f, true
}

// worth reports whether there is enough to tell.
func (e *entry) worth() bool {
	switch e.kind {
	case refused:
		forGood := e.permanent && e.verdict.Matter != reason.MatterMessage
		return e.count >= many || e.aboutUs() || e.trouble || forGood || (e.smarthost && e.count >= few)
	case unreachable:
		return e.count >= many || e.smarthost || (e.count >= few && e.cut)
	case dnsFailed:
		return e.several() || (e.nobody && e.ended.IsZero())
	}
	return true
}

// aboutUs reports whether a refusal is for certain about this server.
func (e *entry) aboutUs() bool {
	return e.verdict.Matter == reason.MatterAddress || e.verdict.Matter == reason.MatterConfig ||
		(e.smarthost && e.verdict.Is(reason.RelayingDenied))
}

// findingID is the id of the finding.
func (e *entry) findingID() string {
	class := string(e.class)
	switch e.kind {
	case refused:
	case unreachable:
		class = "unreachable"
	case tlsFailed:
		class = "tls"
	case loginFailed:
		class = "login"
	case nameFailed:
		class = "name"
	case routeFailed:
		class = "route"
	case dnsFailed:
		class = "dns"
	}
	switch {
	case e.smarthost && e.kind == refused:
		return "smarthost/" + e.name + "/refusal/" + class
	case e.smarthost:
		return "smarthost/" + e.name + "/" + class
	case e.kind == refused:
		return "refusal/" + e.name + "/" + class
	}
	return class + "/" + e.name
}

// who names the place to people: by the recipients' domain where it is one, which they know, and otherwise by its own name.
func (e *entry) who() string {
	switch {
	case e.smarthost:
		return "the smarthost " + e.name
	case e.own:
		return "the " + e.way()
	case len(e.domains) == 1 && !e.more:
		return e.sortedDomains()[0]
	}
	return e.name
}

// subject is who, at the beginning of a sentence. Domains keep their small letters.
func (e *entry) subject() string {
	switch {
	case e.smarthost:
		return "The smarthost " + e.name
	case e.kind == dnsFailed:
		return "DNS"
	case e.own:
		return "The " + e.way()
	}
	return e.who()
}

// way names what sends mail somewhere: an entry of the routing file, or a route that came from elsewhere.
func (e *entry) way() string {
	if e.route == "" {
		return "route " + e.name
	}
	return "entry " + e.route + " of the routing file"
}

func (e *entry) sortedDomains() []string { return slices.Sorted(maps.Keys(e.domains)) }

// hosted explains a place whose name people do not know.
func (e *entry) hosted() string {
	domains := e.sortedDomains()
	switch {
	case e.smarthost || e.own || len(domains) == 0 || (len(domains) == 1 && !e.more && domains[0] == e.name):
		return ""
	case len(domains) == 1 && !e.more:
		return " Its mail servers are those of " + e.name + "."
	case e.more:
		return fmt.Sprintf(" Its mail servers take the mail of %s and others.", strings.Join(domains[:maxListed], ", "))
	}
	return fmt.Sprintf(" Its mail servers take the mail of %s.", joinSome(domains[:min(len(domains), maxListed)], len(domains)))
}

// evidence adds what may help whoever looks into it.
func (e *entry) evidence(f *Finding) {
	if e.id != "" {
		f.Evidence = append(f.Evidence, Evidence{"a message in the queue or the log", e.id})
	}
	if (e.smarthost || e.kind == routeFailed) && e.route != "" {
		f.Evidence = append(f.Evidence, Evidence{"the entry of the routing file", e.route})
	}
	if !e.between.IsZero() {
		f.Evidence = append(f.Evidence, Evidence{"accepted in between", when(e.between)})
	}
}

// fate is what becomes of the mail.
func (e *entry) fate() string {
	switch {
	case e.detour != "":
		return " Its mail goes through " + e.detour + " meanwhile."
	case e.failed != "":
		return " The detour through " + e.failed + " does not work either. The mail stays here, and is tried again until its " +
			"lifetime ends. Then it goes back to its senders."
	case e.permanent && !e.verdict.Blocked():
		return " The mail goes back to its senders."
	}
	return " The mail stays here, and is tried again until its lifetime ends. Then it goes back to its senders."
}

// over tells of what was wrong.
func (e *entry) over(f *Finding) {
	f.Severity = Info
	what := map[kind]string{
		refused: "refused our mail", unreachable: "could not be reached", tlsFailed: "could not be spoken to with encryption",
		loginFailed: "refused our login", nameFailed: "could not be found by its name", routeFailed: "could not be used",
		dnsFailed: "did not answer",
	}[e.kind]
	f.Title = fmt.Sprintf("%s %s until %s", e.subject(), what, when(e.ended))
	f.Text = fmt.Sprintf("That is over: %s has accepted mail again since.%s", e.who(), e.hosted())
	switch {
	case e.left:
		f.Title = e.subject() + " was in trouble until it was left out on " + when(e.ended)
		f.Text = "That is over: the entry of the routing file sends mail another way since."
	case e.kind == dnsFailed:
		f.Text = "That is over: it has led to mail servers again since."
	case e.own:
		f.Text = "That is over: mail has gone its way since."
	}
	if e.detour != "" {
		f.Remedy = []Step{{Who: you, Do: fmt.Sprintf("If the routing file has an entry that sends this mail through %s, "+
			"take it out.", e.detour)}}
	}
}

// refused tells of a provider that refuses our mail.
func (e *entry) refused(f *Finding, smarthost string) {
	v := &e.verdict
	f.Severity, f.Title = Warning, e.who()+" refuses our mail"
	f.Text = e.who() + " does not take mail from this server"
	switch s := says(v); {
	case s != "":
		f.Text += ": it says that this server " + s + "."
	case !e.permanent && !e.aboutUs():
		f.Text += " now, and asks to try later."
	default:
		f.Text += "."
	}
	f.Text += e.hosted() + e.fate()
	f.Links = slices.Clone(v.Links)
	switch {
	case v.Blocked():
		if e.blocked(f, smarthost); !e.later || e.count >= few { // some put off everybody now and then
			f.Severity = Serious
		}
	case v.Admin != "":
		f.Remedy = []Step{{Who: you, Do: v.Admin}}
	default:
		f.Remedy = []Step{{Who: you, Do: fmt.Sprintf("Read the words of %s. If they do not tell what is wrong, ask its "+
			"postmaster, and quote them.", e.who())}}
	}
	if !e.aboutUs() && e.count < many {
		f.Severity = Info
	}
	if !e.aboutUs() && !e.permanent {
		f.Title = e.who() + " puts our mail off again and again"
	}
}

// blocked tells what to do about a refusal of our address.
func (e *entry) blocked(f *Finding, smarthost string) {
	v := &e.verdict
	if v.Admin != "" {
		f.Text += "\n\n" + e.advice()
	}
	f.Possibilities = possibilities(v)
	c := e.detourChange(smarthost)
	switch {
	case e.detour != "":
	case e.failed != "":
		f.Remedy = append(f.Remedy, Step{Who: you, Do: e.mendDetour()})
	case !c.empty():
		why := fmt.Sprintf("Meanwhile, route the mail for %s through your ISP (your internet provider)", e.who())
		f.Remedy = append(f.Remedy, c.steps(why, ispNote(smarthost))...)
	}
	find := "Find out why, and mend it: its words above say what it objects to."
	if len(f.Possibilities) > 0 {
		find = "Find the cause: go through the possibilities in their order, and mend what you find."
	}
	help := "."
	if leads(v) {
		help = ": the links below may help."
	}
	ask := fmt.Sprintf("Then ask %s to take mail from this server again%s Quote its words, and tell the internet address of "+
		"this server.", e.who(), help)
	f.Remedy = append(
		f.Remedy, Step{Who: you, Do: find}, Step{Who: you, Do: ask},
		Step{Who: "the postmaster of " + e.who(), Do: "takes the address of this server off its list, or says what is still " +
			"wrong."},
	)
	switch {
	case e.detour != "":
		f.Remedy = append(f.Remedy, (&change{}).back())
	case e.failed == "" && !c.empty():
		f.Remedy = append(f.Remedy, c.back())
	}
}

// mendDetour is the step where the mail has another way already, which does not work either.
func (e *entry) mendDetour() string {
	entry := "The route"
	if e.route != "" {
		entry = "The entry " + e.route + " of the routing file"
	}
	return fmt.Sprintf("%s has a detour for this mail, through the smarthost %s, and that does not take it either. What is "+
		"said of the smarthost here tells why: mend that first, or give the entry another smarthost.", entry, e.failed)
}
