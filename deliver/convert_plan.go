package deliver

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// An action is what becomes of an entity.
type action uint8

const (
	keep        action = 0
	quote       action = 1 << iota // becomes quoted-printable
	encode                         // becomes base64
	mendQuoted                     // is quoted-printable, and gets lines that can be sent
	mendEncoded                    // is base64, and gets lines that can be sent
	relabel                        // has something in it that was converted: its own encoding is another now
	isUTF8                         // what has no label is UTF-8
)

// A planner is a sink that decides what to do with each entity.
type planner struct {
	need need
	plan []action // by the index of the entity
	leaf facts
}

// facts are what is known of a leaf.
type facts struct {
	size, escaped int64 // octets, and those that quoted-printable escapes
	column        int   // octets of the line so far
	high          bool
	long          bool
	binary        bool
	text          utf8Text
}

func (p *planner) grow(e *entity) {
	for len(p.plan) <= e.index {
		p.plan = append(p.plan, keep)
	}
}

func (p *planner) field(e *entity, raw []byte) error {
	p.grow(e)
	return p.fieldOf(e, e.parent, raw)
}

func (p *planner) report(e *entity, raw []byte) error { return p.fieldOf(e, e, raw) }

// fieldOf sees whether a field can be converted, and what that changes around it.
func (p *planner) fieldOf(e, around *entity, raw []byte) error {
	_, changed, err := p.need.field(raw, e.index > 0)
	if err != nil {
		return err
	}
	if changed {
		p.mark(around)
	}
	return nil
}

// mark says that something in an entity is converted.
func (p *planner) mark(e *entity) {
	for ; e != nil; e = e.parent {
		p.plan[e.index] |= relabel
	}
}

func (p *planner) begin(e *entity, _ []byte) error {
	p.grow(e)
	p.leaf = facts{}
	return nil
}

func (p *planner) text(_ *entity, b []byte) error {
	f := &p.leaf
	f.size += int64(len(b))
	f.column += len(b)
	f.long = f.long || f.column > longestLine
	for _, c := range b {
		if c >= utf8.RuneSelf || c == '=' || c < ' ' && c != '\t' || c == 0x7f {
			f.escaped++
			f.high = f.high || c >= utf8.RuneSelf
			f.binary = f.binary || c == 0 || c == '\r'
		}
	}
	f.text.write(b)
	return nil
}

func (p *planner) eol(_ *entity, _ []byte) error {
	p.leaf.column = 0
	p.leaf.size += int64(len(crlf))
	p.leaf.text.write(lf)
	return nil
}

func (p *planner) close(e *entity, _ []byte) error {
	f := &p.leaf
	n := p.need
	if !(n.sevenBit && f.high || n.shortLines && f.long || n.noBinary && f.binary) {
		return nil
	}
	if e.kind == kindSealed {
		return cannotConvert("a part of the message has %s and cannot be converted, because %s", f.trouble(), e.why)
	}
	p.plan[e.index] = f.action(e)
	p.mark(e.parent)
	return nil
}

// trouble says what a host cannot take.
func (f *facts) trouble() string {
	switch {
	case f.high:
		return "8-bit text"
	case f.long:
		return "lines over 998 octets"
	}
	return "binary data"
}

// action is how a leaf is converted. Quoted-printable keeps text readable, and base64 is shorter for what is mostly not
// ASCII. Only base64 keeps octets that are no lines.
func (f *facts) action(e *entity) (a action) {
	switch e.encoding {
	case "quoted-printable":
		return mendQuoted
	case "base64":
		return mendEncoded
	}
	if a = quote; f.binary || f.escaped*3 > f.size || (e.encoding == "binary" && !e.isText()) {
		a = encode
	}
	if f.text.valid() {
		a |= isUTF8
	}
	return a
}

// isText reports whether the line ends of a leaf are only that (RFC 2046, section 4.1.1).
func (e *entity) isText() bool { return e.mediaType == "" || strings.HasPrefix(e.mediaType, "text/") }

func (p *planner) filler(e *entity, l line) error {
	n := p.need
	if n.sevenBit && !isASCII(l.text) || n.shortLines && len(l.text) > longestLine || n.noBinary && bytes.IndexByte(l.text, 0) >= 0 {
		e.filled = true
		p.mark(e)
	}
	return nil
}

func (p *planner) structure(line) error { return nil }

// A utf8Text tells whether text that comes in pieces is UTF-8.
type utf8Text struct {
	bad  bool
	rest [utf8.UTFMax]byte // of a character that is not whole
	n    int
}

func (t *utf8Text) write(p []byte) {
	for t.n > 0 && len(p) > 0 && !t.bad {
		t.rest[t.n] = p[0]
		t.n++
		p = p[1:]
		if utf8.FullRune(t.rest[:t.n]) {
			t.bad = !utf8.Valid(t.rest[:t.n])
			t.n = 0
		}
	}
	if t.bad || len(p) == 0 {
		return
	}
	cut := len(p)
	for i := 1; i < utf8.UTFMax && i <= len(p); i++ {
		if c := p[len(p)-i]; utf8.RuneStart(c) {
			if !utf8.FullRune(p[len(p)-i:]) {
				cut = len(p) - i
			}
			break
		}
	}
	t.bad = !utf8.Valid(p[:cut])
	t.n = copy(t.rest[:], p[cut:])
}

func (t *utf8Text) valid() bool { return !t.bad && t.n == 0 }
