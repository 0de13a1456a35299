package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/route"
)

// newRouter reads -routes. Without it all recipients go where -route says, or direct.
func (s *sender) newRouter() (route.Router, error) {
	if s.opts.routes == "" {
		return s.opts.route, nil
	}
	table, err := route.ReadFile(s.opts.routes)
	if err != nil {
		return nil, fmt.Errorf("-routes: %w", err)
	}
	table.MX = s.deliverer
	return table, nil
}

// parseRoute reads the hops of -route, where everything goes.
func parseRoute(hops string) (route.Router, error) {
	r, err := route.ParseRoute(hops)
	r.Pattern = "-route" // which explanations name
	return r, err
}

// A way is a route and the recipients that go there.
type way struct {
	route route.Route
	to    []string
}

// ways asks for the route of each recipient, and puts those together that have the same. A recipient whose route could not be
// found out now has its outcome already.
func (s *sender) ways(ctx context.Context) (ways []*way, unrouted []deliver.Outcome) {
	for _, to := range s.opts.to {
		r, err := s.router.Route(ctx, route.Query{Sender: s.opts.from, Recipient: to})
		if err != nil {
			unrouted = append(unrouted, deliver.Outcome{
				Recipient: to, Status: "4.4.3", Stage: deliver.StageRoute, Detail: "no route: " + err.Error(),
			})
			continue
		}
		s.adapt(&r)
		i := slices.IndexFunc(ways, func(w *way) bool { return w.route.String() == r.String() && w.route.Where() == r.Where() })
		if i < 0 {
			i = len(ways)
			ways = append(ways, &way{route: r})
		}
		ways[i].to = append(ways[i].to, to)
	}
	return ways, unrouted
}

// adapt makes a route what the command line says beside it.
func (s *sender) adapt(r *route.Route) {
	if s.opts.tls == route.TLSDefault {
		return
	}
	r.Hops = slices.Clone(r.Hops)
	for i := range r.Hops {
		if h := &r.Hops[i]; h.Kind == route.MX || h.Kind == route.Smarthost {
			h.TLS = s.opts.tls
		}
	}
}

// inOrder puts outcomes into the order of the command line.
func (s *sender) inOrder(outcomes []deliver.Outcome) []deliver.Outcome {
	slices.SortStableFunc(outcomes, func(a, b deliver.Outcome) int {
		return slices.Index(s.opts.to, a.Recipient) - slices.Index(s.opts.to, b.Recipient)
	})
	return outcomes
}
