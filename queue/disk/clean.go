package disk

import (
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/memory"
)

// slack is how many segments dead mail may take beside live mail before segments are cleaned.
const slack = 2

// A cleaner gives the room of settled mail back: it removes the oldest segments, and writes their live messages
// anew where too much of the log is dead. Segments go in order only, so that a settlement is never forgotten before the
// message that it settles.
type cleaner struct {
	kick chan struct{}
	quit chan struct{}
	done chan struct{}
}

func (c *cleaner) start(q *Queue) {
	c.kick, c.quit, c.done = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(c.done)
		for {
			select {
			case <-c.quit:
				return
			case <-c.kick:
				q.clean()
			}
		}
	}()
	c.wake()
}

func (c *cleaner) stop() {
	close(c.quit)
	<-c.done
}

func (c *cleaner) wake() {
	if c.kick == nil {
		return // while the log is replayed
	}
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// dropped frees what a message took, whose last entry is gone.
func (q *Queue) dropped(id queue.ID, at memory.Place, size int64) {
	q.pins.drop(id, "")
	if at.File && q.cleaner.kick != nil { // replay leaves files to removeOrphans
		q.removeLarge(id)
	}
	if s := q.segment(at.Segment); s != nil && s.live.Add(-stored(at, size)) == 0 {
		q.cleaner.wake()
	}
}

// began takes a new newest segment into the list.
func (q *Queue) began(s *segment) {
	q.segMu.Lock()
	q.segments = append(q.segments, s)
	q.segMu.Unlock()
	q.cleaner.wake()
}

// clean removes what it can, and moves what is worth moving.
func (q *Queue) clean() {
	q.notes.Sweep(time.Now())
	q.saveHints()
	for {
		oldest, wasteful := q.oldest()
		switch {
		case oldest == nil:
			return
		case oldest.live.Load() == 0:
			if err := q.removeOldest(oldest); err != nil {
				q.logger.Error("a segment whose mail is settled could not be removed", "segment", oldest.path, "error", err)
				return
			}
		case wasteful:
			if !q.moveAll(oldest) {
				return
			}
		default:
			return
		}
	}
}

// saveHints writes the hints of the segments that are full.
func (q *Queue) saveHints() {
	q.segMu.Lock()
	full := slices.Clone(q.segments[:len(q.segments)-1])
	q.segMu.Unlock()
	for _, s := range full {
		if s.hint != nil {
			q.saveHint(s)
		}
	}
}

// oldest gives the oldest segment unless it is the newest too, and whether dead mail takes too much room.
func (q *Queue) oldest() (s *segment, wasteful bool) {
	q.segMu.Lock()
	defer q.segMu.Unlock()
	if len(q.segments) < 2 {
		return nil, false
	}
	var size, live int64
	for _, s := range q.segments[:len(q.segments)-1] {
		size += s.size
		live += s.live.Load()
	}
	return q.segments[0], size > 2*live+slack*q.opts.segmentSize
}

func (q *Queue) removeOldest(s *segment) error {
	if err := q.disk.remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := q.disk.syncDir(filepath.Dir(s.path)); err != nil { // the next one's removal must not reach the disk before
		return err
	}
	q.segMu.Lock()
	q.segments = q.segments[1:]
	q.segMu.Unlock()
	q.disk.remove(hintPath(s.path)) // what stays of it is removed at the next opening
	return s.file.Close()
}

// moveAll writes the live messages and notes of a segment anew at the end of the log. It reports false where it made no
// progress: all of them are being settled just now, or the disk is full.
func (q *Queue) moveAll(s *segment) bool {
	moved := false
	for _, id := range q.index.In(uint32(s.number)) {
		select {
		case <-q.cleaner.quit:
			return false
		default:
		}
		if q.move(id) {
			moved = true
		}
	}
	return q.moveNotes(s) || moved
}

// move writes a message anew at the end of the log, with all words of its entries in one record.
func (q *Queue) move(id queue.ID) bool {
	m, old, ok, err := q.index.BeginMove(id)
	switch {
	case errors.Is(err, memory.ErrDamaged):
		return q.giveUp(id, err)
	case err != nil:
		q.logger.Error("a message could not be moved to the end of the log", "id", id, "error", err)
		return false
	case !ok:
		return false
	}
	at := old
	defer func() { q.index.EndMove(id, at) }()
	data, err := q.bodyToMove(id, old, m.Size)
	if err != nil {
		q.logger.Error("a message could not be moved to the end of the log", "id", id, "error", err)
		return false
	}
	meta := &mailMeta{Message: m, File: old.File, Sum: old.Sum}
	rec, err := moveRecord(meta, data)
	if err != nil {
		return false
	}
	to, err := q.log.append(rec)
	if err != nil {
		return false
	}
	at = to.place(meta)
	q.pins.drop(id, "")
	q.segment(old.Segment).live.Add(-stored(old, m.Size))
	return true
}

// bodyToMove reads the bytes of a message that are in the log. What has changed on disk moves as it is, with the sum of what
// it should be.
func (q *Queue) bodyToMove(id queue.ID, at memory.Place, size int64) ([]byte, error) {
	if at.File {
		return nil, nil
	}
	s := q.segment(at.Segment)
	data := make([]byte, size)
	if _, err := s.file.ReadAt(data, int64(at.Body)); err != nil && err != io.EOF {
		return nil, err
	}
	if crc32.Checksum(data, castagnoli) != at.Sum {
		q.logger.Error("a message has changed on disk", "id", id, "segment", s.path)
	}
	return data, nil
}

// giveUp takes a message out of the queue that cannot be moved, because what describes it is damaged: as it would be gone at the
// next opening. What there was of it is set aside.
func (q *Queue) giveUp(id queue.ID, err error) bool {
	q.logger.Error("a message is lost, because what describes it has changed on disk", "id", id, "error", err)
	n, _ := q.index.Change(memory.Delete, "", queue.Filter{ID: id}, time.Now(), func([]memory.Key) error { return nil })
	return n > 0
}

func moveRecord(meta *mailMeta, data []byte) (record, error) {
	rec, err := newRecord(typeMail, meta, data)
	if errors.Is(err, errTooLong) { // rather no history than no room
		for i := range meta.Entries {
			meta.Entries[i].History = nil
		}
		rec, err = newRecord(typeMail, meta, data)
	}
	rec.live = meta.stored()
	return rec, err
}
