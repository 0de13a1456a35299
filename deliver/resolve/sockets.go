package resolve

import (
	"context"
	"errors"
	"sync"
	"syscall"
)

// sockets bounds the questions that are under way, each of which has a socket of its own. Its zero value is ready.
type sockets struct {
	once  sync.Once
	taken chan struct{} // has an element for each
}

// take takes one of most sockets; give must follow. Those who wait are served in the order in which they came.
func (s *sockets) take(ctx context.Context, most int) error {
	s.once.Do(func() { s.taken = make(chan struct{}, most) })
	select {
	case s.taken <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *sockets) give() { <-s.taken }

// isShortage reports that this machine has no more sockets, files or ports: no server is to blame.
func isShortage(err error) bool {
	for _, short := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, short) {
			return true
		}
	}
	return false
}
