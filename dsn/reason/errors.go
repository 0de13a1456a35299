package reason

import (
	"fmt"
	"strings"
)

// An Error is one mistake in a rules file.
type Error struct {
	File    string
	Line    int    // 1-based
	Column  int    // 1-based, in octets
	Text    string // the offending text, or its beginning
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

// Errors are all mistakes in a rules file, in the order of its lines. errors.As finds the first as an [*Error].
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

// maxErrorText is how much of the offending text is told, in octets.
const maxErrorText = 200

// nearest is the candidate that s most likely means: the one with the fewest other letters, up to a third of them; "" for none.
func nearest(s string, candidates []string) string {
	best, found := 1+min(len(s), 40)/3, ""
	for _, c := range candidates {
		if d := distance(s, c); d < best {
			best, found = d, c
		}
	}
	return found
}

// distance counts the letters to add, leave out or replace to make b of a.
func distance(a, b string) int {
	if len(a) > 40 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d++
			}
			diagonal = row[j+1]
			row[j+1] = min(d, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// suggest is the end of an error about a word that is none of those allowed.
func suggest(s string, candidates []string) string {
	if near := nearest(strings.ToLower(s), candidates); near != "" {
		return "did you mean " + near + "?"
	}
	return "write one of " + strings.Join(candidates, ", ")
}
