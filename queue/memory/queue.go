package memory

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"sync"
	"time"

	"github.com/sortie-mail/sortie/queue"
)

// Queue is a [queue.Queue], a [queue.Inspector] and a [queue.Notebook] that keeps everything in memory: for tests, and for mail that
// may be lost with the process. Make one with [New]; it is safe for concurrent use.
type Queue struct {
	// MaxSize is the longest message in octets; 0 is no limit. MaxBytes is how much all bodies may take together;
	// 0 is no limit, and over it Enqueue fails with [queue.ErrFull]. Set them before the first use.
	MaxSize  int64
	MaxBytes int64

	index *Index
	mail  *mail
	notes *Notes
	ids   IDs

	mu     sync.RWMutex // held for reading by calls under way
	closed bool
}

// New makes an empty queue.
func New() *Queue {
	q := &Queue{mail: &mail{all: map[queue.ID]*stored{}}}
	q.index = NewIndex(q.mail, 0)
	q.index.Rebase(time.Now())
	q.notes = NewNotes(func(id queue.ID) bool { _, _, ok := q.index.Place(id); return ok }, nil)
	return q
}

var (
	_ queue.Queue     = (*Queue)(nil)
	_ queue.Inspector = (*Queue)(nil)
	_ queue.Notebook  = (*Queue)(nil)
)

// enter begins a call; leave ends it.
func (q *Queue) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	q.mu.RLock()
	if q.closed {
		q.mu.RUnlock()
		return queue.ErrClosed
	}
	return nil
}

func (q *Queue) leave() { q.mu.RUnlock() }

// Enqueue implements [queue.Queue].
func (q *Queue) Enqueue(ctx context.Context, env queue.Envelope, body io.Reader) (queue.ID, error) {
	if err := env.Validate(); err != nil {
		return "", err
	}
	if env.Key == "" {
		return q.enqueue(ctx, env, body)
	}
	return q.enqueueOnce(ctx, env, body)
}

func (q *Queue) enqueue(ctx context.Context, env queue.Envelope, body io.Reader) (queue.ID, error) {
	in := queue.NewIntake(q.bounded(body), q.MaxSize)
	data, err := io.ReadAll(in) // before enter: a slow sender must not keep Close waiting
	if err != nil {
		return "", err
	}
	if err := q.enter(ctx); err != nil {
		return "", err
	}
	defer q.leave()
	m := q.message(env, data, in, time.Now())
	if !q.index.AddWithin(m, cmp.Or(q.MaxBytes, math.MaxInt64)) {
		q.mail.Dropped(m.ID, m.Place, m.Size)
		return "", q.full()
	}
	q.notes.Put(nil, KeyOf(m.Message)...)
	return m.ID, nil
}

func (q *Queue) full() error {
	return fmt.Errorf("%w: all bodies together may take %d octets", queue.ErrFull, q.MaxBytes)
}

// bounded keeps a body that cannot fit from being read whole.
func (q *Queue) bounded(body io.Reader) io.Reader {
	if q.MaxBytes <= 0 {
		return body
	}
	return io.MultiReader(io.LimitReader(body, q.MaxBytes), &over{body, q.full()})
}

// over fails with err where r has anything more.
type over struct {
	r   io.Reader
	err error
}

func (o *over) Read(p []byte) (int, error) {
	n, err := o.r.Read(p)
	if n > 0 {
		return 0, o.err
	}
	return 0, err
}

// message keeps a message for the index.
func (q *Queue) message(env queue.Envelope, data []byte, in *queue.Intake, now time.Time) Placed {
	m := &Message{ID: q.ids.New(now), Envelope: env, Accepted: now, Size: in.Size, Hops: in.Hops}
	m.OnClock(now)
	m.Split()
	q.mail.put(m, data)
	return Placed{Message: m}
}

// Lease implements [queue.Queue].
func (q *Queue) Lease(ctx context.Context, req queue.LeaseRequest) ([]queue.Lease, time.Time, error) {
	if err := q.enter(ctx); err != nil {
		return nil, time.Time{}, err
	}
	defer q.leave()
	now := time.Now()
	if err := q.index.Lapse(now, written); err != nil {
		return nil, time.Time{}, err
	}
	leases, next := q.index.Lease(now, req)
	return leases, next, nil
}

// Changed implements [queue.Queue].
func (q *Queue) Changed() <-chan struct{} { return q.index.Changed() }

// Settle implements [queue.Queue].
func (q *Queue) Settle(ctx context.Context, l queue.Lease, s queue.Settlement) error {
	if err := q.enter(ctx); err != nil {
		return err
	}
	defer q.leave()
	notes, end, err := q.notes.Begin(ctx, s.Notes)
	if err != nil {
		return err
	}
	defer end()
	now := time.Now()
	intakes := make([]*queue.Intake, len(s.Reports))
	for i, r := range s.Reports {
		if err := r.Envelope.Validate(); err != nil {
			return err
		}
		intakes[i] = queue.NewIntake(bytes.NewReader(r.Body), 0)
		if _, err := io.Copy(io.Discard, intakes[i]); err != nil {
			return err
		}
	}
	entry, err := q.index.BeginSettle(l)
	if err != nil {
		return err
	}
	q.notes.Put(nil, notes...)
	reports := make([]Placed, len(s.Reports))
	for i, r := range s.Reports {
		r.Envelope.Key = ""
		reports[i] = q.message(r.Envelope, bytes.Clone(r.Body), intakes[i], now)
	}
	gone := len(Without(entry.To, s.Done)) == 0
	if !gone {
		q.mail.settle(entry.Key, &s)
	}
	q.index.CommitSettle(entry, OutcomeOf(&s, gone), now, reports...)
	return nil
}

// Open implements [queue.Queue].
func (q *Queue) Open(ctx context.Context, id queue.ID) (io.ReadCloser, error) {
	if err := q.enter(ctx); err != nil {
		return nil, err
	}
	defer q.leave()
	body, ok := q.mail.body(id)
	if !ok {
		return nil, queue.ErrNotFound
	}
	return io.NopCloser(bytes.NewReader(body)), nil
}

// Close implements [queue.Queue]. The mail is gone.
func (q *Queue) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return queue.ErrClosed
	}
	q.closed = true
	return nil
}

// List implements [queue.Inspector].
func (q *Queue) List(ctx context.Context, f queue.Filter, cursor string, limit int) ([]queue.Info, string, error) {
	if err := q.enter(ctx); err != nil {
		return nil, "", err
	}
	defer q.leave()
	found, next := q.index.List(f, cursor, limit, time.Now())
	return found, next, nil
}

// Show implements [queue.Inspector].
func (q *Queue) Show(ctx context.Context, id queue.ID) (queue.Detail, error) {
	if err := q.enter(ctx); err != nil {
		return queue.Detail{}, err
	}
	defer q.leave()
	return q.index.Show(id)
}

// Stats implements [queue.Inspector].
func (q *Queue) Stats(ctx context.Context) (queue.Stats, error) {
	if err := q.enter(ctx); err != nil {
		return queue.Stats{}, err
	}
	defer q.leave()
	return q.index.Stats(), nil
}

// Hold implements [queue.Inspector].
func (q *Queue) Hold(ctx context.Context, f queue.Filter, why string) (int, error) {
	return q.change(ctx, Hold, f, why)
}

// Release implements [queue.Inspector].
func (q *Queue) Release(ctx context.Context, f queue.Filter) (int, error) {
	return q.change(ctx, Release, f, "")
}

// Retry implements [queue.Inspector].
func (q *Queue) Retry(ctx context.Context, f queue.Filter) (int, error) {
	return q.change(ctx, Retry, f, "")
}

// Fail implements [queue.Inspector].
func (q *Queue) Fail(ctx context.Context, f queue.Filter, why string) (int, error) {
	return q.change(ctx, Fail, f, why)
}

// Delete implements [queue.Inspector].
func (q *Queue) Delete(ctx context.Context, f queue.Filter) (int, error) {
	return q.change(ctx, Delete, f, "")
}

func (q *Queue) change(ctx context.Context, op Op, f queue.Filter, why string) (int, error) {
	if err := f.CheckChange(); err != nil {
		return 0, err
	}
	if err := q.enter(ctx); err != nil {
		return 0, err
	}
	defer q.leave()
	return q.index.Change(op, why, f, time.Now(), written)
}

// written makes a change as durable as memory is.
func written([]Key) error { return nil }
