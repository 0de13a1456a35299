package dsn

import (
	"bytes"
	"iter"
	"strings"
)

// maxField is how much of one field is read, in octets.
const maxField = 64 << 10

// fields gives the fields of a header section, or of a part that looks like one. A value has its lines after the first
// with a line feed before them and their space, so that it can still be seen where it was folded: see unfold. A name ""
// is an empty line. What is no field is taken as going on with the one before it, as some mail systems forget to fold,
// and two hyphens at the start of a line, where a boundary was mangled, are the end.
func fields(section []byte) iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		var name string
		var value strings.Builder
		for line := range bytes.Lines(section) {
			text := string(bytes.TrimRight(line[:min(len(line), maxField)], "\r\n"))
			next, rest, ok := cutField(text)
			blank := strings.Trim(text, " \t") == ""
			if !ok && !blank && !strings.HasPrefix(text, "--") {
				if value.Len()+len(text) < maxField {
					value.WriteString("\n" + text)
				}
				continue
			}
			if name != "" && !yield(name, value.String()) {
				return
			}
			value.Reset()
			switch {
			case blank:
				name = ""
				if !yield("", "") {
					return
				}
			case !ok:
				return
			default:
				name = next
				value.WriteString(rest)
			}
		}
		if name != "" {
			yield(name, value.String())
		}
	}
}

// cutField reads the first line of a field.
func cutField(line string) (name, value string, ok bool) {
	name, value, ok = strings.Cut(line, ":")
	name = strings.TrimRight(name, " \t") // RFC 5322, section 4.5.8
	if !ok || name == "" || len(name) > 100 {
		return "", "", false
	}
	for i := range len(name) {
		if name[i] <= ' ' || name[i] >= 0x7f {
			return "", "", false
		}
	}
	return name, value, true
}

// unfold makes one line of a value. RFC 5322, section 2.2.3, keeps the space that a line begins with; the whole of it is taken
// as one space, as most mail systems indent.
func unfold(value string) string {
	first, rest, folded := strings.Cut(value, "\n")
	if !folded {
		return value
	}
	var b strings.Builder
	b.WriteString(first)
	for line := range strings.SplitSeq(rest, "\n") {
		b.WriteString(" " + strings.TrimLeft(line, " \t"))
	}
	return b.String()
}
