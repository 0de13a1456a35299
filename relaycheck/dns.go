package relaycheck

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/route"
)

// noAnswer is where mail stops that finds no way because DNS does not tell one.
var noAnswer = place{name: "no-answer", own: true}

// lookupFailed is in what is said of a lookup that brought nothing (and not of a name that does not exist, which is an answer).
const lookupFailed = "could not be looked up"

// Words of package resolve. By some a lookup failed because of the name alone, or because somebody stopped it; by others no server
// was of use, whatever the name.
var (
	namesOwn = []string{"CNAME", "context canceled"}
	nobodys  = []string{"no answer", "over udp", "over tcp", "REFUSED", "does not recurse"}
)

func containsAny(s string, parts []string) bool {
	return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(s, p) })
}

// unanswered is the matter of a lookup that nobody answered. ok is false where an outcome is of another kind.
func unanswered(o *deliver.Outcome) (e entry, ok bool) {
	if o.Stage != deliver.StageRoute || !o.Reply.IsZero() || o.Status != "4.4.3" || containsAny(o.Detail, namesOwn) {
		return e, false
	}
	e = entry{place: noAnswer, matter: matter{kind: dnsFailed}, from: originOf(&o.Route), detail: clean(o.Detail, maxSaid)}
	e.asked = cmp.Or(placeOf(&route.Hop{}, cmp.Or(o.Hop.Host, o.Host)).name, recipientDomain(o))
	e.nobody = containsAny(o.Detail, nobodys)
	return e, true
}

// answered notes what mail shows that a host answered: DNS told where it is, and connections to others come about.
func (r *Refusals) answered(o *deliver.Outcome, failures []entry, at time.Time) {
	if o.Result.Success() && at.After(r.taken) {
		r.taken = at
	}
	here := o.Hop.Kind == route.MX && (o.Result.Success() || (o.Stage != deliver.StageRoute && !o.Reply.IsZero()))
	before := slices.ContainsFunc(o.Tried, func(t deliver.Try) bool { return t.Hop.Kind == route.MX && !t.Reply.IsZero() })
	if (here || before) && at.After(r.direct) {
		r.direct = at
	}
	literal := strings.HasPrefix(domainOf(o.Recipient), "[") // which asks nobody
	if !here || literal || slices.ContainsFunc(failures, func(f entry) bool { return f.place == noAnswer }) {
		return
	}
	if e := r.places[noAnswer][matter{kind: dnsFailed}]; e != nil {
		e.end(at)
	}
}

// several reports whether more than one name got no answer: with one it may be the name's own servers.
func (e *entry) several() bool { return len(e.domains) > 1 || e.more }

// dnsFailed tells of lookups that nobody answers.
func (e *entry) dnsFailed(f *Finding) {
	names := e.sortedDomains()
	listed := joinSome(names[:min(len(names), maxListed)], len(names))
	if e.more {
		listed = strings.Join(names[:maxListed], ", ") + " and others"
	}
	f.Severity, f.Title = Serious, "DNS does not answer"
	f.Text = fmt.Sprintf("Before mail can be sent, a DNS server must tell where it goes. None did for %s, and no mail server "+
		"that DNS leads to has answered since.", listed)
	switch {
	case !e.several():
		f.Severity, f.Title = Warning, "DNS does not answer when asked for "+listed
		f.Text += " It may be the matter of that name alone; if others get no answer either, it is this server's."
	case e.alone:
		f.Severity = Critical
		f.Text += " No mail at all has left this server since then."
	}
	f.Text += e.fate()
	f.Remedy = []Step{
		{Who: you, Do: "Check that the right DNS server is set: it stands in /etc/resolv.conf of this machine, unless the mail " +
			"server was told another one (relayd: -dns). Ask it yourself: dig @SERVER MX example.org."},
		{Who: you, Do: "Check that this machine is on the network, and that no firewall keeps it from port 53 of that server, " +
			"over UDP and TCP."},
		{Who: you, Do: "If both are right, look after the DNS server itself, ask whoever runs it, or name another one."},
	}
}
