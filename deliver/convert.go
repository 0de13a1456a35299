package deliver

import (
	"errors"
	"fmt"
	"io"

	"github.com/sortie-mail/sortie/dsn"
)

// Bounds on what is converted. What is over one is left as it is, or where that is of no use the conversion fails.
const (
	maxHeaderField = 1 << 20 // octets of a header field, in memory at once
	maxDepth       = 100     // multiparts and messages in each other, as in Postfix
	maxParts       = 10_000  // of a message; each costs an octet of memory
	maxBoundary    = 70      // RFC 2046, section 5.1.1
)

// A conversionError is why a message cannot be converted.
type conversionError struct {
	status dsn.Status // 5.6.3 or 5.6.7; "" where the message could not be read
	err    error
}

func (e *conversionError) Error() string { return e.err.Error() }
func (e *conversionError) Unwrap() error { return e.err }

// cannotConvert is the error of what must stay as it is (RFC 3463, section 3.7).
func cannotConvert(format string, args ...any) *conversionError {
	return &conversionError{status: "5.6.3", err: fmt.Errorf(format, args...)}
}

// needsUTF8 is the error of a header that has no form in ASCII (RFC 6531, section 4.3).
func needsUTF8(format string, args ...any) *conversionError {
	return &conversionError{status: "5.6.7", err: fmt.Errorf(format, args...)}
}

// convert gives the message as a host with such needs can take it. The message is read twice, or once where there is
// nothing to convert: the first time, before convert returns, to see what each part needs. Neither has it in memory.
// Lines that were converted end in CRLF, others as they did.
//
// A DKIM signature over the body, or over a field that was converted, does not survive this, as it does not survive any
// relay that has to convert (RFC 6376, section 5.3). It is no reason to keep mail back.
func (s *survey) convert(open func() (io.ReadCloser, error), n need) (io.ReadCloser, *conversionError) {
	var plan []action
	convert := !s.meets(n)
	if convert {
		var e *conversionError
		n = n.within(s)
		if plan, e = planOf(open, n); e != nil {
			return nil, e
		}
	}
	r, err := open()
	switch {
	case err != nil:
		return nil, &conversionError{err: err}
	case !convert:
		return r, nil
	}
	return newConversion(r, n, plan), nil
}

// within are the needs that the message does not meet. Where nothing above 127 may be, none may be in a header.
func (n need) within(s *survey) need {
	n.sevenBit = n.sevenBit && (s.header8 || s.body8)
	n.asciiHeader = n.sevenBit || n.asciiHeader && s.header8
	n.shortLines = n.shortLines && s.long
	n.noBinary = n.noBinary && s.binary
	return n
}

// planOf reads the message to see what to do with each part.
func planOf(open func() (io.ReadCloser, error), n need) ([]action, *conversionError) {
	r, err := open()
	if err != nil {
		return nil, &conversionError{err: err}
	}
	defer r.Close()
	p := &planner{need: n}
	w := newWalker(r, p)
	for err == nil {
		err = w.step()
	}
	if err == io.EOF {
		return p.plan, nil
	}
	var e *conversionError
	if !errors.As(err, &e) {
		e = &conversionError{err: err}
	}
	return nil, e
}

// A conversion reads a message converted.
type conversion struct {
	source io.Closer
	walker *walker
	writer writer
	read   int // of what the writer has written
	err    error
}

func newConversion(r io.ReadCloser, n need, plan []action) *conversion {
	c := &conversion{source: r, writer: writer{need: n, plan: plan}}
	c.walker = newWalker(r, &c.writer)
	return c
}

// Read implements io.Reader.
func (c *conversion) Read(p []byte) (n int, err error) {
	if c.read > 0 {
		rest := copy(c.writer.out, c.writer.out[c.read:])
		c.read, c.writer.out = 0, c.writer.out[:rest]
	}
	for len(c.writer.out) < min(len(p), surveyBlock) && c.err == nil {
		c.err = c.walker.step()
	}
	n = copy(p, c.writer.out)
	if c.read = n; n == 0 && len(p) > 0 {
		err = c.err
	}
	return n, err
}

// Close closes the message that is converted.
func (c *conversion) Close() error { return c.source.Close() }
