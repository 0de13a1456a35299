package deliver

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"syscall"
)

// A budget bounds the connections that are open: those in use, idle ones, and those that are being made. Where it is used up,
// attempts wait for their turn, and idle connections make room. Its zero value is no bound.
type budget struct {
	max int // 0 is no bound

	mu      sync.Mutex
	used    int             // guarded by mu
	waiting []chan struct{} // guarded by mu: closed when it is the attempt's turn; first come, first served
}

// wait takes a place for a connection. An attempt that waits makes an idle connection end by makeRoom. It fails where ctx ends.
func (b *budget) wait(ctx context.Context, makeRoom func()) *Error {
	turn := b.ask()
	if turn == nil {
		return nil
	}
	makeRoom()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	b.withdraw(turn)
	return tempErr(StageConnect, "4.3.0", "all %d connections that may be open at once are in use: %w", b.max, context.Cause(ctx)).shortage()
}

// ask takes a place, and returns nil, or gives what to wait for.
func (b *budget) ask() (turn chan struct{}) {
	if b.tryTake() {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	turn = make(chan struct{})
	b.waiting = append(b.waiting, turn)
	b.admit()
	return turn
}

// tryTake takes a place where there is one now.
func (b *budget) tryTake() bool {
	if b.max <= 0 {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used >= b.max || len(b.waiting) > 0 {
		return false
	}
	b.used++
	return true
}

// give gives places back.
func (b *budget) give(n int) {
	if b.max <= 0 || n == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	b.admit()
}

// admit lets in who waits, with mu held.
func (b *budget) admit() {
	for len(b.waiting) > 0 && b.used < b.max {
		close(b.waiting[0])
		b.waiting[0] = nil
		b.waiting = b.waiting[1:]
		b.used++
	}
}

// withdraw leaves the queue, or the place where the turn has just come.
func (b *budget) withdraw(turn chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.Index(b.waiting, turn); i >= 0 {
		b.waiting = slices.Delete(b.waiting, i, i+1)
		return
	}
	b.used--
	b.admit()
}

// crowded reports whether attempts wait.
func (b *budget) crowded() bool {
	if b.max <= 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.waiting) > 0
}

// makeRoom ends the session that has been idle for longest.
func (p *pool) makeRoom() {
	p.mu.Lock()
	defer p.mu.Unlock()
	var oldest *session
	for _, top := range p.idle {
		for s := top; s != nil; s = s.below {
			if oldest == nil || s.rested.Before(oldest.rested) {
				oldest = s
			}
		}
	}
	if oldest != nil && p.remove(oldest) {
		oldest.timer.Stop()
		p.leave(oldest)
	}
}

// isOurs reports an error before there was a connection, or one with the message, that is a shortage.
func (e *Error) isOurs() bool {
	early := e.Stage == StageRoute || e.Stage == StageConnect || e.local
	return early && !e.PossiblyDelivered && isShortage(e.Err)
}

// isShortage reports that this machine is short of something that each connection needs: files, memory, ports. Nobody was
// asked, and nothing is known of who would have been.
func isShortage(err error) bool {
	for _, short := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, short) {
			return true
		}
	}
	var call *os.SyscallError // bind says the same of a source address that is not ours
	return errors.As(err, &call) && call.Syscall == "connect" && errors.Is(err, syscall.EADDRNOTAVAIL)
}
