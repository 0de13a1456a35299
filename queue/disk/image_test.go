package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/queue"
)

// newMemoryDisk makes a disk in memory for a spool in a folder, which is there for its lock alone.
func newMemoryDisk(t testing.TB) (*volatile, string) {
	dir := t.TempDir()
	return newVolatile(rand.New(rand.NewPCG(1, 1)), filepath.Dir(dir)), dir
}

// snapshot copies a disk as the next process finds it after the end of the last one.
func (v *volatile) snapshot() *volatile {
	v.mu.Lock()
	defer v.mu.Unlock()
	c := &volatile{rng: v.rng, root: v.root, left: -1, now: map[string]*inode{}, durable: map[string]*inode{}}
	for path, n := range v.now {
		data := bytes.Clone(n.data)
		n = &inode{folder: n.folder, data: data, synced: data}
		c.now[path], c.durable[path] = n, n
	}
	return c
}

// newest is the newest segment of a disk.
func (v *volatile) newest(t testing.TB, dir string) *inode {
	names, err := v.list(filepath.Join(dir, "log"))
	require.NoError(t, err)
	names = slices.DeleteFunc(names, func(name string) bool { return filepath.Ext(name) != ".log" })
	return v.now[filepath.Join(dir, "log", slices.Max(names))]
}

// openOn opens the spool of a disk in memory.
func openOn(s storage, dir string, segment int64) (*Queue, error) {
	return Options{MinFree: -1, Logger: slog.New(slog.DiscardHandler), storage: s, segmentSize: segment}.Open(dir)
}

// stateOf is what a queue holds, by ID and lane: what must be the same in the next process.
func stateOf(t testing.TB, q *Queue) map[string]string {
	ctx := context.Background()
	entries, _, err := q.List(ctx, queue.Filter{}, "", 0)
	require.NoError(t, err)
	state := map[string]string{}
	for _, e := range entries {
		if e.State == queue.Leased { // no lease survives
			e.State = queue.Waiting
		}
		key := fmt.Sprint(e.ID, " ", e.Lane)
		require.NotContains(t, state, key, "an entry is there twice")
		state[key] = fmt.Sprint(e.From, " ", e.To, " ", e.State, " ", e.Why, " ", e.Attempts, " ", e.Last.Route, " ", bodyOf(t, q, e.ID))
	}
	return state
}

// bodyOf tells a message's bytes by their checksum. What has changed on disk is told from what was not.
func bodyOf(t testing.TB, q *Queue, id queue.ID) string {
	r, err := q.Open(context.Background(), id)
	var body []byte
	if err == nil {
		body, err = io.ReadAll(r)
		r.Close()
	}
	if damaged := (*DamagedError)(nil); errors.As(err, &damaged) {
		return "damaged"
	}
	require.NoError(t, err)
	return sumOf(string(body))
}

// A script does one thing after the other with a queue, always the same ones.
type script struct {
	testing.TB
	q     *Queue
	steps int
	ids   []queue.ID // of what was accepted
}

// step does the next thing. What it does is one change of the queue or, with an error, none.
func (s *script) step() error {
	ctx := context.Background()
	i := s.steps
	s.steps++
	switch i % 10 {
	case 3, 7:
		return s.settle(queue.Settlement{Attempt: queue.Attempt{Time: time.Now(), Route: fmt.Sprint("try ", i)}, Next: time.Now().Add(time.Hour)})
	case 4, 8:
		report := queue.Submission{Envelope: queue.Envelope{To: queue.To("me@src.test")}, Body: fmt.Appendf(nil, "report %d", i)}
		return s.settle(queue.Settlement{Done: []string{"1@a.test", "1@b.test"}, Reports: []queue.Submission{report}})
	case 5:
		_, err := s.q.Hold(ctx, queue.Filter{Lane: "a.test"}, "why")
		return err
	case 6:
		_, err := s.q.Release(ctx, queue.Filter{Lane: "a.test"})
		return err
	case 9:
		if len(s.ids) < 3 {
			return nil
		}
		_, err := s.q.Delete(ctx, queue.Filter{ID: s.ids[len(s.ids)-2]})
		return err
	}
	body := fmt.Sprintf("message %d %s", i, strings.Repeat("x", 37*(i%7)))
	if i%20 == 1 {
		body += strings.Repeat("y", inlineMax) // a file of its own
	}
	id, err := s.q.Enqueue(ctx, queue.Envelope{From: "me@src.test", To: queue.To("1@a.test", "1@b.test")}, strings.NewReader(body))
	if err == nil {
		s.ids = append(s.ids, id)
	}
	return err
}

// settle settles what is due first, if anything is.
func (s *script) settle(st queue.Settlement) error {
	ctx := context.Background()
	leases, _, err := s.q.Lease(ctx, queue.LeaseRequest{Max: 1, For: time.Hour, Room: func(a queue.Ask) queue.Grant {
		return queue.Grant{N: strings.Count(a.Lane, "test") - strings.Count(a.Lane, "src")}
	}})
	if err != nil || len(leases) == 0 {
		return err
	}
	return s.q.Settle(ctx, leases[0], st)
}
