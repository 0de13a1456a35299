package lab_test

import (
	"crypto/tls"
	"encoding/base64"
	"net/smtp"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/lab"
)

// logins are sessions in which someone logs in by hand. The tokens are those of RFC 7628, section 4.
func logins() []played {
	const token = "bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9NTg3" +
		"AWF1dGg9QmVhcmVyIHZGOWRmdDRxbVRjMk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB"
	const xoauth2 = "dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQmhkSFJoZG1semRHRXVZMjl0Q2cBAQ=="
	all := lab.Offer{
		Users: users, AuthInClear: true, Capabilities: []string{},
		Tokens: map[string]string{
			"user@example.com": "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==", "someuser@example.com": "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg",
		},
	}
	stale := all
	stale.Tokens = map[string]string{"user@example.com": "fresh", "someuser@example.com": "fresh"}
	few := all
	few.Mechanisms = []string{"GSSAPI", "PLAIN"}
	return []played{
		{
			name: "a token by OAUTHBEARER, after the offer", behaviours: []lab.Behaviour{all},
			dialogue: "S: 220 *\nC: EHLO c\nS: 250-*\nS: 250 AUTH PLAIN LOGIN OAUTHBEARER XOAUTH2\nC: AUTH OAUTHBEARER " + token + "\nS: 235 *",
		},
		{
			name: "when asked", behaviours: []lab.Behaviour{all},
			dialogue: "S: 220 *\nC: AUTH OAUTHBEARER\nS: 334*\nC: " + token + "\nS: 235 *",
		},
		{
			name: "a token by XOAUTH2", behaviours: []lab.Behaviour{all},
			dialogue: "S: 220 *\nC: AUTH XOAUTH2 " + xoauth2 + "\nS: 235 *\nC: AUTH XOAUTH2 " + xoauth2 + "\nS: 503 *",
		},
		{
			name: "a token that is refused is explained", behaviours: []lab.Behaviour{stale},
			dialogue: "S: 220 *\nC: AUTH OAUTHBEARER " + token + "\n" +
				"S: 334 eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIiwic2NoZW1lcyI6ImJlYXJlciIsInNjb3BlIjoibWFpbC5zZW5kIn0=\nC: AQ==\nS: 535 *\n" +
				"C: AUTH OAUTHBEARER " + token + "\nS: 334 *\nC: \nS: 501 *\n" +
				"C: AUTH XOAUTH2 " + xoauth2 + "\nS: 334 *\nC: \nS: 535 *\n" +
				"C: AUTH XOAUTH2 " + xoauth2 + "\nS: 334 *\nC: AQ==\nS: 501 *",
		},
		{
			name: "only what is offered", behaviours: []lab.Behaviour{few},
			dialogue: "S: 220 *\nC: EHLO c\nS: 250-*\nS: 250 AUTH GSSAPI PLAIN\nC: AUTH GSSAPI\nS: 504 *\nC: AUTH LOGIN\nS: 504 *\n" +
				"C: AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00user\x00secret")) + "\nS: 235 *",
		},
		{
			name: "nobody acts for somebody else, and no message is malformed", behaviours: []lab.Behaviour{all},
			dialogue: "S: 220 *\nC: AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("boss\x00user\x00secret")) + "\nS: 535 *\n" +
				"C: AUTH PLAIN AAAAAAA=\nS: 501 *\nC: AUTH PLAIN =\nS: 501 *\nC: AUTH CRAM-MD5\nS: 504 *",
		},
		{
			name: "not within a transaction", behaviours: []lab.Behaviour{all},
			dialogue: "S: 220 *\nC: EHLO c\nS: 250-*\nS: 250 *\nC: MAIL FROM:<a@b.test>\nS: 250 *\nC: AUTH LOGIN\nS: 503 *",
		},
	}
}

// std: C16
func TestLoginsByHand(t *testing.T) { play(t, logins) }

// saslAuth lets net/smtp play a client of go-sasl.
type saslAuth struct{ sasl.Client }

func (a saslAuth) Start(*smtp.ServerInfo) (string, []byte, error) { return a.Client.Start() }

func (a saslAuth) Next(challenge []byte, more bool) ([]byte, error) {
	if !more {
		return nil, nil
	}
	return a.Client.Next(challenge)
}

// Clients of others can log in.
//
// std: C16
func TestLoginsOfOtherClients(t *testing.T) {
	for name, tt := range map[string]struct {
		auth smtp.Auth
		good bool
	}{
		"CRAM-MD5 of net/smtp":            {smtp.CRAMMD5Auth("user", "secret"), true},
		"CRAM-MD5, wrong":                 {smtp.CRAMMD5Auth("user", "Secret"), false},
		"CRAM-MD5, unknown":               {smtp.CRAMMD5Auth("nobody", ""), false},
		"PLAIN of net/smtp":               {smtp.PlainAuth("", "user", "secret", "smtp.isp.test"), true},
		"OAUTHBEARER of go-sasl":          {saslAuth{sasl.NewOAuthBearerClient(&sasl.OAuthBearerOptions{Username: "user", Token: "t0ken"})}, true},
		"EXTERNAL of go-sasl, named":      {saslAuth{sasl.NewExternalClient("user")}, true},
		"EXTERNAL of go-sasl, not a name": {saslAuth{sasl.NewExternalClient("boss")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			bothModes(t, func(t *testing.T, n *lab.Internet) {
				isp := n.Server("smtp.isp.test", lab.Offer{
					TLS: lab.TLSOffered, Users: users, Tokens: map[string]string{"user": "t0ken"},
					Mechanisms: []string{"CRAM-MD5", "PLAIN", "OAUTHBEARER", "EXTERNAL"},
				})
				c := dial(t, n, "smtp.isp.test:25")
				cfg := n.CA().ClientConfig()
				cfg.ServerName = "smtp.isp.test"
				own, err := n.CA().Issue(lab.CertValid, "user")
				require.NoError(t, err)
				cfg.Certificates = []tls.Certificate{own}
				require.NoError(t, c.StartTLS(cfg))
				err = c.Auth(tt.auth)
				require.Equal(t, tt.good, err == nil, "%v", err)
				if tt.good {
					require.NoError(t, send(c, "a@b.test", []string{"a@aol.test"}, "x\r\n"))
					require.Equal(t, "user", isp.Mailbox()[0].User)
				}
				require.NotContains(t, isp.Transcript(), "t0ken")
			})
		})
	}
}

// Without a certificate, or with one of another CA, EXTERNAL is nobody.
func TestEXTERNALNeedsACertificate(t *testing.T) {
	n := lab.Test(t)
	n.Server("smtp.isp.test", lab.Offer{TLS: lab.TLSOffered, Mechanisms: []string{"EXTERNAL"}})
	c := dial(t, n, "smtp.isp.test:25")
	cfg := n.CA().ClientConfig()
	cfg.ServerName = "smtp.isp.test"
	require.NoError(t, c.StartTLS(cfg))
	require.ErrorContains(t, c.Auth(saslAuth{sasl.NewExternalClient("user")}), "535")

	own, err := n.CA().Issue(lab.CertSelfSigned, "user")
	require.NoError(t, err)
	cfg.Certificates = []tls.Certificate{own}
	c = dial(t, n, "smtp.isp.test:25")
	err = c.StartTLS(cfg)
	if err == nil { // in TLS 1.3 the client learns of it later
		err = c.Auth(saslAuth{sasl.NewExternalClient("user")})
	}
	require.Error(t, err)
}
