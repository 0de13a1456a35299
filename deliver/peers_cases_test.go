//go:build linux

package deliver_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/route"
)

// dated has all fields that a server might miss, and add.
const dated = "From: me@example.org\r\nSubject: Hello\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\n" +
	"Message-ID: <1@example.org>\r\n\r\nHello.\r\n"

// peerCases are what every server is asked that has the listener: one that
//
//	open        offers everything, STARTTLS with a valid certificate too
//	turns       offers neither PIPELINING nor CHUNKING
//	small       takes 10000 octets
//	few         takes two recipients at once
//	clear       offers no STARTTLS
//	must        demands it
//	other name  has a certificate for another name
//	broken TLS  offers STARTTLS, and fails it
//	smtps       has TLS from the start
//	login       demands a login, over TLS
//	away        takes no connections
var peerCases = []struct {
	name     string
	listener string
	hops     string
	to       []string // you, where it is empty
	text     string   // dated, where it is empty
	want     string   // result, stage and code of each
	tls      string   // how the session was protected: "", "any", "verified"
	never    string   // what the client does not say
}{
	{name: "by MX", listener: "open", hops: "direct", want: "delivered dot 250", tls: "verified"},
	{name: "smarthost", listener: "open", hops: "smtp://$HOST", want: "delivered dot 250", tls: "verified"},
	{name: "by MX, in the clear", listener: "clear", hops: "direct", want: "delivered dot 250", never: "STARTTLS"},
	{name: "smarthost, in the clear", listener: "clear", hops: "smtp://$HOST tls=none", want: "delivered dot 250"},
	{
		name: "without PIPELINING", listener: "turns", hops: "direct", to: []string{"you", "they"},
		want: "delivered dot 250,delivered dot 250", tls: "verified",
	},
	{
		name: "8-bit", listener: "open", hops: "direct", want: "delivered dot 250", tls: "verified",
		text: "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n" + dated + "Grüße\r\n",
	},
	// std: C7
	{
		name: "too large", listener: "small", hops: "direct", text: dated + strings.Repeat("0123456789\r\n", 1000),
		want: "permfail mail", tls: "verified", never: "MAIL",
	},
	{name: "small enough", listener: "small", hops: "direct", want: "delivered dot 250", tls: "verified"},
	// std: C6
	{
		name: "mixed recipients", listener: "open", hops: "direct", tls: "verified",
		to:   []string{"you", "nobody", "later", "never", "they"},
		want: "delivered dot 250,permfail rcpt 550,tempfail rcpt 450,permfail rcpt 550,delivered dot 250",
	},
	{
		name: "mixed recipients, in the clear", listener: "clear", hops: "direct",
		to:   []string{"you", "nobody", "later", "never", "they"},
		want: "delivered dot 250,permfail rcpt 550,tempfail rcpt 450,permfail rcpt 550,delivered dot 250",
	},
	{
		name: "nobody", listener: "open", hops: "direct", to: []string{"nobody", "never"},
		want: "permfail rcpt 550,permfail rcpt 550", tls: "verified",
	},
	{
		name: "more recipients than it takes", listener: "few", hops: "direct", to: []string{"you", "they", "grey"},
		tls:  "verified",
		want: "delivered dot 250,delivered dot 250,delivered dot 250",
	},
	// std: T1
	{name: "broken TLS, opportunistic", listener: "broken TLS", hops: "direct", want: "delivered dot 250"},
	{
		name: "broken TLS, required", listener: "broken TLS", hops: "direct tls=required",
		want: "tempfail starttls", never: "MAIL",
	},
	// std: T8
	{
		name: "TLS required and not offered", listener: "clear", hops: "direct tls=required",
		want: "tempfail starttls", never: "MAIL",
	},
	{name: "TLS demanded and not allowed", listener: "must", hops: "smtp://$HOST tls=none", want: "tempfail mail 530"},
	{name: "TLS demanded", listener: "must", hops: "direct", want: "delivered dot 250", tls: "verified"},
	{name: "another name, opportunistic", listener: "other name", hops: "direct", want: "delivered dot 250", tls: "any"},
	{
		name: "another name, required", listener: "other name", hops: "direct tls=required",
		want: "delivered dot 250", tls: "any",
	},
	{
		name: "another name, verified", listener: "other name", hops: "direct tls=verified",
		want: "tempfail starttls", tls: "any", never: "MAIL",
	},
	{
		name: "another name, smarthost, verified", listener: "other name", hops: "submission://$HOST tls=verified",
		want: "tempfail starttls", tls: "any",
	},
	{
		name: "TLS from the start", listener: "smtps", hops: "smtps://$HOST tls=verified",
		want: "delivered dot 250", tls: "verified", never: "STARTTLS",
	},
	// std: C3
	{name: "away", listener: "away", hops: "direct", want: "tempfail greeting 421", never: "EHLO"},
}

// cases plays those of peerCases for which the peer has a listener, once more over the same connection.
func (p *peer) cases(t *testing.T) {
	t.Helper()
	for _, tt := range peerCases {
		if !p.has(tt.listener) {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			d, transcript := p.deliverer(t, tt.listener)
			if tt.to == nil {
				tt.to = []string{"you"}
			}
			if tt.text == "" {
				tt.text = dated
			}
			r := p.by(t, tt.listener, tt.hops)
			for range 2 {
				outcomes := d.Deliver(t.Context(), r, letterOf(tt.text, at(tt.to)...))
				assert.Equal(t, tt.want, brief(outcomes), "%v", outcomes)
				for i, o := range outcomes {
					checkOutcome(t, &o, tt.to[i]+"@store.test")
					assert.Equal(t, tt.tls != "", o.TLS.Version != "", "%v", o)
					assert.Equal(t, tt.tls == "verified", o.TLS.Verified, "%v", o)
					if o.Result == deliver.Delivered {
						assert.Equal(t, []string{stored(tt.text)}, p.arrived(t, tt.to[i], 1))
					}
				}
			}
			if tt.never != "" {
				assert.NotContains(t, transcript.String(), "C: "+tt.never)
			}
		})
	}
}

func at(locals []string) []string {
	list := slices.Clone(locals)
	for i := range list {
		list[i] += "@store.test"
	}
	return list
}

// brief is what became of each recipient: result, stage, and the code of a reply.
func brief(outcomes []deliver.Outcome) string {
	list := make([]string, len(outcomes))
	for i, o := range outcomes {
		list[i] = o.Result.String() + " " + string(o.Stage)
		if !o.Reply.IsZero() {
			list[i] += fmt.Sprint(" ", o.Reply.Code)
		}
	}
	return strings.Join(list, ",")
}

// order checks that the client says things one after the other, before the host answers any of them or after each.
func (s *said) order(t *testing.T, pipelined bool, lines ...string) {
	t.Helper()
	text := s.String()
	for i, line := range lines[1:] {
		first, second := strings.Index(text, "C: "+lines[i]), strings.Index(text, "C: "+line)
		require.True(t, first >= 0 && first < second, "%s, then %s: %s", lines[i], line, text)
		assert.Equal(t, !pipelined, strings.Contains(text[first:second], "S: "), "%s, then %s", lines[i], line)
	}
}

// std: C5
func (p *peer) pipelining(t *testing.T) {
	t.Helper()
	for listener, pipelined := range map[string]bool{"open": true, "turns": false} {
		t.Run("pipelined at "+listener, func(t *testing.T) {
			d, transcript := p.deliverer(t, listener)
			outcomes := d.Deliver(t.Context(), direct, letterOf(dated, "you@store.test", "nobody@store.test", "they@store.test"))
			require.Equal(t, "delivered dot 250,permfail rcpt 550,delivered dot 250", brief(outcomes), "%v", outcomes)
			transcript.order(t, pipelined, "MAIL FROM", "RCPT TO:<you", "RCPT TO:<nobody", "RCPT TO:<they")
			p.arrived(t, "you", 1)
			p.arrived(t, "they", 1)
		})
	}
}

// std: C9
func (p *peer) chunking(t *testing.T) {
	t.Helper()
	text := dated + strings.Repeat(".0123456789\r\n", 100_000)
	for name, tt := range map[string]struct{ listener, hops, says, never string }{
		"in chunks":          {"open", "direct", "C: BDAT", "C: DATA"},
		"offers no chunks":   {"data", "direct", "C: DATA", "C: BDAT"},
		"no chunks, we said": {"open", "direct chunking=no", "C: DATA", "C: BDAT"},
	} {
		t.Run(name, func(t *testing.T) {
			d, transcript := p.deliverer(t, tt.listener)
			for range 2 {
				o := d.Deliver(t.Context(), p.by(t, tt.listener, tt.hops), letterOf(text, "you@store.test"))[0]
				require.Equal(t, deliver.Delivered, o.Result, "%v", o)
				require.True(t, stored(text) == p.arrived(t, "you", 1)[0])
			}
			require.Contains(t, transcript.String(), tt.says)
			require.NotContains(t, transcript.String(), tt.never)
			require.Equal(t, 1, strings.Count(transcript.String(), "connected to"), "one connection")
		})
	}
}

// std: C10
func (p *peer) utf8(t *testing.T, offered bool) {
	t.Helper()
	t.Run("SMTPUTF8", func(t *testing.T) {
		d, transcript := p.deliverer(t, "clear")
		m := letterOf("Subject: Grüße 世界\r\n\r\nHello.\r\n", "пошта@store.test")
		m.UTF8 = true
		o := d.Deliver(t.Context(), direct, m)[0]
		if !offered {
			require.Equal(t, deliver.PermFail, o.Result, "%v", o)
			require.Equal(t, dsn.Status("5.6.7"), o.Status, "%v", o)
			require.NotContains(t, transcript.String(), "C: MAIL")
			return
		}
		require.Equal(t, deliver.Delivered, o.Result, "%v", o)
		require.Contains(t, transcript.String(), " SMTPUTF8")
		require.Equal(t, []string{"Subject: Grüße 世界\n\nHello.\n"}, p.arrived(t, "пошта", 1))
	})
}

// dsn asks for a report of success, and finds in the mailbox of its sender what the server was told of the envelope.
//
// std: C13
func (p *peer) dsn(t *testing.T, envelope, original string) {
	t.Helper()
	t.Run("DSN", func(t *testing.T) {
		d, _ := p.deliverer(t, "clear")
		m := letterOf(dated, "you@store.test")
		m.From, m.EnvelopeID, m.Return = "they@store.test", "env+id=1", dsn.ReturnHeaders
		m.To[0].Notify, m.To[0].Original = dsn.NotifySuccess, dsn.Address{Type: "rfc822", Addr: "you+me@example.org"}
		o := d.Deliver(t.Context(), direct, m)[0]
		require.Equal(t, deliver.Delivered, o.Result, "%v", o)
		p.arrived(t, "you", 1)
		report, err := dsn.Parse(strings.NewReader(p.arrived(t, "they", 1)[0]))
		require.NoError(t, err)
		require.Equal(t, envelope, report.EnvelopeID)
		require.True(t, report.HeadersOnly)
		require.Len(t, report.Recipients, 1)
		require.Equal(t, dsn.Delivered, report.Recipients[0].Action)
		require.Equal(t, "you@store.test", report.Recipients[0].Final.Addr)
		require.Equal(t, original, report.Recipients[0].Original.Addr)
	})
}

// greylisting: the first time the mailbox is not there yet, the second time it is.
func (p *peer) greylisting(t *testing.T) {
	t.Helper()
	t.Run("greylisting", func(t *testing.T) {
		d, _ := p.deliverer(t, "grey")
		o := d.Deliver(t.Context(), direct, letterOf(dated, "grey@store.test"))[0]
		require.Equal(t, "tempfail rcpt 450", brief([]deliver.Outcome{o}), "%v", o)
		require.Equal(t, "greylisted", string(o.Reason.Class()))
		require.Eventually(t, func() bool {
			o = d.Deliver(t.Context(), direct, letterOf(dated, "grey@store.test"))[0]
			return o.Result == deliver.Delivered
		}, patience, 200*time.Millisecond, "%v", o)
		p.arrived(t, "grey", 1)
	})
}

// busy is a server that takes one connection from one client.
func (p *peer) busy(t *testing.T) {
	t.Helper()
	t.Run("too many connections", func(t *testing.T) {
		var c net.Conn
		require.Eventually(t, func() bool { // the connections of other cases may count until the server has noticed their end
			var err error
			if c, err = net.Dial("tcp", p.addr("busy")); err != nil {
				return false
			}
			greeting := make([]byte, 3)
			if _, err = c.Read(greeting); err != nil || string(greeting) != "220" {
				_ = c.Close()
				return false
			}
			return true
		}, patience, 100*time.Millisecond)
		d, _ := p.deliverer(t, "busy")
		o := d.Deliver(t.Context(), direct, letterOf(dated, "you@store.test"))[0]
		require.Equal(t, "tempfail greeting 421", brief([]deliver.Outcome{o}), "%v", o)
		require.NoError(t, c.Close())
		require.Eventually(t, func() bool {
			o = d.Deliver(t.Context(), direct, letterOf(dated, "you@store.test"))[0]
			return o.Result == deliver.Delivered
		}, patience, 100*time.Millisecond, "%v", o)
		p.arrived(t, "you", 1)
	})
}

// logins logs in by every mechanism, and once more with what is wrong: that is the route's trouble, and nobody's mail comes
// back.
//
// std: C16
func (p *peer) logins(t *testing.T, mechanisms ...string) {
	t.Helper()
	login := func(t *testing.T, mechanism, user, credential string) deliver.Outcome {
		d, transcript := p.deliverer(t, "login")
		hop := "submission://" + user + "@$HOST tls=verified auth=" + strings.ToLower(mechanism)
		switch mechanism {
		case "XOAUTH2", "OAUTHBEARER":
			d.Token = func(context.Context, route.Hop) (string, error) { return credential, nil }
		case "EXTERNAL":
			cert, err := p.CA().Issue(lab.CertValid, user)
			require.NoError(t, err)
			d.TLS.Certificates = []tls.Certificate{cert}
		default:
			secret := filepath.Join(t.TempDir(), "secret")
			require.NoError(t, os.WriteFile(secret, []byte(credential), 0o600))
			hop += " secret=file:" + secret
		}
		o := d.Deliver(t.Context(), p.by(t, "login", hop), letterOf(dated, "you@store.test"))[0]
		checkOutcome(t, &o, "you@store.test")
		require.Contains(t, transcript.String(), "C: AUTH "+mechanism)
		require.NotContains(t, transcript.String(), credential)
		return o
	}
	for _, mechanism := range mechanisms {
		t.Run("login by "+mechanism, func(t *testing.T) {
			good, wrong := peerPassword, "wrong password"
			if strings.HasSuffix(mechanism, "OAUTH2") || mechanism == "OAUTHBEARER" {
				good, wrong = webToken(peerUser), webToken("somebody")
			}
			o := login(t, mechanism, peerUser, good)
			require.Equal(t, deliver.Delivered, o.Result, "%v", o)
			p.arrived(t, "you", 1)
			o = login(t, mechanism, "nobody", wrong)
			require.Equal(t, "tempfail auth 535", brief([]deliver.Outcome{o}), "%v", o)
			require.True(t, o.RouteTrouble)
		})
	}
	t.Run("no login", func(t *testing.T) {
		d, _ := p.deliverer(t, "login")
		o := d.Deliver(t.Context(), p.by(t, "login", "submission://$HOST"), letterOf(dated, "you@store.test"))[0]
		require.False(t, o.Result.Success(), "%v", o)
	})
}

// requireTLS asks what no server here promises yet (RFC 8689, section 4.2.1).
//
// std: C17
func (p *peer) requireTLS(t *testing.T) {
	t.Helper()
	t.Run("REQUIRETLS", func(t *testing.T) {
		d, transcript := p.deliverer(t, "open")
		m := letterOf(dated, "you@store.test")
		m.RequireTLS = true
		o := d.Deliver(t.Context(), direct, m)[0]
		checkOutcome(t, &o, "you@store.test")
		require.Equal(t, deliver.PermFail, o.Result, "%v", o)
		require.Equal(t, dsn.Status("5.7.30"), o.Status, "%v", o)
		require.NotContains(t, transcript.String(), "C: MAIL")
	})
}
