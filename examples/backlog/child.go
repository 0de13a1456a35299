package main

import (
	"context"
	"errors"
	"fmt"
	"net/rpc"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// A child is a process that holds a queue: see [Spool].
type child struct {
	ctx   context.Context
	cmd   *exec.Cmd
	calls *rpc.Client
	dir   string
	tell  func(format string, args ...any) // progress

	Ready
	Up time.Duration // from the start of the process until the queue had accepted a message
}

// start starts a child that holds the queue in a folder, and waits until it accepts mail. It ends with ctx.
func (b *bench) start(ctx context.Context, dir string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{ctx: ctx, dir: dir, tell: b.tell}
	c.cmd = exec.CommandContext(ctx, self, "hold", dir, strconv.FormatInt(b.memory, 10))
	c.cmd.Stderr = os.Stderr
	in, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	c.calls = rpc.NewClient(standardIO{out, in})
	if err := c.calls.Call("Spool.Open", None{}, &c.Ready); err != nil {
		c.kill()
		return nil, fmt.Errorf("the queue in %s could not be opened: %w", dir, err)
	}
	c.Up = time.Since(began)
	return c, nil
}

// call has the child do something, and tells how far it is while that lasts.
func (c *child) call(what, method string, args, reply any) error {
	call := c.calls.Go("Spool."+method, args, reply, nil)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-call.Done:
			if c.ctx.Err() != nil {
				return c.ctx.Err()
			}
			return call.Error
		case <-tick.C:
			var n int64
			if c.calls.Call("Spool.Progress", None{}, &n) == nil && what != "" {
				c.tell("%s: %d", what, n)
			}
		}
	}
}

// inspect asks the system about the child.
func (c *child) inspect() (process, error) { return inspect(c.cmd.Process.Pid) }

// count asks what its queue holds.
func (c *child) count() (n Counts, err error) {
	err = c.call("", "Count", None{}, &n)
	return n, err
}

// close closes the queue and ends the child.
func (c *child) close() error {
	err := c.call("", "Close", None{}, &None{})
	return errors.Join(err, c.calls.Close(), c.cmd.Wait())
}

// kill ends the child with SIGKILL. One that has ended is none.
func (c *child) kill() {
	c.calls.Close()
	c.cmd.Process.Kill()
	c.cmd.Wait()
}
