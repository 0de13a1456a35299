package dsn

import (
	"bytes"
	"strings"
	"time"
	"unicode/utf8"
)

// Widths of lines in octets (RFC 5322, section 2.1.1).
const (
	lineWidth = 78
	maxLine   = 900 // the hard limit is 998
)

// replyFold begins each line of a reply after its first in a Diagnostic-Code field. Lines that are only long go on
// after a space, so that a reader can tell the two apart, and one that cannot sees what other mail systems write:
// the lines one after the other.
const replyFold = "\r\n\t"

// A fieldWriter writes fields of a header section or of a status part.
type fieldWriter struct {
	buf    bytes.Buffer
	global bool // fields may have UTF-8; else they are written in ASCII
}

// token writes a field that has no place for encoded words. Without a value there is no field.
func (w *fieldWriter) token(name, value string) {
	value = neutral(value)
	if !w.global {
		value = asASCII(value)
	}
	w.field(name, value)
}

// text writes a field of text.
func (w *fieldWriter) text(name, value string) { w.field(name, w.encode(neutral(value))) }

// date writes a field with a time. The zero time writes nothing.
func (w *fieldWriter) date(name string, t time.Time) {
	if !t.IsZero() {
		w.field(name, t.UTC().Format(time.RFC1123Z))
	}
}

// reply writes a reply, each line of it on a line of its own.
func (w *fieldWriter) reply(name string, r Reply) {
	w.buf.WriteString(name + ": smtp; ")
	col := len(name) + len(": smtp; ")
	for i, line := range r.Lines {
		if i > 0 {
			w.buf.WriteString(replyFold)
			col = 1
		}
		one := Reply{Code: r.Code, Lines: []string{w.encode(line)}}.Wire()
		if i < len(r.Lines)-1 {
			one = one[:3] + "-" + one[4:]
		}
		w.fold(one, col)
	}
	w.end()
}

// end closes a field or a group of fields.
func (w *fieldWriter) end() { w.buf.WriteString("\r\n") }

func (w *fieldWriter) encode(value string) string {
	if w.global && !strings.Contains(value, "=?") {
		return value
	}
	return encodeWords(value)
}

func (w *fieldWriter) field(name, value string) {
	if strings.TrimSpace(value) == "" {
		return
	}
	w.buf.WriteString(name + ": ")
	w.fold(value, len(name)+2)
	w.end()
}

// fold writes a value that begins in column col over as many lines as it needs (RFC 5322, section 2.2.3). Taking out the line
// ends gives it back, except for a word longer than maxLine, which gets a space.
func (w *fieldWriter) fold(s string, col int) {
	for {
		cut := foldAt(s, lineWidth-col)
		w.buf.WriteString(s[:cut])
		if s = s[cut:]; s == "" {
			return
		}
		w.buf.WriteString("\r\n")
		if s[0] != ' ' {
			w.buf.WriteByte(' ')
		}
		col = 0
	}
}

// foldAt is where to fold s so that at most room octets stand before it, if that can be: before a single space or the last of
// several, so that no line begins with more than one, and none has spaces alone.
func foldAt(s string, room int) int {
	if len(s) <= room {
		return len(s)
	}
	best := 0
	for i := 1; i < len(s)-1; i++ {
		if i > room && best > 0 || i > maxLine {
			break
		}
		if s[i] == ' ' && s[i+1] != ' ' {
			best = i
		}
	}
	if best > 0 {
		return best
	}
	if len(s) <= maxLine {
		return len(s)
	}
	cut := maxLine
	for s[cut] == ' ' || s[cut-1] == ' ' || !utf8.RuneStart(s[cut]) {
		cut--
	}
	return cut
}
