package main

// One client's connection: commands one at a time, a limit to every wait, and last words that arrive.

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// What one connection may hold in memory, and how long its end may take.
const (
	inputSize  = 8 << 10         // octets read at once
	bulkSize   = 32 << 10        // the same while a long message comes in
	outputSize = 4 << 10         // octets of replies that wait for company
	writeTime  = time.Minute     // for a client to take its replies
	lingerTime = 2 * time.Second // for a client to read the last one
	lingerMost = 1 << 20         // octets that it may still send meanwhile
)

var (
	inputs = sync.Pool{New: func() any { return new([inputSize]byte) }}
	bulks  = sync.Pool{New: func() any { return new([bulkSize]byte) }}
)

// A conn is a client's connection as go-smtp sees it. It does what go-smtp leaves to its host: every wait has a limit,
// replies to pipelined commands leave together, and commands come one at a time, so that the session can see each one
// as it was sent (go-smtp takes the quotes off local parts). Reads and writes come from one goroutine.
type conn struct {
	net.Conn
	list   *listener
	class  *class
	client netip.Addr
	born   time.Time

	stream  io.ReadWriter // the connection itself, or TLS upon it
	secure  *tls.Conn     // nil in the clear
	cipher  string        // its cipher suite
	greeted bool          // the client has said EHLO or HELO since it began, or since it began anew within TLS

	buf      []byte                 // from inputs or bulks
	full     bool                   // the newest read has filled it
	in       []byte                 // the part of buf that was read and not handed on
	line     []byte                 // the command that go-smtp works on, valid until the next Read
	mid      bool                   // what was handed on last did not end its line
	chunk    int64                  // octets of a BDAT chunk that are still to come
	esmtp    bool                   // the client said EHLO, not HELO
	taken    []parameter            // of the newest MAIL, which go-smtp does not see
	owed     []byte                 // what go-smtp has to read before anything else
	last     atomic.Bool            // the next reply is the last one
	gone     bool                   // nothing more can be read
	greeting bool                   // the first line of the answer to EHLO or HELO is to come
	mute     bool                   // the last word was said: what go-smtp still has to say comes too late
	told     atomic.Pointer[string] // the session's last refusal, which the log has
	out      []byte                 // replies that were not sent yet

	mu      sync.Mutex
	bye     string    // guarded by mu: why it is to end as soon as no message is coming in, as a reply
	waiting time.Time // guarded by mu: since when it waits for a command; zero while it does not
	open    bool      // guarded by mu: a transaction is open
	sender  string    // guarded by mu: of the transaction
	coming  int       // guarded by mu: messages coming in; 2 for a moment after a BDAT was broken off
	mails   int       // guarded by mu: messages taken
	cut     bool      // guarded by mu: it is to end although a message is coming in
}

// Read gives go-smtp one command, or as much of it as p holds; of a BDAT chunk all that is there.
func (c *conn) Read(p []byte) (int, error) {
	if len(c.owed) > 0 {
		n := copy(p, c.owed)
		c.owed = c.owed[n:]
		return n, nil
	}
	for more := true; more; more = c.startsTLS() {
		if c.last.Load() || c.gone {
			return 0, c.hangUp()
		}
		if c.chunk > 0 {
			return c.readChunk(p)
		}
		if err := c.readLine(len(p)); err != nil {
			return 0, err
		}
	}
	line := c.line
	if !c.mid {
		line = c.notice()
	}
	c.mid = c.line[len(c.line)-1] != '\n'
	return copy(p, line), nil
}

// readLine reads a command, or as much of one as most octets.
func (c *conn) readLine(most int) error {
	end := bytes.IndexByte(c.in, '\n') + 1
	for end == 0 && len(c.in) < inputSize {
		if err := c.fill(); err != nil {
			return c.lost(err)
		}
		end = bytes.IndexByte(c.in, '\n') + 1
	}
	if c.mustEnd() { // what was pipelined does not count
		return c.lost(errEnded)
	}
	if end == 0 {
		end = len(c.in) // a line without end: go-smtp has a limit for those
	}
	n := min(most, end)
	c.line, c.in = c.in[:n], c.in[n:]
	return nil
}

func (c *conn) readChunk(p []byte) (int, error) {
	if len(c.in) == 0 {
		if err := c.fill(); err != nil {
			c.lost(err)
			return 0, io.ErrUnexpectedEOF // of io.EOF go-smtp would make the end of the chunk, and of half a message a whole one
		}
	}
	n := copy(p[:min(int64(len(p)), c.chunk)], c.in)
	c.in = c.in[n:]
	c.chunk -= int64(n)
	return n, nil
}

// notice reads from a command what go-smtp does not tell a session. It gives the command as go-smtp is to see it, which is not
// longer.
func (c *conn) notice() (line []byte) {
	if len(c.line) < 5 {
		return c.line
	}
	switch verb, rest := string(bytes.ToUpper(c.line[:5])), bytes.Fields(c.line[5:]); verb {
	case "EHLO ", "HELO ":
		c.esmtp, c.greeting = verb == "EHLO ", true
	case "MAIL ":
		if c.taken = nil; c.line[len(c.line)-1] == '\n' {
			line, c.taken = takeParameters(c.line)
			return line
		}
	case "BDAT ": // the chunk follows whatever the answer, if the command can be read at all (RFC 3030, section 2)
		if len(rest) == 1 || (len(rest) == 2 && bytes.EqualFold(rest[1], []byte("LAST"))) {
			n, err := strconv.ParseUint(string(rest[0]), 10, 32)
			if err == nil {
				c.chunk = int64(n)
			}
		}
	}
	return c.line
}

// errEnded is why a read fails when the relay wants the connection to end.
var errEnded = errors.New("the relay ends this connection")

// fill reads more behind what was read. Replies that wait are sent before, because the client may wait for them.
func (c *conn) fill() error {
	old := c.buf
	c.choose()
	n := copy(c.buf, c.in)
	c.in, c.line = c.buf[:n], nil
	if len(old) != len(c.buf) {
		recycle(old)
	}
	if err := c.await(); err != nil {
		return err
	}
	if err := c.flush(); err != nil {
		return err
	}
	k, err := c.stream.Read(c.buf[n:])
	c.mu.Lock()
	c.waiting = time.Time{}
	c.mu.Unlock()
	c.in, c.full = c.buf[:n+k], n+k == len(c.buf)
	if k > 0 {
		return nil
	}
	return err
}

// choose takes a buffer of the size that the next read asks for: fewer reads for a long message, and little memory for a
// connection that waits.
func (c *conn) choose() {
	switch {
	case c.full && len(c.buf) == inputSize && c.isComing():
		c.buf = bulks.Get().(*[bulkSize]byte)[:]
	case len(c.buf) == bulkSize && len(c.in) < inputSize && !c.isComing():
		c.buf = inputs.Get().(*[inputSize]byte)[:]
	}
}

func recycle(buf []byte) {
	if len(buf) == bulkSize {
		bulks.Put((*[bulkSize]byte)(buf))
	} else {
		inputs.Put((*[inputSize]byte)(buf))
	}
}

// await sets the limit of the next read.
func (c *conn) await() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bye != "" && (c.coming == 0 || c.cut) { // here too, because end may have come a moment too early for the deadline below
		return errEnded
	}
	now := time.Now()
	limit := now.Add(c.class.idle)
	if end := c.born.Add(c.class.life); c.class.life > 0 && end.Before(limit) {
		limit = end
	}
	if c.coming == 0 {
		c.waiting = now
	}
	return c.SetReadDeadline(limit)
}

// lost ends the connection after a failed read: go-smtp is told that the client has gone, and the client why.
func (c *conn) lost(err error) error {
	c.gone = true
	bye := c.farewell()
	if bye == "" && errors.Is(err, os.ErrDeadlineExceeded) {
		bye = "421 4.4.2 " + c.list.name + " has waited long enough for a command; closing the connection\r\n"
	}
	c.out = append(c.out, bye...)
	c.flush()
	if c.isComing() { // in chunks
		c.note("broken_off", bye)
	}
	c.mute = true
	return io.EOF
}

// farewell is the reply with which the relay wants to end the connection, "" while it does not.
func (c *conn) farewell() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bye
}

// mustEnd reports whether the relay wants the connection to end, and no message is coming in.
func (c *conn) mustEnd() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bye != "" && c.coming == 0
}

// hangUp ends the connection such that the client can still read the last reply: closing it while the client sends would
// reset it.
func (c *conn) hangUp() error {
	if c.gone || c.flush() != nil {
		return io.EOF
	}
	c.gone = true
	c.closeTLS()
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		linger := lingerTime
		if c.list.isEnding() {
			linger = cutTime / 2
		}
		c.SetReadDeadline(time.Now().Add(linger))
		io.Copy(io.Discard, io.LimitReader(c.Conn, lingerMost))
	}
	return io.EOF
}

// Write keeps a reply until the client has to answer it.
func (c *conn) Write(p []byte) (int, error) {
	if c.mute {
		return len(p), nil
	}
	if len(p) > 3 && (p[0] == '4' || p[0] == '5') && p[3] == ' ' {
		c.refuses(string(bytes.TrimRight(p, "\r\n")))
	}
	c.out = append(c.out, p...)
	if c.greeting {
		c.out = append(c.out, c.answerEHLO(p)...)
	}
	if len(c.out) < outputSize {
		return len(p), nil
	}
	return len(p), c.flush()
}

// refuses logs what go-smtp refuses by itself; the session logs what it refuses.
func (c *conn) refuses(reply string) {
	if told := c.told.Load(); told != nil && strings.HasSuffix(reply, *told) {
		return
	}
	reason := "command"
	if strings.HasPrefix(reply, "552") {
		reason = "size"
	}
	c.note(reason, reply, "command", c.command())
}

// command is the command that go-smtp works on, as the log may show it. Of unknown ones it shows nothing: a client that may
// not log in here may send its password all the same.
func (c *conn) command() string {
	line := string(bytes.TrimRight(c.line, "\r\n"))
	switch verb, _, _ := strings.Cut(strings.ToUpper(line), " "); verb {
	case "MAIL", "RCPT", "BDAT":
		return shown(line)
	case "EHLO", "HELO", "DATA", "RSET", "VRFY", "EXPN", "HELP", "AUTH", "STARTTLS":
		return verb
	}
	return "unknown"
}

// note counts a refusal and logs it. A flood of strangers must not flood the log: few of their refusals are logged at a time.
func (c *conn) note(reason, reply string, more ...any) {
	c.list.metrics.refused.WithLabelValues(reason).Inc()
	left := 0
	if c.class == &c.list.stranger {
		var ok bool
		if ok, left = c.list.strangerNotes.next(time.Now()); !ok {
			return
		}
	}
	c.mu.Lock()
	attrs := []any{"client", c.client, "reason", reason, "reply", shown(strings.TrimRight(reply, "\r\n"))}
	if c.open {
		attrs = append(attrs, "sender", shown(c.sender))
	}
	c.mu.Unlock()
	if left > 0 {
		more = append(more, "not_logged", left)
	}
	c.list.log.Info("refused", append(attrs, more...)...)
}

// A quota lets a number of log lines pass in each span of time. It is safe for concurrent use.
type quota struct {
	most int
	span time.Duration

	mu    sync.Mutex
	since time.Time // guarded by mu: when the span began
	used  int       // guarded by mu: lines in it
	left  int       // guarded by mu: lines that were left out since the last one that passed
}

// next reports whether a line may pass, and how many were left out before it.
func (q *quota) next(now time.Time) (ok bool, left int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if now.Sub(q.since) >= q.span {
		q.since, q.used = now, 0
	}
	if q.used >= q.most {
		q.left++
		return false, 0
	}
	q.used++
	left, q.left = q.left, 0
	return true, left
}

func (c *conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	c.SetWriteDeadline(time.Now().Add(writeTime))
	_, err := c.stream.Write(c.out)
	c.out = c.out[:0]
	return err
}

// Close sends what was said and gives the slot back.
func (c *conn) Close() error {
	if !c.list.leave(c) {
		return net.ErrClosed
	}
	c.flush()
	c.closeTLS()
	c.gone = true
	recycle(c.buf)
	c.buf, c.in, c.line = nil, nil, nil
	return c.Conn.Close()
}

// end makes the connection end with a reply, now or when the message that is coming in is complete.
func (c *conn) end(reply string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bye == "" {
		c.bye = reply
	}
	if c.coming == 0 {
		c.SetReadDeadline(time.Unix(1, 0))
	}
}

// breakOff makes the connection end in the middle of a message.
func (c *conn) breakOff() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = true
	c.SetReadDeadline(time.Unix(1, 0))
}

// transaction notes that a transaction was opened or closed.
func (c *conn) transaction(open bool, sender string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open, c.sender = open, sender
}

// isComing reports whether a message is coming in.
func (c *conn) isComing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.coming > 0
}

// messageBegins notes that a message is coming in.
func (c *conn) messageBegins() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.coming++
}

// messageEnds notes that it is no longer, and whether it was taken.
func (c *conn) messageEnds(taken bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.coming--
	if taken {
		c.mails++
	}
}

// idle is how long the connection has been of no use, 0 where it is at work. One that has brought mail before is given
// a moment before it counts as idle.
func (c *conn) idle(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting.IsZero() || c.open || c.coming > 0 || c.bye != "" {
		return 0
	}
	idle := now.Sub(c.waiting)
	if c.mails > 0 && idle < restTime {
		return 0
	}
	return max(idle, 1)
}
