package deliver

import (
	"bytes"
	"unicode/utf8"
)

// A writer is a sink that writes the message as planned.
type writer struct {
	need     need
	plan     []action
	out      []byte
	body     encoder // of the leaf; nil where it stays as it is
	labelled *entity // whose Content-Transfer-Encoding was replaced
	column   int     // in a line of filler
}

// An encoder appends a leaf in another form. The text has no line ends in it, the last line may have none after it.
type encoder interface {
	text(out, p []byte) []byte
	eol(out, end []byte) []byte
	close(out []byte) []byte
}

func (w *writer) action(e *entity) action {
	if e.index < len(w.plan) {
		return w.plan[e.index]
	}
	return keep // the message is not what it was when it was planned
}

func (w *writer) field(e *entity, raw []byte) error {
	if name, _ := splitField(raw); e.hasEncoding && fieldName(name) == "content-transfer-encoding" {
		if label := w.label(e); label != "" {
			if w.labelled != e { // there may be more than one
				w.out = append(w.out, label...)
				w.labelled = e
			}
			return nil
		}
	}
	return w.anyField(e, raw)
}

func (w *writer) report(e *entity, raw []byte) error { return w.anyField(e, raw) }

func (w *writer) anyField(e *entity, raw []byte) error {
	converted, _, err := w.need.field(raw, e.index > 0)
	if err != nil {
		return err
	}
	w.out = append(w.out, converted...)
	return nil
}

// label is the field that takes the place of the entity's Content-Transfer-Encoding; "" is that it stays.
func (w *writer) label(e *entity) string {
	const field = "Content-Transfer-Encoding: "
	switch a := w.action(e); {
	case a&quote != 0:
		return field + "quoted-printable\r\n"
	case a&encode != 0:
		return field + "base64\r\n"
	case a&relabel == 0:
	case w.need.sevenBit && (e.encoding == "8bit" || e.encoding == "binary"):
		return field + "7bit\r\n"
	case e.encoding == "binary" && (w.need.noBinary || w.need.shortLines):
		return field + "8bit\r\n"
	}
	return ""
}

func (w *writer) begin(e *entity, blank []byte) error {
	a := w.action(e)
	if a&(quote|encode) != 0 {
		w.addFields(e, a)
	}
	w.body = nil
	switch {
	case a&quote != 0:
		w.body = &quoter{}
	case a&encode != 0:
		w.body = &base64Writer{raw: e.encoding == "binary" && !e.isText()}
	case a&mendQuoted != 0:
		w.body = &quotedMender{}
	case a&mendEncoded != 0:
		w.body = &base64Mender{}
	}
	if blank == nil && a != keep {
		blank = crlf // what follows must not be taken for a field
	}
	w.out = append(w.out, blank...)
	return nil
}

// addFields completes the header of a leaf that gets an encoding.
func (w *writer) addFields(e *entity, a action) {
	if e.isMessage() && !e.hasVersion {
		w.out = append(w.out, "MIME-Version: 1.0\r\n"...)
	}
	if !e.hasType {
		charset := unknownCharset
		if a&isUTF8 != 0 {
			charset = "utf-8"
		}
		w.out = append(w.out, "Content-Type: text/plain; charset="+charset+"\r\n"...)
	}
	if !e.hasEncoding {
		w.out = append(w.out, w.label(e)...)
	}
}

func (w *writer) text(_ *entity, p []byte) error {
	if w.body == nil {
		w.out = append(w.out, p...)
	} else {
		w.out = w.body.text(w.out, p)
	}
	return nil
}

func (w *writer) eol(_ *entity, end []byte) error {
	if w.body == nil {
		w.out = append(w.out, end...)
	} else {
		w.out = w.body.eol(w.out, end)
	}
	return nil
}

func (w *writer) close(e *entity, end []byte) error {
	if w.body != nil {
		w.out = w.body.close(w.out)
		w.body = nil
		if len(end) == 0 && w.action(e)&encode != 0 {
			end = crlf // where the message ends in base64, this is no content
		}
	}
	w.out = append(w.out, end...)
	return nil
}

// filler writes a line of a preamble or an epilogue. Those are no content, and readers show them to nobody (RFC 2046,
// section 5.1.1), but they have no encoding either: what cannot be sent becomes a question mark, and long lines are cut.
func (w *writer) filler(_ *entity, l line) error {
	if l.start {
		w.column = 0
	}
	for text := l.text; len(text) > 0; {
		n := len(text)
		if w.need.shortLines {
			if w.column == longestLine {
				w.out = append(w.out, crlf...)
				if w.column = 0; text[0] == '-' { // which could become a delimiter
					w.out = append(w.out, ' ')
					w.column = 1
				}
			}
			n = min(n, longestLine-w.column)
		}
		w.out = append(w.out, text[:n]...)
		w.need.mask(w.out[len(w.out)-n:], '?')
		w.column += n
		text = text[n:]
	}
	w.out = append(w.out, l.end...)
	return nil
}

// mask puts c in the place of the octets that may not be sent.
func (n need) mask(p []byte, c byte) {
	for i, b := range p {
		if n.sevenBit && b >= utf8.RuneSelf || n.noBinary && b == 0 {
			p[i] = c
		}
	}
}

// structure writes a delimiter or an empty line.
func (w *writer) structure(l line) error {
	if w.need.shortLines && len(l.text) > longestLine {
		l.text = bytes.TrimRight(l.text, " \t")
	}
	w.out = append(append(w.out, l.text...), l.end...)
	return nil
}
