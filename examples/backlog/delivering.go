package main

// The part of the child that delivers: a Runner with a sink in memory for the whole world.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/route"
)

// Pace is how a Runner delivers.
type Pace struct {
	Lane int           // attempts at once in one lane
	Wait time.Duration // how long the far end takes for a message
}

// Run starts a Runner, in place of the one that runs.
func (s *Spool) Run(p Pace, _ *None) error {
	if err := s.Stop(None{}, nil); err != nil {
		return err
	}
	s.sink.wait.Store(int64(p.Wait))
	s.runner = &queue.Runner{Queue: s.q, Deliverer: &s.sink, Hostname: "relay.test", LaneConcurrency: p.Lane}
	s.ended = make(chan error, 1)
	go func() { s.ended <- s.runner.Run(context.Background()) }()
	return nil
}

// Stop ends the Runner.
func (s *Spool) Stop(None, *None) error {
	if s.runner == nil {
		return nil
	}
	err := s.runner.Shutdown(context.Background())
	s.runner = nil
	return errors.Join(err, <-s.ended)
}

// Free enqueues a message for the lane of message 0, whose delivery makes the lane's other mail due.
func (s *Spool) Free(None, *None) error {
	_, err := s.q.Enqueue(context.Background(), envelope(0, "d0.test"), bytes.NewReader(message(1000)))
	return err
}

// Drained is what was delivered in which time.
type Drained struct {
	N    int64
	Time time.Duration
	Left int // messages in the queue
}

// Drain watches the Runner deliver until the queue is empty, at most so long, and not for a minute in which nothing moves.
func (s *Spool) Drain(most time.Duration, d *Drained) error {
	start, before := time.Now(), s.sink.taken.Load()
	for moved := start; time.Since(start) < most && time.Since(moved) < time.Minute; time.Sleep(10 * time.Millisecond) {
		stats, err := s.q.Stats(context.Background())
		if err != nil {
			return err
		}
		if n := s.sink.taken.Load() - before; n != d.N {
			d.N, moved = n, time.Now()
		}
		d.Time, d.Left = time.Since(start), stats.Messages
		s.done.Store(d.N)
		if d.Left == 0 {
			break
		}
	}
	return nil
}

// Arrivals is mail for other lanes: a message each, one after the other.
type Arrivals struct {
	N     int
	Every time.Duration
	Name  string // tells these from others
}

// Delays is how long after its acceptance the delivery of a message began.
type Delays struct {
	Median, Max time.Duration
	Missing     int // messages whose delivery did not begin within a minute
}

// Arrive enqueues messages for other lanes, and tells how soon their deliveries began.
func (s *Spool) Arrive(a Arrivals, d *Delays) error {
	accepted := map[string]time.Time{}
	tick := time.NewTicker(a.Every)
	defer tick.Stop()
	for i := range a.N {
		env := envelope(i, fmt.Sprintf("%s%d.test", a.Name, i))
		s.sink.expect(env.To[0].Address)
		if _, err := s.q.Enqueue(context.Background(), env, bytes.NewReader(message(4096))); err != nil {
			return err
		}
		accepted[env.To[0].Address] = time.Now()
		<-tick.C
	}
	begun := s.sink.expected(time.Minute)
	delays := make([]time.Duration, 0, a.N)
	for to, at := range accepted {
		if begun[to].IsZero() {
			d.Missing++
			continue
		}
		delays = append(delays, max(begun[to].Sub(at), 0))
	}
	if len(delays) > 0 {
		slices.Sort(delays)
		d.Median, d.Max = delays[len(delays)/2], delays[len(delays)-1]
	}
	return nil
}

// A sink is a deliverer that takes everything after a while, and counts. The zero value is ready.
type sink struct {
	wait  atomic.Int64 // how long a delivery takes, in nanoseconds
	taken atomic.Int64

	mu    sync.Mutex
	begun map[string]time.Time // guarded by mu: when the delivery to a recipient began that somebody waits for; zero is not yet
}

// Deliver implements [queue.Deliverer]. The message is read, as it would be to be sent.
func (s *sink) Deliver(ctx context.Context, r route.Route, m *deliver.Message) []deliver.Outcome {
	s.begin(m.To[0].Address)
	o := deliver.Outcome{Result: deliver.Delivered, Status: "2.0.0", Stage: deliver.StageDot, Route: r}
	if err := s.take(ctx, m); err != nil {
		o.Result, o.Status, o.Detail = deliver.TempFail, "4.4.2", err.Error()
	} else {
		s.taken.Add(1)
	}
	outcomes := make([]deliver.Outcome, len(m.To))
	for i, to := range m.To {
		outcomes[i] = o
		outcomes[i].Recipient = to.Address
	}
	return outcomes
}

func (s *sink) take(ctx context.Context, m *deliver.Message) error {
	body, err := m.Open()
	if err != nil {
		return err
	}
	defer body.Close()
	if _, err := io.Copy(io.Discard, body); err != nil {
		return err
	}
	if wait := time.Duration(s.wait.Load()); wait > 0 {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// expect makes begin note when the delivery to an address begins.
func (s *sink) expect(address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun == nil {
		s.begun = map[string]time.Time{}
	}
	s.begun[address] = time.Time{}
}

func (s *sink) begin(address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, ok := s.begun[address]; ok && at.IsZero() {
		s.begun[address] = time.Now()
	}
}

// expected gives when what was expected began, once all of it has or the time is over.
func (s *sink) expected(most time.Duration) map[string]time.Time {
	for end := time.Now().Add(most); ; time.Sleep(10 * time.Millisecond) {
		s.mu.Lock()
		missing := false
		for _, at := range s.begun {
			missing = missing || at.IsZero()
		}
		if begun := s.begun; !missing || time.Now().After(end) {
			s.begun = nil
			s.mu.Unlock()
			return begun
		}
		s.mu.Unlock()
	}
}
