package dsn

import (
	"bytes"
	"iter"
)

// splitParts gives the parts of a multipart body (RFC 2046, section 5.1.1) octet for octet. Where the boundary is not in it, as
// in mail that was rewritten on its way, it takes the one that is. The last part may lack its end.
//
// enmime and mime/multipart are not used for this: the first follows parts within parts without a limit, and both
// want a boundary that is right.
func splitParts(body []byte, boundary string) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		delimiter := []byte("--" + boundary)
		if boundary == "" || !hasDelimiter(body, delimiter) {
			if delimiter = guessDelimiter(body); delimiter == nil {
				return
			}
		}
		start := -1 // of the part that is being read; -1 in the preamble
		for at := 0; at < len(body); {
			line := body[at:]
			if i := bytes.IndexByte(line, '\n'); i >= 0 {
				line = line[:i+1]
			}
			if is, last := isDelimiter(line, delimiter); is {
				if start >= 0 && !yield(withoutLineEnd(body[start:max(start, at)])) {
					return
				}
				if start = at + len(line); last {
					return
				}
			}
			at += len(line)
		}
		if start >= 0 && start < len(body) {
			yield(body[start:])
		}
	}
}

// isDelimiter reports whether a line is a delimiter, and the last one. Some are indented.
func isDelimiter(line, delimiter []byte) (is, last bool) {
	rest, ok := bytes.CutPrefix(bytes.TrimLeft(line, " \t"), delimiter)
	if !ok {
		return false, false
	}
	rest, last = bytes.CutPrefix(rest, []byte("--"))
	return len(bytes.Trim(rest, " \t\r\n")) == 0, last
}

func hasDelimiter(body, delimiter []byte) bool {
	for line := range bytes.Lines(body) {
		if is, _ := isDelimiter(line, delimiter); is {
			return true
		}
	}
	return false
}

// guessDelimiter finds a line that looks like a delimiter: two hyphens and a word, before a Content- field.
func guessDelimiter(body []byte) []byte {
	const most = 2 + 70 // RFC 2046, section 5.1.1
	var before []byte
	for line := range bytes.Lines(body) {
		if len(before) > 2 && len(line) > 8 && bytes.EqualFold(line[:8], []byte("Content-")) {
			return before
		}
		before = nil
		word := bytes.TrimRight(line, " \t\r\n")
		if bytes.HasPrefix(word, []byte("--")) && len(word) <= most && !bytes.ContainsAny(word, " \t") {
			before = word
		}
	}
	return nil
}

// withoutLineEnd takes off the line end that belongs to the delimiter after it.
func withoutLineEnd(b []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
}
