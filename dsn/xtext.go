package dsn

import (
	"fmt"
	"strings"
)

// EncodeXText writes a string as xtext (RFC 3461, section 4): printable ASCII but "+" and "=" stands for itself, every other
// octet is "+" and two hexadecimal digits.
func EncodeXText(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c > ' ' && c < 0x7f && c != '+' && c != '=' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "+%02X", c)
		}
	}
	return b.String()
}

// DecodeXText reads xtext. It returns an error that names the place where s is none.
func DecodeXText(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '+':
			v, ok := hexPair(s[i+1:])
			if !ok {
				return "", fmt.Errorf("dsn: xtext %q: the + at octet %d needs two hexadecimal digits in capitals", s, i+1)
			}
			b.WriteByte(v)
			i += 2
		case c <= ' ' || c >= 0x7f || c == '=':
			return "", fmt.Errorf("dsn: xtext %q: %q at octet %d must be written as +%02X", s, c, i+1, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), nil
}

// hexPair reads two hexadecimal digits. Small letters are not xtext, but some software writes them.
func hexPair(s string) (v byte, ok bool) {
	if len(s) < 2 {
		return 0, false
	}
	for _, c := range []byte(s[:2]) {
		i := strings.IndexByte("0123456789ABCDEF", c&^0x20)
		if c >= '0' && c <= '9' {
			i = int(c - '0')
		}
		if i < 0 {
			return 0, false
		}
		v = v<<4 | byte(i)
	}
	return v, true
}
