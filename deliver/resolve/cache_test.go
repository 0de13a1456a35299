package resolve_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/resolve"
)

func TestCacheLifetimes(t *testing.T) {
	negative := func(soaTTL, minimum int) answerer { return denial(t, dns.RcodeSuccess, "example.", soaTTL, minimum) }
	tests := []struct {
		name   string
		answer answerer
		set    func(*resolve.Resolver)
		want   time.Duration
	}{
		{"TTL", zone(t, "d.example. 300 IN MX 1 mx.example."), nil, 300 * time.Second},
		{"lowest TTL of a set", zone(t, "d.example. 300 IN MX 1 a.example.", "d.example. 60 IN MX 1 b.example."), nil, time.Minute},
		{"TTL of the alias", zone(t, "d.example. 60 IN CNAME e.example.", "e.example. 300 IN MX 1 a.example."), nil, time.Minute},
		{"TTL of an alias asked for on its own", oneStep(t, "d.example. 60 IN CNAME e.example.", "e.example. 300 IN MX 1 a.example."), nil, time.Minute},
		{"TTL zero", zone(t, "d.example. 0 IN MX 1 mx.example."), nil, 0},
		{"TTL with the highest bit", zone(t, "d.example. 2147483648 IN MX 1 mx.example."), nil, 0},
		{"TTL over the default bound", zone(t, "d.example. 604800 IN MX 1 mx.example."), nil, 24 * time.Hour},
		{"TTL over the bound", zone(t, "d.example. 300 IN MX 1 mx.example."), func(r *resolve.Resolver) { r.MaxTTL = time.Second }, time.Second},
		{"no records: SOA minimum", negative(600, 120), nil, 2 * time.Minute},
		{"no records: SOA TTL", negative(60, 120), nil, time.Minute},
		{"no records: default bound", negative(86400, 86400), nil, 15 * time.Minute},
		{"no records: bound", negative(600, 120), func(r *resolve.Resolver) { r.MaxNegativeTTL = time.Second }, time.Second},
		{"no records: SOA of another zone", denial(t, dns.RcodeSuccess, "elsewhere.", 600, 600), nil, 0},
		{"no such name", denial(t, dns.RcodeNameError, "example.", 600, 120), nil, 2 * time.Minute},
		{"no such name, no SOA", rcode(t, dns.RcodeNameError), nil, 0},
		{"failure", rcode(t, dns.RcodeServerFailure), nil, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { checkLifetime(t, tt.answer, tt.set, tt.want) })
		})
	}
}

// checkLifetime checks that an answer is kept just so long, and that the one from the cache is the same.
func checkLifetime(t *testing.T, answer answerer, set func(*resolve.Resolver), want time.Duration) {
	asked := &counter{next: answer}
	r := alone(asked.answer)
	if set != nil {
		set(r)
	}
	lookup := func() int64 {
		before := asked.n.Load()
		_, _ = r.LookupMX(t.Context(), "d.example")
		return asked.n.Load() - before
	}
	first, err := r.LookupMX(t.Context(), "D.example.")
	if want == 0 {
		assert.NotZero(t, lookup(), "it is not kept")
		return
	}
	again, errAgain := r.LookupMX(t.Context(), "d.example")
	assert.Equal(t, first, again)
	assert.Equal(t, err, errAgain)
	time.Sleep(want - time.Nanosecond)
	assert.Zero(t, lookup(), "it is kept until its time")
	time.Sleep(time.Nanosecond)
	assert.NotZero(t, lookup(), "it is asked for again")
}

// denial is an answer without records, with the SOA record of a zone.
func denial(t testing.TB, code int, zone string, soaTTL, minimum int) answerer {
	soa := parseRecords(t, fmt.Sprintf("%s %d IN SOA ns.example. hostmaster.example. 1 7200 900 86400 %d", zone, soaTTL, minimum))
	return func(network string, query *dns.Msg) []byte {
		m := new(dns.Msg).SetRcode(query, code)
		m.Ns = soa
		return fit(t, m, network)
	}
}

func TestCacheIsBounded(t *testing.T) {
	var lines []string
	for i := range 100 {
		lines = append(lines, fmt.Sprintf("d%d.example. 300 IN MX 1 mx.example.", i))
	}
	asked := &counter{next: zone(t, lines...)}
	r := alone(asked.answer)
	r.CacheSize = 10 << 10
	fresh := func(i int) bool {
		before := asked.n.Load()
		_, err := r.LookupMX(t.Context(), fmt.Sprintf("d%d.example", i))
		require.NoError(t, err)
		return asked.n.Load() > before
	}
	fresh(0)
	for i := 1; i < 100; i++ {
		assert.True(t, fresh(i))
		assert.False(t, fresh(0), "what is used stays")
	}
	assert.False(t, fresh(99), "what was asked for last is kept")
	assert.True(t, fresh(1), "what was not used for long has gone")
}

func TestCacheOff(t *testing.T) {
	asked := &counter{next: zone(t, exampleZone...)}
	r := alone(asked.answer)
	r.CacheSize = -1
	for range 3 {
		_, err := r.LookupMX(t.Context(), "two.example")
		require.NoError(t, err)
	}
	assert.EqualValues(t, 3, asked.n.Load())
}

func TestHugeAnswerIsNotKept(t *testing.T) {
	var lines []string
	for i := range 60 {
		lines = append(lines, fmt.Sprintf(`big.example. 300 IN TXT "%0200d"`, i))
	}
	asked := &counter{next: zone(t, lines...)}
	r := alone(asked.answer)
	for range 2 {
		before := asked.n.Load()
		got, err := r.LookupTXT(t.Context(), "big.example")
		require.NoError(t, err)
		assert.Len(t, got, 60)
		assert.Greater(t, asked.n.Load(), before)
	}
}

// gate holds answers back until it is opened.
func gate(next answerer) (answerer, func()) {
	open := make(chan struct{})
	return func(network string, query *dns.Msg) []byte {
		<-open
		return next(network, query)
	}, sync.OnceFunc(func() { close(open) })
}

// Callers who ask the same share a query, and the one who began it may leave without taking the answer away from the others.
func TestSingleFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held, open := gate(zone(t, exampleZone...))
		asked := &counter{next: held}
		r := alone(asked.answer)
		var callers sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		callers.Go(func() {
			_, err := r.LookupMX(ctx, "null.example")
			assert.ErrorIs(t, err, context.Canceled)
		})
		synctest.Wait()
		for range 50 {
			callers.Go(func() {
				got, err := r.LookupMX(t.Context(), "null.example")
				assert.NoError(t, err)
				assert.Equal(t, []resolve.MX{{}}, got)
			})
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		open()
		callers.Wait()
		assert.EqualValues(t, 1, asked.n.Load())
	})
}

// When all callers have left nothing goes on, and the next caller begins anew.
func TestFlightEndsWithItsLastCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := &counter{next: silence}
		r := alone(asked.answer)
		ctx, cancel := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		for range 3 {
			callers.Go(func() {
				_, err := r.LookupMX(ctx, "two.example")
				requireTemporary(t, err)
				assert.ErrorIs(t, err, context.Canceled)
			})
		}
		synctest.Wait()
		cancel()
		callers.Wait()
		time.Sleep(time.Minute)
		assert.EqualValues(t, 1, asked.n.Load(), "no second attempt for nobody")

		asked.next = zone(t, exampleZone...)
		_, err := r.LookupMX(t.Context(), "two.example")
		require.NoError(t, err)
	})
}

func TestConcurrentLookups(t *testing.T) {
	r := &resolve.Resolver{Servers: []string{listen(t, zone(t, exampleZone...))}, CacheSize: 2 << 10}
	names := []string{"two.example", "null.example", "alias.example", "nomx.example", "gone.example", "text.example"}
	var callers sync.WaitGroup
	for i := range 16 {
		callers.Go(func() {
			for j := range 50 {
				name := names[(i+j)%len(names)]
				got, err := r.LookupMX(t.Context(), name)
				switch name {
				case "gone.example":
					assert.Error(t, err)
				case "two.example", "alias.example":
					assert.NoError(t, err)
					assert.Len(t, got, 3)
				default:
					assert.NoError(t, err)
				}
			}
		})
	}
	callers.Wait()
}

func BenchmarkCachedLookupMX(b *testing.B) {
	r := alone(zone(b, exampleZone...))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.LookupMX(b.Context(), "two.example"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCachedLookupAddr(b *testing.B) {
	r := alone(zone(b, exampleZone...))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.LookupAddr(b.Context(), "mx1.two.example"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLookupMXUncached(b *testing.B) {
	r := &resolve.Resolver{Servers: []string{listen(b, zone(b, exampleZone...))}, CacheSize: -1}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.LookupMX(b.Context(), "two.example"); err != nil {
			b.Fatal(err)
		}
	}
}
