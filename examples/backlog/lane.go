package main

import (
	"context"
	"fmt"
	"time"
)

// How the far end of the lane is that becomes free.
const (
	laneLimit = 20                    // attempts at once, the Runner's default
	laneWait  = 10 * time.Millisecond // how long each takes
)

// lane measures a lane in which all of the mail waits for its destination, which then takes mail again.
func (b *bench) lane(ctx context.Context, dir string) error {
	b.title("all of it waits in one lane, which becomes free")
	c, err := b.start(ctx, dir)
	if err != nil {
		return err
	}
	defer c.kill()
	var took time.Duration
	if err := c.call("filling", "Fill", Mail{N: b.n, Lanes: 1, Size: b.size, Workers: b.workers}, &took); err != nil {
		return err
	}
	if err := b.try(c); err != nil {
		return err
	}
	if err := b.look(c, "when it was filled"); err != nil {
		return err
	}
	if err := c.call("", "Run", Pace{Lane: laneLimit, Wait: laneWait}, &None{}); err != nil {
		return err
	}
	if err := b.atItsLimit(c); err != nil {
		return err
	}
	if err := b.toTheEnd(c); err != nil {
		return err
	}
	size, err := waitForRoom(dir, b.left<<20)
	if err != nil {
		return err
	}
	b.check(b.left == 0 || size <= b.left<<20, atMost(b.left, " MiB"), "size on disk when all is settled, the process running", "%.0f MiB", mib(size))
	return c.close()
}

// atItsLimit compares the mail of other lanes before the lane is free and while it drains at the rate of its limits.
func (b *bench) atItsLimit(c *child) error {
	b.tell("other lanes' mail, for %v", b.window)
	every := 20 * time.Millisecond
	mail := Arrivals{N: int(b.window / every), Every: every, Name: "before"}
	var before, during Delays
	if err := c.call("", "Arrive", mail, &before); err != nil {
		return err
	}
	if err := c.call("", "Free", None{}, &None{}); err != nil {
		return err
	}
	time.Sleep(time.Second) // the lane earns its attempts
	var drained Drained
	draining := make(chan error, 1)
	go func() { draining <- c.call("draining", "Drain", b.window, &drained) }()
	mail.Name = "during"
	if err := c.call("", "Arrive", mail, &during); err != nil {
		return err
	}
	if err := <-draining; err != nil {
		return err
	}
	rate, limit := float64(drained.N)/drained.Time.Seconds(), laneLimit/laneWait.Seconds()
	b.check(rate >= b.drain*limit, atLeast(b.drain*limit, "/s"), fmt.Sprintf("drains, %d attempts at once of %v each", laneLimit, laneWait),
		"%.0f/s of %.0f, other lanes' mail included", rate, limit)
	b.add("delay of other lanes' mail before, median and longest", "%.1f ms, %.1f ms", ms(before.Median), ms(before.Max))
	grown := during.Median - before.Median
	b.check((b.delay == 0 || grown <= b.delay) && during.Missing == 0, atMost(b.delay, " more"), "delay of other lanes' mail meanwhile", "%.1f ms, %.1f ms",
		ms(during.Median), ms(during.Max))
	if during.Missing > 0 {
		b.add("mail of other lanes that was not tried within a minute", "%d", during.Missing)
	}
	return nil
}

// toTheEnd lets the rest of the lane go as fast as the queue gives it out.
func (b *bench) toTheEnd(c *child) error {
	if err := c.call("", "Run", Pace{Lane: 500}, &None{}); err != nil {
		return err
	}
	var drained Drained
	if err := c.call("draining", "Drain", 30*time.Minute, &drained); err != nil {
		return err
	}
	b.check(drained.Left == 0, "≤ 0 left", "drains, as fast as the queue gives it out", "%.0f/s", float64(drained.N)/drained.Time.Seconds())
	return b.look(c, "then")
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }
