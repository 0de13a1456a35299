package queue

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/route"
)

// An attempt is one lease being worked on.
type attempt struct {
	r     *Runner
	lease *Lease
	ctx   context.Context // ends with AttemptTime, or when the Runner is told to put everything back

	routes   []route.Route     // of each recipient
	ways     []string          // the routes as text: alike where mail goes the same way
	outcomes []deliver.Outcome // of each recipient
	untried  []bool            // recipients that were not tried because of an outage
	fates    []fate            // what follows for each recipient
}

// process makes the attempt of a lease and settles it.
func (r *Runner) process(l Lease) {
	ctx, cancel := context.WithTimeout(r.work, r.AttemptTime)
	defer cancel()
	n := len(l.Envelope.To)
	a := &attempt{r: r, lease: &l, ctx: ctx, routes: make([]route.Route, n), ways: make([]string, n), outcomes: make([]deliver.Outcome, n), untried: make([]bool, n)}
	a.decide()
	a.settle()
}

// decide finds an outcome for each recipient. Mail that makes a router or a deliverer panic waits as after any other
// temporary failure, and does not take the process and all other mail with it.
func (a *attempt) decide() {
	defer func() {
		if p := recover(); p != nil {
			a.r.Logger.Error("an attempt panicked", "id", a.lease.ID, "lane", a.lease.Lane, "panic", p, "stack", string(debug.Stack()))
			a.decideAll(deliver.TempFail, "4.3.0", brokeDown)
		}
	}()
	switch {
	case a.lease.FailWhy != "":
		a.decideAll(deliver.PermFail, "5.0.0", "ended by the administrator: "+a.lease.FailWhy)
	case a.lease.Hops > a.r.MaxHops:
		a.decideAll(deliver.PermFail, "5.4.6", fmt.Sprintf("the message goes in circles: it has passed %d hosts, and the limit is %d", a.lease.Hops, a.r.MaxHops))
	default:
		a.deliver()
	}
}

// brokeDown is all that a sender is told of a panic.
const brokeDown = "the delivery broke down within this mail system; its log tells why"

// decideAll gives every recipient the same outcome, without a host.
func (a *attempt) decideAll(result deliver.Result, status dsn.Status, detail string) {
	for i, to := range a.lease.Envelope.To {
		a.outcomes[i] = deliver.Outcome{Recipient: to.Address, Result: result, Status: status, Detail: detail, Stage: deliver.StageRoute}
	}
}

// deliver routes the recipients and hands each group that shares a route to the Deliverer, all at the same time, so that one that
// hangs costs the others nothing.
func (a *attempt) deliver() {
	groups := a.group()
	if len(groups) == 1 {
		a.deliverGroup(groups[0])
		return
	}
	var all sync.WaitGroup
	for _, g := range groups {
		all.Go(func() { a.deliverGroup(g) })
	}
	all.Wait()
}

// group routes the recipients, and gives their numbers by route. Those that cannot be routed now are decided.
func (a *attempt) group() (groups [][]int) {
	index := map[string]int{}
	for i, to := range a.lease.Envelope.To {
		rt, err := a.r.Router.Route(a.ctx, route.Query{Sender: a.lease.Envelope.From, Recipient: to.Address})
		if err != nil {
			a.outcomes[i] = deliver.Outcome{
				Recipient: to.Address, Result: deliver.TempFail, Status: "4.3.5", Stage: deliver.StageRoute,
				Detail: "no route could be found now: " + err.Error(), RouteTrouble: true,
			}
			a.r.Logger.Error("no route could be found now", "id", a.lease.ID, "recipient", to.Address, "error", err)
			continue
		}
		a.routes[i], a.ways[i] = rt, rt.String()
		g, ok := index[a.ways[i]]
		if !ok {
			g = len(groups)
			index[a.ways[i]] = g
			groups = append(groups, nil)
		}
		groups[g] = append(groups[g], i)
	}
	return groups
}

// destination names what an outage of a recipient's route is about: the domain where mail goes direct, and nothing but the
// route where it names a smarthost.
func (a *attempt) destination(i int) string {
	if hops := a.routes[i].Hops; len(hops) > 0 && hops[0].Kind == route.Smarthost {
		return a.ways[i]
	}
	return a.lease.Lane + " " + a.ways[i]
}

func (a *attempt) deliverGroup(group []int) {
	rt := a.routes[group[0]]
	if known, ok := a.r.down.during(a.destination(group[0]), time.Now()); ok {
		for _, i := range group {
			a.outcomes[i], a.untried[i] = known, true
			a.outcomes[i].Recipient, a.outcomes[i].Route = a.lease.Envelope.To[i].Address, rt
		}
		return
	}
	m := a.message(group)
	outcomes := a.callDeliverer(rt, m)
	for k, i := range group {
		a.outcomes[i] = outcomes[k]
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
	return outcomes
}

func undecided(m *deliver.Message, detail string) []deliver.Outcome {
	outcomes := make([]deliver.Outcome, len(m.To))
	for i, to := range m.To {
		outcomes[i] = deliver.Outcome{Recipient: to.Address, Result: deliver.TempFail, Status: "4.3.0", Detail: detail, Stage: deliver.StageRoute}
	}
	return outcomes
}

func (a *attempt) message(group []int) *deliver.Message {
	l := a.lease
	m := &deliver.Message{
		ID: string(l.ID), From: l.Envelope.From, EnvelopeID: l.Envelope.EnvelopeID, Return: l.Envelope.Return, UTF8: l.Envelope.UTF8,
		Size: l.Size, Open: func() (io.ReadCloser, error) { return a.r.Queue.Open(a.ctx, l.ID) },
		To: l.Envelope.To,
	}
	if len(group) < len(l.Envelope.To) {
		m.To = make([]Recipient, len(group))
		for k, i := range group {
			m.To[k] = l.Envelope.To[i]
		}
	}
	return m
}

// settle records what became of the attempt, again and again until it is recorded, the lease is lost, or the Runner is
// told to leave everything.
func (a *attempt) settle() {
	s := a.settlement()
	for wait := time.Second; ; wait = min(2*wait, time.Minute) {
		err := a.r.Queue.Settle(context.WithoutCancel(a.ctx), *a.lease, s)
		switch kind := settleError(err); {
		case err == nil:
			a.r.setBroken(nil)
			a.settled(s)
			return
		case kind != nil:
			a.r.Logger.Warn("what became of an attempt is not recorded, and it may be made again", "id", a.lease.ID, "lane", a.lease.Lane, "error", err)
			return
		}
		a.r.setBroken(err)
		a.r.Logger.Error("what became of an attempt cannot be recorded; no more mail is sent until it can", "id", a.lease.ID, "lane", a.lease.Lane, "error", err)
		select {
		case <-time.After(wait):
		case <-a.r.work.Done():
			return
		}
	}
}

// waysText is the ways of an attempt in its history: the routes as the routing file writes them.
func waysText(ways []string) string {
	var distinct []string
	for _, way := range ways {
		if way != "" && !slices.Contains(distinct, way) {
			distinct = append(distinct, way)
		}
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
