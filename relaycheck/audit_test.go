package relaycheck_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/dsn/reason"
	"github.com/sortie-mail/sortie/relaycheck"
)

// audit audits a policy and checks what holds for all audits: strangers are not opinions.
func audit(t testing.TB, p *relaycheck.Policy) []relaycheck.Finding {
	t.Helper()
	findings := relaycheck.AuditPolicy(p)
	wellFormed(t, findings)
	for _, f := range findings {
		if f.Stranger != nil {
			assert.True(t, p.Allows(*f.Stranger), "%s: %v may not relay at all", f.ID, f.Stranger)
			assert.Empty(t, f.Stranger.User)
		}
	}
	return findings
}

func policy(rules ...relaycheck.Rule) *relaycheck.Policy { return &relaycheck.Policy{Rules: rules} }

func TestAuditPolicyFindsStrangers(t *testing.T) {
	anyone := relaycheck.Rule{Action: relaycheck.Allow}
	loopback := []relaycheck.Listener{{Addr: netip.MustParseAddrPort("127.0.0.1:2525")}}
	for _, tc := range []struct {
		name     string
		policy   *relaycheck.Policy
		id       string
		severity relaycheck.Severity
		evidence string // the first piece
	}{
		{
			"all of IPv4", policy(allow("127.0.0.0/8"), allow("::1/128"), allow("0.0.0.0/0")), "policy/everyone", relaycheck.Critical,
			"203.0.113.5 may send from anyone to anyone, by rule 3 (network 0.0.0.0/0)",
		},
		{
			"all of IPv6", policy(allow("::/0")), "policy/everyone", relaycheck.Critical,
			"2001:db8::5 may send from anyone to anyone, by rule 1 (network ::/0)",
		},
		{
			"all of IPv4 in the form of IPv6", policy(allow("::ffff:0:0/96")), "policy/everyone", relaycheck.Critical,
			"203.0.113.5 may send from anyone to anyone, by rule 1 (network ::ffff:0.0.0.0/96)",
		},
		{
			"an address that is everything", policy(allow("203.0.113.77/0")), "policy/everyone", relaycheck.Critical,
			"203.0.113.5 may send from anyone to anyone, by rule 1 (network 203.0.113.77/0)",
		},
		{
			"a rule without a condition", policy(anyone), "policy/everyone", relaycheck.Critical,
			"203.0.113.5 may send from anyone to anyone, by rule 1 (no condition)",
		},
		{
			"the default", &relaycheck.Policy{Default: relaycheck.Allow}, "policy/everyone", relaycheck.Critical,
			"203.0.113.5 may send from anyone to anyone, by the default of the policy",
		},
		{
			"all but the usual examples", policy(relaycheck.Rule{Networks: networks("203.0.113.0/24", "198.51.100.0/24", "192.0.2.0/24")}, allow("0.0.0.0/0")),
			"policy/everyone", relaycheck.Critical, "11.0.0.5 may send from anyone to anyone, by rule 2 (network 0.0.0.0/0)",
		},
		{
			"the first half of the internet", policy(allow("0.0.0.0/1"), allow("128.0.0.0/1")), "policy/network/0.0.0.0/1", relaycheck.Critical,
			"11.0.0.5 may send from anyone to anyone, by rule 1 (network 0.0.0.0/1)",
		},
		{
			"the second half of the internet", policy(allow("0.0.0.0/1"), allow("128.0.0.0/1")), "policy/network/128.0.0.0/1", relaycheck.Critical,
			"203.0.113.5 may send from anyone to anyone, by rule 2 (network 128.0.0.0/1)",
		},
		{
			"both halves", policy(allow("0.0.0.0/1", "128.0.0.0/1")), "policy/together", relaycheck.Critical,
			"100 % of the public addresses of IPv4, 0 % of those of IPv6",
		},
		{
			"wider than 10/8", policy(allow("10.0.0.0/7")), "policy/network/10.0.0.0/7", relaycheck.Critical,
			"11.0.0.5 may send from anyone to anyone, by rule 1 (network 10.0.0.0/7)",
		},
		{
			"wider than 192.168/16", policy(allow("192.168.0.0/15")), "policy/network/192.168.0.0/15", relaycheck.Critical,
			"192.169.0.5 may send from anyone to anyone, by rule 1 (network 192.168.0.0/15)",
		},
		{
			"wider than 172.16/12, mapped", policy(allow("::ffff:172.0.0.0/104")), "policy/network/::ffff:172.0.0.0/104", relaycheck.Critical,
			"172.32.0.5 may send from anyone to anyone, by rule 1 (network ::ffff:172.0.0.0/104)",
		},
		{
			"a wide public network", policy(relaycheck.Rule{Name: "-relay-from", Action: relaycheck.Allow, Networks: networks("198.51.100.0/23")}),
			"policy/network/198.51.100.0/23", relaycheck.Warning,
			"198.51.100.5 may send from anyone to anyone, by rule 1, -relay-from (network 198.51.100.0/23)",
		},
		{
			"a wide public network of IPv6", policy(allow("2001:db8::/47")), "policy/network/2001:db8::/47", relaycheck.Warning,
			"2001:db8::5 may send from anyone to anyone, by rule 1 (network 2001:db8::/47)",
		},
		{
			"a network of one's own", policy(allow("198.51.100.0/24", "2001:db8:77::/48")), "policy/public-networks", relaycheck.Info,
			"198.51.100.0/24, 2001:db8:77::/48",
		},
		{
			"trust in a sender domain", policy(relaycheck.Rule{Action: relaycheck.Allow, SenderDomains: []string{"*.example.org"}}),
			"policy/sender-domain/*.example.org", relaycheck.Critical,
			"203.0.113.5 may send from anyone to anyone, by rule 1 (senders of *.example.org); it need only give a sender " +
				"address at stranger.example.org",
		},
		{
			"trust in the null sender", policy(relaycheck.Rule{Action: relaycheck.Allow, SenderDomains: []string{"<>"}}),
			"policy/sender-domain/<>", relaycheck.Critical,
			"203.0.113.5 may send from anyone to anyone, by rule 1 (senders of <>); it need only give the empty sender address",
		},
		{
			"trust in a greeting", policy(relaycheck.Rule{Action: relaycheck.Allow, HELO: []string{"mail.example.org"}, TLS: true}),
			"policy/helo/mail.example.org", relaycheck.Critical,
			"203.0.113.5 may send from anyone to anyone over TLS, by rule 1 (over TLS; greeting as mail.example.org); it " +
				"need only give the name mail.example.org in its greeting",
		},
		{
			"recipients below a public suffix", policy(relaycheck.Rule{Action: relaycheck.Allow, RecipientDomains: []string{"*.com"}}),
			"policy/everyone", relaycheck.Critical, "203.0.113.5 may send from anyone to anyone, by rule 1 (recipients of *.com)",
		},
		{
			"TLS does not make a friend", policy(relaycheck.Rule{Action: relaycheck.Allow, TLS: true}), "policy/everyone", relaycheck.Critical,
			"203.0.113.5 may send from anyone to anyone over TLS, by rule 1 (over TLS)",
		},
		{
			"refused on another port", policy(relaycheck.Rule{Listeners: []netip.AddrPort{netip.MustParseAddrPort("[::]:25")}}, anyone),
			"policy/everyone", relaycheck.Critical, "203.0.113.5 may send from anyone to anyone, by rule 2 (no condition)",
		},
		{
			"refused when it calls itself stranger.example", policy(
				relaycheck.Rule{HELO: []string{"*.example"}}, relaycheck.Rule{SenderDomains: []string{"stranger.example", "<>"}}, anyone,
			), "policy/everyone", relaycheck.Critical, "203.0.113.5 may send from anyone to anyone, by rule 3 (no condition)",
		},
		{
			"one name refused below a domain that is trusted", policy(
				relaycheck.Rule{SenderDomains: []string{"stranger.example.org"}},
				relaycheck.Rule{Action: relaycheck.Allow, SenderDomains: []string{"*.example.org"}},
			), "policy/sender-domain/*.example.org", relaycheck.Critical,
			"203.0.113.5 may send from anyone to anyone, by rule 2 (senders of *.example.org); it need only give a sender " +
				"address at stranger2.example.org",
		},
		{
			"the address of a proxy", &relaycheck.Policy{
				Rules:  []relaycheck.Rule{allow("172.16.0.0/12")},
				Server: relaycheck.Server{FrontEnds: networks("172.17.0.1/32", "10.9.9.9/32")},
			}, "policy/front-end/172.17.0.1/32", relaycheck.Warning,
			"172.17.0.1 may send from anyone to anyone, by rule 1 (network 172.16.0.0/12); so may everybody who comes through it",
		},
		{
			"only the listening address keeps them out",
			&relaycheck.Policy{Rules: []relaycheck.Rule{anyone}, Server: relaycheck.Server{Listeners: loopback}},
			"policy/everyone", relaycheck.Warning, "203.0.113.5 may send from anyone to anyone, by rule 1 (no condition)",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			findings := audit(t, tc.policy)
			f := find(t, findings, tc.id)
			assert.Equal(t, tc.severity, f.Severity)
			assert.Equal(t, tc.evidence, f.Evidence[0].Text)
			require.NotNil(t, f.Stranger)
			if tc.severity > relaycheck.Info {
				assert.NotContains(t, ids(findings), "policy/closed")
				require.Len(t, f.Clues, 1)
				assert.Equal(t, reason.OpenRelay, f.Clues[0].Class)
			}
		})
	}
}

func ids(findings []relaycheck.Finding) (all []string) {
	for _, f := range findings {
		all = append(all, f.ID)
	}
	return all
}

func TestAuditPolicyClosed(t *testing.T) {
	submission := relaycheck.Rule{Action: relaycheck.Allow, Auth: true, TLS: true}
	for _, tc := range []struct {
		name   string
		policy *relaycheck.Policy
		title  string
		text   string
		ids    []string
	}{
		{"the zero policy", policy(), "Strangers cannot", "for nobody", []string{"policy/closed"}},
		{
			"loopback", policy(allow("127.0.0.0/8", "::1/128")), "Only this machine itself", "programs on this machine, and for nobody else",
			[]string{"policy/closed"},
		},
		{"people who log in", policy(allow("127.0.0.1/32"), submission), "Strangers cannot", "this machine and people who " +
			"log in", []string{"policy/closed"}},
		{
			"private networks", policy(allow("10.0.0.0/8", "fd00::/8")), "Strangers cannot", "machines at private addresses",
			[]string{"policy/private-networks", "policy/closed"},
		},
		{
			"all networks, and only receiving", policy(relaycheck.Rule{Action: relaycheck.Allow, RecipientDomains: []string{"example.org", "*.lan"}}),
			"Strangers cannot", "for nobody",
			[]string{"policy/closed"},
		},
		{
			"everything is refused before", policy(
				relaycheck.Rule{Networks: networks("0.0.0.0/1", "10.0.0.0/8", "128.0.0.0/1", "::/0", "2001:db8::/32")}, relaycheck.Rule{Action: relaycheck.Allow},
			), "Strangers cannot", "for nobody", []string{"policy/closed"},
		},
		{"a network that is none", policy(relaycheck.Rule{Action: relaycheck.Allow, Networks: []netip.Prefix{{}}}), "Strangers cannot", "nobody", []string{"policy/closed"}},
		{
			"a rule for no listener", &relaycheck.Policy{
				Rules:  []relaycheck.Rule{{Action: relaycheck.Allow, Listeners: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:2525")}}},
				Server: relaycheck.Server{Listeners: []relaycheck.Listener{{Addr: netip.MustParseAddrPort("0.0.0.0:25")}}},
			}, "Strangers cannot", "nobody", []string{"policy/closed"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			findings := audit(t, tc.policy)
			assert.Equal(t, tc.ids, ids(findings))
			f := find(t, findings, "policy/closed")
			assert.Equal(t, relaycheck.OK, f.Severity)
			assert.Contains(t, f.Title, tc.title)
			assert.Contains(t, f.Text, tc.text)
			assert.Equal(t, "203.0.113.5 may not send from anyone to anyone", f.Evidence[0].Text[:46])
			assert.False(t, f.Clues[0].Confirms)
		})
	}
}

func TestAuditPolicyLogin(t *testing.T) {
	login := relaycheck.Rule{Action: relaycheck.Allow, Auth: true}
	implicit := relaycheck.Listener{Addr: netip.MustParseAddrPort("0.0.0.0:465"), TLS: true}
	clear := relaycheck.Listener{Addr: netip.MustParseAddrPort("0.0.0.0:587")}
	at := func(rule relaycheck.Rule, listeners ...relaycheck.Listener) *relaycheck.Policy {
		return &relaycheck.Policy{Rules: []relaycheck.Rule{rule}, Server: relaycheck.Server{Listeners: listeners}}
	}
	inside := relaycheck.Rule{Action: relaycheck.Allow, Auth: true, Networks: networks("10.0.0.0/8")}
	here := relaycheck.Rule{Action: relaycheck.Allow, Auth: true, Networks: networks("127.0.0.0/8", "::1/128")}
	for _, tc := range []struct {
		name     string
		policy   *relaycheck.Policy
		severity relaycheck.Severity // OK is no finding
	}{
		{"anywhere", at(login), relaycheck.Warning},
		{"inside", at(inside), relaycheck.Info},
		{"on this machine", at(here), relaycheck.OK},
		{"over TLS alone", at(relaycheck.Rule{Action: relaycheck.Allow, Auth: true, TLS: true}), relaycheck.OK},
		{"where TLS comes first", at(login, implicit), relaycheck.OK},
		{"where TLS comes first, and elsewhere", at(login, implicit, clear), relaycheck.Warning},
		{"where only this machine gets to", at(login, relaycheck.Listener{Addr: netip.MustParseAddrPort("[::1]:587")}), relaycheck.OK},
	} {
		t.Run(tc.name, func(t *testing.T) {
			findings := audit(t, tc.policy)
			find(t, findings, "policy/closed") // a password is not a stranger's
			if tc.severity == relaycheck.OK {
				assert.NotContains(t, ids(findings), "policy/login-in-the-clear")
				return
			}
			assert.Equal(t, tc.severity, find(t, findings, "policy/login-in-the-clear").Severity)
		})
	}
}

// Many lists of names in one rule, and rules before it that look at them, are more than is looked at: that is told, and
// nobody is said to be kept out.
func TestAuditPolicyTooMuch(t *testing.T) {
	var names []string
	for i := range 40 {
		names = append(names, "a"+string(rune('a'+i%26))+string(rune('a'+i/26))+".example")
	}
	p := policy(
		relaycheck.Rule{SenderDomains: names, HELO: names},
		relaycheck.Rule{Action: relaycheck.Allow, SenderDomains: names, HELO: names, Networks: networks("203.0.113.0/24")},
	)
	findings := audit(t, p)
	assert.Equal(t, relaycheck.Warning, find(t, findings, "policy/not-audited/rule-2").Severity)
	assert.NotContains(t, ids(findings), "policy/closed")
}

// Of very many networks not each has a finding, and that is told.
func TestAuditPolicyManyNetworks(t *testing.T) {
	var rule relaycheck.Rule
	rule.Action = relaycheck.Allow
	for i := range 200 {
		rule.Networks = append(rule.Networks, netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i)}), 16))
	}
	findings := audit(t, policy(rule))
	assert.Len(t, findings, 51)
	assert.Contains(t, find(t, findings, "policy/more").Text, "150 more")
}

// What an audit returns is the caller's own.
func TestAuditPolicyOwnsNothing(t *testing.T) {
	p := policy(allow("0.0.0.0/0"))
	first := relaycheck.AuditPolicy(p)[0]
	first.Remedy[1].Do, first.Links[0].URL = "changed", "changed"
	again := relaycheck.AuditPolicy(p)[0]
	assert.NotEqual(t, "changed", again.Remedy[1].Do)
	assert.NotEqual(t, "changed", again.Links[0].URL)
}
