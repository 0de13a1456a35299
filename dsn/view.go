package dsn

import (
	"slices"
	"strings"
	"time"
)

// How much the part for people tells. The part for programs has the rest.
const (
	maxSubject       = 200 // octets of the original's subject
	maxGroups        = 50
	maxTold          = 100      // recipients of a group
	maxQuoted        = 64 << 10 // octets of all replies quoted
	maxQuotedOfGroup = 4 << 10  // octets of one, whatever the others take
)

// A view is what the templates of the part for people get. What its fields mean is written down in templates/en.txt.
type view struct {
	Host, To, Subject                             string
	Accepted                                      time.Time
	Returned                                      string
	Failed, Delayed, Delivered, Relayed, Expanded bool
	Groups                                        []*group
	More                                          int
}

// A group are recipients of whom the same is told.
type group struct {
	Failed, Delayed, Delivered, Relayed, Expanded bool
	Recipients                                    []recipientView
	More                                          int
	Host                                          string
	Said                                          []string
	Detail, Advice                                string
	GaveUp                                        bool
	Tried                                         span
	LastTried, RetryUntil                         time.Time
	Smarthost                                     string

	status Status
}

type recipientView struct{ Address, Original string }

// A span is a time in words.
type span struct {
	Count int
	Unit  string
}

func newView(d *draft) *view {
	v := &view{Host: d.host, To: neutral(d.To), Subject: clip(d.subject, maxSubject), Accepted: d.Arrival.UTC()}
	switch {
	case len(d.original) == 0:
	case d.headersOnly:
		v.Returned = "header"
	default:
		v.Returned = "message"
	}
	groups := make(map[string]*group)
	for _, r := range byAction(d.Recipients) {
		v.note(r.Action)
		said := quote(r)
		key := groupKey(r, said)
		g := groups[key]
		switch {
		case g == nil && len(groups) == maxGroups:
			v.More++
			continue
		case g == nil:
			g = newGroup(r, said, d.Arrival)
			groups[key], v.Groups = g, append(v.Groups, g)
		}
		g.add(r)
	}
	for _, g := range v.Groups {
		g.boundSaid(max(maxQuotedOfGroup, maxQuoted/len(v.Groups)))
	}
	return v
}

// note marks that there is a recipient of a kind.
func (v *view) note(a Action) {
	switch a {
	case Failed:
		v.Failed = true
	case Delayed:
		v.Delayed = true
	case Delivered:
		v.Delivered = true
	case Relayed:
		v.Relayed = true
	case Expanded:
		v.Expanded = true
	}
}

// byAction is the recipients with those first who need something done.
func byAction(recipients []Recipient) []*Recipient {
	order := []Action{Failed, Delayed, Delivered, Relayed, Expanded}
	sorted := make([]*Recipient, len(recipients))
	for i := range recipients {
		sorted[i] = &recipients[i]
	}
	slices.SortStableFunc(sorted, func(a, b *Recipient) int { return slices.Index(order, a.Action) - slices.Index(order, b.Action) })
	return sorted
}

// groupKey is equal for recipients of whom the same is told.
func groupKey(r *Recipient, said string) string {
	if r.Action != Failed && r.Action != Delayed {
		return string(r.Action)
	}
	return strings.Join([]string{
		string(r.Action), string(r.Status), r.RemoteMTA, r.RemoteAddr, said, r.Detail, r.Advice, r.Smarthost,
		r.RetryUntil.UTC().String(),
	}, "\x00")
}

// quote is the reply of the remote server, "" where there is none.
func quote(r *Recipient) string {
	if !isReply(r.Diagnostic) {
		return ""
	}
	return clipReply(r.Diagnostic, maxDiagnostic).Wire()
}

func newGroup(r *Recipient, said string, accepted time.Time) *group {
	g := &group{
		Failed: r.Action == Failed, Delayed: r.Action == Delayed, Delivered: r.Action == Delivered,
		Relayed: r.Action == Relayed, Expanded: r.Action == Expanded,
		Detail: strings.TrimSpace(clip(neutral(r.Detail), maxDetail)), Advice: strings.TrimSpace(clip(neutral(r.Advice), maxDetail)),
		Host: serverName(r), Smarthost: clip(smarthost(r), maxToken), RetryUntil: r.RetryUntil.UTC(), LastTried: r.LastAttempt.UTC(),
		status: statusFor(r),
	}
	g.GaveUp = g.Failed && (g.status.Class() == 4 || g.Is("x.4.7"))
	if !accepted.IsZero() && !r.LastAttempt.IsZero() {
		g.Tried = spanOf(r.LastAttempt.Sub(accepted))
	}
	if said != "" {
		g.Said = strings.Split(said, "\n")
	}
	return g
}

func (g *group) add(r *Recipient) {
	if len(g.Recipients) == maxTold {
		g.More++
		return
	}
	one := recipientView{Address: clip(neutral(r.Final.Addr), maxToken)}
	if r.Original.Addr != "" && !strings.EqualFold(r.Original.Addr, r.Final.Addr) {
		one.Original = clip(neutral(r.Original.Addr), maxToken)
	}
	g.Recipients = append(g.Recipients, one)
}

// boundSaid cuts a quoted reply that would take too much of the text.
func (g *group) boundSaid(most int) {
	for i, line := range g.Said {
		if most -= len(line); most < 0 {
			g.Said = append(g.Said[:i], strings.TrimSpace(cutMark))
			return
		}
	}
}

// serverName is a remote server for people.
func serverName(r *Recipient) string {
	name, addr := clip(hostText(r.RemoteMTA), maxToken), clip(hostText(r.RemoteAddr), maxToken)
	if addr == "" {
		return name
	}
	return strings.TrimSpace(name + " [" + addr + "]")
}

// Is reports whether the status is one of those named, in which x stands for any number.
func (g *group) Is(statuses ...string) bool {
	have := strings.Split(string(g.status), ".")
	for _, s := range statuses {
		want := strings.Split(s, ".")
		if slices.EqualFunc(want, have, func(w, h string) bool { return w == "x" || w == h }) {
			return true
		}
	}
	return false
}

// spanOf is the largest unit of which a time has at least two, or a minute.
func spanOf(d time.Duration) span {
	const day = 24 * time.Hour
	switch {
	case d >= 2*day:
		return span{int(d.Round(day) / day), "day"}
	case d >= 2*time.Hour:
		return span{int(d.Round(time.Hour) / time.Hour), "hour"}
	case d >= time.Minute:
		return span{int(d.Round(time.Minute) / time.Minute), "minute"}
	}
	return span{}
}
