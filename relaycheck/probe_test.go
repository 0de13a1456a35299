package relaycheck_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/relaycheck"
)

func TestAuditFunc(t *testing.T) {
	server := relaycheck.Server{
		Hostname: "mail.example.org", Domains: []string{"example.org"}, FrontEnds: networks("172.17.0.0/16"),
		Listeners: []relaycheck.Listener{{Addr: netip.MustParseAddrPort("198.51.100.1:25")}, {Addr: netip.MustParseAddrPort("198.51.100.1:465"), TLS: true}},
	}
	in := func(n string, c relaycheck.Client) bool { return netip.MustParsePrefix(n).Contains(c.Addr) }
	for _, tc := range []struct {
		name     string
		allows   func(relaycheck.Client) bool
		id       string
		severity relaycheck.Severity
		words    string // of the first piece of evidence
	}{
		{"everybody", func(relaycheck.Client) bool { return true }, "policy/everyone", relaycheck.Critical, "may send from anyone to anyone"},
		{"half of IPv4", func(c relaycheck.Client) bool { return in("128.0.0.0/1", c) }, "policy/everyone", relaycheck.Critical, "128."},
		{"IPv6", func(c relaycheck.Client) bool { return in("2000::/3", c) }, "policy/everyone", relaycheck.Critical, "20"},
		{"wider than 10/8", func(c relaycheck.Client) bool { return in("10.0.0.0/7", c) }, "policy/address/11.0.0.0", relaycheck.Critical, "11.0.0.0 may send"},
		{"wider than 192.168/16", func(c relaycheck.Client) bool { return in("192.168.0.0/15", c) }, "policy/address/192.169.0.0", relaycheck.Critical, "192.169.0.0 may"},
		{
			"a form of the address that is read wrongly", func(c relaycheck.Client) bool { return c.Addr.Is4In6() },
			"policy/address/::ffff:203.0.113.5", relaycheck.Critical, "::ffff:203.0.113.5 may send",
		},
		{"over TLS", func(c relaycheck.Client) bool { return c.TLS }, "policy/everyone", relaycheck.Critical, "over TLS"},
		{
			"one listener", func(c relaycheck.Client) bool { return c.Listener.Port() == 465 && c.TLS }, "policy/everyone", relaycheck.Critical,
			"may send from anyone to anyone over TLS",
		},
		{
			"its own name", func(c relaycheck.Client) bool { return c.HELO == "mail.example.org" }, "policy/helo/mail.example.org", relaycheck.Critical,
			"203.0.113.5 may send from anyone to anyone, by the decision of the server; it need only give the name mail.example.org in its greeting",
		},
		{"localhost", func(c relaycheck.Client) bool { return c.HELO == "localhost" }, "policy/helo/localhost", relaycheck.Critical, "the name localhost"},
		{
			"its own domain", func(c relaycheck.Client) bool { return strings.HasSuffix(c.Sender, "@example.org") },
			"policy/sender-domain/example.org", relaycheck.Critical, "the sender address postmaster@example.org",
		},
		{"the null sender", func(c relaycheck.Client) bool { return c.Sender == "" }, "policy/sender-domain/<>", relaycheck.Critical, "the empty sender address"},
		{
			"the proxy", func(c relaycheck.Client) bool { return c.Addr.IsPrivate() }, "policy/front-end/172.17.0.0/16", relaycheck.Warning,
			"172.17.0.0 may send from anyone to anyone, by the decision of the server; so may everybody who comes through it",
		},
		{"a login in the clear", func(c relaycheck.Client) bool { return c.User != "" }, "policy/login-in-the-clear", relaycheck.Warning, "without TLS"},
		{"who logs in over TLS", func(c relaycheck.Client) bool { return c.User != "" && c.TLS }, "policy/closed", relaycheck.OK, ""},
		{"nobody", func(relaycheck.Client) bool { return false }, "policy/closed", relaycheck.OK, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			findings := relaycheck.AuditFunc(tc.allows, server)
			wellFormed(t, findings)
			f := find(t, findings, tc.id)
			assert.Equal(t, tc.severity, f.Severity)
			if tc.words != "" {
				assert.Contains(t, f.Evidence[0].Text, tc.words)
			}
			for _, f := range findings {
				if f.Stranger != nil {
					assert.True(t, tc.allows(*f.Stranger), "%s: %v", f.ID, f.Stranger)
					assert.NotContains(t, ids(findings), "policy/closed")
				}
			}
		})
	}
}

// An audit of code asks about strangers alone, and not without end.
func TestAuditFuncAsks(t *testing.T) {
	asked := 0
	var domains []string
	for range 1000 {
		domains = append(domains, "example.org")
	}
	relaycheck.AuditFunc(func(c relaycheck.Client) bool {
		asked++
		require.True(t, c.Addr.IsValid())
		return false
	}, relaycheck.Server{Domains: domains, FrontEnds: networks(strings.Split(strings.Repeat("10.0.0.1/32,", 1000)+"10.0.0.1/32", ",")...)})
	assert.Less(t, asked, 5000)
	assert.Greater(t, asked, 500)
}
