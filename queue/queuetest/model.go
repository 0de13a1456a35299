package queuetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sortie-mail/sortie/queue"
)

// RunModel holds a backend against a simple model over random operations, closings and openings between them.
func RunModel(t *testing.T, b Backend) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(noDeadline{t}, func(r *rapid.T) {
			m := &model{T: r, tb: t, backend: b, q: b.New(t), entries: map[string]*modelEntry{}, known: newModelNotes()}
			defer func() { m.q.Close() }()
			r.Repeat(map[string]func(*rapid.T){
				"enqueue": m.enqueue, "lease": m.lease, "settle": m.settle, "sleep": m.sleep,
				"change": m.change, "note": m.note, "reopen": m.reopen, "": m.compare,
			})
		})
	})
}

// noDeadline hides that t has a Deadline, which must not be asked for in a bubble. For rapid the time is the
// bubble's: the operations sleep for seconds, so that all of a check passes well within the day that it allows itself.
type noDeadline struct{ testing.TB }

// model is what a queue should be like.
type model struct {
	*rapid.T
	tb      testing.TB
	backend Backend
	q       Queue
	entries map[string]*modelEntry
	leases  []queue.Lease // given out, perhaps ended since
	reports int
	known   modelNotes
}

type modelEntry struct {
	id       queue.ID
	lane     string
	to       []string
	due      time.Time
	until    time.Time // of the lease; the zero time is none
	token    uint64
	held     bool
	fail     string
	attempts int

	unreached bool
	slept     time.Time // when it was due before a wake; the zero time is no wake
}

// dueAt makes it due because a person says so.
func (e *modelEntry) dueAt(t time.Time) { e.due, e.unreached, e.slept = t, false, time.Time{} }

func (e *modelEntry) key() string { return string(e.id) + " " + e.lane }

func (e *modelEntry) state() queue.State {
	switch {
	case !e.until.IsZero():
		return queue.Leased
	case e.held:
		return queue.Held
	}
	return queue.Waiting
}

var modelLanes = []string{"a.test", "b.test", "c.test"}

func (m *model) enqueue(r *rapid.T) {
	var to []string
	for i, lane := range modelLanes {
		for n := range rapid.IntRange(0, 2).Draw(r, "recipients of "+lane) {
			to = append(to, fmt.Sprintf("%d%d@%s", i, n, lane))
		}
	}
	key := rapid.SampledFrom([]string{"", "", "1", "2", "3"}).Draw(r, "key")
	id, isNew, err := m.enqueueKeyed(queue.Envelope{From: "me@src.test", To: queue.To(to...), Key: key})
	if len(to) == 0 {
		require.Error(m, err)
		return
	}
	if require.NoError(m, err); !isNew {
		return
	}
	for _, lane := range modelLanes {
		e := &modelEntry{id: id, lane: lane, due: time.Now()}
		for _, address := range to {
			if strings.HasSuffix(address, lane) {
				e.to = append(e.to, address)
			}
		}
		if len(e.to) > 0 {
			m.entries[e.key()] = e
		}
	}
}

// expire ends leases as time has passed.
func (m *model) expire() {
	for _, e := range m.entries {
		if !e.until.IsZero() && !e.until.After(time.Now()) {
			e.until, e.token = time.Time{}, 0
			e.attempts++
		}
	}
}

func (m *model) lease(r *rapid.T) {
	m.expire()
	most := rapid.IntRange(1, 4).Draw(r, "max")
	due := 0
	for _, e := range m.entries {
		if e.state() == queue.Waiting && !e.due.After(time.Now()) {
			due++
		}
	}
	leases, _, err := m.q.Lease(m.tb.Context(), queue.LeaseRequest{Max: most, For: time.Minute, Room: noReports})
	require.NoError(m, err)
	require.Len(m, leases, min(most, due))
	for _, l := range leases {
		e := m.entries[string(l.ID)+" "+l.Lane]
		require.NotNil(m, e, "an entry that is settled is leased")
		require.Equal(m, queue.Waiting, e.state())
		require.False(m, e.due.After(time.Now()), "leased before its time")
		require.Equal(m, e.attempts, l.Attempts)
		require.Equal(m, e.fail, l.FailWhy)
		require.Equal(m, e.to, addresses(l))
		e.until, e.token = l.Until, l.Token
		m.leases = append(m.leases, l)
	}
}

// noReports leaves the reports where they are, to be counted.
func noReports(ask queue.Ask) queue.Grant {
	if ask.Lane == "src.test" {
		return queue.Grant{}
	}
	return queue.Grant{N: 1}
}

func (m *model) settle(r *rapid.T) {
	if len(m.leases) == 0 {
		r.Skip("no lease")
	}
	i := rapid.IntRange(0, len(m.leases)-1).Draw(r, "lease")
	l := m.leases[i]
	m.leases = slices.Delete(m.leases, i, i+1)
	s := queue.Settlement{Attempt: attempt(1), Next: time.Now().Add(time.Duration(rapid.IntRange(0, 90).Draw(r, "wait")) * time.Second)}
	s.Done = addresses(l)[rapid.IntRange(0, len(l.Envelope.To)).Draw(r, "not done"):]
	if rapid.Bool().Draw(r, "report") {
		s.Reports = []queue.Submission{report}
	}
	s.Unreached = rapid.Bool().Draw(r, "unreached")
	s.Wake = rapid.Bool().Draw(r, "wake")
	s.Notes = drawNotes(r)
	e := m.entries[string(l.ID)+" "+l.Lane]
	err := m.q.Settle(m.tb.Context(), l, s)
	if e == nil || e.token != l.Token {
		require.ErrorIs(m, err, queue.ErrLeaseLost)
		return
	}
	if err != nil { // the lease has ended, and the queue has noticed
		require.ErrorIs(m, err, queue.ErrLeaseLost)
		require.False(m, e.until.After(time.Now()))
		return
	}
	m.settled(e, s)
}

func (m *model) settled(e *modelEntry, s queue.Settlement) {
	e.to = slices.DeleteFunc(e.to, func(a string) bool { return slices.Contains(s.Done, a) })
	e.until, e.token = time.Time{}, 0
	e.dueAt(s.Next)
	e.unreached = s.Unreached
	e.attempts++
	if len(e.to) == 0 {
		delete(m.entries, e.key())
	}
	if len(s.Reports) > 0 {
		m.reports++
	}
	m.known.write(s.Notes)
	if s.Wake {
		m.wake(e.lane)
	}
}

func (m *model) wake(lane string) {
	for _, e := range m.entries {
		if e.lane != lane || !e.unreached || e.state() != queue.Waiting {
			continue
		}
		e.unreached = false
		if now := time.Now(); e.due.After(now) {
			e.due, e.slept = now, e.due
		}
	}
}

func (m *model) sleep(r *rapid.T) {
	time.Sleep(time.Duration(rapid.IntRange(1, 30).Draw(r, "seconds")) * time.Second)
}

func (m *model) change(r *rapid.T) {
	_, _, err := m.q.Lease(m.tb.Context(), queue.LeaseRequest{Max: 0, For: time.Minute}) // both notice leases that ended
	require.NoError(m, err)
	m.expire()
	f := queue.Filter{Lane: rapid.SampledFrom(modelLanes).Draw(r, "lane")}
	op := rapid.SampledFrom([]string{"hold", "release", "retry", "fail", "delete"}).Draw(r, "op")
	want := 0
	for _, e := range m.entries {
		if e.lane == f.Lane && e.apply(op) {
			want++
			if op == "delete" {
				delete(m.entries, e.key())
			}
		}
	}
	got := 0
	switch ctx := m.tb.Context(); op {
	case "hold":
		got, err = m.q.Hold(ctx, f, "why")
	case "release":
		got, err = m.q.Release(ctx, f)
	case "retry":
		got, err = m.q.Retry(ctx, f)
	case "fail":
		got, err = m.q.Fail(ctx, f, "why")
	case "delete":
		got, err = m.q.Delete(ctx, f)
	}
	require.NoError(m, err)
	require.Equal(m, want, got, op)
}

// apply makes a change and reports whether it is one.
func (e *modelEntry) apply(op string) bool {
	leased := !e.until.IsZero()
	switch op {
	case "hold":
		e.held, e.fail = true, ""
	case "release":
		if !e.held {
			return false
		}
		e.held = false
		e.dueAt(time.Now())
	case "retry":
		if e.held || leased {
			return false
		}
		e.dueAt(time.Now())
	case "fail":
		if leased {
			return false
		}
		e.held, e.fail = false, "why"
		e.dueAt(time.Now())
	}
	return true
}

func (m *model) reopen(r *rapid.T) {
	if m.backend.Reopen == nil {
		r.Skip("nothing survives")
	}
	_, _, err := m.q.Lease(m.tb.Context(), queue.LeaseRequest{Max: 0, For: time.Minute})
	require.NoError(m, err)
	m.expire()
	m.q = m.backend.Reopen(m.tb, m.q)
	for _, e := range m.entries {
		if e.token != 0 { // a lease does not survive
			e.until, e.token = time.Time{}, 0
		}
	}
	m.forgetWakes()
}

// forgetWakes lets the queue forget that a wake made an entry due, or not: it was a hint.
func (m *model) forgetWakes() {
	entries, _, err := m.q.List(m.tb.Context(), queue.Filter{}, "", 0)
	require.NoError(m, err)
	for _, got := range entries {
		e := m.entries[string(got.ID)+" "+got.Lane]
		if e != nil && got.Due.Equal(e.slept) {
			e.due, e.unreached = e.slept, true
		}
	}
}

// compare holds everything that can be seen against the model.
func (m *model) compare(*rapid.T) {
	entries, _, err := m.q.List(m.tb.Context(), queue.Filter{}, "", 0)
	require.NoError(m, err)
	reports, seen := 0, 0
	for _, got := range entries {
		if got.From == "" {
			reports++
			continue
		}
		seen++
		e := m.entries[string(got.ID)+" "+got.Lane]
		require.NotNil(m, e, "%s %s should be gone", got.ID, got.Lane)
		if !e.until.IsZero() && !e.until.After(time.Now()) {
			continue // its lease has ended; the queue notices at the next Lease
		}
		require.Equal(m, e.state(), got.State)
		require.Equal(m, e.attempts, got.Attempts)
		if got.State == queue.Waiting {
			require.True(m, e.due.Equal(got.Due), "due at %v, not %v", got.Due, e.due)
		}
	}
	require.Equal(m, len(m.entries), seen, "entries are lost")
	require.Equal(m, m.reports, reports, "reports")
	m.compareNotes()
}
