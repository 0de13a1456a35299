package lab

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// pipeRoom is how many octets one direction of a connection in memory holds before a writer waits: about what the
// socket buffers of a TCP connection hold, so that pipelining which deadlocks on the net deadlocks here too.
const pipeRoom = 256 << 10

// newPipe makes a connection in memory; what is written arrives after delay. It waits only on condition variables, which
// is durable blocking to testing/synctest, and every write is read as its own segment, as if each were one packet.
func newPipe(client, server net.Addr, delay time.Duration) (*pipeConn, *pipeConn) {
	near, far := new(atomic.Int64), new(atomic.Int64)
	near.Store(1) // the connection itself
	far.Store(1)
	up, down := newStream(delay), newStream(delay)
	up.from, up.to = near, far
	down.from, down.to, down.back = far, near, 1
	return &pipeConn{in: down, out: up, local: client, remote: server},
		&pipeConn{in: up, out: down, local: server, remote: client}
}

// A stream is one direction of a connection in memory.
type stream struct {
	delay time.Duration
	// How many round trips led to where the writing end and the reading end are: what is written has come as far as its
	// writer, and what comes back to the client has made one more.
	from, to *atomic.Int64
	back     int64

	mu       sync.Mutex // guards the fields below
	changed  *sync.Cond
	segments []segment
	size     int
	noReader bool // the reading end is closed
	noWriter bool // the writing end is closed
	reset    bool // the far end broke the connection
	read     deadline
	write    deadline
}

func newStream(delay time.Duration) *stream {
	s := &stream{delay: delay}
	s.changed = sync.NewCond(&s.mu)
	return s
}

// A segment is what one write wrote.
type segment struct {
	data    []byte
	arrives time.Time // zero: at once
	trips   int64
}

func (g segment) arrived() bool { return g.arrives.IsZero() || !time.Now().Before(g.arrives) }

// A deadline wakes the stream's waiters when it passes.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}

func (s *stream) setDeadline(d *deadline, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.stop()
	d.at = at
	if wait := time.Until(at); !at.IsZero() && wait > 0 {
		d.timer = time.AfterFunc(wait, s.wake)
	}
	s.changed.Broadcast()
}

func (s *stream) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed.Broadcast()
}

func (s *stream) get(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.noReader:
			return 0, net.ErrClosed
		case s.read.passed():
			return 0, os.ErrDeadlineExceeded
		case s.reset:
			return 0, syscall.ECONNRESET
		case len(s.segments) > 0 && s.segments[0].arrived():
			return s.take(p), nil
		case s.noWriter && len(s.segments) == 0:
			return 0, io.EOF
		case len(p) == 0:
			return 0, nil
		}
		s.changed.Wait()
	}
}

func (s *stream) take(p []byte) int {
	first := &s.segments[0]
	s.to.Store(max(s.to.Load(), first.trips)) // nothing else stores there
	k := copy(p, first.data)
	first.data = first.data[k:]
	if len(first.data) == 0 {
		s.segments = s.segments[1:]
	}
	s.size -= k
	s.changed.Broadcast()
	return k
}

func (s *stream) put(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	done := 0
	for {
		switch {
		case s.noWriter:
			return done, net.ErrClosed
		case s.write.passed():
			return done, os.ErrDeadlineExceeded
		case s.noReader:
			return done, syscall.EPIPE
		case done == len(p):
			return done, nil
		case s.size < pipeRoom:
			k := min(len(p)-done, pipeRoom-s.size)
			s.append(p[done : done+k])
			done += k
			continue
		}
		s.changed.Wait()
	}
}

// append adds a segment. The caller holds s.mu.
func (s *stream) append(data []byte) {
	g := segment{data: append([]byte(nil), data...), trips: s.from.Load() + s.back}
	if s.delay > 0 {
		g.arrives = time.Now().Add(s.delay)
		time.AfterFunc(s.delay, s.wake)
	}
	s.segments = append(s.segments, g)
	s.size += len(data)
	s.changed.Broadcast()
}

func (s *stream) closeReader() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noReader = true
	s.segments, s.size = nil, 0
	s.read.stop()
	s.changed.Broadcast()
}

func (s *stream) closeWriter() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noWriter = true
	s.write.stop()
	s.changed.Broadcast()
}

// breakOff is what a reset does to a direction whose other end still stands.
func (s *stream) breakOff() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reset = true
	s.segments, s.size = nil, 0
	s.changed.Broadcast()
}

// A pipeConn is one end of a connection in memory.
type pipeConn struct {
	in, out       *stream
	local, remote net.Addr
}

func (c *pipeConn) Read(p []byte) (int, error) {
	k, err := c.in.get(p)
	return k, c.opError("read", err)
}

func (c *pipeConn) Write(p []byte) (int, error) {
	k, err := c.out.put(p)
	return k, c.opError("write", err)
}

// opError wraps as package net does; io.EOF stays bare, as readers expect it.
func (c *pipeConn) opError(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}

func (c *pipeConn) Close() error {
	c.in.closeReader()
	c.out.closeWriter()
	return nil
}

// Reset ends the connection as a TCP reset does: what was written and not read is lost, and the far end's next read says
// so.
func (c *pipeConn) Reset() {
	c.out.breakOff()
	_ = c.Close()
}

// CloseWrite ends this end's half, as on a TCP connection.
func (c *pipeConn) CloseWrite() error {
	c.out.closeWriter()
	return nil
}

func (c *pipeConn) LocalAddr() net.Addr  { return c.local }
func (c *pipeConn) RemoteAddr() net.Addr { return c.remote }

func (c *pipeConn) SetDeadline(t time.Time) error {
	c.in.setDeadline(&c.in.read, t)
	c.out.setDeadline(&c.out.write, t)
	return nil
}

func (c *pipeConn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(&c.in.read, t)
	return nil
}

func (c *pipeConn) SetWriteDeadline(t time.Time) error {
	c.out.setDeadline(&c.out.write, t)
	return nil
}

// reset ends a connection so that the far end sees a reset.
func reset(conn net.Conn) {
	switch c := conn.(type) {
	case *pipeConn:
		c.Reset()
	case *net.TCPConn:
		_ = c.SetLinger(0)
	}
	_ = conn.Close()
}
