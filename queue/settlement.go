package queue

import (
	"slices"
	"time"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/shape"
	"github.com/sortie-mail/sortie/dsn/reason"
)

// A fate is what follows for one recipient from an attempt.
type fate uint8

const (
	waits    fate = iota // it is tried again; the zero value, so that what is unknown is never lost
	done                 // it has arrived, or the route discards it
	fails                // it will not arrive, and its sender is told
	lost                 // it will not arrive, and nobody is to be told: nothing goes to the null sender (RFC 5321, section 6.1)
	heldBack             // the route holds it
	untold               // it will not arrive, and the report that would tell its sender cannot be written: it stays

	numFates
)

// decideFates decides what follows from the outcomes.
func (a *attempt) decideFates(now time.Time) []fate {
	expired := !now.Before(a.expires())
	fates := make([]fate, len(a.outcomes))
	for i := range a.outcomes {
		switch o := &a.outcomes[i]; {
		case a.uncounted(i):
			fates[i] = waits
		case o.Result.Success() || o.Result == deliver.Discarded:
			fates[i] = done
		case o.Result == deliver.Held:
			fates[i] = heldBack
		case !expired && (o.Result == deliver.TempFail || a.blocked(o)):
			fates[i] = waits
		case a.lease.Envelope.From != "" && a.lease.Envelope.To[i].Notify.Failure():
			fates[i] = fails
		default:
			fates[i] = lost
		}
	}
	return fates
}

// blocked reports a refusal for good that is about our address, and so ends only when the address or the route changes.
func (a *attempt) blocked(o *deliver.Outcome) bool {
	return o.Result == deliver.PermFail && o.Reason.Blocked() && !a.r.BounceBlocked
}

// uncounted reports that a recipient's try does not count: it did not come to it, or the Runner stopped in the middle of it.
func (a *attempt) uncounted(i int) bool {
	o := &a.outcomes[i]
	return a.away[i] || (a.stopped && o.Result == deliver.TempFail && o.Reply.IsZero() && !o.PossiblyDelivered)
}

// countWhatIsTold makes tries count that were turned away in a crowd where it is time to tell the sender: a smarthost that
// is too slow for all of its mail must not keep a delay or the end of a lifetime from being reported. Each such try counts from then on,
// so that the mail keeps to the times of the schedule.
func (a *attempt) countWhatIsTold(now time.Time) {
	select {
	case <-a.r.stop: // turned away by the stop, and not by others
		return
	default:
	}
	if a.isPressing(now) {
		clear(a.away)
	}
}

// settlement makes of the outcomes what is to be recorded.
func (a *attempt) settlement() Settlement {
	now := time.Now()
	a.stopped = a.r.work.Err() != nil
	a.countWhatIsTold(now)
	a.fates = a.decideFates(now)
	if a.cameToNothing() {
		s := Settlement{Site: a.siteHint()} // put back as it was
		s.Next, _, _ = a.again(now)
		return s
	}
	reports, warned, err := a.report(now)
	if err != nil {
		a.keepUntold()
	}
	s := a.conclude(now, err)
	s.Reports, s.Warned, s.Notes = reports, warned, a.suppress(now)
	a.learn(&s)
	return s
}

// withoutReports is a settlement whose report the queue does not take, because of err.
func (a *attempt) withoutReports(s Settlement, err error) Settlement {
	a.r.Logger.Error("the queue takes no such report; its message is kept", "id", a.lease.ID, "error", err)
	a.keepUntold()
	t := a.conclude(time.Now(), err)
	t.Pause, t.Wake, t.WakeLanes = s.Pause, s.Wake, s.WakeLanes
	return t
}

// keepUntold keeps what failed, because its sender cannot be told: a failure that nobody hears of would be lost mail. What
// has arrived is settled all the same, or it would arrive again.
func (a *attempt) keepUntold() {
	for i, f := range a.fates {
		if f == fails {
			a.fates[i] = untold
		}
	}
}

// cameToNothing reports that no recipient's try counts.
func (a *attempt) cameToNothing() bool {
	uncounted := false
	for i, f := range a.fates {
		if a.ends(f) || (f == waits && !a.uncounted(i)) {
			return false
		}
		uncounted = uncounted || f == waits
	}
	return uncounted
}

// ends reports whether a fate settles a recipient for good. What a person ends is dropped even where nobody is to be told.
func (a *attempt) ends(f fate) bool {
	return f == done || f == fails || (f == lost && !(a.r.KeepUnreported && a.lease.FailWhy == ""))
}

// conclude makes a settlement of the fates. unwritten is why there is no report about those that are untold.
func (a *attempt) conclude(now time.Time, unwritten error) (s Settlement) {
	counts := [numFates]int{}
	for i, f := range a.fates {
		counts[f]++
		if a.ends(f) {
			s.Done = append(s.Done, a.lease.Envelope.To[i].Address)
		}
	}
	if len(s.Done) == len(a.fates) {
		return s // of what ends here nobody will read a history
	}
	switch {
	case counts[waits] > 0:
		s.Next, s.Unreached, s.Pause = a.again(now)
	case counts[untold] > 0:
		s.Hold = "the report on it cannot be written: " + unwritten.Error()
	case counts[heldBack] > 0:
		s.Hold = heldByRoute
	default:
		s.Hold = "it failed, and there is nobody to tell: " + a.outcomes[slices.Index(a.fates, lost)].String()
	}
	s.Attempt = a.history(now)
	return s
}

// heldByRoute is why an entry is held that the route holds.
const heldByRoute = "the route says hold"

// again is when the recipients that wait are tried: at the earliest time that one of them asks for. unreached says that
// all of them wait because of the destination, and pause for how long all of the lane waits.
func (a *attempt) again(now time.Time) (next time.Time, unreached bool, pause time.Duration) {
	unreached = true
	late, expires := a.late(), a.expires()
	for i, f := range a.fates {
		if f != waits {
			continue
		}
		o := &a.outcomes[i]
		t := now
		switch {
		case a.away[i]:
			t = inTime(a.r.gates.crowded(now, a.siteHint() != "" && !o.Shortage), now, late, expires)
		case !a.uncounted(i):
			t = inTime(now.Add(a.r.Schedule.wait(a.step(), o.Reason.Retry)), now, late, expires)
		}
		if next.IsZero() || t.Before(next) {
			next = t
		}
		unreached = unreached && ofDestination(o)
		if o.Reason.Is(reason.RateLimited) || o.Reason.Is(reason.TooManyConnections) {
			pause = min(slowDown, t.Sub(now))
		}
	}
	return next, unreached, pause
}

// step is which wait of the schedule follows, from 0 on: that of the try before, where new routes caused this one.
func (a *attempt) step() int { return max(a.lease.Attempts-a.freed(), 0) }

// freed is how many of the tries of the entry new routes caused, this one included.
func (a *attempt) freed() int {
	if a.early {
		return a.lease.Last.Freed + 1
	}
	return a.lease.Last.Freed
}

// slowDown is how long a lane rests whose destination asks for less mail at once.
const slowDown = time.Minute

// ofDestination reports whether a failure is of the destination or of our standing with it, and so alike for all mail that
// goes there.
func ofDestination(o *deliver.Outcome) bool {
	if o.Reply.IsZero() {
		return o.Status != ourTrouble
	}
	switch o.Stage {
	case deliver.StageMail, deliver.StageRcpt, deliver.StageData, deliver.StageDot:
		return o.Reason.Blocked()
	}
	return true
}

// unreachable reports that no host said anything: not even a greeting. A login that a smarthost refuses makes it as good as
// that, and asking again and again would lock the account. Where a host of an earlier hop answered, it is not the
// destination that is away.
func unreachable(o *deliver.Outcome) bool {
	if o.Result != deliver.TempFail || o.Shortage || lastWords(o) != nil {
		return false
	}
	return o.Stage == deliver.StageAuth || ((o.Stage == deliver.StageConnect || o.Stage == deliver.StageGreeting) && o.Reply.IsZero())
}

// noteOutage notes whether a group's destination could be reached.
func (a *attempt) noteOutage(g *group, outcomes []deliver.Outcome) {
	switch down, reached := reach(outcomes); {
	case reached:
		a.r.down.end(g.destination)
	case down != nil:
		a.r.down.begin(g.destination, down)
	}
}

// reach finds an outcome that reached nobody, and whether another one reached somebody.
func reach(outcomes []deliver.Outcome) (down *deliver.Outcome, reached bool) {
	for i := range outcomes {
		switch o := &outcomes[i]; {
		case unreachable(o):
			down = o
		case !o.Shortage && o.Stage != deliver.StageRoute:
			reached = true
		}
	}
	return down, reached
}

// learnWay is what a group says about its route as a whole.
func (a *attempt) learnWay(g *group) (r shape.Result) {
	outcomes := make([]deliver.Outcome, len(g.members))
	for k, i := range g.members {
		outcomes[k] = a.outcomes[i]
	}
	switch down, reached := reach(outcomes); {
	case a.r.work.Err() != nil:
	case reached:
		r.News = shape.Took
	case down != nil:
		r.News, r.Words = shape.Unreachable, wordsOf(down)
	}
	return r
}

// learn notes what the attempt says about its lane and destinations, for the attempts that follow.
func (a *attempt) learn(s *Settlement) {
	s.Site = a.siteHint()
	n := news{nobody: true, silent: true}
	for i := range a.outcomes {
		n.lost = n.lost || (a.ways[i] == "" && a.outcomes[i].RouteTrouble)
	}
	for k := range a.groups {
		a.learnGroup(&a.groups[k], &n)
	}
	s.Wake = a.r.lanes.learn(a.lease.Lane, &n)
	for _, g := range n.good {
		s.WakeLanes = append(s.WakeLanes, a.r.down.waiting(g.destination, a.lease.Lane, a.r.lanes.max)...)
	}
}

// learnGroup adds what one group says to the news.
func (a *attempt) learnGroup(g *group, n *news) {
	success, trouble := false, false
	for _, i := range g.members {
		o := &a.outcomes[i]
		g.waits = g.waits || (a.fates[i] == waits && unreachable(o))
		if a.untried[i] || a.uncounted(i) {
			n.nobody = false
			continue
		}
		success = success || o.Result.Success()
		trouble = trouble || (a.fates[i] == waits && ofDestination(o))
		n.nobody = n.nobody && unreachable(o)
		n.silent = n.silent && o.Reply.IsZero()
	}
	if success {
		n.good = append(n.good, g)
	}
	if trouble {
		n.bad = append(n.bad, g)
	}
}

// history is what the attempt leaves behind. Its route is that of the recipients that stay: Reroute compares it with where
// they would go now.
func (a *attempt) history(now time.Time) Attempt {
	ways := slices.Clone(a.ways)
	for i, f := range a.fates {
		if a.ends(f) {
			ways[i] = ""
		}
	}
	h := Attempt{Time: now, Route: waysText(ways), Results: make([]AttemptResult, 0, min(len(a.outcomes), MaxResults)), Freed: a.freed()}
	type kind struct {
		result deliver.Result
		stage  deliver.Stage
	}
	seen := map[kind]bool{}
	for i := range a.outcomes {
		o := &a.outcomes[i]
		k := kind{o.Result, o.Stage}
		if i < MaxResults || !seen[k] {
			h.Results = append(h.Results, a.result(i))
		}
		seen[k] = true
	}
	return h
}

// maxTried is how many other hosts the history of a try names.
const maxTried = 10

func (a *attempt) result(i int) AttemptResult {
	o := &a.outcomes[i]
	r := AttemptResult{
		Recipient: a.lease.Envelope.To[i].Address, Result: o.Result, Status: o.Status, Reply: o.Reply, Detail: o.Detail,
		Stage: o.Stage, Host: o.Host, PossiblyDelivered: o.PossiblyDelivered, RouteTrouble: o.RouteTrouble,
	}
	if o.Addr.IsValid() {
		r.Addr = o.Addr.String()
	}
	for k := range o.Tried[:min(len(o.Tried), maxTried)] {
		t := &o.Tried[k]
		r.Tried = append(r.Tried, t.Host+" ("+string(t.Stage)+"): "+t.Err)
	}
	if c := o.Reason.Class(); c != reason.Unknown {
		r.Class = string(c)
	}
	return r
}
