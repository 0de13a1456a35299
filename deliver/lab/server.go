package lab

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// defaultPort is where a server listens whose name says no port.
const defaultPort = 25

// A Server is one mail server of an Internet. Its methods may be called from any goroutine, and while mail flows.
type Server struct {
	net      *Internet
	name     string
	port     uint16
	fixed    netip.AddrPort // the loopback address it was given; zero: where the zones say
	listener net.Listener   // nil in memory
	base     []Behaviour

	certs sync.Mutex // guards the map below
	tls   map[CertKind]*tls.Config

	mu         sync.Mutex // guards the fields below
	closed     bool
	conduct    *conduct
	sessions   int
	played     int // sessions of the script that were begun
	scriptErrs []error
	open       map[*session]struct{}
	trips      []*atomic.Int64 // of the connections in turn; nil where they are not counted
	mail       []Message
	transcript strings.Builder
	changed    chan struct{} // closed at the next change
	done       chan struct{}
}

// Server starts a mail server, "mx.aol.test" on port 25 or "smtp.isp.test:587". It listens at every address that the
// zones give its name, also those they get later; a name without one gets an address and an A record of its own. It
// accepts everything where the behaviours say nothing else; of several that concern a step the first wins, and of two servers at one address the older. Server panics
// where a listener on loopback cannot be opened.
func (n *Internet) Server(name string, behaviours ...Behaviour) *Server {
	host, port := splitPort(name)
	s := n.newServer(host, port, behaviours)
	if !n.inMemory {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(n.mistake(fmt.Errorf("lab: server %s: %w", name, err)))
		}
		s.listener = l
	}
	if len(n.dns.addresses(host)) == 0 {
		n.addAddress(host, n.nextAddr())
	}
	n.open(s)
	return s
}

// Listen starts a mail server on a loopback address of your choice, "127.0.0.5:2526", for programs that cannot be
// given Internet.Dial. name is what it calls itself and what its certificate is for. The zones are yours to write. It
// fails in memory and where the address cannot be had. At AtConnect, Drop closes the connection right after it was made.
func (n *Internet) Listen(name, address string, behaviours ...Behaviour) (*Server, error) {
	if n.inMemory {
		return nil, n.mistake(fmt.Errorf("lab: server %s: no listening on %s in memory: use Server", name, address))
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, n.mistake(fmt.Errorf("lab: server %s: %w", name, err))
	}
	s := n.newServer(name, 0, behaviours)
	s.listener = l
	s.fixed = l.Addr().(*net.TCPAddr).AddrPort()
	n.open(s)
	return s, nil
}

func splitPort(name string) (string, uint16) {
	if host, port, err := net.SplitHostPort(name); err == nil {
		if p, err := strconv.ParseUint(port, 10, 16); err == nil {
			return host, uint16(p)
		}
	}
	return name, defaultPort
}

func (n *Internet) newServer(name string, port uint16, behaviours []Behaviour) *Server {
	return &Server{
		net: n, name: strings.TrimSuffix(name, "."), port: port, base: behaviours,
		conduct: newConduct(behaviours...),
		tls:     make(map[CertKind]*tls.Config),
		open:    make(map[*session]struct{}),
		changed: make(chan struct{}),
		done:    make(chan struct{}),
	}
}

func (n *Internet) open(s *Server) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.servers = append(n.servers, s)
	if s.listener != nil {
		n.wg.Go(s.acceptLoop)
	}
}

// Name is the server's host name.
func (s *Server) Name() string { return s.name }

// Addr is where the server really listens over real sockets, as host:port; "" in memory.
func (s *Server) Addr() string {
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}

// Behave makes the server behave in a new way, from the next command of every session on. What it was started with
// stays behind that: Behave() alone goes back to it, and Behave(AcceptAll) accepts whatever the server was started with.
// An Offer shows at the next EHLO.
func (s *Server) Behave(behaviours ...Behaviour) {
	c := newConduct(append(behaviours[:len(behaviours):len(behaviours)], s.base...)...)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conduct = c
	s.played = 0
}

func (s *Server) now() *conduct {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conduct
}

// Connections counts the connections so far, and those that are open.
func (s *Server) Connections() (total, open int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions, len(s.open)
}

// Hangup closes all open connections of the server, as a restart of it would.
func (s *Server) Hangup() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		c.gone()
	}
}

// Close stops the server and closes its connections; new ones are refused. Its mailbox and transcript stay.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.done)
	s.mu.Unlock()
	if s.listener != nil {
		_ = s.listener.Close()
	}
	s.Hangup()
	return nil
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// listensAt reports whether the server is at an address.
func (s *Server) listensAt(to netip.AddrPort) bool {
	if s.isClosed() {
		return false
	}
	if s.fixed.IsValid() {
		return s.fixed == to
	}
	if s.port != to.Port() {
		return false
	}
	for _, a := range s.net.dns.addresses(s.name) {
		if a == to.Addr() {
			return true
		}
	}
	return false
}

// connect makes a connection from Internet.Dial.
func (s *Server) connect(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	if s.fixed.IsValid() {
		return new(net.Dialer).DialContext(ctx, "tcp", to.String())
	}
	if err := s.admit(ctx); err != nil {
		return nil, err
	}
	latency := s.latency()
	if err := wait(ctx, s.done, 2*latency); err != nil {
		return nil, err
	}
	if !s.net.inMemory {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.Addr())
		if err != nil {
			return nil, err
		}
		return &elsewhere{TCPConn: conn.(*net.TCPConn), remote: net.TCPAddrFromAddrPort(to)}, nil
	}
	client, server := s.net.pipeTo(to, latency)
	if !s.net.spawn(server, func() { s.serve(server, latency) }) {
		return nil, syscall.ECONNREFUSED
	}
	return client, nil
}

// elsewhere is a connection that names the fictive address it was dialed to.
type elsewhere struct {
	*net.TCPConn
	remote net.Addr
}

func (c *elsewhere) RemoteAddr() net.Addr { return c.remote }

// admit plays AtConnect.
func (s *Server) admit(ctx context.Context) error {
	a := s.now().decide(Step{Stage: AtConnect})
	if err := wait(ctx, s.done, a.Delay); err != nil {
		return err
	}
	switch {
	case a.Hang:
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.done:
			return syscall.ETIMEDOUT
		}
	case a.Drop, a.Reply != "":
		return syscall.ECONNREFUSED
	}
	return nil
}

func (s *Server) acceptLoop() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.net.spawn(conn, func() {
			if s.fixed.IsValid() && s.admitAccepted(conn) != nil {
				return
			}
			if latency := s.latency(); latency > 0 {
				s.serveFar(conn, latency)
			} else {
				s.serve(conn, 0)
			}
		})
	}
}

// admitAccepted plays AtConnect for a connection that the kernel has made already.
func (s *Server) admitAccepted(conn net.Conn) error {
	err := s.admit(context.Background())
	if tcp, ok := conn.(*net.TCPConn); ok && err != nil {
		_ = tcp.SetLinger(0) // a reset is nearest to a refusal
	}
	return err
}

// serve runs one session.
func (s *Server) serve(conn net.Conn, latency time.Duration) {
	c := s.begin(conn)
	if c == nil {
		return
	}
	c.latency = latency
	defer s.end(c)
	c.run()
}

func (s *Server) begin(conn net.Conn) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.sessions++
	c := newSession(s, s.sessions, conn)
	s.open[c] = struct{}{}
	s.trips = append(s.trips, tripsOf(conn))
	s.touch()
	return c
}

func (s *Server) end(c *session) {
	c.gone()
	s.record(c.id, "-", "closed")
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
	s.touch()
}

// tlsConfig gives the configuration that an Offer asks for. It is the same for all connections, so that a client can resume
// the session of an earlier one (RFC 8446, section 2.2).
func (s *Server) tlsConfig(o Offer) (*tls.Config, error) {
	if o.TLSConfig != nil {
		return o.TLSConfig, nil
	}
	s.certs.Lock()
	defer s.certs.Unlock()
	if cfg := s.tls[o.Certificate]; cfg != nil {
		return cfg, nil
	}
	cert, err := s.net.ca.Issue(o.Certificate, s.name)
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	s.tls[o.Certificate] = cfg
	return cfg, nil
}
