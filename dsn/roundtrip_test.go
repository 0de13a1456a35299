package dsn_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sortie-mail/sortie/dsn"
)

// equalReports checks that got, which was read, is what was written of want.
func equalReports(t require.TestingT, want, got *dsn.Report) {
	expected := *want
	expected.UTF8 = got.UTF8 // depends on what was written
	if want.To != got.To {   // its domain was written as an A-label
		assert.False(t, want.UTF8)
		assert.Contains(t, got.To, "xn--")
		expected.To = got.To
	}
	failed := false
	expected.Recipients = nil
	for _, r := range want.Recipients {
		failed = failed || r.Action == dsn.Failed
		r.Advice = ""
		if r.Status == "" {
			r.Status = map[dsn.Action]dsn.Status{dsn.Failed: "5.0.0", dsn.Delayed: "4.0.0"}[r.Action]
			if r.Status == "" {
				r.Status = "2.0.0"
			}
		}
		expected.Recipients = append(expected.Recipients, r)
	}
	expected.HeadersOnly = expected.HeadersOnly || !failed
	if expected.HeadersOnly {
		expected.Original = header(want.Original)
	}
	if len(expected.Original) == 0 {
		expected.Original, expected.HeadersOnly = nil, false
	}
	require.Equal(t, string(expected.Original), string(got.Original))
	require.Equal(t, &expected, got)
}

func header(message []byte) []byte {
	for at := 0; at < len(message); {
		line, _, found := bytes.Cut(message[at:], []byte("\n"))
		if found && (len(line) == 0 || string(line) == "\r") {
			return message[:at]
		}
		at += len(line) + 1
	}
	return message
}

// What Builder wrote, Parse reads back equal.
//
// std: D1 D2 D4 D8 D10
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := genReport().Draw(t, "report")
		built, err := new(dsn.Builder).Build(r)
		require.NoError(t, err)
		if !r.UTF8 && !hasHighBody(r) {
			for i, c := range built {
				require.Less(t, c, byte(0x80), "octet %d of a report in ASCII", i)
			}
		}
		got, err := dsn.Parse(bytes.NewReader(built))
		require.NoError(t, err)
		equalReports(t, r, got)
	})
}

// hasHighBody reports whether the original is one that goes out as 8-bit whatever its reader takes.
func hasHighBody(r *dsn.Report) bool {
	return strings.ContainsFunc(string(r.Original), func(c rune) bool { return c >= 0x80 })
}

func genReport() *rapid.Generator[*dsn.Report] {
	return rapid.Custom(func(t *rapid.T) *dsn.Report {
		return &dsn.Report{
			ReportingMTA: genHost().Draw(t, "host"),
			EnvelopeID:   genGraphic(100).Draw(t, "envid"),
			Arrival:      genTime().Draw(t, "arrival"),
			DeliverBy:    genTime().Draw(t, "deliverBy"),
			Recipients:   rapid.SliceOfN(genRecipient(), 1, 5).Draw(t, "recipients"),
			From:         "Mail Delivery System <MAILER-DAEMON@mail.example.org>",
			To:           rapid.SampledFrom([]string{"me@example.org", `"a b\"c"@example.org`, "a+b=c@[192.0.2.1]"}).Draw(t, "to"),
			Date:         accepted,
			MessageID:    "report@mail.example.org",
			UTF8:         rapid.Bool().Draw(t, "utf8"),
			Original:     genOriginal().Draw(t, "original"),
			HeadersOnly:  rapid.Bool().Draw(t, "headersOnly"),
		}
	})
}

func genRecipient() *rapid.Generator[dsn.Recipient] {
	return rapid.Custom(func(t *rapid.T) dsn.Recipient {
		r := dsn.Recipient{
			Final:       genAddress().Draw(t, "final"),
			Action:      rapid.SampledFrom([]dsn.Action{dsn.Failed, dsn.Delayed, dsn.Delivered, dsn.Relayed, dsn.Expanded}).Draw(t, "action"),
			Status:      rapid.SampledFrom([]dsn.Status{"", "2.0.0", "4.4.7", "5.1.1", "5.7.509"}).Draw(t, "status"),
			RemoteMTA:   rapid.OneOf(rapid.Just(""), genHost()).Draw(t, "remoteMTA"),
			RemoteAddr:  genIP().Draw(t, "remoteAddr"),
			Detail:      strings.TrimSpace(genText().Draw(t, "detail")),
			LastAttempt: genTime().Draw(t, "lastAttempt"),
			LogID:       genGraphic(100).Draw(t, "logID"),
			Smarthost:   rapid.OneOf(rapid.Just(""), rapid.Just("192.0.2.3"), genHost()).Draw(t, "smarthost"),
			Advice:      genText().Draw(t, "advice"),
		}
		if rapid.Bool().Draw(t, "original?") {
			r.Original = genAddress().Draw(t, "original")
		}
		if r.Action == dsn.Delayed {
			r.RetryUntil = genTime().Draw(t, "retryUntil")
		}
		if rapid.Bool().Draw(t, "reply?") {
			r.Diagnostic = dsn.Reply{
				Code:  rapid.IntRange(200, 599).Draw(t, "code"),
				Lines: rapid.SliceOfN(genText(), 1, 6).Draw(t, "lines"),
			}
		}
		return r
	})
}

// genText makes one line of text that has much that could be taken for something else.
func genText() *rapid.Generator[string] {
	word := rapid.OneOf(
		rapid.SampledFrom([]string{
			"", "", "550", "550-5.7.1", "5.7.1", "=?utf-8?q?x?=", "=?", "?=", "smtp;", "X-Sortie;", "Action:", "--b", "(comment)", `\x{41}`, "ü",
			"没有", "𝕏", ";", "Final-Recipient: rfc822;a@b", "\u00a0", "ﬁ", "e\u0301",
		}),
		rapid.StringMatching(`[!-~]{1,100}`),
		rapid.StringMatching(`[à-ÿ]{1,40}`),
	)
	return rapid.Map(rapid.SliceOfN(word, 0, 40), func(words []string) string { return strings.Join(words, " ") })
}

func genGraphic(most int) *rapid.Generator[string] {
	return rapid.Map(rapid.StringMatching(fmt.Sprintf(`[ -~]{0,%d}`, most)), strings.TrimSpace)
}

func genHost() *rapid.Generator[string] {
	return rapid.StringMatching(`[a-z][a-z0-9-]{0,20}(\.[a-z][a-z0-9]{0,20}){1,3}`)
}

func genIP() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.Just(""),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 4, 4), func(b []byte) string { return netip.AddrFrom4([4]byte(b)).String() }),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 16, 16), func(b []byte) string { return netip.AddrFrom16([16]byte(b)).String() }),
	)
}

func genAddress() *rapid.Generator[dsn.Address] {
	return rapid.OneOf(
		rapid.Map(rapid.StringMatching(`[a-zA-Z0-9!#$%&'*+/=?^_{|}~.-]{1,64}@[a-z]{1,20}\.example`), rfc822),
		rapid.Map(rapid.StringMatching(`"[ !#-\[\]-~]{0,20}(\\"|\\\\|\\x\{41\})?"@\[192\.0\.2\.1\]`), rfc822),
		rapid.Map(rapid.StringMatching(`[a-zà-ÿ用户𝕏+=]{1,40}@[a-zà-ÿ]{1,20}\.example`), func(s string) dsn.Address { return dsn.Address{Type: "utf-8", Addr: s} }),
		rapid.Map(rapid.StringMatching(`"[ à-ÿ+=]{0,20}(\\"|\\\\|\\x\{41\})?"@例子\.example`), func(s string) dsn.Address { return dsn.Address{Type: "utf-8", Addr: s} }),
		rapid.Just(dsn.Address{Type: "x400", Addr: "/G=Jane/S=Doe/O=Example/C=DE/"}),
	)
}

func genTime() *rapid.Generator[time.Time] {
	return rapid.Custom(func(t *rapid.T) time.Time {
		if rapid.Bool().Draw(t, "zero") {
			return time.Time{}
		}
		return time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "unix"), 0).UTC()
	})
}

// genOriginal makes messages of any octets, many of them with what ends lines, fields, header sections and parts.
func genOriginal() *rapid.Generator[[]byte] {
	piece := rapid.OneOf(
		rapid.SampledFrom([]string{
			"Subject: x\r\n", "Message-ID: <a@b>\r\n", "\r\n", "\n", "\r", "\r\n\r\n", "--", "--=_", "=\r\n", "=3D", " \r\n", "\t\r\n", "From a\r\n", ".\r\n",
			"Subject: grüße\r\n", "ü", "\x00", "\xff", "Content-Type: message/delivery-status\r\n\r\n", strings.Repeat("x", 1200),
		}),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 20), func(b []byte) string { return string(b) }),
	)
	return rapid.Map(rapid.SliceOfN(piece, 0, 12), func(pieces []string) []byte { return []byte(strings.Join(pieces, "")) })
}
