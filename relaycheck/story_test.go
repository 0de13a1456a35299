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
	table, err := route.Parse("routes", strings.NewReader("* "+hops+"\n"))
	require.NoError(s, err)
	r, err := table.Route(s.Context(), route.Query{Recipient: "you@aol.test"})
	require.NoError(s, err)
	s.d.Deliver(s.Context(), r, &deliver.Message{
		ID: "m1", From: "me@example.org", To: []deliver.Recipient{{Address: "you@aol.test"}},
		Open: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader("Subject: Hello\r\n\r\nHello.\r\n")), nil
		},
	})
	time.Sleep(time.Minute)
	findings := s.refusals.Findings()
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
