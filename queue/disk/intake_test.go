package disk

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/queue"
)

// A door is a spool with a small budget for what comes in, in a bubble.
type door struct {
	*testing.T
	q *Queue
}

func atDoor(t *testing.T, test func(d door)) {
	synctest.Test(t, func(t *testing.T) {
		q, err := Options{MaxIntake: 1}.Open(t.TempDir()) // which is the least, 1 MiB
		require.NoError(t, err)
		defer q.Close()
		test(door{t, q})
		assert.Zero(t, q.intake.used, "what was held is given back")
	})
}

// incoming is a message whose client is still sending.
type incoming struct {
	w   *io.PipeWriter
	end chan error
}

func (t door) begins(ctx context.Context, octets int) *incoming {
	r, w := io.Pipe()
	s := &incoming{w, make(chan error, 1)}
	go func() {
		_, err := t.q.Enqueue(ctx, queue.Envelope{To: queue.To("1@a.test")}, r)
		r.CloseWithError(io.ErrClosedPipe)
		s.end <- err
	}()
	if octets > 0 {
		_, _ = w.Write([]byte(strings.Repeat("x", octets)))
		synctest.Wait()
	}
	return s
}

func (s *incoming) ends() error {
	s.w.Close()
	return <-s.end
}

// Bodies that come in have a budget: over it intake slows down, and says so where that does not help.
func TestIntakeIsBounded(t *testing.T) {
	atDoor(t, func(t door) {
		var slow []*incoming
		for range 12 { // three quarters of the budget
			slow = append(slow, t.begins(t.Context(), 64<<10-1))
		}
		late := t.begins(t.Context(), 0)
		require.ErrorIs(t, <-late.end, queue.ErrFull)

		ctx, cancel := context.WithCancel(t.Context())
		gone := t.begins(ctx, 0)
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-gone.end, context.Canceled)

		patient := t.begins(t.Context(), 0)
		synctest.Wait()
		require.NoError(t, slow[0].ends())
		require.NoError(t, patient.ends(), "there is room again")

		_, err := slow[1].w.Write([]byte(strings.Repeat("x", 32<<10)))
		require.NoError(t, err, "who has begun may go on")
		for _, s := range slow[1:] {
			require.NoError(t, s.ends())
		}
	})
}

// Those that have begun and want more wait for each other too, but not for ever.
func TestIntakeOfManyThatGrow(t *testing.T) {
	atDoor(t, func(t door) {
		var all []*incoming
		for range 12 {
			all = append(all, t.begins(t.Context(), 64<<10-1))
		}
		for _, s := range all {
			go s.w.Write([]byte("x")) // each wants twice as much now
		}
		time.Sleep(intakeWait + time.Second)
		full := 0
		for _, s := range all {
			select {
			case err := <-s.end:
				require.ErrorIs(t, err, queue.ErrFull)
				full++
			default:
				require.NoError(t, s.ends())
			}
		}
		assert.Equal(t, 8, full, "four had room, and the others hear of it")
	})
}

// A message that fails gives back what it held, however long it had become.
func TestIntakeOfFailures(t *testing.T) {
	atDoor(t, func(t door) {
		broken := errors.New("the client has gone")
		for _, size := range []int{0, 100, 50_000, 300_000} {
			body := io.MultiReader(strings.NewReader(strings.Repeat("x", size)), iotest.ErrReader(broken))
			_, err := t.q.Enqueue(t.Context(), queue.Envelope{To: queue.To("1@a.test")}, body)
			require.ErrorIs(t, err, broken)
			require.Zero(t, t.q.intake.used)
		}
		for _, size := range []int{0, firstPiece - 1, firstPiece, firstPiece + 1, inlineMax, inlineMax + 1} {
			text := strings.Repeat("x", size)
			id, err := t.q.Enqueue(t.Context(), queue.Envelope{To: queue.To("1@a.test")}, iotest.OneByteReader(strings.NewReader(text)))
			require.NoError(t, err)
			r, err := t.q.Open(t.Context(), id)
			require.NoError(t, err)
			got, err := io.ReadAll(r)
			require.NoError(t, err)
			require.NoError(t, r.Close())
			require.True(t, text == string(got), "%d octets", size)
		}
	})
}

// A host may do without a budget.
func TestIntakeWithoutLimit(t *testing.T) {
	q, err := Options{MaxIntake: -1}.Open(t.TempDir())
	require.NoError(t, err)
	defer q.Close()
	_, err = q.Enqueue(t.Context(), queue.Envelope{To: queue.To("1@a.test")}, strings.NewReader(strings.Repeat("x", 300_000)))
	require.NoError(t, err)
}
