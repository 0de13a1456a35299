package relaycheck_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/sortie-mail/sortie/relaycheck"
)

func networks(texts ...string) []netip.Prefix {
	all := make([]netip.Prefix, len(texts))
	for i, t := range texts {
		all[i] = netip.MustParsePrefix(t)
	}
	return all
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func allow(texts ...string) relaycheck.Rule {
	return relaycheck.Rule{Action: relaycheck.Allow, Networks: networks(texts...)}
}

func TestPolicyDecide(t *testing.T) {
	port587 := netip.MustParseAddrPort("[::]:587")
	p := &relaycheck.Policy{Rules: []relaycheck.Rule{
		{Networks: networks("192.168.66.0/24")},
		allow("192.168.0.0/16", "::ffff:10.0.0.0/104", "fe80::/10"),
		{Action: relaycheck.Allow, Auth: true, TLS: true, Listeners: []netip.AddrPort{port587}},
		{Action: relaycheck.Allow, RecipientDomains: []string{"bücher.example", "*.own.example"}},
		{Action: relaycheck.Allow, SenderDomains: []string{"<>"}, HELO: []string{"mx.example.org."}},
		{Action: relaycheck.Allow, Networks: []netip.Prefix{{}}},
	}}
	submission := netip.MustParseAddrPort("198.51.100.1:587")
	for _, tc := range []struct {
		name   string
		client relaycheck.Client
		rule   int
		action relaycheck.Action
	}{
		{"nobody", relaycheck.Client{}, 0, relaycheck.Refuse},
		{"in a network", relaycheck.Client{Addr: addr("192.168.1.1")}, 2, relaycheck.Allow},
		{"the first rule decides", relaycheck.Client{Addr: addr("192.168.66.1")}, 1, relaycheck.Refuse},
		{"an IPv4-mapped client", relaycheck.Client{Addr: addr("::ffff:192.168.1.1")}, 2, relaycheck.Allow},
		{"an IPv4-mapped network", relaycheck.Client{Addr: addr("10.1.2.3")}, 2, relaycheck.Allow},
		{"a zone", relaycheck.Client{Addr: addr("fe80::1%eth0")}, 2, relaycheck.Allow},
		{"logged in over TLS", relaycheck.Client{User: "ann", TLS: true, Listener: submission}, 3, relaycheck.Allow},
		{"logged in, in the clear", relaycheck.Client{User: "ann", Listener: submission}, 0, relaycheck.Refuse},
		{"TLS and no login", relaycheck.Client{TLS: true, Listener: submission}, 0, relaycheck.Refuse},
		{"another port", relaycheck.Client{User: "ann", TLS: true, Listener: netip.MustParseAddrPort("198.51.100.1:25")}, 0, relaycheck.Refuse},
		{"own domain in punycode", relaycheck.Client{Sender: "a@b.example", Recipient: "x@XN--Bcher-kva.example."}, 4, relaycheck.Allow},
		{"below an own domain", relaycheck.Client{Recipient: "x@a.b.OWN.example"}, 4, relaycheck.Allow},
		{"the domain itself is not below", relaycheck.Client{Recipient: "x@own.example"}, 0, relaycheck.Refuse},
		{"another domain that ends so", relaycheck.Client{Recipient: "x@disown.example"}, 0, relaycheck.Refuse},
		{"null sender and HELO", relaycheck.Client{HELO: "MX.example.org"}, 5, relaycheck.Allow},
		{"HELO and a sender", relaycheck.Client{HELO: "mx.example.org", Sender: "a@b.example"}, 0, relaycheck.Refuse},
	} {
		t.Run(tc.name, func(t *testing.T) {
			action, rule := p.Decide(tc.client)
			assert.Equal(t, tc.rule, rule)
			assert.Equal(t, tc.action, action)
			assert.Equal(t, tc.action == relaycheck.Allow, p.Allows(tc.client))
		})
	}
	assert.False(t, new(relaycheck.Policy).Allows(relaycheck.Client{Addr: addr("127.0.0.1")}), "the zero Policy lets nobody relay")
	assert.True(t, (&relaycheck.Policy{Default: relaycheck.Allow}).Allows(relaycheck.Client{}))
}

func TestRuleString(t *testing.T) {
	assert.Equal(t, "no condition", new(relaycheck.Rule).String())
	r := &relaycheck.Rule{
		Networks: networks("10.0.0.0/8", "192.168.0.0/16", "127.0.0.0/8", "::1/128", "fc00::/7"), Auth: true, TLS: true,
		SenderDomains: []string{"example.org"}, HELO: []string{"mx"}, Listeners: []netip.AddrPort{netip.MustParseAddrPort("[::]:587")},
		RecipientDomains: []string{"a.example", "b.example"},
	}
	assert.Equal(t, "networks 10.0.0.0/8, 192.168.0.0/16, 127.0.0.0/8 and 2 more; logged in; over TLS; senders of example.org; "+
		"recipients of a.example, b.example; greeting as mx; arriving at [::]:587", r.String())
}
