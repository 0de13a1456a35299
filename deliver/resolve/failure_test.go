package resolve_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/resolve"
)

func writeConfig(t testing.TB, text string) string {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

// record notes each address that is dialled.
func record(asked *[]string, servers memory) func(context.Context, string, string) (net.Conn, error) {
	var mu sync.Mutex
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		mu.Lock()
		*asked = append(*asked, addr)
		mu.Unlock()
		return servers.dial(ctx, network, addr)
	}
}

// brokenServers are all the ways in which a server can fail to answer, with what the error must say.
func brokenServers(t testing.TB) map[string]struct {
	answer answerer
	says   string
} {
	good := zone(t, exampleZone...)
	type broken = struct {
		answer answerer
		says   string
	}
	return map[string]broken{
		"SERVFAIL": {rcode(t, dns.RcodeServerFailure), "SERVFAIL"},
		"REFUSED":  {rcode(t, dns.RcodeRefused), "REFUSED"},
		"FORMERR":  {rcode(t, dns.RcodeFormatError), "FORMERR"},
		"NOTIMP":   {rcode(t, dns.RcodeNotImplemented), "NOTIMP"},
		"NOTAUTH":  {rcode(t, dns.RcodeNotAuth), "NOTAUTH"},
		"RCODE 14": {rcode(t, 14), "RCODE 14"},
		"header alone": {edit(rcode(t, dns.RcodeRefused), func(_ string, raw []byte) []byte {
			return append(raw[:4:4], 0, 0, 0, 0, 0, 0, 0, 0)
		}), "REFUSED"},
		"SERVFAIL with records": {edit(good, func(_ string, raw []byte) []byte {
			raw[3] |= dns.RcodeServerFailure
			return raw
		}), "SERVFAIL"},
		"NXDOMAIN with records": {edit(good, func(_ string, raw []byte) []byte {
			raw[3] |= dns.RcodeNameError
			return raw
		}), "malformed answer: NXDOMAIN with records"},
		"NXDOMAIN without a question": {edit(rcode(t, dns.RcodeNameError), func(_ string, raw []byte) []byte {
			return append(raw[:4:4], 0, 0, 0, 0, 0, 0, 0, 0)
		}), "answer to another question"},
		"a query": {edit(good, func(_ string, raw []byte) []byte {
			raw[2] &^= 0x80
			return raw
		}), "malformed answer: not a response"},
		"another opcode": {edit(good, func(_ string, raw []byte) []byte {
			raw[2] |= 0x28
			return raw
		}), "malformed answer: not a response"},
		"another name":  {otherQuestion(t, func(q *dns.Question) { q.Name = "one.example." }), "answer to another question"},
		"another type":  {otherQuestion(t, func(q *dns.Question) { q.Qtype = dns.TypeTXT }), "answer to another question"},
		"another class": {otherQuestion(t, func(q *dns.Question) { q.Qclass = dns.ClassCHAOS }), "answer to another question"},
		"cut off between records": {edit(good, func(_ string, raw []byte) []byte {
			return raw[:12+len("two.example.")+1+4]
		}), "malformed answer: fewer records"},
		"cut off in a record": {edit(good, func(_ string, raw []byte) []byte {
			return raw[:len(raw)-3]
		}), "malformed answer"},
		"octets after the header": {edit(good, func(_ string, raw []byte) []byte {
			return append(raw[:12:12], "\xff\xff\xff\xff\xff\xff"...)
		}), "malformed answer"},
		"truncated everywhere": {edit(good, func(_ string, raw []byte) []byte {
			raw[2] |= 0x02
			return raw
		}), "truncated answer over TCP"},
		"truncated, then garbage": {edit(good, func(network string, raw []byte) []byte {
			raw[2] |= 0x02
			if network == "tcp" {
				return append(raw[:2:2], 0x80, 0, 0, 1, 0, 9, 0, 0, 0, 0, 0xc0, 0x0c, 0xff)
			}
			return raw[:20]
		}), "malformed answer"},
		"referral":               {referral, "referral instead of an answer"},
		"MX without data":        {emptyRecord(dns.TypeMX), "malformed answer: MX record without data"},
		"CNAME without a target": {emptyRecord(dns.TypeCNAME), "malformed answer"},
		"silence":                {silence, "no answer within 50ms over udp"},
	}
}

// otherQuestion repeats another question than the one asked.
func otherQuestion(t testing.TB, change func(*dns.Question)) answerer {
	return func(network string, query *dns.Msg) []byte {
		m := new(dns.Msg).SetRcode(query, dns.RcodeNameError)
		m.Question = append([]dns.Question(nil), query.Question...)
		change(&m.Question[0])
		return fit(t, m, network)
	}
}

// referral points to the servers of the zone, as a server does that does not recurse.
func referral(_ string, query *dns.Msg) []byte {
	m := new(dns.Msg).SetReply(query)
	rr, _ := dns.NewRR("example. 300 IN NS ns.example.")
	m.Ns = []dns.RR{rr}
	raw, _ := m.Pack()
	return raw
}

// emptyRecord answers with a record whose data has no octets, which some readers take for the root name.
func emptyRecord(rrtype uint16) answerer {
	return func(_ string, query *dns.Msg) []byte {
		m := new(dns.Msg).SetReply(query)
		raw, _ := m.Pack()
		binary.BigEndian.PutUint16(raw[6:], 1)
		raw = append(raw, 0xc0, 12)
		raw = binary.BigEndian.AppendUint16(raw, rrtype)
		raw = binary.BigEndian.AppendUint16(raw, dns.ClassINET)
		raw = binary.BigEndian.AppendUint32(raw, 300)
		return binary.BigEndian.AppendUint16(raw, 0)
	}
}

// std: R4
func TestBrokenServersAreTemporary(t *testing.T) {
	for name, tt := range brokenServers(t) {
		t.Run(name, func(t *testing.T) {
			server := listen(t, tt.answer)
			r := &resolve.Resolver{Servers: []string{server}, Timeout: 50 * time.Millisecond}
			_, err := r.LookupMX(t.Context(), "two.example")
			failure := requireTemporary(t, err)
			assert.Equal(t, server, failure.Server)
			assert.Contains(t, err.Error(), "server "+server+": ")
			assert.Contains(t, err.Error(), tt.says)
		})
	}
}

// The same servers, over connections in memory, fail in time that is not real.
func TestBrokenServersInMemory(t *testing.T) {
	for name, tt := range brokenServers(t) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := alone(tt.answer)
				r.Timeout = 50 * time.Millisecond
				_, err := r.LookupMX(t.Context(), "two.example")
				requireTemporary(t, err)
				assert.Contains(t, err.Error(), tt.says)
			})
		})
	}
}

// Every broken server hands the question to the next one.
func TestFailover(t *testing.T) {
	for name, tt := range brokenServers(t) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				servers := memory{"192.0.2.1:53": tt.answer, "192.0.2.2:53": zone(t, exampleZone...)}
				got, err := servers.resolver("192.0.2.1:53", "192.0.2.2:53").LookupMX(t.Context(), "null.example")
				require.NoError(t, err)
				assert.Equal(t, []resolve.MX{{}}, got)
			})
		})
	}
}

func TestErrorNamesEveryServer(t *testing.T) {
	servers := memory{"192.0.2.1:53": rcode(t, dns.RcodeRefused), "192.0.2.2:53": rcode(t, dns.RcodeServerFailure)}
	_, err := servers.resolver("192.0.2.1:53", "192.0.2.2:53", "192.0.2.3:53").LookupMX(t.Context(), "two.example")
	requireTemporary(t, err)
	assert.EqualError(t, err, `resolve: MX of "two.example": server 192.0.2.1:53: REFUSED; `+
		`server 192.0.2.2:53: SERVFAIL; server 192.0.2.3:53: over udp: connection refused`)
}

func TestDeadServerIsAskedLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []string
		servers := memory{"192.0.2.1:53": silence, "192.0.2.2:53": zone(t, exampleZone...)}
		r := servers.resolver("192.0.2.1:53", "192.0.2.2:53")
		r.Dial = record(&asked, servers)
		lookup := func(domain string) time.Duration {
			began := time.Now()
			_, err := r.LookupMX(t.Context(), domain)
			require.NoError(t, err)
			return time.Since(began)
		}
		assert.Equal(t, 3*time.Second, lookup("two.example"), "the default timeout")
		assert.Zero(t, lookup("null.example"))
		assert.Equal(t, []string{"192.0.2.1:53", "192.0.2.2:53", "192.0.2.2:53"}, asked)
		time.Sleep(31 * time.Second)
		assert.Equal(t, 3*time.Second, lookup("nomx.example"), "it is given a chance again")
	})
}

func TestServerThatAnswersAgainIsAskedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		servers := memory{"192.0.2.1:53": silence, "192.0.2.2:53": silence}
		r := servers.resolver("192.0.2.1:53", "192.0.2.2:53")
		_, err := r.LookupMX(t.Context(), "two.example")
		requireTemporary(t, err)
		servers["192.0.2.2:53"] = zone(t, exampleZone...)
		for i, want := range []time.Duration{3 * time.Second, 0} {
			began := time.Now()
			_, err = r.LookupTXT(t.Context(), fmt.Sprintf("d%d.example", i))
			require.Error(t, err)
			assert.Equal(t, want, time.Since(began))
		}
	})
}

func TestAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead, failing := &counter{next: silence}, &counter{next: rcode(t, dns.RcodeServerFailure)}
		servers := memory{"192.0.2.1:53": dead.answer, "192.0.2.2:53": failing.answer}
		r := servers.resolver("192.0.2.1:53", "192.0.2.2:53")
		r.Attempts = 4
		_, err := r.LookupMX(t.Context(), "two.example")
		requireTemporary(t, err)
		assert.EqualValues(t, 4, dead.n.Load())
		assert.EqualValues(t, 1, failing.n.Load(), "what a server says by an error code it has said")
	})
}

func TestLookupEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := alone(silence)
		r.Attempts = 1000
		began := time.Now()
		_, err := r.LookupMX(t.Context(), "two.example")
		requireTemporary(t, err)
		assert.Equal(t, 30*time.Second, time.Since(began))
		assert.NotErrorIs(t, err, context.DeadlineExceeded, "it is not the caller's deadline that passed")
	})
}

func TestCallerDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := alone(silence).LookupMX(ctx, "two.example")
		requireTemporary(t, err)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, time.Second, time.Since(began))
	})
}

func TestTruncationGoesToTCP(t *testing.T) {
	var lines []string
	for i := range 100 {
		lines = append(lines, fmt.Sprintf("many.example. 300 IN MX %d a-host-with-a-long-name-%d.elsewhere-%d.example.", i, i, i))
	}
	var mu sync.Mutex
	var networks []string
	answer := zone(t, lines...)
	r := &resolve.Resolver{Servers: []string{listen(t, func(network string, query *dns.Msg) []byte {
		mu.Lock()
		networks = append(networks, network)
		mu.Unlock()
		return answer(network, query)
	})}}
	got, err := r.LookupMX(t.Context(), "many.example")
	require.NoError(t, err)
	assert.Len(t, got, 100)
	assert.Equal(t, []string{"udp", "tcp"}, networks)
}

func TestQueryForm(t *testing.T) {
	var queries []*dns.Msg
	good := zone(t, exampleZone...)
	r := alone(func(network string, query *dns.Msg) []byte {
		queries = append(queries, query)
		return good(network, query)
	})
	for i := range 20 {
		_, err := r.LookupMX(t.Context(), fmt.Sprintf("n%d.example", i))
		require.Error(t, err)
	}
	ids := make(map[uint16]bool)
	for _, query := range queries {
		ids[query.Id] = true
		assert.True(t, query.RecursionDesired)
		assert.True(t, query.AuthenticatedData)
		require.NotNil(t, query.IsEdns0())
		assert.EqualValues(t, 1232, query.IsEdns0().UDPSize())
	}
	assert.Greater(t, len(ids), 15, "ids are random")
}

// forger sends answers with wrong ids before the true one.
func forger(t testing.TB, forged int, good answerer) func(*dns.Msg) [][]byte {
	return func(query *dns.Msg) [][]byte {
		var all [][]byte
		for i := range forged {
			m := new(dns.Msg).SetRcode(query, dns.RcodeNameError)
			m.Id = query.Id + 1 + uint16(i)
			all = append(all, fit(t, m, "udp"), []byte("short"))
		}
		if raw := good("udp", query); raw != nil {
			all = append(all, raw)
		}
		return all
	}
}

func TestForgedDatagrams(t *testing.T) {
	good := zone(t, exampleZone...)
	tests := []struct {
		name   string
		forged int
		honest answerer
		tcp    answerer
		ok     bool
		says   string
	}{
		{"a few before the answer", 3, good, silence, true, ""},
		{"a flood sends the question to TCP", 40, good, good, true, ""},
		{"a flood, and TCP fails", 40, good, rcode(t, dns.RcodeServerFailure), false, "SERVFAIL"},
		{"a few and no answer", 3, silence, silence, false, "no answer within 3s over udp (6 answers with a wrong id ignored)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := alone(silence)
				r.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
					if network == "udp" {
						return newPackets(forger(t, tt.forged, tt.honest)), nil
					}
					return memory{addr: tt.tcp}.dial(ctx, network, addr)
				}
				got, err := r.LookupMX(t.Context(), "null.example")
				if tt.ok {
					require.NoError(t, err)
					assert.Equal(t, []resolve.MX{{}}, got)
					return
				}
				requireTemporary(t, err)
				assert.Contains(t, err.Error(), tt.says)
			})
		})
	}
}

func TestWrongIDOverStream(t *testing.T) {
	_, err := alone(edit(zone(t, exampleZone...), func(_ string, raw []byte) []byte {
		raw[0]++
		return raw
	})).LookupMX(t.Context(), "two.example")
	requireTemporary(t, err)
	assert.Contains(t, err.Error(), "wrong id")
}

func TestNamesInAnswersCompareWithoutCase(t *testing.T) { // std: R10
	got, err := alone(edit(zone(t, "two.example. 300 IN MX 10 mx.example."), func(_ string, raw []byte) []byte {
		copy(raw[12:], "\x03TWO\x07exAMPle")
		return raw
	})).LookupMX(t.Context(), "two.example")
	require.NoError(t, err)
	assert.Len(t, got, 1)
}
