package deliver

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/route"
)

// A form is how a message and its envelope are written for one session.
type form struct {
	mail       string // the MAIL command
	utf8       bool   // SMTPUTF8 is used (RFC 6531)
	dsn        bool   // the host takes NOTIFY and ORCPT (RFC 3461)
	pipelining bool   // several commands may go together (RFC 2920)
	by         manner
	binary     bool // BODY=BINARYMIME is used (RFC 3030, section 3)
	need       need // what the message is converted for
}

// A manner is how the message itself is sent.
type manner uint8

const (
	byData   manner = iota // after DATA, with a dot at the end
	byChunk                // in one chunk, together with the envelope
	byChunks               // in chunks (RFC 3030)
)

// prepare decides the form for the session. It decides the recipients that the session cannot serve, and returns an error
// where it can serve none.
func (t *transaction) prepare() *Error {
	known, e := t.m.survey()
	if e != nil {
		return e
	}
	if e := t.promises(); e != nil {
		return e
	}
	t.form = t.formFor(known)
	if e := t.fits(known); e != nil {
		return e
	}
	from, err := wireAddress(t.m.From, t.form.utf8)
	if err != nil && t.m.From != "" {
		return err.failure(StageMail, "5.1.7")
	}
	t.form.mail = t.mailCommand(from, known)
	t.waiting = t.addressable()
	return nil
}

// addressable are those of waiting whose addresses the session can have. The others fail.
func (t *transaction) addressable() []*Outcome {
	unfit := func(o *Outcome) bool {
		_, err := wireAddress(o.Recipient, t.form.utf8)
		return err != nil
	}
	if !slices.ContainsFunc(t.waiting, unfit) {
		return t.waiting
	}
	return slices.DeleteFunc(slices.Clone(t.waiting), func(o *Outcome) bool {
		_, err := wireAddress(o.Recipient, t.form.utf8)
		if err != nil {
			o.fail(t.s.at(err.failure(StageRcpt, "5.1.3")))
		}
		return err != nil
	})
}

// promises asks of the host what the sender made a condition. Where it cannot do it another host may.
func (t *transaction) promises() *Error {
	caps, unix, lmtp := &t.s.caps, t.hop.IsUnix(), t.s.key.protocol == route.LMTP
	switch {
	case t.m.insistsOnTLS() && t.s.tls.Version == "" && !unix: // RFC 8689, section 4.2.1
		return lackErr("5.7.10", "the message asks for REQUIRETLS, and the connection to %s is in the clear", t.s.host)
	case t.m.insistsOnTLS() && !caps.requireTLS && !unix:
		return lackErr("5.7.30", "the message asks for REQUIRETLS, and %s does not offer it", t.s.host)
	}
	if by := &t.m.DeliverBy; !by.Time.IsZero() && !by.Notify { // RFC 2852, section 4.1.4
		switch left := by.seconds(); {
		case !caps.deliverBy && lmtp: // which is delivery itself
		case !caps.deliverBy:
			return lackErr("5.4.7", "the message is to come back when it is late, and %s does not promise that (it offers no DELIVERBY)",
				t.s.host)
		case left <= 0:
			return permErr(StageMail, "5.4.7", "the message was to be delivered by %s", by.Time.UTC().Format(time.RFC3339))
		case left < caps.minBy:
			return lackErr("5.4.7", "the message is to be delivered within %d s, and %s promises nothing below %d s",
				left, t.s.host, caps.minBy)
		}
	}
	return nil
}

// lackErr is the error of a host that cannot do what the message needs.
func lackErr(status dsn.Status, format string, args ...any) *Error {
	e := permErr(StageMail, status, format, args...).soften()
	e.lacking = true
	return e
}

// formFor chooses from what the host offers.
func (t *transaction) formFor(known *survey) form {
	caps := &t.s.caps
	chunking := caps.chunking && !t.hop.NoChunking
	f := form{
		dsn: caps.dsn, utf8: caps.utf8 && t.wantsUTF8(known), pipelining: caps.pipelining && !t.hop.NoPipelining,
		binary: t.m.Binary && chunking && caps.binary,
	}
	if chunking {
		f.by = t.chunked(known, &f)
	}
	f.need = need{
		sevenBit:    !caps.eightBit,
		asciiHeader: t.m.UTF8 && !f.utf8,
		shortLines:  f.by == byData && !f.binary,
		noBinary:    t.m.Binary && !f.binary,
	}
	return f
}

// atOnce is up to which size a message goes together with its envelope. It is sent for nothing where the host refuses the
// envelope.
const atOnce = 16 << 10

// chunked chooses how to send a message to a host that takes chunks. Together with the envelope a small one takes one round
// trip instead of two, but two things must be sure. The host gives one reply to each command: with DATA its 354 shows that,
// and where nothing shows it a yes to a recipient could be taken for one to the message. And the connection is alive: one
// on which all was sent and nothing came back is a try that failed, since the host may have the message. Nor is it for
// several recipients in LMTP, where the number of replies to the message is known only from those to the envelope.
func (t *transaction) chunked(known *survey, f *form) manner {
	several := t.s.key.protocol == route.LMTP && len(t.waiting) > 1
	switch {
	case f.pipelining && known.size <= atOnce && t.s.inStep && !several && (!t.s.reused || t.s.warm) && !t.s.speaks():
		return byChunk
	case f.binary || known.long || known.size > blockSize:
		return byChunks
	}
	return byData
}

// wantsUTF8 reports whether the message or its envelope may need SMTPUTF8.
func (t *transaction) wantsUTF8(known *survey) bool {
	if t.m.UTF8 || known.header8 || !isASCII(t.m.From) {
		return true
	}
	for _, o := range t.waiting {
		if !isASCII(o.Recipient) {
			return true
		}
	}
	return false
}

// fits reports why the message cannot be sent in the form that was chosen.
func (t *transaction) fits(known *survey) *Error {
	if t.d.NoConversion && !known.meets(t.form.need) {
		return t.asItIs(known)
	}
	octets := known.octets(t.form.need)
	if most := t.s.caps.maxSize; most > 0 && octets > most { // RFC 1870, section 6.1
		return lackErr("5.3.4", "the message has %d octets, and %s takes at most %d", octets, t.s.host, most)
	}
	return nil
}

// asItIs is why a message that must not be converted cannot be sent.
func (t *transaction) asItIs(known *survey) *Error {
	n := t.form.need
	switch {
	case n.asciiHeader && known.header8:
		return lackErr("5.6.7", "the message has a header in UTF-8, and %s does not take it (it offers no SMTPUTF8)", t.s.host)
	case n.sevenBit && (known.header8 || known.body8):
		return lackErr("5.6.3", "the message has 8-bit text, and %s does not take it (it offers no 8BITMIME)", t.s.host)
	case n.noBinary && known.binary:
		return lackErr("5.6.3", "the message has binary content, and %s does not take it (it offers no BINARYMIME)", t.s.host)
	}
	return lackErr("5.6.3", "the message has lines of more than %d octets, and %s does not take them (it offers no CHUNKING)",
		longestLine, t.s.host)
}

func (t *transaction) mailCommand(from string, known *survey) string {
	caps, m := &t.s.caps, t.m
	b := append(make([]byte, 0, 128), "MAIL FROM:<"+from+">"...)
	if caps.size && known.size > 0 {
		b = strconv.AppendInt(append(b, " SIZE="...), known.octets(t.form.need), 10)
	}
	switch {
	case t.form.binary:
		b = append(b, " BODY=BINARYMIME"...)
	case caps.eightBit && (known.body8 || known.header8):
		b = append(b, " BODY=8BITMIME"...)
	}
	if t.form.utf8 {
		b = append(b, " SMTPUTF8"...)
	}
	if t.form.dsn {
		if m.Return == dsn.ReturnFull || m.Return == dsn.ReturnHeaders {
			b = append(b, " RET="+m.Return...)
		}
		if m.EnvelopeID != "" {
			b = append(b, " ENVID="+dsn.EncodeXText(m.EnvelopeID)...)
		}
	}
	if m.RequireTLS && caps.requireTLS {
		b = append(b, " REQUIRETLS"...)
	}
	if p := min(max(m.Priority, -9), 9); caps.priority && p != 0 {
		b = strconv.AppendInt(append(b, " MT-PRIORITY="...), int64(p), 10) // RFC 6710, section 4.3
	}
	if caps.deliverBy && !m.DeliverBy.Time.IsZero() {
		b = append(append(b, " BY="...), m.DeliverBy.String()...)
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
