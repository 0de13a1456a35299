package queuetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/queue"
)

func (s *suite) asEnqueued() {
	big := bytes.Repeat([]byte("0123456789abcde\n"), 20_000) // long enough for whatever a backend does with long ones
	for _, body := range []string{text, "", "no header at all", "nul \x00 and bare \r and \n", string(big)} {
		env := queue.Envelope{
			From: "me@src.test", EnvelopeID: "env<1>", Return: dsn.ReturnHeaders, UTF8: true,
			To: []queue.Recipient{{Address: `"a b"@A.test`, Notify: dsn.NotifyDelay | dsn.NotifyFailure, Original: dsn.Address{Type: "rfc822", Addr: "old@a.test"}}},
		}
		id, err := s.q.Enqueue(s.ctx, env, strings.NewReader(body))
		require.NoError(s, err)
		l := s.leaseOne()
		assert.Equal(s, id, l.ID)
		assert.Equal(s, "a.test", l.Lane)
		assert.Equal(s, env, l.Envelope)
		assert.Zero(s, l.Last)
		assert.EqualValues(s, len(body), l.Size)
		assert.Zero(s, l.Attempts)
		equalTime(s, time.Now(), l.Accepted, "accepted")
		assert.True(s, body == s.read(id), "the body is not what was enqueued")
		s.done(l)
	}
}

// asking asks for everything that an envelope can ask for.
func asking(to ...string) queue.Envelope {
	return queue.Envelope{
		From: "me@src.test", To: queue.To(to...), EnvelopeID: "env<2>", Return: dsn.ReturnFull, UTF8: true,
		Binary: true, RequireTLS: true, Anyway: true, Priority: -3, DeliverBy: deliver.DeliverBy{Time: time.Now().Add(time.Hour), Notify: true, Trace: true},
	}
}

// std: C19
func (s *suite) asked() {
	env := asking("1@a.test")
	id, err := s.q.Enqueue(s.ctx, env, strings.NewReader(text))
	require.NoError(s, err)
	s.asksFor(env, id)
	l := s.leaseOne()
	s.asks(env, l.Envelope)
	a := attempt(1)
	a.Results = []queue.AttemptResult{{Recipient: "1@a.test", Status: "4.4.2", Stage: deliver.StageDot, PossiblyDelivered: true}}
	reply := queue.Submission{Envelope: env, Body: report.Body}
	s.settle(l, queue.Settlement{Attempt: a, Reports: []queue.Submission{reply}})
	leases := s.lease(2)
	require.Len(s, leases, 2)
	for _, l := range leases {
		s.asks(env, l.Envelope)
	}
	assert.True(s, leases[0].Last.Results == nil || leases[0].Last.Results[0].PossiblyDelivered)
}

// asksFor looks whether people see what the envelope of a message asks for.
func (s *suite) asksFor(env queue.Envelope, id queue.ID) {
	s.Helper()
	d, err := s.q.Show(s.ctx, id)
	require.NoError(s, err)
	s.asks(env, d.Envelope)
	found, _, err := s.q.List(s.ctx, queue.Filter{ID: id}, "", 1)
	require.NoError(s, err)
	require.Len(s, found, 1)
	assert.Equal(s, env.RequireTLS, found[0].RequireTLS)
	assert.Equal(s, env.Priority, found[0].Priority)
	assert.True(s, env.DeliverBy.Time.Equal(found[0].DeliverBy.Time))
}

// asks compares envelopes, of which one may have been written down meanwhile.
func (s *suite) asks(want, got queue.Envelope) {
	s.Helper()
	assert.True(s, want.DeliverBy.Time.Equal(got.DeliverBy.Time), "to be delivered by %v, not %v", got.DeliverBy.Time, want.DeliverBy.Time)
	got.DeliverBy.Time = want.DeliverBy.Time
	assert.Equal(s, want, got)
}

func (s *suite) askedSurvives() {
	env := asking("1@a.test")
	id, err := s.q.Enqueue(s.ctx, env, strings.NewReader(text))
	require.NoError(s, err)
	s.reopen()
	s.asksFor(env, id)
	l := s.leaseOne()
	s.settle(l, queue.Settlement{Done: addresses(l), Reports: []queue.Submission{{Envelope: env, Body: report.Body}}})
	s.reopen()
	s.asks(env, s.leaseOne().Envelope)
}

func (s *suite) lanes() {
	s.enqueue("x@a.test", "y@b.test", "z@A.TEST", "u@bücher.test", "v@xn--bcher-kva.test", "x@a.test", "w@c.test.")
	leases := s.lease(10)
	got := map[string][]string{}
	for _, l := range leases {
		got[l.Lane] = addresses(l)
	}
	assert.Equal(s, map[string][]string{
		"a.test":             {"x@a.test", "z@A.TEST"},
		"b.test":             {"y@b.test"},
		"xn--bcher-kva.test": {"u@bücher.test", "v@xn--bcher-kva.test"},
		"c.test":             {"w@c.test."},
	}, got)
}

func (s *suite) ids() {
	seen := map[queue.ID]bool{}
	last := queue.ID("")
	for range 100 {
		id := s.enqueue("x@a.test")
		assert.False(s, seen[id], "an id is given twice")
		assert.Greater(s, id, last)
		seen[id], last = true, id
	}
}

func (s *suite) refused() {
	for _, env := range []queue.Envelope{
		{From: "me@src.test"},
		{From: "me@src.test", To: queue.To("nobody")},
		{From: "me@src.test", To: queue.To("ok@a.test", "two words@a.test")},
		{From: "me@src.test", To: queue.To("x@a..test")},
		{From: "me@src.test", To: queue.To("x@a.test\r\nRCPT TO:<y@b.test>")},
		{From: "not an address", To: queue.To("ok@a.test")},
		{From: "me@src.test", To: queue.To("ok@a.test"), Priority: 10},
		{From: "me@src.test", To: queue.To("ok@a.test"), Priority: -10},
		{From: "me@src.test", To: make([]queue.Recipient, queue.MaxRecipients+1)},
	} {
		_, err := s.q.Enqueue(s.ctx, env, strings.NewReader(text))
		var bad *queue.EnvelopeError
		require.ErrorAs(s, err, &bad)
		assert.NotEmpty(s, bad.Field)
		assert.NotEmpty(s, bad.Problem)
	}
	assert.Empty(s, s.lease(10))
	_, err := s.q.Enqueue(s.ctx, queue.Envelope{To: queue.To("x@a.test")}, strings.NewReader(text))
	assert.NoError(s, err, "the null sender is one")
}

func (s *suite) bodyFails() {
	for _, size := range []int{0, 100, 500_000} {
		body := failingReader{strings.NewReader(strings.Repeat("x\r\n", size/3)), errBroken}
		_, err := s.q.Enqueue(s.ctx, queue.Envelope{To: queue.To("x@a.test")}, body)
		assert.ErrorIs(s, err, errBroken)
	}
	assert.Empty(s, s.lease(10))
	stats, err := s.q.Stats(s.ctx)
	require.NoError(s, err)
	assert.Zero(s, stats.Messages)
}

func (s *suite) longHeader() {
	header := strings.Repeat("X-Filler: "+strings.Repeat("a", 60)+"\r\n", queue.MaxHeader/72+1)
	_, err := s.q.Enqueue(s.ctx, queue.Envelope{To: queue.To("x@a.test")}, strings.NewReader(header))
	var bad *queue.EnvelopeError
	require.ErrorAs(s, err, &bad)
	assert.Equal(s, "message", bad.Field)
	assert.Empty(s, s.lease(10))
	_, err = s.q.Enqueue(s.ctx, queue.Envelope{To: queue.To("x@a.test")}, strings.NewReader("A: b\r\n\r\n"+header))
	assert.NoError(s, err, "a body may be long")
}

func (s *suite) hops() {
	header := "Received: one\r\nRECEIVED: two\r\n\tReceived: folded\r\nX-Received: no\r\nreceived : obsolete\r\nReceived:three\n\r\nReceived: body\r\n"
	_, err := s.q.Enqueue(s.ctx, queue.Envelope{To: queue.To("x@a.test")}, strings.NewReader(header))
	require.NoError(s, err)
	assert.Equal(s, 3, s.leaseOne().Hops)
}

func (s *suite) cancelled() {
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	_, err := s.q.Enqueue(ctx, queue.Envelope{To: queue.To("x@a.test")}, strings.NewReader(text))
	assert.ErrorIs(s, err, context.Canceled)
	_, _, err = s.q.Lease(ctx, queue.LeaseRequest{Max: 1, For: time.Hour})
	assert.ErrorIs(s, err, context.Canceled)
	assert.Empty(s, s.lease(10))
}

func (s *suite) closeWhileSending() {
	for _, size := range []int{10, 500_000} { // before and after a backend begins to store the body
		r, w := io.Pipe()
		end := make(chan error)
		go func() {
			_, err := s.q.Enqueue(s.ctx, queue.Envelope{To: queue.To("x@a.test")}, r)
			end <- err
		}()
		w.Write(bytes.Repeat([]byte("x"), size))
		require.NoError(s, s.q.Close())
		w.Write([]byte("the rest"))
		w.Close()
		assert.ErrorIs(s, <-end, queue.ErrClosed)
		s.q = s.anew()
		assert.Empty(s, s.lease(10))
	}
}

// anew gives what a closed queue kept, or an empty one.
func (s *suite) anew() Queue {
	if s.backend.Reopen == nil {
		return s.backend.New(s)
	}
	return s.backend.Reopen(s, s.q)
}

func (s *suite) closeUnderWay() {
	var mu sync.Mutex
	accepted := map[queue.ID]bool{}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 1000 {
				id, err := s.q.Enqueue(s.ctx, queue.Envelope{To: queue.To("x@a.test")}, strings.NewReader(text))
				if err != nil {
					assert.ErrorIs(s, err, queue.ErrClosed)
					return
				}
				mu.Lock()
				accepted[id] = true
				enough := len(accepted) == 100
				mu.Unlock()
				if enough {
					assert.NoError(s, s.q.Close())
				}
			}
			assert.Fail(s, "mail is taken though the queue is closed")
		})
	}
	all.Wait()
	kept := s.backend.Reopen != nil
	s.q = s.anew()
	leases := s.lease(1000)
	if kept {
		assert.Len(s, leases, len(accepted))
	}
	for _, l := range leases {
		assert.True(s, accepted[l.ID], "a message is there of which nobody was told")
	}
}

func (s *suite) closed() {
	id := s.enqueue("x@a.test")
	l := s.leaseOne()
	require.NoError(s, s.q.Close())
	_, err := s.q.Enqueue(s.ctx, queue.Envelope{To: queue.To("x@a.test")}, strings.NewReader(text))
	assert.ErrorIs(s, err, queue.ErrClosed)
	_, _, err = s.q.Lease(s.ctx, queue.LeaseRequest{Max: 1, For: time.Hour})
	assert.ErrorIs(s, err, queue.ErrClosed)
	assert.ErrorIs(s, s.q.Settle(s.ctx, l, queue.Settlement{}), queue.ErrClosed)
	_, err = s.q.Open(s.ctx, id)
	assert.ErrorIs(s, err, queue.ErrClosed)
	_, _, err = s.q.List(s.ctx, queue.Filter{}, "", 10)
	assert.ErrorIs(s, err, queue.ErrClosed)
	_, err = s.q.Delete(s.ctx, queue.Filter{All: true})
	assert.ErrorIs(s, err, queue.ErrClosed)
	assert.True(s, errors.Is(s.q.Close(), queue.ErrClosed))
}
