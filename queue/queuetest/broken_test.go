package queuetest

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/disk"
	"github.com/sortie-mail/sortie/queue/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A backend that breaks a promise fails the suite, and the tests that say so are those that one would look at.
func TestBroken(t *testing.T) {
	needed := map[string]bool{}
	for i := range breakages {
		br := &breakages[i]
		t.Run(br.name, func(t *testing.T) {
			failed := failures(t, br.backend(), br.suite())
			for _, name := range br.caught {
				needed[name] = true
				assert.Contains(t, failed, name)
			}
		})
	}
	for _, test := range tests { // a test that nothing can fail proves nothing
		assert.True(t, needed[test.name], "no broken backend is known to fail %q: name it in one of the breakages", test.name)
	}
}

// What the broken backends have in common breaks nothing.
func TestUnbroken(t *testing.T) {
	for _, kept := range []bool{false, true} {
		whole := breakage{kept: kept}
		all := slices.DeleteFunc(slices.Clone(tests), func(c conformance) bool { return c.reopen != kept })
		assert.Empty(t, failures(t, whole.backend(), all))
	}
}

// failures runs tests, and gives those that fail, each with why.
func failures(t *testing.T, b Backend, tests []conformance) map[string]string {
	failed := map[string]string{}
	for _, test := range tests {
		synctest.Test(t, func(t *testing.T) {
			rec := &recorder{TB: t}
			ended := make(chan struct{})
			go func() { // which FailNow ends
				defer close(ended)
				defer func() {
					if p := recover(); p != nil {
						rec.Errorf("panic: %v", p)
					}
				}()
				test.on(rec, b)
			}()
			<-ended
			if rec.why != "" {
				failed[test.name] = rec.why
			}
		})
	}
	return failed
}

// A recorder fails in place of the test that runs it.
type recorder struct {
	testing.TB
	mu  sync.Mutex
	why string // guarded by mu: the first failure
}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.why == "" {
		r.why = fmt.Sprintf(format, args...)
	}
}

func (r *recorder) FailNow() {
	r.Errorf("failed")
	runtime.Goexit()
}

// A breakage is a backend that keeps all promises but one.
type breakage struct {
	name   string
	caught []string        // tests that must fail; others may
	breaks func(b *broken) // makes a good queue such a one

	kept     bool                                   // what it holds is kept, and opened again
	folder   func(t testing.TB, old *broken) string // where from, if not from where it was
	reopened func(old, now *broken)                 // is called then
}

// suite are the tests that must fail.
func (br *breakage) suite() (some []conformance) {
	for _, test := range tests {
		if slices.Contains(br.caught, test.name) {
			some = append(some, test)
		}
	}
	return some
}

// backend makes such queues: in memory, or on disk where they are opened again.
func (br *breakage) backend() Backend {
	if !br.kept {
		return Backend{New: func(testing.TB) Queue { return br.wrap(memory.New(), "") }}
	}
	open := func(t testing.TB, dir string) *broken {
		q, err := disk.Open(dir)
		require.NoError(t, err)
		return br.wrap(q, dir)
	}
	return Backend{
		New: func(t testing.TB) Queue { return open(t, t.TempDir()) },
		Reopen: func(t testing.TB, q Queue) Queue {
			old := q.(*broken)
			_ = old.Queue.Close()
			dir := old.dir
			if br.folder != nil {
				dir = br.folder(t, old)
			}
			now := open(t, dir)
			if br.reopened != nil {
				br.reopened(old, now)
			}
			return now
		},
	}
}

func (br *breakage) wrap(q Queue, dir string) *broken {
	b := &broken{
		Queue: q, dir: dir,
		enqueue: q.Enqueue, lease: q.Lease, settle: q.Settle, open: q.Open, changed: q.Changed, close: q.Close,
		list: q.List, show: q.Show, stats: q.Stats,
		note: q.Note, hold: q.Hold, release: q.Release, retry: q.Retry, fail: q.Fail, remove: q.Delete,
	}
	if br.breaks != nil {
		br.breaks(b)
	}
	return b
}

// A broken queue does what its functions say, which are those of the good one unless a breakage puts others in their place.
type broken struct {
	Queue // the good one
	dir   string

	saved  string        // a copy of dir
	leased []queue.Lease // all that were given out

	enqueue func(context.Context, queue.Envelope, io.Reader) (queue.ID, error)
	lease   func(context.Context, queue.LeaseRequest) ([]queue.Lease, time.Time, error)
	settle  func(context.Context, queue.Lease, queue.Settlement) error
	open    func(context.Context, queue.ID) (io.ReadCloser, error)
	changed func() <-chan struct{}
	close   func() error
	note    func(context.Context, ...queue.Note) error

	list                   func(ctx context.Context, f queue.Filter, cursor string, limit int) ([]queue.Info, string, error)
	show                   func(context.Context, queue.ID) (queue.Detail, error)
	stats                  func(context.Context) (queue.Stats, error)
	hold, fail             func(ctx context.Context, f queue.Filter, why string) (int, error)
	release, retry, remove func(context.Context, queue.Filter) (int, error)
}

func (b *broken) Enqueue(ctx context.Context, env queue.Envelope, body io.Reader) (queue.ID, error) {
	return b.enqueue(ctx, env, body)
}

func (b *broken) Lease(ctx context.Context, req queue.LeaseRequest) ([]queue.Lease, time.Time, error) {
	return b.lease(ctx, req)
}

func (b *broken) Settle(ctx context.Context, l queue.Lease, s queue.Settlement) error {
	return b.settle(ctx, l, s)
}

func (b *broken) Open(ctx context.Context, id queue.ID) (io.ReadCloser, error) {
	return b.open(ctx, id)
}

func (b *broken) Changed() <-chan struct{} { return b.changed() }

func (b *broken) Close() error { return b.close() }

func (b *broken) Note(ctx context.Context, notes ...queue.Note) error { return b.note(ctx, notes...) }

func (b *broken) List(ctx context.Context, f queue.Filter, cursor string, limit int) ([]queue.Info, string, error) {
	return b.list(ctx, f, cursor, limit)
}

func (b *broken) Show(ctx context.Context, id queue.ID) (queue.Detail, error) { return b.show(ctx, id) }

func (b *broken) Stats(ctx context.Context) (queue.Stats, error) { return b.stats(ctx) }

func (b *broken) Hold(ctx context.Context, f queue.Filter, why string) (int, error) {
	return b.hold(ctx, f, why)
}

func (b *broken) Release(ctx context.Context, f queue.Filter) (int, error) { return b.release(ctx, f) }

func (b *broken) Retry(ctx context.Context, f queue.Filter) (int, error) { return b.retry(ctx, f) }

func (b *broken) Fail(ctx context.Context, f queue.Filter, why string) (int, error) {
	return b.fail(ctx, f, why)
}

func (b *broken) Delete(ctx context.Context, f queue.Filter) (int, error) { return b.remove(ctx, f) }
