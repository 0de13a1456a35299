package queue

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// records is whether outcomes can be recorded. While they cannot, nothing more is sent: all of it would be sent again. The
// zero value is ready.
type records struct {
	mu      sync.Mutex
	written uint64 // guarded by mu: how many were recorded
	broken  bool   // guarded by mu

	asked time.Time // when the Runner last asked the queue about it; of the dispatcher alone
	lease *Lease    // what it asks with; of the dispatcher alone
}

func (k *records) count() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.written
}

func (k *records) stopped() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.broken
}

func (k *records) succeeded() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.written++
	k.broken = false
}

// failed notes that an outcome was not recorded, and gives the count of those that were. Where one was since that count
// was seen, the trouble is the outcome's own, and the others go on.
func (k *records) failed(seen uint64) (written uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.broken = k.broken || k.written == seen
	return k.written
}

const (
	// settleTime is how long the queue may take to record one outcome. It is over before the lease is.
	settleTime = 5 * time.Minute
	// probeWait is how long outcomes are left to those whose attempts are under way, before the queue is asked.
	probeWait = 10 * time.Second
)

// probe asks whether outcomes can be recorded again, where attempts under way may never tell: with an entry that is leased
// and put back untried, now and then. next is when to ask again.
func (r *Runner) probe(ctx context.Context) (next time.Time, err error) {
	k, now := &r.records, time.Now()
	if k.asked.IsZero() {
		k.asked = now
	}
	if next = k.asked.Add(probeWait); now.Before(next) {
		return next, nil
	}
	k.asked = now
	if k.lease == nil {
		leases, _, err := r.take(ctx, 1)
		if err != nil {
			return r.cannotLease(ctx, err)
		}
		if len(leases) == 0 {
			return now.Add(probeWait), nil // nothing waits for the answer
		}
		k.lease = &leases[0]
	}
	if err := r.putBack(); err != nil {
		r.Logger.Error("no outcome can be recorded, and no mail is sent until one can", "error", err)
		return now.Add(probeWait), nil
	}
	return now, nil
}

// putBack settles the lease that probe asks with.
func (r *Runner) putBack() error {
	k := &r.records
	if k.lease == nil {
		return nil
	}
	err := r.record(k.lease, Settlement{})
	if err == nil {
		k.succeeded()
	}
	if err == nil || isFinal(err) {
		k.lease = nil
	}
	return err
}

// record is Settle that comes back: with an error where the queue panics or takes too long.
func (r *Runner) record(l *Lease, s Settlement) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), settleTime) // not the Runner's: what is put back must be recorded too
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the queue panicked: %v", p)
			r.Logger.Error("the queue panicked", "id", l.ID, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	return r.Queue.Settle(ctx, *l, s)
}

// settle records what became of the attempt, again and again until it is recorded, the lease is lost, or the Runner is
// told to leave everything.
func (a *attempt) settle() {
	s := a.settlement()
	seen := a.r.records.count()
	for wait := time.Second; ; wait = min(2*wait, time.Minute) {
		err := a.r.record(a.lease, s)
		switch {
		case err == nil:
			a.r.records.succeeded()
			a.settled(s)
			return
		case isFinal(err):
			a.r.Logger.Warn("what became of an attempt is not recorded, and it may be made again", "id", a.lease.ID, "lane", a.lease.Lane, "error", err)
			return
		case len(s.Reports) > 0 && isInvalid(err):
			s = a.withoutReports(s, err)
			continue
		}
		seen = a.r.records.failed(seen)
		a.r.Logger.Error("what became of an attempt cannot be recorded; trying again", "id", a.lease.ID, "lane", a.lease.Lane, "error", err)
		select {
		case <-time.After(wait):
		case <-a.r.work.Done():
			return
		}
	}
}

// isFinal tells errors of Settle that more tries do not mend.
func isFinal(err error) bool {
	return errors.Is(err, ErrLeaseLost) || errors.Is(err, ErrClosed) || errors.Is(err, ErrNotFound)
}

// isInvalid tells errors of Settle that are about a report: the queue takes none like it.
func isInvalid(err error) bool {
	var invalid *EnvelopeError
	return errors.As(err, &invalid)
}
