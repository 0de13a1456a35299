package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// A table is what was measured, with the bounds that it should keep.
type table struct {
	out    io.Writer
	rows   []row
	missed int
}

type row struct{ what, value, bound, verdict string }

// add adds a figure that has no bound.
func (t *table) add(what, format string, args ...any) {
	t.rows = append(t.rows, row{what: what, value: fmt.Sprintf(format, args...)})
}

// check adds a figure that keeps its bound or misses it. A bound of "" is none.
func (t *table) check(ok bool, bound, what, format string, args ...any) {
	t.add(what, format, args...)
	if bound == "" {
		return
	}
	r := &t.rows[len(t.rows)-1]
	r.bound, r.verdict = bound, "ok"
	if !ok {
		r.verdict = "MISSED"
		t.missed++
	}
}

// title begins a part of the table.
func (t *table) title(text string) {
	t.rows = append(t.rows, row{}, row{what: text})
}

// print writes the table, and returns an error that says how many bounds were missed.
func (t *table) print() error {
	widths := [3]int{}
	for _, r := range t.rows {
		if r.value != "" {
			widths = [3]int{max(widths[0], width(r.what)), max(widths[1], width(r.value)), max(widths[2], width(r.bound))}
		}
	}
	for _, r := range t.rows {
		line := fmt.Sprintf("%-*s  %-*s  %-*s  %s", widths[0], r.what, widths[1], r.value, widths[2], r.bound, r.verdict)
		if _, err := fmt.Fprintln(t.out, strings.TrimRight(line, " ")); err != nil {
			return err
		}
	}
	switch t.missed {
	case 0:
		return nil
	case 1:
		return errors.New("1 bound is missed")
	}
	return fmt.Errorf("%d bounds are missed", t.missed)
}

// width is how much room a text takes, as package fmt counts.
func width(text string) int { return utf8.RuneCountInString(text) }

// mib is a number of octets in MiB.
func mib(octets int64) float64 { return float64(octets) / (1 << 20) }

// perSecond is a rate.
func perSecond(n int, took time.Duration) float64 { return float64(n) / took.Seconds() }
