package deliver

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// chunk is how much of a message is in memory at once.
const chunk = 32 << 10

var chunks = sync.Pool{New: func() any { return new([chunk]byte) }}

// A readError is a failure to read the message on our side.
type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

// copyBody sends the message without the dot that ends it, and returns how many octets it read. The host has
// Timeouts.Block for each chunk.
func (t *transaction) copyBody(ctx context.Context) (n int64, err error) {
	buf := chunks.Get().(*[chunk]byte)
	defer chunks.Put(buf)
	w := dotWriter{w: t.s.w, start: true}
	for {
		k, readErr := t.body.Read(buf[:])
		n += int64(k)
		if k > 0 {
			if err := t.s.within(ctx, t.d.Timeouts.Block); err != nil {
				return n, err
			}
			if err := w.write(buf[:k]); err != nil {
				return n, err
			}
		}
		if readErr == io.EOF {
			return n, w.end()
		}
		if readErr != nil {
			return n, &readError{readErr}
		}
	}
}

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
		i := bytes.IndexAny(p, "\r\n")
		if i != 0 {
			text := p
			if i > 0 {
				text = p[:i]
			}
			if err := d.text(text); err != nil {
				return err
			}
			p = p[len(text):]
			continue
		}
		if p[0] == '\r' {
			d.crs++
		} else {
			d.crs = 0 // those before LF are of its line end
			d.line()
		}
		p = p[1:]
	}
	return nil
}

// text writes what has no CR or LF in it.
func (d *dotWriter) text(p []byte) error {
	d.flushCRs()
	if d.start && p[0] == '.' {
		d.w.WriteByte('.')
	}
	d.start = false
	_, err := d.w.Write(p)
	return err
}

// flushCRs makes a line end of each CR that stood alone.
func (d *dotWriter) flushCRs() {
	for ; d.crs > 0; d.crs-- {
		d.line()
	}
}

func (d *dotWriter) line() {
	d.w.WriteString("\r\n")
	d.start = true
}

// end closes the last line.
func (d *dotWriter) end() error {
	d.flushCRs()
	if !d.start {
		d.line()
	}
	return nil
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.Canceled)
}

func deadline(step time.Duration) time.Time { return time.Now().Add(step) }
