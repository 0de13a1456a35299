package disk_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/disk"
	"github.com/sortie-mail/sortie/queue/queuetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) { queuetest.Run(t, backend()) }

func TestModel(t *testing.T) { queuetest.RunModel(t, backend()) }

func backend() queuetest.Backend {
	dirs := map[queuetest.Queue]string{}
	open := func(t testing.TB, dir string) queuetest.Queue {
		q, err := disk.Open(dir)
		require.NoError(t, err)
		dirs[q] = dir
		return q
	}
	return queuetest.Backend{
		New: func(t testing.TB) queuetest.Queue { return open(t, t.TempDir()) },
		Reopen: func(t testing.TB, q queuetest.Queue) queuetest.Queue {
			if err := q.Close(); err != nil {
				require.ErrorIs(t, err, queue.ErrClosed)
			}
			return open(t, dirs[q])
		},
	}
}
