package deliver

import (
	"bufio"
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/sortie-mail/sortie/dsn"
)

// writeBuffer holds a whole envelope with its commands, and a fair piece of a body.
const writeBuffer = 16 << 10

// A conn is a connection to a host: lines out, replies in, each step with its deadline.
type conn struct {
	net  net.Conn
	r    *bufio.Reader
	w    *bufio.Writer
	host string
	addr netip.AddrPort

	limit  time.Time // of the attempt: no deadline is later
	id     string    // of the message, for the transcript
	script Transcript
}

func newConn(c net.Conn, host string, addr netip.AddrPort, t Transcript) *conn {
	return &conn{net: c, r: bufio.NewReaderSize(c, maxReplyLine), w: bufio.NewWriterSize(c, writeBuffer), host: host, addr: addr, script: t}
}

// attach gives the connection to an attempt, and returns what takes it back. When ctx ends meanwhile, whatever the
// connection waits for fails.
func (c *conn) attach(ctx context.Context, id string) (detach func() bool) {
	c.id = id
	c.limit, _ = ctx.Deadline()
	return context.AfterFunc(ctx, func() { c.net.SetDeadline(time.Unix(1, 0)) })
}

// within bounds the next step.
func (c *conn) within(ctx context.Context, step time.Duration) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	t := time.Now().Add(step)
	if !c.limit.IsZero() && c.limit.Before(t) {
		t = c.limit
	}
	if err := c.net.SetDeadline(t); err != nil {
		return err
	}
	return ctx.Err() // AfterFunc may have run between
}

// say puts a command into the buffer.
func (c *conn) say(command string) {
	c.note('C', command)
	c.w.WriteString(command)
	c.w.WriteString("\r\n")
}

// saySecret puts a line into the buffer that the transcript shows as shown.
func (c *conn) saySecret(line, shown string) {
	c.note('C', shown)
	c.w.WriteString(line)
	c.w.WriteString("\r\n")
}

// read reads a reply.
func (c *conn) read() (dsn.Reply, error) {
	return readReply(c.r, func(line string) { c.note('S', line) })
}

// ask sends what is in the buffer and a command, and reads the reply.
func (c *conn) ask(ctx context.Context, step time.Duration, command string) (dsn.Reply, error) {
	if err := c.within(ctx, step); err != nil {
		return dsn.Reply{}, err
	}
	c.say(command)
	if err := c.w.Flush(); err != nil {
		return dsn.Reply{}, err
	}
	return c.read()
}

// note writes a line into the transcript.
func (c *conn) note(from byte, text string) {
	if c.script != nil {
		c.script.Line(TranscriptLine{Time: time.Now(), ID: c.id, Host: c.host, Addr: c.addr, From: from, Text: text})
	}
}
