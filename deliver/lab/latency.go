package lab

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Latency is how long an octet is on its way to a server, and as long on the way back, whatever the Internet's own
// [Options.Latency] is. It holds for connections that are made from then on. A connection that was not made by
// [Internet.Dial] is there at once, and slow only then.
func Latency(oneWay time.Duration) Behaviour { return latency(oneWay) }

type latency time.Duration

func (l latency) behave(c *conduct) {
	if c.latency == 0 {
		c.latency = time.Duration(l)
	}
}

func (s *Server) latency() time.Duration {
	if l := s.now().latency; l > 0 {
		return l
	}
	return s.net.latency
}

// RoundTrips counts how often the client of a connection, the first being 1, has waited for something to come back: once
// for the connection itself, once for the greeting, and once for every answer that the server could only give to
// something that the client said after it had read an earlier one. Commands that were said together and answered together
// are one round trip. It counts in memory, and over sockets where there is latency; elsewhere it is 0.
//
// The count goes by what was said and read, and not by a clock. Without latency it may be too high: answers can be back
// so soon that a client that does not wait for them has read them all the same.
func (s *Server) RoundTrips(connection int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if connection < 1 || connection > len(s.trips) || s.trips[connection-1] == nil {
		return 0
	}
	return int(s.trips[connection-1].Load())
}

// tripsOf gives the counter of the client of a server's connection.
func tripsOf(conn net.Conn) *atomic.Int64 {
	if p, ok := conn.(*pipeConn); ok {
		return p.in.from
	}
	return nil
}

// serveFar leads a real connection through one in memory, in which octets are on their way for as long as they should be.
func (s *Server) serveFar(conn net.Conn, latency time.Duration) {
	near, far := newPipe(conn.RemoteAddr(), conn.LocalAddr(), latency)
	var up, down sync.WaitGroup
	up.Go(func() { pump(near, conn) })
	down.Go(func() { pump(conn, near) })
	s.serve(far, latency)
	_ = far.Close()
	down.Wait()
	_ = conn.Close()
	up.Wait()
	_ = near.Close()
}

// pump copies until there is nothing more, and ends the other side in the same way.
func pump(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if errors.Is(err, syscall.ECONNRESET) {
		reset(to)
		return
	}
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}
