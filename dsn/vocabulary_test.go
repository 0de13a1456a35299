package dsn_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sortie-mail/sortie/dsn"
)

func TestParseStatus(t *testing.T) {
	for _, s := range []string{"2.0.0", "4.4.7", "5.1.1", "5.7.509", "5.999.999"} {
		got, ok := dsn.ParseStatus(s)
		assert.True(t, ok, s)
		assert.Equal(t, dsn.Status(s), got)
		assert.Equal(t, s, got.String())
		assert.Equal(t, int(s[0]-'0'), got.Class())
	}
	for _, s := range []string{
		"", "5", "5.1", "5.1.", "5..1", ".1.1", "1.1.1", "3.0.0", "6.0.0", "5.1.1.1", "5.1.1000", "5.a.1", "5.1.1 ", " 5.1.1",
		"55.1.1", "5.-1.1", "5.１.1",
	} {
		got, ok := dsn.ParseStatus(s)
		assert.False(t, ok, "%q", s)
		assert.Empty(t, got)
	}
	assert.Zero(t, dsn.Status("").Class())
}

func TestReply(t *testing.T) {
	tests := []struct {
		text   string
		lines  []string
		code   int
		status dsn.Status
		words  string
		line   string
	}{
		{"250 2.1.5 ok", []string{"2.1.5 ok"}, 250, "2.1.5", "ok", "250 2.1.5 ok"},
		{"550 5.1.2 moved\r\n", []string{"5.1.2 moved"}, 550, "5.1.2", "moved", "550 5.1.2 moved"},
		{"550-5.7.1 a\r\n550 5.7.1 b\r\n", []string{"5.7.1 a", "5.7.1 b"}, 550, "5.7.1", "a\nb", "550 5.7.1 a 5.7.1 b"},
		{"550-a\n550 5.7.1 b", []string{"a", "5.7.1 b"}, 550, "5.7.1", "a\nb", "550 a 5.7.1 b"},
		{"450 5.7.1 the code rules", []string{"5.7.1 the code rules"}, 450, "", "the code rules", "450 5.7.1 the code rules"},
		{"421", []string{""}, 421, "", "", "421"},
		{"421 ", []string{""}, 421, "", "", "421"},
		{"354  two spaces", []string{" two spaces"}, 354, "", " two spaces", "354  two spaces"},
	}
	for _, test := range tests {
		r, err := dsn.ParseReply(test.text)
		require.NoError(t, err, "%q", test.text)
		assert.Equal(t, dsn.Reply{Code: test.code, Lines: test.lines}, r)
		assert.Equal(t, test.status, r.Status(), "%q", test.text)
		assert.Equal(t, test.words, r.Text(), "%q", test.text)
		assert.Equal(t, test.line, r.String(), "%q", test.text)
		assert.Equal(t, test.code/100 == 4, r.Temporary())
		assert.Equal(t, test.code/100 == 5, r.Permanent())
		again, err := dsn.ParseReply(r.Wire())
		require.NoError(t, err, "%q", r.Wire())
		assert.Equal(t, r, again, "what Wire writes")
	}
	for _, text := range []string{"", "\n", "55", "550_x", "199 no", "600 no", "x50 no", "+50 no", "550-a\n551 b", "550 a\n\n"} {
		_, err := dsn.ParseReply(text)
		assert.ErrorContains(t, err, "dsn: ", "%q", text)
	}
	assert.True(t, dsn.Reply{}.IsZero())
	assert.Empty(t, dsn.Reply{}.String())
	assert.Empty(t, dsn.Reply{}.Wire())
	assert.Empty(t, dsn.Reply{}.Status())
	assert.False(t, dsn.Reply{Code: 550}.IsZero())
	assert.Equal(t, "550-a\n550 b", dsn.Reply{Code: 550, Lines: []string{"a", "b"}}.Wire())
}

func TestNotify(t *testing.T) {
	tests := []struct {
		text                    string
		failure, delay, success bool
	}{
		{"", true, true, false},
		{"NEVER", false, false, false},
		{"SUCCESS", false, false, true},
		{"FAILURE", true, false, false},
		{"DELAY", false, true, false},
		{"SUCCESS,FAILURE,DELAY", true, true, true},
	}
	for _, test := range tests {
		for _, text := range []string{test.text, strings.ToLower(test.text)} {
			n, err := dsn.ParseNotify(text)
			require.NoError(t, err, "%q", text)
			assert.Equal(t, test.text, n.String())
			assert.Equal(t, test.failure, n.Failure(), "%q", text)
			assert.Equal(t, test.delay, n.Delay(), "%q", text)
			assert.Equal(t, test.success, n.Success(), "%q", text)
			b, err := json.Marshal(n)
			require.NoError(t, err)
			var again dsn.Notify
			require.NoError(t, json.Unmarshal(b, &again))
			assert.Equal(t, n, again)
		}
	}
	for _, text := range []string{"NEVER,SUCCESS", "SUCCESS,NEVER", "SOMETIMES", "SUCCESS,", ",", "SUCCESS DELAY"} {
		_, err := dsn.ParseNotify(text)
		assert.ErrorContains(t, err, "dsn: NOTIFY="+text)
	}
	var n dsn.Notify
	assert.Error(t, json.Unmarshal([]byte(`"WHEN"`), &n))
}

func TestXText(t *testing.T) {
	for text, xtext := range map[string]string{
		"":                "",
		"user@a.example":  "user@a.example",
		"a+b=c@a.example": "a+2Bb+3Dc@a.example",
		"QQ314159 x":      "QQ314159+20x",
		"\x00\x7f\xff":    "+00+7F+FF",
		"ü":               "+C3+BC",
	} {
		assert.Equal(t, xtext, dsn.EncodeXText(text))
		got, err := dsn.DecodeXText(xtext)
		require.NoError(t, err)
		assert.Equal(t, text, got)
	}
	got, err := dsn.DecodeXText("a+2bb")
	require.NoError(t, err, "small letters are seen")
	assert.Equal(t, "a+b", got)
	for _, bad := range []string{"a+", "a+2", "a+2G", "a=b", "a b", "ü", "a\n", "+ 1"} {
		_, err := dsn.DecodeXText(bad)
		assert.ErrorContains(t, err, "octet", "%q", bad)
	}
}

func TestXTextRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := string(rapid.SliceOf(rapid.Byte()).Draw(t, "s"))
		got, err := dsn.DecodeXText(dsn.EncodeXText(s))
		require.NoError(t, err)
		require.Equal(t, s, got)
		u := rapid.String().Draw(t, "u")
		require.Equal(t, u, dsn.DecodeUnitext(dsn.EncodeUnitext(u)))
	})
}

func TestUnitext(t *testing.T) {
	for text, encoded := range map[string]string{
		"":                  "",
		"user@a.example":    "user@a.example",
		"a+b=c d@a.example": `a\x{2B}b\x{3D}c\x{20}d@a.example`,
		`"a\"b"@a.example`:  `"a\x{5C}"b"@a.example`,
		"ü用𝕏\x01":           `\x{FC}\x{7528}\x{1D54F}\x{01}`,
	} {
		assert.Equal(t, encoded, dsn.EncodeUnitext(text))
		assert.Equal(t, text, dsn.DecodeUnitext(encoded))
	}
	for _, asItIs := range []string{`"a\"b"@a.example`, `\x`, `\x{`, `\x{}`, `\x{zz}`, `\x{D800}`, `\x{110000}`, `\x{0000041}`, `\x{+41}`, "用户@a.example"} {
		assert.Equal(t, asItIs, dsn.DecodeUnitext(asItIs))
	}
	assert.Equal(t, "aüb", dsn.DecodeUnitext(`a\x{fc}b`))
	assert.Equal(t, "用x用", dsn.DecodeUnitext(`用x\x{7528}`))
}

func FuzzDecodeXText(f *testing.F) {
	for _, s := range []string{"", "a+2B", "+", "a=b", "+e2+82+ac"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		text, err := dsn.DecodeXText(s)
		if err == nil {
			again, err := dsn.DecodeXText(dsn.EncodeXText(text))
			require.NoError(t, err)
			require.Equal(t, text, again)
		}
		if plain := dsn.DecodeUnitext(s); utf8.ValidString(s) {
			require.True(t, utf8.ValidString(plain))
			require.Equal(t, plain, dsn.DecodeUnitext(dsn.EncodeUnitext(plain)))
		}
	})
}

func FuzzParseReply(f *testing.F) {
	for _, s := range []string{"", "250 ok", "550-5.7.1 a\r\n550 5.7.1 b", "421", "550-a\n551 b", "550-\n550 "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := dsn.ParseReply(s)
		if err != nil {
			return
		}
		_, _, _ = r.Status(), r.Text(), r.String()
		again, err := dsn.ParseReply(r.Wire())
		require.NoError(t, err)
		require.Equal(t, r, again)
	})
}
