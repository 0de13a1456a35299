package deliver

import (
	"bytes"
	"encoding/base64"
	"unicode/utf8"
)

// encodedLine is how long a line of quoted-printable or base64 may be (RFC 2045, sections 6.7 and 6.8).
const encodedLine = 76

// A quoter encodes as quoted-printable (RFC 2045, section 6.7).
type quoter struct {
	column int
	space  byte // white space that is to be written, or encoded at the end of a line; 0 is none
}

func (q *quoter) text(out, p []byte) []byte {
	for _, c := range p {
		out = q.flush(out, false)
		switch {
		case isSpace(c):
			q.space = c
		case c > ' ' && c < 0x7f && c != '=':
			out = q.literal(out, c)
		default:
			out = q.escape(out, c)
		}
	}
	return out
}

// flush writes white space. At the end of a line it would be lost.
func (q *quoter) flush(out []byte, atEnd bool) []byte {
	c := q.space
	q.space = 0
	switch {
	case c == 0:
		return out
	case atEnd:
		return q.escape(out, c)
	}
	return q.literal(out, c)
}

// literal writes an octet as it is. One that begins a line by our doing alone must not make a delimiter of it.
func (q *quoter) literal(out []byte, c byte) []byte {
	out, broken := q.room(out, 1)
	if broken && c == '-' {
		return q.escape(out, c)
	}
	q.column++
	return append(out, c)
}

const hexDigits = "0123456789ABCDEF"

func (q *quoter) escape(out []byte, c byte) []byte {
	out, _ = q.room(out, 3)
	q.column += 3
	return append(out, '=', hexDigits[c>>4], hexDigits[c&15])
}

// room breaks the line softly where n octets and the mark of a soft break do not fit.
func (q *quoter) room(out []byte, n int) (_ []byte, broken bool) {
	if q.column+n < encodedLine {
		return out, false
	}
	q.column = 0
	return append(out, "=\r\n"...), true
}

func (q *quoter) eol(out, _ []byte) []byte {
	out = q.close(out)
	q.column = 0
	return append(out, crlf...)
}

func (q *quoter) close(out []byte) []byte { return q.flush(out, true) }

// A quotedMender gives quoted-printable lines that can be sent. Lines that can already stay as they are. An octet that
// quoted-printable should not have stands for itself to readers, and is encoded.
type quotedMender struct {
	quoter
	inside  bool // a line
	mending bool // it
	equals  []byte
}

func (m *quotedMender) text(out, p []byte) []byte {
	if !m.inside {
		m.inside = true
		m.mending = len(p) > longestLine || !isASCII(p) || bytes.IndexByte(p, 0) >= 0
	}
	if !m.mending {
		return append(out, p...)
	}
	for _, c := range p {
		out = m.octet(out, c)
	}
	return out
}

// octet copies an octet; those of "=XX" together.
func (m *quotedMender) octet(out []byte, c byte) []byte {
	if len(m.equals) > 0 && isHex(c) {
		if m.equals = append(m.equals, c); len(m.equals) < 3 {
			return out
		}
		out, _ = m.room(out, 3)
		m.column += 3
		out = append(out, m.equals...)
		m.equals = m.equals[:0]
		return out
	}
	out = m.spill(out)
	switch {
	case c == '=':
		m.equals = append(m.equals, c)
		return out
	case c >= utf8.RuneSelf || c == 0:
		return m.escape(out, c)
	}
	return m.literal(out, c)
}

func isHex(c byte) bool { return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f' }

// spill copies what looked like an encoded octet.
func (m *quotedMender) spill(out []byte) []byte {
	for _, c := range m.equals {
		out = m.literal(out, c)
	}
	m.equals = m.equals[:0]
	return out
}

func (m *quotedMender) eol(out, end []byte) []byte { return append(m.close(out), end...) }

func (m *quotedMender) close(out []byte) []byte {
	out = m.spill(out)
	m.column, m.inside = 0, false
	return out
}

// A base64Writer encodes as base64 (RFC 2045, section 6.8).
type base64Writer struct {
	raw    bool // line ends are as they stand; otherwise CRLF, as of text (RFC 2046, section 4.1.1)
	wrote  bool
	octets []byte // of a line that is not full
}

const octetsInLine = encodedLine / 4 * 3

func (b *base64Writer) text(out, p []byte) []byte {
	for len(p) > 0 {
		n := min(octetsInLine-len(b.octets), len(p))
		b.octets = append(b.octets, p[:n]...)
		p = p[n:]
		if len(b.octets) == octetsInLine {
			out = b.line(out)
		}
	}
	return out
}

func (b *base64Writer) line(out []byte) []byte {
	if b.wrote {
		out = append(out, crlf...)
	}
	b.wrote = true
	out = base64.StdEncoding.AppendEncode(out, b.octets)
	b.octets = b.octets[:0]
	return out
}

func (b *base64Writer) eol(out, end []byte) []byte {
	if !b.raw {
		end = crlf
	}
	return b.text(out, end)
}

func (b *base64Writer) close(out []byte) []byte {
	if len(b.octets) > 0 {
		out = b.line(out)
	}
	return out
}

// A base64Mender gives base64 lines that can be sent. Lines that can already stay as they are. What is not of the alphabet
// means nothing (RFC 2045, section 6.8).
type base64Mender struct {
	column  int
	inside  bool // a line
	mending bool // it
}

func (m *base64Mender) text(out, p []byte) []byte {
	if !m.inside {
		m.inside, m.column = true, 0
		m.mending = len(p) > longestLine || !isASCII(p) || bytes.IndexByte(p, 0) >= 0
	}
	if !m.mending {
		return append(out, p...)
	}
	for _, c := range p {
		if !isBase64(c) {
			continue
		}
		if m.column == encodedLine {
			out = append(out, crlf...)
			m.column = 0
		}
		m.column++
		out = append(out, c)
	}
	return out
}

func isBase64(c byte) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || c == '+' || c == '/' || c == '='
}

func (m *base64Mender) eol(out, end []byte) []byte {
	m.inside = false
	return append(out, end...)
}

func (m *base64Mender) close(out []byte) []byte { return out }
