package resolve

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// query puts a question to one server after the other until one answers it, and returns the reply with the server that gave it.
// A server that answered with an error is not asked again; one that gave nothing usable is, up to the number of attempts.
func (r *Resolver) query(ctx context.Context, q key) (reply, string, error) {
	var failures serverErrors
	var last string
	servers := r.servers()
	for attempt := range r.attempts() {
		var again []string
		for _, server := range servers {
			last = server
			rep, err := r.ask(ctx, server, q, attempt > 0)
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
	if isShortage(err) {
		r.log(ctx, slog.LevelError, "no DNS server can be asked now", attrs...)
		return true
	}
	if r.manners.silent(server) {
		r.log(ctx, slog.LevelInfo, "DNS server is asked last for a while", attrs...)
	}
	return true
}

// ask puts a question to one server and reads what it says. An answer that does not come may be one that grew too large for a box on the
// way, so the question is put again without EDNS, and what is large is then asked for over TCP.
func (r *Resolver) ask(ctx context.Context, server string, q key, again bool) (reply, error) {
	m, err := r.askMessage(ctx, server, q, again)
	if err != nil {
		return reply{}, err
	}
	rep, err := readReply(m, q)
	if err != nil {
		return reply{}, err
	}
	r.manners.answered(server)
	rep.secure = m.AuthenticatedData && (r.TrustAD || isLoopback(server))
	return rep, nil
}

// askMessage asks over UDP, and over TCP if the answer was cut off (RFC 7766, section 5) or if someone tries to guess the id. A server
// that stumbles over EDNS is asked without (RFC 6891, section 7). The case is not mixed for a server on this machine: no forged datagram
// comes to a loopback address from outside.
func (r *Resolver) askMessage(ctx context.Context, server string, q key, bare bool) (*dns.Msg, error) {
	known, now := r.manners.get(server), time.Now()
	edns, lower := !bare && !known.bare.After(now), isLoopback(server) || known.lower.After(now)
	query := question(q, edns, lower)
	m, err := r.exchange(ctx, "udp", server, query)
	if edns && err == nil && stumbled(m) {
		edns, query = false, question(q, false, lower)
		if m, err = r.exchange(ctx, "udp", server, query); err == nil && !stumbled(m) {
			r.manners.withoutEDNS(server)
		}
	}
	switch {
	case errors.Is(err, errCase):
		return r.verify(ctx, server, q, edns)
	case errors.Is(err, errStrays) || err == nil && m.Truncated:
		m, err = r.exchange(ctx, "tcp", server, query)
	}
	return whole(m, err)
}

func stumbled(m *dns.Msg) bool {
	return m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented
}

// whole refuses a message that was cut off where no larger one can be had.
func whole(m *dns.Msg, err error) (*dns.Msg, error) {
	if err == nil && m.Truncated {
		return nil, errTruncated
	}
	return m, err
}

// verify asks again when a datagram came with the right id and the question in another case: it is forged, or the server does not repeat
// the case. Over TCP nobody can forge the answer unseen, and how it has the question shows which of the two it was. Where TCP does not
// help, UDP in lower case has to do, as for every resolver that does not mix the case.
func (r *Resolver) verify(ctx context.Context, server string, q key, edns bool) (*dns.Msg, error) {
	query := question(q, edns, false)
	m, err := r.exchange(ctx, "tcp", server, query)
	switch {
	case ctx.Err() != nil:
		return nil, err
	case err == nil && repeats(m, query):
		r.log(ctx, slog.LevelWarn, "forged DNS answer refused", slog.String("server", server), slog.String("name", q.name))
		return whole(m, nil)
	case err != nil || !isAnswer(m):
		m, err = r.exchange(ctx, "udp", server, question(q, edns, true))
	}
	if err == nil && isAnswer(m) {
		r.manners.withoutCase(server)
	}
	return whole(m, err)
}

// question makes a query with a random id, and its name in random case unless lower is set. The AD bit asks for the AD bit of the answer
// without the signatures (RFC 6840, section 5.7).
func question(q key, edns, lower bool) *dns.Msg {
	name := dns.Fqdn(q.name)
	if !lower {
		name = mixCase(name)
	}
	m := new(dns.Msg)
	m.SetQuestion(name, q.qtype)
	m.AuthenticatedData = true
	if edns {
		m.SetEdns0(ednsSize, false)
	}
	return m
}

// mixCase tosses a coin for each letter of a name. A server repeats the question as it is, so that whoever forges an answer has to guess
// the tosses besides the id and the port (draft-vixie-dnsext-dns0x20).
func mixCase(name string) string {
	coins := make([]byte, len(name)/8+1)
	_, _ = rand.Read(coins) // it never fails
	mixed := []byte(name)
	for i, c := range mixed {
		if 'a' <= c && c <= 'z' && coins[i/8]>>(i%8)&1 == 1 {
			mixed[i] = c - 'a' + 'A'
		}
	}
	return string(mixed)
}

// exchange sends a query over a connection of its own, so that UDP answers must guess the port as well (RFC 5452, section 9.2), and
// returns the message that answers it.
func (r *Resolver) exchange(ctx context.Context, network, server string, query *dns.Msg) (*dns.Msg, error) {
	if err := r.sockets.take(ctx, r.maxSockets()); err != nil {
		return nil, err
	}
	defer r.sockets.give()
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
	return parse(raw, query, datagrams)
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

// parse unpacks a message and checks that it answers the query, by the case of the question too if it came as a datagram. Of a truncated
// one only the header is of interest.
func parse(raw []byte, query *dns.Msg, datagram bool) (*dns.Msg, error) {
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
	if !isAnswer(m) {
		return m, nil
	}
	if !complete(raw, m) {
		return nil, fmt.Errorf("%w: fewer records than its header says", errGarbage)
	}
	if !sameQuestion(m.Question, query.Question[0]) {
		return nil, errMismatch
	}
	if datagram && !repeats(m, query) {
		return nil, errCase
	}
	return m, nil
}

// isAnswer tells what a server knows from an error.
func isAnswer(m *dns.Msg) bool { return m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError }

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

// repeats reports whether a message has the question of a query in the same case. A query in lower case does not ask for that.
func repeats(m, query *dns.Msg) bool {
	asked := query.Question[0].Name
	return asked == strings.ToLower(asked) || len(m.Question) == 1 && m.Question[0].Name == asked
}
