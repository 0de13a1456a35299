package dsn_test

import (
	"bytes"
	"encoding/base64"
	"flag"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/jhillyerd/enmime/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/dsn"
)

var update = flag.Bool("update", false, "write the golden files anew")

var (
	accepted = time.Date(2026, time.November, 24, 21, 31, 0, 0, time.UTC)
	warned   = accepted.Add(4 * time.Hour)
	gaveUp   = accepted.Add(5 * 24 * time.Hour)
)

const original = "Received: from desk (desk.example.org [192.0.2.5]) by mail.example.org; Tue, 24 Nov 2026 21:31:00 +0000\r\n" +
	"From: Me <me@example.org>\r\nTo: you@aol.com\r\nSubject: Lunch on Friday\r\nMessage-ID: <lunch@example.org>\r\n\r\n" +
	"At noon?\r\n.\r\nFrom now on, always.\r\n"

const originalUTF8 = "From: Jürgen <jürgen@bücher.example>\r\nTo: 用户@例子.example\r\nSubject: Grüße\r\nMessage-ID: <grüße@bücher.example>\r\n\r\nHallo.\r\n"

func rfc822(address string) dsn.Address { return dsn.Address{Type: "rfc822", Addr: address} }

// openRelay is how a large provider refuses an address that it holds for an open relay.
func openRelay(to string) dsn.Recipient {
	return dsn.Recipient{
		Final: rfc822(to), Action: dsn.Failed, Status: "5.7.1", RemoteMTA: "mailin-01.mx.aol.com", RemoteAddr: "192.0.2.10",
		Diagnostic: dsn.Reply{Code: 554, Lines: []string{
			"5.7.1 (RLY:B1) The information presently available to us indicates that the server",
			"5.7.1 you are using is an open relay: see https://postmaster.example/errors/554rlyb1.html",
			"5.7.1 ",
			"5.7.1 AOL will not accept mail from it until this is changed.",
		}},
		LastAttempt: warned, LogID: "01JDEX",
	}
}

func report(recipients ...dsn.Recipient) *dsn.Report {
	return &dsn.Report{
		ReportingMTA: "mail.example.org", To: "me@example.org", Arrival: accepted, Date: warned, MessageID: "report-1@mail.example.org",
		Recipients: recipients, Original: []byte(original),
	}
}

var goldenReports = map[string]*dsn.Report{
	"failed": report(dsn.Recipient{
		Original: rfc822("Team@aol.com"), Final: rfc822("you@aol.com"), Action: dsn.Failed, Status: "5.1.1",
		RemoteMTA: "mailin-01.mx.aol.com", RemoteAddr: "192.0.2.10",
		Diagnostic: dsn.Reply{Code: 550, Lines: []string{"5.1.1 <you@aol.com>: Recipient address rejected: User unknown"}}, LastAttempt: accepted,
		LogID: "01JDEX",
	}),
	"delayed": with(report(
		dsn.Recipient{
			Final: rfc822("you@aol.com"), Action: dsn.Delayed, Status: "4.2.2", RemoteMTA: "mailin-01.mx.aol.com", RemoteAddr: "2001:db8::10",
			Diagnostic: dsn.Reply{Code: 452, Lines: []string{"4.2.2 The mailbox of this user is full"}}, LastAttempt: warned, RetryUntil: gaveUp,
			Advice: "Tell the recipient in another way that the mailbox is full.",
		},
		dsn.Recipient{
			Final: rfc822("they@gone.example"), Action: dsn.Delayed, Status: "4.4.1", LastAttempt: warned, RetryUntil: gaveUp,
			Detail: "no MX host could be reached: mx1.gone.example [192.0.2.66]: connect: connection refused; mx2.gone.example: no route to host",
		},
	), func(r *dsn.Report) { r.HeadersOnly, r.EnvelopeID = true, "QQ 314159" }),
	"multiline": report(openRelay("you@aol.com"), openRelay("us@aol.com"), openRelay("them@aol.com")),
	"expired": with(report(dsn.Recipient{
		Final: rfc822("they@gone.example"), Action: dsn.Failed, Status: "4.4.1", LastAttempt: gaveUp,
		Detail: "no MX host could be reached: mx1.gone.example [192.0.2.66]: connect: connection refused",
	}), func(r *dsn.Report) { r.Date = gaveUp }),
	"smarthost": report(dsn.Recipient{
		Final: rfc822("you@aol.com"), Action: dsn.Failed, Status: "5.7.1", RemoteMTA: "mail.isp.example", RemoteAddr: "198.51.100.7",
		Diagnostic: dsn.Reply{Code: 554, Lines: []string{"5.7.1 <me@example.org>: Sender address rejected: not one of our customers"}},
		Smarthost:  "mail.isp.example", LastAttempt: warned,
		Advice: "Ask your administrator to tell the provider that this address is yours.",
	}),
	"mixed": report(
		dsn.Recipient{Final: rfc822("list@list.example"), Action: dsn.Expanded},
		dsn.Recipient{Final: rfc822("a@b.example"), Action: dsn.Delivered, Status: "2.1.5", RemoteMTA: "b.example"},
		dsn.Recipient{Final: rfc822("c@d.example"), Action: dsn.Relayed, Status: "2.0.0", RemoteMTA: "mx.d.example", RemoteAddr: "192.0.2.30"},
		dsn.Recipient{Final: rfc822("slow@e.example"), Action: dsn.Delayed, Status: "4.4.1", Detail: "mx.e.example: timeout", RetryUntil: gaveUp},
		openRelay("you@aol.com"),
	),
	"utf8":       international(true),
	"utf8-ascii": international(false),
}

func with(r *dsn.Report, change func(*dsn.Report)) *dsn.Report {
	change(r)
	return r
}

func international(global bool) *dsn.Report {
	return &dsn.Report{
		ReportingMTA: "mail.example.org", To: "me@bücher.example", Date: warned, Arrival: accepted, MessageID: "report-2@mail.example.org", UTF8: global,
		Original: []byte(originalUTF8),
		Recipients: []dsn.Recipient{{
			Original: dsn.Address{Type: "utf-8", Addr: "用户+x@例子.example"}, Final: dsn.Address{Type: "utf-8", Addr: "用户@例子.example"},
			Action: dsn.Failed, Status: "5.1.1", RemoteMTA: "mx.xn--fsqu00a.example", RemoteAddr: "192.0.2.40",
			Diagnostic: dsn.Reply{Code: 550, Lines: []string{"5.1.1 这里没有这个人", "5.1.1 Hier gibt es «用户» nicht"}},
		}},
	}
}

func build(t *testing.T, r *dsn.Report) []byte {
	t.Helper()
	mail, err := new(dsn.Builder).Build(r)
	require.NoError(t, err)
	return mail
}

// std: D1 D2 D4 D6 D7 D8 D10
func TestGolden(t *testing.T) {
	for name, r := range goldenReports {
		t.Run(name, func(t *testing.T) {
			got := build(t, r)
			file := filepath.Join("testdata", name+".golden.eml")
			if *update {
				require.NoError(t, os.WriteFile(file, got, 0o644))
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err, "go test -update writes it")
			assert.Equal(t, string(want), string(got))
			assert.Equal(t, got, build(t, r), "the same report is the same mail")
			checkForm(t, got)
			equalReports(t, r, parse(t, got))
		})
	}
}

// checkForm checks what every report must be, with readers that share nothing with the writer.
func checkForm(t *testing.T, report []byte) {
	t.Helper()
	msg, err := mail.ReadMessage(bytes.NewReader(report))
	require.NoError(t, err)
	for _, field := range []string{"From", "To", "Date", "Message-Id", "Subject", "Mime-Version"} {
		assert.Len(t, msg.Header[field], 1, field)
	}
	assert.Equal(t, "auto-replied", msg.Header.Get("Auto-Submitted"))
	_, err = msg.Header.Date()
	require.NoError(t, err)
	mediaType, params, err := mime.ParseMediaType(msg.Header.Get("Content-Type"))
	require.NoError(t, err)
	assert.Equal(t, "multipart/report", mediaType)
	parts := multipartParts(t, msg.Body, params["boundary"])
	require.GreaterOrEqual(t, len(parts), 2)
	assert.Equal(t, "text/plain", parts[0].mediaType)
	assert.Contains(t, []string{"message/delivery-status", "message/global-delivery-status"}, parts[1].mediaType)
	assert.Equal(t, parts[1].mediaType, "message/"+params["report-type"], "RFC 6522, section 3")

	env, err := enmime.ReadEnvelope(bytes.NewReader(report))
	require.NoError(t, err)
	assert.Empty(t, env.Errors, "enmime finds nothing wrong")
	assert.Empty(t, env.HTML)
	assert.Equal(t, string(parts[0].decoded), env.Text)

	status := parts[1].body
	for _, body := range [][]byte{parts[0].body, status} {
		for line := range bytes.Lines(body) {
			assert.LessOrEqual(t, len(line), 1000, "RFC 5322, section 2.1.1: %q", line)
			assert.NotContains(t, string(bytes.TrimSuffix(line, []byte("\r\n"))), "\r", "%q", line)
		}
	}
	for _, c := range string(status) + string(parts[0].decoded) {
		assert.False(t, c < ' ' && !strings.ContainsRune("\r\n\t", c) || c == 0x7f, "control character %q", c)
	}
}

type mimePart struct {
	mediaType, encoding string
	body, decoded       []byte
}

func multipartParts(t *testing.T, body io.Reader, boundary string) (parts []mimePart) {
	t.Helper()
	for r := multipart.NewReader(body, boundary); ; {
		p, err := r.NextRawPart()
		if err == io.EOF {
			return parts
		}
		require.NoError(t, err)
		raw, err := io.ReadAll(p)
		require.NoError(t, err)
		mediaType, _, err := mime.ParseMediaType(p.Header.Get("Content-Type"))
		require.NoError(t, err)
		one := mimePart{mediaType, p.Header.Get("Content-Transfer-Encoding"), raw, raw}
		switch one.encoding {
		case "quoted-printable":
			one.decoded, err = io.ReadAll(quotedprintable.NewReader(bytes.NewReader(raw)))
		case "base64":
			one.decoded, err = io.ReadAll(base64.NewDecoder(base64.StdEncoding, bytes.NewReader(raw)))
		}
		require.NoError(t, err)
		parts = append(parts, one)
	}
}

// partsOf are the parts of a report as Go's own MIME reader sees them.
func partsOf(t *testing.T, report []byte) []mimePart {
	t.Helper()
	msg, err := mail.ReadMessage(bytes.NewReader(report))
	require.NoError(t, err)
	_, params, err := mime.ParseMediaType(msg.Header.Get("Content-Type"))
	require.NoError(t, err)
	return multipartParts(t, msg.Body, params["boundary"])
}

// std: D2
func TestStatusPart(t *testing.T) {
	r := report(openRelay("you@aol.com"), dsn.Recipient{
		Original: rfc822("late@x.example"), Final: rfc822("late@y.example"), Action: dsn.Delayed, Status: "4.4.1", RetryUntil: gaveUp, Detail: "timeout",
	}, dsn.Recipient{Final: rfc822("done@y.example"), Action: dsn.Delivered, RetryUntil: gaveUp})
	r.EnvelopeID, r.DeliverBy = "QQ314159", warned
	parts := partsOf(t, build(t, r))
	assert.Equal(t, "message/delivery-status", parts[1].mediaType)
	assert.Empty(t, parts[1].encoding, "7bit (RFC 3464, section 2.1)")
	assert.Equal(t, []string{
		"Original-Envelope-Id: QQ314159",
		"Reporting-MTA: dns; mail.example.org",
		"Arrival-Date: Tue, 24 Nov 2026 21:31:00 +0000",
		"Deliver-By-Date: " + warned.UTC().Format(time.RFC1123Z),
		"",
		"Final-Recipient: rfc822;you@aol.com",
		"Action: failed",
		"Status: 5.7.1",
		"Remote-MTA: dns; mailin-01.mx.aol.com (192.0.2.10)",
		"Diagnostic-Code: smtp; 554-5.7.1 (RLY:B1) The information presently available",
		" to us indicates that the server",
		"\t554-5.7.1 you are using is an open relay: see",
		" https://postmaster.example/errors/554rlyb1.html",
		"\t554-5.7.1 ",
		"\t554 5.7.1 AOL will not accept mail from it until this is changed.",
		"Last-Attempt-Date: Wed, 25 Nov 2026 01:31:00 +0000",
		"Final-Log-ID: 01JDEX",
		"",
		"Original-Recipient: rfc822;late@x.example",
		"Final-Recipient: rfc822;late@y.example",
		"Action: delayed",
		"Status: 4.4.1",
		"Diagnostic-Code: X-Sortie; timeout",
		"Will-Retry-Until: Sun, 29 Nov 2026 21:31:00 +0000",
		"",
		"Final-Recipient: rfc822;done@y.example",
		"Action: delivered",
		"Status: 2.0.0",
		"",
	}, strings.Split(string(parts[1].body), "\r\n"))
}

// std: D5 D6
func TestLetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Hour)
		r := report(openRelay("you@aol.com"))
		r.Date, r.MessageID = time.Time{}, ""
		var b *dsn.Builder // nil works
		first, err := b.Build(r)
		require.NoError(t, err)
		assert.Equal(t, time.Now(), r.Date)
		assert.Equal(t, "Mail Delivery System <MAILER-DAEMON@mail.example.org>", r.From)

		msg, err := mail.ReadMessage(bytes.NewReader(first))
		require.NoError(t, err)
		date, err := msg.Header.Date()
		require.NoError(t, err)
		assert.True(t, date.Equal(time.Now()), date)
		h := msg.Header
		assert.Equal(t, r.From, h.Get("From"))
		assert.Equal(t, "me@example.org", h.Get("To"))
		assert.Equal(t, "<"+r.MessageID+">", h.Get("Message-Id"))
		assert.Equal(t, "<lunch@example.org>", h.Get("In-Reply-To"))
		assert.Equal(t, "<lunch@example.org>", h.Get("References"))
		assert.Equal(t, "Undelivered mail: Lunch on Friday", h.Get("Subject"))
		assert.Equal(t, "bulk", h.Get("Precedence"))
		assert.Equal(t, "All", h.Get("X-Auto-Response-Suppress"))
		assert.NotContains(t, h, "Return-Path")

		again := report(openRelay("you@aol.com"))
		again.MessageID = ""
		_, err = b.Build(again)
		require.NoError(t, err)
		assert.NotEqual(t, r.MessageID, again.MessageID, "each report has its own Message-ID")
		assert.Regexp(t, `^[A-Z2-7]{26}@mail\.example\.org$`, again.MessageID)
	})
}

func TestFrom(t *testing.T) {
	b := &dsn.Builder{From: "Zustelldienst für Post <post@example.org>"}
	r := report(openRelay("you@aol.com"))
	built, err := b.Build(r)
	require.NoError(t, err)
	msg, err := mail.ReadMessage(bytes.NewReader(built))
	require.NoError(t, err)
	from, err := msg.Header.AddressList("From")
	require.NoError(t, err)
	assert.Equal(t, &mail.Address{Name: "Zustelldienst für Post", Address: "post@example.org"}, from[0])
	r.From = "Other <other@example.org>"
	built, err = b.Build(r)
	require.NoError(t, err)
	assert.Contains(t, string(built), "From: Other <other@example.org>\r\n", "the report's own goes first")
}

// std: D5
func TestBuildErrors(t *testing.T) {
	tests := []struct {
		name   string
		change func(*dsn.Report)
		want   string
	}{
		{"null sender", func(r *dsn.Report) { r.To = "" }, "null sender"},
		{"no host", func(r *dsn.Report) { r.ReportingMTA = "" }, "ReportingMTA"},
		{"host", func(r *dsn.Report) { r.ReportingMTA = "a b" }, `ReportingMTA "a b"`},
		{"host with a field", func(r *dsn.Report) { r.ReportingMTA = "a\r\nBcc: x" }, "ReportingMTA"},
		{"no recipients", func(r *dsn.Report) { r.Recipients = nil }, "Recipients"},
		{"no address", func(r *dsn.Report) { r.Recipients[0].Final.Addr = "" }, "the Final of Recipients[0]"},
		{"no action", func(r *dsn.Report) { r.Recipients[0].Action = "" }, "the Action of Recipients[0]"},
		{"action", func(r *dsn.Report) { r.Recipients[0].Action = "bounced" }, `"bounced"`},
		{"To with a field", func(r *dsn.Report) { r.To = "a@b.example\r\nBcc: c@d.example" }, "the To is no address"},
		{"To with brackets", func(r *dsn.Report) { r.To = "<a@b.example>" }, "the To is no address"},
		{"To without a domain", func(r *dsn.Report) { r.To = "a@ü ö" }, "the domain of To"},
		{"Message-ID", func(r *dsn.Report) { r.MessageID = "<a@b>" }, "MessageID"},
		{"Message-ID with a field", func(r *dsn.Report) { r.MessageID = "a@b>\r\nBcc: <c" }, "MessageID"},
		{"From with a field", func(r *dsn.Report) { r.From = "a@b.example\r\nBcc: c@d.example" }, "From"},
		{"From", func(r *dsn.Report) { r.From = "für mich" }, "From"},
		{"From beyond ASCII", func(r *dsn.Report) { r.From = "M <für@b.example>" }, "From"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := report(openRelay("you@aol.com"))
			test.change(r)
			built, err := new(dsn.Builder).Build(r)
			assert.Nil(t, built)
			require.ErrorContains(t, err, test.want)
			assert.NotContains(t, err.Error(), "\n")
		})
	}
}

// std: D4
func TestOriginal(t *testing.T) {
	const head = "From: a@b.example\r\nSubject: s\r\n"
	latin1 := head + "X-Name: J\xfcrgen\r\n"
	utf8Head := head + "X-Name: Jürgen\r\n"
	long := strings.Repeat("x", 999)
	tests := []struct {
		name, original      string
		headersOnly, utf8   bool
		mediaType, encoding string
		want                string // "" is all of it
	}{
		{name: "whole", original: head + "\r\nbody\r\n", mediaType: "message/rfc822"},
		{name: "without a last line end", original: head + "\r\nbody", mediaType: "message/rfc822"},
		{name: "LF", original: "A: b\n\nbody\n", mediaType: "message/rfc822"},
		{name: "no body", original: head, mediaType: "message/rfc822"},
		{name: "8-bit body", original: head + "\r\nJ\xfcrgen\r\n", mediaType: "message/rfc822", encoding: "8bit"},
		{name: "NUL", original: head + "\r\n\x00\r\n", mediaType: "message/rfc822", encoding: "binary"},
		{name: "CR alone", original: head + "\r\na\rb\r\n", mediaType: "message/rfc822", encoding: "binary"},
		{name: "CR at the end", original: head + "\r\na\r", mediaType: "message/rfc822", encoding: "binary"},
		{name: "two line ends at the end", original: head + "\r\na\n\r\n\n", mediaType: "message/rfc822"},
		{name: "long line", original: head + "\r\n" + long + "\r\n", mediaType: "message/rfc822", encoding: "binary"},
		{name: "header", original: head + "\r\nbody\r\n", headersOnly: true, mediaType: "text/rfc822-headers", want: head},
		{name: "header alone", original: head, headersOnly: true, mediaType: "text/rfc822-headers"},
		{name: "header cut off", original: head + "To: x", headersOnly: true, mediaType: "text/rfc822-headers"},
		{name: "Latin-1 header", original: latin1, headersOnly: true, mediaType: "text/rfc822-headers", encoding: "quoted-printable"},
		{name: "Latin-1, whole", original: latin1 + "\r\nx", mediaType: "message/rfc822", encoding: "8bit"},
		{name: "UTF-8 header", original: utf8Head, headersOnly: true, mediaType: "message/global-headers", encoding: "quoted-printable"},
		{name: "UTF-8 header to UTF-8", original: utf8Head, headersOnly: true, utf8: true, mediaType: "message/global-headers", encoding: "8bit"},
		{name: "UTF-8, whole", original: utf8Head + "\r\nx = \r y \r\n \n\x00", mediaType: "message/global", encoding: "quoted-printable"},
		{name: "UTF-8, whole, to UTF-8", original: utf8Head + "\r\nx", utf8: true, mediaType: "message/global", encoding: "8bit"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := report(openRelay("you@aol.com"))
			r.Original, r.HeadersOnly, r.UTF8 = []byte(test.original), test.headersOnly, test.utf8
			if test.want == "" {
				test.want = test.original
			}
			built := build(t, r)
			parts := partsOf(t, built)
			require.Len(t, parts, 3)
			assert.Equal(t, test.mediaType, parts[2].mediaType)
			assert.Equal(t, test.encoding, parts[2].encoding)
			assert.Equal(t, test.want, string(parts[2].decoded), "as Go's own reader sees it")
			got := parse(t, built)
			assert.Equal(t, test.want, string(got.Original))
			assert.Equal(t, test.headersOnly, got.HeadersOnly)
		})
	}
}

// std: D4
func TestOnlyFailuresReturnTheBody(t *testing.T) {
	for _, action := range []dsn.Action{dsn.Delayed, dsn.Delivered, dsn.Relayed, dsn.Expanded} {
		r := report(dsn.Recipient{Final: rfc822("you@aol.com"), Action: action})
		built := build(t, r)
		assert.NotContains(t, string(built), "At noon?", action)
		assert.Contains(t, string(built), "text/rfc822-headers", action)
		assert.True(t, parse(t, built).HeadersOnly, action)
	}
	r := report(dsn.Recipient{Final: rfc822("you@aol.com"), Action: dsn.Delivered}, openRelay("us@aol.com"))
	assert.Contains(t, string(build(t, r)), "At noon?", "one of several failed")

	r.Original = nil
	assert.Len(t, partsOf(t, build(t, r)), 2, "RFC 6522, section 3: the third part is optional")
}

// A line of the original that looks like the report's boundary does not end the part.
func TestBoundaryInOriginal(t *testing.T) {
	r := report(openRelay("you@aol.com"))
	boundary := func(built []byte) string {
		msg, err := mail.ReadMessage(bytes.NewReader(built))
		require.NoError(t, err)
		_, params, err := mime.ParseMediaType(msg.Header.Get("Content-Type"))
		require.NoError(t, err)
		return params["boundary"]
	}
	first := boundary(build(t, r))
	// Somebody who knows the Message-ID beforehand, and so the boundary.
	r.Original = []byte("Subject: s\r\n\r\n--" + first + "--\r\nmore\r\n --" + first + "\r\n--" + first + "\r\nContent-Type: text/html\r\n\r\n<b>\r\n")
	built := build(t, r)
	assert.NotEqual(t, first, boundary(built))
	assert.Len(t, partsOf(t, built), 3)
	assert.Equal(t, string(r.Original), string(parse(t, built).Original))
}

// std: D10
func TestTextFromStrangers(t *testing.T) {
	nasty := "5.7.1 \x1b[31mred\x1b[0m\x00\x07\r\nAction: delivered\r\n\r\nFinal-Recipient: rfc822;evil@x.example <script>alert(1)</script> " +
		"\u202eoverride\u2028line \xff\xfe"
	r := report(dsn.Recipient{
		Original: rfc822("o@x.example\r\nAction: delivered"), Final: rfc822("f@x.example\n\nFinal-Recipient: rfc822;evil@x.example"),
		Action: dsn.Failed, Status: "5.1.1\r\nX: y", RemoteMTA: "mx.x.example (\r\n\r\n--evil", RemoteAddr: "1.2.3.4)\nX",
		Diagnostic: dsn.Reply{Code: 550, Lines: []string{nasty, "--=_x", "From evil"}}, Detail: nasty, LogID: "a\r\nb", Smarthost: "smtps://user:secret@smart.example\nX",
		Advice: "Do\r\n\r\n--nothing",
	})
	r.EnvelopeID = "a\r\n\r\nFinal-Recipient: rfc822;evil@x.example"
	r.Original = []byte("Subject: " + strings.ReplaceAll(nasty, "\r\n", "\r\n ") + "\r\nMessage-ID: <a\x01@b>\r\n\r\n")
	built := build(t, r)
	checkForm(t, built)
	assert.NotContains(t, string(built), "secret", "std: D10, no credentials")
	got := parse(t, built)
	require.Len(t, got.Recipients, 1)
	to := got.Recipients[0]
	assert.Equal(t, dsn.Failed, to.Action)
	assert.Equal(t, dsn.Status("5.0.0"), to.Status)
	assert.Equal(t, "f@x.example  Final-Recipient: rfc822;evil@x.example", to.Final.Addr)
	assert.Equal(t, "smart.example?X", to.Smarthost)
	require.Len(t, to.Diagnostic.Lines, 3)
	assert.Equal(t, "5.7.1  [31mred [0m    Action: delivered    Final-Recipient: rfc822;evil@x.example <script>alert(1)</script>  override line \ufffd",
		to.Diagnostic.Lines[0])
	assert.Equal(t, "--=_x", to.Diagnostic.Lines[1])

	parts := partsOf(t, built)
	assert.Len(t, parts, 3)
	for line := range strings.Lines(string(parts[0].decoded)) {
		assert.False(t, strings.HasPrefix(line, "From ") || strings.HasPrefix(line, "--"), "%q", line)
	}
	msg, err := mail.ReadMessage(bytes.NewReader(built))
	require.NoError(t, err)
	assert.NotContains(t, msg.Header, "In-Reply-To", "what is no Message-ID is not repeated")
}

// std: D10
func TestLongReply(t *testing.T) {
	lines := make([]string, 100)
	for i := range lines {
		lines[i] = "5.7.1 " + strings.Repeat("word ", 50) + strings.Repeat("x", 2000)
	}
	one := dsn.Recipient{Final: rfc822("you@aol.com"), Action: dsn.Failed, Status: "5.7.1", Diagnostic: dsn.Reply{Code: 550, Lines: lines}}
	built := build(t, report(one))
	checkForm(t, built)
	assert.Less(t, len(built), 40<<10)
	got := parse(t, built).Recipients[0].Diagnostic
	assert.Equal(t, 550, got.Code)
	assert.Greater(t, len(got.Lines), 2)
	assert.Contains(t, got.Lines[len(got.Lines)-1], "[cut]")
	assert.Contains(t, string(partsOf(t, built)[0].decoded), "[cut]")

	many := make([]dsn.Recipient, 2000)
	for i := range many {
		many[i] = one
		many[i].Diagnostic.Lines = append([]string{strings.Repeat("y", i)}, lines...)
	}
	built = build(t, report(many...))
	checkForm(t, built)
	assert.Less(t, len(built), 8<<20)
	assert.Len(t, parse(t, built).Recipients, 2000)
	assert.Less(t, len(partsOf(t, built)[0].decoded), 300<<10, "the part for people stays readable")

	one.Diagnostic.Lines = []string{"5.7.1 " + strings.Repeat("没", 1500), "last"}
	r := report(one)
	r.UTF8 = true
	r.Recipients[0].Final.Addr = strings.Repeat("ü", 3000) + "@x.example"
	built = build(t, r)
	checkForm(t, built)
	cut := parse(t, built).Recipients[0]
	assert.Equal(t, one.Diagnostic.Lines, []string{strings.Join(strings.Fields(cut.Diagnostic.Lines[0])[:1], "") + " " +
		strings.Join(strings.Fields(cut.Diagnostic.Lines[0])[1:], ""), "last"}, "only spaces came in")
	assert.True(t, strings.HasSuffix(cut.Final.Addr, "ü [cut]"), cut.Final.Addr)

	spaces := strings.Repeat(" ", 5000)
	one.Diagnostic.Lines = []string{spaces + "5.7.1" + spaces + "Action: delivered" + spaces}
	one.Detail = one.Diagnostic.Lines[0]
	built = build(t, report(one))
	checkForm(t, built)
	few := spaces[:64]
	to := parse(t, built).Recipients[0]
	assert.Equal(t, []string{few + "5.7.1" + few + "Action: delivered" + few}, to.Diagnostic.Lines)
	assert.Equal(t, "5.7.1"+few+"Action: delivered", to.Detail)
}

// Recipients of whom the same is to be told are told of together, and those beyond a limit counted.
func TestManyRecipients(t *testing.T) {
	var all []dsn.Recipient
	for range 12_000 {
		all = append(all, openRelay("you@aol.com"))
	}
	built := build(t, report(all...))
	text := string(partsOf(t, built)[0].decoded)
	assert.Equal(t, 1, strings.Count(text, "you are using is an open relay"))
	assert.Contains(t, text, "    … and 11900 more\r\n")
	assert.Less(t, len(built), dsn.MaxSize)
	assert.Len(t, parse(t, built).Recipients, 12_000)
}

// std: D8
func TestInternational(t *testing.T) {
	t.Run("global", func(t *testing.T) {
		built := build(t, international(true))
		parts := partsOf(t, built)
		assert.Equal(t, "message/global-delivery-status", parts[1].mediaType)
		assert.Equal(t, "8bit", parts[1].encoding)
		status := string(parts[1].body)
		assert.Contains(t, status, "Final-Recipient: utf-8;用户@例子.example\r\n")
		assert.Contains(t, status, "550-5.1.1 这里没有这个人\r\n")
		assert.Equal(t, "message/global", parts[2].mediaType)
		assert.Contains(t, string(built), "report-type=global-delivery-status")
		assert.Contains(t, string(built), "To: me@bücher.example\r\n")
		assert.Contains(t, string(built), "In-Reply-To: <grüße@bücher.example>\r\n")
		assert.True(t, parse(t, built).UTF8)
	})
	t.Run("ASCII", func(t *testing.T) {
		built := build(t, international(false))
		for i, c := range built {
			require.Less(t, c, byte(0x80), "octet %d", i)
		}
		parts := partsOf(t, built)
		assert.Equal(t, "message/delivery-status", parts[1].mediaType)
		status := string(parts[1].body)
		assert.Contains(t, status, `Original-Recipient: utf-8;\x{7528}\x{6237}\x{2B}x@\x{4F8B}\x{5B50}.example`+"\r\n")
		assert.Contains(t, status, "Diagnostic-Code: smtp; 550-5.1.1\r\n =?utf-8?q?=E8=BF=99")
		assert.Contains(t, string(built), "To: me@xn--bcher-kva.example\r\n")
		assert.NotContains(t, string(built), "In-Reply-To", "it cannot be written")
		assert.Equal(t, "quoted-printable", parts[2].encoding, "RFC 6533, section 4.5")
		assert.Equal(t, originalUTF8, string(parts[2].decoded))
		assert.Contains(t, string(parts[0].decoded), "用户@例子.example", "people read it as it is")
		assert.False(t, parse(t, built).UTF8)
	})
	t.Run("all ASCII", func(t *testing.T) {
		r := report(openRelay("you@aol.com"))
		r.UTF8 = true
		parts := partsOf(t, build(t, r))
		assert.Equal(t, "message/delivery-status", parts[1].mediaType, "RFC 6533, section 4.4")
		assert.Equal(t, "message/rfc822", parts[2].mediaType)
	})
	t.Run("a reader who needs SMTPUTF8", func(t *testing.T) {
		r := international(false)
		r.To = "jürgen@bücher.example"
		built := build(t, r)
		assert.Contains(t, string(built), "To: jürgen@bücher.example\r\n")
		assert.Contains(t, string(built), "message/global-delivery-status")
	})
	t.Run("names of hosts", func(t *testing.T) {
		r := international(false)
		r.ReportingMTA, r.MessageID = "post.bücher.example", ""
		r.Recipients[0].RemoteMTA = "mx.例子.example"
		got := parse(t, build(t, r))
		assert.Equal(t, "post.xn--bcher-kva.example", got.ReportingMTA)
		assert.Contains(t, got.From, "MAILER-DAEMON@post.xn--bcher-kva.example")
		assert.Contains(t, got.MessageID, "@post.xn--bcher-kva.example")
		assert.Equal(t, "mx.??.example", got.Recipients[0].RemoteMTA)
		r.UTF8 = true
		got = parse(t, build(t, r))
		assert.Equal(t, "post.bücher.example", got.ReportingMTA)
		assert.Equal(t, "mx.例子.example", got.Recipients[0].RemoteMTA)
	})
	t.Run("types", func(t *testing.T) {
		r := report(
			dsn.Recipient{Final: dsn.Address{Addr: "plain@x.example"}, Action: dsn.Failed},
			dsn.Recipient{Final: dsn.Address{Type: "rfc822", Addr: "jürgen@x.example"}, Action: dsn.Failed},
			dsn.Recipient{Final: dsn.Address{Type: "x 4 0 0", Addr: "/c=de/"}, Original: dsn.Address{Type: "X400", Addr: "/c=de/"}, Action: dsn.Failed},
		)
		status := string(partsOf(t, build(t, r))[1].body)
		assert.Contains(t, status, "Final-Recipient: rfc822;plain@x.example\r\n")
		assert.Contains(t, status, `Final-Recipient: utf-8;j\x{FC}rgen@x.example`+"\r\n")
		assert.Contains(t, status, "Final-Recipient: rfc822;/c=de/\r\n")
		assert.Contains(t, status, "Original-Recipient: x400;/c=de/\r\n")
	})
}

func text(t *testing.T, r *dsn.Report) string {
	t.Helper()
	return strings.ReplaceAll(string(partsOf(t, build(t, r))[0].decoded), "\r\n", "\n")
}

// What the part for people says. The golden files show the whole of it.
func TestText(t *testing.T) {
	flat := func(r *dsn.Report) string { return strings.Join(strings.Fields(text(t, r)), " ") }
	t.Run("delayed", func(t *testing.T) {
		got := flat(goldenReports["delayed"])
		assert.Contains(t, got, "you need not send it again")
		assert.Contains(t, got, "tried again until Sun, 29 Nov 2026, 21:31 UTC")
		assert.Contains(t, got, "What you can do meanwhile: Tell the recipient")
		assert.Contains(t, got, "The header of your message is attached.")
	})
	t.Run("gave up", func(t *testing.T) {
		got := flat(goldenReports["expired"])
		assert.Contains(t, got, "It was tried again and again for 5 days, the last time on Sun, 29 Nov 2026, 21:31 UTC.")
		assert.Contains(t, got, "What went wrong: no MX host could be reached: mx1")
		r := with(report(openRelay("you@aol.com")), func(r *dsn.Report) {
			r.Arrival = time.Time{}
			r.Recipients[0].Status, r.Recipients[0].LastAttempt = "5.4.7", time.Time{}
		})
		got = flat(r)
		assert.Contains(t, got, "It was tried again and again. It will not be tried any more.")
		assert.NotContains(t, got, "Sent:")
	})
	t.Run("smarthost", func(t *testing.T) {
		got := flat(goldenReports["smarthost"])
		assert.Contains(t, got, "The mail server mail.isp.example [198.51.100.7] refused it, and said: 554 5.7.1 <me@example.org>")
		assert.Contains(t, got, "mail.example.org sends mail for this recipient through mail.isp.example.")
		assert.Contains(t, got, "contact the operator of mail.isp.example")
		assert.Contains(t, got, "What you can do: Ask your administrator to tell the provider that this address is yours.")
	})
	t.Run("advice", func(t *testing.T) {
		for status, want := range map[dsn.Status]string{
			"5.1.1": "Check the address for mistakes", "5.1.2": "after the @", "5.1.10": "after the @", "5.2.2": "mailbox is full",
			"4.2.2": "mailbox is full", "5.3.4": "too large", "5.7.27": "your own address", "5.7.509": "policy", "5.6.3": "simpler form",
			"4.4.7": "again later", "5.4.7": "again later", "5.0.0": "another way", "": "another way",
		} {
			got := flat(report(dsn.Recipient{Final: rfc822("you@aol.com"), Action: dsn.Failed, Status: status}))
			_, advice, _ := strings.Cut(got, "What you can do: ")
			assert.Contains(t, advice, want, "%q", status)
		}
	})
	t.Run("quoted lines stay lines", func(t *testing.T) {
		got := text(t, goldenReports["multiline"])
		assert.Contains(t, got, "    them@aol.com\n\nThe mail server mailin-01.mx.aol.com [192.0.2.10] refused it, and said:\n\n"+
			"    554-5.7.1 (RLY:B1) The information presently available to us indicates\n        that the server\n"+
			"    554-5.7.1 you are using is an open relay: see\n        https://postmaster.example/errors/554rlyb1.html\n"+
			"    554-5.7.1\n    554 5.7.1 AOL will not accept mail from it until this is changed.\n\n")
	})
	t.Run("several kinds", func(t *testing.T) {
		got := text(t, goldenReports["mixed"])
		for _, part := range []string{
			"could not be delivered to:\n\n    you@aol.com", "not been delivered yet to:\n\n    slow@e.example", "was delivered to:\n\n    a@b.example",
			"reports nothing further, for:\n\n    c@d.example", "sent\non to them:\n\n    list@list.example",
		} {
			i := strings.Index(got, part)
			require.GreaterOrEqual(t, i, 0, "%q in this order in %s", part, got)
			got = got[i:]
		}
	})
	t.Run("subject", func(t *testing.T) {
		subject := func(r *dsn.Report) string {
			env, err := enmime.ReadEnvelope(bytes.NewReader(build(t, r)))
			require.NoError(t, err)
			return env.GetHeader("Subject")
		}
		r := report(openRelay("you@aol.com"))
		r.Original = []byte("Subject: =?iso-8859-1?q?Gr=FC=DFe?= aus\r\n =?ISO-2022-JP?B?GyRCRnxLXBsoQg==?=\r\n\r\n")
		assert.Equal(t, "Undelivered mail: Grüße aus 日本", subject(r))
		r.Original = []byte("Subject: " + strings.Repeat("ü", 5000) + "\r\n\r\n")
		assert.Equal(t, "Undelivered mail: "+strings.Repeat("ü", 100)+" [cut]", subject(r))
		r.Original = nil
		assert.Equal(t, "Undelivered mail", subject(r))
		assert.Equal(t, "Delayed mail: Lunch on Friday", subject(goldenReports["delayed"]))
		assert.Equal(t, "Delivered mail: Lunch on Friday", subject(report(dsn.Recipient{Final: rfc822("a@b.example"), Action: dsn.Delivered})))
	})
}

func TestTemplates(t *testing.T) {
	german, err := dsn.ParseTemplates(os.DirFS("testdata/templates"))
	require.NoError(t, err)
	language := "de"
	b := &dsn.Builder{Templates: german, Language: func(*dsn.Report) string { return language }}
	partOne := func() string {
		built, err := b.Build(report(openRelay("you@aol.com")))
		require.NoError(t, err)
		checkForm(t, built)
		return string(built)
	}
	for _, language = range []string{"de", "DE", "de-AT", "de-CH-1996"} {
		assert.Contains(t, partOne(), "Die Nachricht wurde nicht zugestellt an:", language)
		assert.Contains(t, partOne(), "Content-Language: de\r\n", language)
	}
	for _, language = range []string{"", "en", "fr", "d", "de_AT", "-", "../de"} {
		assert.Contains(t, partOne(), "could not be delivered to", language)
	}

	for text, want := range map[string]string{
		`{{define "subject"}}x{{end}}`:                                 "text",
		`{{define "text"}}x{{end}}`:                                    "subject",
		`{{define "subject"}}{{.Nix}}{{end}}{{define "text"}}x{{end}}`: "Nix",
		`{{define "subject"}}x{{end}}{{define "text"}}{{range .Groups}}{{if .Delayed}}{{.No}}{{end}}{{end}}{{end}}`: "No",
		`{{define "subject"`: "x.txt",
	} {
		_, err := dsn.ParseTemplates(fstest.MapFS{"x.txt": {Data: []byte(text)}})
		require.ErrorContains(t, err, "dsn: templates: ", text)
		assert.ErrorContains(t, err, want)
		assert.ErrorContains(t, err, "x.txt")
	}
	_, err = dsn.ParseTemplates(fstest.MapFS{"de.html": {}})
	assert.ErrorContains(t, err, ".txt")
	_, err = dsn.ParseTemplates(fstest.MapFS{"de.txt/x": {}})
	assert.Error(t, err)
}

// A template that fails only on some report does not cost the report.
func TestTemplateThatFails(t *testing.T) {
	templates, err := dsn.ParseTemplates(fstest.MapFS{"en.txt": {Data: []byte(
		`{{define "subject"}}mine{{end}}{{define "text"}}{{if eq .To "me@example.org"}}{{index .Groups 99}}{{end}}{{end}}`)}})
	require.NoError(t, err)
	built, err := (&dsn.Builder{Templates: templates}).Build(report(openRelay("you@aol.com")))
	require.NoError(t, err)
	assert.Contains(t, string(built), "could not be delivered to")
}

func BenchmarkBuild(b *testing.B) {
	r := report(openRelay("you@aol.com"))
	builder := new(dsn.Builder)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := builder.Build(r); err != nil {
			b.Fatal(err)
		}
	}
}
