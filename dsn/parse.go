package dsn

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/mail"
	"strings"
	"time"

	"github.com/jhillyerd/enmime/v2"
	"github.com/jhillyerd/enmime/v2/mediatype"
)

// ErrNotReport is what Parse returns, wrapped, for mail in which it finds no delivery report.
var ErrNotReport = errors.New("dsn: no delivery report")

// Limits of what Parse reads.
const (
	MaxSize       = 16 << 20 // octets of a mail
	MaxRecipients = 50_000   // recipients of a report

	maxDepth = 8    // parts within parts
	maxParts = 1000 // parts of a mail
)

// Parse reads a delivery report of any mail system that has a part for programs: a message/delivery-status (RFC 3464) or a
// message/global-delivery-status (RFC 6533). It returns an error that wraps [ErrNotReport] for other mail, and an error of r
// as it is.
//
// Of a mail longer than [MaxSize] it reads what is before, so that Original may be cut, and of a report on more than
// [MaxRecipients] recipients the first. Mail systems differ, and what is missing or malformed in a report is left empty:
//
//   - Final is the recipient that a report names in another way where it has no Final-Recipient.
//   - Action is "" where the report has none of the five.
//   - Status is the one in the reply where the report has none of its own.
//   - Diagnostic is set where the Diagnostic-Code is an SMTP reply. Whatever else it says is Detail; where there is none, a
//     comment in the Status.
//   - Original-Recipient and Final-Recipient that say no type get one.
//
// Times are in UTC. UTF8 tells that the part for programs was a global one. A report that came within another message is
// found too.
func Parse(r io.Reader) (*Report, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxSize))
	if err != nil {
		return nil, err
	}
	s := scanner{parts: maxParts}
	return s.message(bytes.TrimLeft(data, "\r\n"), maxDepth)
}

// A scanner looks for the parts of a report in a mail.
type scanner struct {
	parts int // how many more it looks at

	// What it has found.
	status     []byte
	global     bool
	original   []byte
	headerOnly bool
	embedded   []byte // the first message within the message
}

// message reads a report from a mail. It is here that readers of reports without a part for programs go on.
func (s *scanner) message(data []byte, depth int) (*Report, error) {
	head, body := splitMessage(data)
	s.part(head, body, depth)
	if s.status == nil {
		if s.embedded == nil || depth == 0 {
			return nil, fmt.Errorf("%w: the mail has no message/delivery-status part", ErrNotReport)
		}
		within := scanner{parts: s.parts}
		return within.message(s.embedded, depth-1)
	}
	report := &Report{UTF8: s.global, Original: s.original, HeadersOnly: s.headerOnly}
	report.readLetter(head)
	report.readStatus(s.status)
	if len(report.Recipients) == 0 {
		return nil, fmt.Errorf("%w: its message/delivery-status part names no recipient", ErrNotReport)
	}
	return report, nil
}

// splitMessage parts a mail, or a part of one, into its header section and its body.
func splitMessage(data []byte) (head, body []byte) {
	head = headerSection(data)
	body = data[len(head):]
	if i := bytes.IndexByte(body, '\n'); i >= 0 {
		body = body[i+1:]
	}
	return head, body
}

// A mimeHead is what the header section of a part says about its body.
type mimeHead struct {
	mediaType string // in small letters; "" where there is none
	boundary  string
	encoding  string
}

func readMIMEHead(head []byte) (h mimeHead) {
	for name, value := range fields(head[:min(len(head), maxHeader)]) {
		switch {
		case strings.EqualFold(name, "Content-Type") && h.mediaType == "":
			const most = 2000
			value = clip(neutral(unfold(value)), most)
			mediaType, params, _, err := mediatype.Parse(value)
			if err != nil { // the type is worth more than its parameters
				mediaType, _, _ = strings.Cut(value, ";")
			}
			h.mediaType, h.boundary = strings.ToLower(strings.TrimSpace(mediaType)), params["boundary"]
		case strings.EqualFold(name, "Content-Transfer-Encoding") && h.encoding == "":
			h.encoding = strings.ToLower(strings.TrimSpace(unfold(value)))
		}
	}
	return h
}

// part looks at one part and those within it.
func (s *scanner) part(head, body []byte, depth int) {
	if s.parts--; s.parts < 0 || depth < 0 {
		return
	}
	h := readMIMEHead(head)
	switch kind := h.mediaType; {
	case strings.HasPrefix(kind, "multipart/"), kind == "" && depth == maxDepth:
		for child := range splitParts(body, h.boundary) {
			childHead, childBody := splitMessage(child)
			s.part(childHead, childBody, depth-1)
		}
	case kind == "message/delivery-status", kind == "message/global-delivery-status":
		if s.status == nil {
			s.status = append([]byte{}, h.decode(body)...)
			s.global = kind == "message/global-delivery-status"
		}
	case kind == "message/rfc822", kind == "message/global", kind == "text/rfc822-headers", kind == "message/global-headers":
		if s.original == nil {
			s.original = h.decode(body)
			s.headerOnly = strings.HasSuffix(kind, "headers")
			s.embedded = s.original
		}
	}
}

// decode undoes the transfer encoding of a body. enmime copes with what is wrong in it.
func (h *mimeHead) decode(body []byte) []byte {
	if h.encoding != "base64" && h.encoding != "quoted-printable" {
		return body
	}
	head := "Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: " + h.encoding + "\r\n\r\n"
	p, err := enmime.ReadParts(io.MultiReader(strings.NewReader(head), bytes.NewReader(body)))
	if err != nil {
		return body
	}
	return p.Content
}

// readLetter reads the header section of the report itself.
func (r *Report) readLetter(head []byte) {
	for name, value := range fields(head[:min(len(head), maxHeader)]) {
		value = strings.TrimSpace(unfold(value))
		switch strings.ToLower(name) {
		case "from":
			r.From = decodeWords(value)
		case "to":
			r.To = neutral(value)
			if a, err := mail.ParseAddress(value); err == nil {
				r.To = bareAddress(value, a)
			}
		case "date":
			r.Date = parseTime(value)
		case "message-id":
			r.MessageID = neutral(strings.TrimSuffix(strings.TrimPrefix(value, "<"), ">"))
		}
	}
}

// bareAddress is the address of a mailbox as it is written there: net/mail takes the quotes from a local part.
func bareAddress(written string, a *mail.Address) string {
	if i := strings.LastIndexByte(written, '<'); i >= 0 && strings.HasSuffix(written, ">") {
		return neutral(written[i+1 : len(written)-1])
	}
	if a.Name == "" && !strings.ContainsAny(written, "()") {
		return neutral(written)
	}
	return neutral(a.Address)
}

// parseTime reads a time, the zero one where there is none.
func parseTime(s string) time.Time {
	s = strings.TrimSpace(unfold(s))
	if t, err := mail.ParseDate(s); err == nil {
		return t.UTC()
	}
	return time.Time{}
}
