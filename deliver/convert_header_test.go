package deliver

import (
	"mime"
	"net/mail"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// std: C10
func TestConvertHeaderFields(t *testing.T) {
	long := strings.Repeat("Übersicht ", 6)
	for name, tt := range map[string]struct{ field, want string }{
		"subject":                 {"Subject: Grüße aus Köln", "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= aus =?utf-8?q?K=C3=B6ln?="},
		"words together":          {"Subject: a  ä  ö b", "Subject: a  =?utf-8?b?w6QgIMO2?= b"},
		"folded":                  {"Subject: a\r\n\tä", "Subject: a\t=?utf-8?q?=C3=A4?="},
		"base64":                  {"Subject: Привет", "Subject: =?utf-8?b?0J/RgNC40LLQtdGC?="},
		"not UTF-8":               {"Subject: \xe4 b", "Subject: =?unknown-8bit?q?=E4?= b"},
		"encoded-words stay":      {"Subject: =?utf-8?q?a?= ä =?utf-8?q?b?= c", "Subject: =?utf-8?q?a?= =?utf-8?q?_=C3=A4_?= =?utf-8?q?b?= c"},
		"unknown field":           {"X-Unknown: <ä>; b", "X-Unknown: =?utf-8?b?PMOkPjs=?= b"},
		"description":             {"Content-Description: Ü", "Content-Description: =?utf-8?q?=C3=9C?="},
		"control characters":      {"Subject: ä\x01\x7f", "Subject: =?utf-8?q?=C3=A4=01=7F?="},
		"address":                 {"From: ä <a@ö.example>", "From: =?utf-8?q?=C3=A4?= <a@xn--nda.example>"},
		"address alone":           {"From: a@ö.example", "From: a@xn--nda.example"},
		"quoted name":             {`To: "Ä, \"B\"" <a@b>, "C, D" <c@d>`, `To: =?utf-8?q?=C3=84=2C_=22B=22?= <a@b>, "C, D" <c@d>`},
		"quoted local part":       {`To: "a b,<>"@ö.example`, `To: "a b,<>"@xn--nda.example`},
		"comments":                {"Cc: (ä) a@b (c (\\)ö))", "Cc: a@b (=?utf-8?q?=C3=A4?=) (=?utf-8?q?c_=28=29=C3=B6=29?=)"},
		"comment after angle":     {"Cc: A <a@b> (ö)", "Cc: A <a@b> (=?utf-8?q?=C3=B6?=)"},
		"group":                   {"To: Grün: a@b, Ü <c@d>;, x: ;", "To: =?utf-8?q?Gr=C3=BCn?=: a@b, =?utf-8?q?=C3=9C?= <c@d>;, x:;"},
		"name encoded in part":    {"To: =?utf-8?q?=C3=A4?= ö <a@b>", "To: =?utf-8?b?w6Qgw7Y=?= <a@b>"},
		"no address":              {"To: jeder, ünbekannt", "To: jeder, =?utf-8?q?=C3=BCnbekannt?="},
		"unclosed":                {`To: "ä <a@b>`, "To: =?utf-8?q?=C3=A4_=3Ca=40b=3E?="},
		"bracket in a local part": {`To: ä <"a>b"@c>`, `To: =?utf-8?q?=C3=A4?= <"a>b"@c>`},
		"literal":                 {"To: ä <a@[IPv6:2001:db8::1]>", "To: =?utf-8?q?=C3=A4?= <a@[IPv6:2001:db8::1]>"},
		"file name":               {`Content-Disposition: attachment; filename="ä;\"b.txt"; size=1`, `Content-Disposition: attachment; filename*=utf-8''%C3%A4%3B%22b.txt; size=1`},
		"file name, not UTF-8":    {"Content-Disposition: inline; filename=\xe4", "Content-Disposition: inline; filename*=unknown-8bit''%E4"},
		"file name in sections":   {`Content-Type: a/b; name*0="ä"; name*1=" ö"`, "Content-Type: a/b; name*0*=utf-8''%C3%A4; name*1*=%20%C3%B6"},
		"file name, half done":    {"Content-Type: a/b; name*=utf-8''ä%20ö", "Content-Type: a/b; name*=utf-8''%C3%A4%20%C3%B6"},
		"long file name": {
			`Content-Type: a/b; name="` + long + `"`,
			"Content-Type: a/b;\r\n name*0*=utf-8''%C3%9Cbersicht%20%C3%9Cbersicht%20%C3%9Cber;\r\n name*1*=sicht%20%C3%9Cbersicht%20%C3%9Cbersicht%20%C3%9Cbe;\r\n name*2*=rsicht%20",
		},
		"type":        {"Content-Type: text/plain (ä); charset=utf-8", "Content-Type: text/plain (?); charset=utf-8"},
		"trace":       {"Received: from ö.example (ö) by b for <a@ö.example>; date", "Received: from xn--nda.example (=?utf-8?q?=C3=B6?=) by b for\r\n <a@xn--nda.example>; date"},
		"trace, FOR":  {"Received: from a by b with UTF8SMTP for <ä@b>; date", "Received: from a by b with UTF8SMTP (=?utf-8?q?=C3=A4=40b?=); date"},
		"date":        {"Date: Wed, 25 Nov 2026 00:00:00 +0000 (Ä)", "Date: Wed, 25 Nov 2026 00:00:00 +0000 (=?utf-8?q?=C3=84?=)"},
		"list":        {"List-Unsubscribe: <http://a/ä>, <mailto:b> ö", "List-Unsubscribe: <http://a/%C3%A4>, <mailto:b> =?utf-8?q?=C3=B6?="},
		"message id":  {"Message-ID: <ä@b>", "Downgraded-Message-ID: =?utf-8?b?PMOkQGI+?="},
		"ASCII":       {"Subject:   as \t it  is ", "Subject:   as \t it  is "},
		"odd name":    {"Subject \t: ä", "Subject \t: =?utf-8?q?=C3=A4?="},
		"name and CR": {"Subject: ä", "Subject: =?utf-8?q?=C3=A4?="},
	} {
		t.Run(name, func(t *testing.T) {
			got, e := converted(t, tt.field+"\r\nX: y\r\nTo: b@c\r\nX-Ä: no field\r\n", ascii)
			if isASCII(tt.field) {
				got, e = converted(t, "Subject: ä\r\n"+tt.field+"\r\n", ascii)
				_, got, _ = strings.Cut(got, "\r\n")
				require.Nil(t, e)
				assert.Equal(t, tt.want+"\r\n", got)
				return
			}
			require.Nil(t, e)
			assert.Equal(t, tt.want+"\r\nX: y\r\nTo: b@c\r\nX-Ä: no field\r\n", got)
			again, _, err := need{asciiHeader: true}.field([]byte(tt.want+"\r\n"), false)
			require.NoError(t, err)
			assert.Equal(t, tt.want+"\r\n", string(again))
		})
	}
}

// std: C10
func TestAddressesThatNeedUTF8(t *testing.T) {
	for _, field := range []string{
		"From: ä@example.org", "To: a@b, x <ä@example.org>", "Cc: \"ä\"@example.org", "Reply-To: Gruppe: ä@b;",
		"Sender: a <\xe4@b>", "Bcc: <ä>", "To: a@-ä.example", "Return-Path: <ä@b>",
	} {
		_, e := converted(t, field+"\r\n\r\nhello\r\n", ascii)
		require.NotNil(t, e, field)
		assert.Equal(t, "5.6.7", e.status.String())
		assert.Contains(t, e.Error(), "the header has an address that needs SMTPUTF8")
	}
	nested := "MIME-Version: 1.0\nSubject: ä\nContent-Type: message/rfc822\n\nFrom: ä@b\n\nhello\n"
	got, e := converted(t, nested, ascii)
	require.Nil(t, e, "the transport asks nothing of the header of a message in the message")
	assert.Contains(t, got, "\nFrom: ä@b\n")
	_, e = converted(t, nested, need{sevenBit: true})
	require.NotNil(t, e)
	assert.Equal(t, "5.6.7", e.status.String())
}

// What is in encoded-words reads as it did, and lines are as short as they should be.
//
// std: C10
func TestEncodedHeadersRead(t *testing.T) {
	var decode mime.WordDecoder
	for _, text := range []string{
		"ä", "Grüße aus Köln an alle, die es lesen wollen, und noch viele andere Wörter, damit es lang wird",
		"Привет, мир! Это длинная тема, которая должна быть разбита на несколько слов", strings.Repeat("ä", 500),
		strings.Repeat("日本語 ", 50) + "x", "a =?utf-8?q?=C3=A4?= b ä", "ä =?x?=", "(ä) \"ö\" <ü>", strings.Repeat("a ä ", 40) + "b",
	} {
		for _, name := range []string{"Subject", "Comments", "X-A-Field-With-A-Long-Name"} {
			out, _, err := need{asciiHeader: true}.field([]byte(name+": "+text+"\r\n"), false)
			require.NoError(t, err)
			for line := range strings.Lines(string(out)) {
				assert.LessOrEqual(t, len(line), 76+2, "%q", line)
			}
			for word := range strings.FieldsSeq(string(out)) {
				if one, err := decode.Decode(word); err == nil {
					assert.True(t, utf8.ValidString(one), "no character is in two words (RFC 2047, section 5)")
				}
			}
			m, err := mail.ReadMessage(strings.NewReader(string(out) + "\r\n"))
			require.NoError(t, err)
			got, err := decode.DecodeHeader(m.Header.Get(name))
			require.NoError(t, err)
			want, err := decode.DecodeHeader(text)
			require.NoError(t, err)
			assert.Equal(t, strings.TrimSpace(want), got)
		}
		out, _, err := need{asciiHeader: true}.field([]byte("To: \""+strings.NewReplacer(`"`, `\"`, "=?", "").Replace(text)+"\" <a@b>, c@d\r\n"), false)
		require.NoError(t, err)
		m, err := mail.ReadMessage(strings.NewReader(string(out) + "\r\n"))
		require.NoError(t, err)
		list, err := m.Header.AddressList("To")
		require.NoError(t, err, "%s", out)
		require.Len(t, list, 2)
		assert.Equal(t, "a@b", list[0].Address)
		assert.Equal(t, strings.TrimRight(strings.ReplaceAll(text, "=?", ""), " "), strings.TrimRight(list[0].Name, " "))
	}
}

// std: C10
func TestEncodedFileNamesRead(t *testing.T) {
	for _, file := range []string{"ä.txt", strings.Repeat("Übersicht ", 20) + ".pdf", `"ö"; a=\b'*%.txt`, strings.Repeat("x", 49) + "ä"} {
		out, _, err := need{asciiHeader: true}.field([]byte(`Content-Disposition: attachment; filename="`+
			strings.NewReplacer(`"`, `\"`, `\`, `\\`).Replace(file)+"\"; size=3\r\n"), false)
		require.NoError(t, err)
		value := strings.NewReplacer("\r\n", "").Replace(strings.TrimPrefix(string(out), "Content-Disposition: "))
		disposition, params, err := mime.ParseMediaType(value)
		require.NoError(t, err, value)
		assert.Equal(t, "attachment", disposition)
		assert.Equal(t, map[string]string{"filename": file, "size": "3"}, params)
		for line := range strings.Lines(string(out)) {
			assert.LessOrEqual(t, len(line), 76+2)
		}
	}
}

// std: C12
func TestLongHeaderLines(t *testing.T) {
	x := strings.Repeat("x", 600)
	for name, tt := range map[string]struct{ field, want string }{
		"at white space": {"Subject: " + x + " " + x + "\t" + x, "Subject: " + x + "\r\n " + x + "\r\n\t" + x},
		"no white space": {"Subject: " + x + x, "Subject:\r\n " + x + x[:397] + "\r\n " + x[:203]},
		"only white space": {
			"Subject: x" + strings.Repeat(" ", 2500), "Subject: x" + strings.Repeat(" ", 988),
		},
		"a line of white space": {"A: b\r\n" + strings.Repeat(" ", 3000) + "x", "A: b\r\n" + strings.Repeat(" ", 6) + "x"},
		"in a character":        {"A: b\r\n " + strings.Repeat("ä", 800), "A: b\r\n " + strings.Repeat("ä", 498) + "\r\n " + strings.Repeat("ä", 302)},
	} {
		t.Run(name, func(t *testing.T) {
			got, e := converted(t, tt.field+"\r\nTo: a@b\r\n\r\nhello\r\n", short)
			require.Nil(t, e)
			assert.Equal(t, tt.want+"\r\nTo: a@b\r\n\r\nhello\r\n", got)
		})
	}
}
