package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// waiting measures a backlog that waits for its next try.
func (b *bench) waiting(ctx context.Context, dir string) error {
	b.title("all of it waits")
	c, err := b.start(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { c.kill() }()
	if err := b.fill(c); err != nil {
		return err
	}
	if err := b.compare(ctx, c); err != nil {
		return err
	}
	if err := b.look(c, "when it was filled"); err != nil {
		return err
	}
	size, err := folderSize(dir)
	if err != nil {
		return err
	}
	n, err := c.count()
	if err != nil {
		return err
	}
	b.add("size on disk, in all and for each octet of a message", "%.0f MiB, %.2f", mib(size), float64(size)/float64(n.Bytes))
	if c, err = b.restarts(ctx, c); err != nil {
		return err
	}
	return b.doNothing(c)
}

// fill fills the queue, and has each message tried once, so that all of it waits. It leaves room for what compare adds.
func (b *bench) fill(c *child) error {
	var took time.Duration
	most := b.n - rounds*b.some()
	mail := Mail{N: most, Lanes: b.lanes, Size: b.size, Workers: b.workers}
	if err := c.call("filling", "Fill", mail, &took); err != nil {
		return err
	}
	b.add(fmt.Sprintf("enqueueing, %d callers", b.workers), "%.0f/s", perSecond(most, took))
	return b.try(c)
}

// try has a try of all that is due.
func (b *bench) try(c *child) error {
	var n int
	start := time.Now()
	if err := c.call("trying", "Try", b.workers, &n); err != nil {
		return err
	}
	b.add("tries that failed and were recorded", "%d, %.0f/s", n, perSecond(n, time.Since(start)))
	return nil
}

// rounds is how often both sides of a comparison are measured, in turn.
const rounds = 4

// some is how many messages a round enqueues.
func (b *bench) some() int { return min(max(b.n/50, 200), 20_000) }

// compare enqueues some mail where the backlog is and into an empty queue, in turn, and then lets it wait as well.
func (b *bench) compare(ctx context.Context, c *child) error {
	ratios, empty, full := make([]float64, rounds), make([]float64, rounds), make([]float64, rounds)
	for i := range rounds {
		mail := Mail{N: b.some(), First: b.n - (rounds-i)*b.some(), Lanes: b.lanes, Size: b.size, Workers: sessions}
		var took, alone time.Duration
		if err := c.call("comparing", "Fill", mail, &took); err != nil {
			return err
		}
		if err := b.alone(ctx, c.dir+"-empty", mail, &alone); err != nil {
			return err
		}
		full[i], empty[i] = perSecond(mail.N, took), perSecond(mail.N, alone)
		ratios[i] = full[i] / empty[i]
	}
	slices.Sort(ratios)
	ratio := (ratios[rounds/2-1] + ratios[rounds/2]) / 2
	b.add(fmt.Sprintf("enqueueing, %d callers, into an empty queue", sessions), "%.0f/s", empty)
	b.add(fmt.Sprintf("enqueueing, %d callers, with the backlog there", sessions), "%.0f/s", full)
	b.check(ratio >= b.ratio, atLeast(b.ratio, ""), "ratio of the two, the median", "%.2f", ratio)
	return b.try(c)
}

// alone enqueues mail into an empty queue.
func (b *bench) alone(ctx context.Context, dir string, mail Mail, took *time.Duration) error {
	c, err := b.start(ctx, dir)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	defer c.kill()
	return c.call("comparing", "Fill", mail, took)
}

// look notes the memory of the process with the queue.
func (b *bench) look(c *child, when string) error {
	p, err := c.inspect()
	if err != nil {
		return err
	}
	n, err := c.count()
	if err != nil {
		return err
	}
	b.check(b.rss == 0 || p.RSS <= b.rss<<20, atMost(b.rss, " MiB"), "memory "+when, "%.0f MiB, at most %.0f, for %d messages in %d lanes",
		mib(p.RSS), mib(p.Peak), n.Messages, n.Lanes)
	return nil
}

// restarts ends the process in several ways, and measures the next one.
func (b *bench) restarts(ctx context.Context, c *child) (*child, error) {
	for _, way := range []struct {
		name string
		end  func(*child) error
	}{
		{"a clean end", (*child).close},
		{"a clean end, from a cold disk", func(c *child) error { return errors.Join(c.close(), forget(c.dir)) }},
		{"kill -9", func(c *child) error { c.kill(); return nil }},
	} {
		before, err := c.count()
		if err != nil {
			return c, err
		}
		if err := way.end(c); err != nil {
			return c, err
		}
		b.tell("starting after %s", way.name)
		next, err := b.start(ctx, c.dir)
		if err != nil {
			return c, err
		}
		c = next
		after, err := c.count()
		if err != nil {
			return c, err
		}
		if after.Messages != before.Messages+1 {
			return c, fmt.Errorf("after %s there are %d messages, and there were %d and one more", way.name, after.Messages, before.Messages)
		}
		b.check(b.ready == 0 || c.Up <= b.ready, atMost(b.ready, ""), "ready after "+way.name, "%.2f s, of which the opening takes %.2f",
			c.Up.Seconds(), c.Open.Seconds())
		if err := b.look(c, "after "+way.name); err != nil {
			return c, err
		}
	}
	return c, nil
}

// doNothing measures what waiting costs.
func (b *bench) doNothing(c *child) error {
	if err := c.call("", "Run", Pace{}, &None{}); err != nil {
		return err
	}
	b.tell("doing nothing for %v", b.idle)
	time.Sleep(2 * time.Second) // what was enqueued at the openings is delivered
	before, err := c.inspect()
	if err != nil {
		return err
	}
	time.Sleep(b.idle)
	after, err := c.inspect()
	if err != nil {
		return err
	}
	used := (after.CPU - before.CPU).Seconds() / b.idle.Seconds()
	b.check(b.cpu == 0 || used <= b.cpu, atMost(b.cpu*100, " %"), "processor, with a Runner and nothing due", "%.2f %%", used*100)
	if err := b.look(c, "then"); err != nil {
		return err
	}
	return c.close()
}

// waitForRoom waits until a spool has given back its room, at most a while, and gives its size.
func waitForRoom(dir string, most int64) (size int64, err error) {
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if size, err = folderSize(filepath.Join(dir, "log")); err != nil {
			return 0, err
		}
		large, err := folderSize(filepath.Join(dir, "large"))
		if size += large; err != nil || size <= most || time.Now().After(end) {
			return size, err
		}
	}
}
