package disk

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/memory"
)

// inlineMax is the longest body that is kept in the log. A longer one gets a file, so that no body is held in memory
// and none is written twice when segments are given back.
const inlineMax = 128 << 10

// Options are the settings of [Options.Open]. The zero value is ready.
type Options struct {
	MaxSize int64        // the longest message in octets; 0 is no limit
	MinFree int64        // Enqueue fails with queue.ErrFull where the disk has less room than this; 0 is 32 MiB, negative is no check
	Logger  *slog.Logger // where damage and repair are told; nil is slog.Default

	// MaxIntake is how many octets the bodies of messages that come in may take in memory together; 0 is 64 MiB, negative is
	// no limit, and 1 MiB the least. Over it Enqueue waits, and after 10 s fails with queue.ErrFull. A message takes what has
	// come of it, twice that at most; of those over 128 KiB no more than that is in memory.
	MaxIntake int64

	storage     storage // nil is the machine's
	segmentSize int64   // 0 is defaultSegment
}

// Open opens a spool with default settings, and makes it where there is none.
func Open(dir string) (*Queue, error) { return Options{}.Open(dir) }

// Queue is a [queue.Queue], a [queue.Inspector] and a [queue.Notebook] on disk. It is safe for concurrent use.
type Queue struct {
	dir     string
	opts    Options
	disk    storage
	io      ioCounter
	logger  *slog.Logger
	ctx     context.Context // for the logger
	lock    io.Closer
	index   *memory.Index
	pins    pins
	notes   *memory.Notes
	ids     memory.IDs
	intake  *intake
	log     *log
	clock   clock
	cleaner cleaner
	calls   calls

	largeNames folderSync // of large/

	segMu    sync.Mutex
	segments []*segment // guarded by segMu, oldest first
}

var (
	_ queue.Queue     = (*Queue)(nil)
	_ queue.Inspector = (*Queue)(nil)
	_ queue.Notebook  = (*Queue)(nil)
)

// Open opens a spool, and makes it where there is none. It repairs what a crash has left, see the package comment.
// It fails with a [*LockedError] where another process has it open, and with an error that says what to do where
// the folder cannot be written or is of a newer format.
func (o Options) Open(dir string) (*Queue, error) {
	q := &Queue{dir: dir, opts: o, logger: o.Logger, ctx: context.Background(), intake: newIntake(o.MaxIntake)}
	if q.logger == nil {
		q.logger = slog.Default()
	}
	if q.opts.MinFree == 0 {
		q.opts.MinFree = 32 << 20
	}
	if q.opts.storage == nil {
		q.opts.storage = osStorage{}
	}
	if q.opts.segmentSize == 0 {
		q.opts.segmentSize = defaultSegment
	}
	q.disk = counted{q.opts.storage, &q.io}
	if err := q.makeFolders(); err != nil {
		return nil, err
	}
	lock, err := acquire(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	q.lock = lock
	if err := q.load(); err != nil {
		q.closeSegments()
		lock.Close()
		return nil, err
	}
	return q, nil
}

func (q *Queue) makeFolders() error {
	for _, name := range []string{"", "log", "large"} {
		if err := makeFolder(q.disk, filepath.Join(q.dir, name)); err != nil {
			return fmt.Errorf("disk: the spool %s cannot be made or written: %w", q.dir, full(err))
		}
	}
	return nil
}

// load reads the spool into memory and begins a new segment: older ones are never written again.
func (q *Queue) load() error {
	version, mark, err := readFormat(q.disk, q.dir)
	if err != nil {
		return err
	}
	if err := q.disk.syncDir(q.dir); err != nil { // the life that made the spool may have ended before it did
		return fmt.Errorf("disk: %w", err)
	}
	q.index = memory.NewIndex(words{q}, wordsCache)
	q.notes = memory.NewNotes(q.has, droppedNote)
	q.log = &log{dir: q.dir, mark: mark, lastID: q.ids.Last, storage: q.disk, most: q.opts.segmentSize, began: q.began}
	damaged, err := q.replay()
	if err != nil {
		return err
	}
	if version < formatVersion {
		if err := saveFormat(q.disk, q.dir, mark); err != nil {
			return err
		}
	}
	number := uint64(1)
	if n := len(q.segments); n > 0 {
		number = q.segments[n-1].number + 1
	}
	s, err := q.log.newSegment(number)
	if err != nil {
		return fmt.Errorf("disk: the spool %s cannot be written: %w", q.dir, full(err))
	}
	q.segments = append(q.segments, s)
	now := time.Now()
	q.clock.start(now)
	q.index.Clamp(now)
	q.index.Rebase(now)
	q.notes.Clamp(now)
	q.notes.Rebase(now)
	if err := q.removeOrphans(damaged); err != nil {
		return err
	}
	q.log.start(s)
	q.cleaner.start(q)
	return nil
}

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
	if err := q.checkRoom(); err != nil {
		return "", err
	}
	in := queue.NewIntake(body, q.opts.MaxSize)
	data, held, err := q.intake.read(ctx, in, inlineMax+1)
	defer q.intake.give(held)
	if err != nil {
		return "", err
	}
	now := time.Now()
	m := &mailMeta{Message: memory.Message{ID: q.ids.New(now), Envelope: env, Accepted: now, Size: in.Size, Hops: in.Hops}}
	if len(data) > inlineMax {
		if m.Sum, err = q.writeLarge(m.ID, data, in); err != nil {
			return "", err
		}
		m.File, m.Size, m.Hops, data = true, in.Size, in.Hops, nil
	} else {
		m.Sum = crc32.Checksum(data, castagnoli)
	}
	if err := q.enter(ctx); err != nil {
		return "", err // a long body's file stays to the next opening: another process may have the spool by now
	}
	defer q.leave()
	if err := q.store(m, data); err != nil {
		if m.File {
			q.removeLarge(m.ID)
		}
		return "", err
	}
	return m.ID, nil
}

// store makes a message durable and known.
func (q *Queue) store(m *mailMeta, data []byte) error {
	if m.File {
		if err := q.checkRoom(); err != nil { // the body may have eaten what is kept
			return err
		}
	}
	q.checkClock()
	m.OnClock(time.Now())
	rec, err := newRecord(typeMail, m, data)
	if err != nil {
		return err
	}
	key := memory.KeyOf(&m.Message)
	rec.live = m.stored() + memory.SizeOf(key)
	at, err := q.log.append(rec)
	if err != nil {
		return err
	}
	q.notes.Put(at.seg, key...)
	q.index.Add(memory.Placed{Message: &m.Message, Place: at.place(m)})
	return nil
}

// Lease implements [queue.Queue].
func (q *Queue) Lease(ctx context.Context, req queue.LeaseRequest) ([]queue.Lease, time.Time, error) {
	if err := q.enter(ctx); err != nil {
		return nil, time.Time{}, err
	}
	defer q.leave()
	if err := q.log.check(); err != nil { // what is delivered now could not be settled
		return nil, time.Time{}, err
	}
	q.checkClock()
	now := time.Now()
	if err := q.index.Lapse(now, q.writeChange(memory.Lapse, "", now)); err != nil {
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
	q.checkClock()
	notes, end, err := q.notes.Begin(ctx, s.Notes)
	if err != nil {
		return err
	}
	defer end()
	now := time.Now()
	s.Next = onClock(s.Next, now)
	reports, bodies, err := q.describeReports(s.Reports, now)
	if err != nil {
		return err
	}
	entry, err := q.index.BeginSettle(l)
	if err != nil {
		return err
	}
	meta := q.describeSettlement(&entry, &s, now)
	meta.Reports, meta.Notes = reports, notes
	rec, err := settleRecord(meta, bodies)
	var at spot
	if err == nil {
		at, err = q.log.append(rec)
	}
	if err != nil {
		q.index.AbortSettle(entry)
		return err
	}
	q.notes.Put(at.seg, notes...)
	q.index.CommitSettle(entry, meta.outcome(&s, at), now, placeReports(at, reports)...)
	q.pins.drop(l.ID, l.Lane)
	return nil
}

// Open implements [queue.Queue].
func (q *Queue) Open(ctx context.Context, id queue.ID) (io.ReadCloser, error) {
	if err := q.enter(ctx); err != nil {
		return nil, err
	}
	defer q.leave()
	for last := (memory.Place{}); ; {
		at, size, ok := q.index.Place(id)
		if !ok {
			return nil, queue.ErrNotFound
		}
		r, err := q.open(id, at, size)
		if err == nil || at == last {
			return r, err
		}
		last = at // perhaps it was moved and its segment removed just now
	}
}

// Close implements [queue.Queue].
func (q *Queue) Close() error {
	q.log.hurry()
	if !q.calls.close() {
		return queue.ErrClosed
	}
	q.cleaner.stop()
	q.log.close()
	q.saveHints()
	q.saveHint(q.log.current)
	q.closeSegments()
	return errors.Join(q.log.check(), q.lock.Close())
}

func (q *Queue) closeSegments() {
	q.segMu.Lock()
	defer q.segMu.Unlock()
	for _, s := range q.segments {
		s.file.Close()
	}
	q.segments = nil
}
