package queue_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/memory"
	"github.com/sortie-mail/sortie/route"
)

// What a Runner costs that has nothing to do is told by how often it asks the queue.
//
// std: Q5
func TestWaitingCostsNothing(t *testing.T) {
	hourly := func(w *world) {
		w.runner.Schedule = queue.Schedule{Waits: []time.Duration{2 * time.Hour}, Jitter: -1, DelayAfter: -1}
	}
	tests := map[string]struct {
		prepare func(w *world)
		send    string // the start of 2,000 recipients' names; "" sends nothing
		lanes   int
		most    int // calls of Lease within an hour
	}{
		"nothing there":              {nil, "", 1, 1},
		"one lane waits":             {hourly, "later", 1, 0},
		"thousands of lanes wait":    {hourly, "later", 2000, 0},
		"lanes are full":             {nil, "hangs", 5, 0},
		"all slots are taken":        {func(w *world) { w.runner.Concurrency = 100 }, "hangs", 2000, 200}, // a few a minute
		"lanes take one at a time":   {func(w *world) { w.runner.LaneConcurrency = 1 }, "hangs", 5, 0},
		"the router fails":           {func(w *world) { hourly(w); w.by(failingRouter) }, "bob", 2000, 0},
		"destinations cannot be had": {hourly, "dead", 2000, 0},
		"all of it is held":          {nil, "held", 2000, 0},
		"nothing can be recorded":    {func(w *world) { w.runner.Queue.(*countingQueue).settle = cannotSettle }, "bob", 5, 3600/10 + 1},
		"it was shut down":           {func(w *world) { _ = w.runner.Shutdown(w.t.Context()) }, "bob", 5, 0},
		"a lane pauses":              {nil, "slow", 1, 500}, // with a few tries a minute
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f, q := &far{say: idleSay}, &countingQueue{}
			prepare := []func(w *world){q.in}
			if test.prepare != nil {
				prepare = append(prepare, test.prepare)
			}
			play(t, f.through(prepare...), func(w *world) {
				if test.send != "" {
					for i := range 2000 {
						w.send(queue.To(fmt.Sprintf("%s@%d.test", test.send, i%test.lanes))...)
					}
				}
				w.sleep(time.Minute) // a first try each
				q.asked()
				w.sleep(50 * time.Minute)
				assert.LessOrEqual(t, q.asked(), test.most)
			})
		})
	}
}

func idleSay(ctx context.Context, rt route.Route, m *deliver.Message, to string) deliver.Outcome {
	switch to[:4] {
	case "held":
		return deliver.Outcome{Result: deliver.Held, Status: "2.0.0", Stage: deliver.StageRoute}
	case "slow":
		return refusal(deliver.TempFail, deliver.StageMail, "421 4.7.0 Too many connections from your address")
	}
	return byName(ctx, rt, m, to)
}

var failingRouter = routerFunc(func(context.Context, route.Query) (route.Route, error) {
	return route.Route{}, errors.New("DNS does not answer")
})

func cannotSettle(queue.Lease, queue.Settlement) error { return errDisk }

// std: Q4 Q5
func TestEveryLaneHasItsTurn(t *testing.T) {
	f := &far{say: byName}
	play(t, f.through(func(w *world) { w.runner.Concurrency = 64 }), func(w *world) {
		for i := range 1000 {
			w.send(queue.To(fmt.Sprintf("hangs@%d.test", i%10))...)
		}
		for i := range 1000 {
			w.send(queue.To(fmt.Sprintf("bob@%d.test", 10+i%3))...)
		}
		w.sleep(time.Second)
		done := 0
		for _, try := range f.triesOf("") {
			if try.outcome.Result.Success() {
				done++
			}
		}
		assert.Equal(t, 1000, done, "ten lanes that hang take 40 slots and no more")
	})
}

// A lane earns attempts, and loses them.
func TestALaneBeginsSlowly(t *testing.T) {
	aol := new(host)
	f := &far{say: aol.say}
	play(t, f.through(), func(w *world) {
		for range 400 {
			w.send(queue.To("bob@aol.test")...)
		}
		w.sleep(time.Second / 2)
		assert.Equal(t, 4, f.busiest())
		w.sleep(time.Second)
		assert.Equal(t, 8, f.busiest())
		w.sleep(8 * time.Second)
		assert.Equal(t, 20, f.busiest())
		aol.down.Store(true)
		w.sleep(2 * time.Minute)
		f.busiest()
		w.sleep(20 * time.Minute)
		assert.Equal(t, 1, f.busiest(), "a destination that is down is probed by one at a time")
	})
}

// A message may have as many recipients as there may be, in one lane or in as many.
func TestManyRecipients(t *testing.T) {
	const n = queue.MaxRecipients / 10
	for _, lanes := range []int{1, n} {
		t.Run(fmt.Sprint(lanes), func(t *testing.T) {
			f := &far{say: byName}
			play(t, f.through(), func(w *world) {
				env := queue.Envelope{From: "ann@example.org"}
				for i := range n - 1 {
					name := [...]string{"bob", "later", "unknown"}[i%3]
					env.To = append(env.To, queue.To(fmt.Sprintf("%s%d@%d.test", name, i, i%lanes))...)
				}
				env.To = append(env.To, queue.To("dead@0.test")...)
				w.send(env.To...)
				w.sleep(time.Minute)
				left := 0
				for _, e := range w.list(queue.Filter{}) {
					left += len(e.To)
					assert.LessOrEqual(t, len(e.Last.Results), queue.MaxResults+10, "the history is bounded")
					kinds := map[string]bool{}
					for _, r := range e.Last.Results {
						kinds[r.Result.String()+" "+string(r.Stage)] = true
					}
					if lanes == 1 {
						assert.Len(t, kinds, 4, "and shows what there is")
					}
				}
				assert.Equal(t, n/3+1, left)
				told := 0
				for _, r := range f.told(t) {
					told += len(r.Recipients)
				}
				assert.Equal(t, n/3, told)
			})
		})
	}
}

// The ways of one entry are tried together, but not more of them than a lane may have attempts; and its history names a few.
func TestManyWays(t *testing.T) {
	f := &far{say: func(context.Context, route.Route, *deliver.Message, string) deliver.Outcome {
		time.Sleep(time.Second)
		return later
	}}
	way := func(q route.Query, suffix string) route.Route {
		return route.Route{Hops: []route.Hop{{Kind: route.Smarthost, Host: q.Recipient[:5] + suffix}}}
	}
	play(t, f.through(func(w *world) {
		w.by(routerFunc(func(_ context.Context, q route.Query) (route.Route, error) { return way(q, ".isp.test"), nil }))
	}), func(w *world) {
		var all []queue.Recipient
		for i := range 500 {
			all = append(all, queue.To(fmt.Sprintf("b%04d@aol.test", i))...)
		}
		w.send(all...)
		w.sleep(time.Minute)
		assert.Equal(t, 20, f.busiest())
		assert.Less(t, len(w.list(queue.Filter{})[0].Last.Route), 1000)
		assert.Zero(t, w.reroute())
		w.by(routerFunc(func(_ context.Context, q route.Query) (route.Route, error) {
			if q.Recipient == "b0499@aol.test" {
				return way(q, ".other.test"), nil
			}
			return way(q, ".isp.test"), nil
		}))
		assert.Equal(t, 1, w.reroute(), "the last one counts too")
	})
}

// Everything at once, in real time: a wake-up that is missed would leave mail in the queue.
func TestNoWakeUpIsMissed(t *testing.T) {
	q := memory.New()
	f := &far{say: func(ctx context.Context, rt route.Route, m *deliver.Message, to string) deliver.Outcome {
		if time.Now().UnixNano()%3 == 0 {
			return [...]deliver.Outcome{later, noAnswer, blocked}[time.Now().UnixMicro()%3]
		}
		return took
	}}
	empty := make(chan struct{}, 1)
	r := &queue.Runner{
		Queue: q, Deliverer: f, Concurrency: 50,
		Schedule: queue.Schedule{Waits: []time.Duration{time.Millisecond, 3 * time.Millisecond}},
		Trace: &queue.Trace{Settled: func(queue.Lease, []deliver.Outcome, queue.Settlement) {
			if s, err := q.Stats(context.Background()); err == nil && s.Messages == 0 {
				select {
				case empty <- struct{}{}:
				default:
				}
			}
		}},
	}
	ended := make(chan error, 1)
	go func() { ended <- r.Run(context.Background()) }()
	var senders sync.WaitGroup
	for s := range 4 {
		senders.Go(func() {
			for i := range 250 {
				to := queue.To(fmt.Sprintf("a@%d.test", i%17), fmt.Sprintf("b@%d.test", s), "c@0.test")
				_, err := q.Enqueue(context.Background(), queue.Envelope{From: "ann@example.org", To: to}, strings.NewReader(plain))
				assert.NoError(t, err)
			}
		})
	}
	senders.Wait()
	for s, err := q.Stats(t.Context()); s.Messages > 0; s, err = q.Stats(t.Context()) {
		require.NoError(t, err)
		<-empty
	}
	require.NoError(t, r.Shutdown(t.Context()))
	require.NoError(t, <-ended)
	taken := 0
	for _, try := range f.triesOf("") {
		if try.outcome.Result.Success() {
			taken++
		}
	}
	assert.GreaterOrEqual(t, taken, 2*1000)
}
