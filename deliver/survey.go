package deliver

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/bits"
	"strings"
	"sync"
)

// longestLine is how many octets a line may have without its line end (RFC 5322, section 2.1.1).
const longestLine = 998

// A survey is what a message is made of, as far as a host may not be able to take it.
type survey struct {
	header8     bool // octets above 127 in the message's own header: it needs SMTPUTF8 (RFC 6532), or is raw 8-bit
	body8       bool // octets above 127 after it: it needs 8BITMIME
	long        bool // a line of more than 998 octets without its line end, anywhere
	binary      bool // NUL, or CR that is not part of a line end
	tlsOptional bool // header field "TLS-Required: No" (RFC 8689, section 5)

	size int64 // octets in all
	high int64 // how many of them are above 127
}

// A need is what a host cannot take. Its zero value is a host that takes everything.
type need struct {
	sevenBit    bool // nothing above 127, in the header either: no 8BITMIME
	shortLines  bool // no lines over 998 octets: DATA, not BDAT
	asciiHeader bool // nothing above 127 in the header: no SMTPUTF8
	noBinary    bool // no NUL, and no CR or LF but in line ends: no BINARYMIME
}

// meets reports whether a host with these needs can take the message as it is.
func (s *survey) meets(n need) bool {
	return !(n.sevenBit && (s.header8 || s.body8) || n.asciiHeader && s.header8 ||
		n.shortLines && s.long || n.noBinary && s.binary)
}

// octets estimates the size of the message after conversion, for SIZE (RFC 1870, section 3).
func (s *survey) octets(n need) int64 {
	if s.meets(n) {
		return s.size
	}
	const lines, header = 40, 200 // a line end in so many octets of quoted-printable; new fields
	quoted := s.size + 2*s.high
	base64 := (s.size/3 + 1) * 4 * 78 / 76
	return min(quoted+quoted/lines, base64) + header
}

// surveyBlock is how much of a message a survey has in memory.
const surveyBlock = 32 << 10

var surveyBlocks = sync.Pool{New: func() any { return new([surveyBlock]byte) }}

// surveyOf reads a message once, whole.
func surveyOf(r io.Reader) (survey, error) {
	buf := surveyBlocks.Get().(*[surveyBlock]byte)
	defer surveyBlocks.Put(buf)
	s := surveyor{inHeader: true, first: true}
	for kept := 0; ; {
		n, err := fill(r, buf[kept:])
		block := buf[:kept+n]
		if err == io.EOF {
			s.block(block)
			return s.survey, nil
		}
		if err != nil {
			return survey{}, err
		}
		cut := wholeLines(block)
		s.block(block[:cut])
		kept = copy(buf[:], block[cut:])
	}
}

// surveyOfAll looks into a message that is in memory.
func surveyOfAll(text []byte) survey {
	s := surveyor{inHeader: true, first: true}
	s.block(text)
	return s.survey
}

// fill reads until p is full, or an error.
func fill(r io.Reader, p []byte) (n int, err error) {
	for empty := 0; n < len(p) && err == nil; {
		var k int
		if k, err = r.Read(p[n:]); k > 0 {
			empty = 0
		} else if empty++; empty > maxIdleReads && err == nil {
			err = io.ErrNoProgress
		}
		n += k
	}
	return n, err
}

// maxIdleReads is how often a message may give nothing in a row, and no error, before it is given up.
const maxIdleReads = 100

// wholeLines is how much of a full block to look at: its whole lines, or where it has no line end nearly all of it.
func wholeLines(block []byte) int {
	if i := bytes.LastIndexByte(block, '\n'); i >= 0 {
		return i + 1
	}
	return len(block) - 1 // the last octet may be the CR of a line end
}

// A surveyor makes a survey of blocks that end with a line, but for lines longer than a block.
type surveyor struct {
	survey
	inHeader bool
	first    bool // no line of the header has been seen
	inside   bool // the block begins inside a line
	tls      bool // the field is TLS-Required, and its value is still to come
}

func (s *surveyor) block(p []byte) {
	if len(p) == 0 {
		return
	}
	s.size += int64(len(p))
	s.long = s.long || hasLongLine(p)
	s.binary = s.binary || hasBinary(p)
	n := 0
	if s.inHeader {
		n = s.header(p)
		if high := countHigh(p[:n]); high > 0 {
			s.header8 = true
			s.high += int64(high)
		}
	}
	s.inside = p[len(p)-1] != '\n'
	if high := countHigh(p[n:]); high > 0 {
		s.body8 = true
		s.high += int64(high)
	}
}

// header looks at the lines of the header and returns how many octets it has in this block.
func (s *surveyor) header(p []byte) (n int) {
	for n < len(p) {
		end := len(p)
		if i := bytes.IndexByte(p[n:], '\n'); i >= 0 {
			end = n + i + 1
		}
		if n += s.headerLine(p[n:end]); !s.inHeader {
			break
		}
	}
	return n
}

// headerLine returns how much of a line, with its end, is of the header. CR alone ends a line too: that is how it goes on
// the wire.
func (s *surveyor) headerLine(line []byte) (n int) {
	text := trimEnd(line)
	for s.inHeader {
		end := bytes.IndexByte(text[n:], '\r')
		if end < 0 {
			if s.isHeader(text[n:]) {
				return len(line)
			}
			break
		}
		if !s.isHeader(text[n : n+end]) {
			break
		}
		n += end + 1
	}
	s.inHeader = false
	if len(text) == n {
		return len(line) // the empty line between header and body
	}
	return n
}

// isHeader reports whether a line without its end is of the header.
func (s *surveyor) isHeader(text []byte) bool {
	switch {
	case s.inside:
		s.inside = false
	case len(text) == 0:
		return false
	case text[0] == ' ' || text[0] == '\t':
		if s.first {
			return false
		}
		s.tlsRequired(text, s.tls)
	case isField(text):
		name, value, _ := bytes.Cut(text, colon)
		s.tlsRequired(value, text[0]|0x20 == 't' && bytes.EqualFold(bytes.TrimRight(name, " \t"), tlsRequired))
	case !s.first || !isMailboxLine(text):
		return false
	}
	s.first = false
	return true
}

var (
	colon       = []byte(":")
	tlsRequired = []byte("TLS-Required")
)

// tlsRequired looks at the value of a field, or more of it.
func (s *surveyor) tlsRequired(value []byte, isIt bool) {
	if s.tls = isIt; !isIt {
		return
	}
	if value = bytes.TrimSpace(value); len(value) > 0 {
		s.tls = false
		s.tlsOptional = s.tlsOptional || strings.EqualFold(string(value), "no")
	}
}

// isField reports whether a line begins a header field: a name and a colon, maybe with white space between (RFC 5322,
// sections 2.2 and 4.5).
func isField(line []byte) bool {
	i := 0
	for i < len(line) && line[i] > ' ' && line[i] < 0x7f && line[i] != ':' {
		i++
	}
	if i == 0 {
		return false
	}
	for i < len(line) && (line[i] == ' ' || line[i] == '\t') {
		i++
	}
	return i < len(line) && line[i] == ':'
}

// isMailboxLine reports whether a line is what mailbox files have before a message, which some senders forget there.
func isMailboxLine(line []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(line, ">"), []byte("From "))
}

// trimEnd cuts the line end, with all CRs before it.
func trimEnd(line []byte) []byte { return bytes.TrimRight(bytes.TrimSuffix(line, []byte("\n")), "\r") }

// hasLongLine reports whether one of the lines has more than longestLine octets. It looks for a line end where the longest
// line would have it and goes back from there, so that it sees few octets of ordinary lines.
func hasLongLine(p []byte) bool {
	for len(p) > longestLine {
		i := bytes.LastIndexByte(p[:longestLine+1], '\n')
		if i < 0 {
			if rest := p[longestLine:]; len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n' {
				i = longestLine + 1
			} else {
				return true
			}
		}
		p = p[i+1:]
	}
	return false
}

// hasBinary reports whether there is a NUL, or a CR that is not before LF.
func hasBinary(p []byte) bool {
	if bytes.IndexByte(p, 0) >= 0 {
		return true
	}
	for {
		i := bytes.IndexByte(p, '\r')
		if i < 0 {
			return false
		}
		if i+1 == len(p) || p[i+1] != '\n' {
			return true
		}
		p = p[i+2:]
	}
}

const highBits = 0x8080808080808080

// countHigh counts the octets above 127, eight at a time.
func countHigh(p []byte) (n int) {
	for len(p) >= 32 {
		a, b := binary.LittleEndian.Uint64(p), binary.LittleEndian.Uint64(p[8:])
		c, d := binary.LittleEndian.Uint64(p[16:]), binary.LittleEndian.Uint64(p[24:])
		if (a|b|c|d)&highBits != 0 {
			n += bits.OnesCount64(a&highBits) + bits.OnesCount64(b&highBits) +
				bits.OnesCount64(c&highBits) + bits.OnesCount64(d&highBits)
		}
		p = p[32:]
	}
	for _, b := range p {
		n += int(b >> 7)
	}
	return n
}
