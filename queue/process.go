package queue

import (
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/shape"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/dsn/reason"
	"github.com/sortie-mail/sortie/route"
)

// An attempt is one lease being worked on.
type attempt struct {
	r        *Runner
	lease    *Lease
	ctx      context.Context // ends with AttemptTime, or when the Runner is told to put everything back
	rerouted uint64          // Runner.reroute when the routes were asked for
	early    bool            // Reroute caused it
	waiter   *waiter         // its place in the crowd; nil where its lane has proven something
	cut      context.CancelCauseFunc
	site     string // where all of its mail goes first, as that of the lane did before; "" where that is not known

	groups   []group
	ways     []string          // the route of each recipient as text: alike where mail goes the same way
	outcomes []deliver.Outcome // of each recipient
	untried  []bool            // recipients that were not tried
	away     []bool            // those of them that were turned away in a crowd, or for want of files or ports
	refused  []bool            // those of them that are on the suppression list; nil where nobody is
	fates    []fate            // what follows for each recipient
	stopped  bool              // the Runner was told to put everything back before the fates were decided
}

// A group are the recipients that share a route.
type group struct {
	route       route.Route
	way         string
	first       *route.Hop // that leads to hosts; nil where none does
	site        string     // of that hop; "" where there is none
	further     bool       // other hops may take what the first one's hosts cannot be reached for
	destination string     // what an outage of it is about
	members     []int
	waits       bool // for the destination to be back
	putOff      bool // without a try
}

// process makes the attempt of a lease and settles it. w is its place in the crowd, or nil.
func (r *Runner) process(l Lease, w *waiter) {
	ctx, cancel := context.WithTimeout(r.work, r.AttemptTime)
	defer cancel()
	cut := context.CancelCauseFunc(nil)
	if w != nil {
		ctx, cut = context.WithCancelCause(ctx)
		defer cut(nil)
		ctx = deliver.WithAnswered(ctx, func() { r.crowd.leave(w) })
	}
	n := len(l.Envelope.To)
	a := &attempt{
		r: r, lease: &l, ctx: ctx, waiter: w, cut: cut, rerouted: r.reroute.Load(), early: r.early.caused(&l),
		ways: make([]string, n), outcomes: make([]deliver.Outcome, n), untried: make([]bool, n), away: make([]bool, n),
	}
	a.decide()
	a.settle()
}

// decide finds an outcome for each recipient. Mail that makes a router or a deliverer panic waits as after any other
// temporary failure, and does not take the process and all other mail with it.
func (a *attempt) decide() {
	defer func() {
		if p := recover(); p != nil {
			a.r.Logger.Error("an attempt panicked", "id", a.lease.ID, "lane", a.lease.Lane, "panic", p, "stack", string(debug.Stack()))
			a.decideAll(deliver.TempFail, ourTrouble, brokeDown)
		}
	}()
	switch {
	case a.lease.FailWhy != "":
		a.decideAll(deliver.PermFail, "5.0.0", "ended by the administrator: "+a.lease.FailWhy)
	case a.lease.overdue(time.Now()):
		a.decideOverdue()
	case a.lease.Hops > a.r.MaxHops:
		a.decideAll(deliver.PermFail, "5.4.6", fmt.Sprintf("the message goes in circles: it has passed %d hosts, and the limit is %d", a.lease.Hops, a.r.MaxHops))
	default:
		a.deliver()
	}
}

// brokeDown is all that a sender is told of a panic.
const brokeDown = "the delivery broke down within this mail system; its log tells why"

// ourTrouble is the status of what is wrong with this system or with the message, whatever the destination (RFC 3463, section 3.4).
const ourTrouble dsn.Status = "4.3.0"

// decideAll gives every recipient the same outcome, without a host.
func (a *attempt) decideAll(result deliver.Result, status dsn.Status, detail string) {
	for i, to := range a.lease.Envelope.To {
		a.outcomes[i] = deliver.Outcome{Recipient: to.Address, Result: result, Status: status, Detail: detail, Stage: deliver.StageRoute}
	}
}

// deliver routes the recipients and hands each group that shares a route to the Deliverer, at the same time, so that one that
// hangs costs the others nothing; but no more of them than a lane may have attempts.
func (a *attempt) deliver() {
	a.refuseSuppressed()
	a.group()
	a.locate()
	if len(a.groups) == 1 {
		a.deliverGroup(&a.groups[0])
		return
	}
	var all sync.WaitGroup
	turns := make(chan struct{}, a.r.lanes.max)
	for i := range a.groups {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			a.deliverGroup(&a.groups[i])
		})
	}
	all.Wait()
}

// routeTries is for how many recipients of one entry the router may fail, until it is not asked about the others: they are
// of one domain, and each answer may take as long as DNS does.
const routeTries = 10

// group routes the recipients, and sorts them by route. Those that cannot be routed now are decided.
func (a *attempt) group() {
	index := map[string]int{}
	var trouble error
	troubles := 0
	for i, to := range a.lease.Envelope.To {
		if a.refused != nil && a.refused[i] {
			continue
		}
		var rt route.Route
		err := trouble
		if troubles < routeTries {
			rt, err = a.r.Router.Route(a.ctx, route.Query{Sender: a.lease.Envelope.From, Recipient: to.Address})
		}
		if err != nil {
			trouble, troubles = err, troubles+1
			a.outcomes[i] = deliver.Outcome{
				Recipient: to.Address, Result: deliver.TempFail, Status: "4.3.5", Stage: deliver.StageRoute,
				Detail: "no route could be found now: " + err.Error(), RouteTrouble: true,
			}
			continue
		}
		a.ways[i] = rt.String()
		g, ok := index[a.ways[i]]
		if !ok {
			g = len(a.groups)
			index[a.ways[i]] = g
			a.groups = append(a.groups, newGroup(a.lease.Lane, rt, a.ways[i]))
		}
		a.groups[g].members = append(a.groups[g].members, i)
	}
}

// newGroup finds where a group's mail goes first.
func newGroup(lane string, rt route.Route, way string) group {
	p := placeOf(rt)
	g := group{route: rt, way: way, first: p.hop, further: p.further, destination: lane + " " + way}
	if p.allHosts {
		g.destination = way
	}
	return g
}

// locate names the sites of the groups, and notes where the lane's mail goes. An outage is one of the site, or where other hops may take
// over one of the whole route: of nothing but the route where it leads to smarthosts alone, else of the domain too.
func (a *attempt) locate() {
	for k := range a.groups {
		g := &a.groups[k]
		if g.first == nil {
			continue
		}
		g.site = a.siteOf(g.first)
		alone := g.site
		if g.further {
			alone = ""
		} else {
			g.destination = g.site
		}
		if a.site = ""; a.r.lanes.goes(a.lease.Lane, alone) {
			a.site = alone
		}
	}
}

// deliverGroup hands a group to the Deliverer, when its turn comes at the site and where that is not down; but the only try of a
// message is always a real one.
func (a *attempt) deliverGroup(g *group) {
	entered := false
	if g.first != nil {
		switch v := a.enter(g); {
		case v == shape.Full:
			a.turnAway(g)
			return
		case v != shape.Down:
			entered = true
		case !g.further && !a.isOnlyTry():
			a.putOff(g)
			return
		}
	}
	if g.further && !a.isOnlyTry() {
		switch v, _ := a.r.ways.Begin(g.destination); v {
		case shape.Down:
			a.leave(g, entered, shape.Result{})
			a.putOff(g)
			return
		case shape.Go, shape.Probe:
			defer func() { a.r.ways.End(g.destination, a.learnWay(g)) }()
		}
	}
	r := shape.Result{Began: time.Now(), Wait: a.r.Schedule.wait(a.step(), reason.RetryNormal)}
	defer func() { a.leave(g, entered, r) }()
	if a.waiter != nil {
		a.r.crowd.started(a.waiter, a.cut)
	}
	outcomes := a.callDeliverer(g.route, a.message(g.members))
	for k, i := range g.members {
		a.outcomes[i] = outcomes[k]
		if outcomes[k].Shortage { // of this machine: a moment later it may go
			a.untried[i], a.away[i] = true, true
		}
	}
	if g.first != nil && a.r.work.Err() == nil { // what was cut short by the end of the Runner says nothing
		r.News, r.Words = g.news(outcomes)
		a.noteOutage(g, outcomes)
	}
}

// enter begins the attempt at the group's site. What is late does not wait for its turn.
func (a *attempt) enter(g *group) shape.Verdict {
	return a.r.gates.enter(a.ctx, g.site, !a.isPressing(time.Now()))
}

func (a *attempt) leave(g *group, entered bool, r shape.Result) {
	if entered {
		a.r.gates.leave(g.site, r)
	}
}

// isPressing reports whether its sender is to be told of a delay, or of the end, or has been told.
func (a *attempt) isPressing(now time.Time) bool {
	is, _ := a.r.Schedule.pressing(now, a.lease.Accepted, &a.lease.Envelope.DeliverBy)
	return is
}

// isOnlyTry reports whether a message is tried for the first and the last time.
func (a *attempt) isOnlyTry() bool {
	return a.lease.Attempts == 0 && !time.Now().Before(a.r.Schedule.expires(a.lease.Accepted))
}

// putOff decides a group without a try by what is known of its destination.
func (a *attempt) putOff(g *group) {
	g.putOff = true
	known := a.r.down.lastWords(g.destination)
	for _, i := range g.members {
		a.outcomes[i], a.untried[i] = known, true
		a.outcomes[i].Recipient, a.outcomes[i].Route = a.lease.Envelope.To[i].Address, g.route
		if known.Hop.Kind != g.first.Kind {
			a.outcomes[i].Hop = *g.first
		}
	}
}

// turnAway decides a group whose turn does not come now.
func (a *attempt) turnAway(g *group) {
	for _, i := range g.members {
		a.untried[i], a.away[i] = true, true
		a.outcomes[i] = undecidedOne(a.lease.Envelope.To[i].Address, "not tried now, because many others wait for the same hosts")
		a.outcomes[i].Route, a.outcomes[i].Hop = g.route, g.route.Hops[0]
	}
}

// callDeliverer returns an outcome for each recipient whatever the Deliverer does. It runs beside other groups, so that a panic
// must be caught here.
func (a *attempt) callDeliverer(rt route.Route, m *deliver.Message) (outcomes []deliver.Outcome) {
	defer func() {
		if p := recover(); p != nil {
			a.r.Logger.Error("a delivery panicked", "id", m.ID, "route", rt.String(), "panic", p, "stack", string(debug.Stack()))
			outcomes = undecided(m, brokeDown)
		}
	}()
	outcomes = a.r.Deliverer.Deliver(a.ctx, rt, m)
	if len(outcomes) != len(m.To) {
		a.r.Logger.Error("the Deliverer forgot recipients", "id", m.ID, "recipients", len(m.To), "outcomes", len(outcomes))
		return undecided(m, "the deliverer said nothing of this recipient")
	}
	for i := range outcomes {
		if outcomes[i].Result > deliver.Discarded { // what is unknown is never lost
			outcomes[i] = undecidedOne(m.To[i].Address, "the deliverer said nothing that is known of this recipient")
		}
	}
	return outcomes
}

func undecided(m *deliver.Message, detail string) []deliver.Outcome {
	outcomes := make([]deliver.Outcome, len(m.To))
	for i, to := range m.To {
		outcomes[i] = undecidedOne(to.Address, detail)
	}
	return outcomes
}

func undecidedOne(recipient, detail string) deliver.Outcome {
	return deliver.Outcome{Recipient: recipient, Result: deliver.TempFail, Status: ourTrouble, Detail: detail, Stage: deliver.StageRoute}
}

func (a *attempt) message(members []int) *deliver.Message {
	l := a.lease
	m := &deliver.Message{
		ID: string(l.ID), From: l.Envelope.From, EnvelopeID: l.Envelope.EnvelopeID, Return: l.Envelope.Return, UTF8: l.Envelope.UTF8,
		Binary: l.Envelope.Binary, RequireTLS: l.Envelope.RequireTLS, Priority: l.Envelope.Priority, DeliverBy: l.Envelope.DeliverBy,
		Size: l.Size, Open: func() (io.ReadCloser, error) { return a.r.Queue.Open(a.ctx, l.ID) },
		To: l.Envelope.To,
	}
	if len(members) < len(l.Envelope.To) {
		m.To = make([]Recipient, len(members))
		for k, i := range members {
			m.To[k] = l.Envelope.To[i]
		}
	}
	return m
}

// maxWays is how many routes of one attempt its history names.
const maxWays = 20

// waysText is the ways of an attempt in its history: the routes as the routing file writes them. Of more than a few it has a
// checksum, so that other routes give another text.
func waysText(ways []string) string {
	var distinct []string
	seen := map[string]bool{}
	rest := fnv.New64a()
	for _, way := range ways {
		if way == "" || seen[way] {
			continue
		}
		if seen[way] = true; len(distinct) < maxWays {
			distinct = append(distinct, way)
		} else {
			io.WriteString(rest, way+"\n")
		}
	}
	if more := len(seen) - len(distinct); more > 0 {
		distinct = append(distinct, fmt.Sprintf("and %d more (%x)", more, rest.Sum64()))
	}
	return strings.Join(distinct, "; ")
}

// logLevel is how loud an outcome is told.
func logLevel(o *deliver.Outcome) slog.Level {
	if o.RouteTrouble {
		return slog.LevelError
	}
	return slog.LevelInfo
}
