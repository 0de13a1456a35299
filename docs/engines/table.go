package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// progress is told on standard error.
func progress(format string, a ...any) { fmt.Fprintf(os.Stderr, format+"\n", a...) }

func table(w io.Writer, head ...string) func(cells ...string) {
	fmt.Fprintf(w, "| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat(" --- |", len(head)))
	return func(cells ...string) { fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | ")) }
}

// machine prints what was measured where.
func (p *plan) machine(w io.Writer) error {
	synced, err := probe(p.dir)
	if err != nil {
		return err
	}
	system, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	load, _ := os.ReadFile("/proc/loadavg")
	name, _, _ := strings.Cut(string(load), " ")
	fmt.Fprintf(w, "%s, %s; Linux %s, %d cores of %s, %s; load when it began %s; one writer gets %.0f appends of 4 KiB synced a second.\n\nCommand: `go run .%s`\n\n",
		time.Now().Format("2006-01-02 15:04"), runtime.Version(), strings.TrimSpace(string(system)), runtime.NumCPU(), processor(), fileSystem(p.dir), name, synced,
		arguments())
	return nil
}

func arguments() (s string) {
	for _, a := range os.Args[1:] {
		if strings.Contains(a, " ") {
			a = strconv.Quote(a)
		}
		s += " " + a
	}
	return s
}

func processor() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		if name, model, ok := strings.Cut(in.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(model)
		}
	}
	return runtime.GOARCH
}

// fileSystem is the type of the file system that a folder is in.
func fileSystem(dir string) string {
	out, err := exec.Command("stat", "-f", "-c", "%T", dir).Output()
	if err != nil {
		return "an unknown file system"
	}
	return strings.TrimSpace(string(out))
}

// dirFor is a new place for a spool, and what removes it.
func (p *plan) dirFor() (dir string, remove func(), err error) {
	dir, err = os.MkdirTemp(p.dir, "")
	return dir, func() { os.RemoveAll(dir) }, err
}

// one runs a task on a new spool.
func (p *plan) one(ctx context.Context, t task, before ...string) (run, error) {
	dir, remove, err := p.dirFor()
	if err != nil {
		return run{}, err
	}
	defer remove()
	t.Dir = filepath.Join(dir, "spool")
	return t.good(ctx, before...)
}

// good runs a task that must not fail.
func (t task) good(ctx context.Context, before ...string) (run, error) {
	r, err := t.do(ctx, before...)
	if err == nil && r.Error != "" {
		err = errors.New(r.Error)
	}
	if err == nil && r.died != "" && r.Messages == 0 {
		err = errors.New(r.died + ": " + r.said)
	}
	if err != nil {
		err = fmt.Errorf("%s, %s: %w", t.Engine, t.Do, err)
	}
	return r, err
}

// flows prints what it costs to take mail and to deliver it at once.
func (p *plan) flows(ctx context.Context, w io.Writer) error {
	for _, size := range []int{p.size, p.large} {
		fmt.Fprintf(w, "### Mail of %s that is delivered at once: 20 callers, each enqueues, takes, reads and settles\n\n", octets(int64(size)))
		runs := make([][]run, len(p.kinds))
		for range p.rounds { // A B A B: what else the machine does hits all
			for i, k := range p.kinds {
				progress("flow: %s, %d", k.name, size)
				r, err := p.one(ctx, task{Do: "flow", Engine: k.name, Size: size, For: p.flow})
				if err != nil {
					return err
				}
				runs[i] = append(runs[i], r)
			}
		}
		row := table(w, "engine", "messages/s", "against the first", "CPU ms a message", "fsyncs a message", "written per octet of mail (by pages)",
			"longest enqueue", "99 % of them", "most room on disk", "room when all is settled")
		for i, k := range p.kinds {
			syncs, err := p.syncs(ctx, k, size)
			if err != nil {
				return err
			}
			row(flowRow(k, runs[i], runs[0], syncs, size)...)
		}
		fmt.Fprintln(w)
	}
	return nil
}

func flowRow(k kind, runs, first []run, syncs string, size int) []string {
	var rate, ratio, cpu, sent float64
	var written amount
	var longest, p99 time.Duration
	var peak, after int64
	n := float64(len(runs))
	for i, r := range runs {
		m := float64(r.Messages)
		rate += m / r.Took.Seconds() / n
		ratio += m / r.Took.Seconds() / (float64(first[i].Messages) / first[i].Took.Seconds()) / n
		cpu += r.CPU.Seconds() * 1000 / m / n
		written, sent = written.plus(r.Written), sent+m*float64(size)
		longest, p99, peak, after = max(longest, r.Longest), max(p99, r.P99), max(peak, r.Peak), max(after, r.After)
	}
	return []string{
		k.name, fmt.Sprintf("%.0f", rate), fmt.Sprintf("%.2f", ratio), fmt.Sprintf("%.2f", cpu), syncs, written.per(sent),
		milliseconds(longest), milliseconds(p99), octets(peak), octets(after),
	}
}

// syncs counts, in a run of its own that is slower by it, how often the kernel is asked for durability.
func (p *plan) syncs(ctx context.Context, k kind, size int) (string, error) {
	if _, err := exec.LookPath("strace"); err != nil {
		return "no strace", nil
	}
	dir, remove, err := p.dirFor()
	if err != nil {
		return "", err
	}
	defer remove()
	counts := filepath.Join(dir, "counts")
	r, err := p.one(ctx, task{Do: "flow", Engine: k.name, Size: size, For: min(p.flow, time.Second)},
		"strace", "-f", "--seccomp-bpf", "-c", "-e", "trace=fsync,fdatasync,syncfs,msync", "-o", counts)
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(counts)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%.2f", float64(calls(string(data)))/float64(r.Messages)), nil
}

// calls adds the fourth column of what strace -c writes.
func calls(text string) (n int) {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) >= 5 && f[len(f)-1] != "total" {
			c, _ := strconv.Atoi(f[3])
			n += c
		}
	}
	return n
}

// backlogs prints what it costs that mail waits.
func (p *plan) backlogs(ctx context.Context, w io.Writer) error {
	fmt.Fprintf(w, "### %d messages of %s that wait, then a crash, then all are delivered\n\n", p.n, octets(int64(p.size)))
	row := table(w, "engine", "enqueued/s", "longest enqueue", "99 % of them", "room on disk per octet of mail", "opened after kill -9", "memory then (mapped files)",
		"delivered/s", "written per octet of mail, in all (by pages)", "room when all is settled")
	for _, k := range p.kinds {
		cells, err := p.backlog(ctx, k)
		if err != nil {
			return err
		}
		row(cells...)
	}
	fmt.Fprintln(w)
	return nil
}

func (p *plan) backlog(ctx context.Context, k kind) ([]string, error) {
	dir, remove, err := p.dirFor()
	if err != nil {
		return nil, err
	}
	defer remove()
	progress("backlog: %s", k.name)
	t := task{Do: "fill", Engine: k.name, Dir: filepath.Join(dir, "spool"), Size: p.size, N: p.n}
	fill, err := t.good(ctx)
	if err != nil {
		return nil, err
	}
	t.Do = "drain"
	drain, err := t.good(ctx)
	if err != nil {
		return nil, err
	}
	if drain.Messages != p.n {
		return nil, fmt.Errorf("%s: %d of %d messages are there after a crash", k.name, drain.Messages, p.n)
	}
	mail := float64(p.n) * float64(p.size)
	return []string{
		k.name, perSecond(fill), milliseconds(fill.Longest), milliseconds(fill.P99), fmt.Sprintf("%.2f", float64(fill.Peak)/mail),
		milliseconds(drain.Ready), fmt.Sprintf("%s (%s)", octets(drain.RSS), octets(drain.RSSFiles)), perSecond(drain),
		fill.Written.plus(drain.Written).per(mail), octets(drain.After),
	}, nil
}

// faults prints what is lost.
func (p *plan) faults(ctx context.Context, w io.Writer) error {
	fmt.Fprintf(w, "### Faults\n\n")
	row := table(w, "engine", "kill -9 in mid-run", "torn last write", "a byte changed", "full disk")
	for _, k := range p.kinds {
		progress("faults: %s", k.name)
		kills, err := p.killRow(ctx, k)
		if err != nil {
			return err
		}
		cut, flipped, err := damage(ctx, k, p.damaged, p.size)
		if err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		full, err := p.fullRow(ctx, k)
		if err != nil {
			return err
		}
		row(k.name, kills, faultsRow(cut), faultsRow(flipped), full)
	}
	fmt.Fprintln(w)
	row = table(w, "engine", "settings", "repair by hand")
	for _, k := range p.kinds {
		row(k.name, k.settings, k.repair)
	}
	fmt.Fprintln(w)
	return nil
}

func (p *plan) killRow(ctx context.Context, k kind) (string, error) {
	accepted, lost, back, wrong := 0, 0, 0, 0
	for i := range p.kills {
		dir, remove, err := p.dirFor()
		if err != nil {
			return "", err
		}
		defer remove()
		t := task{Do: "endless", Engine: k.name, Dir: filepath.Join(dir, "spool"), Size: p.size}
		r, err := t.killed(ctx, 1000+i*1371)
		if err != nil {
			return "", err
		}
		t.Do = "list"
		left, err := t.good(ctx)
		if err != nil {
			return "", err
		}
		l, b := r.acks.compare(&left.result)
		accepted, lost, back, wrong = accepted+len(r.acks.accepted), lost+l, back+b, wrong+len(left.Wrong)+len(left.Damaged)
	}
	return fmt.Sprintf("%d accepted: %d lost, %d settled ones back, %d wrong", accepted, lost, back, wrong), nil
}

// faultsRow sums up what became of copies that were damaged in several places.
func faultsRow(faults []fault) string {
	var each []string
	said := ""
	for _, f := range faults {
		each = append(each, f.String())
		if said == "" {
			said = f.said
		}
	}
	s := strings.Join(each, " / ")
	if said != "" {
		s += "; says `" + strings.NewReplacer("|", "¦", "`", "'").Replace(said) + "`"
	}
	return s
}

func (f fault) String() string {
	if !f.opens {
		return "**does not open**"
	}
	var s []string
	if f.missing > 0 {
		s = append(s, fmt.Sprintf("%d missing", f.missing))
	}
	if f.damaged > 0 {
		s = append(s, fmt.Sprintf("%d unreadable", f.damaged))
	}
	if f.wrong > 0 {
		s = append(s, fmt.Sprintf("**%d wrong**", f.wrong))
	}
	if len(s) == 0 {
		return "no harm"
	}
	if f.said == "" {
		s = append(s, "in silence")
	}
	return strings.Join(s, ", ")
}

func (p *plan) fullRow(ctx context.Context, k kind) (string, error) {
	dir, remove, err := p.dirFor()
	if err != nil {
		return "", err
	}
	defer remove()
	r, err := task{Do: "full", Engine: k.name, Dir: dir, Size: p.size}.isolated(ctx)
	if errors.Is(err, errNoMounts) || strings.Contains(r.Error, errNoMounts.Error()) {
		return "not tried: " + errNoMounts.Error(), nil
	}
	if err != nil || r.Error != "" || r.died != "" {
		return "", fmt.Errorf("%s, full disk: %w", k.name, errors.Join(err, errors.New(r.Error+r.died)))
	}
	return strings.ReplaceAll(strings.Join(r.Steps, "; "), "|", "¦"), nil
}

func (a amount) per(octets float64) string {
	return fmt.Sprintf("%.2f (%.2f)", float64(a.Calls)/octets, float64(a.Pages)/octets)
}

func perSecond(r run) string { return fmt.Sprintf("%.0f", float64(r.Messages)/r.Took.Seconds()) }

func milliseconds(d time.Duration) string {
	if d < 10*time.Millisecond {
		return fmt.Sprintf("%.1f ms", float64(d)/1e6)
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}

func octets(n int64) string {
	switch {
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<20:
		return fmt.Sprintf("%.3g MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d KiB", n>>10)
}
