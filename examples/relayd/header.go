package main

// What a relay does to a header: it adds a Received field, and leaves out Return-Path.

import (
	"bufio"
	"bytes"
	"net/netip"
	"strings"
	"time"
)

// received is the trace field that a relay puts before a message (RFC 5321, section 4.4). It names a recipient only where
// there is one: among several it would give away the blind copies (section 7.2).
func (t *transaction) received(host string, now time.Time) string {
	var b strings.Builder
	b.WriteString("Received: from " + heloWord(t.helo) + " (" + addressLiteral(t.client) + ")\r\n")
	b.WriteString("\tby " + host + " with " + t.protocol() + " id " + t.id)
	if len(t.env.To) == 1 {
		b.WriteString("\r\n\tfor <" + t.env.To[0].Address + ">")
	}
	b.WriteString("; " + now.Format("Mon, 02 Jan 2006 15:04:05 -0700") + "\r\n")
	return b.String()
}

// protocol is the keyword of RFC 3848 and, for mail with UTF-8 in its header, of RFC 6531, section 4.3.
func (t *transaction) protocol() string {
	switch {
	case t.env.UTF8:
		return "UTF8SMTP"
	case t.esmtp:
		return "ESMTP"
	}
	return "SMTP"
}

// heloWord is what a client called itself, as far as it may stand in a header.
func heloWord(name string) string {
	name = strings.Map(func(r rune) rune {
		if r > ' ' && r < 0x7f && !strings.ContainsRune("()<>@,;\\\"", r) {
			return r
		}
		return '?'
	}, name)
	return name[:min(len(name), 255)]
}

// addressLiteral writes an address as RFC 5321, section 4.1.3 has it.
func addressLiteral(a netip.Addr) string {
	if a.Is6() {
		return "[IPv6:" + a.String() + "]"
	}
	return "[" + a.String() + "]"
}

// headerSize is how much of a header is looked at in one piece; longer lines pass in several.
const headerSize = 4 << 10

// headerReader passes a message on without its Return-Path fields: they belong into mailboxes, and one that is sent along
// is wrong there (RFC 5321, section 4.4). Where a message begins with text instead of a header, an empty line comes before
// it: the Received field would make a header of the text otherwise. Everything else stays octet for octet.
type headerReader struct {
	r    *bufio.Reader
	line []byte // not handed on yet
	part bool   // line is not the start of one
	drop bool   // the field is a Return-Path
	kept bool   // something was handed on
	body bool
	err  error
}

// Read implements io.Reader.
func (h *headerReader) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) && !h.body {
		if len(h.line) == 0 {
			if h.err != nil {
				break
			}
			if n > 0 && h.r.Buffered() == 0 {
				return n, nil
			}
			h.line = h.next()
			continue
		}
		k := copy(p[n:], h.line)
		h.line = h.line[k:]
		n += k
	}
	switch {
	case n > 0 || len(p) == 0:
		return n, nil
	case len(h.line) > 0:
		n = copy(p, h.line)
		h.line = h.line[n:]
		return n, nil
	case h.err != nil:
		return 0, h.err
	}
	return h.r.Read(p)
}

var returnPath = []byte("return-path:")

// next reads a line of the header, nil where it is left out.
func (h *headerReader) next() []byte {
	line, err := h.r.ReadSlice('\n')
	if err != nil && err != bufio.ErrBufferFull {
		h.err = err
	}
	folded := len(line) > 0 && (line[0] == ' ' || line[0] == '\t')
	switch {
	case h.part || len(line) == 0 || (folded && (h.kept || h.drop)): // more of the same field
	case !h.kept && !beginsHeader(line):
		line, h.body, h.drop = append([]byte("\r\n"), line...), true, false
	case bytes.IndexByte(line, ':') <= 0: // the empty line, or text where a header should be
		h.body, h.drop = true, false
	default:
		h.drop = len(line) >= len(returnPath) && bytes.EqualFold(line[:len(returnPath)], returnPath)
	}
	h.part = err == bufio.ErrBufferFull
	if h.drop {
		return nil
	}
	h.kept = h.kept || len(line) > 0
	return line
}

// beginsHeader reports whether a message that starts with this line has a header, if only an empty one. A line "From ..." of
// a mailbox file may come before the fields; servers know what to do with it.
func beginsHeader(line []byte) bool {
	if line[0] == '\r' || line[0] == '\n' || bytes.HasPrefix(bytes.TrimLeft(line, ">"), []byte("From ")) {
		return true
	}
	name, _, found := bytes.Cut(line, []byte(":"))
	name = bytes.TrimRight(name, " \t") // RFC 5322, section 4.5
	odd := func(r rune) bool { return r <= ' ' || r > 0x7e }
	return found && len(name) > 0 && !bytes.ContainsFunc(name, odd)
}
