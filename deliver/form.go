package deliver

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"

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
	if err != nil && t.m.From != "" {
		return permErr(StageMail, err.status("5.1.7"), "reverse-path: %w", err)
	}
	t.form.mail = t.mailCommand(from)
	fit := make([]*Outcome, 0, len(t.waiting))
	for _, o := range t.waiting {
		if _, err := wireAddress(o.Recipient, t.form.utf8); err != nil {
			o.fail(t.s.at(permErr(StageRcpt, err.status("5.1.3"), "%w", err)))
			continue
		}
		fit = append(fit, o)
	}
	t.waiting = fit
	return nil
}

// wantsUTF8 reports whether the message or its envelope may need SMTPUTF8.
func (t *transaction) wantsUTF8() bool {
	if t.m.UTF8 || !isASCII(t.m.From) {
		return true
	}
	for _, o := range t.waiting {
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
		return localErr(StageMail, err)
	case header && t.m.UTF8 && !caps.utf8:
		return permErr(StageMail, "5.6.7",
			"the message has a header in UTF-8, and %s does not take it (it offers no SMTPUTF8)", t.s.host)
	case (header || body) && !caps.eightBit:
		return permErr(StageMail, "5.6.3",
			"the message has 8-bit text, and %s does not take it (it offers no 8BITMIME)", t.s.host)
	}
	return nil
}

// scan reports whether there are octets above 127 in the header and in the body, as far as the first of the body.
func (m *Message) scan() (header, body bool, err error) {
	rc, err := m.Open()
	if err != nil {
		return false, false, err
	}
	defer rc.Close()
	r := bufio.NewReaderSize(rc, chunk)
	for inBody, start := false, true; !body; {
		line, err := r.ReadSlice('\n')
		if start && err == nil && len(bytes.Trim(line, "\r\n")) == 0 {
			inBody = true
		}
		if !isASCII(line) {
			header, body = header || !inBody, inBody
		}
		if start = err == nil; err != nil && err != bufio.ErrBufferFull {
			if err == io.EOF {
				err = nil
			}
			return header, body, err
		}
	}
	return header, body, nil
}

func (t *transaction) mailCommand(from string) string {
	caps := &t.s.caps
	b := append(make([]byte, 0, 128), "MAIL FROM:<"+from+">"...)
	if caps.size && t.m.Size > 0 {
		b = strconv.AppendInt(append(b, " SIZE="...), t.m.Size, 10)
	}
	if caps.eightBit {
		b = append(b, " BODY=8BITMIME"...)
	}
	if t.form.utf8 {
		b = append(b, " SMTPUTF8"...)
	}
	if t.form.dsn {
		if t.m.Return == dsn.ReturnFull || t.m.Return == dsn.ReturnHeaders {
			b = append(b, " RET="+t.m.Return...)
		}
		if t.m.EnvelopeID != "" {
			b = append(b, " ENVID="+dsn.EncodeXText(t.m.EnvelopeID)...)
		}
	}
	return string(b)
}

// rcpt is the RCPT command for a recipient whose address prepare has found fit.
func (f *form) rcpt(o *Outcome) string {
	address, _ := wireAddress(o.Recipient, f.utf8)
	line := "RCPT TO:<" + address + ">"
	if !f.dsn {
		return line
	}
	if n := o.to.Notify.String(); n != "" {
		line += " NOTIFY=" + n
	}
	if o.to.Original.Addr != "" {
		line += " ORCPT=" + original(o.to.Original)
	}
	return line
}

// original is an address as ORCPT has it: xtext (RFC 3461, section 4), or for "utf-8" the form of RFC 6533, section 3,
// that is good in any session.
func original(a dsn.Address) string {
	kind := oneWord(a.Type)
	switch {
	case kind == "":
		kind = "rfc822"
	case strings.EqualFold(kind, "utf-8"):
		var b strings.Builder
		for _, r := range a.Addr {
			if r > ' ' && r < 0x7f && r != '\\' && r != '+' && r != '=' {
				b.WriteRune(r)
			} else {
				fmt.Fprintf(&b, `\x{%02X}`, r)
			}
		}
		return kind + ";" + b.String()
	}
	return kind + ";" + dsn.EncodeXText(a.Addr)
}

// oneWord keeps what a word of a command may have, so that nothing can add to the command.
func oneWord(s string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7f || strings.ContainsRune("<>;+=", r) {
			return -1
		}
		return r
	}, s)
}
