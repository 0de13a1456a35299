package resolve_test

import (
	"fmt"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/resolve"
)

// chain is n aliases in a row, c0.example to cn.example, which has an MX record.
func chain(n int) []string {
	var lines []string
	for i := range n {
		lines = append(lines, fmt.Sprintf("c%d.example. 300 IN CNAME c%d.example.", i, i+1))
	}
	return append(lines, fmt.Sprintf("c%d.example. 300 IN MX 10 mx.example.", n))
}

// oneStep answers with the records of the name itself only, as a server does that follows no aliases.
func oneStep(t testing.TB, lines ...string) answerer {
	records := parseRecords(t, lines...)
	return func(network string, query *dns.Msg) []byte {
		m := new(dns.Msg).SetReply(query)
		for _, rr := range records {
			header, q := rr.Header(), query.Question[0]
			if dns.CanonicalName(header.Name) == dns.CanonicalName(q.Name) && (header.Rrtype == q.Qtype || header.Rrtype == dns.TypeCNAME) {
				m.Answer = append(m.Answer, rr)
			}
		}
		return fit(t, m, network)
	}
}

// std: R5
func TestAliasChains(t *testing.T) {
	servers := map[string]func(testing.TB, ...string) answerer{"in one answer": zone, "step by step": oneStep}
	for name, server := range servers {
		t.Run(name, func(t *testing.T) {
			answer, err := alone(server(t, chain(resolve.MaxAliases)...)).Lookup(t.Context(), "c0.example", dns.TypeMX)
			require.NoError(t, err)
			assert.Equal(t, []resolve.MX{{Host: "mx.example", Preference: 10}}, answer.MX())
			assert.Len(t, answer.Aliases, resolve.MaxAliases)
			assert.Equal(t, "c8.example", answer.Owner())

			_, err = alone(server(t, chain(resolve.MaxAliases+1)...)).LookupMX(t.Context(), "c0.example")
			requireTemporary(t, err)
			assert.Contains(t, err.Error(), "more than 8 CNAME records")
		})
		t.Run(name+", loop", func(t *testing.T) {
			loop := []string{"a.example. 300 IN CNAME b.example.", "b.example. 300 IN CNAME c.example.", "c.example. 300 IN CNAME b.example."}
			asked := &counter{next: server(t, loop...)}
			_, err := alone(asked.answer).LookupMX(t.Context(), "a.example")
			requireTemporary(t, err)
			assert.Contains(t, err.Error(), `CNAME loop at "b.example"`)
			assert.LessOrEqual(t, asked.n.Load(), int64(3))
		})
		t.Run(name+", alias of itself", func(t *testing.T) {
			_, err := alone(server(t, "a.example. 300 IN CNAME A.example.")).LookupMX(t.Context(), "a.example")
			requireTemporary(t, err)
			assert.Contains(t, err.Error(), `CNAME loop at "a.example"`)
		})
		t.Run(name+", no records at the end", func(t *testing.T) {
			got, err := alone(server(t, "a.example. 300 IN CNAME b.example.", "b.example. 300 IN TXT x")).LookupMX(t.Context(), "a.example")
			require.NoError(t, err)
			assert.Empty(t, got)
		})
	}
}

// A server that fails at a later part of the chain says nothing about the name.
func TestAliasTargetFails(t *testing.T) { // std: R4
	first, broken := oneStep(t, "a.example. 300 IN CNAME b.example."), rcode(t, dns.RcodeServerFailure)
	_, err := alone(func(network string, query *dns.Msg) []byte {
		if asked(query) == "a.example." {
			return first(network, query)
		}
		return broken(network, query)
	}).LookupMX(t.Context(), "a.example")
	requireTemporary(t, err)
}

func TestRecordsBesideTheChainAreIgnored(t *testing.T) {
	extra := parseRecords(t, "other.example. 300 IN MX 1 evil.example.", "two.example. 300 CH MX 1 evil.example.")
	base := parseRecords(t, "two.example. 300 IN MX 10 mx.example.")
	got, err := alone(func(network string, query *dns.Msg) []byte {
		m := new(dns.Msg).SetReply(query)
		m.Answer = append(append(m.Answer, extra...), base...)
		return fit(t, m, network)
	}).LookupMX(t.Context(), "two.example")
	require.NoError(t, err)
	assert.Equal(t, []resolve.MX{{Host: "mx.example", Preference: 10}}, got)
}

func TestManyRecords(t *testing.T) {
	var lines []string
	for i := range 500 {
		lines = append(lines, fmt.Sprintf("many.example. 300 IN MX %d mx%d.example.", 500-i, i))
		lines = append(lines, fmt.Sprintf("many.example. 300 IN A 192.0.%d.%d", i/250, i%250))
	}
	r := alone(zone(t, lines...))
	answer, err := r.Lookup(t.Context(), "many.example", dns.TypeMX)
	require.NoError(t, err)
	got := answer.MX()
	require.Len(t, got, resolve.MaxRecords)
	assert.Equal(t, 500-resolve.MaxRecords, answer.Dropped)
	assert.Equal(t, resolve.MX{Host: "mx372.example", Preference: 128}, got[0], "the order is as served")
	assert.Equal(t, resolve.MX{Host: "mx499.example", Preference: 1}, got[127], "the best are kept")

	all, err := r.LookupAddr(t.Context(), "many.example")
	require.NoError(t, err)
	require.Len(t, all, resolve.MaxRecords)
	assert.Equal(t, "192.0.0.0", all[0].String())
}

func TestOddMXHosts(t *testing.T) {
	got, err := alone(zone(t,
		`odd.example. 300 IN MX 10 192.0.2.1.`,
		`odd.example. 300 IN MX 20 .`,
		`odd.example. 300 IN MX 30 a\032b.example.`,
		`odd.example. 300 IN MX 40 under_score.example.`)).LookupMX(t.Context(), "odd.example")
	require.NoError(t, err)
	assert.Equal(t, []resolve.MX{{"192.0.2.1", 10}, {"", 20}, {`a\ b.example`, 30}, {"under_score.example", 40}}, got)
}

func TestAuthenticatedData(t *testing.T) {
	signed := func(ad bool) answerer {
		return edit(zone(t, exampleZone...), func(_ string, raw []byte) []byte {
			if ad {
				raw[3] |= 0x20
			}
			return raw
		})
	}
	half := oneStep(t, "a.example. 300 IN CNAME two.example.", "two.example. 300 IN MX 10 mx.example.")
	tests := []struct {
		name, server string
		answer       answerer
		trust, want  bool
	}{
		{"bit from a stranger", "192.0.2.1:53", signed(true), false, false},
		{"bit from a trusted server", "192.0.2.1:53", signed(true), true, true},
		{"bit from loopback", "127.0.0.1:53", signed(true), false, true},
		{"bit from IPv6 loopback", "[::1]:53", signed(true), false, true},
		{"no bit", "127.0.0.1:53", signed(false), true, false},
		{"only the first part of a chain", "127.0.0.1:53", func(network string, query *dns.Msg) []byte {
			raw := half(network, query)
			if asked(query) == "a.example." {
				raw[3] |= 0x20
			}
			return raw
		}, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := memory{tt.server: tt.answer}.resolver(tt.server)
			r.TrustAD = tt.trust
			name := "two.example"
			if tt.name == "only the first part of a chain" {
				name = "a.example"
			}
			for range 2 { // the second from the cache
				answer, err := r.Lookup(t.Context(), name, dns.TypeMX)
				require.NoError(t, err)
				assert.Equal(t, tt.want, answer.Secure)
				assert.Equal(t, tt.server, answer.Server)
			}
		})
	}
}
