package route

import "strings"

// A word is a piece of a line, with quotes as they stand.
type word struct {
	text string
	col  int // 1-based
}

// words cuts a line at blanks and commas outside double quotes. A comma is a word of its own. A # at the start of a
// word begins a comment. open is the column of a quote that is not closed, 0 if all are.
func words(line string, into []word) (_ []word, open int) {
	for i := 0; i < len(line); {
		switch c := line[i]; c {
		case ' ', '\t':
			i++
		case ',':
			into = append(into, word{",", i + 1})
			i++
		case '#':
			return into, 0
		default:
			end, closed := wordEnd(line, i)
			into = append(into, word{line[i:end], i + 1})
			if !closed {
				return into, i + 1
			}
			i = end
		}
	}
	return into, 0
}

func wordEnd(line string, i int) (end int, closed bool) {
	quoted := false
	for ; i < len(line); i++ {
		switch c := line[i]; {
		case quoted && c == '\\' && i+1 < len(line):
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ' ' || c == '\t' || c == ','):
			return i, true
		}
	}
	return len(line), !quoted
}

// unquote takes the double quotes and backslashes of a word away.
func unquote(s string) string {
	if !strings.ContainsAny(s, `"\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case s[i] != '"':
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// quote writes s so that unquote gives it back.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// nearest is the candidate that s most likely means: one edit away, or two in a long word; "" for none, and where the mistake
// will only be counted.
func (p *parser) nearest(s string, candidates []string) string {
	if len(p.errs) == maxErrors {
		return ""
	}
	best, found := 1+len(s)/5, ""
	for _, c := range candidates {
		if d := distance(strings.ToLower(s), c); d <= best {
			best, found = d-1, c
		}
	}
	return found
}

// distance counts the edits from a to b: letters added, left out, replaced, and neighbours swapped.
func distance(a, b string) int {
	if len(a) > 40 {
		return len(a)
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
