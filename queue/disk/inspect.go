package disk

import (
	"context"
	"time"

	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/memory"
)

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
	return q.change(ctx, memory.Hold, f, why)
}

// Release implements [queue.Inspector].
func (q *Queue) Release(ctx context.Context, f queue.Filter) (int, error) {
	return q.change(ctx, memory.Release, f, "")
}

// Retry implements [queue.Inspector].
func (q *Queue) Retry(ctx context.Context, f queue.Filter) (int, error) {
	return q.change(ctx, memory.Retry, f, "")
}

// Fail implements [queue.Inspector].
func (q *Queue) Fail(ctx context.Context, f queue.Filter, why string) (int, error) {
	return q.change(ctx, memory.Fail, f, why)
}

// Delete implements [queue.Inspector].
func (q *Queue) Delete(ctx context.Context, f queue.Filter) (int, error) {
	return q.change(ctx, memory.Delete, f, "")
}

func (q *Queue) change(ctx context.Context, op memory.Op, f queue.Filter, why string) (int, error) {
	if err := f.CheckChange(); err != nil {
		return 0, err
	}
	if err := q.enter(ctx); err != nil {
		return 0, err
	}
	defer q.leave()
	q.checkClock()
	now := time.Now()
	return q.index.Change(op, why, f, now, q.writeChange(op, why, now))
}

// writeChange gives the function that makes a change of some entries durable.
func (q *Queue) writeChange(op memory.Op, why string, now time.Time) func([]memory.Key) error {
	return func(keys []memory.Key) error {
		rec, err := newRecord(typeChange, changeMeta{Op: op, Why: why, At: now, Entries: keys})
		if err == nil {
			_, err = q.log.append(rec)
		}
		return err
	}
}
