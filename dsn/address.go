package dsn

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// EncodeUnitext writes an address of type utf-8 in ASCII (utf-8-addr-xtext of RFC 6533, section 3): what xtext would encode,
// the backslash and every character beyond ASCII becomes \x{HEX}. It takes the place of xtext in ORCPT and in
// a status part that is ASCII.
func EncodeUnitext(s string) string {
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(s, "\uFFFD") {
		if r > ' ' && r < 0x7f && r != '+' && r != '=' && r != '\\' {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\x{%02X}`, r)
		}
	}
	return b.String()
}

// DecodeUnitext reads each of the three forms of an address of type utf-8 (RFC 6533, section 3). What only looks like
// \x{HEX} stays as it is: in the third form a backslash is a backslash.
func DecodeUnitext(s string) string {
	var b strings.Builder
	for s != "" {
		i := strings.Index(s, `\x{`)
		if i < 0 {
			break
		}
		b.WriteString(s[:i])
		r, n := hexPoint(s[i:])
		if n == 0 {
			r, n = '\\', 1
		}
		b.WriteRune(r)
		s = s[i+n:]
	}
	return b.String() + s
}

// hexPoint reads \x{HEX} at the start of s and tells its length, 0 where there is none.
func hexPoint(s string) (r rune, length int) {
	const digits = 6
	end := strings.IndexByte(s[:min(len(s), len(`\x{`)+digits+1)], '}')
	if end < 0 {
		return 0, 0
	}
	v, err := strconv.ParseUint(s[len(`\x{`):end], 16, 32)
	if err != nil || !utf8.ValidRune(rune(v)) {
		return 0, 0
	}
	return rune(v), end + 1
}

// wire writes an address for a field of a status part, which is in UTF-8 or in ASCII.
func (a Address) wire(global bool) string {
	typ, addr := strings.ToLower(a.Type), a.Addr
	if !isAtom(typ) || (typ == "rfc822" && !isASCII(addr)) {
		typ = "rfc822"
		if !isASCII(addr) {
			typ = "utf-8"
		}
	}
	// RFC 6533, section 4.1, prefers the address as it is; it is encoded where it would be taken for encoded.
	if typ == "utf-8" && (!global || strings.Contains(addr, `\x{`)) {
		addr = EncodeUnitext(addr)
	}
	return typ + ";" + addr
}

// parseAddress reads the address of a field of a status part.
func parseAddress(s string) Address {
	typ, addr, ok := strings.Cut(s, ";")
	if typ = strings.ToLower(strings.TrimSpace(typ)); !ok || !isAtom(typ) {
		typ, addr = "", s // some leave the type out
	}
	addr = strings.TrimSpace(addr)
	if i := strings.LastIndex(addr, " ("); i > 0 && strings.HasSuffix(addr, ")") {
		addr = strings.TrimSpace(addr[:i]) // a comment (RFC 3464, section 2.1.1)
	}
	if n := len(addr); n > 1 && addr[0] == '<' && addr[n-1] == '>' {
		addr = addr[1 : n-1]
	}
	if typ == "utf-8" {
		addr = DecodeUnitext(addr)
	}
	if addr == "" {
		return Address{}
	}
	if typ == "" {
		typ = "rfc822"
		if !isASCII(addr) {
			typ = "utf-8"
		}
	}
	return Address{Type: typ, Addr: addr}
}

// isAtom reports whether s is an atom (RFC 822, section 3.3).
func isAtom(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`()<>@,;:\".[]`, c) >= 0 {
			return false
		}
	}
	return s != "" && len(s) <= 100
}

func isASCII[T string | []byte](s T) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
