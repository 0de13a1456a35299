package main

// How a message is read from the wire, such that nobody can smuggle another one in with it.

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// What makes a message unfit for any relay.
var (
	errBareCR = errors.New("a CR without LF")
	errBareLF = errors.New("an LF without CR")
)

// errBrokenOff is a message whose end does not come: the client has gone, or waited too long.
var errBrokenOff = errors.New("the message was broken off")

// A tooBigError is a message over the limit.
type tooBigError struct{ most int64 }

func (e *tooBigError) Error() string {
	return fmt.Sprintf("the message is longer than %d octets, the limit here", e.most)
}

// dotReader reads the message of a DATA command from a connection, with dot-stuffing undone (RFC 5321, section 4.5.2). Only
// CR LF . CR LF ends it: servers that take less for the end let a second message be smuggled in. go-smtp's own reader
// knows that too, but misses the end behind CR CR LF, and refuses a message that is exactly as long as the limit.
type dotReader struct {
	c     *conn
	left  int64 // octets that the message may still have
	most  int64
	start bool   // at the start of a line
	piece []byte // of the message, not handed on yet
	err   error  // why there is no more; io.EOF after the end
}

func newDotReader(c *conn, most int64) *dotReader {
	return &dotReader{c: c, left: most, most: most, start: true}
}

// Read implements io.Reader.
func (d *dotReader) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if len(d.piece) == 0 {
			if n > 0 && len(d.c.in) == 0 {
				break // what is there, before waiting for more
			}
			if d.piece, d.err = d.next(); d.err != nil {
				break
			}
			if d.left -= int64(len(d.piece)); d.left < 0 {
				d.err = &tooBigError{d.most}
				break
			}
		}
		k := copy(p[n:], d.piece)
		d.piece = d.piece[k:]
		n += k
	}
	if n > 0 {
		return n, nil
	}
	return 0, d.err
}

// next takes a piece of the message out of the connection's buffer: a line, or a part of a long one that does not split
// CR LF.
func (d *dotReader) next() ([]byte, error) {
	if d.err != nil {
		return nil, d.err
	}
	for {
		if err := d.need(1); err != nil {
			return nil, err
		}
		if d.start && d.c.in[0] == '.' {
			if err := d.need(3); err != nil {
				return nil, err
			}
			if d.c.in[1] == '\r' && d.c.in[2] == '\n' {
				d.c.in = d.c.in[3:]
				return nil, io.EOF
			}
			d.c.in = d.c.in[1:]
		}
		in := d.c.in
		end := bytes.IndexByte(in, '\n') + 1
		switch {
		case end > 0:
			d.start = end > 1 && in[end-2] == '\r'
		case in[len(in)-1] != '\r':
			end, d.start = len(in), false
		case len(in) > 1:
			end, d.start = len(in)-1, false
		default: // a CR alone: what follows says what it is
			d.start = false
			if err := d.need(2); err != nil {
				return nil, err
			}
			continue
		}
		d.c.in = in[end:]
		return in[:end], nil
	}
}

// need waits until there are n octets in the connection's buffer.
func (d *dotReader) need(n int) error {
	for len(d.c.in) < n {
		if err := d.c.fill(); err != nil {
			return fmt.Errorf("%w: %w", errBrokenOff, err)
		}
	}
	return nil
}

// drain reads up to the end of a message that is refused already, so that what follows it is not taken for commands. It
// reports false where the end does not come within another limit's length, or not at all.
func (d *dotReader) drain() bool {
	var big *tooBigError
	if errors.As(d.err, &big) {
		d.err, d.left = nil, d.most
	}
	d.piece = nil
	var rest [4 << 10]byte
	for d.err == nil {
		d.Read(rest[:])
	}
	return d.err == io.EOF
}

// lineCheck passes a message on as long as every CR and LF in it is part of CR LF (RFC 5321, section 2.3.8). Relays differ in
// what they make of others, and a second message could be smuggled past the next one.
type lineCheck struct {
	r    io.Reader
	size int64 // octets so far
	cr   bool  // the last octet was CR

	binary bool // it has no lines (RFC 3030), and goes only to hosts that count its octets
}

// Read implements io.Reader.
func (l *lineCheck) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	l.size += int64(n)
	if l.binary {
		return n, err
	}
	if bad := l.check(p[:n]); bad != nil {
		return 0, bad
	}
	if err == io.EOF && l.cr {
		return 0, errBareCR
	}
	return n, err
}

func (l *lineCheck) check(p []byte) error {
	for len(p) > 0 {
		if l.cr {
			if p[0] != '\n' {
				return errBareCR
			}
			l.cr, p = false, p[1:]
			continue
		}
		lf := bytes.IndexByte(p, '\n')
		text := p
		if lf >= 0 {
			text = p[:lf]
		}
		cr := bytes.IndexByte(text, '\r')
		switch {
		case cr < 0 && lf >= 0:
			return errBareLF
		case cr < 0:
			return nil
		}
		l.cr, p = true, p[cr+1:]
	}
	return nil
}
