package main

// The child: a process that does nothing but hold a queue, and does what the command tells it over its standard input and
// output (net/rpc).

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/rpc"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/disk"
)

// Spool is what a child does when it is told to. Its exported methods are called by [child].
type Spool struct {
	dir    string
	q      *disk.Queue
	sink   sink
	runner *queue.Runner
	ended  chan error   // of the Runner
	done   atomic.Int64 // messages of the step under way, for the progress
}

// None is what a call has where it asks for nothing or gives nothing.
type None struct{}

// hold serves its parent until the parent is gone. memory is the soft limit of the Go runtime in MiB; 0 is none.
func hold(dir string, memory int64) error {
	if memory > 0 {
		debug.SetMemoryLimit(memory << 20)
	}
	server := rpc.NewServer()
	if err := server.Register(&Spool{dir: dir}); err != nil {
		return err
	}
	server.ServeConn(standardIO{os.Stdin, os.Stdout})
	return nil
}

// standardIO is a connection to the parent.
type standardIO struct {
	io.Reader
	io.WriteCloser
}

// Ready is how long it took until a queue was open, and until it had accepted a message.
type Ready struct{ Open, Enqueue time.Duration }

// Open opens the spool and enqueues one message.
func (s *Spool) Open(_ None, ready *Ready) (err error) {
	start := time.Now()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if s.q, err = (disk.Options{Logger: log}).Open(s.dir); err != nil {
		return err
	}
	ready.Open = time.Since(start)
	_, err = s.q.Enqueue(context.Background(), envelope(0, "d0.test"), bytes.NewReader(message(1000)))
	ready.Enqueue = time.Since(start) - ready.Open
	return err
}

// Close closes the queue in an orderly way.
func (s *Spool) Close(None, *None) error { return s.q.Close() }

// Mail is what is to be enqueued.
type Mail struct {
	N, First int // how many, and the number of the first
	Lanes    int // message i goes to lane i mod Lanes
	Size     int // of each, in octets
	Workers  int // that many callers at once, each of which waits until its message is durable
}

// Fill enqueues mail, and tells how long that took.
func (s *Spool) Fill(m Mail, took *time.Duration) error {
	text := message(m.Size)
	s.done.Store(0)
	start := time.Now()
	err := share(m.N, m.Workers, func(i int) error {
		i += m.First
		_, err := s.q.Enqueue(context.Background(), envelope(i, fmt.Sprintf("d%d.test", i%m.Lanes)), bytes.NewReader(text))
		s.done.Add(1)
		return err
	})
	*took = time.Since(start)
	return err
}

// share does n things by some workers at once, until one fails.
func share(n, workers int, do func(i int) error) error {
	var all sync.WaitGroup
	var next atomic.Int64
	failed := make(chan error, workers)
	for range workers {
		all.Go(func() {
			for len(failed) == 0 {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := do(i); err != nil {
					failed <- err
				}
			}
		})
	}
	all.Wait()
	close(failed)
	return <-failed
}

// Try makes a try of everything that is due, which fails because the destination cannot be reached: what a queue does with
// mail that waits. The next one is hours later. n is how many there were.
func (s *Spool) Try(workers int, n *int) error {
	s.done.Store(0)
	for ctx := context.Background(); ; {
		leases, _, err := s.q.Lease(ctx, queue.LeaseRequest{Max: 1000, For: time.Hour})
		if err != nil {
			return err
		}
		if len(leases) == 0 {
			*n = int(s.done.Load())
			return nil
		}
		err = share(len(leases), workers, func(i int) error {
			s.done.Add(1)
			return s.q.Settle(ctx, leases[i], unreached(&leases[i]))
		})
		if err != nil {
			return err
		}
	}
}

// unreached is the settlement of a try at a destination that does not answer, with all that its history tells.
func unreached(l *queue.Lease) queue.Settlement {
	now := time.Now()
	return queue.Settlement{
		Attempt: queue.Attempt{Time: now, Route: "direct", Results: []queue.AttemptResult{{
			Recipient: l.Envelope.To[0].Address, Result: deliver.TempFail, Status: "4.4.1", Stage: deliver.StageConnect,
			Detail: "connect: connection timed out", Host: "mx." + l.Lane, Addr: "192.0.2.1:25",
		}}},
		Next: now.Add(6*time.Hour + rand.N(12*time.Hour)), Unreached: true,
	}
}

// Progress is how many messages of the step under way are done.
func (s *Spool) Progress(_ None, n *int64) error {
	*n = s.done.Load()
	return nil
}

// Counts are what a queue holds, and what it has asked of the disk.
type Counts struct {
	queue.Stats
	disk.IO
}

// Count counts.
func (s *Spool) Count(_ None, c *Counts) (err error) {
	c.Stats, err = s.q.Stats(context.Background())
	c.IO = s.q.IO()
	return err
}

// envelope is that of message i to a lane. Every message has a sender of its own, as those of a newsletter have.
func envelope(i int, lane string) queue.Envelope {
	return queue.Envelope{From: fmt.Sprintf("news+%d@src.test", i), To: queue.To(fmt.Sprintf("user%d@%s", i, lane))}
}

// message is a mail of so many octets, or a few more.
func message(size int) []byte {
	text := []byte("From: News <news@src.test>\r\nSubject: Hello\r\nMessage-ID: <1@src.test>\r\n\r\n")
	rng := rand.New(rand.NewPCG(1, 2))
	for len(text) < size {
		line := min(76, max(size-len(text)-2, 0))
		for range line {
			text = append(text, byte('0'+rng.IntN(75))) // so that no file system makes it shorter
		}
		text = append(text, "\r\n"...)
	}
	return text
}
