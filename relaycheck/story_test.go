package relaycheck_test

import (
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/deliver/resolve"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/dsn/reason"
	"github.com/sortie-mail/sortie/relaycheck"
	"github.com/sortie-mail/sortie/route"
)

// A story is a Deliverer in a small internet, and what Refusals make of it.
type story struct {
	*testing.T
	net      *lab.Internet
	d        *deliver.Deliverer
	refusals relaycheck.Refusals
}

func inStory(t *testing.T, f func(s *story)) {
	synctest.Test(t, func(t *testing.T) {
		n := lab.TestInMemory(t)
		require.NoError(t, n.Zone("aol.test", "@ MX 10 mx\nmx A 192.0.2.10"))
		require.NoError(t, n.Zone("isp.test", "mail A 192.0.2.20"))
		s := &story{T: t, net: n}
		s.d = &deliver.Deliverer{
			Hostname: "mail.example.org", Resolver: &resolve.Resolver{Servers: []string{n.DNS()}, Dial: n.Dial, CacheSize: -1}, Dial: n.Dial,
			TLS: n.CA().ClientConfig(), Trace: &deliver.Trace{Outcome: s.refusals.Observe},
		}
		defer s.d.Close()
		f(s)
	})
}

// send sends a message to you@aol.test by an entry of a routing file, and returns what is known then.
func (s *story) send(hops string) []relaycheck.Finding {
	s.Helper()
	return s.sendTo("you@aol.test", hops)
}

func (s *story) sendTo(to, hops string) []relaycheck.Finding {
	s.Helper()
	table, err := route.Parse("routes", strings.NewReader("* "+hops+"\n"))
	require.NoError(s, err)
	r, err := table.Route(s.Context(), route.Query{Recipient: to})
	require.NoError(s, err)
	s.d.Deliver(s.Context(), r, &deliver.Message{
		ID: "m1", From: "me@example.org", To: []deliver.Recipient{{Address: to}},
		Open: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader("Subject: Hello\r\n\r\nHello.\r\n")), nil
		},
	})
	time.Sleep(time.Minute)
	findings := told(&s.refusals)
	wellFormed(s, findings)
	return findings
}

// The classic: refused as an open relay, an open proxy or a dynamic address, a detour through the ISP, and accepted again.
func TestStoryRefusedAndBack(t *testing.T) {
	inStory(t, func(s *story) {
		mx := s.net.Server("mx.aol.test", lab.Refuse(lab.AtGreeting, "554 "+aolText))
		isp := s.net.Server("mail.isp.test")
		f := find(s, s.send("direct"), "refusal/aol.test/open-relay")
		assert.Equal(s, relaycheck.Serious, f.Severity)
		assert.Equal(s, &relaycheck.Quote{By: "mx.aol.test [192.0.2.10]", Words: "554 " + aolText}, f.Quote)
		assert.Len(s, f.Possibilities, 3)
		assert.Equal(s, []string{"*@aol.test smtp://mail.isp.example"}, f.Remedy[0].Lines)
		assert.NotEmpty(s, f.Links)
		verdict := reason.Classify(reason.Input{Reply: dsn.Reply{Code: 554, Lines: []string{aolText}}})
		assert.NotEmpty(s, verdict.Admin)
		assert.Contains(s, f.Text, verdict.Admin)

		f = find(s, s.send("direct, on blocked smtp://mail.isp.test"), "refusal/aol.test/open-relay")
		assert.Len(s, isp.Mailbox(), 1)
		assert.Equal(s, 2, f.Count)
		assert.Contains(s, f.Text, "Its mail goes through mail.isp.test meanwhile.")

		mx.Behave(lab.AcceptAll)
		f = find(s, s.send("direct"), "refusal/aol.test/open-relay")
		assert.Len(s, mx.Mailbox(), 1)
		assert.Equal(s, relaycheck.Info, f.Severity)
		assert.True(s, strings.HasPrefix(f.Title, "aol.test refused our mail until 1 Jan 2000"), f.Title)
	})
}

// The ISP refuses as well, and is named. A login that is refused is an alarm.
//
// std: C16
func TestStorySmarthostRefuses(t *testing.T) {
	t.Setenv("RELAY_PASSWORD", "correct-horse")
	inStory(t, func(s *story) {
		s.net.Server("mx.aol.test", lab.Refuse(lab.AtMail, "554 "+aolText))
		isp := s.net.Server("mail.isp.test", lab.Offer{TLS: lab.TLSOffered, Users: map[string]string{"sortie": "changed"}})
		const hops = "direct, on blocked submission://sortie@mail.isp.test:25 secret=env:RELAY_PASSWORD"
		findings := s.send(hops)
		find(s, findings, "refusal/aol.test/open-relay")
		f := find(s, findings, "smarthost/mail.isp.test:25/login")
		assert.Equal(s, relaycheck.Serious, f.Severity)
		assert.Equal(s, "The smarthost mail.isp.test:25 refuses our login", f.Title)
		assert.True(s, strings.HasPrefix(f.Quote.Words, "535 "), f.Quote.Words)
		text := relaycheck.Summarize("mail.example.org", time.Now(), findings...).String()
		assert.NotContains(s, text, "correct-horse")
		assert.NotContains(s, text, "sortie")

		isp.Behave(lab.Offer{TLS: lab.TLSOffered, Users: map[string]string{"sortie": "correct-horse"}}, lab.Refuse(lab.AtRcpt, "550 5.7.1 Relaying denied"))
		findings = s.send(hops)
		f = find(s, findings, "smarthost/mail.isp.test:25/refusal/relaying-denied")
		assert.Contains(s, f.Title, "mail.isp.test")
		assert.Equal(s, "550 5.7.1 Relaying denied", f.Quote.Words)

		find(s, s.send("smtp://gone.isp.test"), "smarthost/gone.isp.test/name")
	})
}

// A DNS server that is dead, sick or refuses is told of within two messages, until it leads to mail servers again. Names that do not
// exist are their own matter.
func TestStoryDNS(t *testing.T) {
	for name, how := range map[string]lab.DNSFailure{
		"silent": lab.DNSTimeout, "refuses": lab.DNSRefused, "SERVFAIL": lab.DNSServFail, "garbage": lab.DNSGarbage,
	} {
		t.Run(name, func(t *testing.T) {
			inStory(t, func(s *story) {
				require.NoError(s, s.net.Zone("other.test", "@ MX 10 mx\nmx A 192.0.2.11"))
				s.net.Server("mx.aol.test")
				s.net.Server("mx.other.test")
				assert.Empty(s, s.sendTo("a@nowhere.test", "direct"))
				assert.Empty(s, s.sendTo("a@nothing.test", "direct"))
				s.net.FailDNS(lab.AnyName, "", how)
				first := s.send("direct")
				certain := how != lab.DNSServFail // which may be the trouble of the name's own servers
				require.Equal(s, certain, len(first) > 0, "%v", ids(first))
				if certain {
					f := find(s, first, "dns/no-answer")
					assert.Equal(s, relaycheck.Warning, f.Severity)
					assert.Equal(s, "DNS does not answer when asked for aol.test", f.Title)
				}
				f := find(s, s.sendTo("a@other.test", "direct"), "dns/no-answer")
				assert.Equal(s, relaycheck.Critical, f.Severity)
				assert.Equal(s, "DNS does not answer", f.Title)
				assert.Contains(s, f.Text, "None did for aol.test, other.test")
				assert.Contains(s, f.Text, "until its lifetime ends")
				assert.Equal(s, 2, f.Count)
				assert.Contains(s, f.Evidence[0].Text, "could not be looked up")
				assert.Contains(s, f.Remedy[0].Do, "/etc/resolv.conf")

				s.net.FailDNS(lab.AnyName, "", lab.DNSWorks)
				f = find(s, s.send("direct"), "dns/no-answer")
				assert.Equal(s, relaycheck.Info, f.Severity)
				assert.False(s, f.Ended.IsZero())
				assert.True(s, strings.HasPrefix(f.Title, "DNS did not answer until 1 Jan 2000"), f.Title)
			})
		})
	}
}

// While mail leaves by a smarthost that has no name, a dead DNS is serious; with one that has, it is told of both.
func TestStoryDNSWithSmarthosts(t *testing.T) {
	inStory(t, func(s *story) {
		s.net.Server("mail.isp.test")
		s.net.FailDNS(lab.AnyName, "", lab.DNSRefused)
		s.send("direct")
		assert.Equal(s, relaycheck.Critical, find(s, s.sendTo("a@other.test", "direct"), "dns/no-answer").Severity)
		f := find(s, s.send("direct, on tempfail smtp://192.0.2.20"), "dns/no-answer")
		assert.Equal(s, relaycheck.Serious, f.Severity)
		findings := s.sendTo("b@third.test", "smtp://mail.isp.test")
		f = find(s, findings, "smarthost/mail.isp.test/name")
		assert.Contains(s, f.Text, "DNS does not answer when asked for it.")
		assert.Contains(s, find(s, findings, "dns/no-answer").Text, "None did for aol.test, isp.test, other.test")
	})
}

// A smarthost that is away is told of at the first message, and a way out that is blocked at the second.
func TestStoryUnreachable(t *testing.T) {
	inStory(t, func(s *story) {
		isp := s.net.Server("mail.isp.test", lab.Drop(lab.AtConnect))
		f := find(s, s.send("smtp://mail.isp.test"), "smarthost/mail.isp.test/unreachable")
		assert.Equal(s, relaycheck.Warning, f.Severity)
		time.Sleep(10 * time.Minute)
		assert.Equal(s, relaycheck.Serious, told(&s.refusals)[0].Severity, "though nothing more was tried")
		isp.Behave(lab.AcceptAll)
		f = find(s, s.send("smtp://mail.isp.test"), "smarthost/mail.isp.test/unreachable")
		assert.Equal(s, relaycheck.Info, f.Severity)
	})
	inStory(t, func(s *story) {
		require.NoError(s, s.net.Zone("other.test", "@ MX 10 mx\nmx A 192.0.2.11"))
		require.NoError(s, s.net.Zone("third.test", "@ MX 10 mx\nmx A 192.0.2.12"))
		mx := s.net.Server("mx.aol.test", lab.Hang(lab.AtConnect))
		s.net.Server("mx.other.test", lab.Drop(lab.AtConnect))
		s.net.Server("mx.third.test", lab.Refuse(lab.AtGreeting, "554 5.7.1 no"))
		assert.Empty(s, s.send("direct"))
		f := find(s, s.sendTo("a@other.test", "direct"), "unreachable/port-25")
		assert.Equal(s, relaycheck.Warning, f.Severity)
		assert.Len(s, f.Evidence, 2)
		assert.Contains(s, f.Remedy[2].Do, "replace line 1 of routes (*) by this line.")
		assert.Equal(s, []string{"* smtp://mail.isp.example"}, f.Remedy[2].Lines)
		time.Sleep(10 * time.Minute)
		assert.Equal(s, relaycheck.Serious, find(s, told(&s.refusals), "unreachable/port-25").Severity)
		assert.NotContains(s, ids(s.sendTo("a@third.test", "direct")), "unreachable/port-25", "who refuses is reached")
		mx.Behave(lab.AcceptAll)
		assert.NotContains(s, ids(s.send("direct")), "unreachable/port-25")
	})
}

// Who does what the summary says to do sees it gone: another smarthost, or a smarthost in the place of port 25.
func TestStoryAnotherWay(t *testing.T) {
	inStory(t, func(s *story) {
		require.NoError(s, s.net.Zone("other.test", "@ MX 10 mx\nmx A 192.0.2.11\nmail A 192.0.2.21"))
		s.net.Server("mx.aol.test", lab.Drop(lab.AtConnect))
		s.net.Server("mx.other.test", lab.Drop(lab.AtConnect))
		s.net.Server("mail.isp.test", lab.Drop(lab.AtConnect))
		s.net.Server("mail.other.test")
		find(s, s.send("smtp://mail.isp.test"), "smarthost/mail.isp.test/unreachable")
		s.send("direct, on unreachable smtp://mail.isp.test")
		findings := s.sendTo("a@other.test", "direct, on unreachable smtp://mail.isp.test")
		assert.Equal(s, []string{"smarthost/mail.isp.test/unreachable", "unreachable/port-25"}, ids(findings))
		f := find(s, s.send("smtp://mail.isp.test, on unreachable smtp://mail.other.test"), "smarthost/mail.isp.test/unreachable")
		assert.Zero(s, f.Ended, "it is there still, and away")

		findings = s.send("smtp://mail.other.test")
		f = find(s, findings, "smarthost/mail.isp.test/unreachable")
		assert.Equal(s, relaycheck.Info, f.Severity)
		assert.Contains(s, f.Title, "until it was left out on 1 Jan 2000")
		findings = s.sendTo("a@other.test", "smtp://mail.other.test")
		assert.NotContains(s, ids(findings), "unreachable/port-25")
		summary := relaycheck.Summarize("mail.example.org", time.Now(), findings...)
		assert.Equal(s, relaycheck.Info, summary.Severity)
		assert.Contains(s, summary.String(), "Nothing needs doing.")
	})
}

func TestStoryTLS(t *testing.T) {
	inStory(t, func(s *story) {
		s.net.Server("mx.aol.test", lab.Offer{TLS: lab.TLSOffered, Certificate: lab.CertExpired})
		f := find(s, s.send("direct tls=verified"), "tls/aol.test")
		assert.Equal(s, relaycheck.Warning, f.Severity)
		assert.Contains(s, f.Evidence[0].Text, "certificate")
	})
	inStory(t, func(s *story) {
		mx := s.net.Server("mx.aol.test", lab.Offer{TLS: lab.TLSBroken})
		f := find(s, s.send("direct"), "tls/aol.test")
		assert.Len(s, mx.Mailbox(), 1)
		assert.Equal(s, relaycheck.Info, f.Severity)
		assert.Contains(s, f.Title, "goes unencrypted")
		mx.Behave(lab.Offer{TLS: lab.TLSOffered})
		f = find(s, s.send("direct"), "tls/aol.test")
		assert.False(s, f.Ended.IsZero())
	})
}
