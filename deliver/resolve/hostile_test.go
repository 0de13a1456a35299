package resolve_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sortie-mail/sortie/deliver/resolve"
)

// wire answers with the header and question of a reply and the octets that follow, said to be one record.
func wire(octets ...byte) answerer {
	return func(_ string, query *dns.Msg) []byte {
		raw, _ := new(dns.Msg).SetReply(query).Pack()
		binary.BigEndian.PutUint16(raw[6:], 1)
		return append(raw, octets...)
	}
}

// Records that no honest server packs. None of them panics, loops or is believed.
func TestMalformedRecords(t *testing.T) { // std: R4
	fixed := []byte{0, byte(dns.TypeMX), 0, dns.ClassINET, 0, 0, 1, 0}
	record := func(owner, data []byte) answerer {
		rr := append(slices.Clone(owner), fixed...)
		return wire(append(append(rr, 0, byte(len(data))), data...)...)
	}
	end := byte(12 + len("two.example.") + 1 + 4)
	question := []byte{0xc0, 12}
	longest := []byte{}
	for range 4 {
		longest = append(append(longest, 63), strings.Repeat("a", 63)...)
	}
	for name, answer := range map[string]answerer{
		"a pointer to itself":          record([]byte{0xc0, end}, []byte{0, 10, 0}),
		"pointers in a circle":         record([]byte{0xc0, end + 2, 0xc0, end}, []byte{0, 10, 0}),
		"a pointer past the end":       record([]byte{0xff, 0xff}, []byte{0, 10, 0}),
		"a label of an unknown kind":   record([]byte{0x40, 'a', 0}, []byte{0, 10, 0}),
		"an owner of 257 octets":       record(append(slices.Clone(longest), 0), []byte{0, 10, 0}),
		"a host of 257 octets":         wire(slices.Concat(question, fixed, []byte{1, 3, 0, 10}, longest, []byte{0})...),
		"a host made long by pointers": wire(slices.Concat(question, fixed, []byte{0, 196, 0, 10}, longest[:192], question)...),
		"data longer than the message": wire(slices.Concat(question, fixed, []byte{0xff, 0xff, 0, 10, 0})...),
		"data shorter than its host":   record(question, []byte{0, 10, 5, 'a'}),
		"half a preference":            record(question, []byte{0}),
	} {
		t.Run(name, func(t *testing.T) {
			if name == "a host made long by pointers" { // 207 octets: long, and allowed
				got, err := alone(answer).LookupMX(t.Context(), "two.example")
				require.NoError(t, err)
				assert.Len(t, got, 1)
				return
			}
			_, err := alone(answer).LookupMX(t.Context(), "two.example")
			requireTemporary(t, err)
			assert.Contains(t, err.Error(), "malformed answer")
		})
	}
}

// Of hosts that are none the caller is told so, and why.
func TestMXErr(t *testing.T) {
	for host, says := range map[string]string{
		"mx.example":                    "",
		"under_score.example":           "",
		"localhost":                     "",
		"1.2.3":                         "",
		"":                              "not a domain name: the root is no host",
		"192.0.2.1":                     "not a domain name: the IP address 192.0.2.1 where a host must be named",
		"2001:db8::1":                   "not a domain name: the IP address 2001:db8::1 where a host must be named",
		"[192.0.2.1]":                   `not a domain name: character '['`,
		`a\ b.example`:                  `not a domain name: character '\\'`,
		`a\000b.example`:                `not a domain name: character '\\'`,
		"a..example":                    "not a domain name: empty label",
		strings.Repeat("a.", 127) + "a": "not a domain name: longer than 253 octets",
	} {
		err := resolve.MX{Host: host, Preference: 10}.Err()
		if says == "" {
			assert.NoError(t, err, host)
			continue
		}
		require.ErrorIs(t, err, resolve.ErrBadName, host)
		assert.Equal(t, says, err.Error())
	}
	got, err := alone(zone(t, "odd.example. 300 IN MX 10 192.0.2.1.", "odd.example. 300 IN MX 20 .")).LookupMX(t.Context(), "odd.example")
	require.NoError(t, err)
	for _, mx := range got {
		assert.Error(t, mx.Err())
	}
}

// Names and addresses that nobody asked for are not remembered either.
func TestGlueIsNotBelieved(t *testing.T) {
	honest := zone(t, "victim.example. 300 IN MX 10 mx.example.", "victim.example. 300 IN A 192.0.2.1", "mx.example. 300 IN A 192.0.2.2")
	lies := parseRecords(t, "victim.example. 300 IN A 203.0.113.1", "mx.example. 300 IN A 203.0.113.1", "two.example. 300 IN A 203.0.113.1")
	r := alone(func(network string, query *dns.Msg) []byte {
		if asked(query) != "two.example." {
			return honest(network, query)
		}
		m := new(dns.Msg).SetReply(query)
		m.Answer = append(parseRecords(t, "two.example. 300 IN MX 10 mx.example."), lies...)
		m.Ns, m.Extra = append(m.Ns, lies...), append(m.Extra, lies...)
		return fit(t, m, network)
	})
	got, err := r.LookupMX(t.Context(), "two.example")
	require.NoError(t, err)
	assert.Equal(t, []resolve.MX{{Host: "mx.example", Preference: 10}}, got)
	for host, want := range map[string]string{"victim.example": "192.0.2.1", "mx.example": "192.0.2.2"} {
		all, err := r.LookupAddr(t.Context(), host)
		require.NoError(t, err)
		assert.Equal(t, addrs(want), all)
	}
}

// A host with ever so many addresses has as many as are believed of each family, and the Answer tells that there were more.
func TestManyAddresses(t *testing.T) { // std: R7
	var lines []string
	for i := range 200 {
		lines = append(lines, fmt.Sprintf("mx.example. 300 IN A 192.0.2.%d", i), fmt.Sprintf("mx.example. 300 IN AAAA 2001:db8::%x", i+1))
	}
	var dropped []int
	ctx := resolve.WithTrace(t.Context(), &resolve.Trace{Answered: func(a resolve.Answer, _ error) { dropped = append(dropped, a.Dropped) }})
	all, err := alone(zone(t, lines...)).LookupAddr(ctx, "mx.example")
	require.NoError(t, err)
	assert.Len(t, all, 2*resolve.MaxRecords)
	assert.Equal(t, []int{200 - resolve.MaxRecords, 200 - resolve.MaxRecords}, dropped)
}

// endless answers every question with an alias that was never seen before.
func endless(wait time.Duration) *counter {
	c := &counter{}
	c.next = func(_ string, query *dns.Msg) []byte {
		time.Sleep(wait)
		m := new(dns.Msg).SetReply(query)
		header := dns.RR_Header{Name: query.Question[0].Name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: 300}
		m.Answer = []dns.RR{&dns.CNAME{Hdr: header, Target: fmt.Sprintf("c%d.example.", c.n.Load())}}
		raw, _ := m.Pack()
		return raw
	}
	return c
}

func TestEndlessAliases(t *testing.T) { // std: R5
	c := endless(0)
	_, err := alone(c.answer).LookupMX(t.Context(), "two.example")
	requireTemporary(t, err)
	assert.Contains(t, err.Error(), "more than 8 CNAME records")
	assert.EqualValues(t, resolve.MaxAliases+1, c.n.Load())
}

// However a server draws a lookup out, it ends.
func TestLookupHasAnEnd(t *testing.T) { // std: R4
	synctest.Test(t, func(t *testing.T) {
		servers := memory{"192.0.2.1:53": endless(2900 * time.Millisecond).answer, "192.0.2.2:53": silence}
		r := servers.resolver("192.0.2.2:53", "192.0.2.1:53")
		r.Timeout = 10 * time.Second
		began := time.Now()
		_, err := r.LookupMX(t.Context(), "two.example")
		requireTemporary(t, err)
		assert.Contains(t, err.Error(), "no answer within 30s in all")
		assert.Equal(t, 30*time.Second, time.Since(began))
		time.Sleep(3 * time.Second) // for the server to see that nobody listens
	})
}

// A server that sends its answer octet by octet over TCP, or answers without end, is given up.
func TestDrippingServer(t *testing.T) { // std: R4
	for name, pause := range map[string]time.Duration{"slowly": time.Second, "without end": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := alone(silence)
				r.Attempts = 1
				r.Dial = func(context.Context, string, string) (net.Conn, error) {
					client, server := net.Pipe()
					go drip(server, pause)
					return client, nil
				}
				began := time.Now()
				_, err := r.LookupMX(t.Context(), "two.example")
				requireTemporary(t, err)
				assert.LessOrEqual(t, time.Since(began), 3*time.Second)
				time.Sleep(pause) // for the server to see that nobody listens
			})
		})
	}
}

func drip(conn net.Conn, pause time.Duration) {
	go io.Copy(io.Discard, conn)
	defer conn.Close()
	for {
		if _, err := conn.Write([]byte{0x40}); err != nil {
			return
		}
		time.Sleep(pause)
	}
}

// A hostileServer has a zone that nobody sane would write, and for each question a way to answer it.
type hostileServer struct {
	records []dns.RR
	ways    []way
	spoil   []uint16 // where octets are changed
	queries int
	denials int // how often it said that a name does not exist, well or badly
}

type way int

const (
	whole way = iota
	stepwise
	folded
	truncated
	failing
	denying
	damaged
	cut
	hangingUp
	mixedUp
	wrongID
	empty
	numWays
)

// drawServer makes a server over few names, so that they meet.
func drawServer(rt *rapid.T) *hostileServer {
	names := []string{"a.example.", "b.example.", "c.example.", "two.example.", ".", "192.0.2.1.", `odd\000\ name.example.`, strings.Repeat("long.", 40) + "example."}
	name := rapid.SampledFrom(names)
	record := rapid.Custom(func(rt *rapid.T) dns.RR {
		header := dns.RR_Header{Name: name.Draw(rt, "owner"), Class: dns.ClassINET, Ttl: rapid.Uint32().Draw(rt, "ttl")}
		switch rapid.IntRange(0, 4).Draw(rt, "kind") {
		case 0:
			header.Rrtype = dns.TypeCNAME
			return &dns.CNAME{Hdr: header, Target: name.Draw(rt, "target")}
		case 1:
			header.Rrtype = dns.TypeA
			return &dns.A{Hdr: header, A: net.IP(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(rt, "a"))}
		case 2:
			header.Rrtype = dns.TypeAAAA
			return &dns.AAAA{Hdr: header, AAAA: net.IP(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(rt, "aaaa"))}
		}
		header.Rrtype = dns.TypeMX
		return &dns.MX{Hdr: header, Preference: rapid.Uint16().Draw(rt, "preference"), Mx: name.Draw(rt, "host")}
	})
	return &hostileServer{
		records: rapid.SliceOfN(record, 0, 300).Draw(rt, "records"),
		ways:    rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) way { return way(rapid.IntRange(0, int(numWays)-1).Draw(rt, "way")) }), 1, 20).Draw(rt, "ways"),
		spoil:   rapid.SliceOfN(rapid.Uint16(), 1, 8).Draw(rt, "spoil"),
	}
}

// answers are the datagrams or messages that answer a query; none hangs up.
func (s *hostileServer) answers(network string, query *dns.Msg) [][]byte {
	how := s.ways[s.queries%len(s.ways)]
	s.queries++
	m := s.message(how, query)
	if how == truncated && network == "udp" {
		m.Truncated, m.Answer, m.Ns = true, nil, nil
	}
	raw, err := m.Pack()
	if err != nil || how == hangingUp || len(raw) > dns.MaxMsgSize {
		return nil
	}
	if m.Rcode == dns.RcodeNameError || how == damaged {
		s.denials++
	}
	switch how {
	case damaged:
		for _, at := range s.spoil {
			raw[2+int(at)%(len(raw)-2)] ^= byte(at>>8) | 1
		}
	case cut:
		raw = raw[:12+int(s.spoil[0])%(len(raw)-12)]
	case wrongID:
		other := slices.Clone(raw)
		other[0]++
		return [][]byte{other, raw}
	}
	return [][]byte{raw}
}

func (s *hostileServer) message(how way, query *dns.Msg) *dns.Msg {
	m := new(dns.Msg).SetReply(query)
	q := query.Question[0]
	switch how {
	case failing:
		m.Rcode = dns.RcodeServerFailure
	case denying:
		m.Rcode = dns.RcodeNameError
	case empty:
	case folded:
		m.Question[0].Name = asked(query)
		m.Rcode = fill(m, s.records, q)
	case stepwise:
		for _, rr := range s.records {
			if header := rr.Header(); header.Name == asked(query) && (header.Rrtype == q.Qtype || header.Rrtype == dns.TypeCNAME) {
				m.Answer = append(m.Answer, rr)
			}
		}
	case mixedUp:
		m.Answer, m.Ns, m.Extra = s.records, s.records, s.records
	default:
		m.Rcode = fill(m, s.records, q)
	}
	return m
}

// dial hangs up where the server has nothing to say, so that no time passes.
func (s *hostileServer) dial(_ context.Context, network, _ string) (net.Conn, error) {
	if network == "udp" {
		var p *packets
		p = newPackets(func(query *dns.Msg) [][]byte {
			all := s.answers(network, query)
			if len(all) == 0 {
				p.Close()
			}
			return all
		})
		return p, nil
	}
	client, server := net.Pipe()
	go func() {
		defer server.Close()
		query, err := (&dns.Conn{Conn: server}).ReadMsg()
		if err != nil {
			return
		}
		for _, raw := range s.answers(network, query) {
			_, _ = server.Write(frame(raw))
		}
	}()
	return client, nil
}

// checkHostileZone looks up names in a hostile zone: nothing panics or hangs, all is bounded, an answer is one to the question, and a name is
// denied only if the server did so.
func checkHostileZone(rt *rapid.T) {
	server := drawServer(rt)
	r := &resolve.Resolver{Servers: []string{"192.0.2.53"}, Dial: server.dial, MaxStale: time.Hour}
	for _, name := range []string{"two.example", "a.example", "b.example", "two.example"} {
		for _, qtype := range []uint16{dns.TypeMX, dns.TypeA, dns.TypeCNAME} {
			server.queries, server.denials = 0, 0
			answer, err := r.Lookup(context.Background(), name, qtype)
			if msg := wrongInHostile(answer, err, name, qtype, server); msg != "" {
				rt.Fatalf("%s of %s: %s: %+v, %v", dns.TypeToString[qtype], name, msg, answer, err)
			}
			for _, mx := range answer.MX() {
				_ = mx.Err()
			}
		}
	}
}

func wrongInHostile(answer resolve.Answer, err error, name string, qtype uint16, server *hostileServer) string {
	var failure *resolve.Error
	// Each part of a chain takes two attempts of three exchanges at most, besides one without EDNS.
	const most = (resolve.MaxAliases + 1) * 2 * 4
	switch {
	case server.queries > most:
		return fmt.Sprintf("%d queries", server.queries)
	case len(answer.Records) > resolve.MaxRecords || len(answer.Aliases) > resolve.MaxAliases:
		return "too much"
	case err != nil && !errors.As(err, &failure):
		return "an error of another type"
	case err != nil && len(answer.Records) > 0:
		return "records beside an error"
	case failure != nil && failure.NotFound && server.queries > 0 && server.denials == 0:
		return "the denial is made up"
	case failure != nil && !failure.NotFound && !failure.Temporary():
		return "a permanent error"
	case answer.Name != name || answer.Type != qtype:
		return "an answer to another question"
	}
	for _, rr := range answer.Records {
		if rr.Header().Name != dns.Fqdn(answer.Owner()) || rr.Header().Rrtype != qtype {
			return "a record of another name or type"
		}
	}
	for i, alias := range answer.Aliases {
		if slices.Contains(answer.Aliases[:i], alias) || alias == name {
			return "a loop"
		}
	}
	return ""
}

func TestHostileZones(t *testing.T) { rapid.Check(t, checkHostileZone) }

func FuzzHostileZones(f *testing.F) { f.Fuzz(rapid.MakeFuzz(checkHostileZone)) }

// FuzzMutatedAnswer changes octets of honest answers, as datagrams and over streams. What comes of it is bounded, and a name that exists is
// never denied unless the octets say so.
func FuzzMutatedAnswer(f *testing.F) {
	for i := range 40 {
		f.Add(uint16(i), byte(1<<(i%8)), uint16(7*i), byte(0xff), false)
	}
	f.Add(uint16(3), byte(3), uint16(2), byte(0x80), true)
	f.Fuzz(func(t *testing.T, at uint16, flip byte, at2 uint16, flip2 byte, stream bool) {
		var sent []byte
		answer := edit(zone(t, exampleZone...), func(_ string, raw []byte) []byte {
			raw[2+int(at)%(len(raw)-2)] ^= flip
			raw[2+int(at2)%(len(raw)-2)] ^= flip2
			sent = raw
			return raw
		})
		l := &link{udp: answer, tcp: answer}
		r := l.resolver()
		r.Timeout = 100 * time.Millisecond
		if stream {
			r.Dial = memory{"192.0.2.53:53": answer}.dial
		}
		got, err := r.Lookup(t.Context(), "alias.example", dns.TypeMX)
		assert.LessOrEqual(t, len(got.Records), resolve.MaxRecords)
		assert.LessOrEqual(t, len(got.Aliases), resolve.MaxAliases)
		if err != nil {
			var failure *resolve.Error
			require.ErrorAs(t, err, &failure)
			if failure.NotFound {
				assert.EqualValues(t, dns.RcodeNameError, sent[3]&0x0f)
			}
		}
	})
}
