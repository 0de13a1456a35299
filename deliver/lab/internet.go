package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Options say how an Internet is made. The zero value gives real sockets on loopback.
type Options struct {
	// InMemory makes every connection, DNS included, a buffer in memory: for testing/synctest bubbles, and for tests
	// by the thousand. Nothing outside the process can connect then.
	InMemory bool
	// Latency is how long an octet is on its way to a mail server, and as long on the way back: a connection and every
	// round trip over it cost twice as much (see [Server.RoundTrips]). In memory answers of the DNS server take their
	// time too. A server can have its own ([Latency]). Default: none.
	Latency time.Duration
	// DNS is the address at which the DNS server listens, UDP and TCP. Default: 127.0.0.1 and any port. Not used
	// in memory.
	DNS string
}

// An Internet is a DNS server, mail servers and a certificate authority that know only each other. Its methods may be
// called from any goroutine, and while mail flows.
type Internet struct {
	inMemory bool
	latency  time.Duration
	dns      *nameServer
	ca       *Authority
	fail     func(error) // set by Test: what to do about a mistake in the setup

	wg sync.WaitGroup // every goroutine of the Internet

	mu      sync.Mutex // guards the fields below
	closed  bool
	servers []*Server
	conns   map[net.Conn]struct{}
	allots  netip.Addr // the last address given to a server whose name is in no zone
	ports   uint16     // the last client port given out in memory
}

var (
	// The documentation networks (RFC 5737), so that nothing here can be mistaken for a real host.
	memoryDNS    = netip.MustParseAddrPort("203.0.113.53:53")
	memoryClient = netip.MustParseAddr("203.0.113.1")
	firstAllot   = netip.MustParseAddr("198.51.100.0")
)

// firstClientPort is where ephemeral ports begin (RFC 6335, section 6).
const firstClientPort = 49152

// New makes an Internet. It fails only where the DNS server cannot listen at the address it was given. Close it when
// done.
func New(opts Options) (*Internet, error) {
	n := &Internet{
		inMemory: opts.InMemory,
		latency:  opts.Latency,
		dns:      newNameServer(),
		ca:       new(Authority),
		conns:    make(map[net.Conn]struct{}),
		allots:   firstAllot,
		ports:    firstClientPort,
	}
	if n.inMemory {
		n.dns.addr = memoryDNS
		return n, nil
	}
	if opts.DNS == "" {
		opts.DNS = "127.0.0.1:0"
	}
	if err := n.listenDNS(opts.DNS); err != nil {
		return nil, fmt.Errorf("lab: DNS server: %w", err)
	}
	return n, nil
}

// Close ends every server and connection and waits until all goroutines of the Internet are gone. It may be called
// more than once.
func (n *Internet) Close() error {
	n.mu.Lock()
	n.closed = true
	servers := n.servers
	n.servers = nil
	conns := make([]net.Conn, 0, len(n.conns))
	for c := range n.conns {
		conns = append(conns, c)
	}
	n.mu.Unlock()

	n.dns.close()
	for _, s := range servers {
		_ = s.Close()
	}
	for _, c := range conns {
		_ = c.Close()
	}
	n.wg.Wait()
	return nil
}

// DNS is the address of the DNS server, as host:port. Over real sockets any program of this machine can ask it; in
// memory it is reached with Dial only, and speaks the TCP framing of RFC 1035, section 4.2.2 for both networks.
func (n *Internet) DNS() string { return n.dns.addr.String() }

// CA is the certificate authority that signs the servers' certificates.
func (n *Internet) CA() *Authority { return n.ca }

// Dial connects to a fictive address of the zones: network is "tcp" or "udp", address an IP address or a name of
// the zones with a port. An address that a zone knows but where no server listens refuses the connection; any other is
// unreachable, except loopback over real sockets, which is dialed as it is.
func (n *Internet) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	to, err := n.locate(address)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	remote := net.TCPAddrFromAddrPort(to)
	conn, err := n.connect(ctx, network, to)
	if err != nil {
		if op := (*net.OpError)(nil); errors.As(err, &op) {
			return nil, err
		}
		return nil, &net.OpError{Op: "dial", Net: network, Addr: remote, Err: err}
	}
	return conn, nil
}

func (n *Internet) connect(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if n.inMemory && to == n.dns.addr {
		return n.dialDNS(network)
	}
	if srv := n.serverAt(to); srv != nil && isStream(network) {
		return srv.connect(ctx, to)
	}
	if !n.inMemory && to.Addr().IsLoopback() {
		return new(net.Dialer).DialContext(ctx, network, to.String())
	}
	if n.dns.knows(to.Addr()) {
		return nil, syscall.ECONNREFUSED
	}
	return nil, syscall.EHOSTUNREACH
}

func isStream(network string) bool {
	return network == "tcp" || network == "tcp4" || network == "tcp6"
}

// locate turns host:port into an address; names are looked up in the zones.
func (n *Internet) locate(address string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	num, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, &net.AddrError{Err: "port is no number", Addr: address}
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return netip.AddrPortFrom(ip.Unmap(), uint16(num)), nil
	}
	addrs := n.dns.addresses(host)
	if len(addrs) == 0 {
		return netip.AddrPort{}, &net.DNSError{Err: "no such host", Name: host, Server: n.DNS(), IsNotFound: true}
	}
	return netip.AddrPortFrom(addrs[0], uint16(num)), nil
}

// serverAt finds the server that listens at an address: the one whose name the zones give that address now.
func (n *Internet) serverAt(to netip.AddrPort) *Server {
	n.mu.Lock()
	servers := n.servers[:len(n.servers):len(n.servers)]
	n.mu.Unlock()
	for _, s := range servers {
		if s.listensAt(to) {
			return s
		}
	}
	return nil
}

// spawn runs f in a goroutine that Close waits for, with conn closed at the end of either. It reports false, with
// conn closed, where the Internet is closed already.
func (n *Internet) spawn(conn net.Conn, f func()) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		_ = conn.Close()
		return false
	}
	n.conns[conn] = struct{}{}
	n.wg.Go(func() {
		defer n.forget(conn)
		f()
	})
	return true
}

func (n *Internet) forget(conn net.Conn) {
	_ = conn.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, conn)
}

// wait waits for d, or less where ctx or done ends.
func wait(ctx context.Context, done <-chan struct{}, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-done:
		return net.ErrClosed
	}
}

// pipeTo makes the two ends of a connection in memory from a fresh client port to an address.
func (n *Internet) pipeTo(to netip.AddrPort, latency time.Duration) (client, server *pipeConn) {
	n.mu.Lock()
	n.ports = max(n.ports+1, firstClientPort)
	from := netip.AddrPortFrom(memoryClient, n.ports)
	n.mu.Unlock()
	return newPipe(net.TCPAddrFromAddrPort(from), net.TCPAddrFromAddrPort(to), latency)
}

// nextAddr allots an address to a server whose name is in no zone.
func (n *Internet) nextAddr() netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.allots = n.allots.Next()
	return n.allots
}
