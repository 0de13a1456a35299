package deliver

import (
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"
)

// A Transcript gets every line of every session, both ways. Credentials are replaced before, and bodies are told as
// their number of octets. Implementations are safe for concurrent use and must return quickly.
type Transcript interface{ Line(l TranscriptLine) }

// A TranscriptLine is one line of a session.
type TranscriptLine struct {
	Time time.Time
	ID   string // of the message
	Host string // the far end
	Addr netip.AddrPort
	From byte   // 'C' we said it, 'S' the host said it, '*' it happened
	Text string // exactly as it was said, without the line break
}

// NewTranscript writes a transcript as text, one line each: time, message, host and address, who, text. Control
// characters are written as \x1b, so that no far end can play tricks on a terminal.
func NewTranscript(w io.Writer) Transcript { return &textTranscript{w: w} }

type textTranscript struct {
	mu sync.Mutex // guards w
	w  io.Writer
}

func (t *textTranscript) Line(l TranscriptLine) {
	where := l.Host
	if l.Addr.IsValid() {
		where += "[" + l.Addr.Addr().String() + "]"
	}
	text := fmt.Sprintf("%s %s %s %c: %s\n", l.Time.UTC().Format("2006-01-02T15:04:05.000Z"), l.ID, where, l.From, visible(l.Text))
	t.mu.Lock()
	defer t.mu.Unlock()
	io.WriteString(t.w, text)
}

// visible writes control characters as \xNN and leaves everything else as it is.
func visible(s string) string {
	clean := true
	for _, r := range s {
		if isControl(r) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b []byte
	for i, r := range s {
		switch {
		case r == 0xfffd && s[i] != 0xef: // not UTF-8
			b = fmt.Appendf(b, `\x%02x`, s[i])
		case isControl(r):
			b = fmt.Appendf(b, `\x%02x`, r)
		default:
			b = append(b, string(r)...)
		}
	}
	return string(b)
}

// isControl reports what may act on a terminal: C0 and C1 controls, and the marks that turn the direction of text.
func isControl(r rune) bool {
	return r < ' ' || (r >= 0x7f && r < 0xa0) || r == 0xfffd || (r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069)
}
