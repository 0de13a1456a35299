package disk_test

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/disk"
)

// backlog is how many messages wait in BenchmarkBacklog, ten a lane, each tried once: SORTIE_BACKLOG, or 100,000.
func backlog() int {
	if n, err := strconv.Atoi(os.Getenv("SORTIE_BACKLOG")); err == nil {
		return n
	}
	return 100_000
}

// BenchmarkBacklog is what a waiting entry costs: memory, and time at an opening.
func BenchmarkBacklog(b *testing.B) {
	n := backlog()
	dir := b.TempDir()
	q, err := disk.Open(dir)
	require.NoError(b, err)
	began := time.Now()
	fillBacklog(b, q, n)
	filled := float64(n) / time.Since(began).Seconds()
	require.NoError(b, q.Close())
	q = nil
	before := heap()
	for b.Loop() {
		if q != nil {
			b.StopTimer()
			require.NoError(b, q.Close())
			q = nil
			b.StartTimer()
		}
		q, err = disk.Open(dir)
		require.NoError(b, err)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/entry")
	b.ReportMetric(filled, "fill/s")
	b.ReportMetric(float64(heap()-before)/float64(n), "B/entry")
	stats, err := q.Stats(b.Context())
	require.NoError(b, err)
	require.Equal(b, n, stats.Waiting)
	require.NoError(b, q.Close())
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func fillBacklog(b *testing.B, q *disk.Queue, n int) {
	var all sync.WaitGroup
	const senders = 64
	for k := range senders {
		all.Go(func() {
			for i := k; i < n; i += senders {
				env := queue.Envelope{From: "me@src.test", To: queue.To(fmt.Sprintf("user%d@lane%d.test", i, i/10))}
				if _, err := q.Enqueue(b.Context(), env, strings.NewReader("Subject: x\r\n\r\nHello.\r\n")); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	later := time.Now().Add(24 * time.Hour)
	for range senders {
		all.Go(func() {
			for {
				leases, _, err := q.Lease(b.Context(), queue.LeaseRequest{Max: 64, For: time.Hour})
				if err != nil || len(leases) == 0 {
					return
				}
				for _, l := range leases {
					attempt := queue.Attempt{Time: time.Now(), Route: "direct"}
					if err := q.Settle(b.Context(), l, queue.Settlement{Attempt: attempt, Next: later}); err != nil {
						b.Error(err)
					}
				}
			}
		})
	}
	all.Wait()
}
