package deliver_test

import (
	"crypto/tls"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/route"
)

const token = "ya29.a0AfH6SMBx-1234567890_abcdefgh~+/=="

// submission is a route to a hop with a user and no secret.
func submission(user string, change ...func(*route.Hop)) route.Route {
	hop := route.Hop{Kind: route.Smarthost, Protocol: route.Submission, Host: "mail.isp.test", User: user}
	for _, f := range change {
		f(&hop)
	}
	return route.Route{Hops: []route.Hop{hop}}
}

func inTheClear(hop *route.Hop) { hop.Protocol, hop.Port, hop.TLS = route.SMTP, 587, route.TLSNone }

func opportunist(hop *route.Hop) { hop.Protocol, hop.Port = route.SMTP, 587 }

// withCertificate gives the Deliverer a client certificate for a name.
func withCertificate(t *testing.T, w *world, name string) {
	t.Helper()
	cert, err := w.CA().Issue(lab.CertValid, name)
	require.NoError(t, err)
	w.d.TLS.Certificates = []tls.Certificate{cert}
}

// Every mechanism, with TLS and without, with right and wrong credentials: what shows a secret to listeners needs TLS or a
// route that says tls=none, and a wrong credential is the route's trouble.
//
// std: C16
func TestMechanisms(t *testing.T) {
	t.Setenv("PASSWORD", password)
	t.Setenv("WRONG", "close sesame")
	secret := map[bool]string{true: " secret=env:PASSWORD", false: " secret=env:WRONG"}
	for name, m := range map[string]struct {
		kind string
		bare bool // it shows the secret
	}{
		"PLAIN": {"password", true}, "LOGIN": {"password", true}, "CRAM-MD5": {"password", false}, "SCRAM-SHA-256": {"password", false},
		"XOAUTH2": {"token", true}, "OAUTHBEARER": {"token", true}, "EXTERNAL": {"certificate", true},
	} {
		for way, hops := range map[string]string{
			"TLS": "submission://user@mail.isp.test", "clear": "smtp://user@mail.isp.test:587", "told": "smtp://user@mail.isp.test:587 tls=none",
		} {
			for _, right := range []bool{true, false} {
				t.Run(name+" "+way+map[bool]string{true: "", false: ", wrong"}[right], func(t *testing.T) {
					inMemory(t, func(t *testing.T, w *world) {
						ispWorld(t, w)
						offer := lab.Offer{
							Users: users, Tokens: map[string]string{"user": token}, Mechanisms: []string{name}, AuthInClear: true, AuthRequired: true,
						}
						if way == "TLS" {
							offer.TLS = lab.TLSOffered
						}
						isp := w.Server("mail.isp.test:587", offer)
						r := by(t, hops+secret[right])
						hop := &r.Hops[0]
						switch m.kind {
						case "token":
							hop.Secret, w.d.Token = route.Secret{}, tokens(right)
						case "certificate":
							hop.Secret = route.Secret{}
							withCertificate(t, w, map[bool]string{true: "user", false: "other"}[right])
						}
						o := w.one(t, r)
						shut(t, w, isp, o)
						mayLogIn := way == "TLS" || !m.bare || (way == "told" && m.kind != "certificate")
						switch {
						case !mayLogIn:
							require.True(t, o.RouteTrouble)
							require.Contains(t, o.Detail, " is sent without TLS")
							require.Equal(t, "4.7.11", o.Status.String())
							require.NotContains(t, isp.Transcript(), "C: AUTH")
						case right:
							require.Equal(t, deliver.Delivered, o.Result, "%v", o)
							require.Equal(t, "user", isp.Mailbox()[0].User)
							require.Contains(t, w.said.String(), "C: AUTH "+name)
						default:
							require.Equal(t, deliver.TempFail, o.Result, "%v", o)
							require.Equal(t, deliver.StageAuth, o.Stage)
							require.True(t, o.RouteTrouble)
							require.Equal(t, 535, o.Reply.Code)
							require.Equal(t, 1, strings.Count(isp.Transcript(), "C: AUTH"), "no other address, no other try")
						}
					})
				})
			}
		}
	}
}

// shut checks that nothing which is kept or shown gives a secret away.
func shut(t *testing.T, w *world, isp *lab.Server, o deliver.Outcome) {
	t.Helper()
	text := w.said.String() + w.log.String() + o.String() + o.Reply.Wire() + o.Detail
	if err := o.Err(); err != nil {
		text += err.Error()
	}
	if isp != nil {
		text += isp.Transcript()
	}
	for _, secret := range []string{password, token, "close sesame", "stale token"} {
		require.False(t, givesAway(text, secret), "%s in\n%s", secret, text)
	}
}

// The order of preference, and why: what shows least comes first, and in the clear what shows the password comes last.
//
// std: C16
func TestTheBestMechanismIsTaken(t *testing.T) {
	t.Setenv("PASSWORD", password)
	everything := []string{"EXTERNAL", "XOAUTH2", "LOGIN", "plain", "Cram-MD5", "GSSAPI", "scram-sha-256", "SCRAM-SHA-256-PLUS", "OAUTHBEARER"}
	without := func(names ...string) []string {
		return slices.DeleteFunc(slices.Clone(everything), func(s string) bool { return slices.Contains(names, s) })
	}
	for name, tt := range map[string]struct {
		hops  string
		token bool
		offer []string
		want  string
	}{
		"SCRAM first":           {"submission://user@mail.isp.test secret=env:PASSWORD", false, everything, "SCRAM-SHA-256"},
		"PLAIN within TLS":      {"submission://user@mail.isp.test secret=env:PASSWORD", false, without("scram-sha-256"), "PLAIN"},
		"LOGIN within TLS":      {"submission://user@mail.isp.test secret=env:PASSWORD", false, without("scram-sha-256", "plain"), "LOGIN"},
		"CRAM-MD5 at last":      {"submission://user@mail.isp.test secret=env:PASSWORD", false, without("scram-sha-256", "plain", "LOGIN"), "CRAM-MD5"},
		"SCRAM in the clear":    {"smtp://user@mail.isp.test:587 secret=env:PASSWORD tls=none", false, everything, "SCRAM-SHA-256"},
		"CRAM-MD5 in the clear": {"smtp://user@mail.isp.test:587 secret=env:PASSWORD tls=none", false, without("scram-sha-256"), "CRAM-MD5"},
		"PLAIN as told":         {"smtp://user@mail.isp.test:587 secret=env:PASSWORD tls=none", false, without("scram-sha-256", "Cram-MD5"), "PLAIN"},
		"OAUTHBEARER":           {"submission://user@mail.isp.test secret=env:PASSWORD", true, everything, "OAUTHBEARER"},
		"XOAUTH2":               {"submission://user@mail.isp.test secret=env:PASSWORD", true, without("OAUTHBEARER"), "XOAUTH2"},
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				ispWorld(t, w)
				offer := lab.Offer{Capabilities: []string{"AUTH " + strings.Join(tt.offer, " ")}}
				if tt.want != "CRAM-MD5" && !strings.Contains(tt.hops, "tls=none") || strings.HasPrefix(tt.hops, "submission") {
					offer.TLS = lab.TLSOffered
				}
				isp := w.Server("mail.isp.test:587", offer) // lists them, and refuses AUTH with 502
				r := by(t, tt.hops)
				w.d.Token = tokens(true)
				if tt.token {
					r.Hops[0].Secret = route.Secret{}
				}
				o := w.one(t, r)
				require.Equal(t, 502, o.Reply.Code, "%v", o)
				require.Equal(t, 1, strings.Count(isp.Transcript(), "C: AUTH"))
				require.Contains(t, w.said.String(), "C: AUTH "+tt.want)
				shut(t, w, isp, o)
			})
		})
	}
}

// A host that does not have a mechanism after all is asked for the next one. Any other refusal is its last word.
//
// std: C16
func TestRefusedMechanisms(t *testing.T) {
	t.Setenv("PASSWORD", password)
	const offer = "S: 220 isp\nC: EHLO *\nS: 250-isp\nS: 250 AUTH SCRAM-SHA-256 CRAM-MD5 PLAIN LOGIN\n"
	const scram, cram, plain, login = "C: AUTH SCRAM-SHA-256 *\n", "C: AUTH CRAM-MD5\n", "C: AUTH PLAIN *\n", "C: AUTH LOGIN\n"
	for name, tt := range map[string]struct {
		script string
		good   bool
		code   int
	}{
		"504 to the end":        {script: scram + "S: 504 no\n" + cram + "S: 504 no\n" + plain + "S: 504 no\n" + login + "S: 504 5.5.4 no", code: 504},
		"504, then success":     {script: scram + "S: 504 no\n" + cram + "S: 504 no\n" + plain + "S: 235 yes\n" + mail, good: true},
		"538, then success":     {script: scram + "S: 538 no\n" + cram + "S: 538 no\n" + plain + "S: 235 yes\n" + mail, good: true},
		"504, then 535":         {script: scram + "S: 504 no\n" + cram + "S: 535 5.7.8 no", code: 535},
		"535":                   {script: scram + "S: 535 no", code: 535},
		"454":                   {script: scram + "S: 454 4.7.0 later", code: 454},
		"500":                   {script: scram + "S: 500 what", code: 500},
		"534 of a hash":         {script: scram + "S: 534 weak\n" + plain + "S: 235 yes\n" + mail, good: true},
		"534 of the password":   {script: scram + "S: 504 no\n" + cram + "S: 504 no\n" + plain + "S: 534-5.7.9 An application password\nS: 534 5.7.9 is required", code: 534},
		"504 after a challenge": {script: scram + "S: 504 no\n" + cram + "S: 334 PGE+\nC: *\nS: 504 no\n" + plain + "S: 235 yes\n" + mail, good: true},
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				ispWorld(t, w)
				w.Server("mail.isp.test", lab.Script(offer+tt.script))
				o := w.one(t, by(t, "smtp://user@mail.isp.test secret=env:PASSWORD tls=none"))
				shut(t, w, nil, o)
				require.Equal(t, tt.good, o.Result == deliver.Delivered, "%v", o)
				if !tt.good {
					require.Equal(t, tt.code, o.Reply.Code)
					require.Equal(t, tt.code >= 500, o.RouteTrouble)
				}
			})
		})
	}
}

const mail = "C: MAIL *\nS: 250 ok\nC: RCPT *\nS: 250 ok\nC: DATA\nS: 354 go\nC-BODY\nS: 250 ok"

// std: C16
func TestRoutesThatCannotLogIn(t *testing.T) {
	t.Setenv("PASSWORD", password)
	for name, tt := range map[string]struct {
		r     route.Route
		token string
		words string
		offer []string
	}{
		"nothing to log in with":       {r: submission("user"), words: "neither a secret nor a token source nor a client certificate"},
		"a user of two lines":          {r: submission("user\r\nNOOP"), token: token, words: "control character"},
		"no token":                     {r: submission("user"), token: "none", words: "no access token"},
		"a token of two words":         {r: submission("user"), token: "stale token", words: "no access token"},
		"a token with a break":         {r: submission("user"), token: "abcd\r\nNOOP", words: "no access token"},
		"a token with a control":       {r: submission("user"), token: "abcd\x01\x01", words: "no access token"},
		"a token without end":          {r: submission("user"), token: strings.Repeat("x", 12000), words: "too long"},
		"passwords alone are offered":  {r: submission("user"), token: token, offer: []string{"PLAIN"}, words: "it offers [PLAIN], and [OAUTHBEARER XOAUTH2] are known"},
		"tokens alone are offered":     {r: by(t, "submission://user@mail.isp.test secret=env:PASSWORD"), offer: []string{"XOAUTH2"}, words: "it offers [XOAUTH2]"},
		"an offer of nonsense":         {r: submission("user"), token: token, offer: []string{strings.Repeat("X", 300), "\x1b[31mRED"}, words: "it offers [XXXXXXXXXXXXXXXXXXXX [31MRED]"},
		"an offer of a hundred things": {r: submission("user"), token: token, offer: slices.Repeat([]string{"A"}, 100), words: "it offers [A A A A A A A A A A A A],"},
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				ispWorld(t, w)
				if tt.offer == nil {
					tt.offer = []string{"OAUTHBEARER"}
				}
				isp := w.Server("mail.isp.test:587", lab.Offer{TLS: lab.TLSOffered, Capabilities: []string{"AUTH " + strings.Join(tt.offer, " ")}})
				if tt.token != "" {
					w.d.Token = tokenOf(strings.TrimSuffix(tt.token, "none"))
				}
				o := w.one(t, tt.r)
				require.Equal(t, deliver.TempFail, o.Result)
				require.Equal(t, deliver.StageAuth, o.Stage)
				require.True(t, o.RouteTrouble)
				require.Contains(t, o.Detail, tt.words)
				require.NotContains(t, isp.Transcript(), "C: AUTH")
				require.NotContains(t, isp.Transcript(), "NOOP")
				shut(t, w, isp, o)
			})
		})
	}
}

// A password is the same however it was typed, and a user may have any name.
//
// std: C16
func TestNamesAndPasswordsBeyondASCII(t *testing.T) {
	accounts := map[string]string{"a,b=c d": "p\u00e4ss w\u00f6rd", "\u00fcser@isp.test": "IX \"q\" \\ <&>", "\u65e5": "\u65e5\u672c\u8a9e"}
	for _, user := range slices.Sorted(maps.Keys(accounts)) {
		for _, mechanism := range []string{"PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "XOAUTH2", "OAUTHBEARER"} {
			t.Run(user+" "+mechanism, func(t *testing.T) {
				typed := accounts[user]
				if mechanism == "SCRAM-SHA-256" {
					typed = strings.NewReplacer("\u00e4", "a\u0308", " ", "\u00a0", "IX", "\u2168").Replace(typed)
				}
				t.Setenv("PASSWORD", typed)
				inMemory(t, func(t *testing.T, w *world) {
					ispWorld(t, w)
					isp := w.Server("mail.isp.test:587", lab.Offer{
						TLS: lab.TLSOffered, Users: accounts, Mechanisms: []string{mechanism}, Tokens: map[string]string{user: token},
					})
					r := submission(user)
					if strings.Contains(mechanism, "AUTH") {
						w.d.Token = tokens(true)
					} else {
						var err error
						r.Hops[0].Secret, err = route.ReadSecret("env:PASSWORD")
						require.NoError(t, err)
					}
					o := w.one(t, r)
					require.Equal(t, deliver.Delivered, o.Result, "%v", o)
					require.Equal(t, user, isp.Mailbox()[0].User)
				})
			})
		}
	}
}
