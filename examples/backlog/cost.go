package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

// cost measures what is written and synced for mail that is accepted, delivered and settled.
func (b *bench) cost(ctx context.Context, dir string) error {
	b.title(fmt.Sprintf("accepted, delivered and settled, %d sessions", sessions))
	if err := b.costOf(ctx, filepath.Join(dir, "4k"), 4096, max(b.n/50, 5000), b.small, b.fsyncs); err != nil {
		return err
	}
	return b.costOf(ctx, filepath.Join(dir, "1m"), 1<<20, max(b.n/2000, 200), b.large, 0)
}

func (b *bench) costOf(ctx context.Context, dir string, size, n int, most, fsyncs float64) error {
	c, err := b.start(ctx, dir)
	if err != nil {
		return err
	}
	defer c.kill()
	if err := c.call("", "Run", Pace{Lane: laneLimit}, &None{}); err != nil {
		return err
	}
	before, written, err := c.spent()
	if err != nil {
		return err
	}
	start := time.Now()
	var took time.Duration
	if err := c.call("sending", "Fill", Mail{N: n, Lanes: sessions, Size: size, Workers: sessions}, &took); err != nil {
		return err
	}
	var drained Drained
	if err := c.call("sending", "Drain", time.Minute, &drained); err != nil {
		return err
	}
	took = time.Since(start)
	after, writtenAfter, err := c.spent()
	if err != nil {
		return err
	}
	if drained.Left > 0 {
		return fmt.Errorf("%d messages are not delivered after a minute", drained.Left)
	}
	name, octets := fmt.Sprintf("%d KiB: ", size>>10), float64(n)*float64(size)
	b.add(name+"messages", "%d, %.0f/s", n, perSecond(n, took))
	asked := float64(after.Octets-before.Octets) / octets
	device := float64(writtenAfter-written) / octets
	b.check(most == 0 || max(device, asked) <= most, atMost(most, ""), name+"octets written for each octet", "%.2f, in whole pages of the disk %.2f", asked, device)
	syncs := float64(after.Syncs-before.Syncs) / float64(n)
	b.check(fsyncs == 0 || syncs <= fsyncs, atMost(fsyncs, ""), name+"fsyncs a message", "%.3f", syncs)
	return c.close()
}

// spent is what the queue has asked of the disk, and what the system wrote there because of that.
func (c *child) spent() (n Counts, written int64, err error) {
	if n, err = c.count(); err != nil {
		return n, 0, err
	}
	p, err := c.inspect()
	return n, p.Written, err
}
