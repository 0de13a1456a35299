package route_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/idna"
	"pgregory.net/rapid"

	"github.com/sortie-mail/sortie/route"
)

func parse(t testing.TB, text string) *route.Table {
	t.Helper()
	table, err := route.Parse("routes", strings.NewReader(text))
	require.NoError(t, err)
	return table
}

const designFile = `# pattern              hops
*@aol.com              smtp://mail.isp.example
*@*.gov                direct tls=verified
boss@corp.example      smtps://sortie@relay.example:465 secret=env:RELAY_PASSWORD
from:*@news.example    submission://u@bulk.example secret=env:RELAY_PASSWORD
mx:*.yahoodns.net      smtp://mail.isp.example      # by the name of the recipient domain's MX host
*@old.example          reject "550 5.1.2 This domain has moved to new.example"
*@later.example        hold
*                      direct, on blocked smtp://mail.isp.example
`

// mxOf answers for the resolver.
type mxOf map[string][]string

var errDNS = errors.New("SERVFAIL")

func (m mxOf) MXHosts(_ context.Context, domain string) ([]string, error) {
	if domain == "servfail.example" {
		return nil, errDNS
	}
	return m[domain], nil
}

func TestDesignFile(t *testing.T) {
	t.Setenv("RELAY_PASSWORD", "hunter2")
	table := parse(t, designFile)
	table.MX = mxOf{"yahoo.example": {"mta5.am0.YahooDNS.net."}}
	for _, test := range []struct {
		from, to string
		line     int
		hops     string
	}{
		{"", "you@aol.com", 2, "smtp://mail.isp.example"},
		{"", "you@AOL.com.", 2, "smtp://mail.isp.example"},
		{"", "you@mail.aol.com", 9, "direct, on blocked smtp://mail.isp.example"},
		{"", "x@nasa.gov", 3, "direct tls=verified"},
		{"", "x@www.nasa.gov", 3, "direct tls=verified"},
		{"", "x@gov", 9, "direct, on blocked smtp://mail.isp.example"},
		{"", "boss@corp.example", 4, "smtps://sortie@relay.example:465 secret=env:RELAY_PASSWORD"},
		{"", "Boss@corp.example", 9, "direct, on blocked smtp://mail.isp.example"},
		{"a@news.example", "x@other.example", 5, "submission://u@bulk.example secret=env:RELAY_PASSWORD"},
		{"a@news.example", "x@aol.com", 2, "smtp://mail.isp.example"},
		{"a@news.example", "x@nasa.gov", 5, "submission://u@bulk.example secret=env:RELAY_PASSWORD"},
		{"", "x@yahoo.example", 6, "smtp://mail.isp.example"},
		{"", "x@old.example", 7, `reject "550 5.1.2 This domain has moved to new.example"`},
		{"", "x@later.example", 8, "hold"},
	} {
		r, err := table.Route(t.Context(), route.Query{Sender: test.from, Recipient: test.to})
		require.NoError(t, err)
		assert.Equal(t, test.line, r.Line, "%s to %s", test.from, test.to)
		assert.Equal(t, test.hops, r.String())
		assert.Equal(t, "routes", r.File)
	}
}

func TestPrecedence(t *testing.T) {
	ranks := []string{ // from high to low; each would match the query
		"you@b.a.example", "from:me@s.r.example", "*@b.a.example", "from:*@s.r.example",
		"*@*.a.example", "*@*.example", "from:*@*.r.example", "from:*@*.example", "mx:mx.host.example", "mx:*.host.example", "*",
	}
	q := route.Query{Sender: "me@s.r.example", Recipient: "you@b.a.example"}
	mx := mxOf{"b.a.example": {"mx.host.example"}}
	for i := range ranks {
		lines := slices.Clone(ranks[i:])
		slices.Reverse(lines) // the order in the file does not matter
		table := parse(t, strings.Join(lines, " hold\n")+" hold\n")
		table.MX = mx
		r, err := table.Route(t.Context(), q)
		require.NoError(t, err)
		assert.Equal(t, ranks[i], r.Pattern)
	}
	r, err := parse(t, "# empty\n").Route(t.Context(), q)
	require.NoError(t, err)
	assert.Equal(t, "direct", r.String(), "without an entry mail goes direct")
	assert.Equal(t, "no entry", r.Where())
}

func TestPatterns(t *testing.T) {
	for _, test := range []struct{ pattern, from, to string }{
		{"from:<>", "", "x@a.example"},
		{"*@bücher.example", "", "x@xn--bcher-kva.example"},
		{"*@xn--bcher-kva.example", "", "x@BÜCHER.example"},
		{"*@*.bücher.example", "", "x@a.xn--bcher-kva.example"},
		{"Boss@corp.example case=ignore", "", "bOSS@Corp.Example"},
		{"from:News@corp.example case=ignore", "news@corp.example", "x@a.example"},
		{`"two words"@corp.example`, "", `"two words"@corp.example`},
		{`"a,b#c"@corp.example`, "", `"a,b#c"@corp.example`},
		{"a#b@corp.example", "", "a#b@corp.example"},
		{"*@[192.0.2.1]", "", "x@[192.0.2.1]"},
		{"*@[IPv6:2001:db8::1]", "", "x@[ipv6:2001:DB8::1]"},
		{"grüße@corp.example", "", "grüße@corp.example"},
	} {
		pattern, option, _ := strings.Cut(test.pattern, " case")
		if option != "" {
			option = " case" + option
		}
		table := parse(t, pattern+" hold"+option)
		r, err := table.Route(t.Context(), route.Query{Sender: test.from, Recipient: test.to})
		require.NoError(t, err)
		assert.Equal(t, pattern, r.Pattern, "%+v", test)
	}
}

func TestMX(t *testing.T) {
	table := parse(t, "mx:*.isp.example hold\n*@known.example direct\n* discard")
	_, err := table.Route(t.Context(), route.Query{Recipient: "x@any.example"})
	require.ErrorContains(t, err, "no resolver")
	table.MX = mxOf{"a.example": {"first.other.example", "mx.isp.example"}, "known.example": {"mx.isp.example"}}
	for to, want := range map[string]string{"x@a.example": "mx:*.isp.example", "x@b.example": "*", "x@known.example": "*@known.example"} {
		r, err := table.Route(t.Context(), route.Query{Recipient: to})
		require.NoError(t, err)
		assert.Equal(t, want, r.Pattern)
	}
	_, err = table.Route(t.Context(), route.Query{Recipient: "x@servfail.example"})
	assert.ErrorIs(t, err, errDNS, "trouble with DNS is an error, not another route")
	r, err := parse(t, "* discard").Route(t.Context(), route.Query{Recipient: "x@servfail.example"})
	require.NoError(t, err, "nobody asks where no mx: pattern exists")
	assert.Equal(t, "*", r.Pattern)
}

func TestHops(t *testing.T) {
	t.Setenv("PW", "s3cret")
	for text, want := range map[string]route.Hop{
		"direct":                                    {},
		"smtp://mail.isp.example":                   {Kind: route.Smarthost, Host: "mail.isp.example"},
		"SMTP://Mail.ISP.example.:2525":             {Kind: route.Smarthost, Host: "mail.isp.example", Port: 2525},
		"smtp://192.0.2.1":                          {Kind: route.Smarthost, Host: "192.0.2.1"},
		"smtp://[2001:DB8::1]:26":                   {Kind: route.Smarthost, Host: "2001:db8::1", Port: 26},
		"lmtp://unix:/run/lmtp.sock":                {Kind: route.Smarthost, Protocol: route.LMTP, Host: "/run/lmtp.sock"},
		"lmtp://host.example:24":                    {Kind: route.Smarthost, Protocol: route.LMTP, Host: "host.example", Port: 24},
		"smtp://bücher.example mx=yes":              {Kind: route.Smarthost, Host: "xn--bcher-kva.example", LookupMX: true},
		"direct tls=dane source=192.0.2.9 helo=a.b": {TLS: route.TLSDANE, Source: netip.MustParseAddr("192.0.2.9"), HELO: "a.b"},
		"discard":                        {Kind: route.Discard},
		`reject "554 no \"thanks\", #1"`: {Kind: route.Reject, Reply: `554 no "thanks", #1`},
	} {
		r, err := parse(t, "* "+text).Route(t.Context(), route.Query{Recipient: "x@a.example"})
		require.NoError(t, err)
		assert.Equal(t, []route.Hop{want}, r.Hops, text)
		again, err := parse(t, "* "+r.String()).Route(t.Context(), route.Query{Recipient: "x@a.example"})
		require.NoError(t, err)
		assert.Equal(t, r.Hops, again.Hops, "what is printed reads back")
	}
	r, err := parse(t, "* submission://me%40isp.example@smtp.isp.example secret=env:PW").Route(t.Context(), route.Query{Recipient: "x@a.example"})
	require.NoError(t, err)
	h := r.Hops[0]
	assert.Equal(t, "me@isp.example", h.User)
	assert.Equal(t, "s3cret", h.Secret.Value())
	assert.EqualValues(t, 587, h.EffectivePort())
	assert.Equal(t, route.TLSRequired, h.Mode())
}

// Every mistake names its place, the text and what to write instead.
func TestMistakes(t *testing.T) {
	for _, test := range []struct{ line, want string }{
		{"*@a.example", "routes:1:12: the pattern has no hops: write where its mail goes, for instance: *@a.example  smtp://mail.isp.example"},
		{"a.example smtp://b.example", `routes:1:1: "a.example": a pattern has an @: write *@a.example for the domain, *@*.a.example for its subdomains`},
		{".a.example smtp:[relay.example]:25", "write *@*.a.example"},
		{"*@a.example smtp:[relay.example]:25", `routes:1:13: "smtp:[relay.example]:25": unknown hop: write smtp://relay.example:25`},
		{"*@a.example stmp://relay.example", `unknown scheme "stmp": did you mean smtp://relay.example?`},
		{"*@a.example driect", "did you mean direct?"},
		{"*@a.example relay.example", "write smtp://relay.example"},
		{"*@a.example direct tsl=none", `unknown option "tsl": did you mean tls=none?`},
		{"*@a.example direct tls=verfied", "did you mean tls=verified?"},
		{"*@a.example on blocked direct", "the first hop is always tried"},
		{"*@a.example direct, smtp://b.example", "a hop after the first needs a condition"},
		{"*@a.example direct, on blokced smtp://b.example", `did you mean "on blocked"?`},
		{"*@a.example hold, on any direct", "nothing comes after hold"},
		{"*@a.example direct,", "there is no hop beside the comma"},
		{"*@a.example direct smtp://b.example", "hops are separated by commas"},
		{"*@a.example reject 550", "a reply in double quotes"},
		{`*@a.example reject "450 later"`, "does not begin with a code from 500 to 599"},
		{`*@a.example reject "550 later`, "the double quote is not closed"},
		{"*@a.example smtp://u:pw@b.example", "no password stands in a routing file"},
		{"*@a.example smtp://u@b.example", "the user has no secret"},
		{"*@a.example smtp://b.example secret=env:SORTIE_TEST_UNSET", "the environment has no variable SORTIE_TEST_UNSET"},
		{"*@a.example smtp://u@b.example secret=hunter2", "never the password itself"},
		{"*@a.example smtp://b.example:99999", `"99999" is no port`},
		{"*@a.example smtp://b_!.example", "is no host name"},
		{"*@a.example smtp://b.example port=26", "write smtp://b.example:26"},
		{"*@a.example lmtp://b.example", "LMTP has no port of its own"},
		{"*@a.example smtp://unix:/run/x", "a socket is reached by LMTP"},
		{"*@a.example smtps://b.example tls=none", "contradicts"},
		{"*@a.example submission://b.example tls=opportunistic", "contradicts"},
		{"*@a.example direct source=nowhere", "no IP address"},
		{"*@a.example direct mx=yes", "options of a smarthost"},
		{"*@a.example hold tls=none", "nothing is sent"},
		{"*@a.example direct case=ignore", "case=ignore is for a pattern with a local part"},
		{"*@a*.example direct", "a * stands alone"},
		{"a*@a.example direct", "a local part is matched whole"},
		{"@a.example direct", "there is nothing before the @"},
		{"*@a..example direct", "no domain name"},
		{"from:* direct", "write * for all mail"},
		{"mx:*@a.example direct", "write mx:*.a.example"},
		{"form:a@b.example direct", ""},
	} {
		_, err := route.Parse("routes", strings.NewReader(test.line))
		if test.want == "" {
			continue
		}
		var mistakes route.Errors
		require.ErrorAs(t, err, &mistakes, test.line)
		assert.Contains(t, err.Error(), test.want, test.line)
		assert.Equal(t, 1, mistakes[0].Line)
		assert.NotContains(t, err.Error(), "hunter2")
		assert.NotContains(t, err.Error(), "u:pw")
	}
}

func TestAllMistakesAreTold(t *testing.T) {
	_, err := route.Parse("routes", strings.NewReader("x direct\n\n*@a.example hold\n  y driect\n*@A.example. hold\n*@bücher.example hold\n*@xn--bcher-kva.example direct\n"))
	var mistakes route.Errors
	require.ErrorAs(t, err, &mistakes)
	var places []string
	for _, m := range mistakes {
		places = append(places, fmt.Sprintf("%d:%d", m.Line, m.Column))
	}
	assert.Equal(t, []string{"1:1", "4:3", "4:5", "5:1", "7:1"}, places)
	assert.Contains(t, err.Error(), `routes:5:1: "*@A.example.": the same pattern as "*@a.example" in line 3: remove line 3 or line 5`)
	assert.Contains(t, err.Error(), `routes:7:1: "*@xn--bcher-kva.example": the same pattern as "*@bücher.example" in line 6`)
	var one *route.Error
	assert.ErrorAs(t, err, &one)
}

func TestSecretIsNeverPrinted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(file, []byte("hunter2\n"), 0o600))
	table := parse(t, "* smtp://u@b.example secret=file:"+file)
	r, err := table.Route(t.Context(), route.Query{Recipient: "x@a.example"})
	require.NoError(t, err)
	assert.Equal(t, "hunter2", r.Hops[0].Secret.Value())
	text, err := table.Explain(t.Context(), route.Query{Recipient: "x@a.example"})
	require.NoError(t, err)
	for _, printed := range []string{
		text, r.String(), fmt.Sprint(r), fmt.Sprintf("%+v %#v %q %s %x", r, r, r.Hops[0].Secret, r.Hops[0].Secret, r.Hops[0].Secret),
		mustJSON(t, r),
	} {
		assert.NotContains(t, printed, "hunter2")
		assert.NotContains(t, printed, fmt.Sprintf("%x", "hunter2"))
	}
	assert.Contains(t, text, "password from file:"+file)
}

func TestExplain(t *testing.T) {
	t.Setenv("RELAY_PASSWORD", "hunter2")
	text, err := parse(t, designFile).Explain(t.Context(), route.Query{Sender: "me@example.org", Recipient: "boss@corp.example"})
	require.NoError(t, err)
	assert.Equal(t, `mail from <me@example.org> to <boss@corp.example>
  by routes:4: boss@corp.example
  1. through smtps://sortie@relay.example:465, with TLS or not at all, password from env:RELAY_PASSWORD
`, text)
}

// naive is the rules of precedence written down without any thought of speed.
func naive(patterns []string, q route.Query) string {
	to, from := q.Recipient, q.Sender
	toLocal, toDomain := split(to)
	fromLocal, fromDomain := split(from)
	candidates := []string{toLocal + "@" + toDomain, "from:" + fromLocal + "@" + fromDomain, "*@" + toDomain, "from:*@" + fromDomain}
	candidates = append(candidates, subs("*@*", toDomain)...)
	candidates = append(candidates, subs("from:*@*", fromDomain)...)
	for _, c := range append(candidates, "*") {
		for _, p := range patterns {
			if p == c || (from == "" && c == "from:@" && p == "from:<>") {
				return p
			}
		}
	}
	return ""
}

func split(a string) (local, domain string) {
	i := strings.LastIndex(a, "@")
	if i < 0 {
		return a, ""
	}
	domain, _ = idna.ToASCII(strings.ToLower(a[i+1:]))
	return a[:i], domain
}

func subs(prefix, domain string) (all []string) {
	for i := range len(domain) {
		if domain[i] == '.' {
			all = append(all, prefix+domain[i:])
		}
	}
	return all
}

func TestAgainstNaiveMatcher(t *testing.T) {
	label := rapid.SampledFrom([]string{"a", "b", "xn--bcher-kva"})
	domain := rapid.Custom(func(r *rapid.T) string {
		return strings.Join(rapid.SliceOfN(label, 1, 3).Draw(r, "labels"), ".")
	})
	local := rapid.SampledFrom([]string{"x", "X", "y"})
	rapid.Check(t, func(r *rapid.T) {
		seen := map[string]bool{}
		var patterns []string
		for range rapid.IntRange(0, 12).Draw(r, "patterns") {
			p := rapid.SampledFrom([]string{"", "from:"}).Draw(r, "of")
			switch rapid.IntRange(0, 3).Draw(r, "kind") {
			case 0:
				p += local.Draw(r, "local") + "@" + domain.Draw(r, "domain")
			case 1:
				p += "*@" + domain.Draw(r, "domain")
			case 2:
				p += "*@*." + domain.Draw(r, "domain")
			case 3:
				p = rapid.SampledFrom([]string{"*", "from:<>"}).Draw(r, "whole")
			}
			if !seen[p] {
				seen[p] = true
				patterns = append(patterns, p)
			}
		}
		var file strings.Builder
		for _, p := range patterns {
			fmt.Fprintf(&file, "%s hold\n", p)
		}
		table, err := route.Parse("routes", strings.NewReader(file.String()))
		require.NoError(r, err)
		q := route.Query{Recipient: local.Draw(r, "local") + "@" + domain.Draw(r, "domain")}
		if rapid.Bool().Draw(r, "sender") {
			q.Sender = local.Draw(r, "local") + "@" + strings.ToUpper(domain.Draw(r, "domain"))
		}
		got, err := table.Route(t.Context(), q)
		require.NoError(r, err)
		require.Equal(r, naive(patterns, q), got.Pattern, "%v in %v", q, patterns)
	})
}

func FuzzParse(f *testing.F) {
	f.Add(designFile)
	f.Add("\"a b\"@x.example reject \"550 \\\"no\\\"\" # c\n*@*.b lmtp://unix:/x, on any smtp://[::1]:26 mx=no")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "file:") { // must not read whatever it finds
			t.Skip()
		}
		table, err := route.Parse("routes", strings.NewReader(text))
		if err != nil {
			return
		}
		r, err := table.Route(t.Context(), route.Query{Sender: "a@b.example", Recipient: "c@d.example"})
		if err != nil || r.Pattern == "" {
			return
		}
		again, err := route.Parse("again", strings.NewReader(r.Pattern+" "+r.String()))
		require.NoError(t, err, "what is printed must read back: %s %s", r.Pattern, r.String())
		r2, err := again.Route(t.Context(), route.Query{Sender: "a@b.example", Recipient: "c@d.example"})
		require.NoError(t, err)
		require.Equal(t, r.Hops, r2.Hops)
	})
}
