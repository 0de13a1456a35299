package deliver

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"
	"unicode/utf8"
)

// A Transcript gets every line of every session, both ways. Credentials are replaced by *** before, also where the host
// repeats them, and bodies are told as their number of octets. Implementations are safe for concurrent use and must
// return quickly.
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
// characters are written as \x1b, so that no far end can play tricks on a terminal. What cannot be written is lost.
func NewTranscript(w io.Writer) Transcript { return &textTranscript{w: w} }

type textTranscript struct {
	mu sync.Mutex // guards w
	w  io.Writer
}

func (t *textTranscript) Line(l TranscriptLine) {
	at, id := l.Time.UTC().Format("2006-01-02T15:04:05.000Z"), visible(cmp.Or(l.ID, "-"))
	text := fmt.Sprintf("%s %s %s %c: %s\n", at, id, where(l.Host, l.Addr.Addr()), l.From, visible(l.Text))
	t.mu.Lock()
	defer t.mu.Unlock()
	io.WriteString(t.w, text)
}

// visible writes what is no text as \xNN and leaves everything else as it is.
func visible(s string) string {
	var b []byte
	done := 0 // octets of s that are in b
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if isControl(r) || (r == utf8.RuneError && size == 1) {
			b = append(b, s[done:i]...)
			for _, c := range []byte(s[i : i+size]) {
				b = fmt.Appendf(b, `\x%02x`, c)
			}
			done = i + size
		}
		i += size
	}
	if b == nil {
		return s
	}
	return string(append(b, s[done:]...))
}

// isControl reports what may act on a terminal: C0 and C1 controls, and the marks that turn the direction of text.
func isControl(r rune) bool {
	return r < ' ' || (r >= 0x7f && r < 0xa0) ||
		r == 0x200e || r == 0x200f || (r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069)
}
