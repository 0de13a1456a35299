package lab_test

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/lab"
)

const zoo = `
@        MX   10 mx
         MX   20 backup.other.test.
         TXT  "v=spf1 -all"
mx       A    192.0.2.10
www      CNAME mx
loop     CNAME loop2
loop2    CNAME loop
away     CNAME mx.other.test.
gone     CNAME nothing.other.test.
*.wild   A    192.0.2.20
exact.wild A  192.0.2.21
a.b      A    192.0.2.30
big      TXT  "` + bigText + `" "` + bigText + `" "` + bigText + `"
`

const bigText = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

// ask sends a query as a resolver would, with a deadline of wait.
func ask(ctx context.Context, n *lab.Internet, network, name, qtype string, wait time.Duration) (*dns.Msg, error) {
	conn, err := n.Dial(ctx, network, n.DNS())
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.StringToType[qtype])
	q.AuthenticatedData = true
	if err := conn.SetDeadline(time.Now().Add(wait)); err != nil {
		return nil, err
	}
	c := &dns.Conn{Conn: conn}
	if err := c.WriteMsg(q); err != nil {
		return nil, err
	}
	m, err := c.ReadMsg()
	if err == nil && m.Id != q.Id {
		return m, dns.ErrId
	}
	return m, err
}

func TestZonesAnswer(t *testing.T) {
	bothModes(t, func(t *testing.T, n *lab.Internet) {
		require.NoError(t, n.Zone("zoo.test", zoo))
		require.NoError(t, n.Zone("other.test", "mx A 192.0.2.40\nmx AAAA 2001:db8::40"))
		for _, tt := range []struct {
			name, qtype string
			rcode       int
			answers     []string
		}{
			{"zoo.test", "MX", dns.RcodeSuccess, []string{"10 mx.zoo.test.", "20 backup.other.test."}},
			{"ZOO.test", "TXT", dns.RcodeSuccess, []string{`"v=spf1 -all"`}},
			{"zoo.test", "A", dns.RcodeSuccess, nil},
			{"www.zoo.test", "A", dns.RcodeSuccess, []string{"mx.zoo.test.", "192.0.2.10"}},
			{"www.zoo.test", "CNAME", dns.RcodeSuccess, []string{"mx.zoo.test."}},
			{"away.zoo.test", "AAAA", dns.RcodeSuccess, []string{"mx.other.test.", "2001:db8::40"}},
			{"gone.zoo.test", "A", dns.RcodeNameError, []string{"nothing.other.test."}},
			{"loop.zoo.test", "A", dns.RcodeServerFailure, nil},
			{"x.y.wild.zoo.test", "A", dns.RcodeSuccess, []string{"192.0.2.20"}},
			{"x.exact.wild.zoo.test", "A", dns.RcodeNameError, nil},
			{"x.wild.zoo.test", "MX", dns.RcodeSuccess, nil},
			{"b.zoo.test", "A", dns.RcodeSuccess, nil},
			{"nothing.zoo.test", "A", dns.RcodeNameError, nil},
			{"no-zone.test", "A", dns.RcodeNameError, nil},
		} {
			for _, network := range []string{"udp", "tcp"} {
				m, err := ask(t.Context(), n, network, tt.name, tt.qtype, time.Minute)
				require.NoError(t, err, tt.name)
				require.Equal(t, dns.RcodeToString[tt.rcode], dns.RcodeToString[m.Rcode], tt.name)
				var got []string
				for _, rr := range m.Answer {
					got = append(got, strings.TrimPrefix(rr.String(), rr.Header().String()))
				}
				require.Equal(t, tt.answers, got, tt.name+" "+tt.qtype)
				require.False(t, m.AuthenticatedData)
			}
		}
		require.Contains(t, n.Queries(), "www.zoo.test. CNAME")
	})
}

func TestTheDNSFailsAsAsked(t *testing.T) {
	bothModes(t, func(t *testing.T, n *lab.Internet) {
		require.NoError(t, n.Zone("zoo.test", zoo))
		for how, want := range map[lab.DNSFailure]func(*dns.Msg, error) bool{
			lab.DNSWorks:     func(m *dns.Msg, err error) bool { return err == nil && len(m.Answer) == 2 },
			lab.DNSServFail:  func(m *dns.Msg, err error) bool { return err == nil && m.Rcode == dns.RcodeServerFailure },
			lab.DNSRefused:   func(m *dns.Msg, err error) bool { return err == nil && m.Rcode == dns.RcodeRefused },
			lab.DNSNXDomain:  func(m *dns.Msg, err error) bool { return err == nil && m.Rcode == dns.RcodeNameError },
			lab.DNSTruncated: func(m *dns.Msg, err error) bool { return err == nil && m.Truncated && len(m.Answer) == 0 },
			lab.DNSGarbage:   func(_ *dns.Msg, err error) bool { return err != nil },
			lab.DNSCut:       func(_ *dns.Msg, err error) bool { return err != nil },
			lab.DNSWrongID:   func(_ *dns.Msg, err error) bool { return errors.Is(err, dns.ErrId) },
		} {
			n.FailDNS("zoo.test", "mx", how)
			m, err := ask(t.Context(), n, "udp", "zoo.test", "MX", time.Minute)
			require.True(t, want(m, err), "failure %d: %v, %v", how, m, err)
			m, err = ask(t.Context(), n, "tcp", "zoo.test", "TXT", time.Minute)
			require.NoError(t, err, "another type works")
			require.Len(t, m.Answer, 1)
		}
		n.FailDNS("zoo.test", "MX", lab.DNSTruncated)
		m, err := ask(t.Context(), n, "tcp", "zoo.test", "MX", time.Minute)
		require.NoError(t, err)
		require.Len(t, m.Answer, 2, "whole over TCP")

		n.FailDNS(lab.AnyName, "", lab.DNSRefused)
		m, err = ask(t.Context(), n, "udp", "elsewhere.test", "A", time.Minute)
		require.NoError(t, err)
		require.Equal(t, dns.RcodeRefused, m.Rcode)
		n.FailDNS("", "", lab.DNSWorks)
	})
}

func TestADeadDNSServerEndsByTheClientsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := lab.TestInMemory(t)
		n.FailDNS(lab.AnyName, "", lab.DNSTimeout)
		begin := time.Now()
		_, err := ask(t.Context(), n, "udp", "zoo.test", "MX", 5*time.Second)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, 5*time.Second, time.Since(begin))
	})
}

func TestALargeAnswerIsTruncatedOverUDP(t *testing.T) {
	n := lab.Test(t)
	require.NoError(t, n.Zone("zoo.test", zoo))
	m, err := ask(t.Context(), n, "udp", "big.zoo.test", "TXT", time.Minute)
	require.NoError(t, err)
	require.True(t, m.Truncated)
	m, err = ask(t.Context(), n, "tcp", "big.zoo.test", "TXT", time.Minute)
	require.NoError(t, err)
	require.False(t, m.Truncated)
	require.Len(t, m.Answer, 1)
}

func TestSecureZonesCarryTheADBit(t *testing.T) {
	bothModes(t, func(t *testing.T, n *lab.Internet) {
		require.Error(t, n.Secure("zoo.test", true))
		require.NoError(t, n.Zone("zoo.test", zoo))
		require.NoError(t, n.Zone("other.test", "mx A 192.0.2.40\nback CNAME mx.zoo.test."))
		require.NoError(t, n.Secure("zoo.test", true))
		require.NoError(t, n.Zone("zoo.test", zoo), "a new version stays secure")
		for name, want := range map[string]bool{"mx.zoo.test": true, "mx.other.test": false, "away.zoo.test": false, "back.other.test": false, "nothing.zoo.test": true} {
			m, err := ask(t.Context(), n, "udp", name, "A", time.Minute)
			require.NoError(t, err)
			require.Equal(t, want, m.AuthenticatedData, name)
		}
	})
}

func TestZonesChangeWhileTheyAnswer(t *testing.T) {
	bothModes(t, func(t *testing.T, n *lab.Internet) {
		for _, ip := range []string{"192.0.2.1", "192.0.2.2"} {
			require.NoError(t, n.Zone("zoo.test", "@ A "+ip))
			m, err := ask(t.Context(), n, "udp", "zoo.test", "A", time.Minute)
			require.NoError(t, err)
			require.Equal(t, ip, m.Answer[0].(*dns.A).A.String())
		}
		n.RemoveZone("zoo.test")
		m, err := ask(t.Context(), n, "udp", "zoo.test", "A", time.Minute)
		require.NoError(t, err)
		require.Equal(t, dns.RcodeNameError, m.Rcode)
	})
}

// The standard library's resolver, as any program of the machine would use it.
func TestRealResolversCanAsk(t *testing.T) {
	n := lab.Test(t)
	require.NoError(t, n.Zone("zoo.test", zoo))
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return n.Dial(ctx, network, n.DNS())
	}}
	mxs, err := r.LookupMX(t.Context(), "zoo.test")
	require.NoError(t, err)
	require.Equal(t, "mx.zoo.test.", mxs[0].Host)
}
