package queuetest

import (
	"fmt"
	"strings"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/queue"
)

func (s *suite) settlePart() {
	s.enqueue("1@a.test", "2@a.test", "3@a.test")
	next := time.Now().Add(30 * time.Minute)
	s.settle(s.leaseOne(), queue.Settlement{Attempt: attempt(1), Done: []string{"2@a.test"}, Next: next, Warned: []string{"1@a.test"}})
	assert.Empty(s, s.lease(1))
	time.Sleep(30*time.Minute - time.Nanosecond)
	assert.Empty(s, s.lease(1), "not before its time")
	time.Sleep(time.Nanosecond)
	l := s.leaseOne()
	assert.Equal(s, []string{"1@a.test", "3@a.test"}, addresses(l))
	assert.Equal(s, 1, l.Attempts)
	assert.Equal(s, "try 1", l.Last.Route)
	assert.Equal(s, map[string]bool{"1@a.test": true}, l.Warned)
}

func (s *suite) putBack() {
	id := s.enqueue("1@a.test")
	s.settle(s.leaseOne(), queue.Settlement{Attempt: attempt(1)})
	s.settle(s.leaseOne(), queue.Settlement{})
	l := s.leaseOne()
	assert.Equal(s, 1, l.Attempts)
	assert.Equal(s, "try 1", l.Last.Route)
	d, err := s.q.Show(s.ctx, id)
	require.NoError(s, err)
	assert.Len(s, d.Entries[0].Attempts, 1)
}

func (s *suite) settleAll() {
	id := s.enqueue("1@a.test", "1@b.test")
	leases := s.lease(2)
	s.done(leases[0])
	assert.Equal(s, text, s.read(id), "the other lane still needs it")
	s.done(leases[1])
	_, err := s.q.Open(s.ctx, id)
	assert.ErrorIs(s, err, queue.ErrNotFound)
	_, err = s.q.Show(s.ctx, id)
	assert.ErrorIs(s, err, queue.ErrNotFound)
	stats, err := s.q.Stats(s.ctx)
	require.NoError(s, err)
	assert.Equal(s, queue.Stats{}, stats, "nothing counts any more")
}

var report = queue.Submission{
	Envelope: queue.Envelope{To: queue.To("me@src.test")},
	Body:     []byte("Subject: failed\r\n\r\nIt failed.\r\n"),
}

func (s *suite) reports() {
	s.enqueue("1@a.test")
	l := s.leaseOne()
	second := report
	second.Body = []byte(strings.Repeat("long\r\n", 50_000))
	s.settle(l, queue.Settlement{Attempt: attempt(1), Done: addresses(l), Reports: []queue.Submission{report, second}})
	for _, want := range []queue.Submission{report, second} {
		got := s.leaseOne()
		assert.Equal(s, "src.test", got.Lane)
		assert.Equal(s, want.Envelope, got.Envelope)
		assert.EqualValues(s, len(want.Body), got.Size)
		assert.True(s, string(want.Body) == s.read(got.ID), "the report is not what was given")
		s.done(got)
	}
}

func (s *suite) noReports() {
	s.enqueue("1@a.test")
	l := s.leaseOne()
	_, err := s.q.Delete(s.ctx, queue.Filter{ID: l.ID})
	require.NoError(s, err)
	err = s.q.Settle(s.ctx, l, queue.Settlement{Done: addresses(l), Reports: []queue.Submission{report}})
	assert.ErrorIs(s, err, queue.ErrLeaseLost)
	s.enqueue("1@a.test")
	l = s.leaseOne()
	bad := queue.Submission{Envelope: queue.Envelope{To: queue.To("nobody")}, Body: report.Body}
	assert.Error(s, s.q.Settle(s.ctx, l, queue.Settlement{Done: addresses(l), Reports: []queue.Submission{report, bad}}))
	assert.Empty(s, s.lease(5), "no report without its settlement")
	s.done(l)
}

func (s *suite) history() {
	id := s.enqueue("1@a.test")
	for i := range queue.MaxHistory + 5 {
		a := attempt(i)
		a.Results = []queue.AttemptResult{{
			Recipient: "1@a.test", Status: "4.2.0", Host: "mx.a.test", Addr: "192.0.2.1", Class: "mailbox-full",
			Reply: dsn.Reply{Code: 452, Lines: []string{"4.2.0 first", "4.2.0 last"}},
		}}
		s.settle(s.leaseOne(), queue.Settlement{Attempt: a, Next: time.Now()})
	}
	d, err := s.q.Show(s.ctx, id)
	require.NoError(s, err)
	require.Len(s, d.Entries, 1)
	require.Len(s, d.Entries[0].Attempts, queue.MaxHistory)
	last := d.Entries[0].Attempts[queue.MaxHistory-1]
	assert.Equal(s, fmt.Sprint("try ", queue.MaxHistory+4), last.Route)
	assert.Equal(s, []string{"4.2.0 first", "4.2.0 last"}, last.Results[0].Reply.Lines)
	assert.Equal(s, queue.MaxHistory+5, d.Entries[0].Info.Attempts)
	assert.Equal(s, last.Route, d.Entries[0].Last.Route)
}

func (s *suite) settleHold() {
	s.enqueue("1@a.test", "2@a.test")
	s.settle(s.leaseOne(), queue.Settlement{Attempt: attempt(1), Done: []string{"1@a.test"}, Hold: "the route says hold"})
	time.Sleep(24 * time.Hour)
	assert.Empty(s, s.lease(1))
	entries, _, err := s.q.List(s.ctx, queue.Filter{State: queue.Held}, "", 10)
	require.NoError(s, err)
	require.Len(s, entries, 1)
	assert.Equal(s, "the route says hold", entries[0].Why)
	assert.Equal(s, "2@a.test", entries[0].To[0].Address)
}

func (s *suite) survives() {
	id := s.enqueue("1@a.test", "1@b.test")
	long := strings.Repeat("0123456789abcde\n", 20_000)
	big, err := s.q.Enqueue(s.ctx, queue.Envelope{To: queue.To("1@c.test")}, strings.NewReader(long))
	require.NoError(s, err)
	accepted := time.Now()
	s.reopen()
	leases := s.lease(10)
	assert.Equal(s, []string{"a.test", "b.test", "c.test"}, sorted(laneNames(leases)))
	assert.Equal(s, text, s.read(id))
	assert.True(s, long == s.read(big))
	for _, l := range leases {
		equalTime(s, accepted, l.Accepted, "accepted")
	}
}

func (s *suite) leaseDoesNotSurvive() {
	id := s.enqueue("1@a.test")
	s.leaseOne()
	s.reopen()
	assert.Equal(s, id, s.leaseOne().ID)
}

func (s *suite) stateSurvives() {
	s.enqueue("1@a.test", "2@a.test")
	tried := attempt(1)
	tried.Freed = 3
	tried.Results = []queue.AttemptResult{{Recipient: "2@a.test", Status: "4.4.3", Stage: deliver.StageRoute, RouteTrouble: true}}
	s.settle(s.leaseOne(), queue.Settlement{
		Attempt: tried, Done: []string{"1@a.test"}, Warned: []string{"2@a.test"}, Next: time.Now().Add(time.Hour),
	})
	s.reopen()
	s.reopen()
	assert.Empty(s, s.lease(1))
	time.Sleep(time.Hour)
	l := s.leaseOne()
	assert.Equal(s, []string{"2@a.test"}, addresses(l))
	assert.Equal(s, 1, l.Attempts)
	assert.Equal(s, tried.Results, l.Last.Results, "a Runner goes by whether it was the route's trouble")
	assert.Equal(s, 3, l.Last.Freed)
	assert.True(s, l.Warned["2@a.test"])
	d, err := s.q.Show(s.ctx, l.ID)
	require.NoError(s, err)
	assert.Len(s, d.Entries[0].Attempts, 1)
	assert.Len(s, d.Envelope.To, 2, "the envelope is shown as it was enqueued")
}

func (s *suite) settlementSurvives() {
	id := s.enqueue("1@a.test")
	l := s.leaseOne()
	s.settle(l, queue.Settlement{Done: addresses(l), Reports: []queue.Submission{report}})
	s.reopen()
	_, err := s.q.Open(s.ctx, id)
	assert.ErrorIs(s, err, queue.ErrNotFound)
	got := s.leaseOne()
	assert.Equal(s, string(report.Body), s.read(got.ID))
	s.done(got)
	s.reopen()
	assert.Empty(s, s.lease(10))
}

func (s *suite) changesSurvive() {
	held, failed, deleted := s.enqueue("1@held.test"), s.enqueue("1@failed.test"), s.enqueue("1@deleted.test")
	_, err := s.q.Hold(s.ctx, queue.Filter{ID: held}, "look at it")
	require.NoError(s, err)
	_, err = s.q.Fail(s.ctx, queue.Filter{ID: failed}, "no use")
	require.NoError(s, err)
	_, err = s.q.Delete(s.ctx, queue.Filter{ID: deleted})
	require.NoError(s, err)
	s.reopen()
	l := s.leaseOne()
	assert.Equal(s, failed, l.ID)
	assert.Equal(s, "no use", l.FailWhy)
	assert.Empty(s, s.lease(5))
	n, err := s.q.Release(s.ctx, queue.Filter{All: true})
	require.NoError(s, err)
	assert.Equal(s, 1, n)
	assert.Equal(s, held, s.leaseOne().ID)
}

func (s *suite) unreachedSurvives() {
	unreached, own := s.unreach()
	s.reopen()
	s.reopen()
	assert.Empty(s, s.lease(5))
	s.probe(queue.Settlement{Wake: true})
	assert.Equal(s, unreached, s.leaseOne().ID)
	assert.Empty(s, s.lease(5))
	s.count(s.q.Delete(s.ctx, queue.Filter{ID: own}))

	released, _ := s.unreach()
	s.count(s.q.Retry(s.ctx, queue.Filter{ID: released}))
	s.reopen()
	s.count(s.q.Delete(s.ctx, queue.Filter{ID: unreached}))
	l := s.leaseOne()
	assert.Equal(s, released, l.ID)
	s.settle(l, queue.Settlement{Attempt: attempt(2), Next: time.Now().Add(time.Hour)})
	s.reopen()
	s.probe(queue.Settlement{Wake: true})
	assert.Empty(s, s.lease(5), "its last settlement gave a reason of its own")
}

func (s *suite) wokenSurvives() {
	unreached, _ := s.unreach()
	s.probe(queue.Settlement{Wake: true})
	assert.Equal(s, unreached, s.leaseOne().ID)
	s.reopen()
	assert.Equal(s, unreached, s.leaseOne().ID, "an entry that was leased is due at once")
	assert.Empty(s, s.lease(5))
	s.count(s.q.Delete(s.ctx, queue.Filter{All: true}))

	unreached, _ = s.unreach()
	s.enqueue("probe@b.test")
	l := s.leaseOne()
	s.settle(l, queue.Settlement{Done: addresses(l), WakeLanes: []string{"a.test"}})
	assert.Equal(s, unreached, s.leaseOne().ID)
	s.reopen()
	assert.Equal(s, unreached, s.leaseOne().ID)
}

func (s *suite) idsSurvive() {
	last := s.enqueue("1@a.test")
	s.done(s.leaseOne())
	s.reopen()
	assert.Greater(s, s.enqueue("1@a.test"), last)
}
