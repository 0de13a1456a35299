package deliver_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/deliver/resolve"
	"github.com/sortie-mail/sortie/route"
)

// watch keeps what the trace of a world tells.
type watch struct {
	hosts    [][]string
	connects []string // "host address", with "reused" or "failed"
	aliases  []string
}

func (w *world) watch() *watch {
	seen := new(watch)
	w.d.Trace = &deliver.Trace{
		Hosts: func(_ string, hosts []string) { seen.hosts = append(seen.hosts, hosts) },
		Connect: func(host string, addr netip.AddrPort, reused bool, err error) {
			line := host + " " + addr.String()
			if reused {
				line += " reused"
			}
			if err != nil {
				line += " failed"
			}
			seen.connects = append(seen.connects, line)
		},
		Lookup: func(a resolve.Answer, _ error) { seen.aliases = append(seen.aliases, a.Aliases...) },
	}
	return seen
}

// std: R1
func TestHostsAreTriedByPreference(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		seen := w.watch()
		require.NoError(t, w.Zone("aol.test", "@ MX 30 c\n@ MX 10 a\n@ MX 20 b1\n@ MX 20 b2\n"+
			"a A 192.0.2.1\nb1 A 192.0.2.21\nb2 A 192.0.2.22\nc A 192.0.2.3"))
		for range 40 { // nobody listens: all are tried
			o := w.one(t, direct)
			require.Equal(t, deliver.StageConnect, o.Stage)
			require.Len(t, o.Tried, 3)
		}
		orders := map[string]int{}
		for _, hosts := range seen.hosts {
			require.Equal(t, []string{"a.aol.test", "c.aol.test"}, []string{hosts[0], hosts[3]})
			orders[hosts[1]]++
		}
		require.Len(t, orders, 2, "equal preferences are shuffled on every attempt")
		require.Equal(t, []string{
			"a.aol.test 192.0.2.1:25 failed", seen.hosts[0][1] + " 192.0.2.2" + seen.hosts[0][1][1:2] + ":25 failed",
			seen.hosts[0][2] + " 192.0.2.2" + seen.hosts[0][2][1:2] + ":25 failed", "c.aol.test 192.0.2.3:25 failed",
		}, seen.connects[:4])
	})
}

// TestWhatDNSSays is about outcomes that DNS alone decides.
func TestWhatDNSSays(t *testing.T) {
	for name, tt := range map[string]struct {
		zone  string // of aol.test; "" is none
		fail  map[string]lab.DNSFailure
		want  string // result and status
		words string
	}{
		// std: R2
		"no MX but an address":      {zone: "@ A 192.0.2.10", want: "delivered 2.0.0"},
		"no MX but an IPv6 address": {zone: "@ AAAA 2001:db8::10", want: "delivered 2.0.0"},
		"no MX and no address":      {zone: "@ TXT x", want: "permfail 5.4.4", words: "has no address"},
		"an MX without address, not the A record": {
			zone: "@ MX 10 gone\n@ A 192.0.2.10", want: "permfail 5.4.4", words: "gone.aol.test does not exist",
		},
		"an MX with a TXT record alone": {
			zone: "@ MX 10 x\nx TXT x\n@ A 192.0.2.10", want: "permfail 5.4.4", words: "x.aol.test has no address",
		},
		"two MX without address": {zone: "@ MX 10 a\n@ MX 20 b\n@ A 192.0.2.10", want: "permfail 5.4.4", words: "does not exist"},
		"an MX whose address is not known now": {
			zone: "@ MX 10 mx\n@ MX 20 gone\nmx A 192.0.2.10\n@ A 192.0.2.10", fail: failing("mx.aol.test", lab.DNSServFail),
			want: "tempfail 4.4.4", words: "gone.aol.test does not exist",
		},
		// std: R3
		"null MX":           {zone: "@ MX 0 .\n@ A 192.0.2.10", want: "permfail 5.1.10", words: "556"},
		"null MX by 10":     {zone: "@ MX 10 .\n@ A 192.0.2.10", want: "permfail 5.1.10", words: "null MX"},
		"null MX in a list": {zone: "@ MX 0 .\n@ MX 10 mx\nmx A 192.0.2.10", want: "delivered 2.0.0"},
		"null MX twice":     {zone: "@ MX 0 .\n@ MX 10 .", want: "permfail 5.4.4", words: "name no host"},
		// std: R4
		"NXDOMAIN":          {want: "permfail 5.1.2", words: "does not exist"},
		"SERVFAIL":          {fail: failing("aol.test", lab.DNSServFail), want: "tempfail 4.4.3", words: "SERVFAIL"},
		"REFUSED":           {fail: failing("aol.test", lab.DNSRefused), want: "tempfail 4.4.3", words: "REFUSED"},
		"no answer":         {fail: failing("aol.test", lab.DNSTimeout), want: "tempfail 4.4.3"},
		"malformed answer":  {fail: failing("aol.test", lab.DNSGarbage), want: "tempfail 4.4.3"},
		"half an answer":    {fail: failing("aol.test", lab.DNSCut), want: "tempfail 4.4.3"},
		"SERVFAIL at hosts": {zone: aol, fail: failing("mx.aol.test", lab.DNSServFail), want: "tempfail 4.4.3", words: "mx.aol.test"},
		// std: R5
		"CNAME at the domain": {zone: "@ CNAME other.test.", want: "delivered 2.0.0"},
		"CNAME at the MX":     {zone: "@ MX 10 mx\nmx CNAME real\nreal A 192.0.2.10", want: "delivered 2.0.0"},
		"CNAME loop":          {zone: "@ MX 10 mx\nmx CNAME mx2\nmx2 CNAME mx", want: "tempfail 4.4.3"},
		"CNAME to nowhere":    {zone: "@ CNAME nowhere.test.", want: "permfail 5.1.2", words: "does not exist"},
		// std: R6
		"our name first": {
			zone: "@ MX 10 Mail.Example.ORG.\n@ MX 20 mx\nmx A 192.0.2.10", want: "permfail 5.4.6", words: "loops back",
		},
		"our name among equals": {
			zone: "@ MX 10 mail.example.org.\n@ MX 10 mx\nmx A 192.0.2.10", want: "permfail 5.4.6", words: "loops back",
		},
		"our name after a better": {zone: "@ MX 10 mx\n@ MX 20 mail.example.org.\nmx A 192.0.2.10", want: "delivered 2.0.0"},
		"our address first": {
			zone: "@ MX 10 us\n@ MX 20 mx\nus A 203.0.113.25\nmx A 192.0.2.10", want: "permfail 5.4.6", words: "203.0.113.25",
		},
		"our address among equals": {
			zone: "@ MX 10 us\n@ MX 10 mx\nus A 203.0.113.25\nmx A 192.0.2.10", want: "permfail 5.4.6", words: "203.0.113.25",
		},
		"our address without MX":     {zone: "@ A 203.0.113.25", want: "permfail 5.4.6", words: "203.0.113.25"},
		"our address after a better": {zone: "@ MX 10 mx\n@ MX 20 us\nus A 203.0.113.25\nmx A 192.0.2.10", want: "delivered 2.0.0"},
		"our address after one that is down, then one that is up": {
			zone: "@ MX 10 down\n@ MX 20 us\n@ MX 30 mx\ndown A 192.0.2.99\nus A 203.0.113.25\nmx A 192.0.2.10", want: "tempfail 4.4.1",
		},
		"our address after one that is none": {
			zone: "@ MX 10 gone\n@ MX 20 us\nus A 203.0.113.25", want: "permfail 5.4.6", words: "203.0.113.25",
		},
		// std: R11
		"loopback":           {zone: "@ MX 10 mx\nmx A 127.0.0.1", want: "permfail 5.4.4", words: "127.0.0.1"},
		"private":            {zone: "@ MX 10 mx\nmx A 10.1.2.3", want: "permfail 5.4.4", words: "10.1.2.3"},
		"private without MX": {zone: "@ A 192.168.1.1", want: "permfail 5.4.4", words: "192.168.1.1"},
		"link-local":         {zone: "@ MX 10 mx\nmx A 169.254.169.254", want: "permfail 5.4.4", words: "169.254.169.254"},
		"unspecified":        {zone: "@ MX 10 mx\nmx AAAA ::", want: "permfail 5.4.4", words: "lead nowhere"},
		"localhost":          {zone: "@ MX 10 localhost.", want: "permfail 5.4.4", words: "lead nowhere"},
		"private and public": {zone: "@ MX 10 mx\nmx A 10.1.2.3\nmx A 192.0.2.10", want: "delivered 2.0.0"},
		"an address as name": {zone: "@ MX 10 10.1.2.3.", want: "permfail 5.4.4", words: "10.1.2.3"},
		// std: R2
		"a public address as name": {zone: "@ MX 10 192.0.2.10.\n@ A 192.0.2.10", want: "permfail 5.4.4", words: "192.0.2.10 is an address, and no name"},
		"an IPv6 address as name":  {zone: "@ MX 10 2001:db8::10.", want: "permfail 5.4.4", words: "2001:db8::10 is an address, and no name"},
		"our address as name":      {zone: "@ MX 10 203.0.113.25.", want: "permfail 5.4.4", words: "203.0.113.25 is an address"},
		"addresses beside a host":  {zone: "@ MX 0 192.0.2.99.\n@ MX 5 203.0.113.25.\n@ MX 10 mx\nmx A 192.0.2.10", want: "delivered 2.0.0"},
		"an address and a null MX": {zone: "@ MX 0 .\n@ MX 10 192.0.2.10.", want: "permfail 5.4.4", words: "192.0.2.10 is an address"},
		"an address beside a host that is down": {
			zone: "@ MX 10 192.0.2.10.\n@ MX 20 down\ndown A 192.0.2.99", want: "tempfail 4.4.1", words: "no connection",
		},
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				w.d.Self = []netip.Addr{netip.MustParseAddr("203.0.113.25")}
				w.RemoveZone("aol.test")
				require.NoError(t, w.Zone("other.test", aol))
				if tt.zone != "" {
					require.NoError(t, w.Zone("aol.test", tt.zone))
				}
				for name, how := range tt.fail {
					w.FailDNS(name, "", how)
				}
				servers := []*lab.Server{w.Server("mx.aol.test"), w.Server("aol.test"), w.Server("mx.other.test"), w.Server("real.aol.test")}
				if tt.zone != "" {
					require.NoError(t, w.Zone("aol.test", tt.zone)) // without addresses that the lab made up
				} else {
					w.RemoveZone("aol.test")
				}
				for range 10 { // equal preferences come in any order
					o := w.one(t, direct)
					require.Equal(t, tt.want, o.Result.String()+" "+o.Status.String(), "%v", o)
					require.Contains(t, o.Detail, tt.words)
				}
				if tt.want != "delivered 2.0.0" {
					for _, s := range servers {
						total, _ := s.Connections()
						require.Zero(t, total, "no connection to %s", s.Name())
					}
				}
			})
		})
	}
}

func failing(name string, how lab.DNSFailure) map[string]lab.DNSFailure {
	return map[string]lab.DNSFailure{name: how}
}

// Hosts that were not looked at, because there are so many, may be good ones.
//
// std: R2
func TestNotEveryHostWasLookedAt(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("aol.test", "@ MX 1 a\n@ MX 2 b\n@ MX 3 c\n@ MX 4 d\n@ MX 5 e\n@ MX 6 mx\nmx A 192.0.2.10"))
		mx := w.Server("mx.aol.test")
		o := w.one(t, direct)
		require.Equal(t, deliver.TempFail, o.Result, "%v", o)
		require.Len(t, o.Tried, 4)
		require.Empty(t, mx.Transcript())
	})
}

// A resolver of another kind has errors of its own, and none of them is final.
//
// std: R4
func TestErrorsOfOtherResolversAreTemporary(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		w.d.Resolver = broken{}
		o := w.one(t, direct)
		require.Equal(t, deliver.TempFail, o.Result)
		require.Equal(t, "4.4.3", o.Status.String())
		require.Contains(t, o.Detail, "out of order")
	})
}

type broken struct{}

func (broken) LookupMX(context.Context, string) ([]resolve.MX, error) {
	return nil, errors.New("out of order")
}

func (broken) LookupAddr(context.Context, string) ([]netip.Addr, error) {
	return nil, errors.New("out of order")
}

// std: R5
func TestAliasesAreInTheTrace(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		seen := w.watch()
		require.NoError(t, w.Zone("aol.test", "@ MX 10 mx\nmx CNAME real\nreal A 192.0.2.10"))
		w.Server("mx.aol.test")
		require.Equal(t, deliver.Delivered, w.one(t, direct).Result)
		require.Contains(t, seen.aliases, "real.aol.test")
	})
}

// std: R7
func TestEveryAddressIsTried(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		seen := w.watch()
		require.NoError(t, w.Zone("aol.test", "@ MX 10 mx\nmx A 192.0.2.1\nmx A 192.0.2.2\nmx A 192.0.2.10\nmx AAAA 2001:db8::1"))
		down := func(_ context.Context, network, addr string) (net.Conn, error) {
			if addr == "192.0.2.10:25" {
				return w.Dial(t.Context(), network, addr)
			}
			return nil, errors.New("no route to host")
		}
		w.d.Dial = down
		w.Server("mx.aol.test")
		o := w.one(t, direct)
		require.Equal(t, deliver.Delivered, o.Result, "%v", o)
		require.Equal(t, []string{
			"mx.aol.test [2001:db8::1]:25 failed", "mx.aol.test 192.0.2.1:25 failed",
			"mx.aol.test 192.0.2.2:25 failed", "mx.aol.test 192.0.2.10:25",
		}, seen.connects)
		require.Len(t, o.Tried, 3)
		require.Equal(t, "192.0.2.10:25", o.Addr.String())
	})
}

// std: R7
func TestSoManyAddressesAndNoMore(t *testing.T) {
	var many strings.Builder
	for _, host := range []string{"a", "b", "c", "d", "e", "f"} {
		many.WriteString("@ MX 10 " + host + "\n")
		for i := range 8 {
			many.WriteString(host + " A 192.0.2." + string(rune('1'+i)) + "\n" + host + " AAAA 2001:db8::" + string(rune('1'+i)) + "\n")
		}
	}
	for name, tt := range map[string]struct {
		zone    string
		limits  deliver.Limits
		tried   int
		ofHosts int
	}{
		"five hosts, two addresses each":   {many.String(), deliver.Limits{}, 10, 5},
		"one host may have all":            {strings.ReplaceAll(many.String(), "@ MX 10", "; ") + "\n@ MX 10 a", deliver.Limits{}, 10, 1},
		"as many as set":                   {many.String(), deliver.Limits{Hosts: 2, Addresses: 3}, 3, 2},
		"fewer addresses than hosts":       {many.String(), deliver.Limits{Addresses: 2}, 2, 2},
		"limits that make no sense are 1":  {many.String(), deliver.Limits{Hosts: -1, Addresses: -1}, 1, 1},
		"a host leaves tries for the next": {"@ MX 1 a\n@ MX 2 f\n" + many.String()[len("@ MX 10 a\n"):], deliver.Limits{Hosts: 2}, 10, 2},
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				seen := w.watch()
				w.d.Limits = tt.limits
				if strings.Contains(name, "leaves tries") {
					tt.zone = strings.ReplaceAll(tt.zone, "@ MX 10", ";") + "\n"
					for i := range 8 {
						tt.zone += "a A 192.0.2.1" + string(rune('1'+i)) + "\n"
					}
				}
				require.NoError(t, w.Zone("aol.test", tt.zone))
				o := w.one(t, direct)
				require.Equal(t, deliver.TempFail, o.Result)
				require.Len(t, seen.connects, tt.tried)
				hosts := map[string]bool{}
				for _, c := range seen.connects {
					host, _, _ := strings.Cut(c, " ")
					hosts[host] = true
				}
				require.Len(t, hosts, tt.ofHosts)
			})
		})
	}
}

// A stranger's zone may have any number of hosts and addresses: what is asked of DNS and of hosts for it is bounded.
//
// std: R7
func TestZonesWithoutBounds(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		seen := w.watch()
		var zone strings.Builder
		for i := range 500 {
			fmt.Fprintf(&zone, "@ MX %d mx%d\n", i/100, i)
			for k := range 4 {
				fmt.Fprintf(&zone, "mx%d A 192.0.2.%d\nmx%d AAAA 2001:db8::%x\n", i, (i+k)%200+1, i, i+k+1)
			}
		}
		require.NoError(t, w.Zone("aol.test", zone.String()))
		o := w.one(t, direct)
		require.Equal(t, "tempfail 4.4.1", o.Result.String()+" "+o.Status.String(), "%v", o)
		require.Len(t, seen.connects, 10)
		require.Len(t, o.Tried, 9)
		require.Len(t, seen.hosts[0], 5)
		require.LessOrEqual(t, len(w.Queries()), 1+2*5, "the hosts that are tried are looked up, and no others")
		for _, c := range seen.connects {
			host, _, _ := strings.Cut(c, ".aol.test ")
			number, err := strconv.Atoi(strings.TrimPrefix(host, "mx"))
			require.NoError(t, err)
			require.Less(t, number, 100, "the best of them are tried")
		}
	})
}

// std: R8
func TestAnotherHostMayDoBetter(t *testing.T) {
	for name, bad := range map[string]lab.Behaviour{
		"refused at connect": lab.Drop(lab.AtConnect),
		"4xx greeting":       lab.Refuse(lab.AtGreeting, "451 4.3.0 later"),
		"554 greeting":       lab.Refuse(lab.AtGreeting, "554 5.7.1 not you"),
		"4xx at MAIL":        lab.Refuse(lab.AtMail, "451 4.3.0 later"),
		"4xx at RCPT":        lab.Refuse(lab.AtRcpt, "450 4.2.1 later"),
		"4xx at DATA":        lab.Refuse(lab.AtData, "451 4.3.0 later"),
		"4xx at the dot":     lab.Refuse(lab.AtDot, "452 4.3.1 full"),
		"lost at MAIL":       lab.Drop(lab.AtMail),
		"lost at RCPT":       lab.Drop(lab.AtRcpt),
		"lost at DATA":       lab.Drop(lab.AtData),
		"lost in the body":   lab.Drop(lab.AtBody),
		"junk":               lab.Junk(lab.AtMail),
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, w *world) {
				require.NoError(t, w.Zone("aol.test", "@ MX 10 a\n@ MX 20 b\na A 192.0.2.1\nb A 192.0.2.2"))
				w.Server("a.aol.test", bad)
				b := w.Server("b.aol.test")
				m := letterOf(hello+strings.Repeat("A line to fill buffers with.\r\n", 100_000), "you@aol.test")
				o := w.all(t, direct, m)[0]
				if name == "lost in the body" && o.Result == deliver.TempFail && o.PossiblyDelivered {
					return // all of it fitted into the buffers of the sockets before the end was seen
				}
				require.Equal(t, deliver.Delivered, o.Result, "%v", o)
				require.Equal(t, "b.aol.test", o.Host)
				require.Len(t, b.Mailbox(), 1)
				require.Len(t, o.Tried, 1)
				require.Equal(t, "a.aol.test", o.Tried[0].Host)
				require.NotEmpty(t, o.Tried[0].Err)
			})
		})
	}
}

// std: R8
func TestARefusalForGoodEndsTheRecipient(t *testing.T) {
	for _, at := range []lab.Stage{lab.AtMail, lab.AtRcpt, lab.AtData, lab.AtDot} {
		t.Run(string(at), func(t *testing.T) {
			bothWays(t, func(t *testing.T, w *world) {
				require.NoError(t, w.Zone("aol.test", "@ MX 10 a\n@ MX 20 b\na A 192.0.2.1\nb A 192.0.2.2"))
				w.Server("a.aol.test", lab.Refuse(at, "550 5.7.1 never"))
				b := w.Server("b.aol.test")
				o := w.one(t, direct)
				require.Equal(t, deliver.PermFail, o.Result, "%v", o)
				require.Equal(t, "5.7.1", o.Status.String())
				require.Equal(t, string(at), string(o.Stage))
				require.Equal(t, "550 5.7.1 never", o.Reply.Wire())
				require.Equal(t, "a.aol.test", o.Host)
				require.Empty(t, b.Transcript())
			})
		})
	}
}

// A connection that breaks may do so because of the way to one address: the host's other address is tried.
func TestALostConnectionTriesTheHostsOtherAddress(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		seen := w.watch()
		require.NoError(t, w.Zone("aol.test", "@ MX 10 mx\nmx A 192.0.2.10\nmx AAAA 2001:db8::10"))
		w.Server("mx.aol.test", lab.Times(1, lab.Drop(lab.AtRcpt)))
		require.Equal(t, deliver.Delivered, w.one(t, direct).Result)
		require.Equal(t, []string{"mx.aol.test [2001:db8::10]:25", "mx.aol.test 192.0.2.10:25"}, seen.connects)
	})
}

// A host that said no is not asked again at its other address.
func TestAHostIsAskedOnce(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		seen := w.watch()
		require.NoError(t, w.Zone("aol.test", "@ MX 10 mx\nmx A 192.0.2.10\nmx AAAA 2001:db8::10"))
		w.Server("mx.aol.test", lab.Refuse(lab.AtRcpt, "450 4.2.1 later"))
		require.Equal(t, deliver.TempFail, w.one(t, direct).Result)
		require.Len(t, seen.connects, 1)
	})
}

// std: R9
func TestAddressLiterals(t *testing.T) {
	for recipient, tt := range map[string]struct {
		result deliver.Result
		status string
	}{
		"you@[192.0.2.10]":               {deliver.Delivered, "2.0.0"},
		"you@[IPv6:2001:db8::10]":        {deliver.Delivered, "2.0.0"},
		"you@[ipv6:2001:DB8:0::10]":      {deliver.Delivered, "2.0.0"},
		"you@[2001:db8::10]":             {deliver.PermFail, "5.1.3"},
		"you@[IPv6:192.0.2.10]":          {deliver.PermFail, "5.1.3"},
		"you@[192.0.2]":                  {deliver.PermFail, "5.1.3"},
		"you@[]":                         {deliver.PermFail, "5.1.3"},
		"you@[192.0.2.10":                {deliver.PermFail, "5.1.3"},
		"you@[127.0.0.1]":                {deliver.PermFail, "5.4.4"},
		"you@[IPv6:::1]":                 {deliver.PermFail, "5.4.4"},
		"you@[IPv6:::ffff:127.0.0.1]":    {deliver.PermFail, "5.4.4"},
		"you@[IPv6:64:ff9b::10.0.0.1]":   {deliver.PermFail, "5.4.4"},
		"you@[IPv6:2002:0a00:0001::1]":   {deliver.PermFail, "5.4.4"},
		"you@[IPv6:fe80::1]":             {deliver.PermFail, "5.4.4"},
		"you@[IPv6:fd00::1]":             {deliver.PermFail, "5.4.4"},
		"you@[100.64.0.1]":               {deliver.PermFail, "5.4.4"},
		"you@[0.1.2.3]":                  {deliver.PermFail, "5.4.4"},
		"you@[255.255.255.255]":          {deliver.PermFail, "5.4.4"},
		"you@[224.0.0.1]":                {deliver.PermFail, "5.4.4"},
		"you@[IPv6:64:ff9b::192.0.2.99]": {deliver.TempFail, "4.4.1"}, // a public one behind NAT64, where nobody listens
	} {
		t.Run(recipient, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				require.NoError(t, w.Zone("aol.test", "@ MX 10 mx\nmx A 192.0.2.10\nmx AAAA 2001:db8::10"))
				w.Server("mx.aol.test")
				o := w.all(t, direct, letter(recipient))[0]
				require.Equal(t, tt.result, o.Result, "%v", o)
				require.Equal(t, tt.status, o.Status.String(), "%v", o)
			})
		})
	}
}

// std: R10
func TestDomainsInAnySpelling(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("xn--bcher-kva.test", "@ MX 10 mx.aol.test."))
		mx := w.Server("mx.aol.test", lab.Offer{Capabilities: []string{"PIPELINING"}})
		m := letter("you@AOL.Test.", "you@bücher.test", "two@BÜCHER.test", "three@xn--bcher-kva.test", "four@aol.test")
		for _, o := range w.all(t, direct, m) {
			require.Equal(t, deliver.Delivered, o.Result, "%v", o)
		}
		var to [][]string
		for _, m := range mx.Mailbox() {
			to = append(to, m.Addresses())
		}
		require.Equal(t, [][]string{
			{"you@AOL.Test", "four@aol.test"},
			{"you@xn--bcher-kva.test", "two@xn--bcher-kva.test", "three@xn--bcher-kva.test"},
		}, to)
	})
}

// std: R11
func TestPrivateAddressesWhereTheyAreAllowed(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		w.d.AllowPrivate = true
		require.NoError(t, w.Zone("aol.test", "@ MX 10 mx\nmx A 127.0.0.1"))
		w.Server("mx.aol.test")
		require.Equal(t, deliver.Delivered, w.one(t, direct).Result)
	})
}

// std: R12
func TestPort25AndNothingElse(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		seen := w.watch()
		require.NoError(t, w.Zone("aol.test", aol+"_smtp._tcp SRV 0 0 2525 mx\n_submission._tcp SRV 0 0 587 mx"))
		w.Server("mx.aol.test")
		require.Equal(t, deliver.Delivered, w.one(t, direct).Result)
		require.Equal(t, []string{"mx.aol.test 192.0.2.10:25"}, seen.connects)
		for _, q := range w.Queries() {
			require.NotContains(t, q, dns.TypeToString[dns.TypeSRV])
		}
	})
}

func TestAnotherPortForLabs(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		w.d.Port = 2526
		w.Server("mx.aol.test:2526")
		require.Equal(t, deliver.Delivered, w.one(t, direct).Result)
	})
}

// std: R13
func TestLocalPartsAreKept(t *testing.T) {
	for recipient, good := range map[string]bool{
		"MiXeD.CaSe+tag@aol.test": true, `"quoted local"@aol.test`: true, `"a@b"@aol.test`: true, `"a\"b<>"@aol.test`: true,
		`"back\\slash"@aol.test`: true, "o'neil!#$%&*/=?^_`{|}~-@aol.test": true, "a..b.@aol.test": true,
		"postmaster": false, "": false, "@aol.test": false, "you@": false, "you@aol test": false, "a b@aol.test": false,
		"a>b@aol.test": false, `"open@aol.test`: false, `"a"b"@aol.test`: false, `"a\"@aol.test`: false, "a@b@aol.test": false,
		"you@aol.test\r\nRCPT TO:<evil@aol.test": false, "you\x00@aol.test": false, "\xff@aol.test": false,
		"you@aol.test> NOTIFY=NEVER": false,
	} {
		t.Run(recipient, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				mx := w.Server("mx.aol.test")
				for _, r := range []route.Route{direct, by(t, "smtp://mx.aol.test")} {
					mx.Forget()
					o := w.all(t, r, letter(recipient))[0]
					if !good {
						require.Equal(t, deliver.PermFail, o.Result, "%v", o)
						require.Equal(t, "5.1.3", o.Status.String())
						require.Empty(t, mx.Mailbox())
						continue
					}
					require.Equal(t, deliver.Delivered, o.Result, "%v", o)
					require.Equal(t, []string{recipient}, mx.Mailbox()[0].Addresses())
				}
			})
		})
	}
}

func TestAReversePathThatIsNoAddress(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		mx := w.Server("mx.aol.test")
		m := letter("you@aol.test")
		m.From = "me@example.org>\r\nRSET"
		o := w.all(t, direct, m)[0]
		require.Equal(t, deliver.PermFail, o.Result)
		require.Equal(t, "5.1.7", o.Status.String())
		require.NotContains(t, mx.Transcript(), "C: RSET")
	})
}

// std: R14
func TestASmarthostChangesTheHostOnly(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("isp.test", "mail A 192.0.2.50"))
		mx, isp := w.Server("mx.aol.test"), w.Server("mail.isp.test")
		m := letter("you@aol.test", `"odd one"@elsewhere.test`, "x@[192.0.2.10]")
		for _, o := range w.all(t, by(t, "smtp://mail.isp.test"), m) {
			require.Equal(t, deliver.Delivered, o.Result, "%v", o)
			require.Equal(t, "mail.isp.test", o.Host)
		}
		mail := isp.Mailbox()
		require.Len(t, mail, 1, "recipients of all domains go in one transaction")
		require.Equal(t, "me@example.org", mail[0].From)
		require.Equal(t, []string{"you@aol.test", `"odd one"@elsewhere.test`, "x@[192.0.2.10]"}, mail[0].Addresses())
		require.Equal(t, hello, string(mail[0].Body))
		require.Empty(t, mx.Transcript())
		require.NotContains(t, w.Queries(), "aol.test. MX")
	})
}

func TestASmarthostByMX(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("isp.test", "@ MX 10 down\n@ MX 20 up\n@ A 192.0.2.51\ndown A 192.0.2.50\nup A 10.0.0.1"))
		up := w.Server("up.isp.test:587")
		o := w.one(t, by(t, "smtp://isp.test:587 mx=yes"))
		require.Equal(t, deliver.Delivered, o.Result, "%v", o)
		require.Len(t, up.Mailbox(), 1, "a smarthost may have a private address")
		require.Len(t, o.Tried, 1)
	})
}

// A smarthost that DNS does not know is the route's trouble, and no recipient's failure.
func TestASmarthostThatDoesNotResolve(t *testing.T) {
	for name, tt := range map[string]struct {
		hops string
		fail lab.DNSFailure
	}{
		"no such name":    {hops: "smtp://gone.isp.test"},
		"no such zone":    {hops: "smtp://gone.nowhere.test"},
		"no address":      {hops: "smtp://txt.isp.test"},
		"SERVFAIL":        {hops: "smtp://mail.isp.test", fail: lab.DNSServFail},
		"silence":         {hops: "smtp://mail.isp.test", fail: lab.DNSTimeout},
		"no such MX name": {hops: "smtp://gone.isp.test mx=yes"},
		"null MX":         {hops: "smtp://null.isp.test mx=yes"},
		"MX to nowhere":   {hops: "smtp://lost.isp.test mx=yes"},
		"MX SERVFAIL":     {hops: "smtp://mail.isp.test mx=yes", fail: lab.DNSServFail},
		"MX is us":        {hops: "smtp://us.isp.test mx=yes"},
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				require.NoError(t, w.Zone("isp.test", "mail A 192.0.2.50\ntxt TXT x\nnull MX 0 .\nlost MX 10 gone\nus MX 10 mail.example.org."))
				w.FailDNS("mail.isp.test", "", tt.fail)
				o := w.one(t, by(t, tt.hops))
				require.Equal(t, deliver.TempFail, o.Result, "%v", o)
				require.True(t, o.RouteTrouble, "%v", o)
				require.Contains(t, w.log.String(), `"level":"ERROR"`)
				require.Contains(t, w.log.String(), `"route_trouble":true`)
			})
		})
	}
}

// std: R3
func TestSendersThatNobodyCanAnswer(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("aol.test", "@ MX 10 mx\nplain A 192.0.2.1\nnull MX 0 .\nhalf MX 0 .\nhalf MX 10 mx"))
		require.NoError(t, w.Zone("xn--bcher-kva.test", "@ MX 0 ."))
		w.FailDNS("broken.test", "", lab.DNSServFail)
		for from, want := range map[string]string{
			"": "", "me@aol.test": "", "me@plain.aol.test": "", "me@half.aol.test": "", "me@[192.0.2.1]": "",
			"me@null.aol.test": "5.7.27", "me@NULL.aol.test.": "5.7.27", "me@bücher.test": "5.7.27", "me@nowhere.aol.test": "5.1.8",
			"me@a..b": "5.1.8", "me@broken.test": "4.4.3",
		} {
			err := w.d.CheckSender(t.Context(), from)
			var e *deliver.Error
			if want == "" {
				require.NoError(t, err, from)
				continue
			}
			require.ErrorAs(t, err, &e, from)
			require.Equal(t, want, e.Status.String(), from)
			require.Equal(t, e.Status.Class() == 4, e.Temporary)
		}
	})
}

func TestMXHosts(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("aol.test", "@ MX 20 b\n@ MX 10 a\n@ MX 30 mail.example.org.\nplain A 192.0.2.1\nnull MX 0 ."))
		require.NoError(t, w.Zone("xn--bcher-kva.test", "@ MX 10 mx.aol.test."))
		w.FailDNS("broken.test", "", lab.DNSServFail)
		for domain, want := range map[string][]string{
			"aol.test": {"a.aol.test", "b.aol.test", "mail.example.org"}, "AOL.test.": {"a.aol.test", "b.aol.test", "mail.example.org"},
			"plain.aol.test": nil, "null.aol.test": nil, "nowhere.test": nil, "[192.0.2.1]": nil, "no domain": nil,
			"bücher.test": {"mx.aol.test"},
		} {
			hosts, err := w.d.MXHosts(t.Context(), domain)
			require.NoError(t, err, domain)
			require.Equal(t, want, hosts, domain)
		}
		_, err := w.d.MXHosts(t.Context(), "broken.test")
		var failure *deliver.Error
		require.ErrorAs(t, err, &failure)
		require.True(t, failure.Temporary)
	})
}

// A Deliverer is what a routing table asks for patterns of MX hosts.
func TestARoutingTableAsksADeliverer(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("yahoo.test", "@ MX 1 mta5.am0.yahoodns.test."))
		table, err := route.Parse("routes", strings.NewReader("mx:*.yahoodns.test smtp://mail.isp.test\n"))
		require.NoError(t, err)
		table.MX = w.d
		r, err := table.Route(t.Context(), route.Query{Recipient: "you@yahoo.test"})
		require.NoError(t, err)
		require.Equal(t, "mail.isp.test", r.Hops[0].Host)
		w.FailDNS("yahoo.test", "", lab.DNSServFail)
		_, err = table.Route(t.Context(), route.Query{Recipient: "you@yahoo.test"})
		require.Error(t, err)
	})
}

// A hop's source address decides which of a host's addresses can be connected to.
func TestSourceAddresses(t *testing.T) {
	w := sockets(t)
	mx, err := w.Listen("mx.aol.test", "127.0.0.1:0")
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(mx.Addr())
	require.NoError(t, err)
	require.NoError(t, w.Zone("isp.test", "mail A 127.0.0.1\nmail AAAA ::1\nsix AAAA ::1"))

	o := w.one(t, by(t, "smtp://mail.isp.test:"+port+" source=127.0.0.7"))
	require.Equal(t, deliver.Delivered, o.Result, "%v", o)
	require.Equal(t, "127.0.0.7", mx.Mailbox()[0].Client.Addr().String())
	require.Empty(t, o.Tried, "the other family is left out")

	o = w.one(t, by(t, "smtp://six.isp.test:"+port+" source=127.0.0.7"))
	require.Equal(t, deliver.TempFail, o.Result, "%v", o)
	require.True(t, o.RouteTrouble)
	require.Contains(t, o.Detail, "source=127.0.0.7")
}

// std: R6
func TestOurOwnAddresses(t *testing.T) {
	var nets []net.Addr
	for _, s := range []string{"127.0.0.1/8", "198.18.0.7/24", "10.0.0.5/8", "2001:67c::5/64", "::1/128", "192.0.2.2/24"} {
		ip, n, err := net.ParseCIDR(s)
		require.NoError(t, err)
		n.IP = ip
		nets = append(nets, n)
	}
	own := deliver.OwnAddresses(nets, []netip.Addr{netip.MustParseAddr("203.0.113.25"), netip.MustParseAddr("::ffff:203.0.113.26")})
	for addr, want := range map[string]bool{
		"198.18.0.7": true, "10.0.0.5": true, "2001:67c::5": true, "203.0.113.25": true, "203.0.113.26": true,
		"127.0.0.1": false, "::1": false, "192.0.2.2": false, "198.18.0.8": false,
	} {
		require.Equal(t, want, own[netip.MustParseAddr(addr)], addr)
	}
}
