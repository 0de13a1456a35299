package resolve_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/resolve"
)

// moody answers by whatever it is told at the time.
type moody struct {
	counter
	mood atomic.Value // of answerer
}

func newMoody(first answerer) *moody {
	m := &moody{}
	m.be(first)
	m.next = func(network string, query *dns.Msg) []byte { return m.mood.Load().(answerer)(network, query) }
	return m
}

func (m *moody) be(next answerer) { m.mood.Store(next) }

// asked returns how many queries came since it was called last.
func (m *moody) asked() int { return int(m.n.Swap(0)) }

// lookup asks for the MX records of two.example and returns the answer that the trace shows.
func lookup(t *testing.T, r *resolve.Resolver) (got []resolve.MX, seen resolve.Answer, err error) {
	ctx := resolve.WithTrace(t.Context(), &resolve.Trace{Answered: func(a resolve.Answer, _ error) { seen = a }})
	got, err = r.LookupMX(ctx, "two.example")
	return got, seen, err
}

var staleHosts = []resolve.MX{{Host: "mx.example", Preference: 10}}

// staleResolver has an answer that lived for a minute and is over since a second, from a server that changed its mood since.
func staleResolver(t *testing.T, mood answerer, lines ...string) (*resolve.Resolver, *moody) {
	if lines == nil {
		lines = []string{"two.example. 60 IN MX 10 mx.example."}
	}
	server := newMoody(zone(t, lines...))
	r := alone(server.answer)
	r.Timeout, r.MaxStale = time.Second, time.Hour
	_, _, _ = lookup(t, r)
	time.Sleep(61 * time.Second)
	server.be(mood)
	server.asked()
	return r, server
}

func TestStaleAnswerOnFailure(t *testing.T) {
	for name, broken := range brokenServers(t) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, server := staleResolver(t, broken.answer)
				var logged bytes.Buffer
				r.Logger = slog.New(slog.NewTextHandler(&logged, nil))
				expired := time.Now().Add(-time.Second)
				got, seen, err := lookup(t, r)
				require.NoError(t, err)
				assert.Equal(t, staleHosts, got)
				requireTemporary(t, seen.Stale)
				assert.Equal(t, expired, seen.Expires)
				assert.Contains(t, logged.String(), "stale DNS answer used")
				assert.NotZero(t, server.asked(), "the servers come first")
			})
		})
	}
}

func TestStaleAnswerHasAnEnd(t *testing.T) { // std: R4
	for name, tt := range map[string]struct {
		bound, after time.Duration
		stale        bool
	}{
		"none by default":   {0, 0, false},
		"none if negative":  {-time.Hour, 0, false},
		"before the bound":  {time.Hour, time.Hour - time.Second - 1, true},
		"at the bound":      {time.Hour, time.Hour - time.Second, false},
		"long after it":     {time.Hour, 100 * time.Hour, false},
		"of another length": {time.Minute, time.Minute, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, _ := staleResolver(t, rcode(t, dns.RcodeServerFailure))
				r.MaxStale = tt.bound
				time.Sleep(tt.after)
				got, seen, err := lookup(t, r)
				if tt.stale {
					require.NoError(t, err)
					assert.Equal(t, staleHosts, got)
					assert.Error(t, seen.Stale)
					return
				}
				requireTemporary(t, err)
				assert.NoError(t, seen.Stale)
			})
		})
	}
}

// The bound counts when the answer is used, not when the servers were asked.
func TestStaleAnswerEndsWhileServersAreAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := staleResolver(t, silence)
		time.Sleep(time.Hour - 3*time.Second) // the attempts take two, and one has passed
		_, seen, err := lookup(t, r)
		requireTemporary(t, err)
		assert.NoError(t, seen.Stale)
	})
}

// Servers in trouble are not asked again for each lookup, and their recovery is seen.
func TestStaleAnswerServesForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, server := staleResolver(t, silence)
		for range 3 {
			for i := range 10 {
				began := time.Now()
				_, seen, err := lookup(t, r)
				require.NoError(t, err)
				require.Error(t, seen.Stale)
				if i == 0 {
					assert.Equal(t, 2, server.asked(), "both attempts")
					continue
				}
				assert.Zero(t, server.asked())
				assert.Zero(t, time.Since(began))
			}
			time.Sleep(30 * time.Second)
		}
		server.be(zone(t, "two.example. 60 IN MX 10 new.example."))
		got, seen, err := lookup(t, r)
		require.NoError(t, err)
		assert.Equal(t, []resolve.MX{{Host: "new.example", Preference: 10}}, got)
		assert.NoError(t, seen.Stale)
	})
}

// What would return mail is said by a DNS that works, or not at all.
func TestStaleAnswerNeverReturnsMail(t *testing.T) { // std: R3 R4
	for name, lines := range map[string][]string{
		"no such name":     {"other.example. 60 IN MX 10 mx.example."},
		"no such target":   {"two.example. 60 IN CNAME gone.example."},
		"no records":       {"two.example. 60 IN A 192.0.2.1"},
		"null MX":          {"two.example. 60 IN MX 0 ."},
		"only unfit hosts": {"two.example. 60 IN MX 0 .", "two.example. 60 IN MX 5 192.0.2.1.", `two.example. 60 IN MX 5 a\032b.example.`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, server := staleResolver(t, nil, lines...)
				server.be(rcode(t, dns.RcodeServerFailure))
				time.Sleep(15 * time.Minute) // the longest that absence is remembered
				_, seen, err := lookup(t, r)
				requireTemporary(t, err)
				assert.NoError(t, seen.Stale)
			})
		})
	}
}

// Once the DNS has spoken, what it said before is forgotten, even if the new answer is not to be kept.
func TestStaleAnswerIsOvertaken(t *testing.T) {
	for name, next := range map[string]answerer{
		"no such name":               denial(t, dns.RcodeNameError, "example.", 600, 5),
		"no such name, not for long": rcode(t, dns.RcodeNameError),
		"no records":                 denial(t, dns.RcodeSuccess, "example.", 600, 5),
		"no records, not for long":   rcode(t, dns.RcodeSuccess),
		"another, not for long":      zone(t, "two.example. 0 IN MX 10 new.example."),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, server := staleResolver(t, next)
				_, seen, _ := lookup(t, r)
				assert.NoError(t, seen.Stale)
				time.Sleep(10 * time.Second)
				server.be(rcode(t, dns.RcodeServerFailure))
				_, _, err := lookup(t, r)
				requireTemporary(t, err)
			})
		})
	}
}

// A caller who leaves is no failure of the servers.
func TestStaleAnswerNotBecauseOfACaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, server := staleResolver(t, silence)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := r.LookupMX(ctx, "two.example")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		synctest.Wait()
		server.be(zone(t, "two.example. 60 IN MX 10 new.example."))
		got, seen, err := lookup(t, r)
		require.NoError(t, err)
		assert.Equal(t, []resolve.MX{{Host: "new.example", Preference: 10}}, got)
		assert.NoError(t, seen.Stale)
	})
}

func TestStaleAnswerStaysSecure(t *testing.T) {
	for _, secure := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			server := newMoody(edit(zone(t, "_25._tcp.mx.example. 60 IN TLSA 3 1 1 00"), func(_ string, raw []byte) []byte {
				if secure {
					raw[3] |= 0x20
				}
				return raw
			}))
			r := alone(server.answer)
			r.TrustAD, r.MaxStale = true, time.Hour
			for range 2 {
				answer, err := r.Lookup(t.Context(), "_25._tcp.mx.example", dns.TypeTLSA)
				require.NoError(t, err)
				assert.Equal(t, secure, answer.Secure)
				assert.Len(t, resolve.Records[*dns.TLSA](answer), 1)
				server.be(rcode(t, dns.RcodeServerFailure))
				time.Sleep(2 * time.Minute)
			}
		})
	}
}

// busy takes an answer from the cache as often as makes its name a busy one, at the end of its minute.
func busy(t *testing.T, r *resolve.Resolver, domain string) {
	for range 3 {
		_, _ = r.LookupMX(t.Context(), domain)
	}
	time.Sleep(55 * time.Second)
	_, _ = r.LookupMX(t.Context(), domain)
	synctest.Wait()
}

func TestPrefetch(t *testing.T) {
	fresh := zone(t, "two.example. 60 IN MX 10 mx.example.")
	tests := []struct {
		name  string
		lines []string
		use   func(*testing.T, *resolve.Resolver, string)
		asks  int
	}{
		{"a busy name", nil, busy, 1},
		{"a name without records", []string{"two.example. 60 IN A 192.0.2.1"}, busy, 0},
		{"a name that does not exist", []string{"other.example. 60 IN A 192.0.2.1"}, busy, 0},
		{"a null MX", []string{"two.example. 60 IN MX 0 ."}, busy, 0},
		{"a name seldom used", nil, func(t *testing.T, r *resolve.Resolver, domain string) {
			time.Sleep(55 * time.Second)
			_, _ = r.LookupMX(t.Context(), domain)
			synctest.Wait()
		}, 0},
		{"a busy name in its prime", nil, func(t *testing.T, r *resolve.Resolver, domain string) {
			time.Sleep(53 * time.Second)
			for range 10 {
				_, _ = r.LookupMX(t.Context(), domain)
			}
			synctest.Wait()
		}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if tt.lines == nil {
					tt.lines = []string{"two.example. 60 IN MX 10 mx.example."}
				}
				server := newMoody(zone(t, tt.lines...))
				r := alone(server.answer)
				r.MaxNegativeTTL = time.Minute
				_, _ = r.LookupMX(t.Context(), "two.example")
				server.be(fresh)
				server.asked()
				tt.use(t, r, "two.example")
				require.Equal(t, tt.asks, server.asked())
				if tt.asks == 0 {
					return
				}
				time.Sleep(30 * time.Second) // past the end of the first answer
				got, _, err := lookup(t, r)
				require.NoError(t, err)
				assert.Equal(t, staleHosts, got)
				assert.Zero(t, server.asked(), "the new one serves")
				require.NoError(t, r.Close())
			})
		})
	}
}

// A renewal that fails takes nothing away and is not repeated; one that brings news is believed.
func TestPrefetchFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newMoody(zone(t, "two.example. 60 IN MX 10 mx.example."))
		r := alone(server.answer)
		_, _, err := lookup(t, r)
		require.NoError(t, err)
		server.be(rcode(t, dns.RcodeServerFailure))
		server.asked()
		busy(t, r, "two.example")
		for range 5 {
			_, _, _ = lookup(t, r)
			synctest.Wait()
		}
		assert.Equal(t, 1, server.asked(), "once")
		got, seen, err := lookup(t, r)
		require.NoError(t, err)
		assert.Equal(t, staleHosts, got)
		assert.NoError(t, seen.Stale)
	})
	synctest.Test(t, func(t *testing.T) {
		server := newMoody(zone(t, "two.example. 60 IN MX 10 mx.example."))
		r := alone(server.answer)
		_, _, err := lookup(t, r)
		require.NoError(t, err)
		server.be(rcode(t, dns.RcodeNameError))
		busy(t, r, "two.example")
		_, _, err = lookup(t, r)
		var failure *resolve.Error
		require.ErrorAs(t, err, &failure)
		assert.True(t, failure.NotFound)
	})
}

// Renewals do not add up to a flood, and Close ends them.
func TestPrefetchesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines []string
		for i := range 100 {
			lines = append(lines, fmt.Sprintf("d%d.example. 60 IN MX 10 mx.example.", i))
		}
		server := newMoody(zone(t, lines...))
		r := alone(server.answer)
		round := func() {
			for i := range 100 {
				_, err := r.LookupMX(t.Context(), fmt.Sprintf("d%d.example", i))
				require.NoError(t, err)
			}
		}
		for range 3 {
			round()
		}
		server.asked()
		server.be(silence)
		time.Sleep(55 * time.Second)
		round()
		synctest.Wait()
		assert.Equal(t, 16, server.asked())

		began := time.Now()
		require.NoError(t, r.Close())
		assert.Zero(t, time.Since(began))
		round()
		synctest.Wait()
		assert.Zero(t, server.asked(), "nothing goes on behind a closed Resolver")
		server.be(zone(t, lines...))
		time.Sleep(time.Minute)
		for range 4 {
			round()
		}
		server.asked()
		time.Sleep(55 * time.Second)
		round()
		synctest.Wait()
		assert.Zero(t, server.asked(), "nor later")
		require.NoError(t, r.Close())
	})
}

// A caller may wait for what began as a renewal, and keeps it when the Resolver is closed.
func TestPrefetchIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newMoody(zone(t, "two.example. 60 IN MX 10 mx.example."))
		r := alone(server.answer)
		r.Timeout = 20 * time.Second
		_, _, err := lookup(t, r)
		require.NoError(t, err)
		held, open := gate(zone(t, "two.example. 60 IN MX 10 new.example."))
		server.be(held)
		server.asked()
		busy(t, r, "two.example")
		time.Sleep(6 * time.Second)
		done := make(chan []resolve.MX)
		go func() {
			got, _, err := lookup(t, r)
			assert.NoError(t, err)
			done <- got
		}()
		synctest.Wait()
		closed := make(chan error)
		go func() { closed <- r.Close() }()
		synctest.Wait()
		open()
		assert.Equal(t, []resolve.MX{{Host: "new.example", Preference: 10}}, <-done)
		require.NoError(t, <-closed)
		assert.Equal(t, 1, server.asked())
	})
}

func TestTracesAddUp(t *testing.T) {
	var seen []string
	note := func(who string) *resolve.Trace {
		return &resolve.Trace{Answered: func(resolve.Answer, error) { seen = append(seen, who) }}
	}
	ctx := resolve.WithTrace(resolve.WithTrace(t.Context(), note("outer")), &resolve.Trace{})
	ctx = resolve.WithTrace(resolve.WithTrace(ctx, note("inner")), nil)
	_, err := alone(zone(t, exampleZone...)).LookupMX(ctx, "two.example")
	require.NoError(t, err)
	assert.Equal(t, []string{"outer", "inner"}, seen)
}
