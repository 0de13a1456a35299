package dsn

import (
	"fmt"
	"strconv"
	"strings"
)

// A Reply is what an SMTP server answered (RFC 5321, section 4.2). The zero Reply is no answer at all.
type Reply struct {
	Code  int      `json:"code,omitempty"`  // 200 to 599
	Lines []string `json:"lines,omitempty"` // the text of each line after "250-" or "250 ", exactly as it was sent
}

// ParseReply reads a reply from text: the lines of a session ("550-first", "550 last", with CRLF or LF), or a
// code and its text in one line ("550 5.1.2 moved").
func ParseReply(text string) (Reply, error) {
	var r Reply
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if len(line) < 3 || (len(line) > 3 && line[3] != ' ' && line[3] != '-') {
			return Reply{}, fmt.Errorf("dsn: %q is not a line of an SMTP reply: want three digits, then a space or a hyphen", line)
		}
		code, err := strconv.Atoi(line[:3])
		if err != nil || code < 200 || code > 599 {
			return Reply{}, fmt.Errorf("dsn: %q does not start with an SMTP reply code (200 to 599)", line)
		}
		if r.Code != 0 && code != r.Code {
			return Reply{}, fmt.Errorf("dsn: reply codes %d and %d in one reply", r.Code, code)
		}
		r.Code = code
		r.Lines = append(r.Lines, strings.TrimPrefix(line[3:], line[3:min(4, len(line))]))
	}
	if r.Code == 0 {
		return Reply{}, fmt.Errorf("dsn: empty reply")
	}
	return r, nil
}

// Status is the enhanced status code at the start of the reply's text (RFC 2034), or "" where it has none or
// its class contradicts the reply code (RFC 2034, section 4: the reply code rules). All lines should have it; where only
// some do, the first of those counts.
func (r Reply) Status() Status {
	for _, line := range r.Lines {
		word, _, _ := strings.Cut(line, " ")
		if s, ok := ParseStatus(word); ok && s.Class() == r.Code/100 {
			return s
		}
	}
	return ""
}

// Text is what the reply says in words: its lines without enhanced status codes, joined by newlines.
func (r Reply) Text() string {
	lines := make([]string, len(r.Lines))
	for i, line := range r.Lines {
		word, rest, _ := strings.Cut(line, " ")
		if _, ok := ParseStatus(word); ok {
			line = rest
		}
		lines[i] = line
	}
	return strings.Join(lines, "\n")
}

// String is the reply in one line, for logs: "550 5.7.1 first line second line".
func (r Reply) String() string {
	if r.Code == 0 {
		return ""
	}
	return strings.TrimRight(strconv.Itoa(r.Code)+" "+strings.Join(r.Lines, " "), " ")
}

// Wire is the reply as it stood in the session, one line each, without the final line break.
func (r Reply) Wire() string {
	var b strings.Builder
	for i, line := range r.Lines {
		sep := "-"
		if i == len(r.Lines)-1 {
			sep = " "
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%03d%s%s", r.Code, sep, line)
	}
	return b.String()
}

// IsZero reports whether there was no answer.
func (r Reply) IsZero() bool { return r.Code == 0 && len(r.Lines) == 0 }

// Temporary reports whether the reply is a 4yz.
func (r Reply) Temporary() bool { return r.Code/100 == 4 }

// Permanent reports whether the reply is a 5yz.
func (r Reply) Permanent() bool { return r.Code/100 == 5 }
