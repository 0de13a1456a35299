package queue_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/shape"
	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/route"
)

// A provider is a far end that knows MX hosts: those of Google for domains below google.test, one of its own for each other
// domain, and none that can be found out for those below broken.test.
type provider struct{ *far }

func (provider) MXHosts(_ context.Context, domain string) ([]string, error) {
	switch {
	case strings.HasSuffix(domain, ".google.test"):
		return []string{"aspmx.l.google.com", "alt1.aspmx.l.google.com"}, nil
	case strings.HasSuffix(domain, ".broken.test"):
		return nil, errors.New("DNS does not answer")
	}
	return []string{"mx." + domain}, nil
}

// at prepares a world whose mail goes to the provider.
func (p provider) at(prepare ...func(w *world)) func(w *world) {
	return p.through(append([]func(w *world){func(w *world) { w.runner.Deliverer = p }}, prepare...)...)
}

func rules(t *testing.T, text string) *shape.Shaper {
	t.Helper()
	r, err := shape.Parse("own", strings.NewReader(text))
	require.NoError(t, err)
	return &shape.Shaper{Rules: r}
}

// siteOf is what the Runner knows of a site.
func (w *world) siteOf(name string) shape.State {
	w.t.Helper()
	for _, s := range w.runner.Sites() {
		if s.Site == name {
			return s
		}
	}
	w.t.Fatalf("%s is not known: %+v", name, w.runner.Sites())
	return shape.State{}
}

func (w *world) sendToMany(n int, format string) {
	w.t.Helper()
	for i := range n {
		w.send(queue.To(fmt.Sprintf(format, i))...)
	}
}

// A provider gets the mail of all its domains as one site, and of others each as its own.
func TestDomainsOfOneProviderShareItsLimits(t *testing.T) {
	p := provider{new(far)}
	p.say = p.slowly(0)
	play(t, p.at(), func(w *world) {
		w.sendToMany(400, "bob@%d.google.test")
		w.sleep(time.Second / 2)
		assert.Equal(t, 4, p.busiest(), "it begins with a few")
		w.sleep(10 * time.Second)
		assert.Equal(t, 20, p.busiest(), "and gets what its rule says")
		s := w.siteOf("google")
		assert.Equal(t, 20, s.Active)
		assert.Equal(t, 20, s.Limits.Connections)
		w.sendToMany(50, "bob@%d.other.test")
		w.sleep(time.Second / 2)
		assert.Equal(t, 70, p.busiest(), "others do not wait for it")
		assert.Equal(t, 1, w.siteOf("mx.7.other.test").Active)
		w.sleep(time.Minute)
		assert.True(t, w.empty())
	})
}

// What one source address has used is another's still.
func TestEachSourceAddressHasItsOwnLimits(t *testing.T) {
	p := provider{new(far)}
	p.say = p.slowly(0)
	play(t, p.at(func(w *world) {
		w.runner.Shaper = rules(w.t, "google connections=3")
		w.by(parse(w.t, "* direct source=192.0.2.1\nfrom:*@news.example direct source=192.0.2.2"))
	}), func(w *world) {
		w.sendToMany(50, "bob@%d.google.test")
		for i := range 50 {
			w.sendFrom("ann@news.example", queue.To(fmt.Sprintf("bob@%d.google.test", 100+i))...)
		}
		w.sleep(20 * time.Second)
		assert.Equal(t, 6, p.busiest())
		seen := map[string]int{}
		for _, s := range w.runner.Sites() {
			seen[s.Site+" "+s.Source] = s.Limit
		}
		assert.Equal(t, map[string]int{"google 192.0.2.1": 3, "google 192.0.2.2": 3}, seen)
	})
}

// Where the hosts cannot be found out, mail is tried all the same: delivery itself says what is wrong.
func TestASiteThatIsNotKnown(t *testing.T) {
	p := provider{&far{say: byName}}
	play(t, p.at(), func(w *world) {
		w.sendToMany(20, "bob@%d.broken.test")
		w.sleep(time.Second)
		assert.True(t, w.empty())
		assert.False(t, w.siteOf("7.broken.test").Down)
	})
}

// A provider that asks for less gets less, at once and from all of its domains, and people see why.
func TestAProviderThatAsksForLess(t *testing.T) {
	const words = "421 4.7.0 Too many connections from your address"
	p := provider{new(far)}
	p.say = func(_ context.Context, _ route.Route, _ *deliver.Message, _ string) deliver.Outcome {
		p.mu.Lock()
		open := p.open
		p.mu.Unlock()
		if open > 8 {
			return refusal(deliver.TempFail, deliver.StageGreeting, words)
		}
		time.Sleep(time.Second)
		return took
	}
	play(t, p.at(), func(w *world) {
		w.sendToMany(600, "bob@%d.google.test")
		w.sleep(10 * time.Second)
		s := w.siteOf("google")
		assert.Equal(t, words, s.Why)
		assert.LessOrEqual(t, s.Limit, 6)
		assert.Positive(t, s.Pace)
		assert.WithinDuration(t, w.start, s.Since, 10*time.Second)
		w.sleep(30 * time.Minute)
		refused := 0
		for _, try := range p.triesOf("") {
			if !try.outcome.Result.Success() {
				refused++
			}
		}
		assert.Less(t, refused, 60, "it is not asked for more all the time")
		w.sleep(time.Hour)
		assert.True(t, w.empty())
		assert.Empty(t, p.told(t))
	})
}

// That nobody has a mailbox there, or that one is full, says nothing about the site.
func TestARefusedRecipientSaysNothingAboutTheSite(t *testing.T) {
	p := provider{&far{say: byName}}
	play(t, p.at(), func(w *world) {
		for range 40 {
			w.send(queue.To("bob@1.google.test")...)
			w.sleep(time.Second)
		}
		require.Equal(t, 20, w.siteOf("google").Limit)
		w.sendToMany(50, "unknown@%d.google.test")
		w.sendToMany(50, "later@%d.google.test")
		w.sleep(time.Minute)
		s := w.siteOf("google")
		assert.Equal(t, 20, s.Limit)
		assert.Empty(t, s.Why)
	})
}

// A rate holds for all of a site's domains together, and what waits for it costs nothing.
func TestARate(t *testing.T) {
	p, q := provider{&far{say: byName}}, &countingQueue{}
	play(t, p.at(q.in, func(w *world) { w.runner.Shaper = rules(w.t, "google rate=60/min") }), func(w *world) {
		w.sendToMany(500, "bob@%d.google.test")
		w.sleep(time.Second)
		q.settled()
		for minute := range 5 {
			w.sleep(time.Minute)
			sent := len(p.triesOf(""))
			assert.InDelta(t, 60*(minute+1)+6, sent, 3)
		}
		assert.InDelta(t, 300, q.settled(), 10, "one is written for each that went")
		w.send(queue.To("bob@other.test")...)
		w.sleep(time.Second)
		assert.Len(t, p.triesOf("bob@other.test"), 1)
		w.sleep(5 * time.Minute)
		assert.True(t, w.empty())
	})
}

// A provider that is down is asked by one attempt at a time, whichever domain's it is; what waits for it is not written again and
// again, and when it answers all of it flows soon, and gently.
//
// std: Q7
func TestAProviderThatIsDown(t *testing.T) {
	google := new(host)
	p, q := provider{&far{say: google.say}}, &countingQueue{}
	play(t, p.at(q.in), func(w *world) {
		google.down.Store(true)
		w.sendToMany(10, "bob@first%d.google.test")
		w.sleep(time.Minute)
		p.busiest()
		w.sendToMany(300, "bob@%d.google.test")
		w.sleep(time.Minute)
		q.settled()
		before := len(p.triesOf(""))
		w.sleep(3 * time.Hour)
		assert.LessOrEqual(t, p.busiest(), 1, "one asks, and not all")
		assert.Greater(t, len(p.triesOf(""))-before, 15, "and again every ten minutes")
		assert.Less(t, q.settled(), 100)
		s := w.siteOf("google")
		assert.True(t, s.Down)
		assert.Contains(t, s.Why, "no MX host answers")

		google.down.Store(false)
		p.busiest()
		w.sleep(12 * time.Minute)
		assert.True(t, w.empty(), "when it answers, all of it goes soon")
		assert.LessOrEqual(t, p.busiest(), 20, "and not all at once")
		assert.False(t, w.siteOf("google").Down)

		google.down.Store(true)
		w.sendToMany(300, "bob@%d.google.test")
		w.sleep(5 * time.Hour)
		assert.Equal(t, 300, len(p.told(t)), "each sender hears of a delay")
		google.down.Store(false)
		w.sleep(time.Hour)
		assert.True(t, w.empty())
	})
}

// Thousands of destinations that were never tried take their mail at once: few slots are kept busy with them, and a place that becomes
// free does not stay so until patience with those that hang would be over.
//
// std: Q5
func TestThousandsOfDestinationsThatAnswer(t *testing.T) {
	p := provider{&far{say: func(ctx context.Context, _ route.Route, _ *deliver.Message, _ string) deliver.Outcome {
		time.Sleep(10 * time.Millisecond)
		return byName(ctx, route.Route{}, nil, "bob")
	}}}
	play(t, p.at(func(w *world) { w.runner.Concurrency = 50 }), func(w *world) {
		w.sendToMany(2000, "bob@%d.live.test")
		start := time.Now()
		for len(p.successes()) < 2000 {
			w.sleep(10 * time.Millisecond)
			require.Less(t, time.Since(start), 5*time.Second, "one after the other they would take 20 s")
		}
	})
}

// Thousands of destinations hang, more than there are slots, and some of them have hung before: others' mail goes as if they were
// not there, and they are all tried.
//
// std: Q5
func TestThousandsOfDestinationsThatHang(t *testing.T) {
	const hanging, live = 5000, 1000
	for _, slots := range []int{5000, 1000} {
		t.Run(fmt.Sprint(slots), func(t *testing.T) {
			alone := liveTime(t, slots, 0, live)
			behind := liveTime(t, slots, hanging, live)
			assert.LessOrEqual(t, behind, alone*13/10, "alone %v, behind those that hang %v", alone, behind)
		})
	}
}

// liveTime is how long live mail takes, to 50 destinations that were never tried, behind mail to others that hang.
func liveTime(t *testing.T, slots, hanging, live int) (took time.Duration) {
	var mu sync.Mutex
	tried, cut := map[string]bool{}, 0
	p := provider{&far{say: func(ctx context.Context, _ route.Route, _ *deliver.Message, to string) deliver.Outcome {
		if !strings.HasPrefix(to, "hangs") {
			time.Sleep(100 * time.Millisecond)
			return byName(ctx, route.Route{}, nil, "bob")
		}
		mu.Lock()
		tried[to] = true
		mu.Unlock()
		select {
		case <-time.After(5 * time.Minute):
			return deliver.Outcome{Result: deliver.TempFail, Status: "4.4.2", Stage: deliver.StageGreeting, Detail: "no greeting"}
		case <-ctx.Done():
			mu.Lock()
			cut++
			mu.Unlock()
			return deliver.Outcome{Result: deliver.TempFail, Status: "4.4.2", Stage: deliver.StageGreeting, Detail: context.Cause(ctx).Error()}
		}
	}}}
	play(t, p.at(func(w *world) {
		w.runner.Concurrency = slots
		w.runner.Schedule.DelayAfter = -1
	}), func(w *world) {
		for i := range hanging {
			w.send(queue.To(fmt.Sprintf("hangs@%d.dead.test", i))...)
			if i%100 == 99 {
				w.sleep(time.Second) // 100 a second come in
			}
		}
		start := time.Now()
		w.sendToMany(live, "bob@%d.live.test")
		for len(p.successes()) < live {
			w.sleep(10 * time.Millisecond)
			require.Less(t, time.Since(start), time.Hour)
		}
		took = time.Since(start)
		w.sleep(20 * time.Minute)
		again := time.Now()
		w.sendToMany(100, "bob@%d.new.test")
		for len(p.successes()) < live+100 {
			w.sleep(10 * time.Millisecond)
			require.Less(t, time.Since(again), 10*time.Second, "and so it stays")
		}
		mu.Lock()
		assert.Len(t, tried, hanging, "each of them is tried")
		mu.Unlock()
		if hanging > 0 {
			assert.LessOrEqual(t, p.busiest(), slots)
			w.sleep(5 * time.Minute)
			assert.LessOrEqual(t, p.busiest(), slots*3/8+64, "those that have hung before have half of the places")
			assert.Positive(t, p.busiest())
			list := w.list(queue.Filter{Lane: "0.dead.test"})
			require.Len(t, list, 1)
			assert.Positive(t, list[0].Attempts)
		}
	})
	return took
}

func (f *far) successes() (list []farTry) {
	for _, try := range f.triesOf("") {
		if try.outcome.Result.Success() {
			list = append(list, try)
		}
	}
	return list
}

// An attempt that has had an answer is none that hangs, however long it takes.
func TestAnAttemptThatWasAnsweredIsNotCut(t *testing.T) {
	var cut atomic.Int32
	p := provider{&far{say: byName}}
	answers := deliveryFunc(func(ctx context.Context, rt route.Route, m *deliver.Message) []deliver.Outcome {
		if !strings.HasPrefix(m.To[0].Address, "slow") {
			return p.Deliver(ctx, rt, m)
		}
		deliver.Answered(ctx)
		select {
		case <-time.After(10 * time.Minute):
		case <-ctx.Done():
			cut.Add(1)
		}
		return []deliver.Outcome{{Result: deliver.Delivered, Status: "2.0.0", Recipient: m.To[0].Address}}
	})
	play(t, p.at(func(w *world) { w.runner.Deliverer, w.runner.Concurrency = answers, 100 }), func(w *world) {
		w.sendToMany(30, "slow@%d.big.test")
		w.sleep(time.Second)
		w.sendToMany(1000, "hangs@%d.dead.test")
		w.sleep(9 * time.Minute)
		assert.Zero(t, cut.Load())
		w.sleep(5 * time.Minute)
		assert.Empty(t, w.list(queue.Filter{Lane: "7.big.test"}))
	})
}

type deliveryFunc func(context.Context, route.Route, *deliver.Message) []deliver.Outcome

func (f deliveryFunc) Deliver(ctx context.Context, rt route.Route, m *deliver.Message) []deliver.Outcome {
	return f(ctx, rt, m)
}
