package route

import (
	"fmt"
	"strings"
)

// An Error is one mistake in a routing file.
type Error struct {
	File    string // "" of what stands in no file
	Line    int    // 1-based
	Column  int    // 1-based, in octets
	Text    string // the offending text
	Problem string // what is wrong with it
	Fix     string // what to write instead
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.File == "" {
		fmt.Fprintf(&b, "column %d: ", e.Column)
	} else {
		fmt.Fprintf(&b, "%s:%d:%d: ", e.File, e.Line, e.Column)
	}
	if e.Text != "" {
		fmt.Fprintf(&b, "%q: ", shorten(e.Text))
	}
	b.WriteString(shorten(e.Problem))
	if e.Fix != "" {
		b.WriteString(": " + shorten(e.Fix))
	}
	return b.String()
}

// shownText is how much of each part of a mistake stands in a message, in octets: a line may be very long.
const shownText = 300

func shorten(s string) string {
	if len(s) <= shownText {
		return s
	}
	return strings.ToValidUTF8(s[:shownText], "") + "…"
}

// redact hides what stands where people put a password, USER:PASSWORD@HOST, in a text or in advice made of it.
func redact(s string) string {
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return s
	}
	start := strings.Index(s[:at], "://")
	if start >= 0 {
		start += len("://")
	} else {
		start = 0
	}
	colon := strings.IndexByte(s[start:at], ':')
	if colon < 0 {
		return s
	}
	return s[:start+colon+1] + "…" + s[at:]
}

// Errors are all mistakes in a routing file, in the order of its lines; of more than a hundred the others are counted in
// the last one. errors.As finds the first as an [*Error].
type Errors []*Error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the mistakes to errors.Is and errors.As.
func (e Errors) Unwrap() []error {
	all := make([]error, len(e))
	for i, one := range e {
		all[i] = one
	}
	return all
}

// maxErrors is how many mistakes of one file are told: a file of another kind has one in each line.
const maxErrors = 100
