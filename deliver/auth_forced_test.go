package deliver_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/route"
)

var everyMechanism = []string{"SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN", "OAUTHBEARER", "XOAUTH2", "EXTERNAL"}

// What a route asks for is done, whatever else the host offers, and with what the route has or the program gives.
//
// std: C16
func TestARouteForcesItsMechanism(t *testing.T) {
	t.Setenv("PASSWORD", password)
	t.Setenv("TOKEN", token)
	for name, tt := range map[string]struct {
		hops  string
		token bool // there is a token source, and a client certificate too
		want  string
	}{
		"plain":                         {hops: "submission://user@mail.isp.test secret=env:PASSWORD auth=plain", want: "PLAIN"},
		"login":                         {hops: "submission://user@mail.isp.test secret=env:PASSWORD auth=login", want: "LOGIN"},
		"cram-md5":                      {hops: "submission://user@mail.isp.test secret=env:PASSWORD auth=CRAM-MD5", want: "CRAM-MD5"},
		"scram-sha-256":                 {hops: "submission://user@mail.isp.test secret=env:PASSWORD auth=scram-sha-256", want: "SCRAM-SHA-256"},
		"plain beside a source":         {hops: "submission://user@mail.isp.test secret=env:PASSWORD auth=plain", token: true, want: "PLAIN"},
		"xoauth2 from a source":         {hops: "submission://user@mail.isp.test auth=xoauth2", token: true, want: "XOAUTH2"},
		"oauthbearer from a source":     {hops: "submission://user@mail.isp.test auth=oauthbearer", token: true, want: "OAUTHBEARER"},
		"xoauth2 with a secret":         {hops: "submission://user@mail.isp.test secret=env:TOKEN auth=xoauth2", want: "XOAUTH2"},
		"oauthbearer with a secret":     {hops: "submission://user@mail.isp.test secret=env:TOKEN auth=oauthbearer", want: "OAUTHBEARER"},
		"external beside a source":      {hops: "submission://user@mail.isp.test auth=external", token: true, want: "EXTERNAL"},
		"external, whoever it names":    {hops: "submission://mail.isp.test auth=external", token: true, want: "EXTERNAL"},
		"external where TLS is offered": {hops: "smtp://mail.isp.test:587 auth=external", token: true, want: "EXTERNAL"},
		"plain in the clear, as told":   {hops: "smtp://user@mail.isp.test:587 tls=none secret=env:PASSWORD auth=plain", want: "PLAIN"},
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				ispWorld(t, w)
				isp := w.Server("mail.isp.test:587", lab.Offer{
					TLS: lab.TLSOffered, AuthInClear: true, AuthRequired: true,
					Users: users, Tokens: map[string]string{"user": token}, Mechanisms: everyMechanism,
				})
				if tt.token {
					w.d.Token = tokens(true)
					if strings.Contains(tt.hops, "env:") {
						w.d.Token = tokens(false) // it is not asked
					}
					withCertificate(t, w, "user")
				}
				o := w.one(t, by(t, tt.hops))
				shut(t, w, isp, o)
				require.Equal(t, deliver.Delivered, o.Result, "%v", o)
				require.Equal(t, "user", isp.Mailbox()[0].User)
				require.Contains(t, w.said.String(), "C: AUTH "+tt.want)
				require.Equal(t, 1, strings.Count(isp.Transcript(), "C: AUTH"))
			})
		})
	}
}

// A host whose passwords are stored as hashes of another kind offers SCRAM all the same, and refuses it with 535 for ever.
//
// std: C16
func TestAWayAroundAMechanismThatIsOfferedAndBroken(t *testing.T) {
	t.Setenv("PASSWORD", password)
	const offer = "S: 220 isp\nC: EHLO *\nS: 250-isp\nS: 250 AUTH SCRAM-SHA-256 PLAIN\n"
	for hops, tt := range map[string]struct {
		script string
		good   bool
	}{
		"smtp://user@mail.isp.test secret=env:PASSWORD tls=none":            {script: "C: AUTH SCRAM-SHA-256 *\nS: 535 5.7.8 no"},
		"smtp://user@mail.isp.test secret=env:PASSWORD tls=none auth=plain": {script: "C: AUTH PLAIN *\nS: 235 yes\n" + mail, good: true},
	} {
		inMemory(t, func(t *testing.T, w *world) {
			ispWorld(t, w)
			w.Server("mail.isp.test", lab.Script(offer+tt.script))
			o := w.one(t, by(t, hops))
			require.Equal(t, tt.good, o.Result == deliver.Delivered, "%v", o)
		})
	}
}

// Where what a route asks for cannot be had, nothing else is tried, and the alarm says what to write.
//
// std: C16
func TestAForcedMechanismThatCannotBeHad(t *testing.T) {
	t.Setenv("PASSWORD", password)
	auth := func(a route.Auth) func(*route.Hop) { return func(hop *route.Hop) { hop.Auth = a } }
	others := func(name string) []string {
		return slices.DeleteFunc(slices.Clone(everyMechanism), func(s string) bool { return s == name })
	}
	for name, tt := range map[string]struct {
		r           route.Route
		offer       []string
		clear       bool
		token       string
		certificate bool
		status      string
		words       string
	}{
		"plain is not offered": {
			r: by(t, "submission://user@mail.isp.test secret=env:PASSWORD auth=plain"), offer: others("PLAIN"), status: "4.7.4",
			words: "the route says auth=plain, and mail.isp.test offers [SCRAM-SHA-256 CRAM-MD5 LOGIN",
		},
		"external is not offered": {
			r: by(t, "submission://mail.isp.test auth=external"), offer: others("EXTERNAL"), certificate: true, status: "4.7.4",
			words: "the route says auth=external, and mail.isp.test offers [SCRAM-SHA-256",
		},
		"a hash is not offered in the clear": {
			r: by(t, "smtp://user@mail.isp.test:587 secret=env:PASSWORD auth=cram-md5"), offer: others("CRAM-MD5"), clear: true, status: "4.7.4",
			words: "the route says auth=cram-md5, and mail.isp.test offers",
		},
		"plain is not for the clear": {
			r: by(t, "smtp://user@mail.isp.test:587 secret=env:PASSWORD auth=plain"), offer: others(""), clear: true, status: "4.7.11",
			words: "no password is sent without TLS",
		},
		"a certificate is not for the clear": {
			r: by(t, "smtp://mail.isp.test:587 auth=external"), offer: others(""), clear: true, certificate: true, status: "4.7.11",
			words: "no client certificate is sent without TLS, which mail.isp.test does not offer: ask its operator",
		},
		"external without a certificate": {
			r: by(t, "submission://user@mail.isp.test auth=external"), status: "4.3.5", words: "there is no client certificate to log in with",
		},
		"xoauth2 without a token": {
			r: by(t, "submission://user@mail.isp.test auth=xoauth2"), status: "4.3.5", words: "auth=xoauth2, and there is no token to log in with",
		},
		"a secret that is no token": {
			r: by(t, "submission://user@mail.isp.test secret=env:PASSWORD auth=oauthbearer"), status: "4.3.5",
			words: "what secret=env:PASSWORD has is no access token",
		},
		"a source that gives no token": {
			r: by(t, "submission://user@mail.isp.test auth=oauthbearer"), token: "two words", status: "4.3.5",
			words: "what the token source for submission://user@mail.isp.test has is no access token",
		},
		"plain without a password": {
			r: submission("user", auth(route.AuthPlain)), token: token, certificate: true, status: "4.3.5",
			words: "auth=plain, and there is no password to log in with",
		},
		"plain for nobody": {r: submission("", auth(route.AuthPlain)), status: "4.3.5", words: "auth=plain, and has no user"},
		"a token for nobody": {
			r: submission("", auth(route.AuthXOAUTH2)), token: token, status: "4.3.5", words: "auth=xoauth2, and has no user",
		},
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				ispWorld(t, w)
				if tt.offer == nil {
					tt.offer = everyMechanism
				}
				offer := lab.Offer{Capabilities: []string{"AUTH " + strings.Join(tt.offer, " ")}}
				if !tt.clear {
					offer.TLS = lab.TLSOffered
				}
				isp := w.Server("mail.isp.test:587", offer)
				if tt.token != "" {
					w.d.Token = tokenOf(tt.token)
				}
				if tt.certificate {
					withCertificate(t, w, "user")
				}
				o := w.one(t, tt.r)
				shut(t, w, isp, o)
				require.Equal(t, deliver.TempFail, o.Result)
				require.Equal(t, deliver.StageAuth, o.Stage)
				require.True(t, o.RouteTrouble)
				require.Equal(t, tt.status, o.Status.String())
				require.Contains(t, o.Detail, tt.words)
				require.NotContains(t, isp.Transcript(), "C: AUTH")
			})
		})
	}
}

// A login by certificate alone is a login: without TLS nothing is sent, and others do not share its connection.
//
// std: C16
func TestALoginWithoutAUserIsALogin(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		ispWorld(t, w)
		isp := w.Server("mail.isp.test", lab.Offer{TLS: lab.TLSOffered, Mechanisms: []string{"EXTERNAL"}})
		withCertificate(t, w, "user")
		for _, hops := range []string{"smtp://mail.isp.test", "smtp://mail.isp.test auth=external", "smtp://user@mail.isp.test auth=external"} {
			for range 2 {
				require.Equal(t, deliver.Delivered, w.one(t, by(t, hops)).Result, hops)
			}
		}
		require.Equal(t, 3, opened(isp))
		var who []string
		for _, m := range isp.Mailbox() {
			who = append(who, m.User)
		}
		require.Equal(t, []string{"", "", "user", "user", "user", "user"}, who)
		require.NoError(t, w.d.Close())
		isp.Behave(lab.Offer{TLS: lab.TLSBroken, Mechanisms: []string{"EXTERNAL"}})
		o := w.one(t, by(t, "smtp://mail.isp.test auth=external"))
		require.Equal(t, deliver.TempFail, o.Result, "not in the clear: %v", o)
		require.Equal(t, deliver.StageTLS, o.Stage)
	})
}
