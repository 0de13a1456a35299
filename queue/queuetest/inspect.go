package queuetest

import (
	"fmt"
	"strings"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/queue"
)

func (s *suite) count(n int, err error) int {
	s.Helper()
	require.NoError(s, err)
	return n
}

func (s *suite) hold() {
	id := s.enqueue("1@a.test")
	s.enqueue("1@b.test")
	assert.Equal(s, 1, s.count(s.q.Hold(s.ctx, queue.Filter{Lane: "a.test"}, "why not")))
	assert.Equal(s, 1, s.count(s.q.Hold(s.ctx, queue.Filter{Lane: "a.test"}, "a better reason")))
	assert.Equal(s, []string{"b.test"}, laneNames(s.lease(5)))
	d, err := s.q.Show(s.ctx, id)
	require.NoError(s, err)
	assert.Equal(s, queue.Held, d.Entries[0].State)
	assert.Equal(s, "a better reason", d.Entries[0].Why)
	time.Sleep(24 * time.Hour)
	assert.Len(s, s.lease(5), 1, "only the lease of b.test that ended")
	assert.Equal(s, 1, s.count(s.q.Release(s.ctx, queue.Filter{All: true})))
	assert.Equal(s, id, s.leaseOne().ID)
}

func (s *suite) holdLeased() {
	s.enqueue("1@a.test")
	l := s.leaseOne()
	assert.Equal(s, 1, s.count(s.q.Hold(s.ctx, queue.Filter{ID: l.ID}, "wait")))
	s.settle(l, queue.Settlement{Attempt: attempt(1), Next: time.Now()})
	assert.Empty(s, s.lease(1))
	assert.Equal(s, 1, s.count(s.q.Release(s.ctx, queue.Filter{ID: l.ID})))
	l = s.leaseOne()
	assert.Equal(s, 1, s.count(s.q.Hold(s.ctx, queue.Filter{ID: l.ID}, "wait")))
	time.Sleep(2 * time.Hour)
	assert.Empty(s, s.lease(1), "though nobody settled it")
	assert.Equal(s, 1, s.count(s.q.Release(s.ctx, queue.Filter{ID: l.ID})))
	s.done(s.leaseOne())
}

func (s *suite) retry() {
	s.enqueue("1@a.test")
	s.settle(s.leaseOne(), queue.Settlement{Attempt: attempt(1), Next: time.Now().Add(time.Hour), Pause: time.Hour})
	assert.Equal(s, 1, s.count(s.q.Retry(s.ctx, queue.Filter{Recipient: "1@A.test"})))
	assert.Equal(s, 1, s.leaseOne().Attempts)

	later := s.enqueue("2@b.test")
	s.settle(s.leaseOne(), queue.Settlement{Attempt: attempt(1), Next: time.Now().Add(time.Hour), Pause: time.Hour})
	s.enqueue("3@b.test")
	time.Sleep(time.Minute)
	assert.Equal(s, 1, s.count(s.q.Retry(s.ctx, queue.Filter{ID: later})))
	assert.Equal(s, []string{"b.test", "b.test"}, laneNames(s.lease(5)), "the pause ends for those that are due anyway, too")

	held := queue.Filter{ID: s.enqueue("4@c.test")}
	assert.Equal(s, 1, s.count(s.q.Hold(s.ctx, held, "wait")))
	assert.Zero(s, s.count(s.q.Retry(s.ctx, held)))
	assert.Empty(s, s.lease(5), "what is held stays so")
}

func (s *suite) fail() {
	s.enqueue("1@a.test")
	s.settle(s.leaseOne(), queue.Settlement{Attempt: attempt(1), Next: time.Now().Add(time.Hour)})
	assert.Equal(s, 1, s.count(s.q.Fail(s.ctx, queue.Filter{Lane: "a.test"}, "no use")))
	assert.Equal(s, "no use", s.leaseOne().FailWhy)
}

func (s *suite) delete() {
	id := s.enqueue("1@a.test", "1@b.test")
	assert.Equal(s, 1, s.count(s.q.Delete(s.ctx, queue.Filter{Lane: "a.test"})))
	assert.Equal(s, text, s.read(id))
	assert.Equal(s, 1, s.count(s.q.Delete(s.ctx, queue.Filter{ID: id})))
	assert.Empty(s, s.lease(5))
	_, err := s.q.Open(s.ctx, id)
	assert.ErrorIs(s, err, queue.ErrNotFound)
}

func (s *suite) deleteLeased() {
	s.enqueue("1@a.test")
	l := s.leaseOne()
	assert.Equal(s, 1, s.count(s.q.Delete(s.ctx, queue.Filter{State: queue.Leased})))
	assert.ErrorIs(s, s.q.Settle(s.ctx, l, queue.Settlement{}), queue.ErrLeaseLost)
	time.Sleep(2 * time.Hour)
	assert.Empty(s, s.lease(5))
}

func (s *suite) noFilter() {
	s.enqueue("1@a.test")
	var f queue.Filter
	for _, err := range []error{
		second(s.q.Hold(s.ctx, f, "")), second(s.q.Release(s.ctx, f)), second(s.q.Retry(s.ctx, f)),
		second(s.q.Fail(s.ctx, f, "")), second(s.q.Delete(s.ctx, f)),
	} {
		assert.ErrorIs(s, err, queue.ErrNoFilter)
	}
	assert.Len(s, s.lease(5), 1)
}

func second(_ int, err error) error { return err }

func (s *suite) filters() {
	old := s.enqueue("1@a.test")
	time.Sleep(time.Hour)
	s.enqueue("1@b.test", "2@b.test")
	null, err := s.q.Enqueue(s.ctx, queue.Envelope{To: queue.To("1@c.test")}, strings.NewReader(text))
	require.NoError(s, err)
	for _, test := range []struct {
		name   string
		filter queue.Filter
		lanes  []string
	}{
		{"nothing", queue.Filter{}, []string{"a.test", "b.test", "c.test"}},
		{"id", queue.Filter{ID: old}, []string{"a.test"}},
		{"lane", queue.Filter{Lane: "b.test"}, []string{"b.test"}},
		{"sender", queue.Filter{Sender: "ME@src.test"}, []string{"a.test", "b.test"}},
		{"null sender", queue.Filter{Sender: "<>"}, []string{"c.test"}},
		{"recipient", queue.Filter{Recipient: "2@B.test"}, []string{"b.test"}},
		{"age", queue.Filter{OlderThan: time.Hour}, []string{"a.test"}},
		{"state", queue.Filter{State: queue.Held}, nil},
		{"two", queue.Filter{ID: null, Lane: "a.test"}, nil},
	} {
		entries, next, err := s.q.List(s.ctx, test.filter, "", 10)
		require.NoError(s, err)
		assert.Empty(s, next)
		var got []string
		for _, e := range entries {
			got = append(got, e.Lane)
		}
		assert.Equal(s, test.lanes, got, test.name)
	}
}

func (s *suite) pages() {
	for range 7 {
		s.enqueue("1@a.test", "1@b.test")
	}
	seen := map[string]bool{}
	cursor, calls := "", 0
	last := queue.ID("")
	for {
		entries, next, err := s.q.List(s.ctx, queue.Filter{}, cursor, 3)
		require.NoError(s, err)
		calls++
		for _, e := range entries {
			assert.False(s, seen[string(e.ID)+e.Lane], "an entry is listed twice")
			assert.GreaterOrEqual(s, e.ID, last)
			seen[string(e.ID)+e.Lane], last = true, e.ID
		}
		if next == "" {
			break
		}
		cursor = next
		s.enqueue("1@new.test") // what comes meanwhile does not disturb
		if calls > 20 {
			break
		}
	}
	assert.GreaterOrEqual(s, len(seen), 14)
}

// list gives all that match, page by page, as "address address …".
func (s *suite) list(f queue.Filter, limit int, between func(page []queue.Info)) string {
	s.Helper()
	var all []string
	for cursor := ""; ; {
		page, next, err := s.q.List(s.ctx, f, cursor, limit)
		require.NoError(s, err)
		require.LessOrEqual(s, len(page), limit)
		for _, e := range page {
			all = append(all, e.To[0].Address)
		}
		if next == "" {
			return strings.Join(all, " ")
		}
		require.NotEmpty(s, page, "a page that is not the last has something")
		require.NotEqual(s, cursor, next)
		cursor = next
		between(page)
	}
}

func (s *suite) pagesOfSome() {
	many := s.enqueue("1@d.test", "1@b.test", "1@a.test", "1@c.test", "1@e.test")
	for i := range 6 {
		s.enqueue(fmt.Sprintf("%d@b.test", i+2), fmt.Sprintf("%d@x.test", i+2))
	}
	nothing := func([]queue.Info) {}
	for limit := 1; limit < 8; limit++ {
		assert.Equal(s, "1@a.test 1@b.test 1@c.test 1@d.test 1@e.test", s.list(queue.Filter{ID: many}, limit, nothing))
		assert.Equal(s, "1@b.test 2@b.test 3@b.test 4@b.test 5@b.test 6@b.test 7@b.test", s.list(queue.Filter{Lane: "b.test"}, limit, nothing))
	}
	deleteLast := func(page []queue.Info) {
		last := page[len(page)-1]
		s.count(s.q.Delete(s.ctx, queue.Filter{ID: last.ID, Lane: last.Lane}))
	}
	assert.Equal(s, "1@a.test 1@b.test 1@c.test 1@d.test 1@e.test 2@b.test 2@x.test 3@b.test 3@x.test 4@b.test 4@x.test "+
		"5@b.test 5@x.test 6@b.test 6@x.test 7@b.test 7@x.test", s.list(queue.Filter{}, 2, deleteLast),
		"the entry that the cursor names may be gone")
	assert.Equal(s, "1@a.test 1@c.test 1@e.test 2@x.test 3@x.test 4@x.test 5@x.test 6@x.test 7@x.test", s.list(queue.Filter{}, 3, nothing))
	page, next, err := s.q.List(s.ctx, queue.Filter{}, "zzz", 3)
	assert.NoError(s, err)
	assert.Empty(s, page)
	assert.Empty(s, next)
}

func (s *suite) show() {
	id := s.enqueue("1@a.test", "1@b.test")
	d, err := s.q.Show(s.ctx, id)
	require.NoError(s, err)
	assert.Equal(s, "me@src.test", d.Envelope.From)
	assert.Len(s, d.Envelope.To, 2)
	assert.EqualValues(s, len(text), d.Size)
	require.Len(s, d.Entries, 2)
	assert.Equal(s, "a.test", d.Entries[0].Lane)
	assert.Equal(s, queue.Waiting, d.Entries[0].State)
	s.lease(2)
	d, err = s.q.Show(s.ctx, id)
	require.NoError(s, err)
	assert.Equal(s, queue.Leased, d.Entries[1].State)
	_, err = s.q.Show(s.ctx, "no-such-id")
	assert.ErrorIs(s, err, queue.ErrNotFound)
	_, err = s.q.Open(s.ctx, "../../etc/passwd")
	assert.ErrorIs(s, err, queue.ErrNotFound)
}

func (s *suite) stats() {
	oldest := time.Now()
	s.enqueue("1@a.test", "1@b.test")
	time.Sleep(time.Minute)
	s.enqueue("1@a.test")
	s.enqueue("1@c.test")
	s.count(s.q.Hold(s.ctx, queue.Filter{Lane: "c.test"}, ""))
	s.lease(1)
	got, err := s.q.Stats(s.ctx)
	require.NoError(s, err)
	equalTime(s, oldest, got.Oldest, "oldest")
	got.Oldest = time.Time{}
	assert.Equal(s, queue.Stats{Messages: 3, Waiting: 2, Leased: 1, Held: 1, Lanes: 3, Bytes: int64(3 * len(text))}, got)
}
