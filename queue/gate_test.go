package queue_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/route"
)

// slowly takes mail in a second, of a smarthost no more than most at once.
func (f *far) slowly(most int) say {
	return func(_ context.Context, rt route.Route, _ *deliver.Message, to string) deliver.Outcome {
		f.mu.Lock()
		open := f.open
		f.mu.Unlock()
		if open > most && rt.Hops[0].Kind == route.Smarthost {
			return refusal(deliver.TempFail, deliver.StageGreeting, "421 4.7.0 Too many connections from your address")
		}
		time.Sleep(time.Second)
		return took
	}
}

// A smarthost takes the mail of many lanes, and not all of it at once.
func TestASmarthostIsNotOverrun(t *testing.T) {
	tests := map[string]struct {
		prepare  func(r *queue.Runner)
		host     int // what the smarthost takes at once
		least    int // what it gets at once
		most     int
		attempts int // that a message may need
	}{
		"by default":        {func(*queue.Runner) {}, 5000, 50, 50, 0},
		"as set":            {func(r *queue.Runner) { r.HostConcurrency = 7 }, 5000, 7, 7, 0},
		"one that says no":  {func(*queue.Runner) {}, 12, 10, 24, 3},
		"with few slots":    {func(r *queue.Runner) { r.Concurrency = 40 }, 5000, 20, 20, 0},
		"with hardly a few": {func(r *queue.Runner) { r.Concurrency = 3 }, 5000, 1, 1, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := new(far)
			f.say = f.slowly(test.host)
			play(t, f.through(func(w *world) {
				test.prepare(w.runner)
				w.by(parse(w.t, "* smtp://mail.isp.test"))
			}), func(w *world) {
				for i := range 600 {
					w.send(queue.To(fmt.Sprintf("bob@%d.test", i))...)
				}
				w.sleep(time.Second)
				assert.LessOrEqual(t, f.busiest(), 8, "it begins with a few")
				for range 15 {
					w.sleep(time.Minute)
					for _, e := range w.list(queue.Filter{State: queue.Waiting}) {
						assert.LessOrEqual(t, e.Attempts, test.attempts, "being turned away is no attempt")
					}
				}
				busiest := f.busiest()
				assert.LessOrEqual(t, busiest, test.most)
				assert.GreaterOrEqual(t, busiest, test.least)
				w.sleep(3 * time.Hour)
				assert.True(t, w.empty())
				taken := 0
				for _, try := range f.triesOf("") {
					if try.outcome.Result.Success() {
						taken++
					}
				}
				assert.Equal(t, 600, taken)
			})
		})
	}
}

// What waits for its turn at a smarthost leaves slots to what goes another way.
func TestASmarthostThatIsSlowDelaysNoOtherWay(t *testing.T) {
	f := &far{say: func(ctx context.Context, rt route.Route, m *deliver.Message, to string) deliver.Outcome {
		if rt.Hops[0].Kind == route.Smarthost {
			time.Sleep(10 * time.Minute)
		}
		return took
	}}
	play(t, f.through(func(w *world) {
		w.runner.Concurrency = 100
		w.by(parse(w.t, "* smtp://mail.isp.test\n*@other.test direct"))
	}), func(w *world) {
		for i := range 1000 {
			w.send(queue.To(fmt.Sprintf("bob@%d.test", i))...)
		}
		w.sleep(time.Minute)
		for range 100 {
			w.send(queue.To("bob@other.test")...)
		}
		w.sleep(time.Minute)
		assert.Len(t, f.triesOf("bob@other.test"), 100)
	})
}

// Where an attempt's time is over in the moment in which its turn comes, the turn is not lost.
func TestATurnThatComesTooLate(t *testing.T) {
	f := &far{say: func(context.Context, route.Route, *deliver.Message, string) deliver.Outcome {
		time.Sleep(10 * time.Second)
		return took
	}}
	play(t, f.through(func(w *world) {
		w.runner.AttemptTime, w.runner.HostConcurrency = 10*time.Second, 1
		w.by(parse(w.t, "* smtp://mail.isp.test"))
	}), func(w *world) {
		for i := range 60 {
			w.send(queue.To(fmt.Sprintf("bob@%d.test", i))...)
		}
		w.sleep(time.Hour)
		assert.True(t, w.empty())
		assert.Len(t, f.triesOf(""), 60)
	})
}

// Shutdown does not wait for those that wait for their turn.
func TestShutdownOfACrowd(t *testing.T) {
	f := new(far)
	f.say = f.slowly(5000)
	play(t, f.through(func(w *world) {
		w.runner.HostConcurrency = 2
		w.by(parse(w.t, "* smtp://mail.isp.test"))
	}), func(w *world) {
		for i := range 500 {
			w.send(queue.To(fmt.Sprintf("bob@%d.test", i))...)
		}
		time.Sleep(time.Second / 2)
		start := time.Now()
		require.NoError(t, w.runner.Shutdown(w.t.Context()))
		assert.LessOrEqual(t, time.Since(start), time.Second)
		left := w.list(queue.Filter{})
		assert.Len(t, left, 498)
		for _, e := range left {
			assert.Equal(t, queue.Waiting, e.State)
			assert.False(t, e.Due.After(time.Now()), "it is due when the next Runner begins")
			assert.Zero(t, e.Attempts)
		}
	})
}

// Thousands of lanes that hang leave room for others for as long as they can.
//
// std: Q5
func TestLanesThatHangTogether(t *testing.T) {
	f := &far{say: byName}
	play(t, f.through(func(w *world) { w.runner.Concurrency = 1000 }), func(w *world) {
		var all []queue.Recipient
		for i := range 500 {
			all = append(all, queue.To(fmt.Sprintf("hangs@%d.test", i))...)
		}
		for range 4 {
			w.send(all...)
		}
		w.sleep(time.Second)
		for i := range 200 {
			w.send(queue.To(fmt.Sprintf("bob@%d.fresh.test", i%20))...)
		}
		w.sleep(time.Second)
		arrived := 0
		for _, try := range f.triesOf("") {
			if strings.HasSuffix(try.to, ".fresh.test") {
				arrived++
			}
		}
		assert.Equal(t, 200, arrived)
	})
}

// A smarthost that is too slow for all of its mail keeps no sender from hearing of a delay, and of the end.
func TestACrowdHidesNoDelay(t *testing.T) {
	f := &far{say: func(_ context.Context, rt route.Route, _ *deliver.Message, to string) deliver.Outcome {
		if rt.Hops[0].Kind != route.Smarthost {
			return took
		}
		time.Sleep(30 * time.Minute)
		return refusal(deliver.TempFail, deliver.StageRcpt, "450 4.2.0 Not now")
	}}
	play(t, f.through(func(w *world) {
		w.runner.Concurrency = 16
		w.runner.Schedule.DelayAfter, w.runner.Schedule.Lifetime = 2*time.Hour, 12*time.Hour
		w.by(parse(w.t, "* smtp://mail.isp.test\n*@example.org direct"))
	}), func(w *world) {
		const lanes = 80
		for i := range lanes {
			w.send(queue.To(fmt.Sprintf("bob@%d.test", i))...)
		}
		w.sleep(5 * time.Hour)
		delays := f.told(t)
		assert.Len(t, delays, lanes)
		for _, r := range delays {
			assert.Equal(t, dsn.Delayed, r.Recipients[0].Action)
			assert.Equal(t, "mail.isp.test", r.Recipients[0].Smarthost)
		}
		w.sleep(12 * time.Hour)
		assert.Len(t, f.told(t), 2*lanes, "and each hears of the failure")
		assert.True(t, w.empty())
	})
}
