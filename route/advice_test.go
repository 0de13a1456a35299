package route_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/route"
)

// Of one mistake one error tells, with advice that can be taken.
func TestOneErrorAMistake(t *testing.T) {
	for _, test := range []struct{ line, want, mended string }{
		{"smtp://h.example", "for instance: *  smtp://h.example", "*  smtp://h.example"},
		{"  smtp://u:hunter2@h.example secret=env:X", "the line has hops and no pattern: write whose mail goes there in front of it, for instance: *  smtp://u:…@h.example", ""},
		{"direct, on blocked smtp://h.example", "for instance: *  direct", "*  direct, on blocked smtp://h.example"},
		{"hold", "for instance: *  hold", "*  hold"},
		{"*@a.example direct, on sometimes smtp://h.example", "no such condition: write on blocked, on unreachable, on tempfail or on any", ""},
		{"*@a.example direct, on sometimes", "a condition and a hop come after it: for instance: on blocked smtp://mail.isp.example", ""},
		{"*@a.example on sometimes smtp://h.example", "no such condition: write on blocked, on unreachable, on tempfail or on any", ""},
		{"*@a.example smtp//mail.isp.example", `"smtp//mail.isp.example": unknown hop: write smtp://mail.isp.example`, "* smtp://mail.isp.example"},
		{"*@a.example smtp:/mail.isp.example:26", "unknown hop: write smtp://mail.isp.example:26", "* smtp://mail.isp.example:26"},
		{"*@a.example stmp//mail.isp.example", "unknown hop: write smtp://mail.isp.example", "* smtp://mail.isp.example"},
		{"*@a.example submission:mail.isp.example", "unknown hop: write submission://mail.isp.example", "* submission://mail.isp.example"},
		{"*@a.example relay:[mail.isp.example]:26", "unknown hop: write smtp://mail.isp.example:26", "* smtp://mail.isp.example:26"},
		{"*@a.example lmtp:unix:/run/lmtp.sock", "unknown hop: write lmtp://unix:/run/lmtp.sock", "* lmtp://unix:/run/lmtp.sock"},
		{"*@a.example smtp:", "unknown hop: write direct", "* direct"},
		{"*@a.example mail.isp.example:26", "unknown hop: write smtp://mail.isp.example:26", "* smtp://mail.isp.example:26"},
		{"*@a.example smtp1:26", "unknown hop: write smtp://smtp1:26", "* smtp://smtp1:26"},
		{"*@a.example mail.isp.example/path", "or a smarthost as smtp://HOST", ""},
	} {
		_, err := route.Parse("routes", strings.NewReader(test.line))
		var mistakes route.Errors
		require.ErrorAs(t, err, &mistakes, test.line)
		require.Len(t, mistakes, 1, "%s: %v", test.line, err)
		assert.True(t, strings.HasSuffix(err.Error(), test.want), "%s: %v", test.line, err)
		wellTold(t, mistakes[0], test.line)
		_, err = route.Parse("routes", strings.NewReader(test.mended))
		assert.NoError(t, err)
	}
}

// A route of the program is read as a routing file has it, and its mistakes are told without a file.
func TestParseRoute(t *testing.T) {
	t.Setenv("SORTIE_TEST_PW", "hunter2")
	for _, text := range []string{
		"direct", "hold", "direct tls=verified, on blocked smtp://mail.isp.example:26", `reject "550 5.1.2 This domain has moved"`,
		"submission://u@mail.isp.example secret=env:SORTIE_TEST_PW",
	} {
		r, err := route.ParseRoute("  " + text + " # as in a file")
		require.NoError(t, err, text)
		assert.Equal(t, text, r.String())
		assert.Equal(t, "no entry", r.Where())
		want, err := parse(t, "* "+text).Route(t.Context(), route.Query{Recipient: "x@a.example"})
		require.NoError(t, err)
		assert.Equal(t, want.Hops, r.Hops)
	}
	r, err := route.ParseRoute("smtp://mail.isp.example")
	require.NoError(t, err)
	var router route.Router = r
	same, err := router.Route(t.Context(), route.Query{Recipient: "x@a.example"})
	require.NoError(t, err)
	assert.Equal(t, r, same, "a route is a router")
	told := route.Explain(route.Query{Recipient: "x@a.example"}, r)
	assert.Contains(t, told, "by a route of the program, and no entry\n  1. through smtp://mail.isp.example")

	for text, want := range map[string]string{
		"":                                 "column 1: there is no hop: write where mail goes, for instance: smtp://mail.isp.example",
		" # a remark":                      "there is no hop",
		"  driect":                         `column 3: "driect": unknown hop: did you mean direct?`,
		"smtp://u:hunter2@h.example":       "no password stands",
		"smtp://u:hunter2@h.example\n":     "write the hops in one line",
		"hold\n* hold":                     "write the hops in one line",
		"hold\r":                           "write the hops in one line",
		"hold\x00":                         "a control character",
		`reject "550`:                      "the double quote is not closed",
		"direct case=ignore":               `column 8: "case=ignore"`,
		"* direct":                         "unknown hop",
		strings.Repeat("direct,", 9999):    "longer than 16384 octets",
		strings.Repeat(",", 9999):          "more mistakes",
		"direct, on sometimes smtp://h.ex": "no such condition",
	} {
		r, err := route.ParseRoute(text)
		var mistakes route.Errors
		require.ErrorAs(t, err, &mistakes, text)
		assert.ErrorContains(t, err, want)
		assert.NotContains(t, err.Error(), "hunter2")
		assert.Empty(t, r.Hops)
	}
}

func FuzzParseRoute(f *testing.F) {
	f.Add("direct tls=verified, on blocked smtp://mail.isp.example:26")
	f.Add("reject \"550 \\\"no\\\"\" # c")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "file:") {
			t.Skip("a secret=file: would read whatever the fuzzer finds")
		}
		r, err := route.ParseRoute(text)
		if err != nil {
			var mistakes route.Errors
			require.ErrorAs(t, err, &mistakes)
			for _, m := range mistakes {
				require.NotEmpty(t, m.Fix)
				require.True(t, m.Column >= 1 && m.Column <= len(text)+1, "%v", m)
			}
			return
		}
		require.NotEmpty(t, r.Hops)
		again, err := route.ParseRoute(r.String())
		require.NoError(t, err, "what is printed must read back: %s", r)
		require.Equal(t, r, again)
	})
}
