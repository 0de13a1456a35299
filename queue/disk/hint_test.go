package disk

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/queuetest"
)

// The suite with segments so short that they end and are cleaned all the time, and are opened by their hints.
func TestConformanceOfShortSegments(t *testing.T) { queuetest.Run(t, shortBackend()) }

func TestModelOfShortSegments(t *testing.T) { queuetest.RunModel(t, shortBackend()) }

func shortBackend() queuetest.Backend {
	open := func(t testing.TB, dir string) queuetest.Queue {
		q, err := Options{segmentSize: 2000}.Open(dir)
		require.NoError(t, err)
		return q
	}
	return queuetest.Backend{
		New: func(t testing.TB) queuetest.Queue { return open(t, t.TempDir()) },
		Reopen: func(t testing.TB, q queuetest.Queue) queuetest.Queue {
			if err := q.Close(); err != nil {
				require.ErrorIs(t, err, queue.ErrClosed)
			}
			return open(t, q.(*Queue).dir)
		},
	}
}

func (s *spool) hints() []string {
	names, err := filepath.Glob(filepath.Join(s.dir, "log", "*.hint"))
	require.NoError(s, err)
	return names
}

// unhint removes all hints, which makes the next opening read all segments.
func (s *spool) unhint() {
	for _, name := range s.hints() {
		require.NoError(s, os.Remove(name))
	}
}

// everything is all that can be seen of a queue.
func (s *spool) everything() (all []string) {
	s.Helper()
	entries, _, err := s.q.List(context.Background(), queue.Filter{}, "", 0)
	require.NoError(s, err)
	for _, e := range entries {
		d, err := s.q.Show(context.Background(), e.ID)
		require.NoError(s, err)
		all = append(all, fmt.Sprintf("%+v\n%+v\n%v\n%s", e, d, e.DeliverBy.Time, s.read(e.ID)))
	}
	notes, _, err := s.q.Notes(context.Background(), "a", "", "", 0)
	require.NoError(s, err)
	stats, err := s.q.Stats(context.Background())
	require.NoError(s, err)
	return append(all, fmt.Sprintf("%+v\n%+v\nlive %d", notes, stats, s.live()))
}

// variety fills a spool with all that records can say.
func (s *spool) variety() {
	s.Helper()
	ctx := context.Background()
	many := queue.Envelope{From: "Me+tag@src.test", To: queue.To("1@a.test", "2@a.test", "1@b.test", "1@c.test", "1@d.test"), Priority: -3, EnvelopeID: "x"}
	many.DeliverBy.Time = time.Now().Add(time.Hour)
	for i := range 5 {
		_, err := s.q.Enqueue(ctx, many, strings.NewReader(strings.Repeat("x", 100*i)))
		require.NoError(s, err)
	}
	s.enqueueBody("1@e.test", longBody)
	s.keyed("a key")
	s.note("1", "one")
	for i, l := range s.lease() {
		st := queue.Settlement{Attempt: queue.Attempt{Time: time.Now(), Route: "direct"}, Next: time.Now().Add(time.Duration(i) * time.Hour)}
		switch i % 5 {
		case 0:
			st.Done = []string{l.Envelope.To[0].Address}
			st.Reports = []queue.Submission{{Envelope: queue.Envelope{To: queue.To("me@src.test")}, Body: []byte("report about " + l.ID)}}
			st.Notes = []queue.Note{{Kind: "a", Key: l.Lane, Value: "noted", Until: time.Now().Add(time.Hour)}}
		case 1:
			st.Unreached, st.Warned = true, []string{l.Envelope.To[0].Address}
		case 2:
			st.Hold = "for a reason"
		case 3:
			st.Wake, st.WakeLanes = true, []string{"a.test", "b.test"}
		}
		require.NoError(s, s.q.Settle(ctx, l, st))
	}
	for _, change := range []func() (int, error){
		func() (int, error) { return s.q.Hold(ctx, queue.Filter{Lane: "b.test"}, "look at it") },
		func() (int, error) { return s.q.Fail(ctx, queue.Filter{Lane: "c.test"}, "no use") },
		func() (int, error) { return s.q.Delete(ctx, queue.Filter{Lane: "d.test"}) },
	} {
		n, err := change()
		require.NoError(s, err)
		require.Positive(s, n)
	}
}

// What an opening learns from hints is what it learns from the segments.
func TestHintsSayAll(t *testing.T) {
	s := newShortSpool(t)
	for range 3 {
		s.variety()
		require.NoError(t, s.q.Close())
		require.NotEmpty(t, s.hints())
		dir := s.dir
		copied := newSpool(t)
		require.NoError(t, copied.q.Close())
		copySpool(t, dir, copied.dir)
		copied.unhint()
		copied.opts.segmentSize = s.opts.segmentSize
		copied.open()
		s.open()
		equalSpools(t, strip(copied.everything()), strip(s.everything()))
		require.NoError(t, copied.q.Close())
	}
	assert.Empty(t, s.log.String())
}

// equalSpools compares what everything gives, and shows the first difference only.
func equalSpools(t testing.TB, want, got []string) {
	t.Helper()
	require.Len(t, got, len(want))
	for i := range want {
		require.Equal(t, strings.Fields(want[i]), strings.Fields(got[i]))
	}
}

// strip takes out what differs from one opening to the next: the monotonic readings of times, and how long there is until one.
func strip(all []string) []string {
	for i, text := range all {
		fields := strings.Fields(text)
		kept := fields[:0]
		for _, f := range fields {
			if !strings.HasPrefix(f, "m=") && !strings.HasPrefix(f, "DeliverBy:") {
				kept = append(kept, f)
			}
		}
		all[i] = strings.Join(kept, " ")
	}
	return all
}

// keepTime changes a file and leaves its time as it was, as a disk does that goes bad.
func keepTime(t testing.TB, path string, change func([]byte) []byte) {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, change(text), 0o600))
	require.NoError(t, os.Chtimes(path, info.ModTime(), info.ModTime()))
}

// A segment that somebody has changed, or that is not as long as its hint says, is read whole.
func TestOldHint(t *testing.T) {
	for _, change := range []func(string){
		func(path string) {
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			time.Sleep(20 * time.Millisecond) // the clock of a file system is coarse
			require.NoError(t, os.WriteFile(path, replace("2@a.test", "3@a.test")(text), 0o600))
		},
		func(path string) {
			keepTime(t, path, func(text []byte) []byte { return text[:len(text)-10] })
		},
	} {
		s := newShortSpool(t)
		s.enqueue("1@a.test")
		s.enqueue("2@a.test")
		require.NoError(t, s.q.Close())
		segments := s.segments()
		change(segments[len(segments)-1])
		s.open()
		assert.Equal(t, map[string]bool{"1@a.test": true}, s.recipients())
		assert.Contains(t, s.log.String(), "set aside")
	}
}

// Damage that an opening by hints does not see is found when it is read. It costs the message that it is in, which is held, and
// nobody else anything; and it is told once.
//
// std: Q2
func TestDamageBehindAHint(t *testing.T) {
	s := newShortSpool(t)
	for i := range 5 {
		s.enqueue(fmt.Sprintf("%d@a.test", i))
	}
	require.NoError(t, s.q.Close())
	for _, path := range s.segments() {
		keepTime(t, path, replace(`"2@a.test"`, `"x@a.test"`))
	}
	s.open()
	assert.Empty(t, s.log.String(), "the opening has not read it")
	for range 2 {
		got := s.recipients()
		for range 3 { // those that come after what could not be read
			for to := range s.recipients() {
				got[to] = true
			}
		}
		assert.Equal(t, map[string]bool{"0@a.test": true, "1@a.test": true, "3@a.test": true, "4@a.test": true}, got)
		entries := s.list()
		require.Len(t, entries, 5)
		assert.Equal(t, queue.Held, entries[2].State)
		assert.Contains(t, entries[2].Why, "it cannot be read")
		assert.Equal(t, 1, strings.Count(s.log.String(), "set aside"))
		aside, err := os.ReadDir(filepath.Join(s.dir, damagedFolder))
		require.NoError(t, err)
		assert.Len(t, aside, 1)
		_, err = s.q.Show(t.Context(), entries[2].ID)
		require.Error(t, err)
		require.NoError(t, s.q.Close())
		s.open()
	}
	s.unhint()
	s.crash()
	assert.Len(t, s.list(), 4, "an opening that reads all gives it up")
}

// What cannot be read does not keep the room of the others from being given back.
//
// std: Q2
func TestDamageDoesNotStopTheCleaner(t *testing.T) {
	s := newShortSpool(t)
	s.enqueue("damaged@a.test")
	s.enqueue("stays@a.test")
	require.NoError(t, s.q.Close())
	for _, path := range s.segments() {
		keepTime(t, path, replace(`"damaged@a.test"`, `"Damaged@a.test"`))
	}
	s.open()
	s.churn()
	require.Eventually(t, func() bool { return len(s.segments()) < 12 }, 10*time.Second, time.Millisecond)
	assert.Contains(t, s.log.String(), "a message is lost")
	assert.Equal(t, map[string]bool{"stays@a.test": true}, s.recipients())
}

// A hint that is not whole, or not of this spool, is not used, whatever is wrong with it.
func TestDamagedHint(t *testing.T) {
	s := newShortSpool(t)
	s.variety()
	require.NoError(t, s.q.Close())
	s.unhint()
	s.open()
	want := strip(s.everything())
	require.NoError(t, s.q.Close())
	hint := s.hints()[0]
	text, err := os.ReadFile(hint)
	require.NoError(t, err)
	for at := 0; at < len(text); at += 3 + at/5 {
		damaged := bytes.Clone(text)
		damaged[at] ^= 4
		for _, damaged := range [][]byte{damaged, text[:at]} {
			require.NoError(t, os.WriteFile(hint, damaged, 0o600))
			copied := newSpool(t)
			require.NoError(t, copied.q.Close())
			copySpool(t, s.dir, copied.dir)
			copied.opts.segmentSize = s.opts.segmentSize
			copied.open()
			equalSpools(t, want, strip(copied.everything()))
			assert.Empty(t, copied.log.String())
			require.NoError(t, copied.q.Close())
		}
	}
}

// A hint whose segment is gone goes too.
func TestHintOfNobody(t *testing.T) {
	s := newShortSpool(t)
	path := filepath.Join(s.dir, "log", "0000000000.hint")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	s.crash()
	assert.NoFileExists(t, path)
}

// FuzzHint reads a hint that has the right checksum and anything else in it.
func FuzzHint(f *testing.F) {
	s := newShortSpool(f)
	s.variety()
	require.NoError(f, s.q.Close())
	for _, path := range s.hints() {
		text, err := os.ReadFile(path)
		require.NoError(f, err)
		_, rest, _ := bytes.Cut(text, []byte("\n"))
		f.Add(rest)
	}
	f.Fuzz(func(t *testing.T, hint []byte) {
		disk := newVolatile(nil, "/")
		for up := s.dir; up != "/"; up = filepath.Dir(up) {
			disk.now[up] = &inode{folder: true}
		}
		disk.now[filepath.Join(s.dir, "format")] = &inode{data: []byte("sortie disk queue, format 3\n0123456789abcdef\n")}
		disk.now[filepath.Join(s.dir, "log")] = &inode{folder: true}
		segment := append([]byte("sortie-log 3 0123456789abcdef \n"), make([]byte, 1000)...)
		path := segmentPath(s.dir, 1)
		disk.now[path] = &inode{data: segment}
		first := fmt.Sprintf(hintFirst, hintVersion, "0123456789abcdef", 1, len(segment), len(hint), crc32.Checksum(hint, castagnoli))
		disk.now[hintPath(path)] = &inode{data: append([]byte(first), hint...)}
		var log logBuffer
		q, err := Options{MinFree: -1, storage: disk, Logger: slog.New(slog.NewTextHandler(&log, nil))}.Open(s.dir)
		if err != nil {
			require.ErrorContains(t, err, "remove the file")
			return
		}
		entries, _, err := q.List(t.Context(), queue.Filter{}, "", 0)
		require.NoError(t, err)
		for _, e := range entries {
			if r, err := q.Open(t.Context(), e.ID); err == nil {
				_, err = io.Copy(io.Discard, r)
				require.NoError(t, err)
			}
		}
		_, _, err = q.Lease(t.Context(), queue.LeaseRequest{Max: 100, For: time.Hour})
		require.NoError(t, err)
		require.NoError(t, q.Close())
	})
}
