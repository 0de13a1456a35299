package disk

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/memory"
)

// defaultSegment is how long a segment grows before the next one is begun.
const defaultSegment = 64 << 20

// maxBatch is how much may wait for the next write before callers wait for room.
const maxBatch = 16 << 20

// groupTime is how long after the beginning of a write the next one begins, unless as many callers as usual wait for it before:
// each fsync costs CPU and the disk's time, and where mail comes in by many sessions it is worth a moment to share one. A caller
// that is alone does not wait.
const groupTime = 2500 * time.Microsecond

// A log appends records to the newest segment. Callers that come while a write is under way share the next one.
type log struct {
	dir     string
	mark    string
	lastID  func() queue.ID
	storage storage
	most    int64 // how long a segment grows before the next one is begun

	mu      sync.Mutex
	more    sync.Cond // a batch waits, or the log closes
	room    sync.Cond // the waiting batch was taken
	next    *batch    // guarded by mu: what waits for the next write
	failed  error     // guarded by mu: why nothing can be written any more
	closed  bool      // guarded by mu
	done    chan struct{}
	current *segment       // of the writer alone
	began   func(*segment) // told of each new segment
	spare   []byte         // of the writer alone: the buffer of the last batch
	wrote   time.Time      // of the writer alone: when it began the last write
	usual   int            // guarded by mu: about how many records share a write
	alone   chan struct{}  // closed by hurry
	hurried sync.Once
}

// A batch is what one write and one fsync make durable.
type batch struct {
	buf  []byte
	hint []byte        // of what is in buf
	n    int           // records in buf
	many chan struct{} // closed when there are as many as usual
	live int64         // what the records count of their segment
	done chan struct{} // closed when the batch is durable or has failed
	err  error         // set before done is closed, like the two below
	seg  *segment
	base int64 // where buf starts in the segment
}

func newBatch(buf []byte) *batch {
	return &batch{buf: buf, many: make(chan struct{}), done: make(chan struct{})}
}

// add counts a record, of which there are usual in a batch.
func (b *batch) add(live int64, usual int) {
	b.live += live
	if b.n++; b.n == max(usual, 1) {
		close(b.many)
	}
}

func (l *log) start(first *segment) {
	l.more.L, l.room.L = &l.mu, &l.mu
	l.next = newBatch(nil)
	l.done, l.alone = make(chan struct{}), make(chan struct{})
	l.current = first
	go l.write()
}

// A spot is where a record was written.
type spot struct {
	seg          *segment
	record, body int64 // where it starts, and where its body does
}

// place is that of the message of a mail record.
func (s spot) place(m *mailMeta) memory.Place {
	return memory.Place{Segment: uint32(s.seg.number), Record: uint32(s.record), Body: uint32(s.body), Sum: m.Sum, File: m.File}
}

// mark is that of a settle record.
func (s spot) mark() memory.Mark {
	return memory.Mark{Segment: uint32(s.seg.number), Record: uint32(s.record)}
}

// append makes a record durable.
func (l *log) append(r record) (at spot, err error) {
	l.mu.Lock()
	for len(l.next.buf) >= maxBatch && l.failed == nil && !l.closed {
		l.room.Wait()
	}
	switch {
	case l.failed != nil:
		l.mu.Unlock()
		return spot{}, l.failed
	case l.closed:
		l.mu.Unlock()
		return spot{}, queue.ErrClosed
	}
	b := l.next
	if len(b.buf) == 0 {
		l.more.Signal()
	}
	start, body := len(b.buf), 0
	b.buf, body = r.appendTo(b.buf, l.mark)
	b.hint = appendHint(b.hint, int64(len(b.buf)-start), int64(body-start), r.hint)
	b.add(r.live, l.usual)
	l.mu.Unlock()
	<-b.done
	return spot{b.seg, b.base + int64(start), b.base + int64(body)}, b.err
}

// check gives why nothing can be written any more.
func (l *log) check() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// write is the goroutine that writes batches, one after the other, until the log is closed.
func (l *log) write() {
	defer close(l.done)
	for {
		l.mu.Lock()
		for len(l.next.buf) == 0 && !l.closed {
			l.more.Wait()
		}
		if len(l.next.buf) == 0 {
			l.mu.Unlock()
			return
		}
		l.gather()
		b := l.next
		l.next = newBatch(l.spare[:0])
		l.spare = nil
		l.usual = max(b.n, l.usual-(l.usual+7)/8)
		failed := l.failed
		l.room.Broadcast()
		l.mu.Unlock()

		if b.err = failed; failed == nil {
			b.err = l.commit(b)
		}
		if cap(b.buf) <= 1<<20 {
			l.spare = b.buf
		}
		b.buf = nil
		close(b.done)
	}
}

// gather waits for company for the waiting batch, with mu held but for the wait.
func (l *log) gather() {
	wait := groupTime - time.Since(l.wrote)
	if b := l.next; wait > 0 && b.n < l.usual && !l.closed {
		l.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-b.many:
		case <-l.alone:
		case <-timer.C:
		}
		timer.Stop()
		l.mu.Lock()
	}
	l.wrote = time.Now()
}

// commit writes a batch and makes it durable.
func (l *log) commit(b *batch) error {
	if l.current.size >= l.most || len(l.current.hint) >= hintMax {
		if err := l.roll(); err != nil {
			return full(err)
		}
	}
	s := l.current
	b.seg, b.base = s, s.size
	if _, err := s.file.Write(b.buf); err != nil {
		if terr := s.file.Truncate(s.size); terr != nil {
			l.fail(fmt.Errorf("disk: %s: half a write could not be taken back: %w", s.path, terr))
		} else if !isFull(err) {
			l.fail(fmt.Errorf("disk: %s: nothing more is written: %w", s.path, err))
		}
		return full(err)
	}
	// A failed fsync may have thrown the pages away; a later one that succeeds says nothing about them. So no later
	// one is believed, and nobody shall read what was not written.
	if err := s.file.Sync(); err != nil {
		err = fmt.Errorf("disk: %s: fsync failed, nothing more is written until the spool is opened again: %w", s.path, err)
		l.fail(err)
		s.file.Truncate(s.size)
		return err
	}
	s.size += int64(len(b.buf))
	s.hint = append(s.hint, b.hint...)
	s.live.Add(b.live) // before its callers go on: the cleaner must not find a segment empty that holds their mail
	return nil
}

// roll begins a new segment.
func (l *log) roll() error {
	s, err := l.newSegment(l.current.number + 1)
	if err != nil {
		return err
	}
	l.current = s
	l.began(s)
	return nil
}

// newSegment makes an empty segment whose name and first line are durable.
func (l *log) newSegment(number uint64) (*segment, error) {
	s := &segment{number: number, path: segmentPath(l.dir, number)}
	f, err := l.storage.create(s.path)
	if err != nil {
		return nil, err
	}
	first := fmt.Sprintf("sortie-log %d %s %s\n", formatVersion, l.mark, l.lastID())
	_, err = f.Write([]byte(first))
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = l.storage.syncDir(filepath.Dir(s.path))
	}
	if err != nil {
		f.Close()
		l.storage.remove(s.path)
		return nil, err
	}
	s.file, s.size = f, int64(len(first))
	return s, nil
}

func (l *log) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil {
		l.failed = err
	}
	l.room.Broadcast()
}

// hurry makes writes wait for company no more: those who would come wait for Close.
func (l *log) hurry() { l.hurried.Do(func() { close(l.alone) }) }

// close writes what waits, and ends the writer.
func (l *log) close() {
	l.mu.Lock()
	l.closed = true
	l.more.Signal()
	l.room.Broadcast()
	l.mu.Unlock()
	<-l.done
}

// isFull reports whether there was no room: on the disk, or in a quota.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// full makes an error about room one that callers know.
func full(err error) error {
	if isFull(err) {
		return fmt.Errorf("%w: %w", queue.ErrFull, err)
	}
	return err
}
