package queue

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sortie-mail/sortie/route"
)

// reroutePage is how many entries Reroute looks at at once; releasing is how many it releases at once, so that the queue can
// write them together.
const (
	reroutePage = 10_000
	releasing   = 32
)

// Reroute makes waiting mail due whose route is another now than at its last try, or whose route itself was in trouble then,
// with what else waits in its lanes; and releases what a route held that does not hold it any more. The tries that it causes
// are no steps of the [Schedule]: where they fail, mail waits as long as after the try before. Hosts call it after the
// routes changed, as from [route.Reloader.OnChange]; without it waiting mail takes the new route when its time comes. It returns
// the number of entries that it freed. What is under way meanwhile is looked at when its attempt ends. The Queue must be an
// [Inspector].
func (r *Runner) Reroute(ctx context.Context) (freed int, err error) {
	r.init()
	in, ok := r.Queue.(Inspector)
	if !ok {
		return 0, fmt.Errorf("queue: %T is no Inspector: its mail takes the new routes when its time comes", r.Queue)
	}
	r.reroute.Add(1) // before looking: an attempt that ends from here on looks itself
	r.gates.shaper.Again()
	s := &survey{r: r, moved: map[string]bool{}, unsure: map[string]bool{}}
	for cursor, more := "", true; more; more = cursor != "" {
		var page []Info
		if page, cursor, err = in.List(ctx, Filter{}, cursor, reroutePage); err != nil {
			return 0, err
		}
		for i := range page {
			s.look(ctx, &page[i])
		}
	}
	if freed, err = s.free(ctx, in); err == nil {
		err = s.err
	}
	return freed, err
}

// A survey finds what other routes free.
type survey struct {
	r      *Runner
	moved  map[string]bool // lanes in which mail waits that goes another way now
	unsure map[string]bool // lanes with which the router is in trouble: it is asked no more, each answer may take as long as DNS does
	held   []Filter
	err    error // what is held stays so because of it
}

func (s *survey) look(ctx context.Context, e *Info) {
	waiting := e.State == Waiting && !s.moved[e.Lane]
	held := e.State == Held && e.Why == heldByRoute
	if (!waiting && !held) || s.unsure[e.Lane] {
		return
	}
	moved, err := s.r.moved(ctx, e)
	switch {
	case err != nil && held: // what waits is routed again at its next try
		s.err = fmt.Errorf("queue: mail of %s stays held, because its route could not be found now: reroute again: %w", e.Lane, err)
		fallthrough
	case err != nil:
		s.unsure[e.Lane] = true
	case moved && held:
		s.held = append(s.held, Filter{ID: e.ID, Lane: e.Lane, State: Held})
	case moved:
		s.moved[e.Lane] = true
	}
}

// free frees what was found: what waits a lane at once, with one change to record, and what is held entry by entry, since
// others of its lane may be held by a person. It ends with the first error.
func (s *survey) free(ctx context.Context, in Inspector) (freed int, err error) {
	for lane := range s.moved {
		s.r.early.note(lane, time.Now())
		n, err := in.Retry(ctx, Filter{Lane: lane, State: Waiting})
		if freed += n; err != nil {
			return freed, err
		}
	}
	var mu sync.Mutex
	for part := range slices.Chunk(s.held, releasing) {
		var all sync.WaitGroup
		for _, f := range part {
			all.Go(func() {
				n, e := in.Release(ctx, f)
				mu.Lock()
				defer mu.Unlock()
				if freed += n; e != nil {
					err = e
				}
			})
		}
		if all.Wait(); err != nil {
			return freed, err
		}
	}
	return freed, nil
}

// moved reports whether another try of an entry would go another way than its last one. What was not tried yet is due
// anyway.
func (r *Runner) moved(ctx context.Context, e *Info) (bool, error) {
	if e.Last.Time.IsZero() {
		return false, nil
	}
	ways := make([]string, len(e.To))
	for i, to := range e.To {
		rt, err := r.Router.Route(ctx, route.Query{Sender: e.From, Recipient: to.Address})
		if err != nil {
			return false, err
		}
		ways[i] = rt.String()
	}
	return waysText(ways) != e.Last.Route || routeTrouble(&e.Last), nil
}

// routeTrouble reports whether a try ended in trouble with its route: a login or the lookup of a smarthost. New routes may
// bring a new secret under the same name. The lookup of a recipient's own hosts is no route's matter.
func routeTrouble(last *Attempt) bool {
	return slices.ContainsFunc(last.Results, func(r AttemptResult) bool { return r.RouteTrouble })
}

// earlyMemory is how long it is remembered that a lane was freed: longer than what is due waits for its turn.
const earlyMemory = 6 * time.Hour

// early knows the lanes whose mail is tried before its time, because Reroute freed it. The zero value is ready.
type early struct {
	mu    sync.Mutex
	since map[string]time.Time // guarded by mu
	sweep int                  // guarded by mu
}

// note is called before mail of a lane is freed.
func (y *early) note(lane string, now time.Time) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.since == nil {
		y.since, y.sweep = map[string]time.Time{}, 1024
	}
	if len(y.since) >= y.sweep {
		maps.DeleteFunc(y.since, func(_ string, at time.Time) bool { return now.Sub(at) > earlyMemory })
		y.sweep = max(2*len(y.since), 1024)
	}
	y.since[lane] = now
}

// caused reports whether Reroute freed an entry after its last try.
func (y *early) caused(l *Lease) bool {
	y.mu.Lock()
	defer y.mu.Unlock()
	at, ok := y.since[l.Lane]
	return ok && !l.Last.Time.IsZero() && l.Last.Time.Before(at) && time.Since(at) <= earlyMemory
}

// moved reports whether what an attempt has left behind would go another way now: Reroute did not see it waiting or held
// while the attempt was under way.
func (a *attempt) moved(s Settlement) bool {
	e := Info{From: a.lease.Envelope.From, Last: s.Attempt}
	for i, f := range a.fates {
		if !a.ends(f) {
			e.To = append(e.To, a.lease.Envelope.To[i])
		}
	}
	moved, err := a.r.moved(a.r.work, &e)
	return moved && err == nil
}

// free makes due at once what an attempt has left waiting, or held by its route.
func (a *attempt) free(s Settlement) {
	in, ok := a.r.Queue.(Inspector)
	if !ok {
		return
	}
	var err error
	switch f := (Filter{ID: a.lease.ID, Lane: a.lease.Lane}); s.Hold {
	case "":
		f.State = Waiting
		_, err = in.Retry(a.r.work, f)
	case heldByRoute:
		f.State = Held
		_, err = in.Release(a.r.work, f)
	}
	if err != nil {
		a.r.Logger.Warn("mail that could go now waits for its time all the same", "id", a.lease.ID, "lane", a.lease.Lane, "error", err)
	}
}
