package dsn_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/dsn"
)

func parse(t *testing.T, mail []byte) *dsn.Report {
	t.Helper()
	r, err := dsn.Parse(bytes.NewReader(mail))
	require.NoError(t, err)
	return r
}

func at(hour, minute, second int) time.Time {
	return time.Date(2026, time.November, 25, hour, minute, second, 0, time.UTC)
}

// Reports as other mail systems write them.
func TestParse(t *testing.T) {
	reply := func(code int, lines ...string) dsn.Reply { return dsn.Reply{Code: code, Lines: lines} }
	tests := map[string]dsn.Report{
		"postfix": {
			ReportingMTA: "out.example.net", Arrival: at(9, 2, 9), From: "MAILER-DAEMON@out.example.net (Mail Delivery System)", To: "me@example.net",
			Date: at(9, 2, 11), MessageID: "20261125090211.4F2A1C0B@out.example.net",
			Recipients: []dsn.Recipient{{
				Original: rfc822("sales@shop.example"), Final: rfc822("you@shop.example"), Action: dsn.Failed, Status: "5.2.2", RemoteMTA: "mx1.shop.example",
				Diagnostic: reply(552, "5.2.2 <you@shop.example>: the mailbox of this user is full, please try again later"),
			}},
			Original: []byte("Return-Path: <me@example.net>\r\nFrom: me@example.net\r\nTo: sales@shop.example\r\nSubject: A question\r\n" +
				"Message-ID: <q1@example.net>\r\n\r\nDo you have it in blue?\r\n"),
		},
		"postfix-google": {
			ReportingMTA: "out.example.net", From: "MAILER-DAEMON@out.example.net (Mail Delivery System)", To: "me@example.net", Date: at(9, 2, 11),
			Recipients: []dsn.Recipient{
				{
					Final: rfc822("nobody@big.example"), Action: dsn.Failed, Status: "5.1.1", RemoteMTA: "mx.big.example",
					Diagnostic: reply(550, "5.1.1 There is no such account at this provider. Look at the",
						"5.1.1 address for a slip of the pen, or read more in", "5.1.1 https://big.example/help k7si123 - gsmtp"),
				},
				{
					Final: rfc822("me2@gone.example"), Action: dsn.Delayed, Status: "4.4.1", Detail: "connect to mx.gone.example[192.0.2.77]:25: Connection timed out",
					RetryUntil: time.Date(2026, time.November, 30, 9, 2, 9, 0, time.UTC),
				},
			},
			Original: []byte("Subject: A question\r\n"), HeadersOnly: true,
		},
		"exim": {
			ReportingMTA: "relay.example.net", From: "Mail Delivery System <Mailer-Daemon@relay.example.net>", To: "me@example.net", Date: at(9, 2, 11),
			MessageID: "E1tFqXy-0001aB-2c@relay.example.net",
			Recipients: []dsn.Recipient{
				{Final: rfc822("you@shop.example"), Action: dsn.Failed, Status: "5.0.0", RemoteMTA: "mx1.shop.example", Diagnostic: reply(550, "no such mailbox")},
				{Final: rfc822("|/usr/local/bin/sort you@shop.example"), Action: dsn.Failed, Status: "5.0.0"},
			},
			Original: []byte("Subject: A question\r\n\r\nDo you have it in blue?\r\n"),
		},
		"exchange": {
			ReportingMTA: "EX01.shop.example", Arrival: at(9, 2, 10), From: "<postmaster@shop.example>", To: "me@example.net", Date: at(9, 2, 11),
			MessageID: "0f1e2d3c@EX01.shop.example",
			Recipients: []dsn.Recipient{{
				Original: rfc822("you@shop.example"), Final: rfc822("you@shop.example"), Action: dsn.Failed, Status: "5.1.10",
				Diagnostic: reply(550, "5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup"),
			}},
			Original: []byte("Subject: A question\r\n\r\nDo you have it in blue?\r\n"),
		},
		"sendmail": {
			ReportingMTA: "post.example.net", Arrival: at(9, 2, 10), From: "Mail Delivery Subsystem <MAILER-DAEMON>", To: "me@example.net", Date: at(9, 2, 11),
			MessageID: "202611250902.3APxyz@post.example.net",
			Recipients: []dsn.Recipient{{
				Final: rfc822("everyone@shop.example"), Action: dsn.Failed, Status: "5.7.1", RemoteMTA: "mx1.shop.example", LastAttempt: at(9, 2, 11),
				Diagnostic: reply(550, "5.7.1 This was refused for a reason that takes more than one line"),
			}},
			Original: []byte("Subject: A question\r\n"), HeadersOnly: true,
		},
		"global": {
			ReportingMTA: "post.example.net", From: "Mail Delivery System <MAILER-DAEMON@post.example.net>", To: "jürgen@example.net", Date: at(9, 2, 11), UTF8: true,
			Recipients: []dsn.Recipient{{
				Original: dsn.Address{Type: "utf-8", Addr: "用户@shop.example"}, Final: dsn.Address{Type: "utf-8", Addr: "用户@shop.example"}, Action: dsn.Failed,
				Status: "5.1.1", RemoteAddr: "2001:db8::25", Diagnostic: reply(550, "5.1.1 这里没有这个人"),
			}},
			Original: []byte("Subject: Grüße"), HeadersOnly: true,
		},
		"untidy": {
			From: "postmaster@odd.example", To: `me@example.net, "Someone" <else@example.net>`,
			Recipients: []dsn.Recipient{
				{Final: rfc822("one@odd.example"), Action: dsn.Failed, Status: "5.4.4", Detail: "no such host"},
				{Final: rfc822("two@odd.example"), RemoteMTA: "mx.odd.example", RemoteAddr: "192.0.2.9", Diagnostic: reply(550, "line one", "line two")},
				{
					Original: rfc822("three@odd.example"), Final: rfc822("three@odd.example"), Status: "5.1.1", Diagnostic: reply(550, "5.1.1 nobody"),
				},
			},
			Original: []byte("Subject: x\r\n"),
		},
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			mail, err := os.ReadFile(filepath.Join("testdata", name+".eml"))
			require.NoError(t, err)
			assert.Equal(t, &want, parse(t, mail))
			lf := bytes.ReplaceAll(mail, []byte("\r\n"), []byte("\n"))
			want.Original = bytes.ReplaceAll(want.Original, []byte("\r\n"), []byte("\n"))
			assert.Equal(t, &want, parse(t, lf), "as a mailbox on disk has it")
		})
	}
}

func letter(status string) string {
	return "From: a@b.example\r\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n" +
		"--b\r\nContent-Type: text/plain\r\n\r\nHello\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n" + status + "\r\n--b--\r\n"
}

func TestParseFields(t *testing.T) {
	const to = "Final-Recipient: rfc822; a@b.example\r\n"
	tests := []struct {
		field string
		want  dsn.Recipient
	}{
		{"Remote-MTA: dns; mx.b.example. (192.0.2.1, the server for b.example.)", dsn.Recipient{RemoteMTA: "mx.b.example", RemoteAddr: "192.0.2.1"}},
		{"Remote-MTA: dns;mx.b.example (TCP|192.0.2.5|47323|192.0.2.1|25)\r\n (mx ESMTP)", dsn.Recipient{RemoteMTA: "mx.b.example"}},
		{"Remote-MTA: dns; [192.0.2.1]", dsn.Recipient{RemoteAddr: "192.0.2.1"}},
		{"Remote-MTA: dns; 2001:db8::1", dsn.Recipient{RemoteAddr: "2001:db8::1"}},
		{"Remote-MTA: dns; mx.b.example [192.0.2.1]", dsn.Recipient{RemoteMTA: "mx.b.example", RemoteAddr: "192.0.2.1"}},
		{"Remote-MTA: mx.b.example", dsn.Recipient{RemoteMTA: "mx.b.example"}},
		{"Remote-MTA: dns; ", dsn.Recipient{}},
		{"Action: Relayed (to somewhere)", dsn.Recipient{Action: dsn.Relayed}},
		{"Action: delivery-failed", dsn.Recipient{}},
		{"Status: 4.4.7 (it took too long)", dsn.Recipient{Status: "4.4.7", Detail: "it took too long"}},
		{"Status: 5.1.1(no blank)", dsn.Recipient{Status: "5.1.1", Detail: "no blank"}},
		{"Status: 5.1.1 and words", dsn.Recipient{Status: "5.1.1"}},
		{"Status: 9.9.9", dsn.Recipient{}},
		{"Diagnostic-Code: SMTP;550-5.7.1 one\r\n\t550-5.7.1 two\r\n\t550 5.7.1 three", dsn.Recipient{
			Status: "5.7.1", Diagnostic: dsn.Reply{Code: 550, Lines: []string{"5.7.1 one", "5.7.1 two", "5.7.1 three"}},
		}},
		{"Diagnostic-Code: smtp; 550 5.1.1\r\n  no\r\n  550 such user", dsn.Recipient{
			Status: "5.1.1", Diagnostic: dsn.Reply{Code: 550, Lines: []string{"5.1.1 no 550 such user"}},
		}},
		{"Diagnostic-Code: smtp; 550", dsn.Recipient{Diagnostic: dsn.Reply{Code: 550, Lines: []string{""}}}},
		{"Diagnostic-Code: smtp; 550\r\n", dsn.Recipient{Diagnostic: dsn.Reply{Code: 550, Lines: []string{""}}}},
		{"Diagnostic-Code: smtp; 550-a 550-b 550", dsn.Recipient{Diagnostic: dsn.Reply{Code: 550, Lines: []string{"a", "b", ""}}}},
		{"Diagnostic-Code: smtp; 550-a 5501 550b 550-c", dsn.Recipient{Diagnostic: dsn.Reply{Code: 550, Lines: []string{"a 5501 550b", "c"}}}},
		{"Diagnostic-Code: smtp; 999 odd", dsn.Recipient{Detail: "999 odd"}},
		{"Diagnostic-Code: smtp; =?utf-8?q?nicht_gefunden=3A_f=C3=BCr?=", dsn.Recipient{Detail: "nicht gefunden: für"}},
		{"Diagnostic-Code: smtp; 550 =?iso-8859-1?q?f=FCr?= niemand", dsn.Recipient{Diagnostic: dsn.Reply{Code: 550, Lines: []string{"für niemand"}}}},
		{"Diagnostic-Code: x-unix; 550 is not SMTP here", dsn.Recipient{Detail: "550 is not SMTP here"}},
		{"Diagnostic-Code: not a type; at all", dsn.Recipient{Detail: "not a type; at all"}},
		{"Diagnostic-Code: smtp; 550 \x00\xff\x1b", dsn.Recipient{Diagnostic: dsn.Reply{Code: 550, Lines: []string{" \ufffd "}}}},
		{"Final-Log-ID: abc", dsn.Recipient{LogID: "abc"}},
		{"Last-Attempt-Date: Wed, 25 Nov 2026 10:02:11 +0100 (CET)", dsn.Recipient{LastAttempt: at(9, 2, 11)}},
		{"Last-Attempt-Date: yesterday", dsn.Recipient{}},
		{"Original-Recipient: UTF-8; a\\x{2B}b@b.example", dsn.Recipient{Original: dsn.Address{Type: "utf-8", Addr: "a+b@b.example"}}},
		{"Original-Recipient: a@b.example", dsn.Recipient{Original: rfc822("a@b.example")}},
		{"Original-Recipient: jürgen@b.example", dsn.Recipient{Original: dsn.Address{Type: "utf-8", Addr: "jürgen@b.example"}}},
		{"Original-Recipient: rfc822;", dsn.Recipient{}},
		{`Original-Recipient: rfc822; "a (b)" @b.example`, dsn.Recipient{Original: rfc822(`"a (b)" @b.example`)}},
		{"X-Unknown: x", dsn.Recipient{}},
	}
	for _, test := range tests {
		got := parse(t, []byte(letter("Reporting-MTA: dns; c.example\r\n\r\n"+to+test.field+"\r\n")))
		test.want.Final = rfc822("a@b.example")
		require.Len(t, got.Recipients, 1, test.field)
		assert.Equal(t, test.want, got.Recipients[0], test.field)
		assert.Equal(t, "c.example", got.ReportingMTA)
	}
}

// Groups that are not as they should be.
func TestParseGroups(t *testing.T) {
	for name, status := range map[string]string{
		"as they should be":      "Reporting-MTA: dns; x.example\r\n\r\nFinal-Recipient: rfc822;a@a\r\nAction: failed\r\n\r\nFinal-Recipient: rfc822;b@b\r\nAction: delayed\r\n",
		"no empty lines":         "Reporting-MTA: dns; x.example\r\nFinal-Recipient: rfc822;a@a\r\nAction: failed\r\nFinal-Recipient: rfc822;b@b\r\nAction: delayed\r\n",
		"many empty lines":       "\r\n\r\nReporting-MTA: dns; x.example\r\n\r\n \r\n\r\nFinal-Recipient: rfc822;a@a\r\nAction: failed\r\n\t\r\n\r\nFinal-Recipient: rfc822;b@b\r\nAction: delayed\r\n\r\n\r\n",
		"the message at the end": "Final-Recipient: rfc822;a@a\r\nAction: failed\r\n\r\nFinal-Recipient: rfc822;b@b\r\nAction: delayed\r\n\r\nReporting-MTA: dns; x.example\r\n",
		"another boundary":       "Reporting-MTA: dns; x.example\r\n\r\nFinal-Recipient: rfc822;a@a\r\nAction: failed\r\n\r\nFinal-Recipient: rfc822;b@b\r\nAction: delayed\r\n\r\n--other\r\nFinal-Recipient: rfc822;c@c\r\n",
		"an actual recipient":    "Reporting-MTA: dns; x.example\r\n\r\nX-Actual-Recipient: rfc822;a@a\r\nAction: failed\r\n\r\nFinal-Recipient: rfc822;b@b\r\nX-Actual-Recipient: rfc822;bb@b\r\nAction: delayed\r\n",
	} {
		got := parse(t, []byte(letter(status)))
		assert.Equal(t, []dsn.Recipient{
			{Final: rfc822("a@a"), Action: dsn.Failed}, {Final: rfc822("b@b"), Action: dsn.Delayed},
		}, got.Recipients, name)
		assert.Equal(t, "x.example", got.ReportingMTA, name)
	}
}

func TestParseWhereThePartsAre(t *testing.T) {
	const status = "Final-Recipient: rfc822;a@b.example\r\nAction: failed\r\n"
	inner := letter(status)
	for name, mail := range map[string]string{
		"within a list's wrapping": "Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n" + inner + "\r\n--o\r\n\r\nfooter\r\n--o--\r\n",
		"forwarded":                "Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n\r\nFYI\r\n--o\r\nContent-Type: message/rfc822\r\n\r\n" + inner + "\r\n--o--\r\n",
		"no end":                   strings.TrimSuffix(inner, "--b--\r\n"),
		"the part alone":           "Content-Type: message/delivery-status\r\n\r\n" + status,
		"no MIME header":           inner[strings.Index(inner, "\r\n\r\n"):],
		"no MIME header, with one": "Subject: x" + inner[strings.Index(inner, "\r\n\r\n"):],
		"indented boundary":        strings.ReplaceAll(inner, "\r\n--b", "\r\n --b"),
		"mbox":                     "From MAILER-DAEMON Wed Nov 25 09:02:11 2026\r\n" + inner,
		"empty lines first":        "\r\n\r\n" + inner,
		"type with odd parameters": strings.Replace(inner, "report-type=delivery-status;", "report-type=delivery-status; report-type=x; =;", 1),
	} {
		got := parse(t, []byte(mail))
		require.Len(t, got.Recipients, 1, name)
		assert.Equal(t, "a@b.example", got.Recipients[0].Final.Addr, name)
	}
}

func TestParseTo(t *testing.T) {
	for written, want := range map[string]string{
		"me@example.net":                 "me@example.net",
		"<me@example.net>":               "me@example.net",
		`Me <"m e"@example.net>`:         `"m e"@example.net`,
		`"m e"@example.net`:              `"m e"@example.net`,
		"me@example.net (Me)":            "me@example.net",
		"=?utf-8?q?M?= <me@example.net>": "me@example.net",
		"undisclosed recipients: ;":      "undisclosed recipients: ;",
	} {
		mail := "To: " + written + "\r\nContent-Type: message/delivery-status\r\n\r\nFinal-Recipient: rfc822;a@b.example\r\n"
		assert.Equal(t, want, parse(t, []byte(mail)).To, written)
	}
}

func TestNotReport(t *testing.T) {
	for name, mail := range map[string]string{
		"nothing":          "",
		"a letter":         "From: a@b.example\r\nSubject: hi\r\n\r\nAction: failed\r\nFinal-Recipient: rfc822;a@b.example\r\n",
		"a read receipt":   "Content-Type: multipart/report; report-type=disposition-notification; boundary=b\r\n\r\n--b\r\n\r\nread\r\n--b\r\nContent-Type: message/disposition-notification\r\n\r\nFinal-Recipient: rfc822;a@b.example\r\n--b--\r\n",
		"a complaint":      "Content-Type: multipart/report; report-type=feedback-report; boundary=b\r\n\r\n--b\r\n\r\nspam\r\n--b\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\n--b--\r\n",
		"no recipient":     letter("Reporting-MTA: dns; x.example\r\n\r\nAction: failed\r\n"),
		"an empty part":    letter(""),
		"a forwarded mail": "Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nContent-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\ny\r\n--o--\r\n",
		"not a word":       "\x00\xff\xfe--\r\n--\r\n",
	} {
		r, err := dsn.Parse(strings.NewReader(mail))
		assert.Nil(t, r, name)
		require.ErrorIs(t, err, dsn.ErrNotReport, name)
	}
	broken := errors.New("the disk is gone")
	_, err := dsn.Parse(iotest.ErrReader(broken))
	require.ErrorIs(t, err, broken)
	assert.NotErrorIs(t, err, dsn.ErrNotReport)
}

// What a stranger sends is bounded.
func TestParseLimits(t *testing.T) {
	const status = "Final-Recipient: rfc822;a@b.example\r\nAction: failed\r\n"
	t.Run("depth", func(t *testing.T) {
		nested := func(depth int) string {
			mail := letter(status)
			for i := range depth {
				mail = fmt.Sprintf("Content-Type: multipart/mixed; boundary=n%d\r\n\r\n--n%d\r\n%s\r\n--n%d--\r\n", i, i, mail, i)
			}
			return mail
		}
		parse(t, []byte(nested(5)))
		for _, depth := range []int{20, 500} {
			_, err := dsn.Parse(strings.NewReader(nested(depth)))
			assert.ErrorIs(t, err, dsn.ErrNotReport)
		}
	})
	t.Run("parts", func(t *testing.T) {
		mail := "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("--b\r\n\r\nx\r\n", 200_000) +
			"--b\r\nContent-Type: message/delivery-status\r\n\r\n" + status
		_, err := dsn.Parse(strings.NewReader(mail))
		assert.ErrorIs(t, err, dsn.ErrNotReport)
	})
	t.Run("size", func(t *testing.T) {
		mail := letter(status)
		mail = strings.TrimSuffix(mail, "--b--\r\n") + "--b\r\nContent-Type: message/rfc822\r\n\r\n"
		counted := &countingReader{r: io.MultiReader(strings.NewReader(mail), zeros{})}
		r, err := dsn.Parse(counted)
		require.NoError(t, err)
		assert.LessOrEqual(t, counted.n, dsn.MaxSize+64<<10)
		assert.Len(t, r.Original, dsn.MaxSize-len(mail), "the original is cut")
	})
	t.Run("recipients", func(t *testing.T) {
		r := parse(t, []byte(letter(strings.Repeat("\r\nFinal-Recipient: rfc822;a@b.example\r\n", dsn.MaxRecipients+10))))
		assert.Len(t, r.Recipients, dsn.MaxRecipients)
	})
	t.Run("field", func(t *testing.T) {
		long := strings.Repeat("x", 1<<20)
		folded := strings.Repeat("\r\n "+strings.Repeat("x", 70), 1<<14)
		for _, s := range []string{long, folded, long + folded} {
			r := parse(t, []byte(letter("Final-Recipient: rfc822;a@b.example\r\nDiagnostic-Code: smtp; 550 "+s+"\r\nFinal-Log-ID: "+s+"\r\n")))
			assert.Less(t, len(r.Recipients[0].LogID), 70<<10)
			assert.Less(t, len(r.Recipients[0].Diagnostic.String()), 70<<10)
		}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

type countingReader struct {
	r io.Reader
	n int
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.eml")
	require.NoError(f, err)
	require.NotEmpty(f, files)
	for _, file := range files {
		b, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, mail []byte) {
		r, err := dsn.Parse(bytes.NewReader(mail))
		if err != nil {
			require.ErrorIs(t, err, dsn.ErrNotReport)
			return
		}
		require.NotEmpty(t, r.Recipients)
		for i := range r.Recipients {
			to := &r.Recipients[i]
			require.NotEmpty(t, to.Final.Addr)
			for _, s := range []string{to.Final.Addr, to.Original.Addr, to.Detail, to.LogID, to.RemoteMTA, to.RemoteAddr, to.Smarthost, to.Diagnostic.String()} {
				require.True(t, utf8.ValidString(s), "%q", s)
				require.False(t, strings.ContainsFunc(s, func(r rune) bool { return r < ' ' }), "%q", s)
			}
			if to.Action == "" {
				to.Action = dsn.Failed
			}
		}
		// What is read can be written, and is then the same.
		r.To, r.From, r.ReportingMTA, r.MessageID = "a@b.example", "", "c.example", ""
		built, err := new(dsn.Builder).Build(r)
		require.NoError(t, err)
		again, err := dsn.Parse(bytes.NewReader(built))
		require.NoError(t, err)
		require.Len(t, again.Recipients, len(r.Recipients))
		for i := range r.Recipients {
			require.Equal(t, r.Recipients[i].Action, again.Recipients[i].Action)
			require.Len(t, again.Recipients[i].Diagnostic.Lines, len(r.Recipients[i].Diagnostic.Lines))
		}
	})
}
