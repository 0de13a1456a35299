package shape_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sortie-mail/sortie/deliver/shape"
)

// rulesOf are rules of a host's own.
func rulesOf(t *testing.T, text string) *shape.Rules {
	t.Helper()
	rules, err := shape.Parse("own", strings.NewReader(text))
	require.NoError(t, err)
	return rules
}

// begin lets as many attempts begin as may, at most n.
func begin(sh *shape.Shaper, site string, n int) (begun int) {
	for begun < n {
		if v, _ := sh.Begin(site); v != shape.Go {
			break
		}
		begun++
	}
	return begun
}

// end ends n attempts in the same way, which began now.
func end(sh *shape.Shaper, site string, n int, news shape.News, words string) {
	for range n {
		sh.End(site, shape.Result{News: news, Began: time.Now(), Words: words})
	}
}

// stateOf is what is known of a site.
func stateOf(t *testing.T, sh *shape.Shaper, site string) shape.State {
	t.Helper()
	for _, s := range sh.Sites() {
		if s.Site == site {
			return s
		}
	}
	t.Fatalf("%s is not known", site)
	return shape.State{}
}

func TestASiteEarnsItsConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sh := &shape.Shaper{Rules: rulesOf(t, "google connections=7")}
		assert.Equal(t, 4, sh.Ask("google", 0).N)
		assert.Equal(t, 4, begin(sh, "google", 10), "it begins with a few")
		assert.Zero(t, sh.Ask("google", 0).N)
		end(sh, "google", 1, shape.Answered, "")
		assert.Equal(t, 1, begin(sh, "google", 10), "what is said about a recipient earns nothing, and costs nothing")
		end(sh, "google", 4, shape.Took, "")
		assert.Equal(t, 7, begin(sh, "google", 10), "and no more than its rule says")
		assert.Equal(t, 0, sh.Ask("google", 7).N)
		end(sh, "google", 7, shape.Nothing, "")
		assert.Equal(t, 5, sh.Ask("google", 2).N, "what is about to begin counts")
		assert.Equal(t, 4, sh.Ask("google from 192.0.2.7", 0).N, "each source address has its own")
	})
}

func TestRates(t *testing.T) {
	tests := []struct {
		rate  string
		burst int           // at once
		step  time.Duration // between those that follow
		times int           // in the time of the rate, and a tenth more
		per   time.Duration
	}{
		{"10/s", 1, 100 * time.Millisecond, 11, time.Second},
		{"60/min", 6, time.Second, 66, time.Minute},
		{"100/h", 10, 36 * time.Second, 110, time.Hour},
		{"1/h", 1, time.Hour, 2, time.Hour},
		{"1000/s,60/min", 6, time.Second, 66, time.Minute},
	}
	for _, test := range tests {
		t.Run(test.rate, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sh := &shape.Shaper{Rules: rulesOf(t, "google connections=none rate="+test.rate)}
				end(sh, "google", begin(sh, "google", 1), shape.Took, "")
				time.Sleep(2 * time.Hour)
				one := func() bool {
					if begin(sh, "google", 1) == 0 {
						return false
					}
					end(sh, "google", 1, shape.Took, "")
					return true
				}
				start, n := time.Now(), 0
				for one() {
					n++
				}
				assert.Equal(t, test.burst, n)
				v, again := sh.Begin("google")
				assert.Equal(t, shape.Full, v)
				assert.Equal(t, test.step, time.Until(again))
				assert.Equal(t, shape.Room{Again: again, Proven: true}, sh.Ask("google", 0))
				assert.Zero(t, stateOf(t, sh, "google").Left)
				for time.Since(start) < test.per {
					time.Sleep(time.Until(sh.Ask("google", 0).Again))
					require.True(t, one(), "it may when it was told to come again")
					n++
				}
				assert.InDelta(t, test.times, n, 1.1)
			})
		})
	}
}

// A site that asks for less gets less at once, is told of by its words, and recovers gently.
func TestASiteThatSaysSlowDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(bytes.Buffer)
		sh := &shape.Shaper{Logger: slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
		for range 30 {
			begin(sh, "google", 1)
			time.Sleep(100 * time.Millisecond)
			end(sh, "google", 1, shape.Took, "")
		}
		require.Equal(t, 20, stateOf(t, sh, "google").Limit)
		began := time.Now()
		n := begin(sh, "google", 30)
		require.Equal(t, 20, n)
		time.Sleep(time.Second)
		for range n { // all of them hear the same
			sh.End("google", shape.Result{News: shape.SlowDown, Began: began, Words: "421 4.7.0 Too many connections\r\nfrom you"})
		}
		s := stateOf(t, sh, "google")
		assert.Equal(t, 10, s.Limit, "which is said once")
		assert.Equal(t, "421 4.7.0 Too many connections  from you", s.Why)
		assert.Equal(t, time.Now(), s.Since)
		assert.Positive(t, s.Pace)
		assert.Contains(t, log.String(), `"limit":10,"before":20`)
		assert.Contains(t, log.String(), "Too many connections")

		assert.Equal(t, 1, begin(sh, "google", 10), "and they go one by one")
		assert.False(t, sh.Ask("google", 0).Again.IsZero())
		end(sh, "google", 1, shape.Took, "")
		assert.Equal(t, 10, stateOf(t, sh, "google").Limit, "one success earns nothing now")
		for range 30 {
			time.Sleep(time.Second)
			end(sh, "google", begin(sh, "google", 1), shape.Took, "")
		}
		assert.Equal(t, 13, stateOf(t, sh, "google").Limit, "but one in ten seconds")
		for range 20 {
			time.Sleep(10 * time.Second)
			end(sh, "google", begin(sh, "google", 1), shape.Took, "")
		}
		s = stateOf(t, sh, "google")
		assert.Equal(t, 20, s.Limit)
		assert.Zero(t, s.Pace)
		assert.Equal(t, 20, begin(sh, "google", 30))
	})
}

// Asked for less again and again, it ends at one message a minute.
func TestASiteThatIsNeverContent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sh := new(shape.Shaper)
		for range 100 {
			time.Sleep(time.Until(sh.Ask("google", 0).Again))
			require.Equal(t, 1, begin(sh, "google", 1))
			time.Sleep(time.Millisecond)
			end(sh, "google", 1, shape.SlowDown, "421 slow down")
		}
		s := stateOf(t, sh, "google")
		assert.Equal(t, 1, s.Limit)
		assert.InDelta(t, 60, s.Pace, 0.1)
	})
}

func TestARefusalHalves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sh := new(shape.Shaper)
		for _, want := range []int{2, 1, 1} {
			begin(sh, "google", 1)
			end(sh, "google", 1, shape.Refused, "554 5.7.1 blocked")
			time.Sleep(time.Second)
			assert.Equal(t, want, stateOf(t, sh, "google").Limit)
		}
		assert.Zero(t, stateOf(t, sh, "google").Pace)
		begin(sh, "google", 1)
		end(sh, "google", 1, shape.Took, "")
		assert.Equal(t, 2, stateOf(t, sh, "google").Limit)
	})
}

// A site that is down is probed by one attempt, later each time, and when it answers its mail flows at once, few at first.
//
// std: Q7
func TestASiteThatIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sh := new(shape.Shaper)
		const site = "mx.example.com"
		require.Equal(t, 4, begin(sh, site, 4))
		start := time.Now()
		time.Sleep(30 * time.Second)
		for range 4 {
			sh.End(site, shape.Result{News: shape.Unreachable, Began: start, Words: "no connection"})
		}
		var waits []time.Duration
		for range 8 {
			found := time.Now()
			s := stateOf(t, sh, site)
			require.True(t, s.Down)
			assert.Equal(t, "no connection", s.Why)
			v, again := sh.Begin(site)
			require.Equal(t, shape.Down, v)
			assert.Equal(t, again, s.Until)
			assert.Equal(t, shape.Room{Again: again, Down: true}, sh.Ask(site, 0))
			time.Sleep(time.Until(again))
			waits = append(waits, time.Since(found))
			assert.Equal(t, 1, sh.Ask(site, 0).N)
			assert.Zero(t, sh.Ask(site, 1).N, "one that is about to begin is enough")
			v, _ = sh.Begin(site)
			require.Equal(t, shape.Probe, v)
			v, _ = sh.Begin(site)
			require.Equal(t, shape.Down, v, "one asks, and not all")
			assert.Zero(t, sh.Ask(site, 1).N)
			time.Sleep(30 * time.Second)
			sh.End(site, shape.Result{News: shape.Unreachable, Began: time.Now().Add(-30 * time.Second), Words: "no connection"})
		}
		assert.Equal(t, []time.Duration{
			30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 10 * time.Minute, 10 * time.Minute, 10 * time.Minute,
		}, waits)

		time.Sleep(10 * time.Minute)
		v, _ := sh.Begin(site)
		require.Equal(t, shape.Probe, v)
		end(sh, site, 1, shape.Took, "")
		s := stateOf(t, sh, site)
		assert.False(t, s.Down)
		assert.Equal(t, time.Now(), s.Since)
		for want := 2; want < 10; want += 2 { // it answered, and has doubled with each round
			n := begin(sh, site, 100)
			assert.LessOrEqual(t, n, 2*want)
			end(sh, site, n, shape.Took, "")
		}
		assert.Equal(t, 20, begin(sh, site, 100))
	})
}

// A probe that does not come back does not keep others from asking for ever.
func TestAProbeThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sh := new(shape.Shaper)
		begin(sh, "a.test", 1)
		end(sh, "a.test", 1, shape.Unreachable, "")
		time.Sleep(30 * time.Second)
		v, _ := sh.Begin("a.test")
		require.Equal(t, shape.Probe, v)
		_, again := sh.Begin("a.test")
		assert.Equal(t, time.Minute, time.Until(again))
		time.Sleep(time.Minute)
		v, _ = sh.Begin("a.test")
		assert.Equal(t, shape.Probe, v)
		end(sh, "a.test", 1, shape.Nothing, "") // it was called off
		v, _ = sh.Begin("a.test")
		assert.Equal(t, shape.Probe, v)
	})
}

// One of a provider's many hosts may be away, and the provider is not; when all are, few attempts find out.
func TestOneThatIsAwayOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sh := new(shape.Shaper)
		for range 40 {
			begin(sh, "office365", 1)
			end(sh, "office365", 1, shape.Took, "")
		}
		for range 100 {
			begin(sh, "office365", 3)
			end(sh, "office365", 1, shape.Unreachable, "no connection")
			end(sh, "office365", 2, shape.Took, "")
			require.False(t, stateOf(t, sh, "office365").Down)
		}
		for n := 1; ; n++ {
			require.Equal(t, 1, begin(sh, "office365", 1))
			end(sh, "office365", 1, shape.Unreachable, "no connection")
			if stateOf(t, sh, "office365").Down {
				assert.InDelta(t, 3, n, 1)
				break
			}
		}
	})
}

// A mail that waits for less than the outage is the one that asks.
func TestAnOutageIsNoLongerThanTheMailWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sh := new(shape.Shaper)
		begin(sh, "a.test", 1)
		sh.End("a.test", shape.Result{News: shape.Unreachable, Wait: time.Second})
		assert.Equal(t, time.Second, time.Until(sh.Ask("a.test", 0).Again))
		sh.Again()
		v, _ := sh.Begin("a.test")
		assert.Equal(t, shape.Probe, v, "or what changed on our side makes it ask")
	})
}

func TestStatesAreJSON(t *testing.T) {
	sh := &shape.Shaper{Connections: 3, SmarthostConnections: 5}
	begin(sh, "mx.b.test from 192.0.2.7", 9)
	begin(sh, "google", 1)
	begin(sh, "mail.isp.test:587", 9)
	text, err := json.Marshal(sh.Sites())
	require.NoError(t, err)
	assert.JSONEq(t, `[
		{"site": "google", "limits": {"connections": 20, "messages": 50, "recipients": 100}, "active": 1, "limit": 4, "left": -1},
		{"site": "mail.isp.test:587", "limits": {"connections": 5}, "active": 4, "limit": 4, "left": -1},
		{"site": "mx.b.test", "source": "192.0.2.7", "limits": {"connections": 3}, "active": 3, "limit": 3, "left": -1}
	]`, string(text))
}

// Strangers' domains cannot fill the memory: what is idle is forgotten, and what is under way is not.
func TestSitesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sh := new(shape.Shaper)
		begin(sh, "stays.test", 1)
		for i := range 250_000 {
			site := fmt.Sprintf("mx.%d.test", i)
			begin(sh, site, 1)
			end(sh, site, 1, shape.Unreachable, "no connection")
		}
		assert.LessOrEqual(t, len(sh.Sites()), 100_000)
		time.Sleep(7 * time.Hour)
		for i := range 250_000 {
			site := fmt.Sprintf("mx.%d.test", i)
			begin(sh, site, 1)
			end(sh, site, 1, shape.Took, "")
			time.Sleep(time.Second)
		}
		assert.LessOrEqual(t, len(sh.Sites()), 5000)
		assert.Equal(t, 1, stateOf(t, sh, "stays.test").Active)
	})
}

// Whatever happens, no site gets more at once than its rule says or more in a time, one attempt at a time asks one that is
// down, and where nothing may begin a time or an end of an attempt is told that changes it.
func TestShaperModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		most := rapid.IntRange(1, 12).Draw(r, "connections")
		rate := rapid.SampledFrom([]string{"", "", "rate=5/s", "rate=60/min"}).Draw(r, "rate")
		ops := rapid.SliceOfN(rapid.SampledFrom([]string{
			"begin", "begin", "begin", "took", "took", "answered", "nothing", "refused", "slow", "unreachable", "wait", "sleep", "again",
		}), 1, 200).Draw(r, "ops")
		steps := rapid.SliceOfN(rapid.IntRange(1, 100_000), 200, 200).Draw(r, "milliseconds")
		bad := ""
		synctest.Test(t, func(*testing.T) {
			bad = playShaper(t, fmt.Sprintf("google connections=%d messages=1 %s", most, rate), most, ops, steps)
		})
		if bad != "" {
			r.Fatal(bad)
		}
	})
}

func playShaper(t *testing.T, rule string, most int, ops []string, steps []int) (bad string) {
	sh := &shape.Shaper{Rules: rulesOf(t, rule)}
	news := map[string]shape.News{
		"took": shape.Took, "answered": shape.Answered, "nothing": shape.Nothing, "refused": shape.Refused, "slow": shape.SlowDown, "unreachable": shape.Unreachable,
	}
	var active []time.Time
	for i, op := range ops {
		room := sh.Ask("google", len(active))
		switch what, isEnd := news[op]; {
		case isEnd && len(active) > 0:
			sh.End("google", shape.Result{News: what, Began: active[0]})
			active = active[1:]
		case op == "begin":
			v, again := sh.Begin("google")
			began := v == shape.Go || v == shape.Probe
			if began {
				active = append(active, time.Now())
			}
			switch {
			case began != (room.N > 0):
				return fmt.Sprintf("step %d: Ask said %+v, and Begin %v", i, room, v)
			case v == shape.Go && len(active) > most:
				return fmt.Sprintf("step %d: %d attempts at once", i, len(active))
			case !began && again.IsZero() && len(active) == 0:
				return fmt.Sprintf("step %d: %v, and nothing will end", i, v)
			}
		case op == "wait" && !room.Again.IsZero():
			time.Sleep(time.Until(room.Again))
			if len(active) == 0 && sh.Ask("google", 0).N == 0 {
				return fmt.Sprintf("step %d: it was to come again at %v, and there is no room", i, room.Again)
			}
		case op == "sleep":
			time.Sleep(time.Duration(steps[i]) * time.Millisecond)
		case op == "again":
			sh.Again()
		}
		for _, s := range sh.Sites() {
			if s.Active != len(active) || s.Limit < 1 || s.Limit > most {
				return fmt.Sprintf("step %d: %+v with %d under way", i, s, len(active))
			}
		}
	}
	return ""
}

// What an attempt costs that goes through: asking, beginning, and its result.
func BenchmarkShaper(b *testing.B) {
	sh := new(shape.Shaper)
	for i := range 10_000 {
		begin(sh, fmt.Sprintf("mx.%d.test", i), 1)
	}
	began := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		sh.Ask("google", 0)
		sh.Begin("google")
		sh.End("google", shape.Result{News: shape.Took, Began: began})
	}
}
