package queuetest

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/queue"
)

func (s *suite) note(notes ...queue.Note) {
	s.Helper()
	require.NoError(s, s.q.Note(s.ctx, notes...))
}

// value is what a note says; "none" where there is none.
func (s *suite) value(kind, key string) string {
	s.Helper()
	n, ok, err := s.q.Lookup(s.ctx, kind, key)
	require.NoError(s, err)
	if !ok {
		assert.Zero(s, n)
		return "none"
	}
	assert.Equal(s, kind+key, n.Kind+n.Key)
	return n.Value
}

// keys are those of a kind that begin with prefix, page by page.
func (s *suite) keys(kind, prefix string, limit int) (keys []string) {
	s.Helper()
	for cursor := ""; ; {
		page, next, err := s.q.Notes(s.ctx, kind, prefix, cursor, limit)
		require.NoError(s, err)
		for _, n := range page {
			keys = append(keys, n.Key)
		}
		if next == "" {
			return keys
		}
		require.Len(s, page, limit)
		cursor = next
	}
}

func (s *suite) notes() {
	until := time.Now().Add(time.Hour)
	s.note(queue.Note{Kind: "a", Key: "x", Value: "first", Until: until}, queue.Note{Kind: "b", Key: "x", Value: "other", Until: until})
	assert.Equal(s, "first", s.value("a", "x"))
	assert.Equal(s, "other", s.value("b", "x"))
	assert.Equal(s, "none", s.value("a", "y"))
	assert.Equal(s, "none", s.value("c", "x"))
	n, _, err := s.q.Lookup(s.ctx, "a", "x")
	require.NoError(s, err)
	equalTime(s, until, n.Until, "until")

	s.note(queue.Note{Kind: "a", Key: "x", Value: "second", Until: until})
	assert.Equal(s, "second", s.value("a", "x"))
	s.note(queue.Note{Kind: "a", Key: "x"}, queue.Note{Kind: "a", Key: "never there"})
	assert.Equal(s, "none", s.value("a", "x"))
	assert.Empty(s, s.keys("a", "", 10))
	assert.Equal(s, "other", s.value("b", "x"))

	s.note()
	s.note(queue.Note{Kind: "a", Key: "x", Value: "twice", Until: until}, queue.Note{Kind: "a", Key: "x", Value: "in one call", Until: until})
	assert.Equal(s, "in one call", s.value("a", "x"))
	s.note(queue.Note{Kind: "a", Key: "x", Value: "over", Until: time.Now()})
	assert.Equal(s, "none", s.value("a", "x"), "what is over before it is written removes too")
	assert.Empty(s, s.lease(10), "a note is no mail")
}

func (s *suite) notesEnd() {
	s.note(
		queue.Note{Kind: "a", Key: "minute", Value: "m", Until: time.Now().Add(time.Minute)},
		queue.Note{Kind: "a", Key: "hour", Until: time.Now().Add(time.Hour)},
		queue.Note{Kind: "a", Key: "never", Value: "n"},
	)
	time.Sleep(time.Minute - time.Nanosecond)
	assert.Equal(s, []string{"hour", "minute", "never"}, s.keys("a", "", 1))
	time.Sleep(time.Nanosecond)
	assert.Equal(s, "none", s.value("a", "minute"))
	assert.Equal(s, []string{"hour", "never"}, s.keys("a", "", 1))
	s.note(queue.Note{Kind: "a", Key: "hour", Value: "longer", Until: time.Now().Add(2 * time.Hour)})
	time.Sleep(time.Hour)
	assert.Equal(s, "longer", s.value("a", "hour"))
	time.Sleep(365 * 24 * time.Hour)
	assert.Equal(s, []string{"never"}, s.keys("a", "", 1))
	s.note(queue.Note{Kind: "a", Key: "never"})
	assert.Equal(s, "none", s.value("a", "never"))
}

func (s *suite) notesPages() {
	var all, some []string
	for i := range 50 {
		key := fmt.Sprintf("%02d", (i*37)%50)
		s.note(queue.Note{Kind: "a", Key: key, Value: key})
		all = append(all, fmt.Sprintf("%02d", i))
	}
	s.note(queue.Note{Kind: "a", Key: "2"}, queue.Note{Kind: "a", Key: "07"}, queue.Note{Kind: "b", Key: "08x", Value: "x"})
	all = append(all[:7], all[8:]...)
	for _, limit := range []int{0, 1, 7, 49, 50} {
		assert.Equal(s, all, s.keys("a", "", limit))
	}
	for _, key := range all {
		if key[0] == '2' {
			some = append(some, key)
		}
	}
	assert.Equal(s, some, s.keys("a", "2", 3))
	assert.Empty(s, s.keys("a", "9", 3))
	page, next, err := s.q.Notes(s.ctx, "a", "", "40", 2)
	require.NoError(s, err)
	require.Len(s, page, 2)
	assert.Equal(s, "41 42 42", page[0].Key+" "+page[1].Key+" "+next)
	s.note(queue.Note{Kind: "a", Key: "42"}, queue.Note{Kind: "a", Key: "425", Value: "new"}) // what comes and goes meanwhile does not disturb
	page, _, err = s.q.Notes(s.ctx, "a", "", next, 2)
	require.NoError(s, err)
	require.Len(s, page, 2)
	assert.Equal(s, "425 43", page[0].Key+" "+page[1].Key)
}

func (s *suite) notesRefused() {
	for _, n := range []queue.Note{
		{},
		{Kind: "a", Value: "no key"},
		{Key: "x", Value: "no kind"},
		{Kind: "two words", Key: "x", Value: "x"},
		{Kind: strings.Repeat("k", 33), Key: "x", Value: "x"},
		{Kind: queue.KindKey, Key: "x", Value: "the queue's own"},
		{Kind: "a", Key: strings.Repeat("x", 401), Value: "x"},
		{Kind: "a", Key: "not \xff UTF-8", Value: "x"},
		{Kind: "a", Key: "x", Value: strings.Repeat("x", queue.MaxNoteValue+1)},
		{Kind: "a", Key: "x", Value: "not \xff UTF-8"},
	} {
		var bad *queue.EnvelopeError
		require.ErrorAs(s, s.q.Note(s.ctx, queue.Note{Kind: "a", Key: "fine", Value: "x"}, n), &bad)
		assert.Equal(s, "note", bad.Field)
		assert.NotEmpty(s, bad.Problem)
	}
	var bad *queue.EnvelopeError
	require.ErrorAs(s, s.q.Note(s.ctx, make([]queue.Note, queue.MaxNoteChange+1)...), &bad)
	assert.Empty(s, s.keys("a", "", 10), "all of them or none")

	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	assert.ErrorIs(s, s.q.Note(ctx, queue.Note{Kind: "a", Key: "x", Value: "x"}), context.Canceled)
	require.NoError(s, s.q.Close())
	assert.ErrorIs(s, s.q.Note(s.ctx, queue.Note{Kind: "a", Key: "x", Value: "x"}), queue.ErrClosed)
	_, _, err := s.q.Lookup(s.ctx, "a", "x")
	assert.ErrorIs(s, err, queue.ErrClosed)
	_, _, err = s.q.Notes(s.ctx, "a", "", "", 1)
	assert.ErrorIs(s, err, queue.ErrClosed)
}

func (s *suite) notesSettled() {
	s.enqueue("1@a.test", "2@a.test")
	until := time.Now().Add(24 * time.Hour)
	noted := []queue.Note{{Kind: "a", Key: "x", Value: "settled", Until: until}, {Kind: "a", Key: "y"}}
	s.note(queue.Note{Kind: "a", Key: "y", Value: "before", Until: until})
	s.settle(s.leaseOne(), queue.Settlement{Attempt: attempt(1), Done: []string{"1@a.test"}, Notes: noted})
	assert.Equal(s, "settled", s.value("a", "x"))
	assert.Equal(s, "none", s.value("a", "y"))

	l := s.leaseOne()
	bad := []queue.Note{{Kind: "a", Key: "z", Value: "not without the other"}, {Kind: "a"}}
	assert.Error(s, s.q.Settle(s.ctx, l, queue.Settlement{Done: addresses(l), Notes: bad}))
	assert.Equal(s, "none", s.value("a", "z"))
	_, err := s.q.Delete(s.ctx, queue.Filter{ID: l.ID})
	require.NoError(s, err)
	lost := []queue.Note{{Kind: "a", Key: "z", Value: "not without its settlement"}}
	assert.ErrorIs(s, s.q.Settle(s.ctx, l, queue.Settlement{Done: addresses(l), Notes: lost}), queue.ErrLeaseLost)
	assert.Equal(s, "none", s.value("a", "z"))
}

func (s *suite) notesAtOnce() {
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for k := range 50 {
				until := time.Now().Add(time.Hour)
				value := fmt.Sprint(i, " ", k)
				n := []queue.Note{{Kind: "a", Key: "x", Value: value, Until: until}, {Kind: "a", Key: "y", Value: value, Until: until}}
				if i%2 > 0 {
					n[0], n[1] = n[1], n[0]
				}
				assert.NoError(s, s.q.Note(s.ctx, n...))
			}
		})
	}
	all.Wait()
	last := s.value("a", "x")
	assert.Equal(s, last, s.value("a", "y"), "notes that are written together stay together")
	if s.backend.Reopen != nil {
		s.reopen()
		assert.Equal(s, last+" "+last, s.value("a", "x")+" "+s.value("a", "y"), "what was read is what is kept")
	}
}

func (s *suite) notesSurvive() {
	soon, late := time.Now().Add(time.Hour), time.Now().Add(100*time.Hour)
	value := strings.Repeat("\x00\"\\<é", queue.MaxNoteValue/6)
	s.note(
		queue.Note{Kind: "a", Key: "soon", Value: "s", Until: soon}, queue.Note{Kind: "a", Key: "late", Value: value, Until: late},
		queue.Note{Kind: "a", Key: "never"}, queue.Note{Kind: "a", Key: "for ever", Value: "e"}, queue.Note{Kind: "a", Key: "gone", Value: "g", Until: late},
	)
	s.note(queue.Note{Kind: "a", Key: "gone"})
	s.enqueue("1@a.test")
	l := s.leaseOne()
	s.settle(l, queue.Settlement{Done: addresses(l), Notes: []queue.Note{{Kind: "a", Key: "settled", Value: "t", Until: late}}})
	for range 2 {
		s.reopen()
		assert.Equal(s, []string{"for ever", "late", "settled", "soon"}, s.keys("a", "", 0))
		assert.True(s, value == s.value("a", "late"))
		n, _, err := s.q.Lookup(s.ctx, "a", "settled")
		require.NoError(s, err)
		equalTime(s, late, n.Until, "until")
	}
	time.Sleep(2 * time.Hour)
	s.reopen()
	assert.Equal(s, []string{"for ever", "late", "settled"}, s.keys("a", "", 0))
	time.Sleep(100 * time.Hour)
	assert.Equal(s, []string{"for ever"}, s.keys("a", "", 0))
	s.note(queue.Note{Kind: "a", Key: "for ever"})
	s.reopen()
	assert.Empty(s, s.keys("a", "", 0))
}

// keyed enqueues a message with a key.
func (s *suite) keyed(key, to string) queue.ID {
	s.Helper()
	id, err := s.q.Enqueue(s.ctx, queue.Envelope{From: "me@src.test", To: queue.To(to), Key: key}, strings.NewReader(text))
	require.NoError(s, err)
	return id
}

// std: Q10
func (s *suite) idempotent() {
	first := s.keyed("order 17", "1@a.test")
	time.Sleep(time.Hour)
	again, err := s.q.Enqueue(s.ctx, queue.Envelope{To: queue.To("another@b.test"), Key: "order 17"}, failingReader{strings.NewReader("another"), io.EOF})
	require.NoError(s, err)
	assert.Equal(s, first, again)
	other := s.keyed("order 18", "2@a.test")
	assert.NotEqual(s, first, other)
	s.enqueue("3@a.test")
	s.enqueue("4@a.test")
	leases := s.lease(10)
	require.Len(s, leases, 4, "the same key is the same message, whatever else it is; no key is none")
	assert.Equal(s, "order 17", leases[0].Envelope.Key)
	assert.Equal(s, text, s.read(first))
	assert.Equal(s, string(first), s.value(queue.KindKey, "order 17"))
	for _, l := range leases {
		s.done(l)
	}
	assert.Equal(s, first, s.keyed("order 17", "1@a.test"), "what has arrived is remembered")
	time.Sleep(queue.KeyMemory - time.Hour - time.Second)
	assert.Equal(s, first, s.keyed("order 17", "1@a.test"))
	assert.Empty(s, s.lease(10))
	time.Sleep(time.Second)
	assert.Equal(s, other, s.keyed("order 18", "1@a.test"))
	assert.NotEqual(s, first, s.keyed("order 17", "1@a.test"), "what was accepted long ago, and is gone, is forgotten")
	s.done(s.leaseOne())
}

// std: Q10
func (s *suite) idempotentReports() {
	s.keyed("k", "1@a.test")
	for range 2 {
		keyed := report
		keyed.Envelope.Key = "k"
		l := s.leaseOne()
		s.settle(l, queue.Settlement{Done: addresses(l), Reports: []queue.Submission{keyed}})
	}
	assert.Empty(s, s.leaseOne().Envelope.Key, "a report that follows is queued whatever its key")
}

// std: Q10
func (s *suite) idempotentWhileThere() {
	first := s.keyed("order 17", "1@a.test")
	s.count(s.q.Hold(s.ctx, queue.Filter{ID: first}, "for longer than the memory of its key"))
	for range 50 {
		time.Sleep(23 * time.Hour)
		require.Equal(s, first, s.keyed("order 17", "1@a.test"))
		if s.backend.Reopen != nil {
			s.reopen()
		}
	}
	s.count(s.q.Delete(s.ctx, queue.Filter{ID: first}))
	assert.NotEqual(s, first, s.keyed("order 17", "1@a.test"))

	deleted := s.keyed("order 18", "1@a.test")
	s.count(s.q.Delete(s.ctx, queue.Filter{ID: deleted}))
	assert.Equal(s, deleted, s.keyed("order 18", "1@a.test"), "what a person deletes was accepted all the same")
}

// std: Q10
func (s *suite) idempotentAtOnce() {
	r, w := io.Pipe()
	var all sync.WaitGroup
	var failed error
	all.Go(func() { _, failed = s.q.Enqueue(s.ctx, queue.Envelope{To: queue.To("1@a.test"), Key: "k"}, r) })
	synctest.Wait()
	ids := make([]queue.ID, 5)
	for i := range ids {
		all.Go(func() { ids[i] = s.keyed("k", "1@a.test") })
	}
	ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
	defer cancel()
	_, err := s.q.Enqueue(ctx, queue.Envelope{To: queue.To("1@a.test"), Key: "k"}, strings.NewReader(text))
	assert.ErrorIs(s, err, context.DeadlineExceeded, "it waits for the outcome of the first, for as long as it may")
	assert.NotEmpty(s, s.keyed("another", "1@b.test"), "another key waits for nobody")
	w.CloseWithError(errBroken)
	all.Wait()
	assert.ErrorIs(s, failed, errBroken)
	for _, id := range ids {
		assert.Equal(s, ids[0], id, "where the first failed, one of the others is enqueued")
	}
	assert.Len(s, s.lease(10), 2)
}

// std: Q10
func (s *suite) idempotentRefused() {
	for _, key := range []string{strings.Repeat("k", queue.MaxKey+1), "not \xff UTF-8"} {
		_, err := s.q.Enqueue(s.ctx, queue.Envelope{To: queue.To("1@a.test"), Key: key}, strings.NewReader(text))
		var bad *queue.EnvelopeError
		require.ErrorAs(s, err, &bad)
		assert.Equal(s, "key", bad.Field)
	}
	_, err := s.q.Enqueue(s.ctx, queue.Envelope{To: queue.To("nobody"), Key: "k"}, strings.NewReader(text))
	require.Error(s, err)
	id := s.keyed("k", "1@a.test")
	assert.Equal(s, id, s.leaseOne().ID, "what was refused is not remembered")
	require.NoError(s, s.q.Close())
	_, err = s.q.Enqueue(s.ctx, queue.Envelope{To: queue.To("1@a.test"), Key: "k"}, strings.NewReader(text))
	assert.ErrorIs(s, err, queue.ErrClosed)
}

// std: Q10
func (s *suite) idempotentSurvives() {
	long := strings.Repeat("0123456789abcde\n", 20_000)
	waits, gone := s.keyed("waits", "1@a.test"), s.keyed("gone <\x00é>", "1@b.test")
	large, err := s.q.Enqueue(s.ctx, queue.Envelope{To: queue.To("1@c.test"), Key: "large"}, strings.NewReader(long))
	require.NoError(s, err)
	s.count(s.q.Delete(s.ctx, queue.Filter{ID: gone}))
	s.reopen()
	s.reopen()
	assert.Equal(s, waits, s.keyed("waits", "1@a.test"))
	assert.Equal(s, gone, s.keyed("gone <\x00é>", "1@b.test"))
	assert.Equal(s, large, s.keyed("large", "1@c.test"))
	leases := s.lease(10)
	require.Len(s, leases, 2)
	assert.Equal(s, []string{"large", "waits"}, sorted([]string{leases[0].Envelope.Key, leases[1].Envelope.Key}))
	time.Sleep(queue.KeyMemory)
	s.reopen()
	assert.Equal(s, waits, s.keyed("waits", "1@a.test"))
	assert.NotEqual(s, gone, s.keyed("gone <\x00é>", "1@b.test"))
}
