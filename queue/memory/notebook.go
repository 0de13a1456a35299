package memory

import (
	"context"
	"io"
	"time"

	"github.com/sortie-mail/sortie/queue"
)

// Note implements [queue.Notebook].
func (q *Queue) Note(ctx context.Context, notes ...queue.Note) error {
	if err := q.enter(ctx); err != nil {
		return err
	}
	defer q.leave()
	made, end, err := q.notes.Begin(ctx, notes)
	if err != nil {
		return err
	}
	defer end()
	q.notes.Put(nil, made...)
	return nil
}

// Lookup implements [queue.Notebook].
func (q *Queue) Lookup(ctx context.Context, kind, key string) (queue.Note, bool, error) {
	if err := q.enter(ctx); err != nil {
		return queue.Note{}, false, err
	}
	defer q.leave()
	n, ok := q.notes.Lookup(kind, key, time.Now())
	return n, ok, nil
}

// Notes implements [queue.Notebook].
func (q *Queue) Notes(ctx context.Context, kind, prefix, cursor string, limit int) ([]queue.Note, string, error) {
	if err := q.enter(ctx); err != nil {
		return nil, "", err
	}
	defer q.leave()
	found, next := q.notes.List(kind, prefix, cursor, limit, time.Now())
	return found, next, nil
}

// enqueueOnce enqueues a message with a key.
func (q *Queue) enqueueOnce(ctx context.Context, env queue.Envelope, body io.Reader) (queue.ID, error) {
	if err := q.enter(ctx); err != nil {
		return "", err
	}
	q.leave() // the body may be slow, and so may that of another with the key
	return q.notes.Once(ctx, env.Key, func() (queue.ID, error) { return q.enqueue(ctx, env, body) })
}
