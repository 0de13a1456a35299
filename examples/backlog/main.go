// Command backlog shows how the queue on disk does with much mail waiting: a million messages in a hundred thousand lanes. It
// measures in one run, prints a table, and exits with 1 where a bound is missed.
//
//	go run ./examples/backlog                       a million messages; some ten minutes, and 6 GB of disk
//	go run ./examples/backlog -quick                20,000 messages, without bounds on speed: for every day
//	go run ./examples/backlog -parts cost           one part of it
//	go run ./examples/backlog dead                  live mail beside 5,000 destinations that hang
//
// The queue is held by a process of its own, which does nothing else, so that the system tells what the queue takes: its
// memory, processor time and octets written are those of /proc, which Linux has. The parts:
//
//   - waiting: how fast mail is accepted into an empty queue and into one where all of it waits for its next try, the memory
//     it takes, how soon a restarted process accepts mail, and what waiting costs;
//   - lane: all of it in one lane that becomes free; how fast that is delivered, and what it does to the mail of other lanes;
//   - cost: what is written and synced for a message that is accepted, delivered and settled.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// bench is what the command line says, and what was measured.
type bench struct {
	n, lanes, size int
	workers        int
	memory         int64 // the soft limit of the child's runtime in MiB; 0 is none
	spool          string
	parts          string
	quick          bool
	idle           time.Duration // how long waiting is watched
	window         time.Duration // how long a lane is watched that drains at its limit

	bounds
	table
	progress bool // somebody looks on
	verbose  bool
}

// bounds are what the figures should keep.
type bounds struct {
	ratio  float64       // enqueueing with the backlog there, against an empty queue
	rss    int64         // MiB
	ready  time.Duration // from the start of a process until it has accepted a message
	cpu    float64       // share of a processor, waiting
	drain  float64       // share of the limit at which a lane drains
	delay  time.Duration // by how much the median delay of other lanes may grow
	small  float64       // octets written for one of a message of 4 KiB
	large  float64       // and of one of 1 MiB
	fsyncs float64       // a message of 4 KiB, of 20 sessions
	left   int64         // MiB of disk once all is settled
}

// sessions are how many callers enqueue at once where it matters: as many as the sessions of a busy server.
const sessions = 20

func main() {
	if len(os.Args) > 3 && os.Args[1] == "hold" {
		memory, _ := strconv.ParseInt(os.Args[3], 10, 64)
		exit(hold(os.Args[2], memory))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) > 1 && os.Args[1] == "dead" {
		exit(deadMain(ctx, os.Args[2:]))
	}
	exit(backlogMain(ctx, os.Args[1:]))
}

func exit(err error) {
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "backlog:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func backlogMain(ctx context.Context, args []string) (err error) {
	b, err := parse(args)
	if err != nil {
		return err
	}
	if b.spool, err = os.MkdirTemp(b.spool, "backlog"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.spool)) }()
	start := time.Now()
	b.title(fmt.Sprintf("%d messages of %d octets in %d lanes", b.n, b.size, b.lanes))
	for _, part := range strings.Split(b.parts, ",") {
		if err := b.measure(ctx, part); err != nil {
			return fmt.Errorf("%s: %w", part, err)
		}
	}
	b.tell("")
	b.add("in all", "%v", time.Since(start).Round(time.Second))
	return b.print()
}

// measure measures one part.
func (b *bench) measure(ctx context.Context, part string) error {
	dir := filepath.Join(b.spool, part)
	measure := map[string]func(context.Context, string) error{"waiting": b.waiting, "lane": b.lane, "cost": b.cost}[part]
	return errors.Join(measure(ctx, dir), os.RemoveAll(dir))
}

// parse reads the command line.
func parse(args []string) (*bench, error) {
	b := &bench{}
	f := flag.NewFlagSet("backlog", flag.ContinueOnError)
	f.IntVar(&b.n, "n", 1_000_000, "messages that wait")
	f.IntVar(&b.lanes, "lanes", 100_000, "lanes that they are for")
	f.IntVar(&b.size, "size", 4096, "octets of a message")
	f.IntVar(&b.workers, "workers", 100, "callers that fill the queue at once")
	f.Int64Var(&b.memory, "memory", 0, "soft memory limit of the process with the queue, in MiB, as GOMEMLIMIT; 0 is none")
	f.StringVar(&b.spool, "spool", "", "folder for the spools, which are removed in the end; default: the system's for temporary files")
	f.StringVar(&b.parts, "parts", "waiting,lane,cost", "what to measure")
	f.BoolVar(&b.quick, "quick", false, "20,000 messages in 2,000 lanes, and no bounds on speed")
	f.BoolVar(&b.verbose, "v", false, "print each step on the standard error")
	f.DurationVar(&b.idle, "idle", 10*time.Second, "how long to watch what waiting costs")
	f.DurationVar(&b.window, "window", 20*time.Second, "how long to watch a lane that drains at its limit")
	b.bounds.flags(f)
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if b.quick {
		b.n, b.lanes, b.idle, b.window = 20_000, 2_000, min(b.idle, 2*time.Second), min(b.window, 3*time.Second)
		b.ratio, b.ready, b.drain, b.delay, b.cpu = 0, 0, 0, 0, 0
	}
	for part := range strings.SplitSeq(b.parts, ",") {
		if !slices.Contains([]string{"waiting", "lane", "cost"}, part) {
			return nil, fmt.Errorf("-parts %s: write some of waiting,lane,cost", b.parts)
		}
	}
	if b.n < 1000 || b.lanes < 1 || b.size < 100 || b.workers < 1 {
		return nil, errors.New("-n must be 1000 at least, -lanes and -workers 1, and -size 100")
	}
	b.out = os.Stdout
	info, err := os.Stderr.Stat()
	b.progress = err == nil && info.Mode()&os.ModeCharDevice != 0
	return b, nil
}

func (b *bounds) flags(f *flag.FlagSet) {
	f.Float64Var(&b.ratio, "ratio", 0.8, "bound: enqueueing with the backlog there, against an empty queue; 0 is none")
	f.Int64Var(&b.rss, "rss", 256, "bound: memory of the process with the queue, in MiB; 0 is none")
	f.DurationVar(&b.ready, "ready", 5*time.Second, "bound: from the start of a process until it has accepted a message; 0 is none")
	f.Float64Var(&b.cpu, "cpu", 0.01, "bound: share of a processor that waiting takes; 0 is none")
	f.Float64Var(&b.drain, "drain", 0.8, "bound: rate at which a lane drains, against its limit; 0 is none")
	f.DurationVar(&b.delay, "delay", 20*time.Millisecond, "bound: by how much the median delay of other lanes' mail may grow meanwhile; 0 is none")
	f.Float64Var(&b.small, "small", 2.5, "bound: octets written for each of a message of 4 KiB; 0 is none")
	f.Float64Var(&b.large, "large", 1.1, "bound: octets written for each of a message of 1 MiB; 0 is none")
	f.Float64Var(&b.fsyncs, "fsyncs", 0.2, "bound: fsyncs for a message of 4 KiB; 0 is none")
	f.Int64Var(&b.left, "left", 128, "bound: size of the spool once all is settled, in MiB; 0 is none")
}

// tell shows what is being done, where somebody looks on.
func (b *bench) tell(format string, args ...any) {
	switch {
	case b.verbose:
		fmt.Fprintf(os.Stderr, format+"\n", args...)
	case b.progress:
		fmt.Fprintf(os.Stderr, "\r\x1b[K"+format, args...)
	}
}

// atMost and atLeast write bounds; that of 0 is none.
func atMost[T int64 | float64 | time.Duration](bound T, unit string) string {
	return written("≤ ", bound, unit)
}

func atLeast[T int64 | float64 | time.Duration](bound T, unit string) string {
	return written("≥ ", bound, unit)
}

func written[T int64 | float64 | time.Duration](sign string, bound T, unit string) string {
	if bound == 0 {
		return ""
	}
	return fmt.Sprint(sign, bound, unit)
}
