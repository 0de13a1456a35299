// Package queuetest is the conformance suite of queue backends: what [queue.Queue], [queue.Inspector] and [queue.Notebook]
// promise, as tests. A backend's own test is a few lines:
//
//	func TestConformance(t *testing.T) {
//		queuetest.Run(t, queuetest.Backend{
//			New:    func(t testing.TB) queuetest.Queue { ... },            // an empty queue
//			Reopen: func(t testing.TB, q queuetest.Queue) queuetest.Queue { ... }, // after Close; nil where nothing survives it
//		})
//	}
//
// Each test runs in a bubble of testing/synctest, so that hours of waiting pass at once: a backend must tell time by
// package time.
package queuetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/queue"
)

// A Queue is what the suite tests.
type Queue interface {
	queue.Queue
	queue.Inspector
	queue.Notebook
}

// A Backend makes queues.
type Backend struct {
	// New makes an empty queue. The suite closes it.
	New func(t testing.TB) Queue
	// Reopen closes a queue, unless it is closed, and opens what it kept again. nil: the backend keeps nothing.
	Reopen func(t testing.TB, q Queue) Queue
}

// Run runs the suite as subtests of t.
func Run(t *testing.T, b Backend) {
	for _, test := range tests {
		if test.reopen && b.Reopen == nil {
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test.on(t, b) })
		})
	}
}

// A conformance is a test of some promises.
type conformance struct {
	name   string
	run    func(*suite)
	reopen bool // it needs a backend that keeps something
}

// on runs the test on a new queue.
func (c *conformance) on(t testing.TB, b Backend) {
	s := &suite{TB: t, ctx: t.Context(), backend: b, q: b.New(t)}
	defer func() { s.q.Close() }()
	c.run(s)
}

var tests = []conformance{
	{"a message is leased as it was enqueued", (*suite).asEnqueued, false},
	{"what an envelope asks for is kept", (*suite).asked, false},
	{"a message has an entry a lane", (*suite).lanes, false},
	{"a message to thousands is one message", (*suite).manyRecipients, false},
	{"ids sort by age", (*suite).ids, false},
	{"what cannot be delivered is refused", (*suite).refused, false},
	{"a body that fails leaves nothing", (*suite).bodyFails, false},
	{"a header section is bounded", (*suite).longHeader, false},
	{"received fields are counted", (*suite).hops, false},
	{"a leased entry is leased once", (*suite).leasedOnce, false},
	{"lanes are served in turn", (*suite).turns, false},
	{"in a lane higher priority goes first", (*suite).priority, false},
	{"priority does not starve a lane's others", (*suite).priorityAges, false},
	{"lanes with higher priority go first", (*suite).priorityOfLanes, false},
	{"a full lane delays no other", (*suite).room, false},
	{"a full lane is asked again", (*suite).roomAgain, false},
	{"a lane is left alone until there is room", (*suite).roomLater, false},
	{"the lanes of a site share its room", (*suite).roomOfSite, false},
	{"a waiting lane delays no other", (*suite).waitingLane, false},
	{"a lease that ends comes back and counts", (*suite).leaseEnds, false},
	{"a settlement after the lease's end is refused", (*suite).leaseLost, false},
	{"settled recipients are gone, the others wait", (*suite).settlePart, false},
	{"a settled message is gone", (*suite).settleAll, false},
	{"a lease that is put back is no attempt", (*suite).putBack, false},
	{"reports come with the settlement", (*suite).reports, false},
	{"a refused settlement enqueues no report", (*suite).noReports, false},
	{"the history is kept and bounded", (*suite).history, false},
	{"a pause keeps a lane, a wake frees it", (*suite).pause, false},
	{"a pause outlives the lane's last entry", (*suite).pauseOfEmptyLane, false},
	{"a wake makes due what is unreached", (*suite).wake, false},
	{"a settlement wakes other lanes", (*suite).wakeOthers, false},
	{"a wake does so after a settlement that could not be reached", (*suite).wakeAfterUnreached, false},
	{"a person's decision ends being unreached", (*suite).wakeAfterChange, false},
	{"a settlement can hold", (*suite).settleHold, false},
	{"hold and release", (*suite).hold, false},
	{"hold takes hold of a leased entry", (*suite).holdLeased, false},
	{"retry", (*suite).retry, false},
	{"fail", (*suite).fail, false},
	{"delete", (*suite).delete, false},
	{"delete takes a lease away", (*suite).deleteLeased, false},
	{"each change is made to what each filter chooses", (*suite).changesByQuery, false},
	{"a change of everything must say so", (*suite).noFilter, false},
	{"filters", (*suite).filters, false},
	{"list pages", (*suite).pages, false},
	{"pages of some", (*suite).pagesOfSome, false},
	{"show", (*suite).show, false},
	{"stats", (*suite).stats, false},
	{"changes are told", (*suite).changed, false},
	{"a closed queue says so", (*suite).closed, false},
	{"a slow sender does not keep a queue from closing", (*suite).closeWhileSending, false},
	{"close waits for calls under way", (*suite).closeUnderWay, false},
	{"a cancelled context changes nothing", (*suite).cancelled, false},
	{"many workers settle each entry once", (*suite).workers, false},
	{"notes are kept", (*suite).notes, false},
	{"notes end by themselves", (*suite).notesEnd, false},
	{"notes are listed by key", (*suite).notesPages, false},
	{"what is no note is refused", (*suite).notesRefused, false},
	{"notes come with the settlement", (*suite).notesSettled, false},
	{"notes that are written at once stay together", (*suite).notesAtOnce, false},
	{"a key is enqueued once", (*suite).idempotent, false},
	{"a key is remembered while its message is there", (*suite).idempotentWhileThere, false},
	{"a report needs no key", (*suite).idempotentReports, false},
	{"of those who enqueue a key at once, one does", (*suite).idempotentAtOnce, false},
	{"what is refused has used no key", (*suite).idempotentRefused, false},
	{"what an envelope asks for survives", (*suite).askedSurvives, true},
	{"mail survives", (*suite).survives, true},
	{"a lease does not survive", (*suite).leaseDoesNotSurvive, true},
	{"state survives", (*suite).stateSurvives, true},
	{"settlements and their reports survive", (*suite).settlementSurvives, true},
	{"changes by people survive", (*suite).changesSurvive, true},
	{"a wake makes due what was unreached before", (*suite).unreachedSurvives, true},
	{"what a wake made due is due after an opening", (*suite).wokenSurvives, true},
	{"ids are not given twice", (*suite).idsSurvive, true},
	{"notes survive", (*suite).notesSurvive, true},
	{"keys survive", (*suite).idempotentSurvives, true},
}

// suite is one test: a queue, and what tests do with it.
type suite struct {
	testing.TB
	ctx     context.Context
	backend Backend
	q       Queue
}

const text = "From: me@src.test\r\nTo: you@a.test\r\nSubject: x\r\n\r\nHello.\r\n"

func (s *suite) enqueue(to ...string) queue.ID {
	s.Helper()
	id, err := s.q.Enqueue(s.ctx, queue.Envelope{From: "me@src.test", To: queue.To(to...)}, strings.NewReader(text))
	require.NoError(s, err)
	return id
}

func (s *suite) lease(max int) []queue.Lease {
	s.Helper()
	leases, _, err := s.q.Lease(s.ctx, queue.LeaseRequest{Max: max, For: time.Hour})
	require.NoError(s, err)
	return leases
}

func (s *suite) leaseOne() queue.Lease {
	s.Helper()
	leases := s.lease(1)
	require.Len(s, leases, 1)
	return leases[0]
}

func (s *suite) settle(l queue.Lease, st queue.Settlement) {
	s.Helper()
	require.NoError(s, s.q.Settle(s.ctx, l, st))
}

func (s *suite) done(l queue.Lease) { s.Helper(); s.settle(l, queue.Settlement{Done: addresses(l)}) }

func (s *suite) reopen() {
	s.Helper()
	s.q = s.backend.Reopen(s, s.q)
}

func (s *suite) read(id queue.ID) string {
	s.Helper()
	r, err := s.q.Open(s.ctx, id)
	require.NoError(s, err)
	defer r.Close()
	b, err := io.ReadAll(r)
	require.NoError(s, err)
	return string(b)
}

func addresses(l queue.Lease) (to []string) {
	for _, r := range l.Envelope.To {
		to = append(to, r.Address)
	}
	return to
}

func laneNames(leases []queue.Lease) (names []string) {
	for _, l := range leases {
		names = append(names, l.Lane)
	}
	return names
}

func attempt(n int) queue.Attempt {
	return queue.Attempt{Time: time.Now(), Route: fmt.Sprint("try ", n)}
}

// failingReader gives some bytes, then an error.
type failingReader struct {
	r   io.Reader
	err error
}

func (f failingReader) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err == io.EOF {
		err = f.err
	}
	return n, err
}

var errBroken = errors.New("the sender went away")

func sorted(names []string) []string { slices.Sort(names); return names }

func equalTime(t testing.TB, want, got time.Time, what string) {
	t.Helper()
	assert.WithinDuration(t, want, got, time.Millisecond, what)
}
