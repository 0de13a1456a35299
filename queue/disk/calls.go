package disk

import (
	"context"
	"sync"

	"github.com/sortie-mail/sortie/queue"
)

// calls are the calls of a queue that are under way. The zero value is ready.
type calls struct {
	mu     sync.Mutex
	closed bool           // guarded by mu
	under  sync.WaitGroup // to which nothing is added once closed is set
}

// enter begins a call; leave ends it.
func (q *Queue) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	q.calls.mu.Lock()
	defer q.calls.mu.Unlock()
	if q.calls.closed {
		return queue.ErrClosed
	}
	q.calls.under.Add(1)
	return nil
}

func (q *Queue) leave() { q.calls.under.Done() }

// close lets no more calls begin, and waits for those under way. It reports false where that was done before.
func (c *calls) close() bool {
	c.mu.Lock()
	before := c.closed
	c.closed = true
	c.mu.Unlock()
	c.under.Wait()
	return !before
}
