package deliver_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
)

// roads are what lies between a world's Deliverer and the hosts: a connection to an address may take its time, fail, or
// get no answer at all.
type roads struct {
	mu    sync.Mutex // guards the fields below
	state map[string]road
	dials []string // addresses, with when they were dialed
	begin time.Time
}

type road struct {
	takes time.Duration
	err   error
	lost  bool // no answer ever
	deaf  bool // the dialer does not notice that it is not wanted any more
}

// roads lays roads before a world is used.
func (w *world) roads(state map[string]road) *roads {
	r := &roads{state: state, begin: time.Now()}
	w.d.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		to := r.dialed(address)
		wanted := ctx
		if to.deaf {
			wanted = context.WithoutCancel(ctx)
		}
		if to.lost {
			<-wanted.Done()
			return nil, wanted.Err()
		}
		select {
		case <-time.After(to.takes):
		case <-wanted.Done():
			return nil, wanted.Err()
		}
		if to.err != nil {
			return nil, &net.OpError{Op: "dial", Net: network, Err: to.err}
		}
		return w.Internet.Dial(wanted, network, address)
	}
	return r
}

func (r *roads) dialed(address string) road {
	r.mu.Lock()
	defer r.mu.Unlock()
	address = strings.TrimSuffix(address, ":25")
	r.dials = append(r.dials, fmt.Sprintf("%s at %v", address, time.Since(r.begin)))
	return r.state[address]
}

// mend changes the road to an address.
func (r *roads) mend(address string, to road) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state[address] = to
}

// count is how often an address was dialed.
func (r *roads) count(address string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.dials {
		if strings.HasPrefix(d, address+" ") {
			n++
		}
	}
	return n
}

// began is when an address was dialed first.
func began(t *testing.T, dials []string, address string) time.Duration {
	t.Helper()
	for _, d := range dials {
		if text, ok := strings.CutPrefix(d, address+" at "); ok {
			at, err := time.ParseDuration(text)
			require.NoError(t, err)
			return at
		}
	}
	t.Fatal("not dialed: ", address)
	return 0
}

const (
	six  = "[2001:db8::10]"
	four = "192.0.2.10"
	both = "@ MX 10 mx\nmx A 192.0.2.10\nmx AAAA 2001:db8::10"
)

// The addresses of a host are begun one after the other, and the first that connects is used.
//
// std: R7
func TestAddressesAreRaced(t *testing.T) {
	for name, tt := range map[string]struct {
		state map[string]road
		next  time.Duration // Timeouts.NextAddress
		dials []string
		took  time.Duration
		at    string
		tried int
	}{
		"all is well": {dials: []string{six + " at 0s"}, at: six},
		"IPv6 leads nowhere": {
			state: map[string]road{six: {lost: true}}, dials: []string{six + " at 0s", four + " at 250ms"}, took: 250 * time.Millisecond, at: four,
		},
		"IPv6 is refused at once": {
			state: map[string]road{six: {err: syscall.ECONNREFUSED}}, dials: []string{six + " at 0s", four + " at 0s"}, at: four, tried: 1,
		},
		"IPv6 is refused after a while": {
			state: map[string]road{six: {err: syscall.ECONNREFUSED, takes: 100 * time.Millisecond}},
			dials: []string{six + " at 0s", four + " at 100ms"}, took: 100 * time.Millisecond, at: four, tried: 1,
		},
		"IPv6 is slow, and still first": {
			state: map[string]road{six: {takes: 300 * time.Millisecond}, four: {takes: time.Second}},
			dials: []string{six + " at 0s", four + " at 250ms"}, took: 300 * time.Millisecond, at: six,
		},
		"IPv4 overtakes": {
			state: map[string]road{six: {takes: time.Second}, four: {takes: 500 * time.Millisecond}},
			dials: []string{six + " at 0s", four + " at 250ms"}, took: 750 * time.Millisecond, at: four,
		},
		"who lost does not notice": {
			state: map[string]road{six: {takes: time.Second, deaf: true}},
			dials: []string{six + " at 0s", four + " at 250ms"}, took: 250 * time.Millisecond, at: four,
		},
		"more patience": {
			state: map[string]road{six: {lost: true}}, next: 2 * time.Second,
			dials: []string{six + " at 0s", four + " at 2s"}, took: 2 * time.Second, at: four,
		},
		"one at a time": {
			state: map[string]road{six: {lost: true}}, next: -1,
			dials: []string{six + " at 0s", four + " at 30s"}, took: 30 * time.Second, at: four, tried: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				require.NoError(t, w.Zone("aol.test", both))
				w.d.Timeouts.NextAddress = tt.next
				mx, r := w.Server("mx.aol.test"), w.roads(tt.state)
				if tt.state == nil {
					r.state = map[string]road{}
				}
				o := w.one(t, direct)
				require.Equal(t, deliver.Delivered, o.Result, "%v", o)
				assert.Equal(t, tt.took, o.End.Sub(o.Start))
				assert.Equal(t, tt.took-began(t, r.dials, tt.at), o.Timing.Connect)
				assert.Equal(t, tt.at, strings.TrimSuffix(o.Addr.String(), ":25"))
				assert.Equal(t, tt.dials, r.dials)
				assert.Len(t, o.Tried, tt.tried)
				for _, try := range o.Tried {
					assert.Equal(t, deliver.StageConnect, try.Stage)
					assert.Contains(t, try.Err, "no connection: ")
				}
				dials := len(r.dials)
				require.Equal(t, deliver.Delivered, w.one(t, direct).Result)
				assert.Len(t, r.dials, dials, "the next message takes the connection that won")
				require.NoError(t, w.d.Close())
				require.NoError(t, mx.Wait(t.Context(), func() bool { _, open := mx.Connections(); return open == 0 }), "none is left open")
			})
		})
	}
}

// A host that accepted is heard out before another of its addresses is tried.
func TestSessionsAreNotRaced(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("aol.test", both))
		mx, r := w.Server("mx.aol.test", lab.Times(1, lab.On(lab.AtGreeting, func(lab.Step) lab.Answer {
			return lab.Answer{Reply: "450 4.3.2 busy", Delay: 10 * time.Second}
		}))), w.roads(map[string]road{})
		o := w.one(t, direct)
		require.Equal(t, deliver.Delivered, o.Result, "%v", o)
		require.Equal(t, []string{six + " at 0s", four + " at 10s"}, r.dials)
		require.Len(t, o.Tried, 1)
		require.Equal(t, "450 4.3.2 busy", o.Tried[0].Err)
		require.Equal(t, 2, opened(mx))
	})
}

// However many addresses a host has, so many are tried and no more, and each that failed is told.
//
// std: R7
func TestARaceHasItsBounds(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		zone := "@ MX 10 mx\n"
		state := map[string]road{}
		for i := range 200 {
			zone += fmt.Sprintf("mx A 198.51.100.%d\nmx AAAA 2001:db8::%x\n", i, i+1)
			state[fmt.Sprintf("198.51.100.%d", i)] = road{lost: true}
			state[fmt.Sprintf("[2001:db8::%x]", i+1)] = road{lost: true}
		}
		require.NoError(t, w.Zone("aol.test", zone))
		r := w.roads(state)
		o := w.one(t, direct)
		require.Equal(t, "tempfail 4.4.1", o.Result.String()+" "+o.Status.String())
		require.Len(t, r.dials, 10)
		require.Len(t, o.Tried, 9)
		require.Equal(t, 9*250*time.Millisecond+30*time.Second, o.End.Sub(o.Start))
		require.Equal(t, 30*time.Second, o.Timing.Connect)
		seen := map[string]bool{o.Addr.String(): true}
		for _, try := range o.Tried {
			seen[try.Addr.String()] = true
		}
		require.Len(t, seen, 10)
	})
}

const standby = "@ MX 10 a\n@ MX 20 b\na A 192.0.2.1\nb A 192.0.2.2"

// An attempt that is to end while addresses are raced ends at once, and has learned nothing of the host.
func TestARaceEndsWithItsAttempt(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("aol.test", standby+"\na AAAA 2001:db8::10"))
		w.Server("a.aol.test")
		w.Server("b.aol.test")
		r := w.roads(map[string]road{six: {lost: true}, "192.0.2.1": {lost: true}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		o := w.allIn(ctx, t, direct, letter("you@aol.test"))[0]
		require.Equal(t, time.Second, o.End.Sub(o.Start))
		require.Equal(t, deliver.StageConnect, o.Stage)
		require.Len(t, o.Tried, 1)
		require.Len(t, r.dials, 2)
		r.mend(six, road{})
		o = w.one(t, direct)
		require.Equal(t, deliver.Delivered, o.Result, "%v", o)
		require.Equal(t, six+":25", o.Addr.String())
		require.Empty(t, o.Tried)
	})
}

// many makes n attempts at once.
func (w *world) many(t *testing.T, n int, to string) []deliver.Outcome {
	t.Helper()
	all := make([]deliver.Outcome, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { all[i] = w.d.Deliver(t.Context(), direct, letter(to))[0] })
	}
	wg.Wait()
	return all
}

// A host that does not answer costs one attempt its time, and the others go to the next host; when it is back it is used
// within two minutes.
func TestAHostThatDoesNotAnswerIsRemembered(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("aol.test", standby))
		require.NoError(t, w.Zone("other.test", "@ MX 10 a.aol.test.\n@ MX 20 b.aol.test."))
		w.Server("a.aol.test")
		w.Server("b.aol.test")
		r := w.roads(map[string]road{"192.0.2.1": {lost: true}})
		o := w.one(t, direct)
		require.Equal(t, "b.aol.test", o.Host)
		require.Equal(t, 30*time.Second, o.End.Sub(o.Start))
		gone := time.Now()
		for _, domain := range []string{"aol.test", "other.test"} {
			for _, o := range w.many(t, 50, "you@"+domain) {
				require.Equal(t, deliver.Delivered, o.Result, "%v", o)
				require.Equal(t, "b.aol.test", o.Host)
				require.Zero(t, o.End.Sub(o.Start))
				require.Len(t, o.Tried, 1)
				require.Equal(t, "a.aol.test", o.Tried[0].Host)
				require.Equal(t, "192.0.2.1:25", o.Tried[0].Addr.String())
				require.Regexp(t, `^not tried again: at \d\d:\d\d:\d\d UTC: no connection: .*deadline exceeded`, o.Tried[0].Err)
			}
		}
		require.Equal(t, 1, r.count("192.0.2.1"))

		time.Sleep(2*time.Minute - time.Since(gone) - 1)
		require.Equal(t, "b.aol.test", w.one(t, direct).Host)
		require.Equal(t, 1, r.count("192.0.2.1"))
		time.Sleep(time.Nanosecond)
		waited := 0
		for _, o := range w.many(t, 50, "you@aol.test") {
			require.Equal(t, "b.aol.test", o.Host)
			if o.End.Sub(o.Start) > 0 {
				waited++
			}
		}
		require.Equal(t, 1, waited, "one alone finds out whether it is back")
		require.Equal(t, 2, r.count("192.0.2.1"))

		r.mend("192.0.2.1", road{})
		time.Sleep(2 * time.Minute)
		o = w.one(t, direct)
		require.Equal(t, "a.aol.test", o.Host, "%v", o)
		require.Empty(t, o.Tried)
		for _, o := range w.many(t, 20, "you@aol.test") {
			require.Equal(t, "a.aol.test", o.Host)
		}
	})
}

// Where every address is remembered not to answer, mail is tried all the same, one attempt at a time.
func TestNobodyFailsWithoutATry(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("aol.test", both))
		w.Server("mx.aol.test")
		r := w.roads(map[string]road{six: {lost: true}, four: {lost: true}})
		for i := range 3 { // each for itself is a real try
			o := w.one(t, direct)
			require.Equal(t, "tempfail 4.4.1", o.Result.String()+" "+o.Status.String())
			require.Len(t, o.Tried, 1)
			require.NotContains(t, o.Detail+o.Tried[0].Err, "again")
			require.Equal(t, i+1, r.count(four))
			require.Equal(t, i+1, r.count(six))
		}
		tried := 0
		for _, o := range w.many(t, 50, "you@aol.test") {
			require.Equal(t, "tempfail 4.4.1", o.Result.String()+" "+o.Status.String())
			require.Equal(t, deliver.StageConnect, o.Stage)
			require.Equal(t, "mx.aol.test", o.Host)
			require.Len(t, o.Tried, 1)
			if o.End.Sub(o.Start) > 0 {
				tried++
				continue
			}
			require.Regexp(t, `^not tried again: at 00:\d\d:\d\d UTC: no connection: `, o.Detail)
			require.Regexp(t, `^not tried again: at 00:\d\d:\d\d UTC: no connection: `, o.Tried[0].Err)
		}
		require.Equal(t, 1, tried)
		require.Equal(t, 4, r.count(four))
		require.Equal(t, 4, r.count(six))

		r.mend(four, road{})
		o := w.one(t, direct)
		require.Equal(t, deliver.Delivered, o.Result, "a host that is back is used at once where there is no other: %v", o)
		o = w.one(t, direct)
		require.Equal(t, deliver.Delivered, o.Result)
		require.Equal(t, four+":25", o.Addr.String())
		require.Equal(t, 5, r.count(six), "its other address is left alone")
	})
}

// What was passed over is tried in the end where nobody else took the message.
func TestWhatWasPassedOverIsTriedLast(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("aol.test", standby))
		a := w.Server("a.aol.test")
		w.Server("b.aol.test", lab.Refuse(lab.AtRcpt, "450 4.2.1 later"))
		r := w.roads(map[string]road{"192.0.2.1": {err: syscall.ECONNREFUSED}})
		o := w.one(t, direct)
		require.Equal(t, "450 4.2.1 later", o.Reply.Wire())
		r.mend("192.0.2.1", road{})
		o = w.one(t, direct)
		require.Equal(t, deliver.Delivered, o.Result, "%v", o)
		require.Equal(t, "a.aol.test", o.Host)
		require.Len(t, a.Mailbox(), 1)
		var tried []string
		for _, try := range o.Tried {
			tried = append(tried, try.Host+" "+try.Err)
		}
		require.Equal(t, []string{
			"a.aol.test not tried again: at 00:00:00 UTC: no connection: dial tcp: connection refused", "b.aol.test 450 4.2.1 later",
		}, tried)
	})
}

// A host that answers at one address is not asked at the one that was passed over.
func TestWhatWasPassedOverOfAHostThatAnswers(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("aol.test", both))
		w.Server("mx.aol.test", lab.Refuse(lab.AtRcpt, "450 4.2.1 later"))
		r := w.roads(map[string]road{six: {err: syscall.ECONNREFUSED}})
		for range 3 {
			require.Equal(t, "450 4.2.1 later", w.one(t, direct).Reply.Wire())
		}
		require.Equal(t, 1, r.count(six))
	})
}

// Where TLS fails with a host that was passed over it has its chance in the clear too.
//
// std: T1
func TestWhatWasPassedOverInTheClear(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("aol.test", standby))
		w.Server("a.aol.test", lab.Offer{TLS: lab.TLSBroken})
		w.Server("b.aol.test", lab.Refuse(lab.AtRcpt, "450 4.2.1 later"))
		r := w.roads(map[string]road{"192.0.2.1": {err: syscall.ECONNREFUSED}})
		require.Equal(t, deliver.TempFail, w.one(t, direct).Result)
		r.mend("192.0.2.1", road{})
		o := w.one(t, direct)
		require.Equal(t, deliver.Delivered, o.Result, "%v", o)
		require.Equal(t, "a.aol.test", o.Host)
		require.Empty(t, o.TLS.Version)
	})
}

// A backup MX hears nothing while the better one works, and becomes no better by having worked.
//
// std: R1
func TestAStandbyIsLeftAlone(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("aol.test", standby))
		a, b := w.Server("a.aol.test"), w.Server("b.aol.test")
		r := w.roads(map[string]road{})
		w.many(t, 50, "you@aol.test")
		require.Zero(t, r.count("192.0.2.2"))
		a.Behave(lab.Times(1, lab.Refuse(lab.AtMail, "451 4.3.0 later")))
		require.Equal(t, "b.aol.test", w.one(t, direct).Host)
		require.Equal(t, 1, r.count("192.0.2.2"))
		for range 20 { // a connection to the backup is kept, and not used
			require.Equal(t, "a.aol.test", w.one(t, direct).Host)
		}
		require.Len(t, b.Mailbox(), 1)
	})
}

// A host that accepts and says nothing does not answer either.
func TestAHostThatFallsSilentIsRemembered(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("aol.test", standby))
		a := w.Server("a.aol.test", lab.Hang(lab.AtGreeting))
		w.Server("b.aol.test")
		o := w.one(t, direct)
		require.Equal(t, 5*time.Minute, o.End.Sub(o.Start))
		o = w.one(t, direct)
		require.Equal(t, "b.aol.test", o.Host)
		require.Zero(t, o.End.Sub(o.Start))
		require.Contains(t, o.Tried[0].Err, "did not answer within 5m0s")
		a.Behave(lab.AcceptAll)
		time.Sleep(2 * time.Minute)
		require.Equal(t, "a.aol.test", w.one(t, direct).Host)
		require.Equal(t, "a.aol.test", w.one(t, direct).Host)
	})
}

// What is no silence of the host is no reason to pass it over.
func TestWhatIsNotRemembered(t *testing.T) {
	for name, tt := range map[string]struct {
		road   road
		limit  time.Duration
		behave lab.Behaviour
	}{
		"trouble on this side":        {road: road{err: syscall.EMFILE}},
		"no network of that family":   {road: road{err: syscall.ENETUNREACH}},
		"refused, and nothing is set": {road: road{err: syscall.ECONNREFUSED}, limit: -1},
		"a greeting that refuses":     {behave: lab.Refuse(lab.AtGreeting, "554 5.7.1 not you")},
		"a lost connection":           {behave: lab.Drop(lab.AtGreeting)},
		"silence at MAIL":             {behave: lab.Hang(lab.AtMail)},
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				require.NoError(t, w.Zone("aol.test", standby))
				w.d.Limits.Absence = tt.limit
				a := w.Server("a.aol.test")
				if tt.behave != nil {
					a.Behave(tt.behave)
				}
				w.Server("b.aol.test")
				r := w.roads(map[string]road{"192.0.2.1": tt.road})
				for i := range 3 {
					o := w.one(t, direct)
					require.Equal(t, "b.aol.test", o.Host, "%v", o)
					require.Equal(t, i+1, r.count("192.0.2.1"))
					require.NotContains(t, o.Tried[0].Err, "again")
				}
			})
		})
	}
}

// A host that takes one connection and no second one is not away.
func TestAHostWithOneConnection(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("aol.test", standby))
		w.Server("a.aol.test", lab.Times(1, lab.On(lab.AtDot, func(lab.Step) lab.Answer { return lab.Answer{Accept: true, Delay: 3 * time.Second} })))
		w.Server("b.aol.test")
		r := w.roads(map[string]road{})
		first := make(chan deliver.Outcome)
		go func() { first <- w.d.Deliver(t.Context(), direct, letter("you@aol.test"))[0] }()
		synctest.Wait()
		r.mend("192.0.2.1", road{err: syscall.ECONNREFUSED})
		require.Equal(t, "b.aol.test", w.one(t, direct).Host)
		o := <-first
		require.Equal(t, "a.aol.test", o.Host)
		require.Equal(t, "a.aol.test", w.one(t, direct).Host, "the connection that it has is used")
		require.Equal(t, 2, r.count("192.0.2.1"))
	})
}

// However many addresses do not answer, so many are remembered.
func TestTheMemoryIsBounded(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		w.d.Transcript, w.d.Logger = nil, nil
		for i := range deliver.MaxAbsent + 100 {
			w.d.Deliver(t.Context(), direct, letter(fmt.Sprintf("you@[198.51.%d.%d]", i>>8, i&0xff)))
		}
		require.Equal(t, deliver.MaxAbsent, deliver.Absent(w.d))
		time.Sleep(2 * time.Minute)
		w.d.Deliver(t.Context(), direct, letter("you@[192.0.2.77]"))
		require.Equal(t, 1, deliver.Absent(w.d), "what is over goes first")
	})
}
