package queue

import (
	"bufio"
	"bytes"
	"io"
	"net/netip"
	"strings"
	"time"
)

// A Reception is how a message came to this host by SMTP: what a server knows that takes mail for a queue. It does to the
// header what such a server must do, and nothing else.
type Reception struct {
	Host     string     // name of this host
	ID       string     // names the transaction; a word without spaces
	Helo     string     // what the client called itself; may be anything
	Client   netip.Addr // its address; the zero Addr is not known
	ESMTP    bool       // it said EHLO
	TLS      string     // the cipher suite, by its IANA name; "" in the clear
	Auth     bool       // it has logged in
	Envelope *Envelope  // as it was given
	Time     time.Time

	// Submission says that the client is where the message begins, and that it may be completed: a Date, a Message-ID and a From
	// that are missing are added (RFC 6409, section 8). A relay adds none.
	Submission bool
}

// Reader gives the message to be enqueued: with a Received field before it and without Return-Path fields, which belong into
// mailboxes and are wrong in what is sent along (RFC 5321, section 4.4). Where a message begins with text instead of a header,
// an empty line comes before it: the Received field would make a header of the text otherwise. Everything else stays octet
// for octet. Memory does not grow with the message.
func (r *Reception) Reader(message io.Reader) io.Reader {
	h := &headerReader{r: bufio.NewReaderSize(message, headerPiece)}
	if r.Submission {
		h.missing = r.required()
	}
	return io.MultiReader(strings.NewReader(r.Received()), h)
}

// Received is the trace field (RFC 5321, section 4.4), with its line end. It names a recipient only where there is one: among
// several it would give away the blind copies (section 7.2).
func (r *Reception) Received() string {
	var b strings.Builder
	b.WriteString("Received: from " + r.from() + "\r\n\tby " + r.Host + " with " + r.protocol() + " id " + r.ID)
	if to := r.Envelope.To; len(to) == 1 && CheckAddress(to[0].Address) == nil && (r.Envelope.UTF8 || isASCII(to[0].Address)) {
		b.WriteString("\r\n\tfor <" + to[0].Address + ">")
	}
	if r.TLS != "" {
		b.WriteString("\r\n\ttls " + r.TLS) // RFC 8314, section 4.3
	}
	b.WriteString("; " + r.Time.Format(dateForm) + "\r\n")
	return b.String()
}

// dateForm is the date of RFC 5322, section 3.3.
const dateForm = "Mon, 02 Jan 2006 15:04:05 -0700"

// from is who the client says that it is, and where it is.
func (r *Reception) from() string {
	name, literal := heloWord(r.Helo), "unknown"
	if r.Client.IsValid() {
		literal = addressLiteral(r.Client)
	}
	if name == "" {
		name = literal
	}
	return name + " (" + literal + ")"
}

// protocol is the keyword of RFC 3848 and, for mail with UTF-8 in its header, of RFC 6531, section 4.3.
func (r *Reception) protocol() string {
	if !r.ESMTP {
		return "SMTP"
	}
	name := "ESMTP"
	if r.Envelope.UTF8 {
		name = "UTF8SMTP"
	}
	if r.TLS != "" {
		name += "S"
	}
	if r.Auth {
		name += "A"
	}
	return name
}

// heloWord is what a client called itself, as far as it may stand in a header.
func heloWord(name string) string {
	name = strings.Map(func(r rune) rune {
		if r > ' ' && r < 0x7f && !strings.ContainsRune("()<>@,;\\\"", r) {
			return r
		}
		return '?'
	}, name)
	return name[:min(len(name), 255)]
}

// addressLiteral writes an address as RFC 5321, section 4.1.3 has it.
func addressLiteral(a netip.Addr) string {
	if a = a.Unmap().WithZone(""); a.Is6() {
		return "[IPv6:" + a.String() + "]"
	}
	return "[" + a.String() + "]"
}

// A field is one that a message must have, and what it is where the message has none.
type field struct {
	name, value string
}

// required are the fields that a submitted message needs. The null sender can be nobody's From.
func (r *Reception) required() []field {
	fields := []field{{"Date", r.Time.Format(dateForm)}, {"Message-ID", "<" + r.ID + "@" + r.Host + ">"}}
	if from := r.Envelope.From; CheckAddress(from) == nil && (r.Envelope.UTF8 || isASCII(from)) {
		fields = append(fields, field{"From", "<" + from + ">"})
	}
	return fields
}

// headerPiece is how much of a header is looked at in one piece; longer lines pass in several.
const headerPiece = 4 << 10

// headerReader passes a message on without its Return-Path fields, and with what it misses at the end of its header.
type headerReader struct {
	r       *bufio.Reader
	missing []field // of what is required, so far
	line    []byte  // not handed on yet
	part    bool    // line is not the start of one
	open    bool    // what was handed on last has no line end
	drop    bool    // the field is a Return-Path
	kept    bool    // something was handed on
	body    bool
	err     error
}

// Read implements io.Reader.
func (h *headerReader) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) && (!h.body || len(h.line) > 0) {
		if len(h.line) == 0 {
			if h.err != nil || (n > 0 && h.r.Buffered() == 0) {
				break
			}
			h.line = h.next()
			continue
		}
		k := copy(p[n:], h.line)
		h.line = h.line[k:]
		n += k
	}
	switch {
	case n > 0 || len(p) == 0:
		return n, nil
	case h.err != nil:
		return 0, h.err
	}
	return h.r.Read(p)
}

var returnPath = []byte("return-path:")

// next reads a line of the header, nil where it is left out.
func (h *headerReader) next() []byte {
	line, err := h.r.ReadSlice('\n')
	if err != nil && err != bufio.ErrBufferFull {
		h.err = err
	}
	folded := len(line) > 0 && (line[0] == ' ' || line[0] == '\t')
	switch {
	case h.part || len(line) == 0 || (folded && (h.kept || h.drop)): // more of the same field
	case !h.kept && !beginsHeader(line):
		line = h.end(append([]byte("\r\n"), line...))
	case bytes.IndexByte(line, ':') <= 0: // the empty line, or text where a header should be
		line = h.end(line)
	default:
		h.drop = len(line) >= len(returnPath) && bytes.EqualFold(line[:len(returnPath)], returnPath)
		h.see(line)
	}
	h.part = err == bufio.ErrBufferFull
	if h.drop {
		line = nil
	}
	h.kept = h.kept || len(line) > 0
	if len(line) > 0 {
		h.open = line[len(line)-1] != '\n'
	}
	if h.err == io.EOF && !h.body {
		line = h.last(line)
	}
	return line
}

// end is the line after the header, with the fields before it that the header misses.
func (h *headerReader) end(line []byte) []byte {
	h.body, h.drop = true, false
	return append(h.added(), line...)
}

// last is the last line of a message that is nothing but a header, with the same after it.
func (h *headerReader) last(line []byte) []byte {
	added := h.added()
	if h.open && len(added) > 0 {
		added = append([]byte("\r\n"), added...)
	}
	h.body = true
	return append(bytes.Clone(line), added...)
}

// see notes that the message has a field.
func (h *headerReader) see(line []byte) {
	name, _, _ := bytes.Cut(line, []byte(":"))
	name = bytes.TrimRight(name, " \t") // RFC 5322, section 4.5
	for i := range h.missing {
		if strings.EqualFold(h.missing[i].name, string(name)) {
			h.missing = append(h.missing[:i:i], h.missing[i+1:]...)
			return
		}
	}
}

// added are the fields that the message misses.
func (h *headerReader) added() (lines []byte) {
	for _, f := range h.missing {
		lines = append(lines, f.name+": "+f.value+"\r\n"...)
	}
	h.missing = nil
	return lines
}

// beginsHeader reports whether a message that starts with this line has a header, if only an empty one. A line "From ..." of
// a mailbox file may come before the fields; servers know what to do with it.
func beginsHeader(line []byte) bool {
	if line[0] == '\r' || line[0] == '\n' || bytes.HasPrefix(bytes.TrimLeft(line, ">"), []byte("From ")) {
		return true
	}
	name, _, found := bytes.Cut(line, []byte(":"))
	name = bytes.TrimRight(name, " \t") // RFC 5322, section 4.5
	odd := func(r rune) bool { return r <= ' ' || r > 0x7e }
	return found && len(name) > 0 && !bytes.ContainsFunc(name, odd)
}
