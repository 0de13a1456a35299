package memory_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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

// A change by a person waits for entries that are being changed just now, and does not pass them over.
func TestChangeWaits(t *testing.T) {
	for name, begin := range map[string]func(*memory.Index, queue.Lease) (end func()){
		"settlement": func(x *memory.Index, l queue.Lease) func() {
			key, err := x.BeginSettle(l)
			require.NoError(t, err)
			return func() { x.CommitSettle(key, queue.Settlement{}, time.Now(), nil) }
		},
		"failed settlement": func(x *memory.Index, l queue.Lease) func() {
			key, err := x.BeginSettle(l)
			require.NoError(t, err)
			return func() { x.Abort(key) }
		},
		"move": func(x *memory.Index, l queue.Lease) func() {
			_, ok := x.BeginMove(l.ID)
			require.True(t, ok)
			return func() { x.EndMove(l.ID, nil) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := memory.NewIndex(nil)
				for _, id := range []queue.ID{"1", "2"} {
					x.Add(memory.Message{ID: id, Envelope: queue.Envelope{To: queue.To("1@a.test")}})
				}
				leases, _ := x.Lease(time.Now(), queue.LeaseRequest{Max: 1, For: time.Hour})
				end := begin(x, leases[0])
				written, n := 0, 0
				go func() {
					n, _ = x.Change(memory.Delete, "", queue.Filter{Lane: "a.test"}, time.Now(), func(k []memory.Key) error {
						written += len(k)
						return nil
					})
				}()
				synctest.Wait()
				require.Equal(t, 1, written, "the free one is changed at once")
				require.Equal(t, 0, n)
				end()
				synctest.Wait()
				require.Equal(t, 2, n)
				require.Zero(t, x.Stats().Messages)
			})
		})
	}
}

// A change that cannot be written changes nothing, and leaves nothing marked.
func TestChangeFails(t *testing.T) {
	x := memory.NewIndex(nil)
	x.Add(memory.Message{ID: "1", Envelope: queue.Envelope{To: queue.To("1@a.test", "1@b.test")}})
	broken := errors.New("broken")
	n, err := x.Change(memory.Delete, "", queue.Filter{All: true}, time.Now(), func([]memory.Key) error { return broken })
	require.ErrorIs(t, err, broken)
	require.Zero(t, n)
	n, err = x.Change(memory.Delete, "", queue.Filter{All: true}, time.Now(), func([]memory.Key) error { return nil })
	require.NoError(t, err)
	require.Equal(t, 2, n)
}
