package lab

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// A DNSFailure is a way in which the DNS server fails to answer a question.
type DNSFailure uint8

// The failures of the DNS server.
const (
	DNSWorks     DNSFailure = iota // no failure: takes back an earlier one
	DNSServFail                    // SERVFAIL
	DNSRefused                     // REFUSED
	DNSTimeout                     // no answer at all
	DNSGarbage                     // octets that are no DNS message behind the right id
	DNSTruncated                   // empty with TC set over UDP; whole over TCP (RFC 7766, section 5)
	DNSCut                         // the message ends in the middle of a record, whatever the network
	DNSWrongID                     // the answer to another question's id
	DNSNXDomain                    // the name does not exist
)

// AnyName stands for every name in [Internet.FailDNS].
const AnyName = "*"

const (
	queryLogLimit = 100_000  // questions that are remembered
	maxUDPQuery   = 64 << 10 // octets, the most a datagram holds
	minUDPAnswer  = 512      // octets, without EDNS (RFC 1035, section 4.2.1)
	garbage       = "\xde\xad\xbe\xef\xff\xff\xff\xff not a DNS message"
)

type question struct {
	name  string
	qtype uint16 // dns.TypeANY for all
}

// A nameServer answers for all zones, as a resolver for the whole fake internet would.
type nameServer struct {
	addr netip.AddrPort
	udp  net.PacketConn // nil in memory
	tcp  net.Listener   // nil in memory
	done chan struct{}

	mu       sync.Mutex // guards the fields below
	closed   bool
	zones    map[string]*zone // by canonical origin
	failures map[question]DNSFailure
	log      []string
}

func newNameServer() *nameServer {
	return &nameServer{
		done:     make(chan struct{}),
		zones:    make(map[string]*zone),
		failures: make(map[question]DNSFailure),
	}
}

// FailDNS makes questions for a name and type fail from now on; DNSWorks takes that back. name may be [AnyName], qtype
// is "MX", "A" and so on, or "" for every type. The most specific setting applies.
func (n *Internet) FailDNS(name, qtype string, how DNSFailure) {
	q := question{name: AnyName, qtype: dns.TypeANY}
	if name != AnyName {
		q.name = dns.CanonicalName(name)
	}
	if t, ok := dns.StringToType[strings.ToUpper(qtype)]; ok {
		q.qtype = t
	}
	n.dns.mu.Lock()
	defer n.dns.mu.Unlock()
	n.dns.failures[q] = how
}

// Queries lists the questions asked so far, in order, each as "aol.test. MX".
func (n *Internet) Queries() []string {
	n.dns.mu.Lock()
	defer n.dns.mu.Unlock()
	return slices.Clone(n.dns.log)
}

// listenDNS opens UDP and TCP on one port.
func (n *Internet) listenDNS(addr string) error {
	var err error
	for range portTries {
		if err = n.dns.listen(addr); err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	n.wg.Go(n.dns.serveUDP)
	n.wg.Go(func() {
		for {
			conn, err := n.dns.tcp.Accept()
			if err != nil {
				return
			}
			n.spawn(conn, func() { n.dns.serveStream(conn, "tcp") })
		}
	})
	return nil
}

// portTries is how often a port is chosen anew where the one that UDP got is taken for TCP.
const portTries = 10

func (d *nameServer) listen(addr string) error {
	udp, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	tcp, err := net.Listen("tcp", udp.LocalAddr().String())
	if err != nil {
		_ = udp.Close()
		return err
	}
	d.udp, d.tcp = udp, tcp
	d.addr = udp.LocalAddr().(*net.UDPAddr).AddrPort()
	return nil
}

func (d *nameServer) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	d.closed = true
	close(d.done)
	if d.udp != nil {
		_ = d.udp.Close()
		_ = d.tcp.Close()
	}
}

// dialDNS connects to the DNS server in memory. Both networks are streams there, with the framing of TCP: that is what
// a DNS client speaks over a connection that is no net.PacketConn.
func (n *Internet) dialDNS(network string) (net.Conn, error) {
	client, server := n.pipeTo(n.dns.addr, n.latency)
	if !n.spawn(server, func() { n.dns.serveStream(server, network) }) {
		return nil, net.ErrClosed
	}
	return client, nil
}

func (d *nameServer) serveUDP() {
	buf := make([]byte, maxUDPQuery)
	for {
		k, from, err := d.udp.ReadFrom(buf)
		if err != nil {
			return
		}
		if out := d.respond(buf[:k], "udp", true); out != nil {
			_, _ = d.udp.WriteTo(out, from)
		}
	}
}

// serveStream answers queries with a length in front of each (RFC 1035, section 4.2.2).
func (d *nameServer) serveStream(conn net.Conn, network string) {
	var size [2]byte
	for {
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(conn, query); err != nil {
			return
		}
		out := d.respond(query, network, false)
		if out == nil {
			continue
		}
		framed := append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...)
		if _, err := conn.Write(framed); err != nil {
			return
		}
	}
}

// respond makes the answer to a query; nil says nothing. limited asks for the size limit of a datagram.
func (d *nameServer) respond(query []byte, network string, limited bool) []byte {
	req := new(dns.Msg)
	if req.Unpack(query) != nil || len(req.Question) != 1 || req.Response {
		return nil
	}
	how := d.failure(req.Question[0])
	if how == DNSTimeout {
		return nil
	}
	m := d.reply(req, how)
	if how == DNSTruncated && strings.HasPrefix(network, "udp") {
		m.Answer, m.Ns, m.Truncated = nil, nil, true
	}
	if limited {
		m.Truncate(udpLimit(req))
	}
	out, err := m.Pack()
	if err != nil {
		return nil
	}
	return damage(out, how)
}

// damage spoils a packed answer.
func damage(out []byte, how DNSFailure) []byte {
	switch how {
	case DNSGarbage:
		return append(out[:2:2], garbage...)
	case DNSCut:
		return out[:len(out)-3]
	}
	return out
}

func udpLimit(req *dns.Msg) int {
	if opt := req.IsEdns0(); opt != nil {
		return max(int(opt.UDPSize()), minUDPAnswer)
	}
	return minUDPAnswer
}

// failure logs a question and finds how it is to fail.
func (d *nameServer) failure(q dns.Question) DNSFailure {
	name := dns.CanonicalName(q.Name)
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.log) < queryLogLimit {
		d.log = append(d.log, name+" "+dns.TypeToString[q.Qtype])
	}
	for _, key := range []question{{name, q.Qtype}, {name, dns.TypeANY}, {AnyName, q.Qtype}, {AnyName, dns.TypeANY}} {
		if how, ok := d.failures[key]; ok {
			return how
		}
	}
	return DNSWorks
}

// reply makes the message that answers a query.
func (d *nameServer) reply(req *dns.Msg, how DNSFailure) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(req)
	m.RecursionAvailable = true
	m.Compress = true
	if opt := req.IsEdns0(); opt != nil {
		m.SetEdns0(maxEDNS, opt.Do())
	}
	switch how {
	case DNSServFail:
		m.Rcode = dns.RcodeServerFailure
		return m
	case DNSRefused:
		m.Rcode = dns.RcodeRefused
		return m
	case DNSNXDomain:
		m.Rcode = dns.RcodeNameError
		return m
	case DNSWrongID:
		m.Id++
	}
	ans := d.lookup(req.Question[0].Name, req.Question[0].Qtype)
	m.Rcode, m.Answer = ans.rcode, ans.records
	if ans.soa != nil {
		m.Ns = []dns.RR{ans.soa}
	}
	m.AuthenticatedData = ans.secure && wantsAD(req)
	return m
}

// maxEDNS is the datagram size that the server says it takes (the value of DNS Flag Day 2020).
const maxEDNS = 1232

// wantsAD reports whether the client understands the AD bit (RFC 6840, section 5.7).
func wantsAD(req *dns.Msg) bool {
	opt := req.IsEdns0()
	return req.AuthenticatedData || (opt != nil && opt.Do())
}
