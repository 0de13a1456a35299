package route_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

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

// mxFails fails whatever it is asked.
type mxFails struct{}

func (mxFails) MXHosts(context.Context, string) ([]string, error) { return nil, errDNS }

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
		{"GRÜN@corp.example case=ignore", "", "GRÜN@corp.example"},
		{"Grün@corp.example case=ignore", "", "gRÜN@corp.example"},
		{"*@bücher.example", "", "x@bücher。example"},
		{"*@*.example", "", "x@" + strings.Repeat("a.", 100) + "example"},
		{"*", "", "x@" + strings.Repeat("a.", 200_000) + "example"},
		{"*", "", strings.Repeat("x", 1<<20) + "@a.example"},
		{"*", "", "x@" + strings.Repeat("ü.", 100_000) + "example"},
		{"*", "", "x@\xff\x00.example"},
		{"*", "", ""},
		{"*", "@", "@"},
		{"*@postmaster", "", "postmaster"},
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
	for _, to := range []string{"x@[192.0.2.1]", "", "x@" + strings.Repeat("a.", 200) + "example"} {
		table.MX = mxFails{}
		r, err := table.Route(t.Context(), route.Query{Recipient: to})
		require.NoError(t, err, "there is no name to ask for in %q", to)
		assert.Equal(t, "*", r.Pattern)
	}
	r, err := table.Route(t.Context(), route.Query{Recipient: "x@known.example"})
	require.NoError(t, err, "nobody asks where a more specific pattern matches")
	assert.Equal(t, "*@known.example", r.Pattern)
	two := parse(t, "mx:*.one.example hold\nmx:mx.two.example discard\nmx:*.two.example direct\n")
	two.MX = mxOf{"a.example": {"mx.two.example", "mx.one.example"}, "b.example": {"other.example", "mx.one.example", "mx.two.example"}}
	for to, want := range map[string]string{"x@a.example": "mx:mx.two.example", "x@b.example": "mx:*.one.example"} {
		r, err := two.Route(t.Context(), route.Query{Recipient: to})
		require.NoError(t, err)
		assert.Equal(t, want, r.Pattern, "the best host that has a pattern decides")
	}
	table.MX = mxOf{"a.example": {"isp.example", "isp.example.other.example"}}
	r, err = table.Route(t.Context(), route.Query{Recipient: "x@a.example"})
	require.NoError(t, err)
	assert.Equal(t, "*", r.Pattern, "mx:*.isp.example is hosts below isp.example")
	_, err = table.Route(t.Context(), route.Query{Recipient: "x@servfail.example"})
	assert.ErrorIs(t, err, errDNS, "trouble with DNS is an error, not another route")
	r, err = parse(t, "* discard").Route(t.Context(), route.Query{Recipient: "x@servfail.example"})
	require.NoError(t, err, "nobody asks where no mx: pattern exists")
	assert.Equal(t, "*", r.Pattern)
}

func TestHops(t *testing.T) {
	t.Setenv("PW", "s3cret")
	for text, want := range map[string]route.Hop{
		"direct":                                           {},
		"smtp://mail.isp.example":                          {Kind: route.Smarthost, Host: "mail.isp.example"},
		"SMTP://Mail.ISP.example.:2525":                    {Kind: route.Smarthost, Host: "mail.isp.example", Port: 2525},
		"smtp://192.0.2.1":                                 {Kind: route.Smarthost, Host: "192.0.2.1"},
		"smtp://[2001:DB8::1]:26":                          {Kind: route.Smarthost, Host: "2001:db8::1", Port: 26},
		"lmtp://unix:/run/lmtp.sock":                       {Kind: route.Smarthost, Protocol: route.LMTP, Host: "/run/lmtp.sock"},
		"lmtp://host.example:24":                           {Kind: route.Smarthost, Protocol: route.LMTP, Host: "host.example", Port: 24},
		"smtp://bücher.example mx=yes":                     {Kind: route.Smarthost, Host: "xn--bcher-kva.example", LookupMX: true},
		"direct tls=dane source=192.0.2.9 helo=a.b":        {TLS: route.TLSDANE, Source: netip.MustParseAddr("192.0.2.9"), HELO: "a.b"},
		"smtp://b.example pipelining=no chunking=no mx=no": {Kind: route.Smarthost, Host: "b.example", NoPipelining: true, NoChunking: true},
		"smtp://u@b.example auth=OAUTHBEARER":              {Kind: route.Smarthost, Host: "b.example", User: "u", Auth: route.AuthOAuthBearer},
		"smtp://u@b.example auth=external":                 {Kind: route.Smarthost, Host: "b.example", User: "u", Auth: route.AuthExternal},
		"smtp://b.example auth=external":                   {Kind: route.Smarthost, Host: "b.example", Auth: route.AuthExternal},
		"direct pipelining=yes chunking=yes":               {},
		"direct source=2001:db8::9":                        {Source: netip.MustParseAddr("2001:db8::9")},
		"direct source=2001:db8::9 source=192.0.2.9": {
			Source: netip.MustParseAddr("192.0.2.9"), Source6: netip.MustParseAddr("2001:db8::9"),
		},
		"direct source=::ffff:192.0.2.9 source=2001:db8::9 helo=A.example helo6=bücher.example": {
			Source: netip.MustParseAddr("192.0.2.9"), Source6: netip.MustParseAddr("2001:db8::9"), HELO: "a.example", HELO6: "xn--bcher-kva.example",
		},
		"direct proxy=SOCKS5://Proxy.example": {Proxy: route.Proxy{Host: "proxy.example"}},
		"lmtp://b.example:24 proxy=socks5://[2001:db8::5]:9050": {
			Kind: route.Smarthost, Protocol: route.LMTP, Host: "b.example", Port: 24, Proxy: route.Proxy{Host: "2001:db8::5", Port: 9050},
		},
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

// Every mechanism has a name, in any case, and what is printed reads back.
func TestAuth(t *testing.T) {
	t.Setenv("PW", "s3cret")
	for text, want := range map[string]route.Auth{
		"plain": route.AuthPlain, "Login": route.AuthLogin, "CRAM-MD5": route.AuthCRAMMD5, "SCRAM-SHA-256": route.AuthSCRAMSHA256,
		"xoauth2": route.AuthXOAUTH2, "OAuthBearer": route.AuthOAuthBearer,
	} {
		r, err := parse(t, "* smtp://u@b.example secret=env:PW auth="+text).Route(t.Context(), route.Query{Recipient: "x@a.example"})
		require.NoError(t, err)
		assert.Equal(t, want, r.Hops[0].Auth)
		assert.True(t, r.Hops[0].LogsIn())
		assert.Equal(t, "smtp://u@b.example secret=env:PW auth="+strings.ToLower(text), r.String(), "and so mail that waits takes a changed way at once")
	}
	for hops, logsIn := range map[string]bool{"smtp://b.example": false, "smtp://b.example auth=external": true, "smtp://u@b.example secret=env:PW": true} {
		r, err := parse(t, "* "+hops).Route(t.Context(), route.Query{Recipient: "x@a.example"})
		require.NoError(t, err)
		assert.Equal(t, logsIn, r.Hops[0].LogsIn(), hops)
	}
}

// What a hop says about families goes by the address that is connected to.
func TestHopsByFamily(t *testing.T) {
	v4, v6, mapped := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("::ffff:192.0.2.1")
	for text, want := range map[string]struct{ source4, source6, helo4, helo6 string }{
		"direct":                                                   {},
		"direct source=192.0.2.9 helo=a.example":                   {source4: "192.0.2.9", source6: "none", helo4: "a.example", helo6: "a.example"},
		"direct source=2001:db8::9 helo6=b.example":                {source4: "none", source6: "2001:db8::9", helo6: "b.example"},
		"direct source=2001:db8::9 source=192.0.2.9":               {source4: "192.0.2.9", source6: "2001:db8::9"},
		"smtp://x.example helo=a.example helo6=b.example tls=none": {helo4: "a.example", helo6: "b.example"},
	} {
		r, err := parse(t, "* "+text).Route(t.Context(), route.Query{Recipient: "x@a.example"})
		require.NoError(t, err)
		for _, to := range []struct {
			addr         netip.Addr
			source, helo string
		}{{v4, want.source4, want.helo4}, {mapped, want.source4, want.helo4}, {v6, want.source6, want.helo6}} {
			source, ok := r.Hops[0].SourceFor(to.addr)
			got := ""
			switch {
			case !ok:
				got = "none"
			case source.IsValid():
				got = source.String()
			}
			assert.Equal(t, to.source, got, "%s, to %s", text, to.addr)
			assert.Equal(t, to.helo, r.Hops[0].HELOFor(to.addr), "%s, to %s", text, to.addr)
		}
	}
	h := route.Hop{Source6: v6} // made by hand
	_, ok := h.SourceFor(v4)
	assert.False(t, ok)
}

func TestProxies(t *testing.T) {
	t.Setenv("PW", "s3cret")
	const text = "direct proxy=socks5://me%40corp@proxy.example:9050 proxy-secret=env:PW"
	r, err := parse(t, "* "+text).Route(t.Context(), route.Query{Recipient: "x@a.example"})
	require.NoError(t, err)
	x := r.Hops[0].Proxy
	assert.Equal(t, "me@corp", x.User)
	assert.Equal(t, "s3cret", x.Secret.Value())
	assert.Equal(t, "proxy.example:9050", x.Address())
	assert.Equal(t, text, r.String())
	assert.Equal(t, "[2001:db8::1]:1080", route.Proxy{Host: "2001:db8::1"}.Address())
	assert.Empty(t, route.Proxy{}.String())
	assert.True(t, route.Proxy{}.IsZero())
}

// Every mistake names its place, the text and what to write instead.
func TestMistakes(t *testing.T) {
	for _, test := range []struct{ line, want string }{
		{"*@a.example", `routes:1:1: "*@a.example": the pattern has no hops: write where its mail goes, for instance: *@a.example  smtp://mail.isp.example`},
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
		{"*@a.example direct source=192.0.2.1 source=192.0.2.2", `"source=192.0.2.2": source=192.0.2.1 and source=192.0.2.2 are of the same family`},
		{"*@a.example direct source=::1 source=192.0.2.1 source=::2", "source=::1 and source=::2 are of the same family"},
		{"*@a.example direct source=::1 source=::ffff:192.0.2.1 source=192.0.2.1", "source=192.0.2.1 and source=192.0.2.1 are of the same family"},
		{"*@a.example direct helo6=a..b", "write the name to greet with: helo6=mail.example.org"},
		{"*@a.example direct pipelining=off", "pipelining is yes or no: write pipelining=no"},
		{"*@a.example direct chunking=never", "chunking is yes or no: write chunking=no"},
		{"*@a.example direct pipelinig=no", "did you mean pipelining=no?"},
		{"*@a.example direct proxy=proxy.example:1080", "write proxy=socks5://HOST:1080"},
		{"*@a.example direct proxy=http://proxy.example", "write proxy=socks5://proxy.example"},
		{"*@a.example direct proxy=socks5h://proxy.example", "names are looked up on this side"},
		{"*@a.example direct proxy=socks5://", "is no host name"},
		{"*@a.example direct proxy=socks5://proxy.example:0", "is no port"},
		{"*@a.example direct proxy=socks5://[::1", "the [ is not closed"},
		{"*@a.example direct proxy=socks5://u:hunter2@proxy.example", "write the user alone, and proxy-secret=env:NAME"},
		{"*@a.example direct proxy=socks5://u@proxy.example", "write proxy-secret=env:NAME or proxy-secret=file:PATH"},
		{"*@a.example direct proxy=socks5://proxy.example proxy-secret=env:PATH", "write proxy=socks5://USER@proxy.example"},
		{"*@a.example direct proxy-secret=env:PATH", "a proxy-secret and no proxy"},
		{"*@a.example direct proxy=socks5://u@proxy.example proxy-secret=hunter2", "write proxy-secret=env:NAME"},
		{"*@a.example direct proxy=socks5://" + strings.Repeat("u", 256) + "@proxy.example proxy-secret=env:PATH", "longer than 255 octets"},
		{"*@a.example direct proxy=socks5://proxy.example proxy=socks5://b.example", "given twice"},
		{"*@a.example direct proxy=socks5://proxy.example source=192.0.2.1", "source means nothing"},
		{"*@a.example lmtp://unix:/run/x proxy=socks5://proxy.example", "a socket is not behind a proxy"},
		{"*@a.example hold tls=none", "nothing is sent"},
		{"*@a.example discard pipelining=no", "nothing is sent"},
		{"*@a.example reject \"550 no\" proxy=socks5://proxy.example", "nothing is sent"},
		{"*@a.example direct case=ignore", "case=ignore is for a pattern with a local part"},
		{"*@a*.example direct", "a * stands alone"},
		{"a*@a.example direct", "a local part is matched whole"},
		{"@a.example direct", "there is nothing before the @"},
		{"*@a..example direct", "no domain name"},
		{"from:* direct", "write * for all mail"},
		{"mx:*@a.example direct", "write mx:*.a.example"},
		{"form:a@b.example direct", "did you mean from:a@b.example?"},
		{"FROM:a@b.example direct", "did you mean from:a@b.example?"},
		{"from:a:b@b.example direct", `write "a:b"@b.example`},
		{"a@b@c.example direct", `write "a@b"@c.example`},
		{`a"b"@c.example direct`, "needs double quotes"},
		{`"a"b@c.example direct`, "does not reach to the @"},
		{"<boss@corp.example> direct", "write boss@corp.example"},
		{"from:<ann@corp.example> direct", "write from:ann@corp.example"},
		{"<> direct", "write from:<>"},
		{"mx:* direct", "write mx:mx1.isp.example or mx:*.isp.example"},
		{"mx:a.*.b direct", "write mx:mx1.isp.example or mx:*.isp.example"},
		{"mx:[192.0.2.1] direct", "name of an MX host"},
		{"mx: direct", "no domain name"},
		{"*@192.0.2.1 direct", "write it as [192.0.2.1]"},
		{"*@2001:db8::1 direct", "write it as [IPv6:2001:db8::1]"},
		{"*@[192.0.2.300] direct", "no address literal"},
		{"*@[2001:db8::1] direct", "no address literal"},
		{"*@[] direct", "no address literal"},
		{"*@*.[192.0.2.1] direct", "no subdomains"},
		{"*@*.*.example direct", "a * stands alone"},
		{"*@b\u00fccher..example direct", "no domain name"},
		{"*@" + strings.Repeat("a.", 127) + "a direct", "no domain name"},
		{"*@" + strings.Repeat("a", 64) + ".example direct", "no domain name"},
		{strings.Repeat("x", 600) + "@a.example direct", "longer than an address may be"},
		{strings.Repeat("x", 17<<10) + "@a.example direct", "the line is longer than 16384 octets"},
		{"*@a.example direct\x00", "a control character"},
		{"*@a.example direct\rmore", "a carriage return within the line"},
		{"*@a.example reject \"550 gr\xfc\xdfe\"", "not in UTF-8"},
		{"\xff\xfe*\x00@\x00", "UTF-16"},
		{"*@a.example smtp://a.example direct", "put a comma before"},
		{"*@a.example smtp://b.example colour=red", `"colour=…": unknown option "colour"`},
		{"*@a.example smtp://b.example tls=none tls=none", "given twice"},
		{"*@a.example direct, on blocked smtp://b.example case=ignore", "write it after the first hop"},
		{"*@a.example direct, on blocked", "a condition and a hop"},
		{"*@a.example direct secret=env:PATH", "options of a smarthost"},
		{"*@a.example smtp://b.example secret=env:PATH", "the secret has no user"},
		{"*@a.example smtp://u@b.example secret=env:PATH auth=plian", "did you mean auth=plain?"},
		{"*@a.example smtp://u@b.example secret=env:PATH auth=gssapi", "write plain, login, cram-md5, scram-sha-256, xoauth2, oauthbearer or external"},
		{"*@a.example smtp://u@b.example secret=env:PATH auth=default", "unknown way to log in"},
		{"*@a.example smtp://u@b.example auth=plain", "the user has no secret"},
		{"*@a.example smtp://b.example auth=xoauth2", "auth=xoauth2 has no user: write smtp://USER@b.example"},
		{"*@a.example smtp://u@b.example secret=env:PATH auth=external", "leave the secret out"},
		{"*@a.example smtp://b.example secret=env:PATH auth=external", "leave the secret out"},
		{"*@a.example smtp://b.example auth=external tls=none", "leave one of the two out"},
		{"*@a.example direct auth=external", "options of a smarthost"},
		{"*@a.example hold auth=external", "options of a smarthost"},
		{"*@a.example smtp://[2001:db8::1", "the [ is not closed"},
		{"*@a.example smtp://[2001:db8::1]25", "only :PORT"},
		{"*@a.example lmtp://unix:/run/x mx=yes", "a socket has no MX"},
		{"*@a.example gopher://b.example", "unknown scheme"},
		{"*@a.example direct helo=a..b", "no host name"},
		{"*@a.example smtp://b.example mx=maybe", "mx is yes or no"},
		{"a@a.example direct case=both", "case is ignore or exact"},
		{"*@a.example direct" + strings.Repeat(", on any direct", 11), "there are 12 hops, and 10 are allowed"},
		{"*@a.example reject \"550 " + strings.Repeat("x", 500) + "\"", "more than 500 octets"},
		{"*@a.example hold ,, hold", "no hop beside the comma"},
		{", hold", "a pattern has an @"},
	} {
		_, err := route.Parse("routes", strings.NewReader(test.line))
		var mistakes route.Errors
		require.ErrorAs(t, err, &mistakes, test.line)
		assert.Contains(t, err.Error(), test.want, test.line)
		assert.NotContains(t, err.Error(), "hunter2")
		for _, m := range mistakes {
			wellTold(t, m, test.line)
		}
	}
}

// wellTold checks what every mistake tells: its place, the text that stands there, what is wrong and what to write.
func wellTold(t testing.TB, m *route.Error, line string) {
	assert.Equal(t, "routes", m.File)
	assert.Equal(t, 1, m.Line)
	assert.NotEmpty(t, m.Problem)
	assert.NotEmpty(t, m.Fix)
	require.True(t, m.Column >= 1 && m.Column <= len(line), "%q: column %d", line, m.Column)
	there, _, _ := strings.Cut(line[m.Column-1:], "\n")
	text, _, _ := strings.Cut(m.Text, "…")
	assert.NotEmpty(t, text, m.Error())
	assert.True(t, strings.HasPrefix(there, text), "%v: at column %d stands %q", m, m.Column, there)
	assert.Less(t, len(m.Error()), 3000)
}

// Where somebody writes a password into the file all the same, no error repeats it.
func TestPasswordsAreNotRepeated(t *testing.T) {
	for _, hop := range []string{
		"smtp://u:hunter2@b.example", "smtps://u:hunter2@", "submission://u:hun%zzter2@b.example", "stmp://u:hunter2@b.example", "smtp:u:hunter2@b.example",
		"smtp//u:hunter2@b.example", "u:hunter2@b.example", "gopher://u:hunter2@b.example", "smtp://u:hunter2 x@b.example", "direct smtp://u:hunter2@b.example",
		"smtp://u@b.example secret=hunter2", "smtp://u@b.example secert=hunter2", "smtp://u@b.example password=hunter2", "smtp://u@b.example pass=hunter2",
		"direct proxy=socks5://u:hunter2@b.example", "direct proxy=socks5://u:hunter2@", "direct proxy=u:hunter2@b.example", "direct proxy=http://u:hunter2@b.example",
		"direct proxy=socks5h://u:hunter2@b.example", "direct proxy=socks5://u:hunter2", "direct proxy=socks5://u@b.example proxy-secret=hunter2",
		"direct proxy=socks5://u@b.example proxy-secrit=hunter2", "direct proxy=socks5://u@b.example proxypass=hunter2", "direct proxi=socks5://u:hunter2@b.example",
		"smtp://u@b.example secret=env=hunter2", "on blocked smtp://u:hunter2@b.example", "direct, smtp://u:hunter2@b.example",
	} {
		_, err := route.Parse("routes", strings.NewReader("*@a.example "+hop))
		require.Error(t, err, hop)
		assert.NotContains(t, err.Error(), "hunter2")
		assert.NotContains(t, err.Error(), "ter2")
		assert.NotContains(t, fmt.Sprintf("%+v %#v", err, err), "hunter2")
		var mistakes route.Errors
		require.ErrorAs(t, err, &mistakes)
		for _, m := range mistakes {
			assert.NotContains(t, fmt.Sprintf("%+v", *m), "hunter2")
		}
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

// A line whose hops are wrong counts as an entry when its pattern comes again.
func TestTwinOfAWrongLine(t *testing.T) {
	_, err := route.Parse("routes", strings.NewReader("*@a.example driect\n*@a.example hold\n* hold\n* hold\nmx:a.b hold\nmx:A.b. hold\nfrom:<> hold\nfrom:<> hold\n"+
		"x@a.example hold case=ignore\nX@a.example hold case=ignore\nX@a.example hold\n*@[IPv6:2001:db8::1] hold\n*@[ipv6:2001:DB8::1] hold\n"))
	require.Error(t, err)
	for _, line := range []int{2, 4, 6, 8, 10, 13} {
		assert.Contains(t, err.Error(), fmt.Sprintf("line %d: remove line %d or line %d", line-1, line-1, line))
	}
	assert.Equal(t, 7, strings.Count(err.Error(), "\n")+1, "%v", err)
}

// Of very many mistakes the first hundred are told, and the others counted.
func TestManyMistakes(t *testing.T) {
	for _, n := range []int{100, 101, 300_000} {
		_, err := route.Parse("routes", strings.NewReader(strings.Repeat("*@a.example hold\n", n+1)))
		var mistakes route.Errors
		require.ErrorAs(t, err, &mistakes)
		if n == 100 {
			assert.Len(t, mistakes, 100)
			continue
		}
		require.Len(t, mistakes, 101)
		assert.Equal(t, fmt.Sprintf("routes:102:1: %d more mistakes from this line on: mend those above first", n-100), mistakes[100].Error())
	}
}

// What editors and other systems do to a file makes no difference.
func TestLineEnds(t *testing.T) {
	for _, text := range []string{
		"*@a.example hold\n# two\n* direct\n", "*@a.example hold\r\n# two\r\n* direct\r\n", "\ufeff*@a.example hold\n\n* direct",
		"\ufeff*@a.example\thold\t # x\r\n \t\r\n*\tdirect\r\n\r\n",
	} {
		table := parse(t, text)
		assert.Equal(t, 2, table.Len())
		for to, want := range map[string]int{"x@a.example": 1, "x@b.example": 3} {
			r, err := table.Route(t.Context(), route.Query{Recipient: to})
			require.NoError(t, err)
			assert.Equal(t, want, r.Line, "%q", text)
		}
	}
	_, err := route.Parse("routes", strings.NewReader("* direct\n\ufeff*@a.example hold\n"))
	assert.Error(t, err, "a byte order mark stands at the start")
}

// A line that is too long is a mistake like others, and those after it are told as well.
func TestLongLine(t *testing.T) {
	_, err := route.Parse("routes", strings.NewReader("x direct\n*@a.example "+strings.Repeat("x", 1<<20)+"\ny direct\n# "+strings.Repeat("c", 16<<10)))
	var mistakes route.Errors
	require.ErrorAs(t, err, &mistakes)
	var lines []int
	for _, m := range mistakes {
		lines = append(lines, m.Line)
	}
	assert.Equal(t, []int{1, 2, 3, 4}, lines)
	parse(t, "*@a.example reject \"550 "+strings.Repeat("x", 400)+"\" #"+strings.Repeat("c", 15<<10))
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestEndlessFile(t *testing.T) {
	_, err := route.Parse("routes", zeros{})
	assert.Error(t, err)
	_, err = route.Parse("routes", io.MultiReader(strings.NewReader("* hold\n"), iotest.ErrReader(errDNS)))
	assert.ErrorIs(t, err, errDNS)
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

// Whatever prints a table, a route or what holds them prints no secret: not even by way of unexported fields.
func TestSecretIsNeverPrintedByWhatHoldsIt(t *testing.T) {
	t.Setenv("SORTIE_TEST_PW", "hunter2")
	name := filepath.Join(t.TempDir(), "routes")
	require.NoError(t, os.WriteFile(name, []byte("* smtp://u@b.example secret=env:SORTIE_TEST_PW proxy=socks5://u@b.example proxy-secret=env:SORTIE_TEST_PW\n"), 0o600))
	reloader, err := route.NewReloader(name, nil)
	require.NoError(t, err)
	table := reloader.Table()
	r, err := table.Route(t.Context(), route.Query{Recipient: "x@a.example"})
	require.NoError(t, err)
	h := r.Hops[0]
	require.Equal(t, "hunter2", h.Secret.Value())
	vault := h
	vault.Secret = route.NewSecret("vault:isp", "hunter2")
	for _, v := range []any{vault, &vault, vault.Secret, &vault.Secret, []route.Hop{vault}, struct{ h route.Hop }{vault}, table, *table, reloader, r, &r, r.Hops, h, &h, h.Proxy, &h.Proxy, h.Secret, &h.Secret, []any{h.Secret}, map[string]any{"x": h}, struct{ h route.Hop }{h}, struct{ s *route.Secret }{&h.Secret}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%q", "%s", "%x", "%X", "%d"} {
			text := fmt.Sprintf(verb, v)
			for _, leak := range []string{"hunter2", "68756e74657232", "68756E74657232", "104 117 110"} {
				assert.NotContains(t, text, leak, "%s of %T", verb, v)
			}
		}
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		if b, err := json.Marshal(v); err == nil {
			log.Write(b)
		}
		assert.NotContains(t, log.String(), "hunter2", "%T", v)
	}
	assert.Contains(t, mustJSON(t, h), `"Secret":"env:SORTIE_TEST_PW"`)
	assert.Contains(t, mustJSON(t, vault), `"Secret":"vault:isp"`)
	assert.Contains(t, vault.String(), "secret=vault:isp")
}

// A secret that the program brings is one like others, and none without a value.
func TestNewSecret(t *testing.T) {
	s := route.NewSecret("vault:isp", "hunter2")
	assert.Equal(t, "hunter2", s.Value())
	assert.Equal(t, "vault:isp", s.String())
	assert.False(t, s.IsZero())
	assert.True(t, route.NewSecret("vault:isp", "").IsZero())
}

func TestSecretFiles(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"good": "hunter2\r\n", "empty": "\n", "long": strings.Repeat("x", 20_000)} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	s, err := route.ReadSecret("file:" + filepath.Join(dir, "good"))
	require.NoError(t, err)
	assert.Equal(t, "hunter2", s.Value())
	assert.False(t, s.IsZero())
	for name, want := range map[string]string{"empty": "is empty", "long": "is longer than 16384 octets", "none": "no such file", "": "is a directory"} {
		_, err := route.ReadSecret("file:" + filepath.Join(dir, name))
		require.ErrorContains(t, err, want)
		_, err = route.Parse("routes", strings.NewReader("* smtp://u@b.example secret=file:"+filepath.Join(dir, name)))
		require.ErrorContains(t, err, "set it before the table is loaded", "a missing secret is a mistake of the file")
	}
	assert.Empty(t, route.Secret{}.Value())
}

func TestExplain(t *testing.T) {
	t.Setenv("RELAY_PASSWORD", "hunter2")
	text, err := parse(t, designFile).Explain(t.Context(), route.Query{Sender: "me@example.org", Recipient: "boss@corp.example"})
	require.NoError(t, err)
	assert.Equal(t, `mail from <me@example.org> to <boss@corp.example>
  by routes:4: boss@corp.example
  1. through smtps://sortie@relay.example:465, with TLS or not at all, password from env:RELAY_PASSWORD
`, text)
	text, err = parse(t, "* direct source=192.0.2.1 source=2001:db8::1 helo=a.example helo6=b.example pipelining=no,"+
		" on any direct proxy=socks5://u@proxy.example proxy-secret=env:RELAY_PASSWORD chunking=no").
		Explain(t.Context(), route.Query{Sender: "me@example.org", Recipient: "you@corp.example"})
	require.NoError(t, err)
	assert.Equal(t, `mail from <me@example.org> to <you@corp.example>
  by routes:1: *
  1. to the mail exchangers of corp.example, with TLS where it is offered, from 192.0.2.1 and 2001:db8::1, as a.example, over IPv6 as b.example, one command at a time
  2. if it fails, to the mail exchangers of corp.example, with TLS where it is offered, by way of socks5://u@proxy.example with the password from env:RELAY_PASSWORD, without BDAT
`, text)
	text, err = parse(t, "* smtps://u@relay.example secret=env:RELAY_PASSWORD auth=xoauth2, on any submission://b.example auth=external").
		Explain(t.Context(), route.Query{Sender: "me@example.org", Recipient: "you@corp.example"})
	require.NoError(t, err)
	assert.Equal(t, `mail from <me@example.org> to <you@corp.example>
  by routes:1: *
  1. through smtps://u@relay.example, with TLS or not at all, token from env:RELAY_PASSWORD, login by XOAUTH2
  2. if it fails, through submission://b.example, with TLS or not at all, login by EXTERNAL
`, text)
}

// naive is the rules of precedence written down without any thought of speed.
func naive(patterns []string, hosts map[string][]string, q route.Query) string {
	toLocal, toDomain := split(q.Recipient)
	fromLocal, fromDomain := split(q.Sender)
	candidates := []string{toLocal + "@" + toDomain, "fold:" + strings.ToLower(toLocal) + "@" + toDomain}
	candidates = append(candidates, "from:"+fromLocal+"@"+fromDomain, "fold:from:"+strings.ToLower(fromLocal)+"@"+fromDomain)
	candidates = append(candidates, "*@"+toDomain, "from:*@"+fromDomain)
	candidates = append(candidates, subs("*@*", toDomain)...)
	candidates = append(candidates, subs("from:*@*", fromDomain)...)
	for _, host := range hosts[toDomain] {
		candidates = append(append(candidates, "mx:"+host), subs("mx:*", host)...)
	}
	for _, c := range append(candidates, "*") {
		for _, p := range patterns {
			if p == "from:<>" {
				p = "from:@"
			}
			if strings.HasSuffix(p, fold) {
				p = "fold:" + strings.ToLower(strings.TrimSuffix(p, fold))
			}
			if p == c {
				return p
			}
		}
	}
	return ""
}

const fold = " case=ignore"

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
	pattern := rapid.Custom(func(r *rapid.T) string {
		p := rapid.SampledFrom([]string{"", "from:"}).Draw(r, "of")
		switch rapid.IntRange(0, 5).Draw(r, "kind") {
		case 0:
			return p + local.Draw(r, "local") + "@" + domain.Draw(r, "domain")
		case 1:
			return p + strings.ToLower(local.Draw(r, "local")) + "@" + domain.Draw(r, "domain") + fold
		case 2:
			return p + "*@" + domain.Draw(r, "domain")
		case 3:
			return p + "*@*." + domain.Draw(r, "domain")
		case 4:
			return rapid.SampledFrom([]string{"mx:", "mx:*."}).Draw(r, "mx") + domain.Draw(r, "host")
		}
		return rapid.SampledFrom([]string{"*", "from:<>"}).Draw(r, "whole")
	})
	rapid.Check(t, func(r *rapid.T) {
		patterns := rapid.SliceOfNDistinct(pattern, 0, 12, func(p string) string { return p }).Draw(r, "patterns")
		var file strings.Builder
		for _, p := range patterns {
			p, option, _ := strings.Cut(p, " ")
			fmt.Fprintf(&file, "%s hold %s\n", p, option)
		}
		table, err := route.Parse("routes", strings.NewReader(file.String()))
		require.NoError(r, err)
		q := route.Query{Recipient: local.Draw(r, "local") + "@" + domain.Draw(r, "domain")}
		if rapid.Bool().Draw(r, "sender") {
			q.Sender = local.Draw(r, "local") + "@" + strings.ToUpper(domain.Draw(r, "domain"))
		}
		_, toDomain := split(q.Recipient)
		hosts := mxOf{toDomain: rapid.SliceOfN(domain, 0, 3).Draw(r, "MX hosts")}
		table.MX = hosts
		got, err := table.Route(t.Context(), q)
		require.NoError(r, err)
		want := naive(patterns, hosts, q)
		line := slices.IndexFunc(patterns, func(p string) bool {
			return p == want || p == "from:<>" && want == "from:@" || "fold:"+strings.TrimSuffix(p, fold) == want && strings.HasSuffix(p, fold)
		}) + 1
		require.Equal(r, line, got.Line, "%v in %v with the MX hosts %v: want %q, got %q", q, patterns, hosts, want, got.Pattern)
	})
}

func FuzzParse(f *testing.F) {
	f.Add(designFile)
	f.Add("\"a b\"@x.example reject \"550 \\\"no\\\"\" # c\n*@*.b lmtp://unix:/x, on any smtp://[::1]:26 mx=no")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "file:") {
			t.Skip("a secret=file: would read whatever the fuzzer finds")
		}
		table, err := route.Parse("routes", strings.NewReader(text))
		var mistakes route.Errors
		if errors.As(err, &mistakes) {
			lines := strings.Split(text, "\n")
			for _, m := range mistakes[:min(len(mistakes), 100)] {
				line := strings.TrimPrefix(lines[m.Line-1], "\ufeff")
				m.Line = 1
				wellTold(t, m, line)
			}
			return
		}
		require.NoError(t, err)
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
