package memory_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/memory"
	"github.com/sortie-mail/sortie/queue/queuetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	queuetest.Run(t, backend)
}

func TestModel(t *testing.T) { queuetest.RunModel(t, backend) }

var backend = queuetest.Backend{New: func(testing.TB) queuetest.Queue { return memory.New() }}

func TestLimits(t *testing.T) {
	q := memory.New()
	defer q.Close()
	q.MaxSize, q.MaxBytes = 100, 250
	enqueue := func(size int) error {
		_, err := q.Enqueue(t.Context(), queue.Envelope{To: queue.To("1@a.test")}, strings.NewReader(strings.Repeat("x", size)))
		return err
	}
	var bad *queue.EnvelopeError
	require.ErrorAs(t, enqueue(101), &bad)
	require.NoError(t, enqueue(100))
	require.NoError(t, enqueue(100))
	require.ErrorIs(t, enqueue(51), queue.ErrFull)
	require.NoError(t, enqueue(50))
	require.ErrorIs(t, enqueue(1), queue.ErrFull)
	_, err := q.Delete(t.Context(), queue.Filter{All: true})
	require.NoError(t, err)
	require.NoError(t, enqueue(100), "what is gone makes room")
	q.MaxSize = 0
	_, err = q.Enqueue(t.Context(), queue.Envelope{To: queue.To("1@a.test")}, endless{})
	require.ErrorIs(t, err, queue.ErrFull, "what can never fit is not read whole")
	require.NoError(t, enqueue(150))
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
