package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// callers is how many work at once, as 20 SMTP sessions do.
const callers = 20

// A worker is the work that every engine gets.
type worker struct {
	e    engine
	size int
	log  io.Writer // told of each step, for who watches from outside: +SEQ accepted, ~SEQ about to be settled, -SEQ settled

	seq   atomic.Uint64 // the last message
	count atomic.Int64  // messages settled
	mu    sync.Mutex
	waits []time.Duration // guarded by mu: how long each enqueue took
}

func (w *worker) tell(sign byte, seq uint64) {
	if w.log != nil {
		fmt.Fprintf(w.log, "%c%d\n", sign, seq)
	}
}

func (w *worker) enqueue() error {
	m := newMail(w.seq.Add(1), w.size)
	start := time.Now()
	if err := w.e.enqueue(m); err != nil {
		return err
	}
	took := time.Since(start)
	w.tell('+', m.seq)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waits = append(w.waits, took)
	return nil
}

// deliver takes one message, reads it, and settles it. It tells false where there is none.
func (w *worker) deliver() (bool, error) {
	jobs, err := w.e.take(1)
	if err != nil || len(jobs) == 0 {
		return false, err
	}
	j := jobs[0]
	if err := check(w.e, j, w.size); err != nil {
		return true, err
	}
	w.tell('~', j.seq)
	if err := w.e.settle(j, record); err != nil {
		return true, fmt.Errorf("settle %d: %w", j.seq, err)
	}
	w.tell('-', j.seq)
	w.count.Add(1)
	return true, nil
}

var errWrong = errors.New("it is not what was enqueued")

// check reads a message and compares it with what was enqueued.
func check(e engine, j job, size int) error {
	meta, body, err := e.read(j)
	if err == nil && len(body) != size {
		err = fmt.Errorf("the body has %d octets instead of %d", len(body), size) // a queue knows that from its envelope
	}
	if err == nil && (!bytes.Equal(meta, metaOf(j.seq)) || !bytes.Equal(body, bodyOf(j.seq, size))) {
		err = errWrong
	}
	if err != nil {
		return fmt.Errorf("read %d: %w", j.seq, err)
	}
	return nil
}

// each has all callers call step again and again until it is false or fails.
func (w *worker) each(step func() (bool, error)) error {
	errs := make([]error, callers)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			for more := true; more && errs[i] == nil; {
				more, errs[i] = step()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// flow enqueues and delivers, until it is over.
func (w *worker) flow(until time.Time) error {
	err := w.each(func() (bool, error) {
		if err := w.enqueue(); err != nil {
			return false, err
		}
		_, err := w.deliver()
		return time.Now().Before(until), err
	})
	return errors.Join(err, w.drain())
}

// fill enqueues n messages.
func (w *worker) fill(n int) error {
	var begun atomic.Int64
	return w.each(func() (bool, error) {
		if begun.Add(1) > int64(n) {
			return false, nil
		}
		return true, w.enqueue()
	})
}

// drain delivers what waits.
func (w *worker) drain() error { return w.each(w.deliver) }

// stall is the longest that an enqueue took, and what 99 of 100 did not take.
func (w *worker) stall() (longest, p99 time.Duration) {
	slices.Sort(w.waits)
	if n := len(w.waits); n > 0 {
		longest, p99 = w.waits[n-1], w.waits[n*99/100]
	}
	return longest, p99
}
