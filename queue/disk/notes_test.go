package disk

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/memory"
)

func (s *spool) note(key, value string) {
	s.Helper()
	require.NoError(s, s.q.Note(context.Background(), queue.Note{Kind: "a", Key: key, Value: value, Until: time.Now().Add(time.Hour)}))
}

// noted are the notes as "key=value key=value".
func (s *spool) noted() string {
	s.Helper()
	notes, _, err := s.q.Notes(context.Background(), "a", "", "", 0)
	require.NoError(s, err)
	var all []string
	for _, n := range notes {
		all = append(all, n.Key+"="+n.Value)
	}
	return strings.Join(all, " ")
}

// keyed enqueues a message with a key.
func (s *spool) keyed(key string) queue.ID {
	s.Helper()
	env := queue.Envelope{From: "me@src.test", To: queue.To("keyed@a.test"), Key: key}
	id, err := s.q.Enqueue(context.Background(), env, strings.NewReader(strings.Repeat("x", 500)))
	require.NoError(s, err)
	return id
}

// churn fills segments with mail that comes and goes.
func (s *spool) churn() {
	s.Helper()
	for range 40 {
		id := s.enqueueBody("goes@b.test", strings.Repeat("x", 500))
		_, err := s.q.Delete(context.Background(), queue.Filter{ID: id})
		require.NoError(s, err)
	}
}

// live is what the segments count.
func (s *spool) live() (live int64) {
	s.q.segMu.Lock()
	defer s.q.segMu.Unlock()
	for _, seg := range s.q.segments {
		live += seg.live.Load()
	}
	return live
}

func newShortSpool(t testing.TB) *spool {
	s := newSpool(t)
	require.NoError(t, s.q.Close())
	s.opts.segmentSize = 3000
	s.open()
	return s
}

// Notes, and the memory of keys, outlive the segments that they were written to, and keep none for longer than they last.
//
// std: Q10
func TestNotesOutliveTheirSegments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShortSpool(t)
		s.note("stays", "first")
		s.note("goes", "x")
		gone, waits := s.keyed("gone"), s.keyed("waits")
		_, err := s.q.Delete(t.Context(), queue.Filter{ID: gone})
		require.NoError(t, err)
		for range 3 {
			s.churn()
			s.note("goes", "y")
			s.note("stays", "second")
			s.churn()
			require.NoError(t, s.q.Note(t.Context(), queue.Note{Kind: "a", Key: "goes"}))
			s.churn()
			synctest.Wait()
			assert.Less(t, len(s.segments()), 10)
			s.crash()
			require.Equal(t, "stays=second", s.noted())
			require.Equal(t, gone, s.keyed("gone"))
			require.Equal(t, waits, s.keyed("waits"))
		}
		s.churn()
		synctest.Wait()
		at, size, ok := s.q.index.Place(waits)
		require.True(t, ok)
		notes := s.q.notes.At(func(any) bool { return true })
		require.Len(t, notes, 3)
		assert.Equal(t, memory.SizeOf(notes)+stored(at, size), s.live(), "each counts once")

		_, err = s.q.Delete(t.Context(), queue.Filter{All: true})
		require.NoError(t, err)
		time.Sleep(queue.KeyMemory)
		s.churn()
		synctest.Wait()
		assert.Zero(t, s.live(), "what has ended takes no room")
		assert.LessOrEqual(t, len(s.segments()), 2)
	})
}

// std: Q12
func TestNotesAndClockJumps(t *testing.T) {
	for _, jump := range []time.Duration{5 * 24 * time.Hour, -24 * time.Hour} {
		s := newSpool(t)
		s.note("before", "x")
		id := s.keyed("key")
		_, err := s.q.Delete(t.Context(), queue.Filter{ID: id})
		require.NoError(t, err)
		s.q.clock.wall = s.q.clock.wall.Add(-jump) // as if the wall clock had been set since
		s.note("after", "y")
		assert.Contains(t, s.log.String(), "the clock has jumped")
		assert.Equal(t, "after=y before=x", s.noted(), "by the monotonic clock nothing has ended")

		// The next process sees the new wall clock, which for the test is the old one: the times of what is before the record of the
		// jump move by it, and may lie in the future.
		s.crash()
		n, ok, err := s.q.Lookup(t.Context(), "a", "after")
		require.NoError(t, err)
		require.True(t, ok)
		assert.Contains(t, n.Until.String(), " m=", "from the log it has no monotonic reading before it gets one")
		n, ok, err = s.q.Lookup(t.Context(), "a", "before")
		require.NoError(t, err)
		assert.Equal(t, jump > 0, ok)
		if ok {
			assert.LessOrEqual(t, time.Until(n.Until), time.Hour, "no note stays for longer than it was made for")
		}
		_, ok, err = s.q.Lookup(t.Context(), queue.KindKey, "key")
		require.NoError(t, err)
		assert.Equal(t, jump > 0, ok)
	}
}

// A note that cannot be written is not there, and the one before it is.
func TestNoteOnABadDisk(t *testing.T) {
	s, faults := newFaultySpool(t)
	s.note("x", "before")
	first := queue.Envelope{To: queue.To("1@a.test"), Key: "key"}
	faults.write.Store(&noSpace)
	require.ErrorIs(t, s.q.Note(t.Context(), queue.Note{Kind: "a", Key: "x", Value: "after"}), queue.ErrFull)
	_, err := s.q.Enqueue(t.Context(), first, strings.NewReader("x"))
	require.ErrorIs(t, err, queue.ErrFull)
	faults.write.Store(nil)
	assert.Equal(t, "x=before", s.noted())
	_, ok, err := s.q.Lookup(t.Context(), queue.KindKey, "key")
	require.NoError(t, err)
	assert.False(t, ok, "what was not accepted has used no key")
	id, err := s.q.Enqueue(t.Context(), first, strings.NewReader("x"))
	require.NoError(t, err)

	l := s.lease()[0]
	broken := error(syscall.EIO)
	faults.sync.Store(&broken)
	notes := []queue.Note{{Kind: "a", Key: "x", Value: "settled"}}
	require.ErrorIs(t, s.q.Settle(t.Context(), l, queue.Settlement{Done: []string{"1@a.test"}, Notes: notes}), syscall.EIO)
	require.Error(t, s.q.Note(t.Context(), queue.Note{Kind: "a", Key: "x", Value: "after"}))
	assert.Equal(t, "x=before", s.noted())
	assert.Error(t, s.q.Close())
	faults.sync.Store(nil)
	s.open()
	assert.Equal(t, "x=before", s.noted())
	again, err := s.q.Enqueue(t.Context(), first, strings.NewReader("x"))
	require.NoError(t, err)
	assert.Equal(t, id, again)
}

func TestNotesKeepRoom(t *testing.T) {
	s := newSpool(t)
	require.NoError(t, s.q.Close())
	s.opts.storage = &smallDisk{size: 1 << 20}
	s.open()
	require.ErrorIs(t, s.q.Note(t.Context(), queue.Note{Kind: "a", Key: "x", Value: "x"}), queue.ErrFull)
}

// TestNotesAfterPowerCuts lets callers write notes, settle with notes and enqueue with keys until the power is cut at a random
// call, and looks what an honest but unkind disk has kept.
//
// std: Q10
func TestNotesAfterPowerCuts(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 8
	}
	written, keyed := 0, 0
	for seed := range rounds {
		c := &noteCut{powerCut: newPowerCut(t, uint64(seed)), notes: map[string]*cutNote{}, ids: map[string]queue.ID{}}
		for range 5 {
			c.life(1 + c.rng.IntN(200<<c.rng.IntN(4)))
		}
		written, keyed = written+len(c.notes), keyed+len(c.ids)
	}
	assert.Greater(t, written, rounds)
	assert.Greater(t, keyed, rounds)
}

// noteCut is a disk, and what the callers of the queues on it were told of notes and keys in all lives.
type noteCut struct {
	*powerCut
	notes map[string]*cutNote
	ids   map[string]queue.ID // of the messages whose key was acknowledged
}

// cutNote is a note: as it was acknowledged, and what was tried since.
type cutNote struct {
	acked string
	since []string
}

func (c *noteCut) life(calls int) {
	c.disk.left = calls
	if q, err := c.open(); err == nil {
		var all sync.WaitGroup
		for who := range 3 {
			rng := rand.New(rand.NewPCG(c.rng.Uint64(), 3))
			all.Go(func() {
				for c.write(q, rng, who) == nil && c.enqueue(q, rng, who) == nil && c.settle(q, rng, who) == nil {
					continue
				}
			})
		}
		all.Wait()
		q.Close()
	} else {
		require.ErrorIs(c, err, errCut, "seed %d", c.seed)
	}
	if c.rng.IntN(3) == 0 {
		c.disk = c.disk.kill()
	} else {
		c.disk = c.disk.cut()
	}
	q, err := c.open()
	require.NoError(c, err, "seed %d", c.seed)
	c.check(q)
	require.NoError(c, q.Close())
	require.Empty(c, c.errs.take(), "seed %d: an opening after a power cut is no damage", c.seed)
}

// change draws two notes that are to stay alike, and notes that they are tried; tried says what became of it.
func (c *noteCut) change(rng *rand.Rand, who int) (notes []queue.Note, tried func(error) error) {
	key, value := fmt.Sprint(who, " ", rng.IntN(4)), fmt.Sprint(rng.Uint64())
	until := time.Now().Add(time.Hour)
	if rng.IntN(4) == 0 {
		value, until = "", time.Time{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.notes[key]
	if n == nil {
		n = &cutNote{}
		c.notes[key] = n
	}
	n.since = append(n.since, value)
	notes = []queue.Note{{Kind: "a", Key: key, Value: value, Until: until}, {Kind: "b", Key: key, Value: value, Until: until}}
	return notes, func(err error) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if err == nil {
			n.acked, n.since = value, nil
		}
		return err
	}
}

func (c *noteCut) write(q *Queue, rng *rand.Rand, who int) error {
	notes, tried := c.change(rng, who)
	return tried(q.Note(context.Background(), notes...))
}

func (c *noteCut) enqueue(q *Queue, rng *rand.Rand, who int) error {
	key := fmt.Sprint(who, " ", rng.IntN(20))
	env := queue.Envelope{To: queue.To(fmt.Sprintf("1@%d.test", who)), Key: key}
	id, err := q.Enqueue(context.Background(), env, strings.NewReader(strings.Repeat("x", rng.IntN(600))))
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if first := c.ids[key]; first != "" {
		assert.Equal(c, first, id, "seed %d: key %s is enqueued twice", c.seed, key)
	}
	c.ids[key] = id
	return nil
}

// settle ends a message of who's, with notes.
func (c *noteCut) settle(q *Queue, rng *rand.Rand, who int) error {
	own := fmt.Sprintf("%d.test", who)
	leases, _, err := q.Lease(context.Background(), queue.LeaseRequest{Max: 1, For: time.Hour, Room: func(ask queue.Ask) queue.Grant {
		if ask.Lane != own {
			return queue.Grant{}
		}
		return queue.Grant{N: 1}
	}})
	if err != nil || len(leases) == 0 {
		return err
	}
	notes, tried := c.change(rng, who)
	s := queue.Settlement{Notes: notes}
	if rng.IntN(2) == 0 {
		s.Done = []string{leases[0].Envelope.To[0].Address}
	}
	return tried(q.Settle(context.Background(), leases[0], s))
}

// check holds what is there against what was told.
func (c *noteCut) check(q *Queue) {
	for key, n := range c.notes {
		a, _, err := q.Lookup(context.Background(), "a", key)
		require.NoError(c, err)
		b, _, err := q.Lookup(context.Background(), "b", key)
		require.NoError(c, err)
		require.Equal(c, a.Value, b.Value, "seed %d: notes that were written together are apart", c.seed)
		require.Contains(c, append(n.since, n.acked), a.Value, "seed %d: note %s", c.seed, key)
		n.acked, n.since = a.Value, nil
	}
	for key, id := range c.ids {
		n, _, err := q.Lookup(context.Background(), queue.KindKey, key)
		require.NoError(c, err)
		require.Equal(c, string(id), n.Value, "seed %d: key %s is forgotten", c.seed, key)
	}
	entries, _, err := q.List(context.Background(), queue.Filter{}, "", 0)
	require.NoError(c, err)
	seen := map[string]bool{}
	for _, e := range entries {
		d, err := q.Show(context.Background(), e.ID)
		require.NoError(c, err)
		require.False(c, seen[d.Envelope.Key], "seed %d: two messages have the key %s", c.seed, d.Envelope.Key)
		seen[d.Envelope.Key] = true
	}
}

// FuzzApply reads records whose checksums are right and whose descriptions are anything: a person may have written them.
func FuzzApply(f *testing.F) {
	f.Add("notes", []byte(`{"notes":[{"kind":"a","key":"x","value":"v","until":"2026-11-25T00:00:00Z","for":1},{"kind":"key","key":"x"},{}]}`))
	f.Add("notes", []byte(`{"notes":[{"kind":"key","key":"x","value":"\u0000","until":"9999-12-31T23:59:59Z","for":-1}]}`))
	f.Add("settle", []byte(`{"id":"x","lane":"a.test","at":"2026-11-25T00:00:00Z","done":["1@a.test"],"notes":[{"kind":"a","key":"x","for":9e18}]}`))
	f.Add("mail", []byte(`{"id":"x","env":{"from":"","to":[{"address":"1@a.test"}],"key":"k"},"at":"0001-01-01T00:00:00Z","size":-1}`))
	f.Add("change", []byte(`{"op":"fail","entries":[{"id":"x","lane":"a.test"}]}`))
	f.Add("clock", []byte(`{"jump":-9223372036854775808}`))
	f.Fuzz(func(t *testing.T, kind string, text []byte) {
		if len(kind) > 20 || strings.ContainsAny(kind, " \t\r\n\v\f\u0085\u00a0") || kind == "" {
			t.Skip("no header line has such a type")
		}
		disk := newVolatile(nil, "/")
		for up := t.TempDir(); up != "/"; up = filepath.Dir(up) {
			disk.now[up] = &inode{folder: true}
		}
		dir := t.TempDir()
		disk.now[dir] = &inode{folder: true}
		disk.now[filepath.Dir(dir)] = &inode{folder: true}
		s := &spool{TB: t, dir: dir, opts: Options{MinFree: -1, storage: disk, Logger: slog.New(slog.DiscardHandler)}}
		s.open()
		s.note("before", "x")
		require.NoError(t, s.q.Close())
		n := disk.now[segmentPath(dir, 1)]
		buf, _ := record{kind: kind, meta: text}.appendTo(bytes.Clone(n.data), s.q.log.mark)
		n.data = buf
		s.open()
		s.note("after", "y")
		s.enqueue("1@a.test")
		require.Contains(t, s.noted(), "after=y")
		require.NotEmpty(t, s.lease())
		require.NoError(t, s.q.Close())
	})
}
