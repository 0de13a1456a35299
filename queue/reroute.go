package queue

import (
	"context"
	"errors"
	"fmt"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/route"
)

// reroutePage is how many entries Reroute looks at at once.
const reroutePage = 10_000

// Reroute makes waiting mail due whose route is another now than at its last try, or whose route itself was in trouble then,
// and releases what a route held that does not hold it any more. Hosts call it after the routes changed, as from
// [route.Reloader.OnChange]; without it waiting mail takes the new route when its time comes. It returns the number
// of entries that it freed. The Queue must be an [Inspector].
func (r *Runner) Reroute(ctx context.Context) (freed int, err error) {
	r.init()
	in, ok := r.Queue.(Inspector)
	if !ok {
		return 0, fmt.Errorf("queue: %T is no Inspector: its mail takes the new routes when its time comes", r.Queue)
	}
	waiting, held := map[string]bool{}, []Filter(nil)
	for cursor, more := "", true; more; more = cursor != "" {
		var page []Info
		if page, cursor, err = in.List(ctx, Filter{}, cursor, reroutePage); err != nil {
			return 0, err
		}
		for i := range page {
			switch e := &page[i]; {
			case e.State == Waiting && !waiting[e.Lane] && r.moved(ctx, e):
				waiting[e.Lane] = true
			case e.State == Held && heldByRoute(e) && r.moved(ctx, e):
				held = append(held, Filter{ID: e.ID, Lane: e.Lane})
			}
		}
	}
	var errs []error
	for lane := range waiting { // a lane at once: one change to record, not one for each message
		n, err := in.Retry(ctx, Filter{Lane: lane, State: Waiting})
		freed, errs = freed+n, append(errs, err)
	}
	for _, f := range held {
		n, err := in.Release(ctx, f)
		freed, errs = freed+n, append(errs, err)
	}
	return freed, errors.Join(errs...)
}

// moved reports whether another try of an entry would go another way than its last one. What was not tried yet is due
// anyway, and a router in trouble will be asked again at the next try.
func (r *Runner) moved(ctx context.Context, e *Info) bool {
	if e.Last.Time.IsZero() {
		return false
	}
	ways := make([]string, len(e.To))
	for i, to := range e.To {
		rt, err := r.Router.Route(ctx, route.Query{Sender: e.From, Recipient: to.Address})
		if err != nil {
			return false
		}
		ways[i] = rt.String()
	}
	return waysText(ways) != e.Last.Route || routeTrouble(&e.Last)
}

// routeTrouble reports whether a try ended in trouble with its route: a login or the lookup of a smarthost. New routes may
// bring a new secret under the same name.
func routeTrouble(last *Attempt) bool {
	for i := range last.Results {
		if s := last.Results[i].Stage; s == deliver.StageAuth || (s == deliver.StageRoute && last.Results[i].Result == deliver.TempFail) {
			return true
		}
	}
	return false
}

func heldByRoute(e *Info) bool {
	for i := range e.Last.Results {
		if e.Last.Results[i].Result == deliver.Held {
			return true
		}
	}
	return false
}
