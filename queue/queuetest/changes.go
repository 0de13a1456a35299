package queuetest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/queue"
)

// crowd enqueues mail of several ages, senders and lanes, tried once and due in an hour; on hold where held. It gives the IDs by
// the recipients' names.
func (s *suite) crowd(held bool) map[string]queue.ID {
	s.Helper()
	ids := map[string]queue.ID{}
	for _, m := range []struct{ from, to string }{
		{"ann@src.test", "1@a.test 2@b.test"}, {"bob@src.test", "3@a.test 4@a.test"}, {"", "5@b.test"}, {"ann@src.test", "6@c.test"},
	} {
		id, err := s.q.Enqueue(s.ctx, queue.Envelope{From: m.from, To: queue.To(strings.Fields(m.to)...)}, strings.NewReader(text))
		require.NoError(s, err)
		for _, to := range strings.Fields(m.to) {
			ids[to[:1]] = id
		}
		for _, l := range s.lease(10) {
			s.settle(l, queue.Settlement{Attempt: attempt(1), Next: time.Now().Add(24 * time.Hour)})
		}
		time.Sleep(time.Hour)
	}
	if held {
		require.Equal(s, 5, s.count(s.q.Hold(s.ctx, queue.Filter{All: true}, "all of it")))
	}
	return ids
}

// untouched are the entries that are as [suite.crowd] has left them, by the names of their recipients.
func (s *suite) untouched(held bool) (names []string) {
	s.Helper()
	list, _, err := s.q.List(s.ctx, queue.Filter{}, "", 0)
	require.NoError(s, err)
	for _, e := range list {
		asLeft := e.State == queue.Waiting && e.Why == "" && e.Due.After(time.Now())
		if held {
			asLeft = e.State == queue.Held && e.Why == "all of it"
		}
		if asLeft {
			names = append(names, e.To[0].Address[:1])
		}
	}
	return names
}

// changesByQuery makes every change to what every kind of filter chooses, and to nothing else.
//
// std: Q8
func (s *suite) changesByQuery() {
	ops := map[string]func(queue.Filter) (int, error){
		"hold":    func(f queue.Filter) (int, error) { return s.q.Hold(s.ctx, f, "these") },
		"release": func(f queue.Filter) (int, error) { return s.q.Release(s.ctx, f) },
		"retry":   func(f queue.Filter) (int, error) { return s.q.Retry(s.ctx, f) },
		"fail":    func(f queue.Filter) (int, error) { return s.q.Fail(s.ctx, f, "these") },
		"delete":  func(f queue.Filter) (int, error) { return s.q.Delete(s.ctx, f) },
	}
	for op, change := range ops {
		for name, test := range map[string]struct {
			filter queue.Filter
			want   string // the first recipients of the entries that it is about
		}{
			"id":          {queue.Filter{ID: "2"}, "12"},
			"id and lane": {queue.Filter{ID: "2", Lane: "b.test"}, "2"},
			"lane":        {queue.Filter{Lane: "a.test"}, "13"},
			"sender":      {queue.Filter{Sender: "Ann@src.test"}, "126"},
			"null sender": {queue.Filter{Sender: "<>"}, "5"},
			"recipient":   {queue.Filter{Recipient: "4@A.test"}, "3"},
			"age":         {queue.Filter{OlderThan: 3 * time.Hour}, "123"},
			"two":         {queue.Filter{Sender: "ann@src.test", Lane: "a.test"}, "1"},
			"nothing":     {queue.Filter{Sender: "ann@src.test", Recipient: "5@b.test"}, ""},
			"all":         {queue.Filter{All: true}, "12356"},
		} {
			held := op == "release"
			ids := s.crowd(held)
			test.filter.ID = ids[string(test.filter.ID)]
			what := fmt.Sprintf("%s by %s", op, name)
			assert.Equal(s, len(test.want), s.count(change(test.filter)), what)
			rest := slices.DeleteFunc(strings.Split("12356", ""), func(n string) bool { return strings.Contains(test.want, n) })
			assert.Equal(s, strings.Join(rest, ""), strings.Join(sorted(s.untouched(held)), ""), what)
			s.sawChange(op, test.want)
			s.q.Delete(s.ctx, queue.Filter{All: true})
		}
	}
}

// sawChange looks at what became of the entries that a change is about.
func (s *suite) sawChange(op, names string) {
	s.Helper()
	list, _, err := s.q.List(s.ctx, queue.Filter{}, "", 0)
	require.NoError(s, err)
	for _, e := range list {
		if !strings.Contains(names, e.To[0].Address[:1]) {
			continue
		}
		switch op {
		case "hold":
			assert.Equal(s, queue.Held, e.State)
			assert.Equal(s, "these", e.Why)
		case "release", "retry", "fail":
			assert.Equal(s, queue.Waiting, e.State)
			assert.False(s, e.Due.After(time.Now()))
		case "delete":
			assert.Fail(s, "what is deleted is there")
		}
	}
	due := len(names)
	if op == "hold" || op == "delete" {
		due = 0
	}
	leases := s.lease(10)
	assert.Len(s, leases, due, op)
	for _, l := range leases {
		assert.Equal(s, op == "fail", l.FailWhy == "these")
	}
}

// manyRecipients enqueues a message to 10,000 recipients in 2,000 domains: it is one message, and an entry a domain with all of its
// recipients.
func (s *suite) manyRecipients() {
	const lanes, each = 2000, 5
	var to []string
	for n := range lanes * each {
		to = append(to, fmt.Sprintf("%d@%d.test", n, n%lanes))
	}
	id := s.enqueue(to...)
	stats, err := s.q.Stats(s.ctx)
	require.NoError(s, err)
	assert.Equal(s, queue.Stats{Messages: 1, Waiting: lanes, Lanes: lanes, Bytes: int64(len(text)), Oldest: stats.Oldest}, stats)
	seen := map[string]bool{}
	for {
		leases := s.lease(64)
		if len(leases) == 0 {
			break
		}
		for _, l := range leases {
			require.Equal(s, id, l.ID)
			require.Len(s, l.Envelope.To, each)
			require.False(s, seen[l.Lane], "a lane is leased once")
			seen[l.Lane] = true
			s.done(l)
		}
	}
	assert.Len(s, seen, lanes)
	_, err = s.q.Open(s.ctx, id)
	assert.ErrorIs(s, err, queue.ErrNotFound)
}
