package deliver_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/route"
)

// A hop whose Kind was forgotten leads to the recipients' own hosts: no login may go there, and the host that was meant is
// not passed over without a word.
//
// std: C16
func TestNoLoginGoesToStrangers(t *testing.T) {
	for name, hop := range map[string]route.Hop{
		"a host":  {Host: "smtp.isp.test", Protocol: route.Submission},
		"a user":  {User: "joe"},
		"an auth": {Auth: route.AuthExternal},
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				mx := w.Server("mx.aol.test", lab.Offer{TLS: lab.TLSOffered, Users: map[string]string{"joe": "x"}, Tokens: map[string]string{"joe": "token"}})
				w.d.Token = func(context.Context, route.Hop) (string, error) { return "token", nil }
				o := w.one(t, route.Route{Hops: []route.Hop{hop}})
				require.Equal(t, "tempfail 4.3.5", o.Result.String()+" "+o.Status.String(), "%v", o)
				require.True(t, o.RouteTrouble)
				require.Contains(t, o.Detail, "route.Smarthost")
				all, _ := mx.Connections()
				require.Zero(t, all)
			})
		})
	}
}

func TestAMessageWithoutOpen(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		w.Server("mx.aol.test")
		m := letter("you@aol.test")
		m.Open = nil
		o := w.all(t, direct, m)[0]
		require.Equal(t, "tempfail 4.3.0", o.Result.String()+" "+o.Status.String(), "%v", o)
		require.Contains(t, o.Detail, "Message.Open is nil")
	})
}

// What a host proves itself by in SCRAM is enough to try passwords on, so a transcript shows none of it.
//
// std: C16
func TestTheTranscriptHasNoChallenges(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("isp.test", "mail A 192.0.2.20"))
		w.Server("mail.isp.test", lab.Offer{TLS: lab.TLSOffered, Users: map[string]string{"joe": "pass"}, Mechanisms: []string{"SCRAM-SHA-256"}})
		t.Setenv("PASSWORD", "pass")
		o := w.one(t, by(t, "smtp://joe@mail.isp.test tls=required secret=env:PASSWORD auth=scram-sha-256"))
		require.Equal(t, deliver.Delivered, o.Result, "%v", o)
		require.Contains(t, w.said.String(), "S: 334 ***\n")
		require.NotRegexp(t, `S: 334 [^*]`, w.said.String())
	})
}

// A smarthost that cannot prove its name is a matter for the administrator.
func TestASmarthostWithAWrongCertificateIsAnAlarm(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("isp.test", "mail A 192.0.2.20"))
		w.Server("mail.isp.test", lab.Offer{TLS: lab.TLSOffered, Certificate: lab.CertExpired})
		o := w.one(t, by(t, "smtp://mail.isp.test tls=verified"))
		require.Equal(t, deliver.TempFail, o.Result, "%v", o)
		require.True(t, o.RouteTrouble)
		require.Contains(t, o.Detail, "the certificate is not valid for mail.isp.test")
	})
}
