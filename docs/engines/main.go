// Command engines measures what could be the storage of package queue/disk, each engine with the same work, and prints the
// tables of README.md. It needs Linux; with strace installed it counts fsyncs, and as root, or where users may have name spaces, it
// fills a small disk.
//
//	go run .                            all of it: under 6 minutes
//	go run . -quick                     a first look: under a minute
//	go run . -engine own,pebble -n 1000000
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A plan is what is to be measured.
type plan struct {
	kinds   []kind
	dir     string
	size    int           // octets of a usual message
	large   int           // octets of a large one
	n       int           // messages of the backlog
	damaged int           // messages of a spool that is damaged
	flow    time.Duration // of each round
	rounds  int
	kills   int
	parts   []string
}

func main() {
	var p plan
	var names, parts, write string
	var quick bool
	taskText := flag.String("task", "", "for the program itself: what a process that it starts is to do")
	flag.StringVar(&names, "engine", "", "measure these alone, with commas between them")
	flag.StringVar(&parts, "part", "flow,backlog,faults", "what to measure")
	flag.StringVar(&p.dir, "dir", ".", "make spools in a new folder here: it should be on a disk and not in memory")
	flag.IntVar(&p.size, "size", 4<<10, "octets of a message")
	flag.IntVar(&p.n, "n", 30_000, "messages of the backlog")
	flag.DurationVar(&p.flow, "for", 1500*time.Millisecond, "how long each engine works in a round")
	flag.IntVar(&p.rounds, "rounds", 2, "rounds, in each of which all engines have their turn")
	flag.BoolVar(&quick, "quick", false, "short and small")
	flag.StringVar(&write, "write", "", "put the tables into this file, between its lines <!-- tables --> and <!-- end of tables -->")
	flag.Parse()
	if *taskText != "" {
		runTask(*taskText)
		return
	}
	p.large, p.damaged, p.kills, p.parts = 1<<20, 16_000, 2, strings.Split(parts, ",")
	if quick {
		p.n, p.flow, p.rounds, p.kills, p.damaged = 3000, 400*time.Millisecond, 1, 1, 500
	}
	if err := p.choose(names); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := p.report(ctx, write); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func (p *plan) choose(names string) error {
	if names == "" {
		p.kinds = slices.DeleteFunc(slices.Clone(kinds), func(k kind) bool { return k.aside })
		return nil
	}
	for name := range strings.SplitSeq(names, ",") {
		k, err := kindNamed(strings.TrimSpace(name))
		if err != nil {
			return err
		}
		p.kinds = append(p.kinds, k)
	}
	return nil
}

// report measures, and prints or writes the tables.
func (p *plan) report(ctx context.Context, write string) error {
	if write != "" { // better now than after six minutes
		if err := paste(write, ""); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp(p.dir, "spools-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if p.dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	var out strings.Builder
	if err := p.machine(&out); err != nil {
		return err
	}
	for _, part := range []struct {
		name  string
		print func(context.Context, io.Writer) error
	}{{"flow", p.flows}, {"backlog", p.backlogs}, {"faults", p.faults}} {
		if !slices.Contains(p.parts, part.name) {
			continue
		}
		if err := part.print(ctx, &out); err != nil {
			fmt.Print(out.String())
			return err
		}
		if write == "" {
			fmt.Print(out.String())
			out.Reset()
		}
	}
	if write != "" {
		return paste(write, out.String())
	}
	return nil
}

const tablesBegin, tablesEnd = "<!-- tables -->\n", "<!-- end of tables -->\n"

// paste puts the tables into a file.
func paste(path, tables string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	head, rest, ok := strings.Cut(string(data), tablesBegin)
	_, tail, ok2 := strings.Cut(rest, tablesEnd)
	if !ok || !ok2 {
		return fmt.Errorf("%s: write the lines %s and %s where the tables go", path, strings.TrimSpace(tablesBegin), strings.TrimSpace(tablesEnd))
	}
	return os.WriteFile(path, []byte(head+tablesBegin+"\n"+strings.TrimSpace(tables)+"\n\n"+tablesEnd+tail), 0o644)
}
