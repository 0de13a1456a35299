package queue_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/queue"
)

// in lets a world's Runner work on a queue with faults.
func (q *countingQueue) in(w *world) {
	q.Queue = w.queue
	w.runner.Queue = q
}

func isTo(l queue.Lease, name string) bool { return strings.HasPrefix(l.Envelope.To[0].Address, name) }

var errDisk = fmt.Errorf("%w: the disk is full", queue.ErrFull)

// Where only the outcome of one message cannot be recorded, all others go on.
func TestOneOutcomeThatCannotBeRecordedStopsNoOtherMail(t *testing.T) {
	f, q := &far{say: byName}, &countingQueue{}
	var mended atomic.Bool
	q.settle = func(l queue.Lease, s queue.Settlement) error {
		if isTo(l, "poison") && len(s.Done) > 0 && !mended.Load() {
			return errDisk
		}
		return nil
	}
	play(t, f.through(q.in), func(w *world) {
		w.send(queue.To("poison@aol.test")...)
		w.sleep(30 * time.Second)
		for i := range 100 {
			w.send(queue.To(fmt.Sprintf("bob@%d.test", i))...)
			w.sleep(time.Second)
		}
		assert.Len(t, f.triesOf(""), 101)
		assert.Len(t, f.triesOf("poison@aol.test"), 1)
		mended.Store(true)
		w.sleep(2 * time.Minute)
		assert.Len(t, f.triesOf("poison@aol.test"), 1, "it was sent once, and recorded in the end")
		assert.True(t, w.empty())
	})
}

// The attempt that found out that nothing can be recorded may never tell that it can again.
func TestTheQueueIsAskedWhetherItRecordsAgain(t *testing.T) {
	f, q := &far{say: byName}, &countingQueue{}
	var full atomic.Bool
	q.settle = func(queue.Lease, queue.Settlement) error {
		if full.Load() {
			return errDisk
		}
		return nil
	}
	play(t, f.through(q.in), func(w *world) {
		full.Store(true)
		id := w.send(queue.To("bob@aol.test")...)
		w.sleep(time.Second)
		for range 20 {
			w.send(queue.To("bob@other.test")...)
		}
		_, err := w.queue.Delete(w.t.Context(), queue.Filter{ID: id})
		require.NoError(t, err)
		q.asked()
		w.sleep(10 * time.Hour)
		assert.Empty(t, f.triesOf("bob@other.test"), "nothing is sent while nothing can be recorded")
		assert.Less(t, q.asked(), 10*3600/10+50)
		full.Store(false)
		w.sleep(time.Minute)
		assert.Len(t, f.triesOf("bob@other.test"), 20)
		for _, try := range f.triesOf("bob@other.test") {
			assert.Less(t, try.at.Sub(w.start), 10*time.Hour+30*time.Second)
		}
		assert.True(t, w.empty())
	})
}

// Where an attempt finds out first, what the queue was asked with is due again.
func TestWhatTheQueueIsAskedWithIsPutBack(t *testing.T) {
	f, q := &far{say: byName}, &countingQueue{}
	var full atomic.Bool
	q.settle = func(queue.Lease, queue.Settlement) error {
		if full.Load() {
			return errDisk
		}
		return nil
	}
	play(t, f.through(q.in), func(w *world) {
		full.Store(true)
		w.send(queue.To("bob@aol.test")...) // tried again after 1, 3, 7, 15 and 31 s
		w.sleep(time.Second / 2)
		w.send(queue.To("bob@other.test")...) // asks after 10, 20, 30 and 40 s
		w.sleep(30 * time.Second)
		full.Store(false)
		w.sleep(time.Second)
		assert.Len(t, f.triesOf("bob@other.test"), 1)
		assert.True(t, w.empty())
	})
}

// What asks whether the queue records again is not lost to it.
func TestShutdownWhileNothingCanBeRecorded(t *testing.T) {
	f, q := &far{say: byName}, &countingQueue{}
	var full atomic.Bool
	q.settle = func(queue.Lease, queue.Settlement) error {
		if full.Load() {
			return errDisk
		}
		return nil
	}
	play(t, f.through(q.in), func(w *world) {
		full.Store(true)
		w.send(queue.To("bob@aol.test")...)
		w.sleep(time.Second)
		w.send(queue.To("bob@other.test")...)
		w.sleep(time.Minute)
		full.Store(false)
		require.NoError(t, w.runner.Shutdown(w.t.Context()))
		list, _, err := w.queue.List(w.t.Context(), queue.Filter{}, "", 0)
		require.NoError(t, err)
		for _, e := range list {
			assert.Equal(t, queue.Waiting, e.State)
			assert.Zero(t, e.Attempts)
		}
	})
}

func TestAQueueThatCannotLeaseIsAskedNowAndThen(t *testing.T) {
	f, q := &far{say: byName}, &countingQueue{}
	var broken atomic.Bool
	q.lease = func() error {
		if broken.Load() {
			return errors.New("the disk does not answer")
		}
		return nil
	}
	play(t, f.through(q.in), func(w *world) {
		broken.Store(true)
		for range 600 {
			w.send(queue.To("bob@aol.test")...) // each is a change
			w.sleep(time.Second)
		}
		assert.Less(t, q.asked(), 70)
		broken.Store(false)
		w.sleep(time.Minute)
		assert.Len(t, f.triesOf("bob@aol.test"), 600)
		require.NoError(t, w.runner.Shutdown(w.t.Context()))
	})
}

func TestAQueueThatPanics(t *testing.T) {
	f, q := &far{say: byName}, &countingQueue{}
	var panics atomic.Int32
	q.settle = func(queue.Lease, queue.Settlement) error {
		if panics.Add(1) <= 3 {
			panic("a defect of the queue")
		}
		return nil
	}
	play(t, f.through(q.in), func(w *world) {
		w.send(queue.To("bob@aol.test")...)
		w.sleep(time.Minute)
		assert.Len(t, f.triesOf("bob@aol.test"), 1)
		assert.True(t, w.empty())
		assert.Contains(t, w.logText(), "a defect of the queue")
	})
}

func TestATraceThatPanics(t *testing.T) {
	f := &far{say: byName}
	play(t, f.through(func(w *world) {
		w.runner.Trace = &queue.Trace{Settled: func(queue.Lease, []deliver.Outcome, queue.Settlement) { panic("a defect of the host") }}
	}), func(w *world) {
		w.send(queue.To("unknown@aol.test")...)
		w.sleep(time.Minute)
		assert.Len(t, f.told(t), 1)
		assert.True(t, w.empty())
		assert.Contains(t, w.logText(), "a defect of the host")
		assert.Contains(t, w.logText(), "mail failed for good", "all else is told")
	})
}

// A builder writes reports once it is repaired.
type builder struct {
	mu     sync.Mutex
	breaks func() // guarded by mu; nil writes
	good   dsn.Builder
}

func (b *builder) Build(r *dsn.Report) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.breaks != nil {
		b.breaks()
		return nil, errors.New("out of paper")
	}
	return b.good.Build(r)
}

func (b *builder) repair() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.breaks = nil
}

// std: D7
func TestAReportThatCannotBeWritten(t *testing.T) {
	for name, breaks := range map[string]func(){"fails": func() {}, "panics": func() { panic("out of ink") }} {
		t.Run(name, func(t *testing.T) {
			f, b := &far{say: byName}, &builder{breaks: breaks}
			play(t, f.through(func(w *world) { w.runner.Reports = b }), func(w *world) {
				w.send(queue.To("bob@aol.test", "unknown@aol.test")...)
				w.send(queue.To("later@other.test", "unknown@other.test")...)
				w.sleep(5 * time.Hour) // the delay cannot be told either
				assert.Len(t, f.triesOf("bob@aol.test"), 1, "what has arrived is settled")
				assert.Greater(t, len(f.triesOf("later@other.test")), 5, "what waits goes on waiting")
				held, _, err := w.queue.List(w.t.Context(), queue.Filter{State: queue.Held}, "", 0)
				require.NoError(t, err)
				require.Len(t, held, 1)
				assert.Equal(t, queue.To("unknown@aol.test"), held[0].To)
				assert.Contains(t, held[0].Why, "the report on it cannot be written")
				assert.NotEmpty(t, held[0].Last.Results)
				assert.NotContains(t, w.logText(), "failed for good")

				b.repair()
				_, err = w.queue.Release(w.t.Context(), queue.Filter{ID: held[0].ID})
				require.NoError(t, err)
				w.sleep(5 * time.Hour)
				told := f.told(t)
				require.Len(t, told, 2)
				assert.Equal(t, "unknown@aol.test", told[0].Recipients[0].Final.Addr)
				require.Len(t, told[1].Recipients, 2)
				assert.Equal(t, dsn.Delayed, told[1].Recipients[0].Action, "the delay is told as soon as it can be")
				assert.Equal(t, dsn.Failed, told[1].Recipients[1].Action)
			})
		})
	}
}

// A queue may refuse a report for good: because it is too long, for one.
func TestAReportThatTheQueueDoesNotTake(t *testing.T) {
	f, q := &far{say: byName}, &countingQueue{}
	q.settle = func(_ queue.Lease, s queue.Settlement) error {
		if len(s.Reports) > 0 {
			return &queue.EnvelopeError{Field: "message", Problem: "it is longer than 7 octets"}
		}
		return nil
	}
	play(t, f.through(q.in), func(w *world) {
		w.send(queue.To("bob@aol.test", "unknown@aol.test")...)
		w.sleep(time.Second)
		w.send(queue.To("bob@other.test")...)
		w.sleep(time.Minute)
		assert.Len(t, f.triesOf("bob@aol.test"), 1)
		assert.Len(t, f.triesOf("bob@other.test"), 1, "other mail goes on")
		held, _, err := w.queue.List(w.t.Context(), queue.Filter{}, "", 0)
		require.NoError(t, err)
		require.Len(t, held, 1)
		assert.Equal(t, queue.Held, held[0].State)
		assert.Equal(t, queue.To("unknown@aol.test"), held[0].To)
		assert.Contains(t, held[0].Why, "longer than 7 octets")
	})
}

func TestALeaseThatWasLostIsNotSettled(t *testing.T) {
	f := &far{say: byName}
	play(t, f.through(), func(w *world) {
		id := w.send(queue.To("hangs@aol.test")...)
		w.sleep(time.Second)
		_, err := w.queue.Delete(w.t.Context(), queue.Filter{ID: id})
		require.NoError(t, err)
		w.sleep(2 * time.Hour)
		assert.True(t, w.empty())
		assert.Contains(t, w.logText(), "is not recorded")
		w.send(queue.To("bob@aol.test")...)
		w.sleep(time.Second)
		assert.Len(t, f.triesOf("bob@aol.test"), 1)
	})
}
