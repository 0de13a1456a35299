package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// A task is what a process of its own does with an engine, so that what it takes is counted apart, and so that it can be killed.
type task struct {
	Do     string        // a key of tasks
	Engine string        // a kind
	Dir    string        // the spool
	Size   int           // octets of a body
	N      int           // messages
	For    time.Duration // of a flow

	Patience time.Duration // after which it is killed; 0 is patience
}

// A result is what a task tells. Which fields have a value depends on the task.
type result struct {
	Messages int
	Took     time.Duration // of the work
	CPU      time.Duration
	Written  amount // until it was quiet and closed
	Longest  time.Duration
	P99      time.Duration
	Peak     int64         // room on disk
	After    int64         // room on disk, closed
	RSS      int64         // more than before the spool was opened
	RSSFiles int64         // of RSS, mapped files
	Ready    time.Duration // from the start of opening to the first message in hand

	Found   []uint64 // whole
	Wrong   []uint64 // not what was enqueued, and nothing was said
	Damaged []uint64 // reading failed
	Steps   []string // what a full disk lets happen
	Error   string
}

var tasks = map[string]func(task, *result) error{
	"flow": doFlow, "fill": doFill, "drain": doDrain, "endless": doEndless, "list": doList, "stuff": doStuff, "resume": doResume, "full": doFull,
}

// runTask is all of such a process. The result is the last line that it prints.
func runTask(text string) {
	var t task
	var r result
	err := json.Unmarshal([]byte(text), &t)
	if err == nil {
		err = tasks[t.Do](t, &r)
	}
	if err != nil {
		r.Error = err.Error()
	}
	if t.Do == "fill" && err == nil { // no closing: what is left is what a crash leaves
		printResult(&r)
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	printResult(&r)
}

func printResult(r *result) {
	line, err := json.Marshal(r)
	if err != nil {
		panic(err) // it is our own
	}
	fmt.Printf("=%s\n", line)
}

// open opens the spool of a task.
func (t task) open() (*worker, error) {
	k, err := kindNamed(t.Engine)
	if err != nil {
		return nil, err
	}
	noise()
	e, err := k.open(t.Dir)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	return &worker{e: e, size: t.Size}, nil
}

// doFlow has the callers enqueue and deliver for a while.
func doFlow(t task, r *result) error {
	w, err := t.open()
	if err != nil {
		return err
	}
	stop := peak(t.Dir)
	start, before := time.Now(), cpu()
	err = w.flow(start.Add(t.For))
	r.Took, r.Messages = time.Since(start), int(w.count.Load())
	untilQuiet()
	r.CPU, r.Peak = cpu()-before, stop()
	r.Longest, r.P99 = w.stall()
	err = errors.Join(err, w.e.close())
	r.Written, r.After = written(), sizeOf(t.Dir)
	return err
}

// doFill leaves a backlog.
func doFill(t task, r *result) error {
	w, err := t.open()
	if err != nil {
		return err
	}
	start, before := time.Now(), cpu()
	err = w.fill(t.N)
	r.Took, r.Messages = time.Since(start), t.N
	untilQuiet()
	r.CPU, r.Written, r.Peak = cpu()-before, written(), sizeOf(t.Dir)
	r.Longest, r.P99 = w.stall()
	return err
}

// doDrain opens a backlog and delivers it.
func doDrain(t task, r *result) error {
	forgetPages(t.Dir)
	noise()
	all, files := resident()
	start := time.Now()
	w, err := t.open()
	if err != nil {
		return err
	}
	first, err := w.e.take(1)
	r.Ready = time.Since(start)
	r.RSS, r.RSSFiles = resident()
	r.RSS, r.RSSFiles = r.RSS-all, r.RSSFiles-files
	if err != nil || len(first) == 0 {
		return errors.Join(err, w.e.close(), errors.New("the backlog is gone"))
	}
	start, before := time.Now(), cpu()
	err = errors.Join(w.e.settle(first[0], record), w.drain())
	r.Took, r.Messages = time.Since(start), int(w.count.Load())+1
	untilQuiet()
	r.CPU = cpu() - before
	err = errors.Join(err, w.e.close())
	r.Written, r.After = written(), sizeOf(t.Dir)
	return err
}

// doEndless works until it is killed, and tells each step.
func doEndless(t task, _ *result) error {
	w, err := t.open()
	if err != nil {
		return err
	}
	w.log = os.Stdout
	return w.each(func() (bool, error) {
		if err := w.enqueue(); err != nil {
			return false, err
		}
		if w.seq.Load()%4 == 0 { // some stay
			return true, nil
		}
		_, err := w.deliver()
		return true, err
	})
}

// doList opens a spool and reads all of it.
func doList(t task, r *result) error {
	w, err := t.open()
	if err != nil {
		return err
	}
	for {
		jobs, err := w.e.take(1000)
		if err != nil || len(jobs) == 0 {
			return errors.Join(err, w.e.close())
		}
		for _, j := range jobs {
			switch err := check(w.e, j, t.Size); {
			case err == nil:
				r.Found = append(r.Found, j.seq)
			case errors.Is(err, errWrong):
				r.Wrong = append(r.Wrong, j.seq)
			default:
				r.Damaged = append(r.Damaged, j.seq)
				fmt.Fprintln(os.Stderr, err)
			}
		}
	}
}

// doStuff enqueues until nothing more is taken, settles half of it, and enqueues again.
func doStuff(t task, r *result) error {
	ownReserve = -1
	w, err := t.open()
	if err != nil {
		return err
	}
	w.log = os.Stdout
	err = w.each(func() (bool, error) { return w.seq.Load() < uint64(t.N), w.enqueue() })
	r.Messages = len(w.waits)
	if err == nil {
		return errors.New("the disk did not fill")
	}
	return w.goOn(r)
}

// doResume opens a spool that was stuffed, settles half of it, and enqueues again.
func doResume(t task, r *result) error {
	ownReserve = -1
	w, err := t.open()
	if err != nil {
		return err
	}
	w.log = os.Stdout
	w.seq.Store(1 << 32) // more than any that is there
	r.Messages = t.N
	return w.goOn(r)
}

func (w *worker) goOn(r *result) error {
	for range r.Messages / 2 {
		more, err := w.deliver()
		if err != nil || !more {
			r.Error = fmt.Sprintf("settles %d of %d, then: %v", w.count.Load(), r.Messages/2, err)
			return errors.New(firstLine(r.Error))
		}
	}
	time.Sleep(500 * time.Millisecond) // room is given back in the background
	if err := w.enqueue(); err != nil {
		return fmt.Errorf("takes no new mail after half is settled: %s", firstLine(err.Error()))
	}
	return w.e.close()
}
