package queue_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/route"
)

func (w *world) reroute() int {
	w.t.Helper()
	n, err := w.runner.Reroute(w.t.Context())
	require.NoError(w.t, err)
	w.sleep(time.Second)
	return n
}

func (w *world) list(f queue.Filter) []queue.Info {
	w.t.Helper()
	list, _, err := w.queue.List(w.t.Context(), f, "", 0)
	require.NoError(w.t, err)
	return list
}

// Recipients that are settled go nowhere any more, by whatever way they went.
func TestRerouteLooksAtWhoIsLeft(t *testing.T) {
	f := &far{say: byName}
	play(t, f.through(func(w *world) { w.by(parse(w.t, "boss@aol.test smtp://mail.isp.test")) }), func(w *world) {
		w.send(queue.To("boss@aol.test", "later@aol.test")...)
		w.sleep(time.Minute)
		assert.Zero(t, w.reroute(), "no route is another")
		assert.Len(t, f.triesOf("later@aol.test"), 1)
		w.by(route.Direct)
		assert.Zero(t, w.reroute(), "the boss has his mail")
		w.by(parse(t, "later@aol.test smtp://mail.isp.test"))
		assert.Equal(t, 1, w.reroute())
		assert.Len(t, f.triesOf("later@aol.test"), 2)
	})
}

// What a person holds stays held.
func TestRerouteReleasesWhatARouteHolds(t *testing.T) {
	f := &far{say: func(ctx context.Context, rt route.Route, m *deliver.Message, to string) deliver.Outcome {
		if rt.Hops[0].Kind == route.Hold {
			return deliver.Outcome{Result: deliver.Held, Status: "2.0.0", Stage: deliver.StageRoute, Detail: "the route says hold"}
		}
		return byName(ctx, rt, m, to)
	}}
	play(t, f.through(func(w *world) { w.by(parse(w.t, "held@aol.test hold\n*@other.test hold")) }), func(w *world) {
		mine := w.send(queue.To("held@aol.test", "later@aol.test")...)
		for range 100 {
			w.send(queue.To("bob@other.test")...)
		}
		w.sleep(time.Minute)
		_, err := w.queue.Hold(w.t.Context(), queue.Filter{ID: mine}, "I want to look at it")
		require.NoError(t, err)
		w.by(route.Direct)
		assert.Equal(t, 100, w.reroute())
		assert.Len(t, f.triesOf("bob@other.test"), 200)
		held := w.list(queue.Filter{})
		require.Len(t, held, 1)
		assert.Equal(t, "I want to look at it", held[0].Why)
		_, err = w.queue.Release(w.t.Context(), queue.Filter{ID: mine})
		require.NoError(t, err)
		w.sleep(10 * time.Hour)
		assert.Equal(t, queue.To("later@aol.test"), w.list(queue.Filter{})[0].To)
	})
}

// An attempt that is under way while the routes change ends by the old ones, and is not forgotten.
func TestRerouteFreesWhatIsUnderWay(t *testing.T) {
	for name, end := range map[string]deliver.Outcome{
		"waits": blocked,
		"held":  {Result: deliver.Held, Status: "2.0.0", Stage: deliver.StageRoute, Detail: "the route says hold"},
	} {
		t.Run(name, func(t *testing.T) {
			f := &far{say: func(_ context.Context, rt route.Route, _ *deliver.Message, _ string) deliver.Outcome {
				if rt.Hops[0].Kind == route.Smarthost {
					return took
				}
				time.Sleep(2 * time.Minute)
				return end
			}}
			play(t, f.through(), func(w *world) {
				w.send(queue.To("bob@aol.test")...)
				w.sleep(time.Minute)
				w.by(parse(t, "*@aol.test smtp://mail.isp.test"))
				assert.Zero(t, w.reroute())
				w.sleep(time.Minute)
				assert.Len(t, f.triesOf("bob@aol.test"), 2, "it goes the new way as soon as it can")
				assert.True(t, w.empty())
			})
		})
	}
}

// A router that needs a minute for each answer that it does not have is not asked about each message.
func TestRerouteWithARouterInTrouble(t *testing.T) {
	f := &far{say: byName}
	trouble := errors.New("DNS does not answer")
	var asked atomic.Int32
	play(t, f.through(func(w *world) { w.by(parse(w.t, "*@held.test hold")) }), func(w *world) {
		for range 50 {
			w.send(queue.To("later@aol.test")...)
			w.send(queue.To("later@other.test")...)
			w.send(queue.To("bob@held.test")...)
		}
		w.sleep(time.Minute)
		w.by(routerFunc(func(ctx context.Context, q route.Query) (route.Route, error) {
			if strings.HasSuffix(q.Recipient, "@other.test") {
				return route.Direct.Route(ctx, q)
			}
			asked.Add(1)
			time.Sleep(time.Minute)
			return route.Route{}, trouble
		}))
		start := time.Now()
		_, err := w.runner.Reroute(w.t.Context())
		require.NoError(t, err, "what waits is routed again at its next try")
		assert.LessOrEqual(t, asked.Load(), int32(2))
		assert.LessOrEqual(t, time.Since(start), 3*time.Minute)
	})
	f = &far{say: func(context.Context, route.Route, *deliver.Message, string) deliver.Outcome {
		return deliver.Outcome{Result: deliver.Held, Status: "2.0.0", Stage: deliver.StageRoute}
	}}
	play(t, f.through(func(w *world) { w.by(parse(w.t, "*@held.test hold")) }), func(w *world) {
		w.send(queue.To("bob@held.test")...)
		w.sleep(time.Minute)
		w.by(routerFunc(func(context.Context, route.Query) (route.Route, error) { return route.Route{}, trouble }))
		_, err := w.runner.Reroute(w.t.Context())
		require.ErrorIs(t, err, trouble, "what is held would stay so for ever")
		assert.ErrorContains(t, err, "held.test")
	})
}

func TestRerouteOfAClosedQueue(t *testing.T) {
	f := &far{say: byName}
	play(t, f.through(), func(w *world) {
		require.NoError(t, w.runner.Shutdown(w.t.Context()))
		require.NoError(t, w.queue.Close())
		_, err := w.runner.Reroute(w.t.Context())
		require.ErrorIs(t, err, queue.ErrClosed)
	})
	_, err := (&queue.Runner{Queue: struct{ queue.Queue }{}}).Reroute(t.Context())
	assert.ErrorContains(t, err, "no Inspector")
}

// Routes may change while thousands of attempts are under way.
func TestRerouteAmongAttempts(t *testing.T) {
	f := &far{say: func(_ context.Context, rt route.Route, _ *deliver.Message, to string) deliver.Outcome {
		time.Sleep(time.Duration(len(to)) * time.Second)
		if rt.Hops[0].Kind == route.Smarthost {
			return took
		}
		return blocked
	}}
	play(t, f.through(), func(w *world) {
		for i := range 500 {
			w.send(queue.To(fmt.Sprintf("bob@%d.test", i%50), strings.Repeat("b", i%39+1)+"@"+fmt.Sprint(i%50)+".test")...)
			if i%10 == 0 {
				w.sleep(time.Second)
			}
		}
		w.by(parse(t, "* smtp://mail.isp.test\n*@example.org direct"))
		_, err := w.runner.Reroute(w.t.Context())
		require.NoError(t, err)
		w.sleep(20 * time.Minute) // less than what is blocked waits
		assert.True(t, w.empty(), "none is left behind on the old route")
		taken := 0
		for _, try := range f.triesOf("") {
			if try.outcome.Result.Success() {
				taken++
			}
		}
		assert.Equal(t, 1000, taken, "and each arrived once")
	})
}

// waits is when the only entry is tried next, from now on.
func (w *world) waits() time.Duration {
	w.t.Helper()
	list := w.list(queue.Filter{})
	require.Len(w.t, list, 1)
	return time.Until(list[0].Due)
}

// Of an MX lookup that fails, no line of the routing file is the cause: other routes do not mend it.
func TestRerouteLeavesWhatNoRouteIsTheCauseOf(t *testing.T) {
	for name, fails := range map[string]func(w *world){
		"the MX lookup":      func(w *world) { w.net.FailDNS("aol.test", "MX", lab.DNSServFail) },
		"the host's address": func(w *world) { w.net.FailDNS("mail.aol.test", lab.AnyName, lab.DNSServFail) },
		"the login, for now": func(w *world) {
			w.t.Setenv("QUEUE_TEST", "s3cret")
			w.net.Server("mail.isp.test:587", lab.Offer{TLS: lab.TLSOffered, Users: map[string]string{"u": "s3cret"}}, lab.Refuse(lab.AtAuth, "454 4.7.0 Not now"))
			w.by(parse(w.t, "*@aol.test submission://u@mail.isp.test secret=env:QUEUE_TEST"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, fails, func(w *world) {
				w.send(queue.To("bob@aol.test")...)
				w.sleep(2 * time.Minute)
				require.Len(t, w.triesOf("aol.test"), 1)
				due := w.list(queue.Filter{})[0].Due
				for range 5 {
					assert.Zero(t, w.reroute(), "no route of it is another")
				}
				assert.Equal(t, due, w.list(queue.Filter{})[0].Due)
				assert.Len(t, w.triesOf("aol.test"), 1)
			})
		})
	}
}

// A file of routes is saved often while somebody looks for what is wrong with a smarthost: each time frees what waits for
// it, and none of these tries brings mail nearer to its longest waits.
func TestRerouteIsNoStepOfTheSchedule(t *testing.T) {
	for name, tt := range map[string]struct {
		fails func(w *world)
		waits []time.Duration
	}{
		"the lookup of the smarthost": {
			func(w *world) { w.by(parse(w.t, "*@aol.test smtp://nowhere.isp.test")) },
			[]time.Duration{5 * time.Minute, 15 * time.Minute, 30 * time.Minute},
		},
		"a refused login": {
			func(w *world) {
				w.t.Setenv("QUEUE_TEST", "s3cret")
				w.net.Server("mail.isp.test:587", lab.Offer{TLS: lab.TLSOffered, Users: map[string]string{"u": "n3w"}})
				w.by(parse(w.t, "*@aol.test submission://u@mail.isp.test secret=env:QUEUE_TEST"))
			},
			[]time.Duration{30 * time.Minute, time.Hour, 2 * time.Hour},
		},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, func(w *world) {
				w.runner.Schedule.DelayAfter = -1
				tt.fails(w)
			}, func(w *world) {
				w.send(queue.To("bob@aol.test")...)
				w.sleep(time.Minute)
				for step, wait := range tt.waits {
					for range 3 {
						assert.Equal(t, 1, w.reroute())
						assert.InDelta(t, wait, w.waits(), float64(2*time.Second), "step %d", step)
					}
					assert.Equal(t, 4*(step+1), w.list(queue.Filter{})[0].Attempts, "each try is told")
					w.sleep(w.waits() + time.Second)
				}
				assert.Greater(t, w.waits(), tt.waits[2]+time.Minute, "the schedule's own tries are steps of it")
			})
		})
	}
}

// What waits in a lane that is freed is tried too, and had no trouble with its route; and so is what was under way.
func TestRerouteIsNoStepForOthersOfTheLane(t *testing.T) {
	f := &far{say: func(_ context.Context, _ route.Route, _ *deliver.Message, to string) deliver.Outcome {
		o := later
		if strings.HasPrefix(to, "trouble") {
			o = deliver.Outcome{Result: deliver.TempFail, Status: "4.4.3", Stage: deliver.StageRoute, Detail: "no such host", RouteTrouble: true}
		}
		time.Sleep(time.Minute)
		return o
	}}
	play(t, f.through(), func(w *world) {
		w.send(queue.To("trouble@aol.test")...)
		w.send(queue.To("later@aol.test")...)
		w.sleep(2 * time.Minute)
		assert.Equal(t, 2, w.reroute())
		for range 3 { // under way now
			assert.Zero(t, w.reroute())
			w.sleep(time.Minute)
		}
		w.sleep(time.Minute)
		for _, e := range w.list(queue.Filter{}) {
			assert.LessOrEqual(t, time.Until(e.Due), 5*time.Minute, "%v", e.To)
		}
		w.sleep(10 * time.Minute)
		for _, e := range w.list(queue.Filter{}) {
			assert.Greater(t, time.Until(e.Due), 5*time.Minute, "%v", e.To)
		}
	})
}
