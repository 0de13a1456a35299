package queue_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/route"
)

// ask enqueues the plain message to bob@aol.test with what its envelope asks for.
func (w *world) ask(env queue.Envelope) queue.ID {
	w.t.Helper()
	if env.From == "" {
		env.From = "ann@example.org"
	}
	if env.To == nil {
		env.To = queue.To("bob@aol.test")
	}
	id, err := w.queue.Enqueue(w.t.Context(), env, strings.NewReader(plain))
	require.NoError(w.t, err)
	return id
}

func (w *world) within(d time.Duration, notify bool) deliver.DeliverBy {
	return deliver.DeliverBy{Time: w.start.Add(d), Notify: notify}
}

// A message that is of no use any more comes back at that very time, though no try is due then, and is not tried again.
//
// std: C19 D11
func TestWhatIsOverdueComesBack(t *testing.T) {
	for name, far := range map[string]struct {
		b    lab.Behaviour
		said int
	}{
		"refused":     {lab.Refuse(lab.AtRcpt, "450 4.2.0 Not now"), 450},
		"unreachable": {lab.Drop(lab.AtConnect), 0},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, nil, func(w *world) {
				w.server("aol.test", lab.Offer{Capabilities: append(lab.DefaultCapabilities(), "DELIVERBY")}, far.b)
				id := w.ask(queue.Envelope{DeliverBy: w.within(90*time.Minute, false)})
				w.sleep(90*time.Minute - time.Second)
				assert.Empty(t, w.home.Mailbox())
				tries := len(w.triesOf("aol.test"))
				w.sleep(2 * time.Second)
				assert.Equal(t, tries+1, len(w.triesOf("aol.test")), "settled")
				w.sleep(6 * 24 * time.Hour)
				reports := w.reports(w.home)
				require.Len(t, reports, 1)
				assert.WithinDuration(t, w.start.Add(90*time.Minute), w.home.Mailbox()[0].Received, time.Second)
				assert.WithinDuration(t, w.start.Add(90*time.Minute), reports[0].DeliverBy, time.Second)
				r := reports[0].Recipients[0]
				assert.Equal(t, dsn.Failed, r.Action)
				assert.Equal(t, dsn.Status("5.4.7"), r.Status)
				assert.Equal(t, far.said, r.Diagnostic.Code, "the last try tells why")
				assert.Equal(t, string(id), r.LogID)
				assert.Contains(t, strings.Join(strings.Fields(string(w.home.Mailbox()[0].Body)), " "), "was sent with the request to return it if it was not delivered by")
				assert.True(t, w.empty())
			})
		})
	}
}

// A try that is under way when the time is over is the last one, whatever it brings but success.
//
// std: C19
func TestOverdueWhileItIsTried(t *testing.T) {
	for result, want := range map[deliver.Result]dsn.Status{deliver.TempFail: "5.4.7", deliver.PermFail: "5.1.1", deliver.Delivered: ""} {
		t.Run(result.String(), func(t *testing.T) {
			f := &far{say: func(context.Context, route.Route, *deliver.Message, string) deliver.Outcome {
				time.Sleep(10 * time.Minute)
				return map[deliver.Result]deliver.Outcome{deliver.TempFail: later, deliver.PermFail: unknown, deliver.Delivered: took}[result]
			}}
			play(t, f.through(), func(w *world) {
				w.ask(queue.Envelope{DeliverBy: w.within(5*time.Minute, false)})
				w.sleep(6 * 24 * time.Hour)
				assert.Len(t, f.triesOf("bob@aol.test"), 1)
				assert.True(t, w.empty())
				if want == "" {
					assert.Empty(t, f.told(t))
					return
				}
				require.Len(t, f.told(t), 1)
				assert.Equal(t, want, f.told(t)[0].Recipients[0].Status)
				assert.Equal(t, dsn.Failed, f.told(t)[0].Recipients[0].Action)
			})
		})
	}
}

// A sender that wants to hear when its time is over hears of it then, once, and the message goes on.
//
// std: C19 D9 D11
func TestLateByTheSendersTime(t *testing.T) {
	play(t, nil, func(w *world) {
		w.server("aol.test", lab.Refuse(lab.AtRcpt, "450 4.2.0 Not now"))
		w.ask(queue.Envelope{DeliverBy: w.within(90*time.Minute, true)})
		w.sleep(90*time.Minute - time.Second)
		assert.Empty(t, w.home.Mailbox())
		w.sleep(2 * time.Second)
		require.Len(t, w.home.Mailbox(), 1)
		w.sleep(24 * time.Hour)
		reports := w.reports(w.home)
		require.Len(t, reports, 1, "the Schedule's own warning would be a second one")
		assert.WithinDuration(t, w.start.Add(90*time.Minute), reports[0].DeliverBy, time.Second)
		r := reports[0].Recipients[0]
		assert.Equal(t, dsn.Delayed, r.Action)
		assert.Equal(t, dsn.Status("4.4.7"), r.Status)
		assert.Equal(t, 450, r.Diagnostic.Code)
		assert.WithinDuration(t, w.start.Add(5*24*time.Hour), r.RetryUntil, time.Second)
		w.sleep(5 * 24 * time.Hour)
		require.Len(t, w.home.Mailbox(), 2)
		assert.Equal(t, dsn.Status("4.2.0"), w.reports(w.home)[1].Recipients[0].Status, "it ends with its lifetime, as any other")
	})
}

// std: C19 D3 D11
func TestWhoHearsOfDeliverBy(t *testing.T) {
	none, delayed, failed := []dsn.Action(nil), []dsn.Action{dsn.Delayed}, []dsn.Action{dsn.Failed}
	tests := []struct {
		name, notify string
		by           deliver.DeliverBy // its Time is since the start of the world
		after        time.Duration
		far          deliver.Outcome
		want         []dsn.Action
	}{
		{"R in time", "", deliver.DeliverBy{}, time.Hour, took, none},
		{"R", "FAILURE", deliver.DeliverBy{}, time.Hour, later, failed},
		{"R, never", "NEVER", deliver.DeliverBy{}, time.Hour, later, none},
		{"R, success", "SUCCESS", deliver.DeliverBy{}, time.Hour, later, none},
		{"R, over when it came", "", deliver.DeliverBy{}, -time.Second, took, failed},
		{"R, after the lifetime", "", deliver.DeliverBy{}, 6 * 24 * time.Hour, later, []dsn.Action{dsn.Delayed, dsn.Failed}},
		{"N in time", "", deliver.DeliverBy{Notify: true}, time.Hour, took, none},
		{"N", "DELAY", deliver.DeliverBy{Notify: true}, time.Hour, later, delayed},
		{"N, no delays", "FAILURE", deliver.DeliverBy{Notify: true}, time.Hour, later, failed},
		{"N, never", "NEVER", deliver.DeliverBy{Notify: true}, time.Hour, later, none},
		{"N, over when it came", "", deliver.DeliverBy{Notify: true}, -time.Second, later, []dsn.Action{dsn.Delayed, dsn.Failed}},
		{"N, over when it came, and delivered", "", deliver.DeliverBy{Notify: true}, -time.Second, took, none},
		{"trace", "", deliver.DeliverBy{Notify: true, Trace: true}, time.Hour, took, []dsn.Action{dsn.Relayed}},
		{"trace, failures", "FAILURE", deliver.DeliverBy{Trace: true}, time.Hour, took, []dsn.Action{dsn.Relayed}},
		{"trace, never", "NEVER", deliver.DeliverBy{Trace: true}, time.Hour, took, none},
		{"trace, nothing relayed", "", deliver.DeliverBy{Trace: true}, time.Hour, unknown, failed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := &far{say: always(test.far)}
			play(t, f.through(), func(w *world) {
				test.by.Time = w.start.Add(test.after)
				w.ask(queue.Envelope{To: []queue.Recipient{to("bob@aol.test", test.notify)}, DeliverBy: test.by})
				w.sleep(7 * 24 * time.Hour)
				var got []dsn.Action
				for _, r := range f.told(t) {
					got = append(got, r.Recipients[0].Action)
				}
				assert.Equal(t, test.want, got)
				assert.True(t, w.empty())
				if test.by.Notify || test.after < 0 || test.far.Result != deliver.TempFail {
					return
				}
				for _, one := range f.triesOf("bob@aol.test") {
					assert.True(t, one.at.Before(test.by.Time), "tried after its time")
				}
			})
		})
	}
	f := &far{say: always(later)}
	play(t, f.through(), func(w *world) { // the null sender hears of nothing
		_, err := w.queue.Enqueue(w.t.Context(), queue.Envelope{To: queue.To("bob@aol.test"), DeliverBy: w.within(time.Hour, false)}, strings.NewReader(plain))
		require.NoError(t, err)
		w.sleep(time.Hour + time.Second)
		assert.True(t, w.empty())
		assert.Contains(t, w.logText(), "5.4.7")
	})
}

// What is turned away in a crowd for a smarthost all the time comes back in time all the same.
//
// std: C19
func TestOverdueInACrowd(t *testing.T) {
	f := &far{say: func(ctx context.Context, _ route.Route, m *deliver.Message, to string) deliver.Outcome {
		if strings.HasPrefix(to, "slow") {
			time.Sleep(50 * time.Minute)
		}
		return took
	}}
	play(t, f.through(func(w *world) {
		w.by(parse(w.t, "* smtp://mail.isp.test\n*@example.org direct"))
		w.runner.Concurrency, w.runner.HostConcurrency = 6, 1
	}), func(w *world) {
		for range 3 {
			w.send(queue.To("slow1@one.test", "slow@two.test", "slow@three.test", "slow@four.test")...)
		}
		w.sleep(time.Minute)
		w.ask(queue.Envelope{DeliverBy: w.within(20*time.Minute, false)})
		w.sleep(70 * time.Minute)
		require.Len(t, f.told(t), 1)
		assert.Equal(t, dsn.Status("5.4.7"), f.told(t)[0].Recipients[0].Status)
		assert.Empty(t, f.triesOf("bob@aol.test"))
		assert.WithinDuration(t, w.start.Add(20*time.Minute), f.triesOf("ann@example.org")[0].at, time.Second)
		w.sleep(24 * time.Hour)
	})
}

// std: C17 C19
func TestTheDelivererGetsWhatTheEnvelopeAsksFor(t *testing.T) {
	var got *deliver.Message
	f := &far{say: func(_ context.Context, _ route.Route, m *deliver.Message, _ string) deliver.Outcome {
		got = m
		return took
	}}
	play(t, f.through(), func(w *world) {
		env := queue.Envelope{Binary: true, RequireTLS: true, Priority: 7, DeliverBy: deliver.DeliverBy{Time: w.start.Add(time.Hour), Notify: true, Trace: true}}
		w.ask(env)
		w.sleep(time.Second)
		require.NotNil(t, got)
		assert.True(t, got.Binary)
		assert.True(t, got.RequireTLS)
		assert.Equal(t, 7, got.Priority)
		assert.True(t, got.DeliverBy.Time.Equal(env.DeliverBy.Time))
		assert.True(t, got.DeliverBy.Notify)
		assert.True(t, got.DeliverBy.Trace)
	})
}

// What is more urgent goes first where mail waits for its turn.
//
// std: C19
func TestPriorityInALane(t *testing.T) {
	f := &far{say: func(context.Context, route.Route, *deliver.Message, string) deliver.Outcome {
		time.Sleep(time.Minute)
		return took
	}}
	play(t, f.through(func(w *world) { w.runner.LaneConcurrency = 1 }), func(w *world) {
		for _, p := range []int{0, -9, 0, 3, 9} {
			w.ask(queue.Envelope{Priority: p, To: queue.To(strings.Repeat("p", p+10) + "@aol.test")})
			w.sleep(time.Second)
		}
		w.sleep(time.Hour)
		var order []int
		for _, one := range f.triesOf("") {
			order = append(order, strings.IndexByte(one.to, '@')-10)
		}
		assert.Equal(t, []int{0, 9, 3, 0, -9}, order)
	})
}

// Reports are protected as their message was, and as urgent, and never return a body that was to be protected.
//
// std: C17 C19
func TestReportsKeepWhatTheirMessageAskedFor(t *testing.T) {
	var mu sync.Mutex
	var reports []queue.Envelope
	f := &far{say: always(unknown)}
	play(t, f.through(func(w *world) {
		w.runner.Trace = &queue.Trace{Settled: func(_ queue.Lease, _ []deliver.Outcome, s queue.Settlement) {
			mu.Lock()
			defer mu.Unlock()
			for _, r := range s.Reports {
				reports = append(reports, r.Envelope)
			}
		}}
	}), func(w *world) {
		w.ask(queue.Envelope{RequireTLS: true, Priority: 4, Return: dsn.ReturnFull})
		w.sleep(time.Second)
		w.ask(queue.Envelope{Return: dsn.ReturnFull})
		w.sleep(time.Second)
		mu.Lock()
		defer mu.Unlock()
		require.Len(t, reports, 2)
		assert.True(t, reports[0].RequireTLS)
		assert.Equal(t, 4, reports[0].Priority)
		assert.Empty(t, reports[0].From)
		assert.False(t, reports[1].RequireTLS)
		assert.Zero(t, reports[1].Priority)
		told := f.told(t)
		require.Len(t, told, 2)
		assert.True(t, told[0].HeadersOnly, "RET=FULL does not count (RFC 8689, section 5)")
		assert.NotContains(t, string(told[0].Original), "Hello Bob.")
		assert.False(t, told[1].HeadersOnly)
	})
}
