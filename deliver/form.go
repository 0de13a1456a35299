package deliver

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"github.com/sortie-mail/sortie/dsn"
)

// A form is how an envelope is written for one session.
type form struct {
	mail string // the MAIL command
	utf8 bool   // SMTPUTF8 is used (RFC 6531)
	dsn  bool   // the host takes NOTIFY and ORCPT (RFC 3461)
}

// prepare writes the envelope for the session. It decides the recipients that the session cannot serve, and returns an error
// where it can serve none.
func (t *transaction) prepare() *Error {
	caps := &t.s.caps
	if caps.maxSize > 0 && t.m.Size > caps.maxSize { // RFC 1870, section 6.1
		return permErr(StageMail, "5.3.4", "the message has %d octets, and %s takes at most %d", t.m.Size, t.s.host, caps.maxSize)
	}
	if e := t.eightBit(); e != nil {
		return e
	}
	t.form = form{dsn: caps.dsn, utf8: caps.utf8 && t.wantsUTF8()}
	from, err := wireAddress(t.m.From, t.form.utf8)
	if err != nil {
		return permErr(StageMail, err.status("5.1.7"), "reverse-path: %w", err)
	}
	t.form.mail = t.mailCommand(from)
	t.to = t.deliverable()
	return nil
}

// wantsUTF8 reports whether the message or its envelope may need SMTPUTF8.
func (t *transaction) wantsUTF8() bool {
	if t.m.UTF8 || !isASCII(t.m.From) {
		return true
	}
	for _, o := range t.to {
		if !isASCII(o.Recipient) {
			return true
		}
	}
	return false
}

// eightBit looks into a message that the host may not be able to take as it is.
func (t *transaction) eightBit() *Error {
	caps := &t.s.caps
	if caps.eightBit && (caps.utf8 || !t.m.UTF8) {
		return nil
	}
	header, body, err := t.m.scan()
	switch {
	case err != nil:
		return localErr(err)
	case header && t.m.UTF8 && !caps.utf8:
		return permErr(StageMail, "5.6.7", "the message needs SMTPUTF8, which %s does not offer", t.s.host)
	case (header || body) && !caps.eightBit:
		return permErr(StageMail, "5.6.3", "the message has 8-bit text, which %s does not take (it offers no 8BITMIME)", t.s.host)
	}
	return nil
}

// scan reports whether there are octets above 127 in the header and in the body.
func (m *Message) scan() (header, body bool, err error) {
	rc, err := m.Open()
	if err != nil {
		return false, false, err
	}
	defer rc.Close()
	r := bufio.NewReaderSize(rc, chunk)
	inBody, width := false, 0
	for !body {
		line, err := r.ReadSlice('\n')
		high := !isASCII(string(line))
		header, body = header || (high && !inBody), body || (high && inBody)
		width += len(line)
		if err == nil {
			inBody = inBody || strings.Trim(string(line), "\r\n") == "" && width == len(line)
			width = 0
			continue
		}
		if err == io.EOF {
			return header, body, nil
		}
		if err != bufio.ErrBufferFull {
			return header, body, err
		}
	}
	return header, body, nil
}

func (t *transaction) mailCommand(from string) string {
	var b strings.Builder
	b.WriteString("MAIL FROM:<" + from + ">")
	caps := &t.s.caps
	if caps.size && t.m.Size > 0 {
		b.WriteString(" SIZE=" + strconv.FormatInt(t.m.Size, 10))
	}
	if caps.eightBit {
		b.WriteString(" BODY=8BITMIME")
	}
	if t.form.utf8 {
		b.WriteString(" SMTPUTF8")
	}
	if t.form.dsn {
		if t.m.Return != "" {
			b.WriteString(" RET=" + string(t.m.Return))
		}
		if t.m.EnvelopeID != "" {
			b.WriteString(" ENVID=" + dsn.EncodeXText(t.m.EnvelopeID))
		}
	}
	return b.String()
}

// rcpt is the RCPT command for a recipient whose address deliverable has found fit.
func (f *form) rcpt(o *Outcome) string {
	address, _ := wireAddress(o.Recipient, f.utf8)
	line := "RCPT TO:<" + address + ">"
	if !f.dsn {
		return line
	}
	if n := o.to.Notify.String(); n != "" {
		line += " NOTIFY=" + n
	}
	if orig := o.to.Original; orig.Addr != "" {
		line += " ORCPT=" + oneWord(orig.Type) + ";" + dsn.EncodeXText(orig.Addr)
	}
	return line
}

// oneWord keeps what an address type may have (RFC 3461, section 4.2), so that none can add to a command.
func oneWord(s string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7f || strings.ContainsRune("<>;+=", r) {
			return -1
		}
		return r
	}, s)
}

// deliverable are the recipients whose addresses can be written in the session; the others fail.
func (t *transaction) deliverable() (fit []*Outcome) {
	for _, o := range t.to {
		if _, err := wireAddress(o.Recipient, t.form.utf8); err != nil {
			o.fail(t.s.at(permErr(StageRcpt, err.status("5.1.3"), "%w", err)))
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

func (e *addressError) status(syntax dsn.Status) dsn.Status {
	if e.needs {
		return "5.6.7" // RFC 6531, section 3.5
	}
	return syntax
}

// wireAddress writes an address for a command. Without SMTPUTF8 the domain becomes an A-label, and the local part must be
// ASCII (RFC 6531, section 3.2). Nothing gets through that would end the command or add to it.
func wireAddress(address string, useUTF8 bool) (string, *addressError) {
	at := strings.LastIndexByte(address, '@')
	local, domain := address[:max(at, 0)], address[at+1:]
	quoted := strings.HasPrefix(local, `"`)
	switch {
	case address == "":
		return "", nil
	case !utf8.ValidString(address) || strings.ContainsFunc(address, func(r rune) bool { return r < ' ' || r == 0x7f }),
		at <= 0, domain == "", strings.ContainsAny(domain, "<> "), !quoted && strings.ContainsAny(local, "<> "):
		return "", &addressError{address: address}
	case useUTF8 || isASCII(address):
		return address, nil
	case !isASCII(local):
		return "", &addressError{address: address, needs: true}
	}
	ascii, err := idna.Lookup.ToASCII(domain)
	if err != nil {
		return "", &addressError{address: address}
	}
	return local + "@" + ascii, nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
