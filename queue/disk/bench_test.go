package disk_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/disk"
)

// BenchmarkMessage is what the spool costs a message: accepted, leased, read and settled, by 20 callers at once.
func BenchmarkMessage(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20} {
		b.Run(map[int]string{4 << 10: "4KiB", 1 << 20: "1MiB"}[size], func(b *testing.B) {
			q, err := disk.Open(b.TempDir())
			require.NoError(b, err)
			defer q.Close()
			body := "Subject: x\r\n\r\n" + strings.Repeat("0123456789abcde\n", size/16)
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			b.SetParallelism(10)
			b.RunParallel(func(pb *testing.PB) {
				var buf bytes.Buffer
				for pb.Next() {
					message(b, q, body, &buf)
				}
			})
		})
	}
}

func message(b *testing.B, q *disk.Queue, body string, buf *bytes.Buffer) {
	ctx := b.Context()
	if _, err := q.Enqueue(ctx, queue.Envelope{From: "me@src.test", To: queue.To("you@a.test")}, strings.NewReader(body)); err != nil {
		b.Error(err)
	}
	leases, _, err := q.Lease(ctx, queue.LeaseRequest{Max: 1, For: time.Hour})
	if err != nil {
		b.Error(err)
	}
	for _, l := range leases {
		r, err := q.Open(ctx, l.ID)
		if err != nil {
			b.Error(err)
			return
		}
		buf.Reset()
		buf.ReadFrom(r)
		r.Close()
		if err := q.Settle(ctx, l, queue.Settlement{Done: []string{"you@a.test"}}); err != nil {
			b.Error(err)
		}
	}
}
