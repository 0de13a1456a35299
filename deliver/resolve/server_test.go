package resolve_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/resolve"
)

// An answerer makes the octets of an answer to a query; nil is silence.
type answerer func(network string, query *dns.Msg) []byte

// zone answers from records as a recursive server does, aliases followed within the zone.
func zone(t testing.TB, lines ...string) answerer {
	records := parseRecords(t, lines...)
	return func(network string, query *dns.Msg) []byte {
		m := new(dns.Msg).SetReply(query)
		m.RecursionAvailable = true
		m.Rcode = fill(m, records, query.Question[0])
		if m.Rcode == dns.RcodeNameError || len(m.Answer) == 0 {
			m.Ns = parseRecords(t, "example. 900 IN SOA ns.example. hostmaster.example. 1 7200 900 86400 300")
		}
		return fit(t, m, network)
	}
}

func parseRecords(t testing.TB, lines ...string) []dns.RR {
	var records []dns.RR
	for _, line := range lines {
		rr, err := dns.NewRR(line)
		require.NoError(t, err, line)
		records = append(records, rr)
	}
	return records
}

// fill adds the records that answer a question, and returns the RCODE.
func fill(m *dns.Msg, records []dns.RR, q dns.Question) int {
	owner := dns.CanonicalName(q.Name)
	for range 100 {
		exists, target := false, ""
		for _, rr := range records {
			if dns.CanonicalName(rr.Header().Name) != owner {
				continue
			}
			exists = true
			if cname, ok := rr.(*dns.CNAME); ok {
				target = dns.CanonicalName(cname.Target)
				m.Answer = append(m.Answer, rr)
			} else if rr.Header().Rrtype == q.Qtype {
				m.Answer = append(m.Answer, rr)
			}
		}
		if !exists {
			return dns.RcodeNameError
		}
		if target == "" {
			return dns.RcodeSuccess
		}
		owner = target
	}
	return dns.RcodeSuccess
}

// fit packs a message, cut off where the network asks for it.
func fit(t testing.TB, m *dns.Msg, network string) []byte {
	if network == "udp" {
		m.Truncate(1232)
	}
	raw, err := m.Pack()
	require.NoError(t, err)
	return raw
}

// rcode answers every query with an error code.
func rcode(t testing.TB, code int) answerer {
	return func(network string, query *dns.Msg) []byte {
		return fit(t, new(dns.Msg).SetRcode(query, code), network)
	}
}

// edit changes the octets that another answerer makes.
func edit(next answerer, change func(network string, raw []byte) []byte) answerer {
	return func(network string, query *dns.Msg) []byte { return change(network, next(network, query)) }
}

// asked is the name in a query, in lower case.
func asked(query *dns.Msg) string { return dns.CanonicalName(query.Question[0].Name) }

func silence(string, *dns.Msg) []byte { return nil }

// counter counts the queries that reach an answerer.
type counter struct {
	next answerer
	n    atomic.Int64
}

func (c *counter) answer(network string, query *dns.Msg) []byte {
	c.n.Add(1)
	return c.next(network, query)
}

// listen runs a real server on loopback, UDP and TCP on one port, until the test ends.
func listen(t testing.TB, answer answerer) string {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	require.NoError(t, err)
	serve(t, &dns.Server{PacketConn: udp, Handler: handler("udp", answer)})
	serve(t, &dns.Server{Listener: tcp, Handler: handler("tcp", answer)})
	return tcp.Addr().String()
}

func serve(t testing.TB, server *dns.Server) {
	started := make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	ended := make(chan error, 1)
	go func() { ended <- server.ActivateAndServe() }()
	<-started
	t.Cleanup(func() {
		require.NoError(t, server.Shutdown())
		require.NoError(t, <-ended)
	})
}

func handler(network string, answer answerer) dns.HandlerFunc {
	return func(w dns.ResponseWriter, query *dns.Msg) {
		if raw := answer(network, query); raw != nil {
			_, _ = w.Write(raw)
		}
	}
}

// memory is a set of servers that are reached without a network.
type memory map[string]answerer

// dial connects to a server by a pipe, and refuses those that are not there.
func (m memory) dial(_ context.Context, network, addr string) (net.Conn, error) {
	answer, ok := m[addr]
	if !ok {
		return nil, errors.New("connection refused")
	}
	client, server := net.Pipe()
	go serveConn(server, network, answer)
	return client, nil
}

// resolver asks the servers in the order given.
func (m memory) resolver(servers ...string) *resolve.Resolver {
	return &resolve.Resolver{Servers: servers, Dial: m.dial}
}

// serveConn answers queries until the other side hangs up.
func serveConn(conn net.Conn, network string, answer answerer) {
	defer conn.Close()
	for {
		query, err := (&dns.Conn{Conn: conn}).ReadMsg()
		if err != nil {
			return
		}
		if raw := answer(network, query); raw != nil {
			if _, err := conn.Write(frame(raw)); err != nil {
				return
			}
		}
	}
}

func frame(raw []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(raw))), raw...)
}

// alone is a resolver on one server in memory.
func alone(answer answerer) *resolve.Resolver {
	const addr = "192.0.2.53:53"
	return memory{addr: answer}.resolver(addr)
}

// packets is a datagram connection in memory: what is written to it goes to an answerer that may send several answers.
type packets struct {
	net.PacketConn // for the methods nobody calls
	answer         func(query *dns.Msg) [][]byte
	in             chan []byte
	closed         chan struct{}
	once           sync.Once
}

func newPackets(answer func(*dns.Msg) [][]byte) *packets {
	return &packets{answer: answer, in: make(chan []byte, 100), closed: make(chan struct{})}
}

func (p *packets) Write(b []byte) (int, error) {
	query := new(dns.Msg)
	if err := query.Unpack(b); err != nil {
		return 0, err
	}
	for _, raw := range p.answer(query) {
		p.in <- raw
	}
	return len(b), nil
}

func (p *packets) Read(b []byte) (int, error) {
	select {
	case raw := <-p.in:
		return copy(b, raw), nil
	case <-p.closed:
		return 0, io.EOF
	}
}

func (p *packets) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *packets) LocalAddr() net.Addr              { return &net.UDPAddr{} }
func (p *packets) RemoteAddr() net.Addr             { return &net.UDPAddr{} }
func (p *packets) SetDeadline(time.Time) error      { return nil }
func (p *packets) SetReadDeadline(time.Time) error  { return nil }
func (p *packets) SetWriteDeadline(time.Time) error { return nil }
