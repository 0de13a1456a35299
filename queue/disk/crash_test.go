package disk

import (
	"log/slog"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/queuetest"
)

// TestConformanceAfterCrash is the suite, where no queue is closed before it is opened again: each one ends in a power cut or with
// its process.
func TestConformanceAfterCrash(t *testing.T) { queuetest.Run(t, crashing()) }

// TestModelWithCrashes holds a queue that ends in crashes only against a model.
func TestModelWithCrashes(t *testing.T) { queuetest.RunModel(t, crashing()) }

// crashing is the backend whose queues end in crashes. Their segments are short.
func crashing() queuetest.Backend {
	type life struct {
		disk *volatile
		dir  string
	}
	lives := map[queuetest.Queue]life{}
	open := func(t testing.TB, l life) queuetest.Queue {
		opts := Options{MinFree: -1, Logger: slog.New(slog.DiscardHandler), storage: l.disk, segmentSize: 2000}
		q, err := opts.Open(l.dir)
		require.NoError(t, err)
		lives[q] = l
		return q
	}
	return queuetest.Backend{
		New: func(t testing.TB) queuetest.Queue {
			disk, dir := newMemoryDisk(t)
			return open(t, life{disk, dir})
		},
		Reopen: func(t testing.TB, q queuetest.Queue) queuetest.Queue {
			l := lives[q]
			after := l.disk.snapshot()
			if rand.IntN(2) == 0 {
				after = l.disk.cut()
			}
			if err := q.Close(); err != nil { // for its lock and goroutines: what it writes now is lost
				require.ErrorIs(t, err, queue.ErrClosed)
			}
			return open(t, life{after, l.dir})
		},
	}
}
