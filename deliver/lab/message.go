package lab

import (
	"context"
	"crypto/tls"
	"net/netip"
	"slices"
	"time"
)

// A Message is one that a server took.
type Message struct {
	HELO   string            // the name the client gave
	From   string            // reverse-path without angle brackets; "" is the null sender
	Params map[string]string // the parameters of MAIL, keys in upper case; a value as it came
	To     []Recipient       // those that the server accepted, in order
	// Body is the message octet by octet as the client meant it: dot-stuffing undone, line ends untouched.
	Body     []byte
	TLS      *tls.ConnectionState // nil in the clear
	User     string               // who was logged in; "" nobody
	Client   netip.AddrPort
	Session  int  // which connection of the server it came over, from 1
	BDAT     bool // it came in chunks (RFC 3030)
	Chunks   int  // in how many, the last one among them; 0 is by DATA
	Received time.Time

	// What the parameters of MAIL ask for.
	RequireTLS bool // REQUIRETLS (RFC 8689)
	Priority   int  // MT-PRIORITY, -9 to 9 (RFC 6710)
	DeliverBy  DeliverBy
}

// DeliverBy is what the parameter BY of MAIL asks for (RFC 2852). The zero value is a message without one.
type DeliverBy struct {
	Within time.Duration // from the transaction on; negative where it is late already
	Mode   byte          // 'R': return it then; 'N': notify the sender and go on; 0 where BY was not given
	Trace  bool          // relays report
}

// A Recipient is a forward-path that was accepted.
type Recipient struct {
	Address string            // without angle brackets
	Params  map[string]string // the parameters of RCPT, keys in upper case
}

// Addresses lists the recipients' addresses.
func (m Message) Addresses() []string {
	out := make([]string, len(m.To))
	for i, r := range m.To {
		out[i] = r.Address
	}
	return out
}

// Mailbox gives the messages that arrived so far, in order.
func (s *Server) Mailbox() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.mail)
}

// Forget empties the mailbox.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mail = nil
}

// WaitMail waits until at least n messages are in the mailbox and gives them. The error is ctx's.
func (s *Server) WaitMail(ctx context.Context, n int) ([]Message, error) {
	err := s.Wait(ctx, func() bool { return len(s.Mailbox()) >= n })
	return s.Mailbox(), err
}

// Wait waits until cond holds. cond is asked at once and whenever a line has gone either way, a message has arrived,
// or a connection has come or gone; it may call the methods of s.
func (s *Server) Wait(ctx context.Context, cond func() bool) error {
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		if cond() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// touch wakes those who wait. The caller holds s.mu.
func (s *Server) touch() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Server) deliver(m Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mail = append(s.mail, m)
	s.touch()
}
