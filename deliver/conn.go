package deliver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/sortie-mail/sortie/dsn"
)

// writeBuffer holds a whole envelope with its commands, and a fair piece of a body.
const writeBuffer = 16 << 10

// A conn is a connection to a host: lines out, replies in, each step with its deadline. One attempt has it at a time.
type conn struct {
	peer
	raw      net.Conn // never changes
	net      net.Conn // raw, or TLS over it
	r        *bufio.Reader
	w        *bufio.Writer
	unheard  int  // commands without a reply
	together bool // the message goes together with its envelope
	script   Transcript
	secrets  []string // never shown, whoever says them

	ctx    context.Context // of the attempt
	detach func() bool     // takes the connection back from it; false where ctx has ended, and the connection with it
	id     string          // of the message, for the transcript
	step   time.Duration   // how long the last step might take
}

func newConn(c net.Conn, host string, addr netip.AddrPort, t Transcript) *conn {
	return &conn{
		raw: c, net: c, r: bufio.NewReaderSize(c, maxReplyLine), w: bufio.NewWriterSize(c, writeBuffer),
		peer: peer{host: host, addr: addr}, script: t,
	}
}

// attach gives the connection to an attempt. When ctx ends meanwhile, whatever the connection waits for fails.
func (c *conn) attach(ctx context.Context, id string) {
	c.ctx, c.id = ctx, id
	raw := c.raw
	c.detach = context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })
}

// within bounds the next step.
func (c *conn) within(step time.Duration) error {
	c.step = step
	if err := c.raw.SetDeadline(time.Now().Add(step)); err != nil {
		return err
	}
	return c.ctx.Err() // asked last: where ctx has ended, what attach did may be undone
}

// say puts a command into the buffer.
func (c *conn) say(command string) { c.sayAs(command, command) }

// sayAs puts a line into the buffer that the transcript shows as shown.
func (c *conn) sayAs(line, shown string) {
	c.note('C', shown)
	c.w.WriteString(line)
	c.w.WriteString("\r\n")
}

// read reads a reply.
func (c *conn) read() (dsn.Reply, error) { return readReply(c.r, c.heard) }

// heard notes a line of a reply, and returns it as it may be shown.
func (c *conn) heard(line string) string {
	text := c.hide(line)
	if text != line {
		if _, _, ok := parseReplyLine(line); ok { // the code stays what it is
			n := min(4, len(line))
			text = line[:n] + c.hide(line[n:])
		}
	}
	c.note('S', text)
	return text
}

// hide replaces credentials, which some hosts repeat when they complain.
func (c *conn) hide(text string) string { return without(c.secrets, text) }

// note writes a line into the transcript.
func (c *conn) note(from byte, text string) {
	if c.script != nil {
		c.script.Line(TranscriptLine{Time: time.Now(), ID: c.id, Host: c.host, Addr: c.addr, From: from, Text: text})
	}
}

// notef writes into the transcript what happened.
func (c *conn) notef(format string, args ...any) {
	if c.script != nil {
		c.note('*', fmt.Sprintf(format, args...))
	}
}

// lost is the error of a connection that broke, said junk or fell silent, and its end.
func (c *conn) lost(stage Stage, err error) *Error {
	c.broken = true
	status := dsn.Status("4.4.2")
	switch {
	case c.ctx.Err() != nil:
		err = fmt.Errorf("given up before the end: %w", context.Cause(c.ctx))
	case errors.Is(err, errProtocol):
		status = "4.5.0"
	case isTimeout(err):
		err = fmt.Errorf("the host did not answer within %v: %w", c.step, err)
	default:
		err = fmt.Errorf("the connection was lost: %w", err)
	}
	c.notef("%v", err)
	return tempErr(stage, status, "%w", err)
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}
