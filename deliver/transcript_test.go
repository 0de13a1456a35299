package deliver_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/route"
)

// The refusal of a provider stands in the transcript word for word, and who said it.
func TestTheTranscriptHasEveryLine(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		w.Server("mx.aol.test",
			lab.Refuse(lab.AtRcpt, "554-5.7.1 The IP address you are using\n554-is either open\n554 or  dynamic.", "you@*"))
		m := letter("you@aol.test", "friend@aol.test")
		w.all(t, direct, m)
		require.NoError(t, w.d.Close())
		require.Equal(t, []string{
			"EHLO mail.example.org", "MAIL FROM:<me@example.org> SIZE=26",
			"RCPT TO:<you@aol.test>", "RCPT TO:<friend@aol.test>", "DATA", ".", "QUIT",
		}, w.said.by('C'))
		require.Equal(t, []string{
			"220 mx.aol.test ESMTP lab", "250-mx.aol.test", "250-PIPELINING", "250-SIZE 52428800", "250-8BITMIME", "250-SMTPUTF8",
			"250-DSN", "250 ENHANCEDSTATUSCODES",
			"250 2.1.0 Ok", "554-5.7.1 The IP address you are using", "554-is either open", "554 or  dynamic.", "250 2.1.5 Ok",
			"354 End data with <CR><LF>.<CR><LF>", "250 2.0.0 Ok: taken", "221 2.0.0 Bye",
		}, w.said.by('S'))
		require.Equal(t, []string{"connected to 192.0.2.10:25", "26 octets of message sent"}, w.said.by('*'))
		for _, l := range w.said.lines {
			require.Equal(t, "m1", l.ID)
			require.Equal(t, "mx.aol.test", l.Host)
			require.Equal(t, "192.0.2.10:25", l.Addr.String())
			require.False(t, l.Time.IsZero())
		}
		require.NotContains(t, w.said.String(), "Hello.", "the message itself is nobody's business")
	})
}

func TestTheTranscriptHasWhatHappened(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("aol.test", "@ MX 10 down\n@ MX 20 mx\ndown A 192.0.2.99\nmx A 192.0.2.10"))
		mx := w.Server("mx.aol.test", lab.Drop(lab.AtMail))
		w.one(t, direct)
		mx.Behave(lab.AcceptAll)
		w.one(t, direct)
		w.one(t, direct)
		const notAgain = "not tried again: at 00:00:00 UTC: no connection: dial tcp 192.0.2.99:25: connection refused"
		require.Equal(t, []string{
			"no connection: dial tcp 192.0.2.99:25: connection refused", "connected to 192.0.2.10:25", "the connection was lost: EOF",
			notAgain, "connected to 192.0.2.10:25", "26 octets of message sent",
			notAgain, "connection used again", "26 octets of message sent",
		}, w.said.by('*'))
	})
}

func TestTranscriptsAsText(t *testing.T) {
	var b bytes.Buffer
	tr := deliver.NewTranscript(&b)
	at := time.Date(2026, 7, 1, 12, 30, 45, 123_456_789, time.FixedZone("CEST", 7200))
	addr := netip.MustParseAddrPort("[2001:db8::1]:25")
	tr.Line(deliver.TranscriptLine{
		Time: at, ID: "m1", Host: "mx.aol.test", Addr: addr, From: 'S', Text: "550 5.1.1 Kein Postfach für \x1b[31m\xff\u202e \\x",
	})
	tr.Line(deliver.TranscriptLine{Time: at, Host: "/run/lmtp.sock", From: '*', Text: "connected"})
	tr.Line(deliver.TranscriptLine{Time: at, Host: "[IPv6:2001:db8::1]", Addr: addr, From: 'C', Text: "QUIT"})
	require.Equal(t, "2026-07-01T10:30:45.123Z m1 mx.aol.test[2001:db8::1] "+
		"S: 550 5.1.1 Kein Postfach für \\x1b[31m\\xff\\xe2\\x80\\xae \\x\n"+
		"2026-07-01T10:30:45.123Z - /run/lmtp.sock *: connected\n"+
		"2026-07-01T10:30:45.123Z - [2001:db8::1] C: QUIT\n", b.String())
	deliver.NewTranscript(full{}).Line(deliver.TranscriptLine{})
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("full") }

func FuzzVisible(f *testing.F) {
	for _, s := range []string{"", "plain", "\x1b[0m", "\xff\xef", "\ufffd", "ä\u202e\u0085\x7f", "a\xefb"} {
		f.Add(s)
	}
	bad := regexp.MustCompile(`[\x00-\x1f\x7f-\x{9f}\x{200e}\x{200f}\x{202a}-\x{202e}\x{2066}-\x{2069}]`)
	f.Fuzz(func(t *testing.T, s string) {
		got := deliver.Visible(s)
		require.Equal(t, strings.ToValidUTF8(got, "?"), got)
		require.False(t, bad.MatchString(got))
		if !bad.MatchString(s) && strings.ToValidUTF8(s, "?") == s {
			require.Equal(t, s, got, "text stays as it is")
		}
	})
}

func TestOutcomesInLogs(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		w.Server("mx.aol.test", lab.Offer{TLS: lab.TLSOffered}, lab.Refuse(lab.AtRcpt, "550-5.1.1 No\x1b[31m\n such user"))
		o := w.one(t, by(t, "direct tls=verified"))
		require.Regexp(t, `^<you@aol\.test>: permfail 5\.1\.1 at mx\.aol\.test\[192\.0\.2\.10\]:25 \(rcpt\) TLS 1\.3 TLS_\S+ verified: `+
			`550 5\.1\.1 No \[31m  such user$`, o.String())
		var line struct {
			Level, Msg, ID string
			Outcome        map[string]any
		}
		require.NoError(t, json.Unmarshal(w.log.Bytes(), &line))
		require.Equal(t, "m1", line.ID)
		for key, want := range map[string]any{
			"recipient": "you@aol.test", "result": "permfail", "status": "5.1.1", "route": "direct tls=verified",
			"host": "mx.aol.test", "stage": "rcpt", "addr": "192.0.2.10:25", "reply": "550 5.1.1 No [31m  such user", "tls": "TLS 1.3",
		} {
			require.Equal(t, want, line.Outcome[key], key)
		}
		var e *deliver.Error
		require.ErrorAs(t, o.Err(), &e)
		require.Equal(t, dsn.Status("5.1.1"), e.Status)
		require.Equal(t, "mx.aol.test", e.Host)
		require.False(t, e.Temporary)
		require.Equal(t, "deliver: mx.aol.test: rcpt: 5.1.1 answered 550 5.1.1 No [31m  such user", e.Error())
	})
}

// Every outcome is told to the trace as it is returned.
func TestOutcomesInTheTrace(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		var told []deliver.Outcome
		w.d.Trace = &deliver.Trace{Outcome: func(m *deliver.Message, o deliver.Outcome) {
			require.Equal(t, "m1", m.ID)
			told = append(told, o)
		}}
		w.Server("mx.aol.test", lab.Refuse(lab.AtRcpt, "550 5.1.1 who?", "no@*"), lab.Delay(lab.AtDot, time.Minute))
		outcomes := w.all(t, direct, letter("you@aol.test", "no@aol.test"))
		require.Equal(t, outcomes, told)
		require.Equal(t, time.Minute, outcomes[0].End.Sub(outcomes[0].Start))
		require.Equal(t, "direct", outcomes[0].Hop.String())
		require.Equal(t, []route.Hop{{}}, outcomes[0].Route.Hops)
		require.NoError(t, outcomes[0].Err())
	})
}

func TestResultsAsText(t *testing.T) {
	names := []string{"tempfail", "delivered", "relayed", "permfail", "held", "discarded"}
	for i, name := range names {
		r := deliver.Result(i)
		b, err := r.MarshalText()
		require.NoError(t, err)
		require.Equal(t, name, string(b))
		var back deliver.Result
		require.NoError(t, back.UnmarshalText(b))
		require.Equal(t, r, back)
		require.Equal(t, slices.Contains([]string{"delivered", "relayed"}, name), r.Success())
	}
	var r deliver.Result
	require.ErrorContains(t, r.UnmarshalText([]byte("lost")), `"lost" is no result`)
}

// A Deliverer's settings stay as they were set, so that they can be read while it works.
func TestSettingsStayAsTheyAre(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		d := &deliver.Deliverer{Dial: w.Dial, Resolver: w.d.Resolver}
		mx := w.Server("mx.aol.test")
		require.Equal(t, deliver.Delivered, d.Deliver(t.Context(), direct, letter("you@aol.test"))[0].Result)
		require.NoError(t, d.Close())
		require.Empty(t, d.Hostname)
		require.Zero(t, d.Timeouts)
		require.Zero(t, d.Limits)
		require.Zero(t, d.Port)
		require.Nil(t, d.Logger)
		require.NotEmpty(t, mx.Mailbox()[0].HELO, "the system's name")
	})
}
