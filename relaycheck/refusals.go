package relaycheck

import (
	"cmp"
	"encoding/base64"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/dsn/reason"
	"github.com/sortie-mail/sortie/route"
)

// Refusals remembers who takes no mail from this server, and in which words, as it happens. Set its Observe as the Outcome of a
// [deliver.Trace]. The zero value works, and is safe for concurrent use once its fields are set.
//
// It remembers what concerns the server (its address, its set-up, its smarthosts), and nothing of mailboxes that are full or
// unknown. What it remembers is bounded, whatever others say and however many they are.
type Refusals struct {
	// Smarthost is the way out that the findings offer for mail that is refused, as hops of a routing file; "" is
	// smtp://mail.isp.example, to be replaced by the reader.
	Smarthost string
	// Entries is how many matters are remembered, one for each provider and class of refusal; 0 is 1,000. When there are more,
	// what is over is forgotten first, and then what was seen longest ago.
	Entries int
	// Since is when it begins to take note, which summaries tell: what was before is not known. Set it where the program
	// starts; the zero value is the first call of Observe or Findings.
	Since time.Time

	mu     sync.Mutex // guards what follows
	began  time.Time  // where Since does not say
	places map[place]map[matter]*entry
	count  int       // of entries
	direct time.Time // when a host last answered without a smarthost
	taken  time.Time // when mail was last taken
}

// Bounds on what is remembered.
const (
	defaultEntries = 1000
	maxDomains     = 10 // recipient domains of an entry
)

// How long what is over, and what was not seen again, is told of.
const (
	keepEnded  = 7 * 24 * time.Hour
	keepSilent = 30 * 24 * time.Hour
	// sameStreak is how soon a refusal after a success belongs to those before it.
	sameStreak = 24 * time.Hour
)

// A place is who takes mail, or does not: a provider, by the registered domain of its hosts, or a smarthost. Own ones are of this
// server itself, and where mail stops before anybody is asked: an entry of the routing file, by its pattern.
type place struct {
	name      string
	smarthost bool
	own       bool
}

// A matter is what is wrong there.
type matter struct {
	kind  kind
	class reason.Class // of a refusal
}

type kind uint8

const (
	refused     kind = iota // it said no
	unreachable             // it could not be spoken to, or broke off
	tlsFailed               // encryption did not come about
	loginFailed             // the smarthost does not let us in
	nameFailed              // the smarthost's name leads nowhere
	routeFailed             // the route is wrong in another way
	dnsFailed               // nobody tells where it is
)

// An entry is one matter at one place.
type entry struct {
	place
	matter
	first, last, ended time.Time
	between, again     time.Time // when it was over for a while, and when that ended
	count              int

	verdict   reason.Verdict
	host      string   // who said it last
	words     []string // what it said
	detail    string   // what failed, in our words
	permanent bool     // the mail came back
	trouble   bool     // the route itself is at fault
	later     bool     // its words ask to try later
	clear     bool     // the mail went all the same, without encryption
	id        string   // of a message
	route     string   // the entry of the routing file that led there

	from    origin            // of the mail
	domains map[string]origin // of recipients, with what led their mail here last
	more    bool              // there were more than are kept
	below   bool              // hosts are below the place's name
	at      bool              // a host has the place's name itself
	detour  string            // the smarthost that the mail goes through instead
	failed  string            // the smarthost that the mail should go through instead, and does not
	connect bool              // it did not even come to a connection
	asked   string            // the name that DNS does not tell of
	nobody  bool              // no DNS server was of use
	left    bool              // it was over because the mail takes another way

	// Of what is told:
	lasting time.Duration // since it began, or began again
	alone   bool          // no mail has been taken since
	cut     bool          // no host has answered without a smarthost since
}

// Observe takes note of an outcome. It has the shape of [deliver.Trace]'s Outcome.
func (r *Refusals) Observe(m *deliver.Message, o deliver.Outcome) {
	at := o.End
	if at.IsZero() {
		at = time.Now()
	}
	id := ""
	if m != nil {
		id = clean(m.ID, maxName)
	}
	failures := failuresOf(&o)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begin(at)
	for i := range failures {
		failures[i].id = id
		r.note(&failures[i], cmp.Or(failures[i].asked, recipientDomain(&o)), at)
	}
	r.answered(&o, failures, at)
	if o.Result.Success() && (o.Hop.Kind == route.MX || o.Hop.Kind == route.Smarthost) {
		r.success(&o, at)
		r.works(&o, failures, at)
	}
}

// begin notes when the first thing was seen, with mu held.
func (r *Refusals) begin(at time.Time) {
	if r.began.IsZero() || at.Before(r.began) {
		r.began = at
	}
}

// note adds a failure to what is known of its matter. Attempts run side by side: what is told late of an earlier time counts,
// and changes nothing else.
func (r *Refusals) note(f *entry, domain string, at time.Time) {
	e := r.places[f.place][f.matter]
	switch {
	case e == nil:
		e = r.room(f.place, f.matter)
		e.first = at
	case at.Before(e.last) || at.Before(e.ended):
		e.count++
		return
	case !e.ended.IsZero():
		e.reopen(at)
	}
	old := *e
	*e = *f
	e.first, e.last, e.between, e.again, e.count = old.first, at, old.between, old.again, old.count+1
	e.domains, e.more, e.below, e.at = old.domains, old.more, old.below || f.below, old.at || f.at
	e.addDomain(domain)
}

// reopen goes on with what was over.
func (e *entry) reopen(at time.Time) {
	e.between, e.again = e.ended, at
	if e.kind == dnsFailed { // that several names got no answer says something where none did in between
		e.domains, e.more = map[string]origin{}, false
	}
	if at.Sub(e.ended) > sameStreak {
		e.first, e.count, e.between = at, 0, time.Time{}
	}
	e.ended = time.Time{}
}

// end notes that it is over, unless it was seen again since.
func (e *entry) end(at time.Time) {
	if e.ended.IsZero() && !at.Before(e.last) {
		e.ended = at
	}
}

// since is when it began, or began again after it was over.
func (e *entry) since() time.Time {
	if e.again.IsZero() {
		return e.first
	}
	return e.again
}

func (e *entry) addDomain(domain string) {
	switch {
	case domain == "":
	case !e.has(domain) && len(e.domains) >= maxDomains:
		e.more = true
	default:
		e.domains[domain] = e.from
	}
}

// has reports whether a recipient domain is among those that are kept.
func (e *entry) has(domain string) bool {
	_, ok := e.domains[domain]
	return ok
}

// room makes a new entry, and forgets another where there are too many.
func (r *Refusals) room(p place, m matter) *entry {
	limit := cmp.Or(max(r.Entries, 0), defaultEntries)
	for r.count >= limit {
		r.forget(r.oldest())
	}
	if r.places == nil {
		r.places = map[place]map[matter]*entry{}
	}
	if r.places[p] == nil {
		r.places[p] = map[matter]*entry{}
	}
	e := &entry{place: p, matter: m, domains: map[string]origin{}}
	r.places[p][m] = e
	r.count++
	return e
}

func (r *Refusals) forget(e *entry) {
	delete(r.places[e.place], e.matter)
	if len(r.places[e.place]) == 0 {
		delete(r.places, e.place)
	}
	r.count--
}

// oldest is the entry that matters least: one that is over before others, then the one that was seen longest ago.
func (r *Refusals) oldest() (oldest *entry) {
	for _, matters := range r.places {
		for _, e := range matters {
			if oldest == nil || e.lesser(oldest) {
				oldest = e
			}
		}
	}
	return oldest
}

func (e *entry) lesser(f *entry) bool {
	if over := !e.ended.IsZero(); over == f.ended.IsZero() {
		return over
	}
	return e.last.Before(f.last)
}

// success notes that a place has taken mail: what was wrong there is over, as far as this shows it.
func (r *Refusals) success(o *deliver.Outcome, at time.Time) {
	p := placeOf(&o.Hop, o.Host)
	for _, e := range r.places[p] {
		if e.kind != tlsFailed || o.TLS.Version != "" {
			e.end(at)
		}
	}
	if domain := recipientDomain(o); domain != "" && p.smarthost {
		r.detour(domain, p.name)
	}
}

// works ends the trouble of entries of the routing file, when mail takes another hop than the one that could not be used; and that
// of smarthosts, when their entry leads to others.
func (r *Refusals) works(o *deliver.Outcome, failures []entry, at time.Time) {
	here, domain := placeOfEntry(o), recipientDomain(o)
	for p, matters := range r.places {
		if slices.ContainsFunc(failures, func(f entry) bool { return f.place == p }) {
			continue
		}
		for _, e := range matters {
			same := o.Route.Pattern != "" && o.Route.Pattern == e.from.pattern
			switch {
			case p.own && e.kind == routeFailed && ((p == here && same) || e.has(domain)):
				e.end(at)
			case p.smarthost && same && e.ended.IsZero() && leaves(&o.Route, p):
				e.end(at)
				e.left = !e.ended.IsZero()
			}
		}
	}
}

// leaves reports whether a route does not lead to a smarthost.
func leaves(r *route.Route, p place) bool {
	return len(r.Hops) > 0 && !slices.ContainsFunc(r.Hops, func(h route.Hop) bool { return placeOf(&h, "") == p })
}

// detour notes that mail for a domain goes through a smarthost.
func (r *Refusals) detour(domain, smarthost string) {
	for p, matters := range r.places {
		for _, e := range matters {
			if !p.smarthost && (e.kind == refused || e.kind == unreachable) && e.ended.IsZero() && e.has(domain) {
				e.detour = smarthost
			}
		}
	}
}

// failuresOf are the matters that an outcome tells of, each once: how it ended, and how hops before it did.
func failuresOf(o *deliver.Outcome) []entry {
	var all []entry
	add := func(o *deliver.Outcome, e entry) {
		known := func(e *entry) bool {
			return slices.ContainsFunc(all, func(f entry) bool { return f.place == e.place && f.matter == e.matter })
		}
		if e.of(o) && !known(&e) {
			all = append(all, e)
		}
		if e, ok := unanswered(o); ok && !known(&e) {
			all = append(all, e)
		}
	}
	if o.Result == deliver.TempFail || o.Result == deliver.PermFail {
		add(o, entry{permanent: o.Result == deliver.PermFail})
	}
	for i := range o.Tried {
		t := &o.Tried[i]
		inClear := t.Stage == deliver.StageTLS && o.Result.Success() && o.TLS.Version == ""
		login := t.Stage == deliver.StageAuth && o.RouteTrouble
		if t.Hop == o.Hop && !inClear && !login {
			continue // how the hop ended says more
		}
		if !t.Reply.IsZero() && len(t.Reason.Classes) == 0 && t.Stage != deliver.StageTLS && t.Stage != deliver.StageAuth {
			continue // another host of the same hop had the last word
		}
		e := entry{clear: inClear}
		if o.Hop.Kind == route.Smarthost && t.Hop.Kind == route.MX {
			if o.Result.Success() {
				e.detour = placeOf(&o.Hop, o.Host).name
			} else if len(all) > 0 && all[0].smarthost {
				e.failed = all[0].name
			}
		}
		failed := deliver.Outcome{
			Result: deliver.TempFail, Route: o.Route, Hop: t.Hop, Host: t.Host, Addr: t.Addr, Stage: t.Stage,
			Reply: t.Reply, Reason: t.Reason, RouteTrouble: troubleOf(t),
		}
		if t.Reply.IsZero() {
			failed.Detail = t.Err
		}
		if strings.Contains(t.Err, lookupFailed) {
			failed.Status = "4.4.3"
		}
		add(&failed, e)
	}
	return all
}

// troubleOf reports whether a try shows that its route is at fault: a smarthost's name, or what the hop asks for, which keeps it
// from every host.
func troubleOf(t *deliver.Try) bool {
	if t.Stage == deliver.StageRoute {
		return t.Hop.Kind == route.Smarthost
	}
	return t.Host == "" && t.Reply.IsZero()
}

// of fills in an entry from a failure, and reports whether it concerns this server.
func (e *entry) of(o *deliver.Outcome) bool {
	if o.Hop.Kind != route.MX && o.Hop.Kind != route.Smarthost && !o.RouteTrouble {
		return false
	}
	e.place, e.trouble = placeOf(&o.Hop, o.Host), o.RouteTrouble
	var concerns bool
	if e.kind, concerns = kindOf(o); !concerns {
		return false
	}
	switch {
	case e.name != "":
	case !o.RouteTrouble:
		return false
	default: // it came to no host
		e.place = placeOfEntry(o)
	}
	if e.kind == refused {
		e.class = o.Reason.Class()
	}
	e.from = originOf(&o.Route)
	if o.Route.Pattern != "" {
		e.route = clean(o.Route.Where(), maxSaid)
	}
	e.verdict = o.Reason
	e.verdict.List = clean(e.verdict.List, maxName)
	e.connect, e.later = o.Stage == deliver.StageConnect, o.Reply.Temporary()
	host := nameKey(o.Host)
	e.at, e.below = host == e.name, strings.HasSuffix(host, "."+e.name)
	e.host = clean(host, maxName)
	if o.Addr.IsValid() {
		e.host += " [" + o.Addr.Addr().String() + "]"
	}
	e.words, e.detail = wordsOf(o), clean(redact(o, o.Detail), maxSaid)
	return true
}

// kindOf is what went wrong, and whether it concerns this server.
func kindOf(o *deliver.Outcome) (kind, bool) {
	smarthost := o.Hop.Kind == route.Smarthost
	switch {
	case smarthost && o.Stage == deliver.StageAuth:
		return loginFailed, true
	case smarthost && o.Stage == deliver.StageRoute && !strings.Contains(o.Detail, "source="): // which is our own address
		return nameFailed, o.RouteTrouble
	case o.RouteTrouble && o.Reply.IsZero():
		return routeFailed, true
	case o.Stage == deliver.StageRoute: // what DNS says of a recipient's domain is that domain's matter
		return 0, false
	case o.Stage == deliver.StageTLS:
		return tlsFailed, true
	case o.Reply.IsZero():
		return unreachable, true
	}
	return refused, o.RouteTrouble || ours(o)
}

// ours reports whether a refusal may be about this server and not about one mailbox, sender or message. A smarthost that does
// not take mail for a domain is ours too, and a provider that puts everything off may be.
func ours(o *deliver.Outcome) bool {
	v := &o.Reason
	if v.Is(reason.Greylisted) || v.Retry == reason.RetrySoon { // which is how every stranger is greeted there
		return false
	}
	switch v.Matter {
	case reason.MatterMailbox, reason.MatterSender:
		return false
	case reason.MatterDomain:
		return o.Hop.Kind == route.Smarthost || o.Result == deliver.TempFail
	case reason.MatterMessage:
		return v.Is(reason.Spam) || v.Is(reason.Virus)
	}
	return true
}

// placeOf is who a hop leads to, by the host that was spoken to.
func placeOf(hop *route.Hop, host string) place {
	if hop.Kind == route.Smarthost {
		name := hop.Host
		if hop.Port != 0 {
			name = net.JoinHostPort(name, strconv.Itoa(int(hop.Port)))
		}
		return place{name: clean(name, maxName), smarthost: true}
	}
	host = nameKey(host)
	if _, err := netip.ParseAddr(host); err != nil && !strings.HasPrefix(host, "[") { // an address belongs to nobody's domain
		if site, err := publicsuffix.EffectiveTLDPlusOne(host); err == nil {
			host = site
		}
	}
	return place{name: clean(host, maxName)}
}

// placeOfEntry is the entry of the routing file that led to an outcome, and where there is none the hop.
func placeOfEntry(o *deliver.Outcome) place {
	return place{name: clean(cmp.Or(o.Route.Pattern, o.Hop.Kind.String()), maxName), own: true}
}

func recipientDomain(o *deliver.Outcome) string {
	if !strings.Contains(o.Recipient, "@") {
		return ""
	}
	return clean(nameKey(domainOf(o.Recipient)), maxName)
}

// wordsOf is a reply as it stood in the session, line by line.
func wordsOf(o *deliver.Outcome) []string {
	if o.Reply.IsZero() {
		return nil
	}
	var lines []string
	left := maxWords
	for line := range strings.SplitSeq(redact(o, o.Reply.Wire()), "\n") {
		if left <= 0 {
			break
		}
		line = clean(line, left)
		left -= len(line) + 1
		lines = append(lines, line)
	}
	return lines
}

// minSecret is the shortest secret that is looked for in texts: a shorter one is found in everything.
const minSecret = 4

// redact takes a hop's credentials out of a text, in the forms in which a host has seen them and may say them again
// (RFC 4616 and LOGIN).
func redact(o *deliver.Outcome, text string) string {
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	user, secret := o.Hop.User, o.Hop.Secret.Value()
	var hidden []string
	if len(secret) >= minSecret {
		hidden = append(hidden, b64("\x00"+user+"\x00"+secret), b64(secret), secret)
	}
	if len(user) >= minSecret && o.Stage == deliver.StageAuth {
		hidden = append(hidden, b64(user), user)
	}
	for _, h := range hidden {
		text = strings.ReplaceAll(text, h, "***")
	}
	return text
}
