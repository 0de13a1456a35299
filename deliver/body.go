package deliver

import (
	"bufio"
	"bytes"
	"io"
	"sync"
)

// chunk is how much of a message is in memory at once.
const chunk = 32 << 10

var chunks = sync.Pool{New: func() any { return new([chunk]byte) }}

// A readError is a failure to read the message on our side.
type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }

// maxEmptyReads is how often a body may give nothing in a row, and no error, before it is given up.
const maxEmptyReads = 100

// copyBody sends the message without the dot that ends it, and returns how many octets it read. The host has
// Timeouts.Block for each block.
func (t *transaction) copyBody(body io.Reader) (n int64, err error) {
	buf := chunks.Get().(*[chunk]byte)
	defer chunks.Put(buf)
	w := dotWriter{w: t.s.w, start: true}
	for empty := 0; ; {
		k, readErr := body.Read(buf[:])
		if empty++; k > 0 {
			empty = 0
		}
		if empty > maxEmptyReads {
			return n, &readError{io.ErrNoProgress}
		}
		n += int64(k)
		if err := t.s.within(t.d.set.timeouts.Block); err != nil {
			return n, err
		}
		if err := w.write(buf[:k]); err != nil {
			return n, err
		}
		if readErr == io.EOF {
			return n, w.end()
		}
		if readErr != nil {
			return n, &readError{readErr}
		}
	}
}

var crlf = []byte("\r\n")

// A dotWriter writes a message as it must look after DATA: every line ends in CRLF, no CR or LF stands anywhere else, and
// a dot at the start of a line is doubled (RFC 5321, sections 2.3.8 and 4.5.2). Hosts differ in what they take for the
// end of a message when CR or LF stands alone, and a second message could be smuggled in.
type dotWriter struct {
	w     *bufio.Writer
	start bool // of a line
	crs   int  // CRs seen that are not yet known to be of a line end
}

func (d *dotWriter) write(p []byte) error {
	for len(p) > 0 {
		line := p
		if i := bytes.IndexByte(p, '\n'); i >= 0 {
			line = p[:i+1]
		}
		if err := d.line(line); err != nil {
			return err
		}
		p = p[len(line):]
	}
	return nil
}

// line writes a line that ends in LF, or the beginning of one.
func (d *dotWriter) line(p []byte) error {
	if d.crs == 0 && bytes.HasSuffix(p, crlf) && bytes.IndexByte(p, '\r') == len(p)-2 { // what nearly all lines are
		d.stuff(p[0])
		d.start = true
		_, err := d.w.Write(p)
		return err
	}
	for len(p) > 0 {
		n := bytes.IndexAny(p, "\r\n")
		if n < 0 {
			n = len(p)
		}
		if n > 0 {
			if err := d.text(p[:n]); err != nil {
				return err
			}
			p = p[n:]
			continue
		}
		if p[0] == '\r' {
			d.crs++
		} else {
			d.crs = 0 // those before LF are of its line end
			d.newline()
		}
		p = p[1:]
	}
	return nil
}

// text writes what has no CR or LF in it.
func (d *dotWriter) text(p []byte) error {
	d.flushCRs()
	d.stuff(p[0])
	d.start = false
	_, err := d.w.Write(p)
	return err
}

// stuff doubles a dot at the start of a line.
func (d *dotWriter) stuff(first byte) {
	if d.start && first == '.' {
		d.w.WriteByte('.')
	}
}

// flushCRs makes a line end of each CR that stood alone.
func (d *dotWriter) flushCRs() {
	for ; d.crs > 0; d.crs-- {
		d.newline()
	}
}

func (d *dotWriter) newline() {
	d.w.Write(crlf)
	d.start = true
}

// end closes the last line.
func (d *dotWriter) end() error {
	d.flushCRs()
	if !d.start {
		d.newline()
	}
	return nil
}
