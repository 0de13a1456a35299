package deliver

import (
	"bufio"
	"bytes"
	"io"
)

// A line is one of a message, or a piece of one that is longer than the reader's buffer.
type line struct {
	text  []byte // without its end
	end   []byte // as it stood; empty where there is none
	start bool   // it begins the line
	whole bool   // it ends the line
}

// A lineReader gives the lines of a message as they are on the wire after DATA: CR alone ends a line too, and of CRs
// before LF one counts (see dotWriter). Where raw is set, lines end with LF, with or without one CR, and other CRs are
// content.
type lineReader struct {
	in   *bufio.Reader
	raw  bool
	rest []byte // of what was read, to be given before more is read
	full bool   // rest does not end its line
	mid  bool   // the last piece did not end its line
}

// next gives the next line. It is good until the next call.
func (r *lineReader) next() (l line, err error) {
	if len(r.rest) == 0 {
		if err := r.fill(); err != nil {
			return line{}, err
		}
	}
	l = r.cut()
	l.start = !r.mid
	l.whole = len(l.end) > 0 || !r.full
	r.mid = !l.whole
	return l, nil
}

func (r *lineReader) fill() error {
	p, err := r.in.ReadSlice('\n')
	if r.full = err == bufio.ErrBufferFull; r.full {
		err = nil
		if p[len(p)-1] == '\r' && len(p) > 1 && r.in.UnreadByte() == nil { // LF may follow
			p = p[:len(p)-1]
		}
	}
	if err == io.EOF && len(p) > 0 {
		err = nil
	}
	r.rest = p
	return err
}

// cut takes a line, or a piece, from rest.
func (r *lineReader) cut() (l line) {
	p := r.rest
	text, ended := bytes.CutSuffix(p, lf)
	if ended {
		if r.raw {
			text = bytes.TrimSuffix(text, cr)
		} else {
			text = bytes.TrimRight(text, "\r")
		}
	}
	if !r.raw {
		if i := bytes.IndexByte(text, '\r'); i >= 0 {
			r.rest = p[i+1:]
			return line{text: p[:i], end: crlf}
		}
	}
	r.rest = nil
	end := p[len(text):]
	if len(end) > len(crlf) {
		end = crlf
	}
	return line{text: text, end: end}
}

var (
	lf = []byte("\n")
	cr = []byte("\r")
)
