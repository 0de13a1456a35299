package queue_test

import (
	"context"
	"fmt"
	"sync/atomic"
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

// A host may be down: then nobody answers, and that takes a while.
type host struct{ down atomic.Bool }

func (h *host) say(context.Context, route.Route, *deliver.Message, string) deliver.Outcome {
	if h.down.Load() {
		time.Sleep(30 * time.Second)
		return noAnswer
	}
	time.Sleep(time.Second)
	return took
}

// std: Q7
func TestAHostThatSaysNothingIsNotTimedOutMessageByMessage(t *testing.T) {
	play(t, nil, func(w *world) {
		aol := w.server("aol.test", lab.Hang(lab.AtGreeting))
		for range 500 {
			w.send(queue.To("bob@aol.test")...)
		}
		w.sleep(5 * time.Hour)
		assert.Len(t, w.home.Mailbox(), 500, "each sender hears of the delay in time")
		total, _ := aol.Connections()
		assert.Less(t, total, 100)
	})
}

// What fails because its time is over says no less about the destination.
func TestAnOutageGoesOnWhenMailExpires(t *testing.T) {
	f := &far{say: always(noAnswer)}
	play(t, f.through(func(w *world) {
		w.runner.Schedule = queue.Schedule{Waits: []time.Duration{time.Hour}, Jitter: -1, DelayAfter: -1, Lifetime: 2 * time.Hour}
	}), func(w *world) {
		for range 20 {
			w.send(queue.To("bob@aol.test")...)
			w.sleep(time.Second)
		}
		w.sleep(119 * time.Minute)
		before := len(f.triesOf(""))
		w.sleep(10 * time.Minute)
		assert.True(t, w.empty())
		assert.Len(t, f.told(t), 20)
		assert.LessOrEqual(t, len(f.triesOf(""))-before, 3)
		for _, r := range f.told(t) {
			assert.WithinDuration(t, w.start.Add(2*time.Hour), r.Recipients[0].LastAttempt, 10*time.Minute, "one asks again in this time")
		}
	})
}

// Mail that lay still for longer than its lifetime, because nothing ran, has a try of its own.
func TestTheOnlyTryIsARealOne(t *testing.T) {
	f := &far{say: always(noAnswer)}
	play(t, f.through(func(w *world) {
		for range 20 {
			w.send(queue.To("bob@aol.test")...)
		}
		time.Sleep(6 * 24 * time.Hour)
	}), func(w *world) {
		w.sleep(time.Hour)
		assert.True(t, w.empty())
		assert.Len(t, f.triesOf("bob@aol.test"), 20)
		assert.Len(t, f.told(t), 20)
	})
}

// The outage of a smarthost that has direct delivery behind it says nothing about other domains.
func TestAnOutageIsOfADestinationAlone(t *testing.T) {
	tests := []struct {
		routes string
		say    say    // of what goes first
		other  string // the recipient that comes next
		tried  bool
	}{
		{"* smtp://a.isp.test", always(noAnswer), "bob@other.test", false},
		{"* smtp://a.isp.test, on unreachable direct", always(noAnswer), "bob@other.test", true},
		{"*@other.test smtp://u@a.isp.test secret=env:QUEUE_TEST\n* smtp://a.isp.test", always(noAnswer), "bob@other.test", true},
		{"*@other.test smtp://a.isp.test:26\n* smtp://a.isp.test", always(noAnswer), "bob@other.test", true},
		{"* direct", always(noAnswer), "bob@other.test", true},
		{"* direct", always(noAnswer), "ann@aol.test", false},
		{"ann@aol.test direct tls=verified", always(noAnswer), "ann@aol.test", false}, // the hosts are the same
		{"ann@aol.test direct source=192.0.2.7", always(noAnswer), "ann@aol.test", true},
		{"* direct, on blocked smtp://mail.isp.test", always(noAnswer), "ann@aol.test", false},
		{"* direct, on unreachable smtp://mail.isp.test", always(noAnswer), "bob@other.test", true},
	}
	t.Setenv("QUEUE_TEST", "s3cret")
	for _, test := range tests {
		t.Run(test.routes+" "+test.other, func(t *testing.T) {
			f := &far{say: test.say}
			play(t, f.through(), func(w *world) {
				w.by(parse(t, test.routes))
				w.send(queue.To("bob@aol.test")...)
				w.sleep(time.Second)
				w.send(queue.To(test.other)...)
				w.sleep(time.Second)
				assert.Equal(t, test.tried, len(f.triesOf(test.other)) > 0)
				assert.NotContains(t, w.logText(), "s3cret")
			})
		})
	}
}

// std: Q7
func TestASmarthostThatIsDownIsAskedByOneAtATime(t *testing.T) {
	isp := new(host)
	isp.down.Store(true)
	f := &far{say: isp.say}
	play(t, f.through(func(w *world) {
		w.runner.Schedule.Jitter = 0 // the default
		w.by(parse(w.t, "* smtp://mail.isp.test\n*@example.org direct"))
	}), func(w *world) {
		w.send(queue.To("bob@first.test")...)
		w.sleep(time.Minute)
		f.busiest()
		for i := range 300 {
			w.send(queue.To(fmt.Sprintf("bob@%d.test", i))...)
		}
		for range 10 * 360 {
			w.sleep(10 * time.Second)
			s, err := w.queue.Stats(w.t.Context())
			require.NoError(t, err)
			assert.LessOrEqual(t, s.Leased, 1, "nobody waits for the answer")
		}
		assert.LessOrEqual(t, f.busiest(), 1)
		assert.Less(t, len(f.triesOf("")), 100)
		assert.Len(t, f.told(t), 301, "each sender hears of the delay")

		isp.down.Store(false)
		w.send(queue.To("bob@last.test")...)
		w.sleep(15 * time.Minute)
		s, err := w.queue.Stats(w.t.Context())
		require.NoError(t, err)
		assert.Zero(t, s.Waiting, "when it is back, the mail of all lanes goes")
		assert.LessOrEqual(t, f.busiest(), 20, "but not all at once")
	})
}

// Asking a smarthost again and again with a password that it refuses would lock the account.
func TestALoginThatIsRefusedIsAnOutage(t *testing.T) {
	t.Setenv("QUEUE_TEST", "s3cret")
	play(t, nil, func(w *world) {
		isp := w.net.Server("mail.isp.test:587", lab.Offer{TLS: lab.TLSOffered, Users: map[string]string{"u": "n3w"}})
		w.by(parse(t, "* submission://u@mail.isp.test secret=env:QUEUE_TEST\n*@example.org direct"))
		for i := range 200 {
			w.send(queue.To(fmt.Sprintf("bob@%d.test", i))...)
			w.sleep(time.Second)
		}
		w.sleep(2 * time.Hour)
		total, _ := isp.Connections()
		assert.Less(t, total, 40)
		assert.Empty(t, w.home.Mailbox(), "no sender is told: it is the administrator's to mend")

		t.Setenv("QUEUE_TEST", "n3w")
		w.by(parse(t, "* submission://u@mail.isp.test secret=env:QUEUE_TEST\n*@example.org direct"))
		n, err := w.runner.Reroute(w.t.Context())
		require.NoError(t, err)
		assert.Positive(t, n) // what it frees first wakes others before it comes to them
		w.sleep(time.Second)
		assert.Len(t, isp.Mailbox(), 200, "the new secret is used at once")
		assert.NotContains(t, w.logText(), "s3cret")
		assert.NotContains(t, w.logText(), "n3w")
	})
}

// New routes are asked at once, also where the old ones were in trouble just now.
func TestRerouteAsksAgainAtOnce(t *testing.T) {
	var mended atomic.Bool
	f := &far{say: func(context.Context, route.Route, *deliver.Message, string) deliver.Outcome {
		if mended.Load() {
			return took
		}
		o := refusal(deliver.TempFail, deliver.StageAuth, "535 5.7.8 Wrong password")
		o.RouteTrouble = true
		return o
	}}
	play(t, f.through(func(w *world) { w.by(parse(w.t, "* smtp://mail.isp.test")) }), func(w *world) {
		w.send(queue.To("bob@aol.test")...)
		w.sleep(time.Second)
		mended.Store(true)
		assert.Equal(t, 1, w.reroute())
		assert.Len(t, f.triesOf("bob@aol.test"), 2)
		assert.True(t, w.empty())
	})
}

// A report waits for the sender's own domain like any other mail.
func TestAReportToADomainThatIsDown(t *testing.T) {
	play(t, nil, func(w *world) {
		w.server("aol.test", lab.Refuse(lab.AtRcpt, "550 5.1.1 No such user"))
		w.home.Behave(lab.Drop(lab.AtConnect))
		for range 10 {
			w.send(queue.To("bob@aol.test")...)
		}
		w.sleep(24 * time.Hour)
		w.home.Behave(lab.AcceptAll)
		w.sleep(5 * time.Hour)
		reports := w.reports(w.home)
		require.Len(t, reports, 10)
		for _, r := range reports {
			assert.Equal(t, dsn.Failed, r.Recipients[0].Action)
		}
		assert.True(t, w.empty())
	})
}

// std: Q6
func TestWhatAProviderRefusesIsNotTriedWithEachSuccess(t *testing.T) {
	tests := map[string]struct {
		routes string
		most   int // tries in a day
	}{
		"by the same way": {"* direct", 25}, // a wake after 5 min, 10 min … 4 h beside its own times
		"by another way":  {"*@aol.test direct\nfrom:boss@example.org smtp://mail.isp.test\nbob@aol.test smtp://mail.isp.test", 12},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := &far{say: byName}
			play(t, f.through(func(w *world) { w.by(parse(w.t, test.routes)) }), func(w *world) {
				w.send(queue.To("blocked@aol.test")...)
				for range 24 * 60 {
					w.send(queue.To("bob@aol.test")...)
					w.sleep(time.Minute)
				}
				assert.Len(t, f.triesOf("bob@aol.test"), 24*60)
				assert.LessOrEqual(t, len(f.triesOf("blocked@aol.test")), test.most)
				assert.Greater(t, len(f.triesOf("blocked@aol.test")), 5)
			})
		})
	}
}

// A destination that comes and goes is news each time that it is back.
func TestADestinationThatIsBackAgain(t *testing.T) {
	aol := new(host)
	f := &far{say: aol.say}
	play(t, f.through(), func(w *world) {
		for range 5 {
			aol.down.Store(true)
			for range 10 {
				w.send(queue.To("bob@aol.test")...)
			}
			w.sleep(3 * time.Hour)
			aol.down.Store(false)
			w.send(queue.To("bob@aol.test")...)
			w.sleep(11 * time.Minute) // as long as it may be left alone
			assert.True(t, w.empty())
		}
	})
}

// Attempts that began together find out one after the other about one outage, and not about many.
func TestAttemptsThatBeganTogetherFindOneOutage(t *testing.T) {
	lasts := []time.Duration{10 * time.Second, 50 * time.Second, 100 * time.Second, 170 * time.Second}
	var began atomic.Int32
	f := &far{say: func(context.Context, route.Route, *deliver.Message, string) deliver.Outcome {
		if n := int(began.Add(1)); n <= len(lasts) {
			time.Sleep(lasts[n-1])
			return noAnswer
		}
		return took
	}}
	play(t, f.through(), func(w *world) {
		for range lasts {
			w.send(queue.To("bob@aol.test")...)
		}
		w.sleep(175 * time.Second)
		w.send(queue.To("new@aol.test")...)
		w.sleep(time.Second)
		assert.Len(t, f.triesOf("new@aol.test"), 1)
	})
}

// What was before it is not known to a Runner, and the first success is news.
func TestADestinationThatIsBackAfterARestart(t *testing.T) {
	aol := new(host)
	aol.down.Store(true)
	f := &far{say: aol.say}
	play(t, f.through(), func(w *world) {
		for range 20 {
			w.send(queue.To("bob@aol.test")...)
		}
		w.sleep(10 * time.Hour)
		require.NoError(t, w.runner.Shutdown(w.t.Context()))
		aol.down.Store(false)
		r := &queue.Runner{Queue: w.queue, Deliverer: f}
		go r.Run(w.t.Context())
		w.send(queue.To("bob@aol.test")...)
		w.sleep(time.Minute)
		assert.True(t, w.empty())
		require.NoError(t, r.Shutdown(w.t.Context()))
	})
}

// A destination that is back gets its mail gently, and soon also where it refuses some of it for ever.
func TestADestinationThatIsBackGetsItsMailGently(t *testing.T) {
	aol := new(host)
	f := &far{say: func(ctx context.Context, rt route.Route, m *deliver.Message, to string) deliver.Outcome {
		o := aol.say(ctx, rt, m, to)
		if to == "blocked@aol.test" && o.Result.Success() {
			return blocked
		}
		return o
	}}
	play(t, f.through(), func(w *world) {
		w.send(queue.To("blocked@aol.test")...)
		for range 24 * 60 {
			w.send(queue.To("bob@aol.test")...)
			w.sleep(time.Minute)
		}
		aol.down.Store(true)
		for range 200 {
			w.send(queue.To("bob@aol.test")...)
		}
		w.sleep(30 * time.Minute)
		f.busiest()
		asks := 0
		for f.busiest() > 0 { // the one that asks just now finds nobody
			w.sleep(time.Second / 2)
		}
		aol.down.Store(false)
		for w.sleep(time.Second / 2); f.busiest() == 0; asks++ {
			w.sleep(time.Second / 2)
		}
		assert.LessOrEqual(t, asks, 2*10*60+2, "one asks after ten minutes at the latest")
		assert.LessOrEqual(t, f.busiest(), 1)
		w.sleep(time.Second)
		assert.Equal(t, 2, f.busiest())
		w.sleep(5 * time.Minute)
		assert.Len(t, w.list(queue.Filter{Lane: "aol.test"}), 1, "all but what is refused")
	})
}

// When a router is mended, the first success is news for what waited for a route.
func TestARouterThatIsMendedFreesWhatWaits(t *testing.T) {
	f := &far{say: byName}
	play(t, f.through(), func(w *world) {
		for range 10 { // long enough for the lane to be known
			w.send(queue.To("bob@aol.test")...)
			w.sleep(time.Minute)
		}
		w.by(failingRouter)
		for range 10 {
			w.send(queue.To("bob@aol.test")...)
		}
		w.sleep(2 * time.Hour)
		w.by(route.Direct)
		w.send(queue.To("new@aol.test")...)
		w.sleep(time.Minute)
		assert.True(t, w.empty())
	})
}

// A message that breaks the deliverer is no news of the destination: it keeps its times.
func TestAMessageThatBreaksTheDelivererIsNotWoken(t *testing.T) {
	f := &far{say: func(ctx context.Context, rt route.Route, m *deliver.Message, to string) deliver.Outcome {
		if to == "poison@aol.test" {
			panic("poison")
		}
		return took
	}}
	var tries atomic.Int32
	play(t, f.through(func(w *world) {
		w.runner.Trace = &queue.Trace{Settled: func(l queue.Lease, _ []deliver.Outcome, _ queue.Settlement) {
			if isTo(l, "poison") {
				tries.Add(1)
			}
		}}
	}), func(w *world) {
		w.send(queue.To("poison@aol.test")...)
		for range 24 * 60 {
			w.send(queue.To("bob@aol.test")...)
			w.sleep(time.Minute)
		}
		assert.EqualValues(t, 12, tries.Load(), "0, 5 min, 20 min, 50 min, 1:50, 3:50, 4:00 and every 4 h")
	})
}
