package disk

import (
	"context"
	"io"
	"slices"
	"time"

	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/memory"
)

// notesAtOnce is how many notes the cleaner writes anew in one record.
const notesAtOnce = 1000

// Note implements [queue.Notebook].
func (q *Queue) Note(ctx context.Context, notes ...queue.Note) error {
	if err := q.enter(ctx); err != nil {
		return err
	}
	defer q.leave()
	if err := q.checkRoom(); err != nil {
		return err
	}
	q.checkClock()
	made, end, err := q.notes.Begin(ctx, notes)
	if err != nil || len(made) == 0 {
		return err
	}
	defer end()
	return q.writeNotes(made)
}

// writeNotes makes notes durable and known, whose names the caller has.
func (q *Queue) writeNotes(notes []memory.Note) error {
	rec, err := newRecord(typeNotes, notesMeta{notes})
	if err != nil {
		return err
	}
	rec.live = memory.SizeOf(notes)
	at, err := q.log.append(rec)
	if err != nil {
		return err
	}
	q.notes.Put(at.seg, notes...)
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

// enqueueOnce enqueues a message with a key. The key is durable with the message, in its record.
func (q *Queue) enqueueOnce(ctx context.Context, env queue.Envelope, body io.Reader) (queue.ID, error) {
	if err := q.enter(ctx); err != nil {
		return "", err
	}
	q.leave() // the body may be slow, and so may that of another with the key
	return q.notes.Once(ctx, env.Key, func() (queue.ID, error) { return q.enqueue(ctx, env, body) })
}

func (q *Queue) has(id queue.ID) bool {
	_, _, ok := q.index.Place(id)
	return ok
}

// keepNotes keeps the notes of a record that is read again.
func (q *Queue) keepNotes(s *segment, notes []memory.Note) {
	s.live.Add(memory.SizeOf(notes))
	q.notes.Put(s, notes...)
}

// droppedNote frees what a note took. What is left of a segment then is looked at when the next one is begun.
func droppedNote(n memory.Note) { n.Place.(*segment).live.Add(-n.Size()) }

// moveNotes writes the notes of a segment anew at the end of the log. It reports false where it made no progress.
func (q *Queue) moveNotes(s *segment) (moved bool) {
	notes := q.notes.At(func(place any) bool { return place == s })
	for part := range slices.Chunk(notes, notesAtOnce) {
		move, end := q.notes.BeginMove(part)
		err := error(nil)
		if len(move) > 0 {
			err = q.writeNotes(move)
		}
		end()
		if err != nil {
			return moved
		}
		moved = moved || len(move) > 0
	}
	return moved
}
