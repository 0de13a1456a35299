package deliver

import (
	"context"
	"net"
	"time"
)

// A race connects to several addresses of one host: the next is begun when one has failed, and when the last one begun has
// not answered for a while, beside it (RFC 8305, section 5). The first connection wins. Only connecting is raced: a host
// that accepted is not asked twice.
type race struct {
	dial   func(ctx context.Context, i int) (net.Conn, error) // connects to address i; ends when ctx does
	failed func(dialed) (goOn bool)                           // is told of what came to nothing, in the order in which it did
	delay  time.Duration                                      // negative: one at a time
	aside  func(func())                                       // runs what nobody waits for
	budget *budget                                            // of which the caller has one place, which is also the winner's

	ended   chan dialed
	begun   int
	running int
	places  int // of the budget
}

// dialed is what became of one address.
type dialed struct {
	i    int
	conn net.Conn
	err  error
	took time.Duration
}

// run connects to the first n addresses. It reports false where there is no connection; failed has been told why.
func (r *race) run(ctx context.Context, n int) (won dialed, ok bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // of those that lost
	r.ended, r.places = make(chan dialed, n), 1
	timer := time.NewTimer(r.delay)
	defer timer.Stop()
	late := timer.C
	if r.delay < 0 {
		late = nil
	}
	for goOn := true; ; {
		if goOn && r.begun < n && ctx.Err() == nil {
			if r.hasPlace() {
				r.begin(ctx)
			}
			timer.Reset(r.delay)
		}
		if r.running == 0 {
			r.budget.give(r.places - 1)
			return dialed{}, false
		}
		select {
		case end := <-r.ended:
			r.running--
			if end.err == nil {
				r.leave()
				return end, true
			}
			goOn = r.failed(end) && goOn
		case <-late:
		}
	}
}

// hasPlace reports whether another connection may be made, beside those that are. It does not wait for its turn.
func (r *race) hasPlace() bool {
	if r.running == r.places && r.budget.tryTake() {
		r.places++
	}
	return r.running < r.places
}

func (r *race) begin(ctx context.Context) {
	i, start := r.begun, time.Now()
	r.begun++
	r.running++
	go func() {
		conn, err := r.dial(ctx, i)
		r.ended <- dialed{i, conn, err, time.Since(start)}
	}()
}

// leave closes what connects all the same after another has won.
func (r *race) leave() {
	r.budget.give(r.places - r.running - 1)
	if r.running == 0 {
		return
	}
	ended, running, budget := r.ended, r.running, r.budget
	r.aside(func() {
		for range running {
			if end := <-ended; end.err == nil {
				end.conn.Close()
			}
			budget.give(1)
		}
	})
}
