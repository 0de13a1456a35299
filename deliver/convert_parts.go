package deliver

import (
	"bufio"
	"bytes"
	"io"
)

// A sink is told by a walker what a message is made of, in order. Slices are good for the call only. An error ends the
// walk.
type sink interface {
	field(e *entity, raw []byte) error   // a header field with its line ends, the first one after all is known of none
	begin(e *entity, blank []byte) error // the body begins; blank is the empty line before it, nil where there is none
	text(e *entity, p []byte) error      // of a leaf, without line ends
	eol(e *entity, end []byte) error     // a line end of a leaf
	close(e *entity, end []byte) error   // the leaf is over; end is the line end of the delimiter that follows
	report(e *entity, raw []byte) error  // a field in a body of fields
	filler(e *entity, l line) error      // of a multipart, but no content: preamble or epilogue
	structure(l line) error              // a delimiter, or an empty line between fields
}

// A walker finds the parts of a message (RFC 2046), line by line. Its states are header, leaf, fields, preamble and
// epilogue.
type walker struct {
	in     lineReader
	to     sink
	state  func(*walker, line) error
	entity *entity // whose header, body or epilogue it is in
	stack  []frame // the entities with parts around it, from the message inwards
	count  int     // of entities
	part   []byte  // the field so far
	inLeaf bool
	owing  bool   // end is owed to the leaf, or to the delimiter if that follows
	end    []byte // of the last line
}

// A frame is an entity that has entities in it.
type frame struct {
	entity *entity
	parts  int
}

func newWalker(r io.Reader, to sink) *walker {
	w := &walker{in: lineReader{in: bufio.NewReaderSize(r, surveyBlock)}, to: to}
	_ = w.open(nil) // the first entity is not one too many
	return w
}

// step takes a line. After the last one it returns io.EOF.
func (w *walker) step() error {
	l, err := w.in.next()
	switch {
	case err == io.EOF:
		return w.finish()
	case err != nil:
		return err
	}
	if i, last := w.delimiter(l); i >= 0 {
		return w.cross(i, last, l)
	}
	return w.state(w, l)
}

var dashes = []byte("--")

// delimiter finds which entity's parts a line delimits, -1 for none, and whether it ends them. Only the boundary itself
// and white space may stand there (RFC 2046, section 5.1.1). Readers differ about lines that go on after it; those that we
// take for text of the part are sent as they are or encoded, so that nobody sees more delimiters than before.
func (w *walker) delimiter(l line) (i int, last bool) {
	if len(w.stack) == 0 || !l.start || !l.whole || !bytes.HasPrefix(l.text, dashes) {
		return -1, false
	}
	text := bytes.TrimRight(l.text[len(dashes):], " \t")
	for i := len(w.stack) - 1; i >= 0; i-- {
		b := w.stack[i].entity.boundary
		if n := len(b); n > 0 && len(text) >= n && string(text[:n]) == b {
			if rest := text[n:]; len(rest) == 0 || bytes.Equal(rest, dashes) {
				return i, len(rest) > 0
			}
		}
	}
	return -1, false
}

// cross goes over a delimiter.
func (w *walker) cross(i int, last bool, l line) error {
	if err := w.leave(); err != nil {
		return err
	}
	if err := w.pop(i + 1); err != nil {
		return err
	}
	if err := w.to.structure(l); err != nil {
		return err
	}
	f := &w.stack[i]
	f.parts++
	if !last {
		return w.open(f.entity)
	}
	w.entity, w.state = f.entity, (*walker).filler
	return w.pop(i)
}

// open begins an entity.
func (w *walker) open(parent *entity) error {
	if w.count == maxParts {
		return cannotConvert("the message has more than %d parts, too many to convert", maxParts)
	}
	w.entity = &entity{parent: parent, index: w.count}
	w.count++
	w.state = (*walker).header
	return nil
}

// leave ends what comes before a delimiter, or before the end of the message.
func (w *walker) leave() error {
	if err := w.endField(); err != nil || !w.inLeaf {
		return err
	}
	var end []byte
	if w.owing {
		end = w.end
	}
	w.owing, w.inLeaf, w.in.raw = false, false, false
	return w.to.close(w.entity, end)
}

// pop closes frames until n are left.
func (w *walker) pop(n int) error {
	for len(w.stack) > n {
		f := w.stack[len(w.stack)-1]
		w.stack = w.stack[:len(w.stack)-1]
		if f.parts == 0 && f.entity.filled {
			return cannotConvert("the boundary of a multipart stands nowhere in it, so that its text cannot be converted")
		}
	}
	return nil
}

// finish ends the message.
func (w *walker) finish() error {
	if err := w.endLine(); err != nil {
		return err
	}
	if err := w.leave(); err != nil {
		return err
	}
	if err := w.pop(0); err != nil {
		return err
	}
	return io.EOF
}

// header is the state in the header of an entity. A line that is no field ends it, as an empty one does.
func (w *walker) header(l line) error {
	switch {
	case !l.start:
		return w.addField(l)
	case len(l.text) == 0:
		return w.body(l.end)
	case isSpace(l.text[0]) && len(w.part) > 0:
		return w.addField(l)
	case isField(l.text) || (len(w.part) == 0 && !w.entity.hasFields && isMailboxLine(l.text)):
		if err := w.endField(); err != nil {
			return err
		}
		return w.addField(l)
	}
	if err := w.body(nil); err != nil {
		return err
	}
	return w.state(w, l)
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

func (w *walker) addField(l line) error {
	if len(w.part)+len(l.text) > maxHeaderField {
		return cannotConvert("the message has a header field of more than %d octets, too long to convert", maxHeaderField)
	}
	w.part = append(append(w.part, l.text...), l.end...)
	return nil
}

// endField passes on the field that has ended, if there is one.
func (w *walker) endField() error {
	raw := w.part
	if len(raw) == 0 {
		return nil
	}
	w.part = w.part[:0]
	if w.entity.kind == kindFields {
		return w.to.report(w.entity, raw)
	}
	w.entity.learn(raw)
	return w.to.field(w.entity, raw)
}

// body goes on with what the header says the body is.
func (w *walker) body(blank []byte) error {
	if err := w.endField(); err != nil {
		return err
	}
	e := w.entity
	e.decide(len(w.stack))
	if err := w.to.begin(e, blank); err != nil {
		return err
	}
	switch e.kind {
	case kindMultipart:
		w.stack = append(w.stack, frame{entity: e})
		w.state = (*walker).filler
	case kindMessage:
		w.stack = append(w.stack, frame{entity: e, parts: 1})
		return w.open(e)
	case kindFields:
		w.state = (*walker).fields
	default:
		w.inLeaf, w.in.raw = true, e.encoding == "binary"
		w.state = (*walker).leaf
	}
	return nil
}

// leaf is the state in content.
func (w *walker) leaf(l line) error {
	if err := w.endLine(); err != nil {
		return err
	}
	if len(l.text) > 0 {
		if err := w.to.text(w.entity, l.text); err != nil {
			return err
		}
	}
	if w.owing = len(l.end) > 0; w.owing {
		w.end = append(w.end[:0], l.end...)
	}
	return nil
}

// endLine gives the leaf the line end it is owed.
func (w *walker) endLine() error {
	if !w.owing {
		return nil
	}
	w.owing = false
	return w.to.eol(w.entity, w.end)
}

// fields is the state in a body that is made of fields.
func (w *walker) fields(l line) error {
	if l.start && (len(l.text) == 0 || !isSpace(l.text[0])) {
		if err := w.endField(); err != nil {
			return err
		}
	}
	if l.start && len(l.text) == 0 {
		return w.to.structure(l)
	}
	return w.addField(l)
}

// filler is the state before the first and after the last part of a multipart.
func (w *walker) filler(l line) error { return w.to.filler(w.entity, l) }
