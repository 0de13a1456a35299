package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/queue"
)

// spool is a folder with a queue that tests open, damage and open again.
type spool struct {
	testing.TB
	dir  string
	log  logBuffer
	opts Options
	q    *Queue
}

// logBuffer takes what the queue and its cleaner log.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func (b *logBuffer) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text.Reset()
}

func newSpool(t testing.TB) *spool {
	s := &spool{TB: t, dir: t.TempDir()}
	s.opts.Logger = slog.New(slog.NewTextHandler(&s.log, nil))
	s.open()
	t.Cleanup(func() { s.q.Close() })
	return s
}

func (s *spool) open() {
	s.Helper()
	q, err := s.opts.Open(s.dir)
	require.NoError(s, err)
	s.q = q
}

// crash opens the spool anew as after the end of the process, without what Close does.
func (s *spool) crash() {
	s.Helper()
	require.NoError(s, s.q.lock.Close())
	old := s.q
	s.open()
	old.lock = io.NopCloser(nil)
	old.Close()
}

func (s *spool) enqueue(to string) queue.ID {
	s.Helper()
	id, err := s.tryEnqueue(to)
	require.NoError(s, err)
	return id
}

func (s *spool) tryEnqueue(to string) (queue.ID, error) {
	return s.q.Enqueue(s.Context(), queue.Envelope{From: "me@src.test", To: queue.To(to)}, strings.NewReader("Subject: "+to+"\r\n\r\nHello.\r\n"))
}

func (s *spool) lease() []queue.Lease {
	s.Helper()
	leases, _, err := s.q.Lease(s.Context(), queue.LeaseRequest{Max: 1_000_000, For: time.Hour})
	require.NoError(s, err)
	return leases
}

func (s *spool) done(l queue.Lease) {
	s.Helper()
	require.NoError(s, s.q.Settle(s.Context(), l, queue.Settlement{Done: []string{l.Envelope.To[0].Address}}))
}

func (s *spool) segments() []string {
	names, err := filepath.Glob(filepath.Join(s.dir, "log", "*.log"))
	require.NoError(s, err)
	return names
}

func (s *spool) recipients() map[string]bool {
	s.Helper()
	to := map[string]bool{}
	for _, l := range s.lease() {
		to[l.Envelope.To[0].Address] = true
	}
	return to
}

// std: Q2
func TestTornWrite(t *testing.T) {
	whole := newSpool(t)
	whole.enqueue("1@a.test")
	whole.enqueue("2@a.test")
	text, err := os.ReadFile(whole.segments()[0])
	require.NoError(t, err)
	second := bytes.LastIndex(text, []byte("="+whole.q.log.mark))
	for cut := second + 1; cut < len(text); cut += 7 {
		s := newSpool(t)
		require.NoError(t, s.q.Close())
		copySpool(t, whole.dir, s.dir)
		require.NoError(t, os.WriteFile(s.segments()[0], text[:cut], 0o600))
		s.open()
		assert.Equal(t, map[string]bool{"1@a.test": true}, s.recipients(), "cut at %d", cut)
		assert.Contains(t, s.log.String(), "a write that nobody was told of")
		s.enqueue("3@a.test")
		s.crash()
		assert.Equal(t, map[string]bool{"1@a.test": true, "3@a.test": true}, s.recipients(), "cut at %d", cut)
	}
}

func copySpool(t testing.TB, from, to string) {
	require.NoError(t, os.RemoveAll(to))
	require.NoError(t, os.CopyFS(to, os.DirFS(from)))
}

// std: Q2
func TestFlippedBits(t *testing.T) {
	whole := newSpool(t)
	for i := range 20 {
		whole.enqueue(fmt.Sprintf("%d@a.test", i))
	}
	path := whole.segments()[0]
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, whole.q.Close())
	first := bytes.IndexByte(text, '\n') + 1
	rng := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		s := newSpool(t)
		require.NoError(t, s.q.Close())
		copySpool(t, whole.dir, s.dir)
		at := first + rng.IntN(len(text)-first)
		damaged := bytes.Clone(text)
		damaged[at] ^= 1 << rng.IntN(8)
		require.NoError(t, os.WriteFile(filepath.Join(s.dir, "log", filepath.Base(path)), damaged, 0o600))
		s.open()
		left := len(s.recipients())
		assert.GreaterOrEqual(t, left, 19, "one flipped bit at %d costs more than the message it is in", at)
		if left < 20 {
			assert.Contains(t, s.log.String(), "set aside")
			aside, err := os.ReadDir(filepath.Join(s.dir, "damaged"))
			require.NoError(t, err)
			assert.Len(t, aside, 1)
		}
	}
}

func TestChangedBodyIsNotDelivered(t *testing.T) {
	s := newSpool(t)
	big, err := s.q.Enqueue(t.Context(), queue.Envelope{To: queue.To("big@a.test")}, strings.NewReader(strings.Repeat("0123456\n", 50_000)))
	require.NoError(t, err)
	small := s.enqueue("small@a.test")
	for id, path := range map[queue.ID]string{big: s.q.largePath(big), small: s.segments()[0]} {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		text[len(text)-4] ^= 1
		require.NoError(t, os.WriteFile(path, text, 0o600))
		r, err := s.q.Open(t.Context(), id)
		if err == nil {
			_, err = io.ReadAll(r)
			r.Close()
		}
		var damaged *DamagedError
		assert.ErrorAs(t, err, &damaged, path)
	}
}

// A message that holds what looks like a record must not become one when the log is searched for the next record.
func TestForgedRecord(t *testing.T) {
	s := newSpool(t)
	forged := "=0123456789abcdef mail 2 0 0 0\n{}\n\n"
	id, err := s.q.Enqueue(t.Context(), queue.Envelope{To: queue.To("1@a.test")}, strings.NewReader("\n"+forged))
	require.NoError(t, err)
	s.enqueue("2@a.test")
	path := s.segments()[0]
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	at := bytes.Index(text, []byte(id))
	text[at]++
	require.NoError(t, os.WriteFile(path, text, 0o600))
	s.crash()
	assert.Equal(t, map[string]bool{"2@a.test": true}, s.recipients())
}

// faultyStorage makes files that fail as they are told to.
type faultyStorage struct {
	osStorage
	faults *faults
}

func (s faultyStorage) create(path string) (file, error) {
	f, err := s.osStorage.create(path)
	if s.faults.log.Load() && filepath.Ext(path) != ".log" {
		return f, err
	}
	return faultyFile{f, s.faults}, err
}

type faultyFile struct {
	file
	faults *faults
}

type faults struct {
	write, sync atomic.Pointer[error]
	partial     atomic.Bool
	log         atomic.Bool // only the log's files fail
}

func (f faultyFile) Write(p []byte) (int, error) {
	if err := f.faults.write.Load(); err != nil {
		n := 0
		if f.faults.partial.Load() {
			n, _ = f.file.Write(p[:len(p)/2])
		}
		return n, *err
	}
	return f.file.Write(p)
}

func (f faultyFile) Sync() error {
	if err := f.faults.sync.Load(); err != nil {
		return *err
	}
	return f.file.Sync()
}

func newFaultySpool(t testing.TB) (*spool, *faults) {
	s := newSpool(t)
	require.NoError(t, s.q.Close())
	f := &faults{}
	s.opts.storage = faultyStorage{faults: f}
	s.open()
	return s, f
}

var noSpace error = &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}

// std: Q1
func TestFullDisk(t *testing.T) {
	for _, partial := range []bool{false, true} {
		s, faults := newFaultySpool(t)
		s.enqueue("1@a.test")
		l := s.lease()[0]
		faults.partial.Store(partial)
		faults.write.Store(&noSpace)
		_, err := s.tryEnqueue("2@a.test")
		require.ErrorIs(t, err, queue.ErrFull)
		_, err = s.q.Enqueue(t.Context(), queue.Envelope{To: queue.To("3@a.test")}, strings.NewReader(strings.Repeat("0123456\n", 50_000)))
		require.ErrorIs(t, err, queue.ErrFull)
		err = s.q.Settle(t.Context(), l, queue.Settlement{Done: []string{"1@a.test"}})
		require.ErrorIs(t, err, queue.ErrFull)
		faults.write.Store(nil)
		s.enqueue("4@a.test")
		s.done(l)
		s.crash()
		assert.Equal(t, map[string]bool{"4@a.test": true}, s.recipients())
		left, err := os.ReadDir(filepath.Join(s.dir, "large"))
		require.NoError(t, err)
		assert.Empty(t, left)
		assert.NotContains(t, s.log.String(), "damaged", "what was taken back left no trace")
	}
}

// smallDisk has so much room, less what large bodies take.
type smallDisk struct {
	osStorage
	size int64
}

func (d *smallDisk) free(dir string) (int64, error) {
	free := d.size
	files, err := os.ReadDir(filepath.Join(dir, "large"))
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			return 0, err
		}
		free -= info.Size()
	}
	return free, err
}

// std: Q1
func TestLittleRoomIsKept(t *testing.T) {
	s := newSpool(t)
	require.NoError(t, s.q.Close())
	disk := &smallDisk{size: 32<<20 + 300_000}
	s.opts.storage = disk
	s.open()
	s.enqueueBody("1@a.test", longBody)
	_, err := s.q.Enqueue(t.Context(), queue.Envelope{To: queue.To("2@a.test")}, io.LimitReader(endless{}, 200_000))
	require.ErrorIs(t, err, queue.ErrFull, "it would eat what is kept for settling")
	s.enqueue("3@a.test")
	disk.size -= 200_000
	_, err = s.tryEnqueue("4@a.test")
	require.ErrorIs(t, err, queue.ErrFull)
	require.ErrorContains(t, err, s.dir)
	for _, l := range s.lease() {
		s.done(l)
	}
	assert.Empty(t, s.list())
	s.enqueue("5@a.test")
	left, err := os.ReadDir(filepath.Join(s.dir, "large"))
	require.NoError(t, err)
	assert.Empty(t, left)
}

// A long body whose record cannot be written leaves no file.
func TestNoRoomForTheRecord(t *testing.T) {
	s, faults := newFaultySpool(t)
	faults.log.Store(true)
	faults.write.Store(&noSpace)
	_, err := s.q.Enqueue(t.Context(), queue.Envelope{To: queue.To("1@a.test")}, strings.NewReader(longBody))
	require.ErrorIs(t, err, queue.ErrFull)
	left, err := os.ReadDir(filepath.Join(s.dir, "large"))
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestFailedSyncEndsWriting(t *testing.T) {
	s, faults := newFaultySpool(t)
	s.enqueue("1@a.test")
	l := s.lease()
	s.enqueue("4@a.test")
	broken := error(&os.PathError{Op: "sync", Path: "x", Err: syscall.EIO})
	faults.sync.Store(&broken)
	_, err := s.tryEnqueue("2@a.test")
	require.ErrorIs(t, err, syscall.EIO)
	faults.sync.Store(nil)
	_, err = s.tryEnqueue("3@a.test")
	require.ErrorContains(t, err, "fsync failed", "a later fsync that succeeds proves nothing")
	require.Error(t, s.q.Settle(t.Context(), l[0], queue.Settlement{Done: []string{"1@a.test"}}))
	_, _, err = s.q.Lease(t.Context(), queue.LeaseRequest{Max: 1, For: time.Hour})
	require.ErrorContains(t, err, "fsync failed", "what cannot be settled must not be delivered")
	assert.Error(t, s.q.Close())
	s.open()
	assert.Equal(t, map[string]bool{"1@a.test": true, "4@a.test": true}, s.recipients(), "what was acknowledged before is there, and nothing else")
}

// std: Q3
func TestSecondProcess(t *testing.T) {
	s := newSpool(t)
	_, err := Open(s.dir)
	var locked *LockedError
	require.ErrorAs(t, err, &locked)
	assert.Contains(t, err.Error(), fmt.Sprintf("process %d (", os.Getpid()))
	assert.Contains(t, err.Error(), s.dir)
	s.enqueue("1@a.test")
}

func TestNewerFormat(t *testing.T) {
	s := newSpool(t)
	s.enqueue("1@a.test")
	require.NoError(t, s.q.Close())
	path := filepath.Join(s.dir, "format")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, []byte("sortie disk queue, format 7\nwhatever comes then\n"), 0o600))
	_, err = s.opts.Open(s.dir)
	require.ErrorContains(t, err, "format 7")
	require.NoError(t, os.WriteFile(path, []byte("?"), 0o600))
	_, err = s.opts.Open(s.dir)
	require.ErrorContains(t, err, "restore it")
	require.NoError(t, os.Remove(path))
	_, err = s.opts.Open(s.dir)
	require.ErrorContains(t, err, "missing")
	require.NoError(t, os.WriteFile(path, text, 0o600))
	s.open()
	assert.Len(t, s.recipients(), 1)
}

func TestUnwritable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := Open(filepath.Join(file, "spool"))
	require.ErrorContains(t, err, "cannot be made or written")
}

// std: Q12
func TestClockJumps(t *testing.T) {
	for _, jump := range []time.Duration{5 * 24 * time.Hour, -24 * time.Hour} {
		s := newSpool(t)
		s.enqueue("1@a.test")
		wait := time.Now().Add(time.Hour)
		l := s.lease()[0]
		require.NoError(t, s.q.Settle(t.Context(), l, queue.Settlement{Attempt: queue.Attempt{Time: time.Now()}, Next: wait}))
		accepted := l.Accepted

		s.q.clock.wall = s.q.clock.wall.Add(-jump) // as if the wall clock had been set since
		assert.Empty(t, s.lease())
		assert.Contains(t, s.log.String(), "the clock has jumped")
		info := s.list()[0]
		assert.Contains(t, info.Accepted.String(), " m=", "from the log it has no monotonic reading before it gets one")
		assert.WithinDuration(t, accepted, info.Accepted, time.Second, "ages go by the monotonic clock")

		// The next process sees the new wall clock, which for the test is the old one: the record's times move by the jump.
		s.crash()
		info = s.list()[0]
		assert.Contains(t, info.Due.String(), " m=")
		if jump > 0 { // moved into the future, where nothing can come from
			assert.WithinDuration(t, time.Now(), info.Accepted, time.Minute)
			assert.False(t, info.Due.After(time.Now().Add(time.Hour)), "nothing waits longer than it was told to")
		} else {
			assert.WithinDuration(t, accepted.Add(jump), info.Accepted, time.Minute)
		}
	}
}

func (s *spool) list() []queue.Info {
	s.Helper()
	entries, _, err := s.q.List(s.Context(), queue.Filter{}, "", 0)
	require.NoError(s, err)
	return entries
}

func TestRoomIsGivenBack(t *testing.T) {
	s := newSpool(t)
	body := strings.Repeat("0123456789abcde\n", 6000) // 96 KB
	stays := s.enqueue("stays@a.test")
	for range 3500 { // 336 MB in all
		id, err := s.q.Enqueue(t.Context(), queue.Envelope{To: queue.To("goes@b.test")}, strings.NewReader(body))
		require.NoError(t, err)
		_, err = s.q.Delete(t.Context(), queue.Filter{ID: id})
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool { return s.size() < 4*defaultSegment }, time.Minute, 10*time.Millisecond)
	assert.Equal(t, "Subject: stays@a.test\r\n\r\nHello.\r\n", s.read(stays))
	s.crash()
	assert.Equal(t, "Subject: stays@a.test\r\n\r\nHello.\r\n", s.read(stays))
	assert.Len(t, s.recipients(), 1)
}

func (s *spool) read(id queue.ID) string {
	s.Helper()
	r, err := s.q.Open(context.Background(), id)
	require.NoError(s, err)
	defer r.Close()
	b, err := io.ReadAll(r)
	require.NoError(s, err)
	return string(b)
}

func (s *spool) size() (n int64) {
	for _, name := range s.segments() {
		if info, err := os.Stat(name); err == nil {
			n += info.Size()
		}
	}
	return n
}

func TestLargeBodyOfNobody(t *testing.T) {
	s := newSpool(t)
	path := filepath.Join(s.dir, "large", "0000000000000")
	require.NoError(t, os.WriteFile(path, []byte("was never acknowledged"), 0o600))
	s.crash()
	_, err := os.Stat(path)
	assert.True(t, errors.Is(err, os.ErrNotExist))
}

// A message that was moved counts in its new segment only: in this life, and in one that begins before its old segment is
// removed.
func TestMovedMessageCountsOnce(t *testing.T) {
	for _, crash := range []bool{false, true} {
		s := newSpool(t)
		id := s.enqueue("1@a.test")
		s.crash()
		s.enqueue("2@a.test")
		require.True(t, s.q.move(id))
		if crash {
			require.NoError(t, s.q.Close())
			s.open()
		}
		assert.Equal(t, "Subject: 1@a.test\r\n\r\nHello.\r\n", s.read(id))
		s.q.segMu.Lock()
		live := int64(0)
		for _, seg := range s.q.segments {
			live += seg.live.Load()
		}
		s.q.segMu.Unlock()
		at, size, ok := s.q.index.Place(id)
		require.True(t, ok)
		assert.Equal(t, 2*stored(at, size), live)
		_, err := s.q.Delete(t.Context(), queue.Filter{All: true})
		require.NoError(t, err)
		require.Eventually(t, func() bool { return len(s.segments()) == 1 }, 10*time.Second, time.Millisecond)
	}
}
