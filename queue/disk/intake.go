package disk

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/sortie-mail/sortie/queue"
)

const (
	// defaultIntake is enough for 8,000 small messages that come in at once, or 512 of the longest that are held in memory.
	defaultIntake = 64 << 20
	// leastIntake lets a few of the longest grow at once.
	leastIntake = 1 << 20
)

// intakeWait is how long a message waits for memory before its sender is asked to come again: less than any client waits
// for the answer to a message (RFC 5321, section 4.5.3.2.6, has ten minutes), and a crowd that only waits is told so.
const intakeWait = 10 * time.Second

// firstPiece is what a body has of the budget before anything of it is read.
const firstPiece = 8 << 10

// An intake is the budget of memory for bodies that come in. A message asks for more as it grows, so that a client that
// sends slowly holds no more than twice what it has sent. Who is to begin leaves a quarter to those who have begun: else
// messages that hold memory and want more would keep each other waiting.
type intake struct {
	most int64 // negative is no limit

	mu      sync.Mutex
	used    int64    // guarded by mu
	growing []*claim // guarded by mu: those that have begun and wait for more, first come, first served
	fresh   []*claim // guarded by mu: those that wait to begin
}

// A claim is octets that somebody waits for.
type claim struct {
	octets int64
	ready  chan struct{} // closed when they are granted
}

func newIntake(most int64) *intake {
	switch {
	case most == 0:
		most = defaultIntake
	case most > 0:
		most = max(most, leastIntake)
	}
	return &intake{most: most}
}

// read reads at most limit octets of a body. held is what they take of the budget, which the caller gives back also where
// there is an error: one that wraps [queue.ErrFull] where there is no memory for a while.
func (in *intake) read(ctx context.Context, r io.Reader, limit int) (data []byte, held int64, err error) {
	for {
		if len(data) == cap(data) {
			more := min(max(firstPiece, cap(data)), limit-cap(data))
			if err := in.take(ctx, int64(more), held > 0); err != nil {
				return nil, held, err
			}
			held += int64(more)
			data = slices.Grow(data, more)[:len(data):int(held)]
		}
		n, err := r.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		switch {
		case err == io.EOF:
			return data, held, nil
		case err != nil || len(data) == limit:
			return data, held, err
		}
	}
}

// take waits until there is room for more octets.
func (in *intake) take(ctx context.Context, octets int64, begun bool) error {
	if in.most < 0 {
		return nil
	}
	c := in.ask(octets, begun)
	if c == nil {
		return nil
	}
	timer := time.NewTimer(intakeWait)
	defer timer.Stop()
	var err error
	select {
	case <-c.ready:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-timer.C:
		err = fmt.Errorf("%w: messages that come in take all of the %d octets of memory that Options.MaxIntake gives them", queue.ErrFull, in.most)
	}
	in.withdraw(c)
	return err
}

// ask takes octets at once where it can, and returns nil then.
func (in *intake) ask(octets int64, begun bool) *claim {
	in.mu.Lock()
	defer in.mu.Unlock()
	if begun {
		if len(in.growing) == 0 && in.used+octets <= in.most {
			in.used += octets
			return nil
		}
		c := &claim{octets, make(chan struct{})}
		in.growing = append(in.growing, c)
		return c
	}
	if len(in.fresh) == 0 && in.used+octets <= in.room() {
		in.used += octets
		return nil
	}
	c := &claim{octets, make(chan struct{})}
	in.fresh = append(in.fresh, c)
	return c
}

// room is how much may be in use for another message to begin.
func (in *intake) room() int64 { return in.most - in.most/4 }

// admit grants what there is room for, with mu held.
func (in *intake) admit() {
	in.growing = in.grant(in.growing, in.most)
	in.fresh = in.grant(in.fresh, in.room())
}

// grant gives those who wait what they asked for, as long as no more than most octets are in use.
func (in *intake) grant(waiting []*claim, most int64) []*claim {
	for len(waiting) > 0 && in.used+waiting[0].octets <= most {
		in.used += waiting[0].octets
		close(waiting[0].ready)
		waiting[0] = nil
		waiting = waiting[1:]
	}
	return waiting
}

// withdraw takes back what is not waited for any more, or was granted just now.
func (in *intake) withdraw(c *claim) {
	in.mu.Lock()
	defer in.mu.Unlock()
	select {
	case <-c.ready:
		in.used -= c.octets
	default:
		is := func(other *claim) bool { return other == c }
		in.growing, in.fresh = slices.DeleteFunc(in.growing, is), slices.DeleteFunc(in.fresh, is)
	}
	in.admit()
}

// give returns octets.
func (in *intake) give(octets int64) {
	if in.most < 0 || octets == 0 {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.used -= octets
	in.admit()
}
