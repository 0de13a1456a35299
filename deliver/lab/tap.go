package lab

import "io"

// Tap shows f every octet that clients send, as it is read: in the clear, and within TLS what TLS carries. connection
// counts the connections of the server, from 1. f is called from the connections' own goroutines, and must not keep octets.
func Tap(f func(connection int, octets []byte)) Behaviour { return tap(f) }

type tap func(int, []byte)

func (t tap) behave(c *conduct) { c.taps = append(c.taps, t) }

// tapped reads from a client, and shows the server's taps what it reads.
type tapped struct {
	s    *session
	conn io.Reader
}

func (r *tapped) Read(p []byte) (int, error) {
	n, err := r.conn.Read(p)
	if n > 0 {
		for _, f := range r.s.srv.now().taps {
			f(r.s.id, p[:n])
		}
	}
	return n, err
}
