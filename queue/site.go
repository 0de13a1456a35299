package queue

import (
	"context"
	"net/netip"
	"strconv"
	"time"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/shape"
	"github.com/sortie-mail/sortie/dsn/reason"
	"github.com/sortie-mail/sortie/route"
)

// An mxLookup tells a domain's MX hosts. A Deliverer that is one, as [deliver.Deliverer] is, has the mail of domains that share
// their hosts shaped together; of any other each domain is a site of its own.
type mxLookup interface {
	MXHosts(ctx context.Context, domain string) ([]string, error)
}

// siteMemory is how long the site of a lane is not looked up again.
const siteMemory = 5 * time.Minute

// A place is where a group's mail goes first.
type place struct {
	hop      *route.Hop // nil where it goes nowhere
	further  bool       // other hops may be tried where no host of this one can be reached
	allHosts bool       // no hop leads to the recipients' own hosts
}

// placeOf finds where a route leads first.
func placeOf(rt route.Route) (p place) {
	p.allHosts = true
	for i := range rt.Hops {
		h := &rt.Hops[i]
		switch {
		case h.Kind != route.MX && h.Kind != route.Smarthost:
			continue
		case p.hop == nil:
			p.hop = h
		case h.On != route.OnBlocked:
			p.further = true
		}
		p.allHosts = p.allHosts && h.Kind == route.Smarthost
	}
	p.allHosts = p.allHosts && p.hop != nil
	return p
}

// siteOf names the site of a hop.
func (a *attempt) siteOf(hop *route.Hop) string {
	site := ""
	switch {
	case hop.Kind == route.MX:
		site = a.directSite()
	case hop.IsUnix():
		site = shape.Smarthost(hop.User, hop.Host, "")
	default:
		site = shape.Smarthost(hop.User, hop.Host, strconv.Itoa(int(hop.EffectivePort())))
	}
	source := ""
	for _, addr := range []netip.Addr{hop.Source, hop.Source6} {
		switch {
		case !addr.IsValid():
		case source == "":
			source = addr.String()
		default:
			source += "," + addr.String()
		}
	}
	return shape.From(site, source)
}

// directSite names the site of the lane's own hosts. Where DNS does not tell it is the lane's: delivery itself will say what is wrong.
func (a *attempt) directSite() string {
	lane := a.lease.Lane
	if site := a.r.lanes.directSite(lane); site != "" {
		return site
	}
	rules := a.r.gates.shaper.Rules
	lookup, ok := a.r.Deliverer.(mxLookup)
	if !ok {
		return rules.Site([]string{lane})
	}
	hosts, err := lookup.MXHosts(a.ctx, lane)
	if len(hosts) == 0 {
		hosts = []string{lane}
	}
	site := rules.Site(hosts)
	if err == nil {
		a.r.lanes.setDirectSite(lane, site)
	}
	return site
}

// Sites shows how much each site gets, and why: what the [Shaper] of the Runner knows. It is empty before Run is called.
func (r *Runner) Sites() []shape.State {
	r.init()
	return r.gates.shaper.Sites()
}

// room is LeaseRequest.Room: a lane has as much as it has earned, and no more than there is room for at its site. Mail that a site has no
// room for stays where it is and costs nothing, but for three kinds: what is late, so that its sender hears of it; what has a time of its
// own; and what was never tried, of a site that is down, so that its history tells why it waits.
func (r *Runner) room(ask Ask) Grant {
	now := time.Now()
	site, leased := r.lanes.site(&ask)
	at := shape.Room{N: 1}
	if site != "" {
		at = r.gates.shaper.Ask(site, leased)
	}
	lane := r.lanes.standing(ask.Lane)
	proven := lane.proven || at.Proven
	if !proven && (r.crowd.isLarge() || len(r.slots) > r.Concurrency/2) {
		lane.limit = 1
	}
	pressing, tell := r.Schedule.pressing(now, ask.Accepted, new(deliver.DeliverBy))
	switch {
	case ask.Leased >= lane.limit:
		return Grant{}
	case at.N > 0 || pressing || ask.Timed || (at.Down && ask.Attempts == 0):
	case at.Down: // of each lane what is new is looked at
		return Grant{Again: sooner(at.Again, tell)}
	default:
		if at.Again.IsZero() && leased == 0 { // what it waits for is in lanes whose site the queue does not know yet
			at.Again = now.Add(time.Second)
		}
		return Grant{Site: site, Again: sooner(at.Again, tell)}
	}
	if !proven {
		if ok, again := r.crowd.room(lane.hung, now); !ok {
			return Grant{Again: sooner(again, tell)}
		}
	}
	return Grant{N: lane.limit - ask.Leased}
}

// pressing reports whether it is time to tell a sender of a delay, or of the end; and if it is not, when it will be.
func (s *Schedule) pressing(now, accepted time.Time, by *deliver.DeliverBy) (is bool, at time.Time) {
	late, expires := s.lateBy(accepted, by), s.expiresBy(accepted, by)
	if at = sooner(late, expires); now.Before(at) {
		return false, at
	}
	return true, time.Time{}
}

// sooner is the earlier of two times; the zero time is never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

// siteHint is the site to which the queue is to count the lane. Mail with a time of its own is not to stand aside with the others of a
// full site.
func (a *attempt) siteHint() string {
	if !a.lease.Envelope.DeliverBy.Time.IsZero() {
		return ""
	}
	return a.site
}

// news is what the outcomes of a group say about the site of its first hop.
func (g *group) news(outcomes []deliver.Outcome) (n shape.News, words string) {
	for i := range outcomes {
		if one, why := newsOf(&outcomes[i], g.first); one > n {
			n, words = one, why
		}
	}
	return n, words
}

// newsOf is what one outcome says about the site of a hop. Where another hop has decided, it is what that one said last.
func newsOf(o *deliver.Outcome, hop *route.Hop) (n shape.News, words string) {
	if o.Hop == *hop {
		return newsOfWords(o)
	}
	for i := len(o.Tried) - 1; i >= 0; i-- {
		if t := &o.Tried[i]; t.Hop == *hop {
			return newsOfWords(&deliver.Outcome{
				Result: deliver.TempFail, Status: t.Status, Reply: t.Reply, Stage: t.Stage, Detail: t.Err, Reason: t.Reason,
			})
		}
	}
	return shape.Nothing, ""
}

// newsOfWords tells a site's own refusals and silence from what is said about a recipient or a message.
func newsOfWords(o *deliver.Outcome) (n shape.News, words string) {
	switch {
	case o.Shortage: // of this machine
		return shape.Nothing, ""
	case o.Result.Success():
		return shape.Took, ""
	case unreachable(o):
		return shape.Unreachable, wordsOf(o)
	case asksForLess(o):
		return shape.SlowDown, o.Reply.String()
	case o.Stage == deliver.StageRoute:
		return shape.Nothing, ""
	case o.Result == deliver.TempFail && ofDestination(o), o.Reason.Blocked():
		return shape.Refused, wordsOf(o)
	}
	return shape.Answered, ""
}

func wordsOf(o *deliver.Outcome) string {
	if !o.Reply.IsZero() {
		return o.Reply.String()
	}
	return o.Detail
}

// asksForLess reports whether a host takes too much from us at once, or in a time. 421 is its word for "not now, none of you" (RFC 5321,
// section 3.8), unless the words say that it is something else.
func asksForLess(o *deliver.Outcome) bool {
	switch {
	case o.Reason.Is(reason.RateLimited), o.Reason.Is(reason.TooManyConnections):
		return true
	case o.Reply.Code != 421:
		return false
	}
	c := o.Reason.Class()
	return c == reason.Unknown || c == reason.SystemError || c == reason.NetworkError
}
