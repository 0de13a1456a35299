package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/queue"
)

// longBody is a body that gets a file of its own.
var longBody = strings.Repeat("0123456\n", inlineMax/8+1)

func (s *spool) enqueueBody(to, body string) queue.ID {
	s.Helper()
	id, err := s.q.Enqueue(s.Context(), queue.Envelope{From: "me@src.test", To: queue.To(to)}, strings.NewReader(body))
	require.NoError(s, err)
	return id
}

// edit changes a file of the spool, which is closed meanwhile.
func (s *spool) edit(path string, change func([]byte) []byte) {
	s.Helper()
	require.NoError(s, s.q.Close())
	text, err := os.ReadFile(path)
	require.NoError(s, err)
	require.NoError(s, os.WriteFile(path, change(text), 0o600))
}

func replace(old, new string) func([]byte) []byte {
	return func(text []byte) []byte { return bytes.Replace(text, []byte(old), []byte(new), 1) }
}

// A folder's name is no pattern: a spool in one that looks like one is not taken for empty.
func TestFolderThatLooksLikeAPattern(t *testing.T) {
	s := newSpool(t)
	require.NoError(t, s.q.Close())
	s.dir = filepath.Join(t.TempDir(), "a [b-c] *?", "spool")
	s.open()
	id := s.enqueueBody("1@a.test", longBody)
	s.crash()
	assert.Equal(t, longBody, s.read(id))
}

// All in a spool is for its own user alone, whatever the umask.
func TestPermissions(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	s := newSpool(t)
	require.NoError(t, s.q.Close())
	s.dir = filepath.Join(t.TempDir(), "new")
	s.open()
	s.enqueueBody("1@a.test", longBody)
	s.enqueueBody("2@a.test", "short")
	s.edit(s.segments()[0], replace("2@a.test", "3@a.test"))
	s.open()
	seen := 0
	require.NoError(t, filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := d.Info()
		require.NoError(t, err)
		assert.Zero(t, info.Mode().Perm()&0o077, "%s has %v", path, info.Mode())
		seen++
		return nil
	}))
	assert.GreaterOrEqual(t, seen, 9)
}

// std: Q3
func TestRemovedLockStillLocks(t *testing.T) {
	s := newSpool(t)
	require.NoError(t, os.Remove(filepath.Join(s.dir, "lock")))
	_, err := Open(s.dir)
	var locked *LockedError
	require.ErrorAs(t, err, &locked)
	assert.Contains(t, err.Error(), "another process")
	require.NoError(t, s.q.Close())
	s.open()
}

// std: Q2
func TestDamageKeepsBodies(t *testing.T) {
	s := newSpool(t)
	lost, stays := s.enqueueBody("lost@a.test", longBody), s.enqueueBody("stays@a.test", longBody)
	s.edit(s.segments()[0], replace("lost@", "losT@"))
	s.open()
	assert.Equal(t, longBody, s.read(stays))
	assert.Contains(t, s.log.String(), "a body without a message is set aside")
	aside, err := os.ReadFile(filepath.Join(s.dir, damagedFolder, string(lost)))
	require.NoError(t, err)
	assert.Equal(t, longBody, string(aside))
	record, err := filepath.Glob(filepath.Join(s.dir, damagedFolder, "*-*"))
	require.NoError(t, err)
	require.Len(t, record, 1)
	text, err := os.ReadFile(record[0])
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(string(text), "="+s.q.log.mark+" mail "), "the region is copied from its start")
	assert.Contains(t, string(text), "losT@a.test")
	assert.Equal(t, 1, strings.Count(s.log.String(), "mail in it may be lost"))
	s.crash()
	assert.Equal(t, 1, strings.Count(s.log.String(), "mail in it may be lost"), "it is told once")
}

// A missing body of its own file is an error that says so, and takes nothing else along.
func TestMissingBody(t *testing.T) {
	s := newSpool(t)
	id := s.enqueueBody("1@a.test", longBody)
	require.NoError(t, os.Remove(s.q.largePath(id)))
	s.crash()
	_, err := s.q.Open(t.Context(), id)
	var damaged *DamagedError
	require.ErrorAs(t, err, &damaged)
	assert.Contains(t, err.Error(), "missing")
}

// With the wrong mark nothing in the log is a record, so that everything would be set aside.
func TestWrongMark(t *testing.T) {
	s := newSpool(t)
	id := s.enqueueBody("1@a.test", longBody)
	mark := s.q.log.mark
	format := filepath.Join(s.dir, "format")
	for _, wrong := range []string{"0123456789abcdef", "0123456789ABCDEF", mark[:15], "", mark + "0"} {
		s.edit(format, replace(mark, wrong))
		_, err := s.opts.Open(s.dir)
		require.ErrorContains(t, err, "restore", wrong)
		require.ErrorContains(t, err, format)
		require.NoError(t, os.WriteFile(format, []byte("sortie disk queue, format 1\n"+mark+"\n"), 0o600))
		s.open()
	}
	assert.Equal(t, longBody, s.read(id))
	assert.NoDirExists(t, filepath.Join(s.dir, damagedFolder))
}

// std: Q2
func TestDamagedFirstLine(t *testing.T) {
	s := newSpool(t)
	s.enqueue("1@a.test")
	first := len("sortie-log 3 " + s.q.log.mark + " \n")
	for at := range first {
		s.edit(s.segments()[0], func(text []byte) []byte { text[at] ^= 2; return text })
		s.open()
		assert.Len(t, s.list(), 1, "octet %d", at)
		s.edit(s.segments()[0], func(text []byte) []byte { text[at] ^= 2; return text })
		s.open()
	}
}

// A new file that lost its bytes in a power cut often has its length, of zeros.
func TestZeros(t *testing.T) {
	s := newSpool(t)
	s.enqueue("1@a.test")
	s.crash()
	s.edit(s.segments()[1], func(text []byte) []byte { return make([]byte, 3<<20) })
	s.open()
	assert.Equal(t, map[string]bool{"1@a.test": true}, s.recipients())
	assert.Contains(t, s.log.String(), "no whole record")
}

func TestMissingSegment(t *testing.T) {
	s := newSpool(t)
	for i := range 3 {
		s.enqueue(fmt.Sprintf("%d@a.test", i))
		s.crash()
	}
	require.NoError(t, os.Remove(s.segments()[1]))
	s.crash()
	assert.Equal(t, map[string]bool{"0@a.test": true, "2@a.test": true}, s.recipients())
	assert.Contains(t, s.log.String(), "segments of the log are missing")
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "log", "copy.log"), nil, 0o600))
	require.NoError(t, s.q.Close())
	_, err := s.opts.Open(s.dir)
	assert.ErrorContains(t, err, "copy.log: not a segment of the log: move it out")
	require.NoError(t, os.Remove(filepath.Join(s.dir, "log", "copy.log")))
	s.open()
}

// badDisk cannot read one page of the files of the log.
type badDisk struct {
	osStorage
	page int64 // negative is none
}

func (d *badDisk) open(path string) (file, error) {
	f, err := d.osStorage.open(path)
	if err != nil || filepath.Ext(path) != ".log" {
		return f, err
	}
	return badFile{f, d.page * page}, nil
}

type badFile struct {
	file
	bad int64
}

func (f badFile) ReadAt(p []byte, off int64) (int, error) {
	if f.bad < 0 || off+int64(len(p)) <= f.bad || off >= f.bad+page {
		return f.file.ReadAt(p, off)
	}
	n, _ := f.file.ReadAt(p[:max(0, f.bad-off)], off)
	return n, &fs.PathError{Op: "read", Path: "x", Err: syscall.EIO}
}

// std: Q2
func TestBadSector(t *testing.T) {
	s := newSpool(t)
	body := strings.Repeat("0123456789abcde\n", 60)
	for i := range 100 {
		s.enqueueBody(fmt.Sprintf("%d@a.test", i), body)
	}
	disk := &badDisk{page: -1}
	s.opts.storage = disk
	size := s.size()
	for _, disk.page = range []int64{0, 1, 7, size/page - 1, size / page} {
		s.crash()
		assert.GreaterOrEqual(t, len(s.list()), 100-page/len(body)-2, "page %d", disk.page)
		assert.Contains(t, s.log.String(), "it cannot be read")
		require.NoError(t, os.RemoveAll(filepath.Join(s.dir, damagedFolder)))
		s.log.Reset()
	}
	disk.page = -1
	s.crash()
	assert.Len(t, s.list(), 100)
}

// A settlement with more reports than a record takes is refused, and can be made without them.
func TestTooManyReports(t *testing.T) {
	s := newSpool(t)
	s.enqueue("1@a.test")
	l := s.lease()[0]
	huge := make([]byte, maxReport)
	st := queue.Settlement{Done: []string{"1@a.test"}}
	for range maxBody/maxReport + 1 {
		st.Reports = append(st.Reports, queue.Submission{Envelope: queue.Envelope{To: queue.To("me@src.test")}, Body: huge})
	}
	copy(huge, "Subject: x\r\n\r\n")
	require.ErrorIs(t, s.q.Settle(t.Context(), l, st), errTooLong)
	assert.Len(t, s.list(), 1)
	s.done(l)
	s.crash()
	assert.Empty(t, s.list())
}

func TestTooLong(t *testing.T) {
	s := newSpool(t)
	require.NoError(t, s.q.Close())
	s.opts.MaxSize = 200_000
	s.open()
	for _, size := range []int64{200_001, 5 << 20} {
		_, err := s.q.Enqueue(t.Context(), queue.Envelope{To: queue.To("1@a.test")}, io.LimitReader(endless{}, size))
		var bad *queue.EnvelopeError
		require.ErrorAs(t, err, &bad)
		assert.Equal(t, "message", bad.Field)
	}
	_, err := s.q.Enqueue(t.Context(), queue.Envelope{To: queue.To("1@a.test")}, io.LimitReader(endless{}, 200_000))
	require.NoError(t, err)
	left, err := os.ReadDir(filepath.Join(s.dir, "large"))
	require.NoError(t, err)
	assert.Len(t, left, 1, "what was refused left nothing")
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = "\r\n"[i%2]
	}
	return len(p), nil
}

// A message can be read while it is moved and its old segment removed.
func TestReadWhileMoved(t *testing.T) {
	s := newSpool(t)
	require.NoError(t, s.q.Close())
	s.opts.segmentSize = 3000
	s.open()
	id := s.enqueueBody("stays@a.test", "the body")
	quit := make(chan struct{})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for {
				select {
				case <-quit:
					return
				default:
				}
				r, err := s.q.Open(t.Context(), id)
				if !assert.NoError(t, err) {
					return
				}
				text, err := io.ReadAll(r)
				assert.NoError(t, err)
				assert.Equal(t, "the body", string(text))
			}
		})
	}
	for range 300 {
		goes := s.enqueueBody("goes@a.test", strings.Repeat("x", 900))
		_, err := s.q.Delete(t.Context(), queue.Filter{ID: goes})
		require.NoError(t, err)
	}
	close(quit)
	all.Wait()
	assert.Less(t, len(s.segments()), 20)
}

// fullDisk has no room for new files.
type fullDisk struct{ osStorage }

func (fullDisk) create(string) (file, error) { return nil, noSpace }
func (fullDisk) mkdir(string) error          { return noSpace }

func TestNoRoomToOpen(t *testing.T) {
	s := newSpool(t)
	require.NoError(t, s.q.Close())
	s.opts.storage = fullDisk{}
	_, err := s.opts.Open(s.dir)
	require.ErrorIs(t, err, queue.ErrFull)
	require.ErrorContains(t, err, s.dir)
	s.opts.storage = nil
	s.open()
}

// failedRemove removes nothing.
type failedRemove struct{ osStorage }

func (failedRemove) remove(string) error { return errors.New("no") }

// A body that cannot be removed is told of, and does not hold anything up.
func TestBodyThatStays(t *testing.T) {
	s := newSpool(t)
	require.NoError(t, s.q.Close())
	s.opts.storage = failedRemove{}
	s.open()
	s.enqueueBody("1@a.test", longBody)
	s.done(s.lease()[0])
	assert.Contains(t, s.log.String(), "could not be removed")
	assert.Empty(t, s.list())
	s.opts.storage = nil
	s.crash()
	left, err := os.ReadDir(filepath.Join(s.dir, "large"))
	require.NoError(t, err)
	assert.Empty(t, left)
}

// FuzzReplay opens a spool whose log has been written over, which must neither panic nor lose what comes after it.
func FuzzReplay(f *testing.F) {
	f.Add([]byte("=0123456789abcdef mail 2 0 0 0\n{}\n\n"), 0)
	f.Add([]byte("=0123456789abcdef settle 999999999 999999999 ffffffff ffffffff\n"), 100)
	f.Add([]byte("\n=0123456789abcdef change 14 0 3b0d9b6a 0\n{\"op\":\"hold\"}\n\n"), 37)
	f.Fuzz(func(t *testing.T, garbage []byte, at int) {
		disk := newVolatile(nil, "/")
		dir := t.TempDir()
		for up := dir; up != "/"; up = filepath.Dir(up) {
			disk.now[up] = &inode{folder: true}
		}
		disk.now[filepath.Join(dir, "format")] = &inode{data: []byte("sortie disk queue, format 1\n0123456789abcdef\n")}
		s := &spool{TB: t, dir: dir, opts: Options{MinFree: -1, storage: disk, Logger: slog.New(slog.DiscardHandler)}}
		s.open()
		s.enqueue("1@a.test")
		s.enqueue("2@a.test")
		require.NoError(t, s.q.Close())
		n := disk.now[segmentPath(dir, 1)]
		last := bytes.LastIndex(n.data, []byte("\n=0123456789abcdef")) + 1
		if at = max(at, 0); at > last {
			at = last
		}
		n.data = append(append(bytes.Clone(n.data[:at]), garbage...), append([]byte("\n"), n.data[last:]...)...)
		s.open()
		found := false
		for _, e := range s.list() {
			found = found || e.To[0].Address == "2@a.test"
		}
		require.True(t, found || bytes.Contains(garbage, []byte("0123456789abcdef")), "what comes after damage is lost")
		require.NoError(t, s.q.Close())
	})
}
