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
	_, after, ok := bytes.Cut(line, []byte(":"))
	if !ok {
		return "", false
	}
	s := strings.TrimSpace(string(after))
	s = strings.TrimPrefix(s, "<")
	if strings.HasPrefix(s, "@") {
		_, s, ok = strings.Cut(s, ":")
	}
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case !quoted && strings.IndexByte("> \t", s[i]) >= 0:
			return s[:i], ok
		}
	}
	return s, ok && !quoted
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
