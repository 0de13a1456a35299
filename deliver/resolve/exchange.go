package resolve

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"

	"github.com/miekg/dns"
)

// query puts a question to one server after the other until one answers it, and returns the reply with the server that gave it.
// A server that answered with an error is not asked again; one that gave nothing usable is, up to the number of attempts.
func (r *Resolver) query(ctx context.Context, q key) (reply, string, error) {
	var failures serverErrors
	var last string
	servers := r.servers()
	for range r.attempts() {
		var again []string
		for _, server := range servers {
			last = server
			rep, err := r.ask(ctx, server, q)
			if err == nil {
				return rep, server, nil
			}
			if ctx.Err() != nil {
				return reply{}, server, context.Cause(ctx)
			}
			failures = failures.with(server, err)
			if r.blame(ctx, server, q, err) {
				again = append(again, server)
			}
		}
		servers = again
	}
	return reply{}, last, failures
}

// blame notes the failure of a server and reports whether asking it again may help: what it got to say by an error code it has said.
func (r *Resolver) blame(ctx context.Context, server string, q key, err error) bool {
	attrs := []slog.Attr{
		slog.String("server", server), slog.String("name", q.name), slog.String("type", typeName(q.qtype)), slog.Any("error", err),
	}
	var rcode rcodeError
	if errors.As(err, &rcode) {
		r.log(ctx, slog.LevelDebug, "DNS server failed", attrs...)
		return false
	}
	if r.rest.begin(server) {
		r.log(ctx, slog.LevelInfo, "DNS server is asked last for a while", attrs...)
	}
	return true
}

// ask puts a question to one server and reads what it says.
func (r *Resolver) ask(ctx context.Context, server string, q key) (reply, error) {
	m, err := r.askMessage(ctx, server, q)
	if err != nil {
		return reply{}, err
	}
	rep, err := readReply(m, q)
	if err != nil {
		return reply{}, err
	}
	r.rest.end(server)
	rep.secure = m.AuthenticatedData && (r.TrustAD || isLoopback(server))
	return rep, nil
}

// askMessage asks over UDP, and over TCP if the answer was cut off (RFC 7766, section 5) or if someone tries to guess the id. A server
// that stumbles over EDNS is asked without (RFC 6891, section 7).
func (r *Resolver) askMessage(ctx context.Context, server string, q key) (*dns.Msg, error) {
	query := question(q, true)
	m, err := r.exchange(ctx, "udp", server, query)
	if err == nil && (m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented) {
		query = question(q, false)
		m, err = r.exchange(ctx, "udp", server, query)
	}
	if errors.Is(err, errStrays) || err == nil && m.Truncated {
		m, err = r.exchange(ctx, "tcp", server, query)
	}
	if err == nil && m.Truncated {
		return nil, errTruncated
	}
	return m, err
}

// question makes a query with a random id. The AD bit asks for the AD bit of the answer without the signatures (RFC 6840, section 5.7).
func question(q key, edns bool) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(q.name), q.qtype)
	m.AuthenticatedData = true
	if edns {
		m.SetEdns0(ednsSize, false)
	}
	return m
}

// exchange sends a query over a connection of its own, so that UDP answers must guess the port as well (RFC 5452, section 9.2), and
// returns the message that answers it.
func (r *Resolver) exchange(ctx context.Context, network, server string, query *dns.Msg) (*dns.Msg, error) {
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, r.timeout())
	defer cancel()
	m, err := r.converse(ctx, network, server, query)
	switch {
	case err == nil:
		return m, nil
	case outer.Err() != nil:
		return nil, context.Cause(outer)
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%w within %v over %s%s", errNoAnswer, r.timeout(), network, strayNote(err))
	}
	return nil, fmt.Errorf("over %s: %w", network, err)
}

func (r *Resolver) converse(ctx context.Context, network, server string, query *dns.Msg) (*dns.Msg, error) {
	dial := r.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	conn, err := dial(ctx, network, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	// Closing ends a read or write whatever kind of connection it is.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	framed := &dns.Conn{Conn: conn, UDPSize: datagramBuffer}
	if err := framed.WriteMsg(query); err != nil {
		return nil, err
	}
	_, datagrams := conn.(net.PacketConn)
	raw, err := readRaw(framed, query.Id, datagrams)
	if err != nil {
		return nil, err
	}
	return parse(raw, query)
}

// strayError is the end of waiting for a datagram when some with a wrong id had come.
type strayError struct {
	error
	strays int
}

func (e *strayError) Unwrap() error { return e.error }

func strayNote(err error) string {
	var stray *strayError
	if errors.As(err, &stray) && stray.strays > 0 {
		return fmt.Sprintf(" (%d answers with a wrong id ignored)", stray.strays)
	}
	return ""
}

// readRaw reads the message with the id of the query. Anyone can send a datagram, so wrong ones are overlooked; on a stream a wrong id is
// the server's own.
func readRaw(conn *dns.Conn, id uint16, datagrams bool) ([]byte, error) {
	for strays := 0; strays <= maxStrays; strays++ {
		raw, err := conn.ReadMsgHeader(nil)
		switch {
		case err == nil && binary.BigEndian.Uint16(raw) == id:
			return raw, nil
		case err == nil && !datagrams:
			return nil, fmt.Errorf("%w: wrong id", errMismatch)
		case errors.Is(err, dns.ErrShortRead) && !datagrams:
			return nil, fmt.Errorf("%w: shorter than a header", errGarbage)
		case err != nil && !errors.Is(err, dns.ErrShortRead):
			return nil, &strayError{err, strays}
		}
	}
	return nil, errStrays
}

// Where things are in the header of a message (RFC 1035, section 4.1.1).
const (
	flagResponse  = 0x80 // in the third octet, as the next two
	flagTruncated = 0x02
	maskOpcode    = 0x78
)

// parse unpacks a message and checks that it answers the query. Of a truncated one only the header is of interest.
func parse(raw []byte, query *dns.Msg) (*dns.Msg, error) {
	if raw[2]&flagResponse == 0 || raw[2]&maskOpcode != 0 {
		return nil, fmt.Errorf("%w: not a response to a query", errGarbage)
	}
	m := new(dns.Msg)
	if raw[2]&flagTruncated != 0 {
		m.Truncated = true
		return m, nil
	}
	if err := m.Unpack(raw); err != nil {
		return nil, fmt.Errorf("%w: %v", errGarbage, err)
	}
	// What was refused needs no question: some servers send the header alone.
	if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return m, nil
	}
	if !complete(raw, m) {
		return nil, fmt.Errorf("%w: fewer records than its header says", errGarbage)
	}
	if !sameQuestion(m.Question, query.Question[0]) {
		return nil, errMismatch
	}
	return m, nil
}

// complete reports whether a message has as much as its header promises. The parser takes one that ends early between two records for a
// whole one, which would make a missing MX record of every cut-off answer.
func complete(raw []byte, m *dns.Msg) bool {
	counts := []int{len(m.Question), len(m.Answer), len(m.Ns), len(m.Extra)}
	for i, n := range counts {
		if n != int(binary.BigEndian.Uint16(raw[4+2*i:])) {
			return false
		}
	}
	return true
}

// sameQuestion compares names as RFC 4343 does.
func sameQuestion(got []dns.Question, want dns.Question) bool {
	return len(got) == 1 && strings.EqualFold(got[0].Name, want.Name) && got[0].Qtype == want.Qtype && got[0].Qclass == want.Qclass
}
