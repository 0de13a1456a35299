package main

// Addresses, as the client wrote them.

import (
	"bytes"
	"strings"
)

// path is the address in the command that go-smtp works on, octet for octet as the client wrote it: go-smtp takes the
// quotes off a local part, and without them `"a b"@example.org` is no address, and a@b@example.org looks like
// `"a@b"@example.org`. parsed is what go-smtp made of it, and the answer where the two do not fit.
func (c *conn) path(parsed string) string {
	if raw, ok := pathIn(c.line); ok && unquote(raw) == parsed {
		return raw
	}
	return parsed
}

// pathIn finds the address in MAIL FROM:<address> or RCPT TO:<address>, without a source route (RFC 5321, section 4.1.1.3
// and appendix C).
func pathIn(line []byte) (string, bool) {
	start, end, ok := pathAt(line)
	return string(line[start:end]), ok
}

// pathAt tells where it is.
func pathAt(line []byte) (start, end int, ok bool) {
	colon := bytes.IndexByte(line, ':')
	if colon < 0 {
		return 0, 0, false
	}
	length := len(bytes.TrimRight(line, " \t\r\n"))
	start = len(line) - len(bytes.TrimLeft(line[colon+1:], " \t\r\n"))
	if start < length && line[start] == '<' {
		start++
	}
	if start < length && line[start] == '@' {
		i := bytes.IndexByte(line[start:length], ':')
		if i < 0 {
			return 0, 0, false
		}
		start += i + 1
	}
	start = min(start, length)
	quoted := false
	for end = start; end < length; end++ {
		switch {
		case quoted && line[end] == '\\':
			end++
		case line[end] == '"':
			quoted = !quoted
		case !quoted && bytes.IndexByte([]byte("> \t"), line[end]) >= 0:
			return start, end, true
		}
	}
	return start, length, !quoted
}

// unquote takes the quotes off a local part, as go-smtp does.
func unquote(address string) string {
	if !strings.HasPrefix(address, `"`) {
		return address
	}
	var b strings.Builder
	for i := 1; i < len(address); i++ {
		switch address[i] {
		case '"':
			return b.String() + address[i+1:]
		case '\\':
			if i++; i == len(address) {
				return address
			}
		}
		b.WriteByte(address[i])
	}
	return address
}

// shown makes what a client sent fit for a reply and a log: not too long, and without control characters.
func shown(s string) string {
	const most = 200
	if len(s) > most {
		s = s[:most] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
