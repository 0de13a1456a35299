package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/queue"
)

// TestPowerCut lets queues accept, settle, delete and clean as fast as they can on a disk whose power is cut at a random call,
// brings up what an honest but unkind disk has kept, and holds that against what their callers had been told. Sometimes only
// the process ends. Segments are short, so that they are begun, cleaned and removed all the time.
//
// std: Q1
func TestPowerCut(t *testing.T) {
	rounds := 25
	if testing.Short() {
		rounds = 10
	}
	var sum cutCounts
	for seed := range rounds {
		c := newPowerCut(t, uint64(seed))
		for range 4 {
			c.life(1 + c.rng.IntN(200<<c.rng.IntN(4)))
		}
		c.life(-1)
		sum.add(c.counts())
		c.end()
	}
	t.Logf("%+v", sum)
	for what, n := range map[string]int{"acknowledged": sum.acked, "settled": sum.settled, "deleted": sum.deleted, "moved": sum.moved, "undecided": sum.undecided} {
		assert.Greater(t, n, rounds/4, "the test has tested something: %s", what)
	}
}

type cutCounts struct{ acked, settled, deleted, moved, undecided int }

func (c *cutCounts) add(o cutCounts) {
	c.acked, c.settled, c.deleted = c.acked+o.acked, c.settled+o.settled, c.deleted+o.deleted
	c.moved, c.undecided = c.moved+o.moved, c.undecided+o.undecided
}

// powerCut is a disk, and what the callers of the queues on it were told in all lives.
type powerCut struct {
	testing.TB
	seed uint64
	rng  *rand.Rand
	dir  string
	disk *volatile
	errs errorCounter

	mu    sync.Mutex
	mail  map[int]*cutMail
	last  queue.ID // the greatest that was acknowledged
	moves int
}

// cutMail is one message: it goes to two lanes, and each may be tried several times.
type cutMail struct {
	acked bool
	lanes map[string]*cutLane
}

type cutLane struct {
	settling, settled   bool // begun, and acknowledged
	deleting, deleted   bool
	tries, triesAtLeast int
}

func newPowerCut(t *testing.T, seed uint64) *powerCut {
	rng := rand.New(rand.NewPCG(seed, 1))
	root := t.TempDir()
	return &powerCut{TB: t, seed: seed, rng: rng, dir: root, disk: newVolatile(rand.New(rand.NewPCG(seed, 2)), filepath.Dir(root)), mail: map[int]*cutMail{}}
}

func (c *powerCut) open() (*Queue, error) {
	return Options{MinFree: -1, Logger: slog.New(&c.errs), storage: c.disk, segmentSize: 3000}.Open(c.dir)
}

// life opens the spool, lets it work until the power is cut after some calls, and checks what is left.
func (c *powerCut) life(calls int) {
	c.disk.left = calls
	if q, err := c.open(); err == nil {
		c.work(q)
		q.Close()
	} else {
		require.ErrorIs(c, err, errCut, "seed %d", c.seed)
	}
	c.moves += c.moved()
	if c.rng.IntN(3) == 0 {
		c.disk = c.disk.kill()
	} else {
		c.disk = c.disk.cut()
	}
	q, err := c.open()
	require.NoError(c, err, "seed %d", c.seed)
	c.check(q)
	require.GreaterOrEqual(c, q.ids.Last(), c.last, "seed %d: an ID may be given twice", c.seed)
	require.NoError(c, q.Close())
	assert.Empty(c, c.errs.take(), "seed %d: an opening after a power cut is no damage", c.seed)
	if c.Failed() {
		c.FailNow()
	}
}

// end deletes what is left, while the power is cut again, whereupon nothing may be left.
func (c *powerCut) end() {
	q, err := c.open()
	require.NoError(c, err)
	_, err = q.Delete(context.Background(), queue.Filter{All: true})
	require.NoError(c, err)
	for _, m := range c.mail {
		for _, lane := range m.lanes {
			lane.deleted, lane.settled = true, false
		}
	}
	c.disk.mu.Lock()
	c.disk.left = c.rng.IntN(20) // the cleaner is at work
	c.disk.mu.Unlock()
	q.Close()
	c.disk = c.disk.cut()
	q, err = c.open()
	require.NoError(c, err)
	c.check(q)
	require.Eventually(c, func() bool {
		names, err := c.disk.list(filepath.Join(c.dir, "log"))
		return err == nil && len(names) == 1
	}, 10*time.Second, time.Millisecond, "seed %d: the log of an empty spool is one segment", c.seed)
	names, err := c.disk.list(filepath.Join(c.dir, "large"))
	require.NoError(c, err)
	require.Empty(c, names, "seed %d: bodies of nobody", c.seed)
	require.NoError(c, q.Close())
	c.disk = c.disk.cut()
	q, err = c.open()
	require.NoError(c, err)
	require.GreaterOrEqual(c, q.ids.Last(), c.last, "seed %d: an ID may be given twice", c.seed)
	require.NoError(c, q.Close())
	require.Empty(c, c.errs.take(), "seed %d", c.seed)
}

func (c *powerCut) work(q *Queue) {
	var all sync.WaitGroup
	for range 3 {
		rng := rand.New(rand.NewPCG(c.rng.Uint64(), 2))
		all.Go(func() {
			for range 40 {
				if c.send(q, rng) != nil || c.try(q, rng) != nil || c.delete(q, rng) != nil {
					return
				}
			}
		})
	}
	all.Wait()
}

func cutBody(n int) string {
	length := 10 * (n % 60)
	if n%9 == 0 {
		length = inlineMax // with the rest, more than that
	}
	return fmt.Sprintf("message %d %s", n, strings.Repeat("x", length))
}

func (c *powerCut) send(q *Queue, _ *rand.Rand) error {
	c.mu.Lock()
	n := len(c.mail)
	m := &cutMail{lanes: map[string]*cutLane{"a.test": {}, "b.test": {}}}
	c.mail[n] = m
	c.mu.Unlock()
	env := queue.Envelope{From: fmt.Sprintf("%d@src.test", n), To: queue.To("1@a.test", "1@b.test")}
	id, err := q.Enqueue(context.Background(), env, strings.NewReader(cutBody(n)))
	c.mu.Lock()
	defer c.mu.Unlock()
	m.acked = err == nil
	c.last = max(c.last, id)
	return err
}

// number tells which message it is.
func number(from string) (n int) {
	fmt.Sscanf(from, "%d@", &n)
	return n
}

// try leases an entry, and settles it with a report or puts it back.
func (c *powerCut) try(q *Queue, rng *rand.Rand) error {
	ctx := context.Background()
	leases, _, err := q.Lease(ctx, queue.LeaseRequest{Max: 1, For: time.Hour, Room: func(ask queue.Ask) queue.Grant {
		return queue.Grant{N: strings.Count(ask.Lane, "test") - strings.Count(ask.Lane, "src")} // reports stay, to be counted
	}})
	if err != nil || len(leases) == 0 {
		return err
	}
	l := leases[0]
	c.mu.Lock()
	m := c.mail[number(l.Envelope.From)]
	lane := m.lanes[l.Lane]
	lane.tries++
	done := rng.IntN(3) > 0
	lane.settling = lane.settling || done
	c.mu.Unlock()
	s := queue.Settlement{Attempt: queue.Attempt{Time: time.Now()}}
	if done {
		report := queue.Envelope{To: queue.To(l.Envelope.From)}
		s.Done = []string{l.Envelope.To[0].Address}
		s.Reports = []queue.Submission{{Envelope: report, Body: []byte("report from " + l.Lane)}}
	}
	err = q.Settle(ctx, l, s)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		lane.triesAtLeast++
		lane.settled = lane.settled || done
	case lane.deleting && errors.Is(err, queue.ErrLeaseLost):
		return nil
	}
	return err
}

// delete drops a message now and then.
func (c *powerCut) delete(q *Queue, rng *rand.Rand) error {
	c.mu.Lock()
	n := rng.IntN(len(c.mail))
	m := c.mail[n]
	drop := rng.IntN(4) == 0 && m.acked
	for _, lane := range m.lanes {
		lane.deleting = lane.deleting || drop
	}
	c.mu.Unlock()
	if !drop {
		return nil
	}
	_, err := q.Delete(context.Background(), queue.Filter{Sender: fmt.Sprintf("%d@src.test", n)})
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, lane := range m.lanes {
		lane.deleted = lane.deleted || err == nil && !lane.settled
	}
	return err
}

// check holds what is there against what was told.
func (c *powerCut) check(q *Queue) {
	entries, _, err := q.List(context.Background(), queue.Filter{}, "", 0)
	require.NoError(c, err)
	present, reports := map[string]int{}, map[string]int{}
	for _, e := range entries {
		body := readAll(c, q, e.ID)
		if e.From == "" {
			lane := strings.TrimPrefix(body, "report from ")
			reports[fmt.Sprint(number(e.To[0].Address), lane)]++
			continue
		}
		n := number(e.From)
		key := fmt.Sprint(n, e.Lane)
		present[key]++
		require.True(c, body == cutBody(n), "seed %d: the body of %d is not what was sent", c.seed, n)
		require.Equal(c, 1, present[key], "seed %d: %s is there twice", c.seed, key)
		lane := c.mail[n].lanes[e.Lane]
		require.GreaterOrEqual(c, e.Attempts, lane.triesAtLeast, "seed %d: a try of %s is forgotten", c.seed, key)
		require.LessOrEqual(c, e.Attempts, lane.tries, "seed %d: a try of %s was never made", c.seed, key)
		lane.tries, lane.triesAtLeast = e.Attempts, e.Attempts
	}
	for n, m := range c.mail {
		for name, lane := range m.lanes {
			key := fmt.Sprint(n, name)
			c.checkLane(m, lane, key, present[key] > 0, reports[key])
		}
	}
}

// moved counts the records of messages that were written anew.
func (c *powerCut) moved() (n int) {
	for path, f := range c.disk.now {
		if strings.HasSuffix(path, ".log") {
			n += bytes.Count(f.data, []byte(`,"entries":[`))
		}
	}
	return n
}

// checkLane decides what became of an entry, and says whether that was possible.
func (c *powerCut) checkLane(m *cutMail, lane *cutLane, key string, present bool, reports int) {
	switch {
	case present:
		require.Zero(c, reports, "seed %d: %s is not settled, and has a report", c.seed, key)
		require.False(c, lane.settled, "seed %d: %s was settled, and is back", c.seed, key)
		require.False(c, lane.deleted, "seed %d: %s was deleted, and is back", c.seed, key)
		lane.settling, lane.deleting, m.acked = false, false, true
	case reports > 0:
		require.Equal(c, 1, reports, "seed %d: reports of %s", c.seed, key)
		require.True(c, lane.settling || lane.settled, "seed %d: %s has a report that nobody made", c.seed, key)
		lane.settled = true
	default:
		require.False(c, lane.settled, "seed %d: the report of %s is lost", c.seed, key)
		require.False(c, m.acked && !lane.deleting && !lane.deleted, "seed %d: %s was accepted, and is lost", c.seed, key)
		lane.deleted = true
	}
}

func (c *powerCut) counts() (n cutCounts) {
	for _, m := range c.mail {
		if m.acked {
			n.acked++
		} else {
			n.undecided++
		}
		for _, lane := range m.lanes {
			if lane.settled {
				n.settled++
			}
			if lane.deleted && m.acked {
				n.deleted++
			}
		}
	}
	n.moved = c.moves
	return n
}

// errorCounter is a slog.Handler that keeps errors.
type errorCounter struct {
	mu   sync.Mutex
	errs []string
}

func (h *errorCounter) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelError }
func (h *errorCounter) WithAttrs([]slog.Attr) slog.Handler           { return h }
func (h *errorCounter) WithGroup(string) slog.Handler                { return h }

func (h *errorCounter) Handle(_ context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	text := r.Message
	r.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
	if !strings.Contains(text, errCut.Error()) {
		h.errs = append(h.errs, text)
	}
	return nil
}

func (h *errorCounter) take() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	errs := h.errs
	h.errs = nil
	return errs
}

// TestPowerCutInTheBeginning ends the process at each call of the making of a spool, makes it again, and cuts the power once
// a message is accepted.
func TestPowerCutInTheBeginning(t *testing.T) {
	for calls := 1; calls < 30; calls++ {
		c := newPowerCut(t, uint64(calls))
		c.disk.left = calls
		if q, err := c.open(); err == nil {
			q.Close()
		}
		c.disk = c.disk.kill()
		q, err := c.open()
		require.NoError(t, err)
		require.NoError(t, c.send(q, c.rng))
		require.NoError(t, q.Close())
		c.disk = c.disk.cut()
		q, err = c.open()
		require.NoError(t, err)
		c.check(q)
		require.NoError(t, q.Close())
	}
}
