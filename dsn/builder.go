package dsn

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net/mail"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// A Builder writes reports as mail. A zero or nil Builder works. Its fields must not change once it is used; Build is safe for
// concurrent use with different reports.
type Builder struct {
	// From is who the reports are from, where they do not say. The default is "Mail Delivery System <MAILER-DAEMON@host>"
	// with the name of the reporting host.
	From string

	// Templates has the words of the part for people. The default is English.
	Templates *Templates

	// Language chooses the words of a report by a language tag: "de", "pt-BR". Where Templates has no such language it
	// falls back to the tag without its last subtag, and then to English. nil is "en".
	Language func(r *Report) string
}

// Limits of what a report tells of one recipient, in octets. What is longer is cut, and says so.
const (
	maxDiagnostic  = 8 << 10   // of a reply: several times what RFC 5321, section 4.5.3.1.5, allows a line
	maxDiagnostics = 4 << 20   // of all replies together: they share it where there are many recipients
	minDiagnostic  = 256       // of a reply, whatever the others take
	maxToken       = 1000      // of an address, a name of a host or an identifier
	maxDetail      = 4 << 10   // of Detail and Advice
	maxHeader      = 256 << 10 // of a header section, as far as it is looked into
)

// Build writes a report as mail with CRLF line ends. It is to be sent from the null sender (RFC 3464, section 2) to To, with
// SMTPUTF8 where UTF8 is set or To needs it. From, Date and MessageID are set in r where they are empty.
//
// Recipients may have different actions. A Status that is none becomes the undefined one of the action: 5.0.0, 4.0.0
// or 2.0.0. RetryUntil is written for delayed recipients alone. Times are written in whole seconds, Advice only in the
// part for people. Space around values is lost, control characters become spaces, of many spaces in a row 64 stay, and
// what is too long is cut: a reply at 8 KiB, less where thousands of recipients have different ones.
//
// With UTF8 set, what is not ASCII is written as it is, in the forms of RFC 6533. Otherwise the mail has only ASCII up to
// the original: addresses are written as RFC 6533 says for that case, text with encoded words.
//
// The original comes back octet for octet, encoded only where a report in ASCII returns a header section that is not
// (RFC 6533, section 4.5; RFC 6522, section 4). With HeadersOnly, and in a report without a failed recipient
// (RFC 3461, section 4.3), what follows its header section is left out. Where it has lines of more than 998 octets, NUL, or
// CR without LF, the part is labelled binary: set HeadersOnly if that cannot be sent.
//
// It fails where the report has no To (mail from the null sender is never reported on), no ReportingMTA, no recipient, or
// something that cannot be written as mail.
func (b *Builder) Build(r *Report) ([]byte, error) {
	if b == nil {
		b = new(Builder)
	}
	if err := check(r); err != nil {
		return nil, fmt.Errorf("dsn: report to %q: %w", clip(neutral(r.To), maxToken), err)
	}
	d := newDraft(r)
	if err := d.fill(b.From); err != nil {
		return nil, fmt.Errorf("dsn: report to %q: %w", clip(neutral(r.To), maxToken), err)
	}
	language, subject, text := b.words(d)
	parts := []part{textPart(language, text), d.statusPart()}
	if len(d.original) > 0 {
		parts = append(parts, d.originalPart())
	}
	return d.assemble(subject, parts), nil
}

// check finds what makes a report impossible.
func check(r *Report) error {
	switch {
	case r.To == "":
		return errors.New("there is no To: the null sender is never told (RFC 5321, section 6.1)")
	case r.ReportingMTA == "":
		return errors.New("there is no ReportingMTA: name the host that reports")
	case len(r.Recipients) == 0:
		return errors.New("there are no Recipients: there is nothing to report")
	}
	for i := range r.Recipients {
		to := &r.Recipients[i]
		switch to.Action {
		case Failed, Delayed, Delivered, Relayed, Expanded:
		default:
			return fmt.Errorf("the Action of Recipients[%d] is %q: want failed, delayed, delivered, relayed or expanded", i, to.Action)
		}
		if to.Final.Addr == "" {
			return fmt.Errorf("the Final of Recipients[%d] has no address", i)
		}
	}
	return nil
}

// A draft is a report that is being written.
type draft struct {
	*Report
	global      bool // header fields and the status part may have UTF-8
	host        string
	to          string // To, as it is written
	original    []byte
	headersOnly bool

	// Of the original's header section.
	messageID string // with its angle brackets
	subject   string
}

func newDraft(r *Report) *draft {
	local := r.To[:max(strings.LastIndexByte(r.To, '@'), 0)]
	d := &draft{
		Report: r,
		// Only mail with SMTPUTF8 reaches an address whose local part is not ASCII.
		global:      r.UTF8 || !isASCII(local),
		original:    r.Original,
		headersOnly: r.HeadersOnly || !hasFailed(r),
	}
	header := headerSection(r.Original)
	if d.headersOnly {
		d.original = header
	}
	for name, value := range fields(header[:min(len(header), maxHeader)]) {
		switch {
		case strings.EqualFold(name, "Message-ID") && d.messageID == "":
			d.messageID = messageID(value)
		case strings.EqualFold(name, "Subject") && d.subject == "":
			d.subject = strings.TrimSpace(decodeWords(unfold(value)))
		}
	}
	return d
}

func hasFailed(r *Report) bool {
	for i := range r.Recipients {
		if r.Recipients[i].Action == Failed {
			return true
		}
	}
	return false
}

// messageID is a Message-ID with its angle brackets, "" where it is none that may stand in another header section.
func messageID(value string) string {
	id := strings.TrimSpace(unfold(value))
	inner := strings.TrimSuffix(strings.TrimPrefix(id, "<"), ">")
	if len(inner) != len(id)-2 || !isMessageID(inner) {
		return ""
	}
	return id
}

func isMessageID(id string) bool {
	return id != "" && len(id) <= maxLine && utf8.ValidString(id) && neutral(id) == id && !strings.ContainsAny(id, " <>")
}

// fill sets what the report leaves to the Builder.
func (d *draft) fill(from string) error {
	var err error
	if d.host, err = d.hostName(d.ReportingMTA); err != nil {
		return err
	}
	if d.to, err = d.address(d.To); err != nil {
		return err
	}
	if d.Date.IsZero() {
		d.Date = time.Now()
	}
	if d.MessageID == "" {
		d.MessageID = rand.Text() + "@" + d.host
	}
	if !isMessageID(d.MessageID) || (!d.global && !isASCII(d.MessageID)) {
		return fmt.Errorf("the MessageID %q is none: write left@right without angle brackets", clip(neutral(d.MessageID), maxToken))
	}
	if d.From == "" {
		d.From = from
	}
	if d.From == "" {
		d.From = "Mail Delivery System <MAILER-DAEMON@" + d.host + ">"
	}
	_, err = d.mailbox(d.From)
	return err
}

// hostName is the reporting host as it is written: as an A-label in ASCII.
func (d *draft) hostName(name string) (string, error) {
	if !d.global && !isASCII(name) {
		if ascii, err := idna.Lookup.ToASCII(name); err == nil {
			name = ascii
		}
	}
	if name != hostText(name) || len(name) > maxToken || (!d.global && !isASCII(name)) {
		return "", fmt.Errorf("the ReportingMTA %q is no name of a host", clip(neutral(name), maxToken))
	}
	return name, nil
}

// address is the reverse-path as it is written: its domain as an A-label in ASCII.
func (d *draft) address(address string) (string, error) {
	at := strings.LastIndexByte(address, '@')
	if !d.global && !isASCII(address) {
		if ascii, err := idna.Lookup.ToASCII(address[at+1:]); err == nil {
			address = address[:at+1] + ascii
		}
	}
	switch {
	case neutral(address) != address, strings.TrimSpace(address) != address, len(address) > maxToken, hasAngle(address):
		return "", errors.New("the To is no address")
	case !d.global && !isASCII(address):
		return "", errors.New("the domain of To is none")
	}
	return address, nil
}

// hasAngle reports an angle bracket outside a quoted string.
func hasAngle(address string) bool {
	quoted := false
	for i := 0; i < len(address); i++ {
		switch c := address[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == '<' || c == '>'):
			return true
		}
	}
	return false
}

// mailbox is From as it is written.
func (d *draft) mailbox(from string) (string, error) {
	if neutral(from) != from || len(from) > maxToken {
		return "", fmt.Errorf("the From %q is no mailbox", clip(neutral(from), maxToken))
	}
	if isASCII(from) {
		return from, nil
	}
	a, err := mail.ParseAddress(from)
	if err != nil || (!d.global && !isASCII(a.Address)) {
		return "", fmt.Errorf("the From %q is no mailbox that can be written: want \"Name <address>\"", from)
	}
	return a.String(), nil
}

// hostText makes the name of a host, or a socket's path, from text that may be a stranger's.
func hostText(name string) string {
	return strings.Map(func(r rune) rune {
		if r > ' ' && !strings.ContainsRune(`()<>;"\,`, r) {
			return r
		}
		return '?'
	}, neutral(name))
}

// assemble puts the mail together.
func (d *draft) assemble(subject string, parts []part) []byte {
	w := fieldWriter{global: d.global}
	from, _ := d.mailbox(d.From)
	w.token("From", from)
	w.token("To", d.to)
	// RFC 2047 words in either form: not everything that takes mail with SMTPUTF8 shows it.
	w.field("Subject", encodeWords(subject))
	w.field("Date", d.Date.Format(time.RFC1123Z))
	w.token("Message-ID", "<"+d.MessageID+">")
	if d.messageID != "" && (d.global || isASCII(d.messageID)) {
		w.token("In-Reply-To", d.messageID)
		w.token("References", d.messageID)
	}
	// RFC 3834, section 5, and what autoresponders look at that are older or came from elsewhere.
	w.field("Auto-Submitted", "auto-replied")
	w.field("Precedence", "bulk")
	w.field("X-Auto-Response-Suppress", "All")
	w.field("MIME-Version", "1.0")
	boundary := boundaryFor(d.MessageID, parts)
	// RFC 6522, section 3: the type of the report is the subtype of its second part.
	reportType := strings.TrimPrefix(parts[1].mediaType, "message/")
	w.field("Content-Type", "multipart/report; report-type="+reportType+`; boundary="`+boundary+`"`)
	w.end()
	return appendParts(w.buf.Bytes(), boundary, parts)
}

// statusPart is the part for programs (RFC 3464, section 2.1), in ASCII if that loses nothing (RFC 6533, section 4.4).
func (d *draft) statusPart() part {
	w := fieldWriter{global: d.global}
	w.text("Original-Envelope-Id", clip(neutral(d.EnvelopeID), maxToken))
	w.token("Reporting-MTA", "dns; "+d.host)
	w.date("Arrival-Date", d.Arrival)
	w.date("Deliver-By-Date", d.DeliverBy) // RFC 2852, which adds it to RFC 3464's fields
	most := min(maxDiagnostic, max(minDiagnostic, maxDiagnostics/len(d.Recipients)))
	for i := range d.Recipients {
		w.end()
		w.recipient(&d.Recipients[i], most)
	}
	p := part{mediaType: "message/delivery-status", description: "Delivery report", body: w.buf.Bytes()}
	if !isASCII(p.body) {
		p.mediaType, p.encoding = "message/global-delivery-status", "8bit"
	}
	return p
}

// recipient writes the fields of one recipient in the order of RFC 3464, section 2.3.
func (w *fieldWriter) recipient(r *Recipient, mostDiagnostic int) {
	if r.Original.Addr != "" {
		w.token("Original-Recipient", clip(neutral(r.Original.wire(w.global)), maxToken))
	}
	w.token("Final-Recipient", clip(neutral(r.Final.wire(w.global)), maxToken))
	w.token("Action", string(r.Action))
	w.token("Status", string(statusFor(r)))
	w.token("Remote-MTA", remote(r))
	detail := clip(neutral(r.Detail), maxDetail)
	switch {
	case isReply(r.Diagnostic):
		w.reply("Diagnostic-Code", clipReply(r.Diagnostic, mostDiagnostic))
	case strings.TrimSpace(detail) != "":
		w.text("Diagnostic-Code", detailType+"; "+detail)
		detail = ""
	}
	w.date("Last-Attempt-Date", r.LastAttempt)
	w.text("Final-Log-ID", clip(neutral(r.LogID), maxToken))
	if r.Action == Delayed { // RFC 3464, section 2.3.9
		w.date("Will-Retry-Until", r.RetryUntil)
	}
	if r.Smarthost != "" {
		w.token(smarthostField, "dns; "+clip(smarthost(r), maxToken))
	}
	w.text(detailField, detail)
}

// What RFC 3464 has no field for (section 2.4).
const (
	detailType     = "X-Sortie"           // diagnostic-type of our own words
	detailField    = "X-Sortie-Detail"    // our own words beside a reply
	smarthostField = "X-Sortie-Smarthost" // as in Remote-MTA
)

// isReply reports whether a reply can be written as one.
func isReply(r Reply) bool { return r.Code >= 200 && r.Code <= 599 && len(r.Lines) > 0 }

// statusFor is the status of a recipient, or the undefined one of its action (RFC 3463, section 3.1).
func statusFor(r *Recipient) Status {
	if _, ok := ParseStatus(string(r.Status)); ok {
		return r.Status
	}
	switch r.Action {
	case Failed:
		return "5.0.0"
	case Delayed:
		return "4.0.0"
	}
	return "2.0.0"
}

// remote is the value of Remote-MTA: the host's name with its address in a comment, or its address alone as a domain literal.
func remote(r *Recipient) string {
	name, addr := clip(hostText(r.RemoteMTA), maxToken), clip(hostText(r.RemoteAddr), maxToken)
	switch {
	case name != "" && addr != "":
		return "dns; " + name + " (" + addr + ")"
	case name != "":
		return "dns; " + name
	case strings.Contains(addr, ":"):
		return "dns; [IPv6:" + addr + "]"
	case addr != "":
		return "dns; [" + addr + "]"
	}
	return ""
}

// smarthost is the name of the smarthost, without a login that a URL may have in it.
func smarthost(r *Recipient) string {
	return hostText(r.Smarthost[strings.LastIndexByte(r.Smarthost, '@')+1:])
}

// headerSection is a message up to the empty line, which it does not have.
func headerSection(message []byte) []byte {
	for start := 0; start < len(message); {
		end := bytes.IndexByte(message[start:], '\n') + 1
		if end == 0 {
			break
		}
		if line := message[start : start+end]; len(line) == 1 || (len(line) == 2 && line[0] == '\r') {
			return message[:start]
		}
		start += end
	}
	return message
}
