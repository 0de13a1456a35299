package queue_test

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/route"
)

func TestSettingsThatMakeNoSenseHaveTheirDefault(t *testing.T) {
	f := &far{say: always(took)}
	play(t, f.through(func(w *world) {
		w.runner.Concurrency, w.runner.LaneConcurrency, w.runner.AttemptTime, w.runner.MaxHops = -1, -1, -1, -1
	}), func(w *world) {
		w.send(queue.To("bob@aol.test")...)
		w.sleep(time.Second)
		assert.Len(t, f.triesOf("bob@aol.test"), 1)
		assert.True(t, w.empty())
	})
}

func TestOneAttemptAtATime(t *testing.T) {
	f := &far{say: func(context.Context, route.Route, *deliver.Message, string) deliver.Outcome {
		time.Sleep(time.Second)
		return took
	}}
	play(t, f.through(func(w *world) { w.runner.LaneConcurrency = 1 }), func(w *world) {
		for range 10 {
			w.send(queue.To("bob@aol.test")...)
		}
		w.sleep(time.Minute)
		assert.Len(t, f.triesOf("bob@aol.test"), 10)
		assert.Equal(t, 1, f.busiest())
	})
}

func TestAnAttemptWithoutEndKeepsItsLease(t *testing.T) {
	f := &far{say: func(context.Context, route.Route, *deliver.Message, string) deliver.Outcome {
		time.Sleep(48 * time.Hour)
		return took
	}}
	play(t, f.through(func(w *world) { w.runner.AttemptTime = math.MaxInt64 }), func(w *world) {
		w.send(queue.To("bob@aol.test")...)
		w.sleep(72 * time.Hour)
		assert.Len(t, f.triesOf("bob@aol.test"), 1, "it is made once")
		assert.True(t, w.empty())
	})
}

// An attempt that takes longer than it may is made again, whatever the Deliverer's own timeouts are.
func TestAttemptTimeEndsAnAttempt(t *testing.T) {
	f := &far{say: byName}
	play(t, f.through(func(w *world) {
		w.runner.AttemptTime = 30 * time.Second
		w.runner.Schedule.Lifetime = 10 * time.Minute
	}), func(w *world) {
		w.send(queue.To("hangs@aol.test")...)
		w.sleep(time.Hour)
		tries := f.triesOf("hangs@aol.test")
		require.Len(t, tries, 3)
		assert.Equal(t, 30*time.Second, tries[0].at.Sub(w.start), "each try was ended")
		reports := f.told(t)
		require.Len(t, reports, 1)
		assert.Equal(t, plain, string(reports[0].Original), "the report has the message though the attempt's time was over")
	})
}

func TestSchedulesAtTheirLimits(t *testing.T) {
	tests := []struct {
		name     string
		schedule queue.Schedule
		tries    []time.Duration // within a day
		reports  []dsn.Action
	}{
		{
			"no wait is a minute",
			queue.Schedule{Waits: []time.Duration{0, -time.Hour}, Jitter: -1, Lifetime: 3 * time.Minute},
			[]time.Duration{0, time.Minute, 2 * time.Minute, 3 * time.Minute},
			[]dsn.Action{dsn.Failed},
		},
		{
			"an endless wait ends with the lifetime",
			queue.Schedule{Waits: []time.Duration{math.MaxInt64}, Lifetime: 12 * time.Hour},
			[]time.Duration{0, 4 * time.Hour, 12 * time.Hour},
			[]dsn.Action{dsn.Delayed, dsn.Failed},
		},
		{
			"a delay after the lifetime is none",
			queue.Schedule{Waits: []time.Duration{2 * time.Hour}, Jitter: -1, DelayAfter: 6 * time.Hour, Lifetime: 5 * time.Hour},
			[]time.Duration{0, 2 * time.Hour, 4 * time.Hour, 5 * time.Hour},
			[]dsn.Action{dsn.Failed},
		},
		{
			"a negative delay is never told",
			queue.Schedule{Waits: []time.Duration{10 * time.Hour}, Jitter: -1, DelayAfter: -1, Lifetime: 15 * time.Hour},
			[]time.Duration{0, 10 * time.Hour, 15 * time.Hour},
			[]dsn.Action{dsn.Failed},
		},
		{
			"a negative lifetime is one try",
			queue.Schedule{Lifetime: -1},
			[]time.Duration{0},
			[]dsn.Action{dsn.Failed},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := &far{say: byName}
			play(t, f.through(func(w *world) { w.runner.Schedule = test.schedule }), func(w *world) {
				w.send(queue.To("later@aol.test")...)
				w.sleep(24 * time.Hour)
				var at []time.Duration
				for _, try := range f.triesOf("later@aol.test") {
					at = append(at, try.at.Sub(w.start))
				}
				assert.Equal(t, test.tries, at[:min(len(at), 10)])
				var actions []dsn.Action
				for _, r := range f.told(t) {
					actions = append(actions, r.Recipients[0].Action)
				}
				assert.Equal(t, test.reports, actions)
			})
		})
	}
}

// std: Q6
func TestJitterIsAShare(t *testing.T) {
	f := &far{say: byName}
	play(t, f.through(func(w *world) {
		w.runner.Schedule = queue.Schedule{Waits: []time.Duration{time.Hour}, Jitter: 50, DelayAfter: -1}
	}), func(w *world) {
		w.send(queue.To("later@aol.test")...)
		w.sleep(5 * 24 * time.Hour)
		tries := f.triesOf("later@aol.test")
		for i := range len(tries) - 2 { // the last one is when it expires
			assert.GreaterOrEqual(t, tries[i+1].at.Sub(tries[i].at), 5*time.Minute, "no wait is cut to nothing")
		}
	})
}

func TestGreylistedMailIsTriedSoonAndBlockedMailSlowly(t *testing.T) {
	greylisted := refusal(deliver.TempFail, deliver.StageRcpt, "450 4.7.1 Greylisted, try again later")
	full := refusal(deliver.TempFail, deliver.StageRcpt, "452 4.2.2 Mailbox full")
	minutes := func(m ...int) (d []time.Duration) {
		for _, m := range m {
			d = append(d, time.Duration(m)*time.Minute)
		}
		return d
	}
	for _, test := range []struct { // std: Q6
		name string
		say  deliver.Outcome
		want []time.Duration
	}{
		{"greylisted", greylisted, minutes(0, 5, 10, 15, 20, 35, 65, 125)},
		{"later", later, minutes(0, 5, 20, 50, 110)},
		{"full", full, minutes(0, 30, 90)},
		{"blocked", blocked, minutes(0, 30, 90)},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := &far{say: always(test.say)}
			play(t, f.through(), func(w *world) {
				w.send(queue.To("bob@aol.test")...)
				w.sleep(150 * time.Minute)
				var at []time.Duration
				for _, try := range f.triesOf("bob@aol.test") {
					at = append(at, try.at.Sub(w.start))
				}
				assert.Equal(t, test.want, at)
			})
		})
	}
}

func TestRunAndShutdownInAnyOrder(t *testing.T) {
	f := &far{say: byName}
	t.Run("shut down before it ran", func(t *testing.T) {
		r := &queue.Runner{}
		require.NoError(t, r.Shutdown(t.Context()))
		require.NoError(t, r.Shutdown(t.Context()), "again")
		assert.NoError(t, r.Run(t.Context()), "there is nothing more to do")
	})
	t.Run("ctx ends", func(t *testing.T) {
		play(t, f.through(), func(w *world) {
			require.NoError(t, w.runner.Shutdown(w.t.Context()))
			w.send(queue.To("hangs@aol.test")...)
			r := &queue.Runner{Queue: w.queue, Deliverer: f, Logger: w.runner.Logger}
			ctx, cancel := context.WithCancel(w.t.Context())
			ended := make(chan error)
			go func() { ended <- r.Run(ctx) }()
			w.sleep(time.Second)
			cancel()
			require.ErrorIs(t, <-ended, context.Canceled)
			require.NoError(t, r.Shutdown(w.t.Context()), "it has ended")
			list, _, err := w.queue.List(w.t.Context(), queue.Filter{State: queue.Waiting}, "", 0)
			require.NoError(t, err)
			require.Len(t, list, 1)
			assert.Zero(t, list[0].Attempts)
			assert.NotContains(t, w.logText(), "level=ERROR")
		})
	})
	t.Run("ctx ends while Shutdown waits", func(t *testing.T) {
		play(t, f.through(), func(w *world) {
			require.NoError(t, w.runner.Shutdown(w.t.Context()))
			w.send(queue.To("hangs@aol.test")...)
			r := &queue.Runner{Queue: w.queue, Deliverer: f}
			ctx, cancel := context.WithCancel(w.t.Context())
			ended := make(chan error, 2)
			go func() { ended <- r.Run(ctx) }()
			w.sleep(time.Second)
			go func() { ended <- r.Shutdown(w.t.Context()) }()
			w.sleep(time.Second)
			start := time.Now()
			cancel()
			<-ended
			<-ended
			assert.Zero(t, time.Since(start))
		})
	})
	t.Run("the queue is closed under an attempt", func(t *testing.T) {
		play(t, f.through(), func(w *world) {
			require.NoError(t, w.runner.Shutdown(w.t.Context()))
			w.send(queue.To("hangs@aol.test")...)
			w.send(queue.To("later@other.test")...)
			r := &queue.Runner{Queue: w.queue, Deliverer: f}
			ended := make(chan error, 1)
			go func() { ended <- r.Run(w.t.Context()) }()
			w.sleep(time.Second)
			require.NoError(t, w.queue.Close())
			require.ErrorIs(t, <-ended, queue.ErrClosed)
			assert.Less(t, time.Since(w.start), 6*time.Minute, "it ends with the next call, and waits for no attempt")
		})
	})
	t.Run("the queue is closed", func(t *testing.T) {
		play(t, f.through(), func(w *world) {
			require.NoError(t, w.runner.Shutdown(w.t.Context()))
			require.NoError(t, w.queue.Close())
			r := &queue.Runner{Queue: w.queue, Deliverer: f}
			require.ErrorIs(t, r.Run(w.t.Context()), queue.ErrClosed)
		})
	})
}
