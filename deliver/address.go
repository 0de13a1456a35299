package deliver

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"github.com/sortie-mail/sortie/dsn"
)

// addressable are the recipients with something to write into RCPT; the others fail.
func addressable(pending []*Outcome) (fit []*Outcome) {
	if !slices.ContainsFunc(pending, func(o *Outcome) bool { return !isAddress(o.Recipient) }) {
		return pending
	}
	for _, o := range pending {
		if !isAddress(o.Recipient) {
			o.fail((&addressError{address: o.Recipient}).failure(StageRoute, "5.1.3"))
			continue
		}
		fit = append(fit, o)
	}
	return fit
}

// An addressError is an address that cannot be written in a session.
type addressError struct {
	address string
	needs   bool // it needs SMTPUTF8
}

func (e *addressError) Error() string {
	if e.needs {
		return fmt.Sprintf("<%s> needs SMTPUTF8, which the host does not offer", e.address)
	}
	return fmt.Sprintf("%q is no address", e.address)
}

// failure is what an address comes to that is no address (a syntax status), or one that this host cannot be told: another
// may offer SMTPUTF8.
func (e *addressError) failure(stage Stage, syntax dsn.Status) *Error {
	if !e.needs {
		return permErr(stage, syntax, "%w", e)
	}
	lack := lackErr("5.6.7", "%w", e) // RFC 6531, section 3.5
	lack.Stage = stage
	return lack
}

// wireAddress writes an address for a command. Without SMTPUTF8 the domain becomes an A-label, and the local part must be
// ASCII (RFC 6531, section 3.2). The local part is kept byte for byte.
func wireAddress(address string, useUTF8 bool) (string, *addressError) {
	if !isAddress(address) {
		return "", &addressError{address: address}
	}
	address = strings.TrimSuffix(address, ".")
	if useUTF8 || isASCII(address) {
		return address, nil
	}
	domain := domainOf(address)
	local := address[:len(address)-len(domain)]
	if !isASCII(local) {
		return "", &addressError{address: address, needs: true}
	}
	ascii, err := idna.Lookup.ToASCII(domain)
	if err != nil {
		return "", &addressError{address: address}
	}
	return local + ascii, nil
}

// isAddress reports whether an address can stand between angle brackets: nothing gets through that would end the
// command or add to it, or that hosts could read in two ways. What else makes a good local part is the host's matter.
func isAddress(address string) bool {
	at := strings.LastIndexByte(address, '@')
	if at <= 0 || !utf8.ValidString(address) || strings.ContainsFunc(address, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return false
	}
	local, domain := address[:at], address[at+1:]
	return isDomain(domain) && (isQuoted(local) || !strings.ContainsAny(local, `<>@"\ `))
}

// isQuoted reports whether a local part is a quoted string that ends where it should (RFC 5321, section 4.1.2).
func isQuoted(local string) bool {
	if len(local) < 2 || local[0] != '"' || local[len(local)-1] != '"' {
		return false
	}
	inner := local[1 : len(local)-1]
	for i := 0; i < len(inner); i++ {
		switch inner[i] {
		case '"':
			return false
		case '\\':
			if i++; i == len(inner) {
				return false
			}
		}
	}
	return true
}

// isDomain reports whether a domain is made of what domains, or address literals, are made of.
func isDomain(domain string) bool {
	inner, literal := strings.CutPrefix(domain, "[")
	if literal {
		var closed bool
		if inner, closed = strings.CutSuffix(inner, "]"); !closed {
			return false
		}
	}
	for i := range len(inner) {
		c := inner[i]
		letter := (c|0x20 >= 'a' && c|0x20 <= 'z') || (c >= '0' && c <= '9') || c >= utf8.RuneSelf
		if !letter && c != '-' && c != '.' && (c != '_' || literal) && (c != ':' || !literal) {
			return false
		}
	}
	return inner != "" && inner != "."
}

// isASCII reports whether there are no octets above 127.
func isASCII[T string | []byte](s T) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
