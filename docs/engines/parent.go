package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// A run is one process that does a task.
type run struct {
	result
	acks acks
	said string // the first line of what it wrote to standard error
	died string // how it ended where it did not end by itself; "" where it told a result
}

// acks is what a process told of its steps.
type acks struct {
	accepted, settling, settled map[uint64]bool
}

// patience is how long a task may take.
const patience = 2 * time.Minute

// command is the process that does a task.
func (t task) command(ctx context.Context, before ...string) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	args := append(before, exe, "-task", string(text))
	return exec.CommandContext(ctx, args[0], args[1:]...), nil
}

// do runs a task in a process of its own, under the command before if there is one.
func (t task) do(ctx context.Context, before ...string) (run, error) {
	wait := patience
	if t.Patience > 0 {
		wait = t.Patience
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	cmd, err := t.command(ctx, before...)
	if err != nil {
		return run{}, err
	}
	r, err := watch(cmd, 0)
	if r.died != "" && ctx.Err() != nil {
		r.died = fmt.Sprintf("it hangs, and was killed after %v", wait)
	}
	shorter := strings.NewReplacer(t.Dir, "SPOOL")
	r.said, r.Error = shorter.Replace(r.said), shorter.Replace(r.Error)
	return r, err
}

// watch starts a process and reads what it tells until it ends. It kills it when it has told of so many accepted messages; 0 is never.
func watch(cmd *exec.Cmd, most int) (r run, err error) {
	var stderr bytes.Buffer
	cmd.Stderr = &limited{&stderr, 64 << 10}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return r, err
	}
	if err := cmd.Start(); err != nil {
		return r, err
	}
	r.acks = acks{map[uint64]bool{}, map[uint64]bool{}, map[uint64]bool{}}
	told := false
	for in := bufio.NewReaderSize(out, 1<<20); ; {
		line, err := in.ReadBytes('\n')
		if err != nil {
			break // the rest of a line was not told
		}
		if rest, ok := bytes.CutPrefix(line, []byte("=")); ok {
			told = json.Unmarshal(rest, &r.result) == nil
		} else {
			r.acks.note(line)
		}
		if len(r.acks.accepted) == most && most > 0 {
			cmd.Process.Kill() // what it told before that is read on
		}
	}
	err = cmd.Wait()
	r.said, _, _ = strings.Cut(strings.TrimSpace(stderr.String()), "\n")
	if !told {
		r.died = "the process ended"
		if err != nil {
			r.died = err.Error()
		}
	}
	return r, nil
}

func (a *acks) note(line []byte) {
	var sign byte
	var seq uint64
	if n, _ := fmt.Sscanf(string(line), "%c%d", &sign, &seq); n != 2 {
		return
	}
	switch sign {
	case '+':
		a.accepted[seq] = true
	case '~':
		a.settling[seq] = true
	case '-':
		a.settled[seq] = true
	}
}

// compare tells how many of the messages are lost that were accepted and not about to be settled, and how many are back
// that were settled.
func (a *acks) compare(r *result) (lost, back int) {
	found := map[uint64]bool{}
	for _, seq := range r.Found {
		found[seq] = true
		if a.settled[seq] {
			back++
		}
	}
	for seq := range a.accepted {
		if !found[seq] && !a.settling[seq] {
			lost++
		}
	}
	return lost, back
}

// firstLine is the first line of a text, cut where it is long.
func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	if len(s) > 160 {
		s = s[:160] + "…"
	}
	return s
}

// limited keeps the beginning of what is written.
type limited struct {
	buf  *bytes.Buffer
	most int
}

func (l *limited) Write(p []byte) (int, error) {
	l.buf.Write(p[:min(len(p), max(0, l.most-l.buf.Len()))])
	return len(p), nil
}

// killed runs an endless task and kills it after so many accepted messages.
func (t task) killed(ctx context.Context, most int) (run, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd, err := t.command(ctx)
	if err != nil {
		return run{}, err
	}
	return watch(cmd, most)
}

// isolated runs a task with mounts of its own, so that it can fill a small disk. Where the kernel forbids that, it is an
// error that wraps errNoMounts.
func (t task) isolated(ctx context.Context) (run, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd, err := t.command(ctx)
	if err != nil {
		return run{}, err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	r, err := watch(cmd, 0)
	if err != nil {
		err = errors.Join(errNoMounts, err)
	}
	return r, err
}

var errNoMounts = errors.New("no mounts of its own for this user")
