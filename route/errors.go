package route

import (
	"fmt"
	"strings"
)

// An Error is one mistake in a routing file.
type Error struct {
	File    string
	Line    int    // 1-based
	Column  int    // 1-based, in octets
	Text    string // the offending text
	Problem string // what is wrong with it
	Fix     string // what to write instead
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: ", e.File, e.Line, e.Column)
	if e.Text != "" {
		fmt.Fprintf(&b, "%q: ", e.Text)
	}
	b.WriteString(e.Problem)
	if e.Fix != "" {
		b.WriteString(": " + e.Fix)
	}
	return b.String()
}

// Errors are all mistakes in a routing file, in the order of its lines. errors.As finds the first as an [*Error].
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
