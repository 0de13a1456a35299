package queue

import (
	"bytes"
	"fmt"
	"io"
)

// MaxHeader is how long a message's header section may be, in octets. Real ones stay under 64 KiB; what is
// longer is an attack or an accident, and comes back whole in no report.
const MaxHeader = 1 << 20

// An Intake is the reader through which a backend takes a message in. It counts and bounds what passes, so that
// every backend keeps the same limits.
type Intake struct {
	Size int64 // octets so far
	Hops int   // Received fields in the header section so far

	r      io.Reader
	max    int64
	line   []byte // start of the header line that is being read
	header int    // octets of header so far; -1 once it has ended
	err    error
}

// NewIntake reads r, and fails with an [*EnvelopeError] where the message is longer than max octets (0 is no
// limit) or its header section is longer than [MaxHeader].
func NewIntake(r io.Reader, max int64) *Intake {
	return &Intake{r: r, max: max, line: make([]byte, 0, len(receivedField))}
}

// Read implements io.Reader.
func (in *Intake) Read(p []byte) (int, error) {
	if in.err != nil {
		return 0, in.err
	}
	n, err := in.r.Read(p)
	in.Size += int64(n)
	if in.header >= 0 {
		in.scan(p[:n])
	}
	switch {
	case in.max > 0 && in.Size > in.max:
		err = &EnvelopeError{"message", "", fmt.Sprintf("it is longer than %d octets, the limit here", in.max)}
	case in.header > MaxHeader:
		err = &EnvelopeError{"message", "", fmt.Sprintf("its header section is longer than %d octets, the limit here", MaxHeader)}
	}
	if err != nil {
		in.err = err
		if err != io.EOF {
			n = 0
		}
	}
	return n, err
}

var receivedField = []byte("received:")

// scan looks at more of the header section, line by line.
func (in *Intake) scan(p []byte) {
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		part := p
		if end >= 0 {
			part = p[:end]
		}
		in.header += len(part)
		if room := cap(in.line) - len(in.line); room > 0 {
			in.line = append(in.line, part[:min(room, len(part))]...)
		}
		if end < 0 {
			return
		}
		in.header++
		if len(bytes.TrimRight(in.line, "\r")) == 0 {
			in.header = -1
			return
		}
		if bytes.EqualFold(in.line, receivedField) {
			in.Hops++
		}
		in.line, p = in.line[:0], p[end+1:]
	}
}
