package queue_test

import (
	"errors"
	"io"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/queue"
)

// reception is how a message came from a client of 192.0.2.7.
func reception(change ...func(*queue.Reception)) *queue.Reception {
	r := &queue.Reception{
		Host: "relay.test", ID: "t1", Helo: "client.test", Client: netip.MustParseAddr("192.0.2.7"), ESMTP: true,
		Envelope: &queue.Envelope{From: "ann@example.org", To: queue.To("bob@aol.test")},
		Time:     time.Date(2026, 11, 24, 21, 31, 5, 0, time.FixedZone("", 3600)),
	}
	for _, c := range change {
		c(r)
	}
	return r
}

// std: C21
func TestReceived(t *testing.T) {
	type change = func(*queue.Reception)
	const by, date = "\r\n\tby relay.test with ", "; Tue, 24 Nov 2026 21:31:05 +0100\r\n"
	const from = "Received: from client.test ([192.0.2.7])"
	const to = "\r\n\tfor <bob@aol.test>"
	tests := map[string]struct {
		change change
		want   string
	}{
		"ESMTP":      {func(r *queue.Reception) {}, from + by + "ESMTP id t1" + to + date},
		"SMTP":       {func(r *queue.Reception) { r.ESMTP = false }, from + by + "SMTP id t1" + to + date},
		"ESMTPS":     {func(r *queue.Reception) { r.TLS = "TLS_AES_128_GCM_SHA256" }, from + by + "ESMTPS id t1" + to + "\r\n\ttls TLS_AES_128_GCM_SHA256" + date},
		"ESMTPA":     {func(r *queue.Reception) { r.Auth = true }, from + by + "ESMTPA id t1" + to + date},
		"ESMTPSA":    {func(r *queue.Reception) { r.TLS, r.Auth = "X", true }, from + by + "ESMTPSA id t1" + to + "\r\n\ttls X" + date},
		"UTF8SMTP":   {func(r *queue.Reception) { r.Envelope.UTF8 = true }, from + by + "UTF8SMTP id t1" + to + date},
		"UTF8SMTPSA": {func(r *queue.Reception) { r.Envelope.UTF8, r.TLS, r.Auth = true, "X", true }, from + by + "UTF8SMTPSA id t1" + to + "\r\n\ttls X" + date},
		"several":    {func(r *queue.Reception) { r.Envelope.To = queue.To("bob@aol.test", "eve@aol.test") }, from + by + "ESMTP id t1" + date},
		"no address": {func(r *queue.Reception) { r.Envelope.To = queue.To("bob@aol.test>\r\nX: y") }, from + by + "ESMTP id t1" + date},
		"8-bit":      {func(r *queue.Reception) { r.Envelope.To = queue.To("b\u00f6b@aol.test") }, from + by + "ESMTP id t1" + date},
		"odd name":   {func(r *queue.Reception) { r.Helo = "a\r\nX: (\u00e4) \x00" }, "Received: from a??X:?????? ([192.0.2.7])" + by + "ESMTP id t1" + to + date},
		"no name":    {func(r *queue.Reception) { r.Helo, r.Client = "", netip.MustParseAddr("2001:db8::7") }, "Received: from [IPv6:2001:db8::7] ([IPv6:2001:db8::7])" + by + "ESMTP id t1" + to + date},
		"mapped":     {func(r *queue.Reception) { r.Client = netip.MustParseAddr("::ffff:192.0.2.7") }, from + by + "ESMTP id t1" + to + date},
		"nowhere":    {func(r *queue.Reception) { r.Client = netip.Addr{} }, "Received: from client.test (unknown)" + by + "ESMTP id t1" + to + date},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.want, reception(test.change).Received())
		})
	}
}

// A relay adds nothing but Received, a submission what a message must have and this one has not.
//
// std: C21 C22
func TestReceptionReader(t *testing.T) {
	const date, id, from = "Date: Tue, 24 Nov 2026 21:31:05 +0100\r\n", "Message-ID: <t1@relay.test>\r\n", "From: <ann@example.org>\r\n"
	for name, test := range map[string]struct{ sent, relayed, submitted string }{
		"complete":            {date + plain, date + plain, date + plain},
		"nothing":             {"Subject: x\r\n\r\nDate: in the text\r\n", "Subject: x\r\n\r\nDate: in the text\r\n", "Subject: x\r\n" + date + id + from + "\r\nDate: in the text\r\n"},
		"one":                 {"message-id : <x@y>\r\nFROM: a\r\n\r\n", "message-id : <x@y>\r\nFROM: a\r\n\r\n", "message-id : <x@y>\r\nFROM: a\r\n" + date + "\r\n"},
		"folded":              {"X: y\r\n Date: z\r\n\tFrom: z\r\n\r\n", "X: y\r\n Date: z\r\n\tFrom: z\r\n\r\n", "X: y\r\n Date: z\r\n\tFrom: z\r\n" + date + id + from + "\r\n"},
		"empty":               {"", "", date + id + from},
		"empty header":        {"\r\nText\r\n", "\r\nText\r\n", date + id + from + "\r\nText\r\n"},
		"header alone":        {"Subject: x\r\n", "Subject: x\r\n", "Subject: x\r\n" + date + id + from},
		"no last line end":    {"Subject: x", "Subject: x", "Subject: x\r\n" + date + id + from},
		"no header":           {"Dear Bob,\r\n", "\r\nDear Bob,\r\n", date + id + from + "\r\nDear Bob,\r\n"},
		"broken header":       {"Subject: x\r\nDear Bob\r\n", "Subject: x\r\nDear Bob\r\n", "Subject: x\r\n" + date + id + from + "Dear Bob\r\n"},
		"Return-Path":         {"Return-Path: <x@y>\r\nDate: d\r\nreturn-path:\r\n folded\r\n\r\nReturn-Path: text\r\n", "Date: d\r\n\r\nReturn-Path: text\r\n", "Date: d\r\n" + id + from + "\r\nReturn-Path: text\r\n"},
		"Return-Path at last": {"Date: d\r\nReturn-Path: <x@y>", "Date: d\r\n", "Date: d\r\n" + id + from},
	} {
		t.Run(name, func(t *testing.T) {
			for submission, want := range map[bool]string{false: test.relayed, true: test.submitted} {
				r := reception(func(r *queue.Reception) { r.Submission = submission })
				got, err := io.ReadAll(r.Reader(strings.NewReader(test.sent)))
				require.NoError(t, err)
				assert.Equal(t, r.Received()+want, string(got))
			}
		})
	}
	for _, from := range []string{"", "\u00e4@example.org", "x\r\n@y"} { // nobody's From, or one that may not stand in this header
		r := reception(func(r *queue.Reception) { r.Submission, r.Envelope.From = true, from })
		got, err := io.ReadAll(r.Reader(strings.NewReader("\r\n")))
		require.NoError(t, err)
		assert.Equal(t, r.Received()+date+id+"\r\n", string(got))
	}
	broken := errors.New("broken off")
	got, err := io.ReadAll(reception(func(r *queue.Reception) { r.Submission = true }).Reader(io.MultiReader(strings.NewReader("Subject: x\r\n"), iotest.ErrReader(broken))))
	assert.ErrorIs(t, err, broken)
	assert.True(t, strings.HasSuffix(string(got), "Subject: x\r\n"), "what is broken off is not completed")
}

// headerPiece is how much of a header is looked at in one piece.
const headerPiece = 4 << 10

func FuzzReception(f *testing.F) {
	for _, seed := range []string{
		"", "\r\n", "a", "A: b\r\n\r\nbody", "Return-Path: <x>\r\nA: b\r\n\r\nReturn-Path: y\r\n", "A: b\r\n Return-Path: z\r\nRETURN-PATH: x\r\n\ty\r\n\r\n",
		"Return-Path: " + strings.Repeat("x", 3*headerPiece) + "\r\nA: b\r\n\r\n", "A: " + strings.Repeat("y", 3*headerPiece) + "\r\nReturn-Path: x", "none\r\nReturn-Path: x\r\n",
		"Dear Bob,\r\nA: b", " A: b", "Return-Path: x\r\n y\r\nz", ">From x\r\nA: b", "A : b", ": b", "\x80: b", "Date: x\r\nFrom : y\r\n\r\nz", "date: x", "From: " + strings.Repeat("y", headerPiece),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		head, rest := withoutReturnPath(text)
		for _, submission := range []bool{false, true} {
			r := reception(func(r *queue.Reception) { r.Submission = submission })
			want := r.Received() + head + rest
			if submission {
				want = r.Received() + complete(head, rest)
			}
			for _, in := range []io.Reader{strings.NewReader(text), iotest.HalfReader(strings.NewReader(text)), iotest.DataErrReader(strings.NewReader(text))} {
				got, err := io.ReadAll(r.Reader(in))
				require.NoError(t, err)
				require.Equal(t, want, string(got))
			}
			got, err := io.ReadAll(iotest.OneByteReader(r.Reader(strings.NewReader(text))))
			require.NoError(t, err)
			require.Equal(t, want, string(got))
		}
	})
}

var (
	noHeader  = regexp.MustCompile(`^[^\r\n]`)
	hasHeader = regexp.MustCompile(`^(>*From |[!-9;-~]+[ \t]*:)`)
)

// withoutReturnPath says what a Reader passes on, with all of the message at hand: the header, and what comes after it.
func withoutReturnPath(text string) (head, rest string) {
	var b strings.Builder
	drop := false
	lines := strings.SplitAfter(text, "\n")
	for i, line := range lines {
		first := line[:min(len(line), headerPiece)]
		if b.Len() == 0 && !(drop && strings.Trim(line[:min(len(line), 1)], " \t") == "") && noHeader.MatchString(line) && !hasHeader.MatchString(first) {
			return "", "\r\n" + strings.Join(lines[i:], "")
		}
		if !strings.HasPrefix(line, " ") && !strings.HasPrefix(line, "\t") && line != "" {
			if strings.Index(first, ":") <= 0 {
				return b.String(), strings.Join(lines[i:], "")
			}
			drop = len(line) >= 12 && strings.EqualFold(line[:12], "return-path:")
		}
		if !drop {
			b.WriteString(line)
		}
	}
	return b.String(), ""
}

// complete adds to a header what a submission adds.
func complete(head, rest string) string {
	added := ""
	for _, f := range []struct{ name, line string }{
		{"Date", "Date: Tue, 24 Nov 2026 21:31:05 +0100\r\n"}, {"Message-ID", "Message-ID: <t1@relay.test>\r\n"}, {"From", "From: <ann@example.org>\r\n"},
	} {
		if !regexp.MustCompile(`(?im)^` + f.name + `[ \t]*:`).MatchString(head) {
			added += f.line
		}
	}
	if added != "" && rest == "" && head != "" && !strings.HasSuffix(head, "\n") {
		head += "\r\n"
	}
	return head + added + rest
}
