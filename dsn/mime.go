package dsn

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"mime/quotedprintable"
	"strings"
	"unicode/utf8"

	"github.com/jhillyerd/enmime/v2"
)

// A part is a body part of a report. Its fields are written here and not by enmime, which labels each message part
// 8bit; a message/delivery-status must be 7bit (RFC 3464, section 2.1).
type part struct {
	mediaType   string
	description string
	encoding    string // Content-Transfer-Encoding; "" is 7bit
	body        []byte
	whole       bool // body has the part's header section too
}

// textPart is the part for people, in the transfer encoding that enmime finds fit.
func textPart(language, text string) part {
	p := enmime.NewPart("text/plain")
	p.Charset = "us-ascii"
	if !isASCII(text) {
		p.Charset = "utf-8"
	}
	p.Header.Set("Content-Description", "Notification")
	p.Header.Set("Content-Language", language)
	p.Content = []byte(text)
	var b bytes.Buffer
	_ = p.Encode(&b) // a bytes.Buffer takes everything
	return part{mediaType: "text/plain", body: b.Bytes(), whole: true}
}

// originalPart returns the original, or its header section.
func (d *draft) originalPart() part {
	header := headerSection(d.original)
	p := part{mediaType: "message/rfc822", description: "Undelivered message", encoding: encodingOf(d.original), body: d.original}
	if d.headersOnly {
		p.mediaType, p.description = "text/rfc822-headers", "Header of the message"
	}
	encode := false
	switch {
	case isASCII(header):
	case utf8.Valid(header):
		p.mediaType = "message/global"
		if d.headersOnly {
			p.mediaType = "message/global-headers"
		}
		encode = !d.global // RFC 6533, section 4.5
	default:
		encode = d.headersOnly // RFC 6522, section 4; a message/rfc822 must not be encoded (RFC 2046, section 5.2.1)
	}
	if encode {
		p.body, p.encoding = quotedPrintable(d.original), "quoted-printable"
	}
	return p
}

// encodingOf is the transfer encoding of what is sent as it is (RFC 2045, section 6.2). LF alone ends a line: it becomes CRLF on
// its way.
func encodingOf(body []byte) string {
	encoding := ""
	for line := range bytes.Lines(body) {
		if text, ended := bytes.CutSuffix(line, []byte("\n")); ended {
			line = bytes.TrimSuffix(text, []byte("\r"))
		}
		if len(line) > 998 || bytes.IndexByte(line, 0) >= 0 || bytes.IndexByte(line, '\r') >= 0 {
			return "binary"
		}
		if !isASCII(line) {
			encoding = "8bit"
		}
	}
	return encoding
}

// quotedPrintable encodes octet for octet: what is no CRLF line end is encoded.
func quotedPrintable(body []byte) []byte {
	var b bytes.Buffer
	for i, line := range bytes.Split(body, []byte("\r\n")) {
		if i > 0 {
			b.WriteString("\r\n")
		}
		w := quotedprintable.NewWriter(&b)
		w.Binary = true
		_, _ = w.Write(line) // a bytes.Buffer takes everything
		_ = w.Close()
	}
	return b.Bytes()
}

// boundaryFor is a boundary that no part has in it. The same report has the same boundary.
func boundaryFor(id string, parts []part) string {
	for n := 0; ; n++ {
		sum := sha256.Sum256(fmt.Appendf(nil, "%d %s", n, id))
		boundary := "=_" + hex.EncodeToString(sum[:16]) // "=_" cannot stand in quoted-printable or base64
		free := true
		for i := range parts {
			free = free && !bytes.Contains(parts[i].body, []byte("--"+boundary))
		}
		if free {
			return boundary
		}
	}
}

func appendParts(b []byte, boundary string, parts []part) []byte {
	size := len(b)
	for i := range parts {
		size += len(parts[i].body) + 300
	}
	out := bytes.NewBuffer(make([]byte, 0, size))
	out.Write(b)
	out.WriteString("This is a report in MIME format, from a mail system.\r\n")
	for i := range parts {
		p := &parts[i]
		out.WriteString("\r\n--" + boundary + "\r\n")
		if !p.whole {
			out.WriteString(p.header())
		}
		out.Write(p.body)
	}
	out.WriteString("\r\n--" + boundary + "--\r\n")
	return out.Bytes()
}

func (p *part) header() string {
	var b strings.Builder
	b.WriteString("Content-Description: " + p.description + "\r\nContent-Type: " + p.mediaType + "\r\n")
	if p.encoding != "" {
		b.WriteString("Content-Transfer-Encoding: " + p.encoding + "\r\n")
	}
	return b.String() + "\r\n"
}
