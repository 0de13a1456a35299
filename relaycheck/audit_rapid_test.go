package relaycheck_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"

	"github.com/sortie-mail/sortie/relaycheck"
)

// documentedSafe are the addresses from which no stranger comes, written down apart from the code (RFC 6890).
var documentedSafe = networks(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.168.0.0/16",
	"198.18.0.0/15", "224.0.0.0/3", "::/127", "100::/64", "fc00::/7", "fe80::/10", "ff00::/8",
)

func public(a netip.Addr) bool {
	for _, n := range documentedSafe {
		if n.Contains(a.Unmap()) {
			return false
		}
	}
	return true
}

// drawAddr draws an address of either family, often one near the edge of a safe network.
func drawAddr(t *rapid.T) netip.Addr {
	near := rapid.SampledFrom(documentedSafe).Draw(t, "near").Addr()
	a := near
	switch rapid.IntRange(0, 3).Draw(t, "where") {
	case 0:
		a = near.Prev()
	case 1:
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], rapid.Uint32().Draw(t, "v4"))
		a = netip.AddrFrom4(b)
	case 2:
		b := [16]byte{0: byte(rapid.IntRange(0, 255).Draw(t, "v6"))}
		binary.BigEndian.PutUint64(b[8:], rapid.Uint64().Draw(t, "low"))
		a = netip.AddrFrom16(b)
	}
	if !a.IsValid() {
		a = near
	}
	if a.Is4() && rapid.IntRange(0, 4).Draw(t, "mapped") == 0 {
		a = netip.AddrFrom16(a.As16())
	}
	return a
}

func drawNetwork(t *rapid.T) netip.Prefix {
	a := drawAddr(t)
	return netip.PrefixFrom(a, rapid.IntRange(0, a.BitLen()).Draw(t, "bits"))
}

// contains is what a policy promises of its networks: IPv4-mapped ones are of IPv4.
func contains(n netip.Prefix, a netip.Addr) bool {
	if n.Addr().Is4In6() && n.Bits() >= 96 {
		n = netip.PrefixFrom(n.Addr().Unmap(), n.Bits()-96)
	}
	return n.Contains(a.Unmap())
}

// A public stranger in an allowed network is never missed, and where there is none nothing is critical.
func TestAuditPolicyNetworksProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nets := rapid.SliceOfN(rapid.Custom(drawNetwork), 0, 6).Draw(t, "networks")
		p := policy(relaycheck.Rule{Action: relaycheck.Allow, Networks: append(nets, netip.Prefix{})})
		findings := relaycheck.AuditPolicy(p)
		probes := rapid.SliceOfN(rapid.Custom(drawAddr), 1, 20).Draw(t, "addresses")
		for _, n := range nets {
			probes = append(probes, n.Masked().Addr(), n.Addr())
		}
		for _, a := range probes {
			for _, n := range nets {
				if public(a) && contains(n, a) {
					assertStranger(t, p, findings)
				}
			}
		}
		checkSeverity(t, p, findings)
	})
}

// assertStranger asserts that a public address is named that the policy really lets pass.
func assertStranger(t *rapid.T, p *relaycheck.Policy, findings []relaycheck.Finding) {
	for _, f := range findings {
		if f.Stranger != nil && f.Stranger.User == "" && public(f.Stranger.Addr) && p.Allows(*f.Stranger) {
			return
		}
	}
	t.Fatalf("a stranger may relay, and the audit names none: %v", ids(findings))
}

// checkSeverity asserts that whatever is critical has a real and public stranger, and what has none is called closed.
func checkSeverity(t *rapid.T, p *relaycheck.Policy, findings []relaycheck.Finding) {
	closed, strangers := false, false
	for _, f := range findings {
		closed = closed || f.ID == "policy/closed"
		if f.Stranger != nil {
			assert.True(t, p.Allows(*f.Stranger) && public(f.Stranger.Addr), "%s: %v", f.ID, f.Stranger)
			strangers = strangers || f.Severity > relaycheck.Info
		}
		if f.Severity == relaycheck.Critical {
			assert.NotNil(t, f.Stranger, f.ID)
		}
	}
	assert.NotEqual(t, strangers, closed, "%v", ids(findings))
}

// drawNames draws patterns from few names, so that rules meet.
func drawNames(t *rapid.T, label string) []string {
	pattern := rapid.SampledFrom([]string{
		"*", "*.example", "*.example2", "example.org", "*.example.org", "stranger.example.org", "stranger2.example.org", "stranger.example", "<>",
		"*.sub.example.org",
	})
	if rapid.IntRange(0, 2).Draw(t, label+"?") > 0 {
		return nil
	}
	return rapid.SliceOfN(pattern, 1, 3).Draw(t, label)
}

func drawRule(t *rapid.T) relaycheck.Rule {
	r := relaycheck.Rule{
		Action: relaycheck.Action(rapid.IntRange(0, 1).Draw(t, "action")),
		Auth:   rapid.IntRange(0, 4).Draw(t, "auth") == 0, TLS: rapid.IntRange(0, 4).Draw(t, "tls") == 0,
		SenderDomains: drawNames(t, "senders"), HELO: drawNames(t, "helo"),
	}
	if rapid.Bool().Draw(t, "networks?") {
		r.Networks = rapid.SliceOfN(rapid.Custom(drawNetwork), 1, 3).Draw(t, "networks")
	}
	if rapid.IntRange(0, 3).Draw(t, "listeners?") == 0 {
		r.Listeners = []netip.AddrPort{rapid.SampledFrom(listenerPatterns).Draw(t, "listener")}
	}
	return r
}

var listenerPatterns = []netip.AddrPort{
	netip.MustParseAddrPort("0.0.0.0:25"), netip.MustParseAddrPort("0.0.0.0:587"), netip.MustParseAddrPort("198.51.100.1:0"),
	netip.MustParseAddrPort("[::]:0"), netip.MustParseAddrPort("198.51.100.2:25"),
}

var serverListeners = [][]relaycheck.Listener{
	nil,
	{{Addr: netip.MustParseAddrPort("198.51.100.1:25")}, {Addr: netip.MustParseAddrPort("198.51.100.1:465"), TLS: true}},
	{{Addr: netip.MustParseAddrPort("198.51.100.2:25")}, {Addr: netip.MustParseAddrPort("198.51.100.1:587")}},
}

// The same for whole policies: whoever gets through from a public address without a login, whatever it says of itself, is not missed.
func TestAuditPolicyRulesProperty(t *testing.T) {
	name := rapid.SampledFrom([]string{"stranger.example", "mail.example.org", "stranger.example.org", "a.sub.example.org", "example.org", "x.test", "y.example"})
	rapid.Check(t, func(t *rapid.T) {
		p := &relaycheck.Policy{
			Rules:   rapid.SliceOfN(rapid.Custom(drawRule), 0, 6).Draw(t, "rules"),
			Default: relaycheck.Action(rapid.IntRange(0, 9).Draw(t, "default") / 9),
			Server:  relaycheck.Server{Listeners: rapid.SampledFrom(serverListeners).Draw(t, "server")},
		}
		findings := relaycheck.AuditPolicy(p)
		for range 30 {
			c := relaycheck.Client{
				Addr: drawAddr(t), HELO: name.Draw(t, "helo"), TLS: rapid.Bool().Draw(t, "tls"), Recipient: "someone@elsewhere.example",
			}
			if rapid.Bool().Draw(t, "sender?") {
				c.Sender = "x@" + name.Draw(t, "sender")
			}
			if known := p.Server.Listeners; len(known) > 0 {
				l := rapid.SampledFrom(known).Draw(t, "listener")
				c.Listener, c.TLS = l.Addr, c.TLS || l.TLS
			}
			if public(c.Addr) && p.Allows(c) {
				assertStranger(t, p, findings)
			}
		}
		checkSeverity(t, p, findings)
	})
}
