package memory_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/memory"
)

// BenchmarkPages lists a whole queue in pages of 100: what it costs an entry must not grow with the queue.
func BenchmarkPages(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			q := filled(b, n)
			b.ReportAllocs()
			for b.Loop() {
				listed := 0
				for cursor, more := "", true; more; more = cursor != "" {
					page, next, err := q.List(b.Context(), queue.Filter{}, cursor, 100)
					require.NoError(b, err)
					listed, cursor = listed+len(page), next
				}
				require.Equal(b, n, listed)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/entry")
		})
	}
}

// BenchmarkWake settles messages that the destination took while others of its lane wait for reasons of their own: what it
// costs must not grow with their number.
func BenchmarkWake(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			q := filled(b, n)
			leases, _, err := q.Lease(b.Context(), queue.LeaseRequest{Max: n, For: time.Hour})
			require.NoError(b, err)
			for _, l := range leases {
				require.NoError(b, q.Settle(b.Context(), l, queue.Settlement{Next: time.Now().Add(time.Hour)}))
			}
			b.ReportAllocs()
			for b.Loop() {
				enqueue(b, q, 1)
				leases, _, err := q.Lease(b.Context(), queue.LeaseRequest{Max: 1, For: time.Hour})
				require.NoError(b, err)
				require.NoError(b, q.Settle(b.Context(), leases[0], queue.Settlement{Done: []string{"you@a.test"}, Wake: true}))
			}
		})
	}
}

func filled(b *testing.B, n int) *memory.Queue {
	q := memory.New()
	b.Cleanup(func() { q.Close() })
	enqueue(b, q, n)
	return q
}

func enqueue(b *testing.B, q *memory.Queue, n int) {
	for range n {
		_, err := q.Enqueue(b.Context(), queue.Envelope{From: "me@src.test", To: queue.To("you@a.test")}, strings.NewReader("x\r\n"))
		require.NoError(b, err)
	}
}
