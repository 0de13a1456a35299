package route_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/route"
)

// file makes a routing file of n entries: one in ten each an address, a "*." domain and a sender domain, the others domains.
func file(n int) string {
	var b strings.Builder
	for i := range n {
		switch i % 10 {
		case 0:
			fmt.Fprintf(&b, "user%d@company%d.example    smtp://relay%d.isp.example\n", i, i, i%50)
		case 1:
			fmt.Fprintf(&b, "*@*.company%d.example       smtp://relay%d.isp.example tls=required\n", i, i%50)
		case 2:
			fmt.Fprintf(&b, "from:*@company%d.example    submission://relay%d.isp.example\n", i, i%50)
		default:
			fmt.Fprintf(&b, "*@company%d.example         smtp://relay%d.isp.example:2525\n", i, i%50)
		}
	}
	return b.String()
}

// BenchmarkRoute looks mail up that matches an entry of each kind, and some that matches none, over the whole table, so that
// a large one is not answered from the processor's caches.
func BenchmarkRoute(b *testing.B) {
	for _, n := range []int{10, 10_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			text := file(n)
			before := heap()
			table := parse(b, text)
			perEntry := float64(heap()-before) / float64(n)
			var queries []route.Query
			for i := range 50_000 {
				k := i * 7919 % n / 10 * 10
				queries = append(queries,
					route.Query{Sender: "me@sender.example", Recipient: fmt.Sprintf("user%d@company%d.example", k, k)},
					route.Query{Sender: "me@sender.example", Recipient: fmt.Sprintf("x@mail.company%d.example", k+1)},
					route.Query{Sender: fmt.Sprintf("me@company%d.example", k+2), Recipient: "you@else.example"},
					route.Query{Sender: "me@sender.example", Recipient: fmt.Sprintf("x@company%d.example", k+5)},
					route.Query{Sender: "me@sender.example", Recipient: fmt.Sprintf("x@nowhere%d.example", k)})
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, err := table.Route(b.Context(), queries[i%len(queries)]); err != nil {
					b.Fatal(err)
				}
				i++
			}
			b.ReportMetric(perEntry, "B/entry")
			runtime.KeepAlive(table)
			runtime.KeepAlive(text)
		})
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkParse reads a file of a million lines.
func BenchmarkParse(b *testing.B) {
	text := file(1_000_000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		parse(b, text)
	}
}

func TestLookupDoesNotAllocate(t *testing.T) {
	table := parse(t, file(1000)+"from:*@a.example hold\nBoss@x.example hold case=ignore\n")
	for _, to := range []string{"user10@company10.example", "x@mail.Company11.example", "x@company5.example", "x@nowhere.example", "boss@X.example"} {
		q := route.Query{Sender: "me@sender.example", Recipient: to}
		allocs := testing.AllocsPerRun(100, func() {
			_, err := table.Route(t.Context(), q)
			require.NoError(t, err)
		})
		assert.Zero(t, allocs, to)
	}
}
