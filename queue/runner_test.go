package queue_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/deliver/resolve"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/memory"
	"github.com/sortie-mail/sortie/route"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const aolWords = "554 5.7.1 The IP address you are using to connect is either open to the free relaying of e-mail, is serving as an open proxy, or is a dynamic (residential) IP address"

// A world is a queue with a runner in a lab internet, within a bubble of fake time.
type world struct {
	t      *testing.T
	net    *lab.Internet
	home   *lab.Server // of example.org, where reports go
	queue  *memory.Queue
	runner *queue.Runner
	start  time.Time
	log    *bytes.Buffer

	mu     sync.Mutex
	tries  []try        // guarded by mu
	router route.Router // guarded by mu
}

// A try is one settled attempt.
type try struct {
	after  time.Duration // since the world began
	id     queue.ID
	lane   string
	result deliver.Result
	detail string
}

// play runs a test in a bubble. The internet has a server each for example.org, whose users send, aol.test, which is the
// provider, other.test and mail.isp.test.
func play(t *testing.T, prepare func(w *world), test func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, net: lab.TestInMemory(t), queue: memory.New(), start: time.Now(), log: new(bytes.Buffer)}
		w.by(route.Direct)
		for i, name := range []string{"example.org", "aol.test", "other.test", "isp.test"} {
			require.NoError(t, w.net.Zone(name, fmt.Sprintf("@ MX 10 mail\nmail A 192.0.2.%d", 10+i)))
		}
		w.home = w.server("example.org")
		d := &deliver.Deliverer{
			Hostname: "relay.test", Dial: w.net.Dial,
			Resolver: &resolve.Resolver{Servers: []string{w.net.DNS()}, Dial: w.net.Dial},
		}
		w.runner = &queue.Runner{
			Queue: w.queue, Router: routerFunc(w.route),
			Deliverer: d, Hostname: "relay.test", Schedule: queue.Schedule{Jitter: -1},
			Logger: slog.New(slog.NewTextHandler(lockedWriter{&w.mu, w.log}, nil)),
			Trace:  &queue.Trace{Settled: w.settled},
		}
		if prepare != nil {
			prepare(w)
		}
		ended := make(chan error, 1)
		go func() { ended <- w.runner.Run(t.Context()) }()
		test(w)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_ = w.runner.Shutdown(ctx)
		require.NoError(t, <-ended)
		require.NoError(t, d.Close())
	})
}

type routerFunc func(context.Context, route.Query) (route.Route, error)

func (f routerFunc) Route(ctx context.Context, q route.Query) (route.Route, error) { return f(ctx, q) }

// by makes mail go by other routes from now on.
func (w *world) by(r route.Router) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.router = r
}

func (w *world) route(ctx context.Context, q route.Query) (route.Route, error) {
	w.mu.Lock()
	r := w.router
	w.mu.Unlock()
	return r.Route(ctx, q)
}

type lockedWriter struct {
	mu *sync.Mutex
	b  *bytes.Buffer
}

func (w lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *world) server(domain string, b ...lab.Behaviour) *lab.Server {
	return w.net.Server("mail."+domain, b...)
}

func (w *world) settled(l queue.Lease, outcomes []deliver.Outcome, _ queue.Settlement) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tries = append(w.tries, try{time.Since(w.start), l.ID, l.Lane, outcomes[0].Result, outcomes[0].Detail})
}

func (w *world) triesOf(lane string) (times []time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.tries {
		if t.lane == lane {
			times = append(times, t.after)
		}
	}
	return times
}

func (w *world) logText() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.String()
}

const plain = "From: <ann@example.org>\r\nTo: <bob@aol.test>\r\nMessage-ID: <1@example.org>\r\nSubject: Hello\r\n\r\nHello Bob.\r\n"

// send enqueues the plain message from ann@example.org.
func (w *world) send(to ...queue.Recipient) queue.ID {
	w.t.Helper()
	return w.sendFrom("ann@example.org", to...)
}

func (w *world) sendFrom(from string, to ...queue.Recipient) queue.ID {
	w.t.Helper()
	id, err := w.queue.Enqueue(w.t.Context(), queue.Envelope{From: from, To: to}, strings.NewReader(plain))
	require.NoError(w.t, err)
	return id
}

// sleep lets time pass, and what is due happen.
func (w *world) sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// reports are the reports that a server has got.
func (w *world) reports(s *lab.Server) (all []*dsn.Report) {
	w.t.Helper()
	for _, m := range s.Mailbox() {
		assert.Empty(w.t, m.From, "a report has the null sender")
		r, err := dsn.Parse(bytes.NewReader(m.Body))
		require.NoError(w.t, err, "%s", m.Body)
		all = append(all, r)
	}
	return all
}

func (w *world) empty() bool {
	w.t.Helper()
	s, err := w.queue.Stats(w.t.Context())
	require.NoError(w.t, err)
	return s.Messages == 0
}

func parse(t *testing.T, text string) *route.Table {
	t.Helper()
	table, err := route.Parse("routes", strings.NewReader(text))
	require.NoError(t, err)
	return table
}

func hours(h ...float64) (times []time.Duration) {
	for _, one := range h {
		times = append(times, time.Duration(one*float64(time.Hour)))
	}
	return times
}

// std: D1 D2 D5 D9
func TestFiveDaysOfRetries(t *testing.T) {
	play(t, nil, func(w *world) {
		w.server("aol.test", lab.Refuse(lab.AtRcpt, "450 4.2.0 Mailbox is being moved\ntry again later"))
		id := w.send(queue.To("bob@aol.test")...)
		w.sleep(6 * 24 * time.Hour)

		want := hours(0, 1./12, 1./3, 5./6, 1+5./6, 3+5./6, 4) // 5 m, 15 m, 30 m, 1 h, 2 h, and when the delay is reported
		for h := 8.; h <= 120; h += 4 {
			want = append(want, hours(h)...)
		}
		got := w.triesOf("aol.test")
		for i := range got {
			got[i] = got[i].Round(time.Second)
		}
		for i := range want {
			want[i] = want[i].Round(time.Second)
		}
		assert.Equal(t, want, got)
		assert.True(t, w.empty())

		mail := w.home.Mailbox()
		require.Len(t, mail, 2)
		assert.Equal(t, 4*time.Hour, mail[0].Received.Sub(w.start).Round(time.Second))
		assert.Equal(t, 120*time.Hour, mail[1].Received.Sub(w.start).Round(time.Second))
		reports := w.reports(w.home)
		delay, failure := reports[0].Recipients[0], reports[1].Recipients[0]
		assert.Equal(t, dsn.Delayed, delay.Action)
		assert.WithinDuration(t, w.start.Add(120*time.Hour), delay.RetryUntil, time.Second)
		assert.Equal(t, dsn.Failed, failure.Action)
		for _, r := range []dsn.Recipient{delay, failure} {
			assert.Equal(t, dsn.Address{Type: "rfc822", Addr: "bob@aol.test"}, r.Final)
			assert.Equal(t, dsn.Reply{Code: 450, Lines: []string{"4.2.0 Mailbox is being moved", "try again later"}}, r.Diagnostic)
			assert.Equal(t, dsn.Status("4.2.0"), r.Status)
			assert.Equal(t, "mail.aol.test", r.RemoteMTA)
			assert.Equal(t, string(id), r.LogID)
		}
		assert.Equal(t, "relay.test", reports[1].ReportingMTA)
		assert.WithinDuration(t, w.start, reports[1].Arrival, time.Second)
		assert.Contains(t, string(mail[1].Body), "Mailbox is being moved")
	})
}

func to(address, notify string) queue.Recipient {
	n, err := dsn.ParseNotify(notify)
	if err != nil {
		panic(err)
	}
	return queue.Recipient{Address: address, Notify: n}
}

// std: D3 C13
func TestSendersHearWhatTheyAskedFor(t *testing.T) {
	late := []dsn.Action{dsn.Delayed}
	failed := []dsn.Action{dsn.Failed}
	both := []dsn.Action{dsn.Delayed, dsn.Failed}
	tests := []struct {
		notify string
		offers []string // of the server
		reply  string   // to RCPT; "" takes the mail
		want   []dsn.Action
	}{
		{"", nil, "550 5.1.1 No such user", failed},
		{"", nil, "450 4.2.0 Not now", both},
		{"", nil, "", nil},
		{"NEVER", nil, "550 5.1.1 No such user", nil},
		{"NEVER", nil, "450 4.2.0 Not now", nil},
		{"FAILURE", nil, "450 4.2.0 Not now", failed},
		{"DELAY", nil, "450 4.2.0 Not now", late},
		{"SUCCESS", nil, "550 5.1.1 No such user", nil},
		{"SUCCESS", nil, "", nil}, // the far end offers DSN, and reports itself
		{"SUCCESS", []string{"PIPELINING"}, "", []dsn.Action{dsn.Relayed}},
		{"SUCCESS,FAILURE,DELAY", []string{"PIPELINING"}, "450 4.2.0 Not now", both},
	}
	for _, test := range tests {
		t.Run(test.notify+" "+test.reply, func(t *testing.T) {
			play(t, nil, func(w *world) {
				behaviours := []lab.Behaviour{lab.Offer{Capabilities: test.offers}}
				if test.reply != "" {
					behaviours = append(behaviours, lab.Refuse(lab.AtRcpt, test.reply))
				}
				w.server("aol.test", behaviours...)
				w.send(to("bob@aol.test", test.notify))
				w.sleep(6 * 24 * time.Hour)
				var got []dsn.Action
				for _, r := range w.reports(w.home) {
					require.Len(t, r.Recipients, 1)
					got = append(got, r.Recipients[0].Action)
					if r.Recipients[0].Action == dsn.Relayed {
						assert.True(t, r.HeadersOnly, "a success returns no body") // std: D4
					}
				}
				assert.Equal(t, test.want, got)
				assert.True(t, w.empty())
			})
		})
	}
}

// std: D4
func TestReportsReturnAsMuchAsRETSays(t *testing.T) {
	header, _, _ := strings.Cut(plain, "\r\n\r\n")
	long := plain + strings.Repeat("0123456789\r\n", 6000)
	tests := []struct {
		ret  dsn.Return
		text string
		full bool
	}{
		{dsn.ReturnDefault, plain, true},
		{dsn.ReturnDefault, long, false},
		{dsn.ReturnHeaders, plain, false},
		{dsn.ReturnFull, long, true},
	}
	for _, test := range tests {
		t.Run(fmt.Sprint(test.ret, len(test.text)), func(t *testing.T) {
			play(t, nil, func(w *world) {
				w.server("aol.test", lab.Refuse(lab.AtRcpt, "550 5.1.1 No such user"))
				_, err := w.queue.Enqueue(w.t.Context(), queue.Envelope{From: "ann@example.org", To: queue.To("bob@aol.test"), Return: test.ret}, strings.NewReader(test.text))
				require.NoError(t, err)
				w.sleep(time.Minute)
				r := w.reports(w.home)
				require.Len(t, r, 1)
				assert.Equal(t, !test.full, r[0].HeadersOnly)
				if test.full {
					assert.Equal(t, test.text, string(r[0].Original))
				} else {
					assert.Equal(t, header, strings.TrimRight(string(r[0].Original), "\r\n"))
				}
			})
		})
	}
}

// std: D7
func TestRecipientsThatEndTogetherShareAReport(t *testing.T) {
	play(t, nil, func(w *world) {
		w.server("aol.test",
			lab.Refuse(lab.AtRcpt, "550 5.1.1 No such user", "nobody*@aol.test"),
			lab.Refuse(lab.AtRcpt, "450 4.2.2 Mailbox full", "full@aol.test"))
		w.send(queue.To("bob@aol.test", "nobody1@aol.test", "full@aol.test", "nobody2@aol.test")...)
		w.sleep(time.Minute)
		r := w.reports(w.home)
		require.Len(t, r, 1)
		require.Len(t, r[0].Recipients, 2)
		assert.Equal(t, "nobody1@aol.test", r[0].Recipients[0].Final.Addr)
		assert.Equal(t, "nobody2@aol.test", r[0].Recipients[1].Final.Addr)
		list, _, err := w.queue.List(w.t.Context(), queue.Filter{}, "", 10)
		require.NoError(t, err)
		require.Len(t, list, 1)
		require.Len(t, list[0].To, 1)
		assert.Equal(t, "full@aol.test", list[0].To[0].Address, "it alone waits")
	})
}

// std: D5
func TestNothingIsReportedToTheNullSender(t *testing.T) {
	for _, keep := range []bool{false, true} {
		t.Run(fmt.Sprint("keep ", keep), func(t *testing.T) {
			play(t, func(w *world) { w.runner.KeepUnreported = keep }, func(w *world) {
				aol := w.server("aol.test", lab.Refuse(lab.AtRcpt, "550 5.1.1 No such user"))
				w.sendFrom("", queue.To("bob@aol.test")...)
				w.sendFrom("ann@example.org", to("bob@aol.test", "NEVER"))
				w.sleep(6 * 24 * time.Hour)
				assert.Empty(t, w.home.Mailbox())
				assert.Equal(t, !keep, w.empty())
				list, _, err := w.queue.List(w.t.Context(), queue.Filter{State: queue.Held}, "", 10)
				require.NoError(t, err)
				if keep {
					require.Len(t, list, 2)
					assert.Contains(t, list[0].Why, "No such user")
					_, open := aol.Connections()
					assert.Zero(t, open)
				}
				assert.Contains(t, w.logText(), "5.1.1 No such user")
			})
		})
	}
}

func TestAReportThatCannotBeDeliveredEndsThere(t *testing.T) {
	play(t, nil, func(w *world) {
		w.home.Behave(lab.Refuse(lab.AtRcpt, "550 5.1.1 No such user"))
		w.server("aol.test", lab.Refuse(lab.AtRcpt, "550 5.1.1 No such user"))
		w.send(queue.To("bob@aol.test")...)
		w.sleep(time.Hour)
		assert.True(t, w.empty())
		assert.Len(t, w.triesOf("example.org"), 1)
		assert.Contains(t, w.logText(), "nobody to tell")
	})
}

func TestALaneThatHangsDelaysNoOther(t *testing.T) {
	play(t, nil, func(w *world) {
		w.server("aol.test", lab.Hang(lab.AtRcpt))
		other := w.server("other.test")
		for range 50 {
			w.send(queue.To("bob@aol.test")...)
		}
		for range 200 {
			w.send(queue.To("bob@other.test")...)
		}
		w.sleep(time.Second)
		assert.Len(t, other.Mailbox(), 200, "all of it arrives while the other lane hangs")
		s, err := w.queue.Stats(w.t.Context())
		require.NoError(t, err)
		assert.LessOrEqual(t, s.Leased, 4, "a lane that has not succeeded has few attempts at once")
	})
}

func TestANewRouteFreesWhatWaits(t *testing.T) {
	play(t, nil, func(w *world) {
		w.server("aol.test", lab.Refuse(lab.AtGreeting, aolWords))
		isp := w.server("isp.test")
		other := w.server("other.test", lab.Refuse(lab.AtRcpt, "450 4.2.0 Not now"))
		for range 3 {
			w.send(queue.To("bob@aol.test")...)
		}
		w.send(queue.To("bob@other.test")...)
		w.sleep(time.Hour)
		assert.Len(t, w.triesOf("other.test"), 4)
		assert.Empty(t, isp.Mailbox())

		n, err := w.runner.Reroute(w.t.Context())
		require.NoError(t, err)
		assert.Zero(t, n, "no route is another")

		w.by(parse(t, "*@aol.test smtp://mail.isp.test"))
		n, err = w.runner.Reroute(w.t.Context())
		require.NoError(t, err)
		assert.Equal(t, 3, n)
		w.sleep(time.Second)
		assert.Len(t, isp.Mailbox(), 3)
		assert.Len(t, w.triesOf("other.test"), 4, "all else keeps its time")
		other.Behave(lab.AcceptAll)
		w.sleep(time.Hour)
		assert.Len(t, other.Mailbox(), 1)
	})
}

func TestARouteThatHeldMailLetsItGo(t *testing.T) {
	play(t, func(w *world) { w.by(parse(w.t, "*@aol.test hold")) }, func(w *world) {
		aol := w.server("aol.test")
		w.send(queue.To("bob@aol.test")...)
		w.sleep(10 * 24 * time.Hour)
		held, _, err := w.queue.List(w.t.Context(), queue.Filter{State: queue.Held}, "", 10)
		require.NoError(t, err)
		require.Len(t, held, 1)
		assert.Equal(t, "the route says hold", held[0].Why)
		w.by(route.Direct)
		n, err := w.runner.Reroute(w.t.Context())
		require.NoError(t, err)
		assert.Equal(t, 1, n)
		w.sleep(time.Second)
		assert.Len(t, aol.Mailbox(), 1)
		assert.Empty(t, w.home.Mailbox())
	})
}

func TestARefusalOfOurAddressWaits(t *testing.T) {
	for _, stage := range []lab.Stage{lab.AtGreeting, lab.AtMail, lab.AtRcpt, lab.AtDot} {
		t.Run(string(stage), func(t *testing.T) {
			play(t, nil, func(w *world) {
				aol := w.server("aol.test", lab.Refuse(stage, aolWords))
				w.send(queue.To("bob@aol.test")...)
				w.sleep(5 * time.Hour)
				r := w.reports(w.home)
				require.Len(t, r, 1)
				assert.Equal(t, dsn.Delayed, r[0].Recipients[0].Action)
				assert.Equal(t, dsn.Status("4.7.1"), r[0].Recipients[0].Status)
				assert.Contains(t, r[0].Recipients[0].Diagnostic.Text(), "serving as an open proxy")
				aol.Behave(lab.AcceptAll)
				w.sleep(9 * time.Hour)
				assert.Len(t, aol.Mailbox(), 1, "it goes out once the address is delisted")
			})
		})
	}
	t.Run("BounceBlocked", func(t *testing.T) {
		play(t, func(w *world) { w.runner.BounceBlocked = true }, func(w *world) {
			w.server("aol.test", lab.Refuse(lab.AtRcpt, aolWords))
			w.send(queue.To("bob@aol.test")...)
			w.sleep(time.Minute)
			require.Len(t, w.home.Mailbox(), 1)
			assert.True(t, w.empty())
		})
	})
}

func TestADestinationThatIsBackGetsItsMailSoon(t *testing.T) {
	play(t, nil, func(w *world) {
		aol := w.server("aol.test", lab.Drop(lab.AtConnect))
		for range 20 {
			w.send(queue.To("bob@aol.test")...)
		}
		w.sleep(3 * time.Hour) // most wait for two hours or four now
		aol.Behave(lab.AcceptAll)
		w.send(queue.To("new@aol.test")...)
		w.sleep(time.Hour)
		assert.Len(t, aol.Mailbox(), 21, "the first success wakes the others")
	})
}

func TestAnOutageIsNotTimedOutMessageByMessage(t *testing.T) {
	play(t, nil, func(w *world) {
		aol := w.server("aol.test", lab.Hang(lab.AtConnect))
		for range 500 {
			w.send(queue.To("bob@aol.test")...)
		}
		w.sleep(5 * time.Hour)
		assert.Len(t, w.home.Mailbox(), 500, "each sender hears of the delay in time")
		total, _ := aol.Connections()
		assert.Less(t, total, 200)
		list, _, err := w.queue.List(w.t.Context(), queue.Filter{}, "", 1)
		require.NoError(t, err)
		assert.Less(t, list[0].Attempts, 7, "what waits for the destination is not looked at and put back all the time")
		w.sleep(6 * 24 * time.Hour)
		assert.Len(t, w.home.Mailbox(), 1000, "and of the failure")
		assert.True(t, w.empty())
	})
}

func TestMailInCirclesFails(t *testing.T) {
	play(t, nil, func(w *world) {
		aol := w.server("aol.test")
		text := strings.Repeat("Received: from a by b; Tue, 24 Nov 2026 12:00:00 +0000\r\n", 101) + plain
		_, err := w.queue.Enqueue(w.t.Context(), queue.Envelope{From: "ann@example.org", To: queue.To("bob@aol.test")}, strings.NewReader(text))
		require.NoError(t, err)
		w.sleep(time.Minute)
		assert.Empty(t, aol.Mailbox())
		r := w.reports(w.home)
		require.Len(t, r, 1)
		assert.Equal(t, dsn.Status("5.4.6"), r[0].Recipients[0].Status)
	})
}

// std: Q8
func TestFailNowReports(t *testing.T) {
	play(t, nil, func(w *world) {
		w.server("aol.test", lab.Refuse(lab.AtRcpt, "450 4.2.0 Not now"))
		id := w.send(queue.To("bob@aol.test")...)
		w.sleep(time.Minute)
		n, err := w.queue.Fail(w.t.Context(), queue.Filter{ID: id}, "the list was sent by mistake")
		require.NoError(t, err)
		assert.Equal(t, 1, n)
		w.sleep(time.Second)
		r := w.reports(w.home)
		require.Len(t, r, 1)
		assert.Contains(t, r[0].Recipients[0].Detail, "the list was sent by mistake")
		assert.True(t, w.empty())
	})
}

func TestShutdownWaitsForWhatIsUnderWay(t *testing.T) {
	play(t, nil, func(w *world) {
		aol := w.server("aol.test", lab.Delay(lab.AtDot, 5*time.Second))
		w.send(queue.To("bob@aol.test")...)
		w.sleep(time.Second)
		ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
		defer cancel()
		require.NoError(t, w.runner.Shutdown(ctx))
		assert.Len(t, aol.Mailbox(), 1)
		assert.True(t, w.empty())
		w.send(queue.To("bob@aol.test")...)
		w.sleep(time.Minute)
		assert.Len(t, aol.Mailbox(), 1, "nothing is taken on any more")
	})
}

func TestShutdownPutsBackWhatTakesTooLong(t *testing.T) {
	play(t, nil, func(w *world) {
		w.server("aol.test", lab.Hang(lab.AtRcpt))
		w.send(queue.To("bob@aol.test")...)
		w.sleep(time.Second)
		ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
		defer cancel()
		start := time.Now()
		require.ErrorIs(t, w.runner.Shutdown(ctx), context.DeadlineExceeded)
		assert.Equal(t, 10*time.Second, time.Since(start))
		list, _, err := w.queue.List(w.t.Context(), queue.Filter{}, "", 10)
		require.NoError(t, err)
		require.Len(t, list, 1)
		assert.Equal(t, queue.Waiting, list[0].State)
		assert.Zero(t, list[0].Attempts, "a try that we broke off does not count")
		assert.False(t, list[0].Due.After(time.Now()))
	})
}

func TestOneRunOnly(t *testing.T) {
	play(t, nil, func(w *world) {
		w.sleep(time.Second)
		assert.ErrorContains(t, w.runner.Run(w.t.Context()), "make a new one")
	})
}

type deliverFunc func(context.Context, route.Route, *deliver.Message) []deliver.Outcome

func (f deliverFunc) Deliver(ctx context.Context, r route.Route, m *deliver.Message) []deliver.Outcome {
	return f(ctx, r, m)
}

func TestMailThatBreaksTheDelivererWaits(t *testing.T) {
	for name, broken := range map[string]deliverFunc{
		"panics":  func(context.Context, route.Route, *deliver.Message) []deliver.Outcome { panic("poison") },
		"forgets": func(context.Context, route.Route, *deliver.Message) []deliver.Outcome { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			play(t, func(w *world) {
				good := w.runner.Deliverer
				w.runner.Deliverer = deliverFunc(func(ctx context.Context, r route.Route, m *deliver.Message) []deliver.Outcome {
					if m.To[0].Address == "poison@aol.test" {
						return broken(ctx, r, m)
					}
					return good.Deliver(ctx, r, m)
				})
			}, func(w *world) {
				aol := w.server("aol.test")
				w.send(queue.To("poison@aol.test")...)
				w.sleep(time.Second)
				w.send(queue.To("bob@aol.test")...)
				w.sleep(time.Hour)
				assert.Len(t, aol.Mailbox(), 1)
				assert.False(t, w.empty())
				w.sleep(6 * 24 * time.Hour)
				assert.Len(t, w.home.Mailbox(), 2, "a delay, then a failure")
			})
		})
	}
}

func TestARouterInTroubleIsTemporary(t *testing.T) {
	play(t, nil, func(w *world) {
		aol := w.server("aol.test")
		w.by(routerFunc(func(context.Context, route.Query) (route.Route, error) {
			return route.Route{}, fmt.Errorf("DNS does not answer")
		}))
		w.send(queue.To("bob@aol.test")...)
		w.sleep(time.Minute)
		w.by(route.Direct)
		w.sleep(time.Hour)
		assert.Len(t, aol.Mailbox(), 1)
		assert.Empty(t, w.home.Mailbox())
	})
}

// A trickyQueue fails to settle for a while.
type trickyQueue struct {
	*memory.Queue
	mu    sync.Mutex
	fails int // guarded by mu
}

func (q *trickyQueue) Settle(ctx context.Context, l queue.Lease, s queue.Settlement) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.fails > 0 {
		q.fails--
		return queue.ErrFull
	}
	return q.Queue.Settle(ctx, l, s)
}

func TestNothingIsSentWhileOutcomesCannotBeRecorded(t *testing.T) {
	play(t, func(w *world) { w.runner.Queue = &trickyQueue{Queue: w.queue, fails: 5} }, func(w *world) {
		aol := w.server("aol.test")
		w.send(queue.To("bob@aol.test")...)
		w.sleep(time.Second / 2)
		for range 50 {
			w.send(queue.To("bob@other.test")...)
		}
		w.sleep(5 * time.Second)
		assert.Len(t, aol.Mailbox(), 1)
		s, err := w.queue.Stats(w.t.Context())
		require.NoError(t, err)
		assert.Equal(t, 50, s.Waiting, "no more is taken on")
		w.sleep(time.Hour)
		assert.Len(t, aol.Mailbox(), 1, "it is sent once")
		assert.NotEmpty(t, w.triesOf("other.test"))
	})
}

func TestRecipientsOfOneLaneMayGoDifferentWays(t *testing.T) {
	play(t, func(w *world) {
		w.by(parse(w.t, "boss@aol.test smtp://mail.isp.test\nold@aol.test reject \"550 5.1.2 Moved\"\ngone@aol.test discard"))
	}, func(w *world) {
		aol, isp := w.server("aol.test", lab.Hang(lab.AtMail)), w.server("isp.test")
		w.send(queue.To("bob@aol.test", "boss@aol.test", "old@aol.test", "gone@aol.test")...)
		w.sleep(time.Second)
		assert.Len(t, isp.Mailbox(), 1, "one way that hangs delays no other")
		w.sleep(time.Hour)
		aol.Behave(lab.AcceptAll)
		w.sleep(2 * time.Hour)
		assert.Len(t, aol.Mailbox(), 1)
		assert.Len(t, isp.Mailbox(), 1)
		r := w.reports(w.home)
		require.Len(t, r, 1)
		assert.Equal(t, "old@aol.test", r[0].Recipients[0].Final.Addr)
		assert.True(t, w.empty())
	})
}

func TestAReportNamesTheSmarthost(t *testing.T) {
	play(t, func(w *world) { w.by(parse(w.t, "*@aol.test smtp://mail.isp.test")) }, func(w *world) {
		w.server("isp.test", lab.Refuse(lab.AtRcpt, "550 5.1.1 No such user"))
		w.send(queue.To("bob@aol.test")...)
		w.sleep(time.Minute)
		require.Len(t, w.home.Mailbox(), 1)
		assert.Contains(t, string(w.home.Mailbox()[0].Body), "mail.isp.test")
	})
}

// std: Q6
func TestJitterSpreadsTries(t *testing.T) {
	play(t, func(w *world) { w.runner.Schedule.Jitter = 0 }, func(w *world) { // the default
		w.server("aol.test", lab.Refuse(lab.AtRcpt, "450 4.2.0 Not now"))
		for range 40 {
			w.send(queue.To("bob@aol.test")...)
		}
		w.sleep(10 * time.Minute)
		seen := map[time.Duration]bool{}
		for _, at := range w.triesOf("aol.test") {
			if at = at.Round(time.Second); at > time.Second {
				seen[at] = true
				assert.InDelta(t, 300, at.Seconds(), 31)
			}
		}
		assert.Greater(t, len(seen), 10)
	})
}

func TestAPersonsHoldOutlivesANewRoute(t *testing.T) {
	play(t, func(w *world) { w.by(parse(w.t, "*@aol.test hold")) }, func(w *world) {
		aol := w.server("aol.test")
		id := w.send(queue.To("bob@aol.test")...)
		w.sleep(time.Second)
		n, err := w.queue.Hold(w.t.Context(), queue.Filter{ID: id}, "the police asks for it")
		require.NoError(t, err)
		assert.Equal(t, 1, n)
		w.by(route.Direct)
		n, err = w.runner.Reroute(w.t.Context())
		require.NoError(t, err)
		assert.Zero(t, n)
		w.sleep(time.Hour)
		assert.Empty(t, aol.Mailbox())
	})
}

// What the provider said is the reason for a detour, and stays the news when the detour fails too.
func TestAFailedDetourHidesNoWords(t *testing.T) {
	play(t, func(w *world) { w.by(parse(w.t, "*@aol.test direct, on blocked smtp://mail.isp.test")) }, func(w *world) {
		aol := w.server("aol.test", lab.Refuse(lab.AtMail, aolWords))
		w.server("isp.test", lab.Drop(lab.AtConnect))
		for range 3 {
			w.send(queue.To("bob@aol.test")...)
		}
		w.sleep(time.Second)
		assert.Equal(t, 3, strings.Count(aol.Transcript(), "C: MAIL"), "each message is tried: the host is there")
		list, _, err := w.queue.List(w.t.Context(), queue.Filter{}, "", 1)
		require.NoError(t, err)
		assert.Contains(t, list[0].Last.Results[0].Tried[0], "serving as an open proxy")
		assert.Contains(t, w.logText(), "serving as an open proxy")
		w.sleep(6 * 24 * time.Hour)
		r := w.reports(w.home)
		require.Len(t, r, 6)
		for _, one := range r {
			assert.Contains(t, one.Recipients[0].Diagnostic.Text(), "serving as an open proxy")
			assert.Equal(t, "mail.aol.test", one.Recipients[0].RemoteMTA)
		}
	})
}

// Neither a smarthost's name that does not resolve nor what a smarthost says of us is the recipient's matter, and the report
// says so.
func TestReportsBlameWhoIsToBlame(t *testing.T) {
	body := func(w *world) string {
		require.NotEmpty(w.t, w.home.Mailbox())
		return strings.Join(strings.Fields(string(w.home.Mailbox()[len(w.home.Mailbox())-1].Body)), " ")
	}
	t.Run("smarthost without address", func(t *testing.T) {
		play(t, func(w *world) { w.by(parse(w.t, "*@aol.test smtp://nohost.isp.test")) }, func(w *world) {
			w.send(queue.To("bob@aol.test")...)
			w.sleep(6 * 24 * time.Hour)
			assert.Len(t, w.home.Mailbox(), 2)
			assert.Contains(t, body(w), "Nothing is wrong with the address")
			assert.NotContains(t, body(w), "after the @")
		})
	})
	t.Run("tls=dane", func(t *testing.T) {
		play(t, func(w *world) { w.by(parse(w.t, "*@aol.test direct tls=dane")) }, func(w *world) {
			w.server("aol.test")
			w.send(queue.To("bob@aol.test")...)
			w.sleep(6 * 24 * time.Hour)
			assert.NotContains(t, body(w), "tls=")
		})
	})
	t.Run("smarthost's contract", func(t *testing.T) {
		play(t, func(w *world) { w.by(parse(w.t, "*@aol.test smtp://mail.isp.test")) }, func(w *world) {
			w.server("isp.test", lab.Refuse(lab.AtRcpt, "550 5.7.1 Your contract allows 6 mails a day"))
			w.send(queue.To("bob@aol.test")...)
			w.sleep(time.Minute)
			assert.NotContains(t, body(w), "recipient's provider")
			assert.Contains(t, body(w), "contact the operator of mail.isp.test")
		})
	})
}

func TestReportsHaveTheDeliverersName(t *testing.T) {
	play(t, func(w *world) { w.runner.Hostname = "" }, func(w *world) {
		w.server("aol.test", lab.Refuse(lab.AtRcpt, "550 5.1.1 No such user"))
		w.send(queue.To("bob@aol.test")...)
		w.sleep(time.Minute)
		assert.Equal(t, "relay.test", w.reports(w.home)[0].ReportingMTA)
	})
}
