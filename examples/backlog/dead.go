package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/disk"
)

// crowd is the command dead: how long live mail takes beside mail for destinations that hang, against the same without.
type crowd struct {
	hanging, each int // destinations that hang, and messages for each, which were there first
	live, domains int // live messages, and the domains that they are for
	latency       time.Duration
	limit         time.Duration
	rounds        int
	spool         string
	ratio         float64
	rss           int64

	table
	*world
	short bool // not all of the live mail arrived in time
}

func deadMain(ctx context.Context, args []string) (err error) {
	c := &crowd{}
	f := flag.NewFlagSet("backlog dead", flag.ContinueOnError)
	f.IntVar(&c.hanging, "hanging", 5000, "destinations that take a connection and never say anything; each costs this process two open files")
	f.IntVar(&c.each, "each", 2, "messages for each of them")
	f.IntVar(&c.live, "live", 1000, "messages for live destinations")
	f.IntVar(&c.domains, "domains", 50, "live destinations")
	f.DurationVar(&c.latency, "latency", 5*time.Millisecond, "how far away the live hosts are, one way")
	f.DurationVar(&c.limit, "limit", 20*time.Second, "how long to wait for the live mail")
	f.IntVar(&c.rounds, "rounds", 2, "how often both are measured, in turn")
	f.StringVar(&c.spool, "spool", "", "folder for the spools, which are removed in the end; default: the system's for temporary files")
	f.Float64Var(&c.ratio, "ratio", 1.3, "bound: time of the live mail beside the others, against the same without")
	f.Int64Var(&c.rss, "rss", 512, "bound: memory of this process, hosts included, in MiB")
	if err := f.Parse(args); err != nil {
		return err
	}
	if c.hanging > 1<<16 || c.domains > 1000 || c.domains < 1 || c.live < 1 || c.rounds < 1 {
		return errors.New("-hanging can be 65536 at most, -domains 1 to 1000, and -live and -rounds must be 1 at least")
	}
	c.out = os.Stdout
	if c.spool, err = os.MkdirTemp(c.spool, "backlog"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(c.spool)) }()
	if c.world, err = newWorld(c.domains, c.latency); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.world.close()) }()
	return c.measure(ctx)
}

// measure measures both sides in turn.
func (c *crowd) measure(ctx context.Context) error {
	c.title(fmt.Sprintf("%d messages for %d live domains, beside %d for %d that hang", c.live, c.domains, c.hanging*c.each, c.hanging))
	var alone, beside []time.Duration
	for range c.rounds {
		for _, side := range []struct {
			hanging int
			times   *[]time.Duration
		}{{0, &alone}, {c.hanging, &beside}} {
			took, err := c.run(ctx, side.hanging)
			if err != nil {
				return err
			}
			*side.times = append(*side.times, took)
		}
	}
	slices.Sort(alone)
	slices.Sort(beside)
	ratio := beside[c.rounds/2].Seconds() / alone[c.rounds/2].Seconds()
	c.check(ratio <= c.ratio && !c.short, fmt.Sprintf("≤ %v", c.ratio), "ratio of the times, the medians", "%.2f", ratio)
	p, err := inspect(os.Getpid())
	if err != nil {
		return err
	}
	c.check(p.Peak <= c.rss<<20, fmt.Sprintf("≤ %d MiB", c.rss), "memory of it all, hosts included, at most", "%.0f MiB", mib(p.Peak))
	n := c.refused.Load()
	c.check(n == 0, "≤ 0", "connections that could not be made (ulimit -n?)", "%d", n)
	return c.print()
}

// run measures how long the live mail takes beside so many destinations that hang.
func (c *crowd) run(ctx context.Context, hanging int) (took time.Duration, err error) {
	spool, err := os.MkdirTemp(c.spool, "run")
	if err != nil {
		return 0, err
	}
	q, err := disk.Open(filepath.Join(spool, "queue"))
	if err != nil {
		return 0, err
	}
	d := &deliver.Deliverer{Hostname: "relay.test", Resolver: c.world, Dial: c.Dial, AllowPrivate: true}
	var arrived atomic.Int64
	r := &queue.Runner{
		Queue: q, Deliverer: d, Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
		Trace: &queue.Trace{Settled: func(l queue.Lease, outcomes []deliver.Outcome, _ queue.Settlement) {
			if outcomes[0].Result.Success() && strings.HasPrefix(l.Lane, "l") {
				arrived.Add(int64(len(outcomes)))
			}
		}},
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	took, err = c.send(ctx, q, hanging, &arrived)
	cancel()
	if e := <-ended; !errors.Is(e, context.Canceled) {
		err = errors.Join(err, e)
	}
	d.Close()
	c.hangUp()
	return took, errors.Join(err, q.Close(), os.RemoveAll(spool))
}

// send enqueues what hangs, waits until it does, and then sends the live mail.
func (c *crowd) send(ctx context.Context, q *disk.Queue, hanging int, arrived *atomic.Int64) (time.Duration, error) {
	text := message(4096)
	put := func(i int, lane string) error {
		_, err := q.Enqueue(ctx, envelope(i, lane), bytes.NewReader(text))
		return err
	}
	err := share(hanging*c.each, sessions, func(i int) error { return put(i, fmt.Sprintf("d%d.test", i%hanging)) })
	if err != nil {
		return 0, err
	}
	c.quiet(ctx, hanging)
	start := time.Now()
	if err := share(c.live, sessions, func(i int) error { return put(i, fmt.Sprintf("l%d.test", i%c.domains)) }); err != nil {
		return 0, err
	}
	for arrived.Load() < int64(c.live) && time.Since(start) < c.limit && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	took := time.Since(start)
	c.short = c.short || arrived.Load() < int64(c.live)
	c.add(fmt.Sprintf("beside %d destinations that hang, %d connections to them", hanging, c.open.Load()), "%d of %d in %.2f s",
		arrived.Load(), c.live, took.Seconds())
	return took, ctx.Err()
}

// quiet waits until no more connections are made to what hangs.
func (c *crowd) quiet(ctx context.Context, hanging int) {
	if hanging == 0 {
		return
	}
	last, since := int64(0), time.Now()
	for begun := since; time.Since(since) < time.Second && time.Since(begun) < 10*time.Second && ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		if n := c.open.Load(); n != last || n == 0 {
			last, since = n, time.Now()
		}
	}
}
