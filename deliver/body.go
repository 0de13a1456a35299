package deliver

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/sortie-mail/sortie/dsn"
)

// A sender puts a message on the wire: after DATA as lines with the dot, or in chunks behind BDAT. However large the message
// is, one block and one chunk of it are in memory.
type sender struct {
	s       *session
	judge   judge
	wait    *Timeouts
	all     []byte        // the message where it is small and in memory, and otherwise
	body    io.ReadCloser // where it comes from
	binary  bool          // octets go as they are, also between line ends (RFC 3030, section 3)
	octets  int64         // that were read
	block   *[blockSize]byte
	next    *[maxChunk]byte // room for a chunk
	out     chunk           // the one that goes out next
	ahead   bool            // it is read
	lines   lineWriter      // into it
	last    bool            // all is read
	readErr error           // what ended the reading early
}

const (
	blockSize = 32 << 10                // how much of a message is read at once
	chunkSize = 64 << 10                // a chunk has at least so much, but for the last
	maxChunk  = chunkSize + 2*blockSize // and at most so much, where all that was read was LF without CR
)

var (
	blocks = sync.Pool{New: func() any { return new([blockSize]byte) }}
	chunks = sync.Pool{New: func() any { return new([maxChunk]byte) }}
)

// A chunk is written into the room that it has.
type chunk []byte

func (c *chunk) Write(p []byte) (int, error) {
	*c = append(*c, p...)
	return len(p), nil
}

func (c *chunk) WriteByte(b byte) error {
	*c = append(*c, b)
	return nil
}

// A readError is a failure to read the message on our side.
type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }

// sender opens the message in the form that the session wants.
func (t *transaction) sender() (*sender, *Error) {
	b := &sender{s: t.s, judge: t, wait: &t.d.set.timeouts, binary: t.form.binary}
	if t.m.whole && t.m.known.meets(t.form.need) {
		b.all = t.m.text
	} else {
		body, e := t.m.open(t.form.need)
		if e != nil {
			return nil, e
		}
		b.body, b.block = body, blocks.Get().(*[blockSize]byte)
	}
	if t.form.by != byData {
		b.next = chunks.Get().(*[maxChunk]byte)
	}
	if t.form.by == byChunk { // as long as it is all: nothing is said before that is known
		if b.readChunk(); b.readErr != nil {
			b.close()
			return nil, localErr(StageMail, b.readErr)
		}
		if !b.last {
			t.form.by = byChunks
		}
	}
	return b, nil
}

func (b *sender) close() {
	if b.body != nil {
		b.body.Close()
		blocks.Put(b.block)
	}
	if b.next != nil {
		chunks.Put(b.next)
	}
}

// read reads the next block.
func (b *sender) read() []byte {
	if b.body == nil {
		b.octets, b.last = int64(len(b.all)), true
		return b.all
	}
	n, err := fill(b.body, b.block[:])
	b.octets += int64(n)
	b.last = err == io.EOF
	if err != nil && err != io.EOF {
		b.readErr = err
	}
	return b.block[:n]
}

// message sends the message after DATA, and the dot.
func (b *sender) message() *Error {
	if b.s.r.Buffered() > 0 {
		return b.early()
	}
	b.s.unheard++
	begin := time.Now()
	err := b.sendLines()
	if b.s.script != nil {
		b.s.notef("%d octets of message sent", b.octets)
	}
	if err == nil {
		b.s.say(".")
		err = b.s.w.Flush()
	}
	b.s.times.Body += time.Since(begin)
	return b.failed(err)
}

// early is the error of a host that answers a message that it has not got. A no is a no.
func (b *sender) early() *Error {
	if reply := b.lastWords(); reply.Code >= 400 {
		b.s.broken = true
		return b.judge.refusal(StageDot, reply)
	}
	return b.s.lost(StageDot, fmt.Errorf("%w: it answered a message that it had not got", errProtocol))
}

// sendLines sends the message without the dot. The host has Timeouts.Block for each block.
func (b *sender) sendLines() error {
	w := &b.lines
	w.w, w.stuff = b.s.w, true
	for !b.last {
		p := b.read()
		if err := b.s.within(b.wait.Block); err != nil {
			return err
		}
		if err := w.write(p); err != nil {
			return err
		}
		if b.readErr != nil {
			return &readError{b.readErr}
		}
	}
	w.end() // what goes wrong here the next flush tells
	return nil
}

// chunk sends the next chunk behind its BDAT (RFC 3030, section 2). It may stay in the buffer until a reply is waited for.
func (b *sender) chunk() (last bool, _ *Error) {
	if !b.ahead {
		b.readChunk()
	}
	if b.readErr != nil {
		return false, b.failed(&readError{b.readErr})
	}
	if b.s.unheard == 0 && b.s.speaks() { // the answers to the envelope were not what they seemed
		return false, b.s.unasked(StageDot)
	}
	begin := time.Now()
	b.ahead = false
	b.s.unheard++
	err := b.s.within(b.wait.Block)
	if err == nil {
		err = b.writeChunk()
	}
	b.s.times.Body += time.Since(begin)
	return b.last, b.failed(err)
}

func (b *sender) writeChunk() error {
	var line [len("BDAT  LAST\r\n") + 20]byte
	command := strconv.AppendInt(append(line[:0], "BDAT "...), int64(len(b.out)), 10)
	if b.last {
		command = append(command, " LAST"...)
	}
	if b.s.script != nil {
		b.s.note('C', string(command))
		b.s.notef("%d octets of message sent", len(b.out))
	}
	b.s.w.Write(append(command, crlf...)) // what goes wrong here the next write tells
	_, err := b.s.w.Write(b.out)
	return err
}

// readChunk fills the next chunk.
func (b *sender) readChunk() {
	b.out = b.next[:0]
	b.lines.w = &b.out
	for len(b.out) < chunkSize && !b.last && b.readErr == nil {
		if p := b.read(); b.binary {
			b.out.Write(p)
		} else {
			b.lines.write(p)
		}
	}
	if b.last {
		b.lines.end()
	}
	b.ahead = true
}

// failed is the error of a message that did not go out whole: without its end the host throws away what it has.
func (b *sender) failed(err error) *Error {
	if err == nil {
		return nil
	}
	var local *readError
	if errors.As(err, &local) {
		b.s.broken = true
		return localErr(StageDot, local.err)
	}
	lost := b.s.lost(StageDot, err)
	if b.s.together { // what the host says is about its envelope
		return b.s.unsent(lost)
	}
	if reply := b.lastWords(); reply.Code >= 400 {
		return b.judge.refusal(StageDot, reply)
	}
	return b.s.unsent(lost)
}

// lastWords is what a host said while it was sent the message, and stopped reading or hung up; zero where it said nothing
// against it.
func (b *sender) lastWords() (reply dsn.Reply) {
	if b.s.within(b.wait.Quit) != nil {
		return reply
	}
	for range chunksAhead + 1 {
		var err error
		if reply, err = b.s.read(); err != nil || reply.Code >= 400 {
			break
		}
	}
	return reply
}

var crlf = []byte("\r\n")

// A lineWriter writes a message as it must look in a session: every line ends in CRLF, and no CR or LF stands anywhere else
// (RFC 5321, section 2.3.8). Hosts differ in what they take for the end of a message when CR or LF stands alone, and a
// second message could be smuggled in.
type lineWriter struct {
	w interface {
		io.Writer
		io.ByteWriter
	}
	stuff  bool // a dot at the start of a line is doubled (RFC 5321, section 4.5.2)
	inside bool // a line has begun
	crs    int  // CRs seen that are not yet known to be of a line end
}

func (l *lineWriter) write(p []byte) error {
	if l.crs == 0 && endsWithCRLF(p) { // what nearly all messages are
		return l.clean(p)
	}
	return l.octets(p)
}

// endsWithCRLF reports whether every LF comes after a CR and every CR before a LF.
func endsWithCRLF(p []byte) bool {
	if bytes.Count(p, crlf[:1]) != bytes.Count(p, crlf[1:]) {
		return false
	}
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			return true
		}
		if i == 0 || p[i-1] != '\r' {
			return false
		}
		p = p[i+1:]
	}
}

// clean writes lines that end as they should.
func (l *lineWriter) clean(p []byte) (err error) {
	for l.stuff && len(p) > 0 && err == nil {
		if !l.inside && p[0] == '.' {
			l.w.WriteByte('.')
		}
		i := bytes.Index(p, lineDot)
		if i < 0 {
			break
		}
		_, err = l.w.Write(p[:i+1])
		l.inside, p = false, p[i+1:]
	}
	if len(p) == 0 || err != nil {
		return err
	}
	l.inside = p[len(p)-1] != '\n'
	_, err = l.w.Write(p)
	return err
}

var lineDot = []byte("\n.")

// octets writes whatever it is given.
func (l *lineWriter) octets(p []byte) error {
	for len(p) > 0 {
		switch n := bytes.IndexAny(p, "\r\n"); {
		case p[0] == '\r':
			l.crs++
			p = p[1:]
		case p[0] == '\n':
			l.crs = 0 // those before LF are of its line end
			l.newline()
			p = p[1:]
		default:
			if n < 0 {
				n = len(p)
			}
			if err := l.text(p[:n]); err != nil {
				return err
			}
			p = p[n:]
		}
	}
	return nil
}

// text writes what has no CR or LF in it.
func (l *lineWriter) text(p []byte) error {
	l.flushCRs()
	if l.stuff && !l.inside && p[0] == '.' {
		l.w.WriteByte('.')
	}
	l.inside = true
	_, err := l.w.Write(p)
	return err
}

// flushCRs makes a line end of each CR that stood alone.
func (l *lineWriter) flushCRs() {
	for ; l.crs > 0; l.crs-- {
		l.newline()
	}
}

func (l *lineWriter) newline() {
	l.w.Write(crlf)
	l.inside = false
}

// end closes the last line.
func (l *lineWriter) end() {
	l.flushCRs()
	if l.inside {
		l.newline()
	}
}
