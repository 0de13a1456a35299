package disk

import (
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"
	"time"

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

// dropped frees what a message took. The index calls it when the last entry is gone.
func (q *Queue) dropped(m memory.Message) {
	p := m.Body.(place)
	if p.file && q.cleaner.kick != nil { // replay leaves files to removeOrphans
		q.removeLarge(m.ID)
	}
	if p.seg.live.Add(-p.stored()) == 0 {
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
	return s.file.Close()
}

// moveAll writes the live messages and notes of a segment anew at the end of the log. It reports false where it made no
// progress: all of them are being settled just now, or the disk is full.
func (q *Queue) moveAll(s *segment) bool {
	messages := q.index.Messages(func(m *memory.Message) bool { return m.Body.(place).seg == s })
	moved := false
	for _, m := range messages {
		select {
		case <-q.cleaner.quit:
			return false
		default:
		}
		if q.move(m) {
			moved = true
		}
	}
	return q.moveNotes(s) || moved
}

func (q *Queue) move(m memory.Message) bool {
	old := m.Body.(place)
	var data []byte
	if !old.file {
		data = make([]byte, old.size)
		if _, err := old.seg.file.ReadAt(data, old.off); err != nil && err != io.EOF {
			q.logger.Error("a message could not be moved to the end of the log", "id", m.ID, "error", err)
			return false
		}
		if crc32.Checksum(data, castagnoli) != old.sum { // it moves as it is, with the sum of what it should be
			q.logger.Error("a message has changed on disk", "id", m.ID, "segment", old.seg.path)
		}
	}
	now, ok := q.index.BeginMove(m.ID)
	if !ok {
		return false
	}
	p := old
	rec, err := moveRecord(now, old, data)
	if err == nil {
		p.seg, p.off, err = q.log.append(rec)
	}
	if err != nil {
		q.index.EndMove(m.ID, old)
		return false
	}
	q.index.EndMove(m.ID, p)
	old.seg.live.Add(-old.stored())
	return true
}

func moveRecord(m memory.Message, p place, data []byte) (record, error) {
	meta := mailMeta{Message: m, File: p.file, Sum: p.sum}
	rec, err := newRecord(typeMail, meta, data)
	if errors.Is(err, errTooLong) { // rather no history than no room
		for i := range meta.Entries {
			meta.Entries[i].History = nil
		}
		rec, err = newRecord(typeMail, meta, data)
	}
	rec.live = p.stored()
	return rec, err
}
