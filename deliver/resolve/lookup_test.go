package resolve_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/resolve"
)

// exampleZone is the data behind most tests.
var exampleZone = []string{
	`two.example. 300 IN MX 20 MX2.Two.Example.`,
	`two.example. 300 IN MX 10 mx1.two.example.`,
	`two.example. 300 IN MX 20 mx3.two.example.`,
	`null.example. 300 IN MX 0 .`,
	`nomx.example. 300 IN A 192.0.2.7`,
	`alias.example. 300 IN CNAME Two.example.`,
	`dangling.example. 300 IN CNAME gone.example.`,
	`mx1.two.example. 300 IN A 192.0.2.1`,
	`mx1.two.example. 300 IN AAAA 2001:db8::1`,
	`mapped.example. 300 IN AAAA ::ffff:127.0.0.1`,
	`text.example. 300 IN TXT "v=spf1 " "-all"`,
	`text.example. 300 IN TXT "other"`,
	`xn--bcher-kva.example. 300 IN MX 10 mx1.two.example.`,
	`_dmarc.xn--bcher-kva.example. 300 IN TXT "v=DMARC1; p=none"`,
	`r3---sn.example. 300 IN MX 10 mx1.two.example.`,
	`1.2.0.192.in-addr.arpa. 300 IN PTR MX1.two.example.`,
	`1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. 300 IN PTR mx1.two.example.`,
}

func TestLookupMX(t *testing.T) {
	two := []resolve.MX{{Host: "mx2.two.example", Preference: 20}, {Host: "mx1.two.example", Preference: 10}, {Host: "mx3.two.example", Preference: 20}}
	one := []resolve.MX{{Host: "mx1.two.example", Preference: 10}}
	tests := []struct {
		name, domain string
		want         []resolve.MX
	}{
		{"as served, lower case, no final dot", "two.example", two}, // std: R10
		{"asked in capitals", "TWO.Example", two},                   // std: R10
		{"asked with the final dot", "two.example.", two},           // std: R10
		{"alias followed", "alias.example", two},                    // std: R5
		{"null MX is visible", "null.example", []resolve.MX{{}}},    // std: R3
		{"no MX records", "nomx.example", nil},
		{"unicode", "bücher.example", one},          // std: R10
		{"unicode capitals", "BÜCHER.example", one}, // std: R10
		{"ideographic full stop", "bücher。example", one},
		{"A-label", "XN--bcher-kva.example", one}, // std: R10
		{"hyphens in third and fourth place", "r3---sn.example", one},
		{"localhost", "localhost", nil},
	}
	r := &resolve.Resolver{Servers: []string{listen(t, zone(t, exampleZone...))}}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := r.LookupMX(t.Context(), tt.domain)
			require.NoError(t, err)
			assert.Equal(t, tt.want, got)
		})
	}
}

// std: R4
func TestNotFoundIsPermanent(t *testing.T) {
	server := listen(t, zone(t, exampleZone...))
	r := &resolve.Resolver{Servers: []string{server}}
	for _, domain := range []string{"gone.example", "dangling.example"} {
		_, err := r.LookupMX(t.Context(), domain)
		var failure *resolve.Error
		require.ErrorAs(t, err, &failure)
		assert.True(t, failure.NotFound)
		assert.False(t, failure.Temporary())
		assert.Equal(t, domain, failure.Name)
		assert.Equal(t, "MX", failure.Type)
		assert.Equal(t, server, failure.Server)
		assert.EqualError(t, err, fmt.Sprintf(`resolve: MX of %q: server %s: NXDOMAIN: "gone.example" does not exist`, domain, server))
	}
}

func TestBadNames(t *testing.T) {
	asked := &counter{next: silence}
	r := alone(asked.answer)
	label := strings.Repeat("a", 63)
	for name, domain := range map[string]string{
		"empty":          "",
		"root":           ".",
		"empty label":    "a..example",
		"leading dot":    ".example",
		"space":          "a b.example",
		"at sign":        "a@b.example",
		"escape":         `a\.example`,
		"bracket":        "[192.0.2.1]",
		"NUL":            "a\x00.example",
		"newline":        "a.example\n",
		"not UTF-8":      "a\xff.example",
		"long label":     label + "a.example",
		"long name":      strings.Repeat(label+".", 3) + label[:62] + ".x",
		"very long":      strings.Repeat("ü", 100_000) + ".example",
		"IDNA":           "\u200d.example",
		"mixed bidi":     "א1a.example",
		"disallowed":     "a\u2028b.example",
		"long as ASCII":  strings.Repeat("ü", 60) + ".example",
		"unicode at":     "ü@b.example",
		"fullwidth stop": "ü．．example",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := r.LookupMX(t.Context(), domain)
			require.ErrorIs(t, err, resolve.ErrBadName)
			var failure *resolve.Error
			require.ErrorAs(t, err, &failure)
			assert.False(t, failure.Temporary())
			assert.False(t, failure.NotFound)
			assert.Equal(t, domain, failure.Name)
			assert.Empty(t, failure.Server)
			_, err = r.LookupAddr(t.Context(), domain)
			assert.ErrorIs(t, err, resolve.ErrBadName)
		})
	}
	assert.Zero(t, asked.n.Load())
}

func TestLongestNameIsAsked(t *testing.T) {
	label := strings.Repeat("a", 63)
	name := strings.Repeat(label+".", 3) + label[:61]
	require.Len(t, name, 253)
	_, err := alone(rcode(t, dns.RcodeNameError)).LookupMX(t.Context(), name)
	var failure *resolve.Error
	require.ErrorAs(t, err, &failure)
	assert.True(t, failure.NotFound)
}

func addrs(list ...string) []netip.Addr {
	var all []netip.Addr
	for _, s := range list {
		all = append(all, netip.MustParseAddr(s))
	}
	return all
}

func TestLookupAddr(t *testing.T) {
	r := &resolve.Resolver{Servers: []string{listen(t, zone(t, exampleZone...))}}
	for host, want := range map[string][]netip.Addr{
		"mx1.two.example":  addrs("2001:db8::1", "192.0.2.1"),
		"MX1.Two.Example.": addrs("2001:db8::1", "192.0.2.1"),
		"nomx.example":     addrs("192.0.2.7"),
		"two.example":      nil,
		"mapped.example":   addrs("127.0.0.1"),
		"192.0.2.9":        addrs("192.0.2.9"),
		"2001:db8::9":      addrs("2001:db8::9"),
		"::ffff:192.0.2.9": addrs("192.0.2.9"),
		"localhost":        addrs("::1", "127.0.0.1"),
		"mail.localhost":   addrs("::1", "127.0.0.1"),
	} {
		t.Run(host, func(t *testing.T) {
			got, err := r.LookupAddr(t.Context(), host)
			require.NoError(t, err)
			assert.Equal(t, want, got)
		})
	}
	_, err := r.LookupAddr(t.Context(), "gone.example")
	var failure *resolve.Error
	require.ErrorAs(t, err, &failure)
	assert.True(t, failure.NotFound)
}

// byType gives each type of question to an answerer of its own.
func byType(six, four answerer) answerer {
	return func(network string, query *dns.Msg) []byte {
		if query.Question[0].Qtype == dns.TypeAAAA {
			return six(network, query)
		}
		return four(network, query)
	}
}

// std: R4
func TestLookupAddrFamiliesDiffer(t *testing.T) {
	present := zone(t, "h.example. 300 IN A 192.0.2.1", "h.example. 300 IN AAAA 2001:db8::1")
	absent := zone(t, "h.example. 300 IN TXT x")
	denied := rcode(t, dns.RcodeNameError)
	broken := rcode(t, dns.RcodeServerFailure)
	tests := []struct {
		name      string
		six, four answerer
		want      []netip.Addr
		temporary bool
	}{
		{"AAAA fails", broken, present, addrs("192.0.2.1"), false},
		{"A fails", present, broken, addrs("2001:db8::1"), false},
		{"AAAA denied", denied, present, addrs("192.0.2.1"), false},
		{"AAAA fails, no A", broken, absent, nil, true},
		{"no AAAA, A fails", absent, broken, nil, true},
		{"AAAA fails, A denied", broken, denied, nil, true},
		{"AAAA denied, A fails", denied, broken, nil, true},
		{"AAAA denied, no A", denied, absent, nil, false},
		{"no AAAA, A denied", absent, denied, nil, false},
		{"both fail", broken, broken, nil, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := alone(byType(tt.six, tt.four)).LookupAddr(t.Context(), "h.example")
			assert.Equal(t, tt.want, got)
			if tt.temporary {
				requireTemporary(t, err)
			} else {
				require.NoError(t, err)
			}
		})
	}
}

// requireTemporary checks that an error is a temporary *resolve.Error that names what was asked.
func requireTemporary(t testing.TB, err error) *resolve.Error {
	t.Helper()
	var failure *resolve.Error
	require.ErrorAs(t, err, &failure)
	require.True(t, failure.Temporary(), err)
	require.False(t, failure.NotFound, err)
	require.NotErrorIs(t, err, resolve.ErrBadName)
	require.Contains(t, err.Error(), failure.Name)
	return failure
}

func TestLookupTXT(t *testing.T) {
	r := alone(zone(t, exampleZone...))
	for name, want := range map[string][]string{
		"text.example":          {"v=spf1 -all", "other"},
		"_dmarc.bücher.example": {"v=DMARC1; p=none"},
		"nomx.example":          nil,
	} {
		got, err := r.LookupTXT(t.Context(), name)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	_, err := r.LookupTXT(t.Context(), "gone.example")
	var failure *resolve.Error
	require.ErrorAs(t, err, &failure)
	assert.True(t, failure.NotFound)
}

func TestLookupPTR(t *testing.T) {
	r := alone(zone(t, exampleZone...))
	for _, addr := range addrs("192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1") {
		got, err := r.LookupPTR(t.Context(), addr)
		require.NoError(t, err)
		assert.Equal(t, []string{"mx1.two.example"}, got, addr)
	}
	_, err := r.LookupPTR(t.Context(), netip.Addr{})
	require.ErrorIs(t, err, resolve.ErrBadName)
	_, err = r.LookupPTR(t.Context(), netip.MustParseAddr("192.0.2.200"))
	var failure *resolve.Error
	require.ErrorAs(t, err, &failure)
	assert.True(t, failure.NotFound)
}

func TestLookupRefusesQuestionTypes(t *testing.T) {
	r := alone(zone(t, exampleZone...))
	for _, qtype := range []uint16{dns.TypeNone, dns.TypeOPT, dns.TypeANY, dns.TypeAXFR} {
		_, err := r.Lookup(t.Context(), "two.example", qtype)
		requireTemporary(t, err)
	}
}

func TestSystemConfiguration(t *testing.T) {
	var asked []string
	servers := memory{}
	r := &resolve.Resolver{
		ConfigFile: writeConfig(t, "search example.org\nnameserver 192.0.2.1\nnameserver 2001:db8::1\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n"),
		Attempts:   1,
	}
	r.Dial = record(&asked, servers)
	_, err := r.LookupMX(t.Context(), "two.example")
	requireTemporary(t, err)
	assert.Equal(t, []string{"192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.3:53"}, asked, "three servers as resolv.conf(5) says, no search list")
}

func TestSystemConfigurationChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := writeConfig(t, "nameserver 192.0.2.1\n")
		servers := memory{"192.0.2.1:53": rcode(t, dns.RcodeRefused), "192.0.2.2:53": zone(t, exampleZone...)}
		r := &resolve.Resolver{ConfigFile: file, Dial: servers.dial}
		_, err := r.LookupMX(t.Context(), "two.example")
		requireTemporary(t, err)

		require.NoError(t, os.WriteFile(file, []byte("nameserver 192.0.2.2\n"), 0o600))
		require.NoError(t, os.Chtimes(file, time.Now(), time.Now()))
		_, err = r.LookupMX(t.Context(), "two.example")
		requireTemporary(t, err)
		time.Sleep(5 * time.Second)
		_, err = r.LookupMX(t.Context(), "two.example")
		require.NoError(t, err)
	})
}

func TestSystemConfigurationMissing(t *testing.T) {
	var asked []string
	r := &resolve.Resolver{ConfigFile: t.TempDir() + "/none", Attempts: 1}
	r.Dial = record(&asked, memory{})
	_, err := r.LookupMX(t.Context(), "two.example")
	requireTemporary(t, err)
	assert.Equal(t, []string{"127.0.0.1:53", "[::1]:53"}, asked)
}

func TestServerWithoutPort(t *testing.T) {
	var asked []string
	r := &resolve.Resolver{Servers: []string{"192.0.2.1", "2001:db8::1", "[2001:db8::2]", "[2001:db8::3]:5353"}, Attempts: 1}
	r.Dial = record(&asked, memory{})
	_, err := r.LookupMX(t.Context(), "two.example")
	requireTemporary(t, err)
	assert.Equal(t, []string{"192.0.2.1:53", "[2001:db8::1]:53", "[2001:db8::2]:53", "[2001:db8::3]:5353"}, asked)
}

// std: R5
func TestTraceReportsAliases(t *testing.T) {
	var seen []resolve.Answer
	var errs []error
	ctx := resolve.WithTrace(context.Background(), &resolve.Trace{Answered: func(a resolve.Answer, err error) {
		seen = append(seen, a)
		errs = append(errs, err)
	}})
	r := alone(zone(t, exampleZone...))
	for range 2 { // the second from the cache
		_, err := r.LookupMX(ctx, "alias.example")
		require.NoError(t, err)
	}
	_, err := r.LookupMX(ctx, "dangling.example")
	require.Error(t, err)
	require.Len(t, seen, 3)
	for i, answer := range seen[:2] {
		assert.NoError(t, errs[i])
		assert.Equal(t, "alias.example", answer.Name)
		assert.Equal(t, []string{"two.example"}, answer.Aliases)
		assert.Equal(t, "two.example", answer.Owner())
		assert.Equal(t, "192.0.2.53:53", answer.Server)
	}
	assert.Equal(t, err, errs[2])
	assert.Equal(t, []string{"gone.example"}, seen[2].Aliases)
}
