//go:build linux

package deliver_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/dsn"
)

// startDovecot runs a Dovecot of its own in the foreground.
func startDovecot(t *testing.T, p *peer) *peer {
	t.Helper()
	root := peerRoot(t, "Dovecot", "usr/lib/dovecot/lmtp")
	if p == nil {
		p = newPeer(t)
		p.owner(t, "mail")
	}
	return p.dovecot(t, root)
}

func (p *peer) dovecot(t *testing.T, root string) *peer {
	t.Helper()
	p.certificate(t, "etc/right.pem", lab.CertValid)
	for _, name := range []string{"dovecot.conf", "oauth2.conf", "boxes", "users"} {
		p.configure(t, "dovecot/"+name, "dovecot/"+name)
	}
	p.write(t, "dovecot/keys/default/HS256/default", base64.StdEncoding.EncodeToString([]byte(peerPassword)))
	p.logs = append(p.logs, p.path("dovecot/log"))
	p.run(t, exec.Command(root+"usr/sbin/dovecot", "-F", "-c", p.path("dovecot/dovecot.conf")), "lmtp")
	return p
}

// webToken is an access token for a user that Dovecot takes (RFC 7519, section 3.1).
func webToken(user string) string {
	part := base64.RawURLEncoding.EncodeToString
	from, until := time.Now().Add(-time.Minute).Unix(), time.Now().Add(time.Hour).Unix()
	text := part([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." +
		part(fmt.Appendf(nil, `{"sub":%q,"iat":%d,"exp":%d}`, user, from, until))
	mac := hmac.New(sha256.New, []byte(peerPassword))
	mac.Write([]byte(text))
	return text + "." + part(mac.Sum(nil))
}

// std: C18
func TestDovecot(t *testing.T) {
	t.Parallel()
	p := startDovecot(t, nil)
	d, transcript := p.deliverer(t, "lmtp")
	for name, hops := range map[string]string{
		"TCP":           "lmtp://$HOST",
		"TLS":           "lmtp://$HOST tls=verified",
		"a unix socket": "lmtp://unix:" + p.path("dovecot/lmtp.sock"),
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 {
				m := letterOf(dated, "you@store.test", "nobody@store.test", "they@store.test")
				m.To[0].Notify = dsn.NotifySuccess
				outcomes := d.Deliver(t.Context(), p.by(t, "lmtp", hops), m)
				require.Equal(t, "relayed dot 250,permfail rcpt 550,delivered dot 250", brief(outcomes), "%v", outcomes)
				require.Contains(t, outcomes[0].Reply.Text(), "<you@store.test>")
				require.Contains(t, outcomes[2].Reply.Text(), "<they@store.test>", "a reply for each")
				require.Equal(t, name != "a unix socket", outcomes[0].TLS.Verified)
				for _, box := range []string{"you", "they"} {
					require.Equal(t, []string{stored(dated)}, p.arrived(t, box, 1))
				}
			}
		})
	}
	require.Contains(t, transcript.String(), "C: LHLO")
	require.NotContains(t, transcript.String(), "EHLO")
}

func TestDovecotCorpus(t *testing.T) {
	t.Parallel()
	p := startDovecot(t, nil)
	p.corpus(t, "lmtp", "lmtp://$HOST", habits{makes: func(kind, text string) []string {
		if kind == folded {
			return []string{swallowed(text)}
		}
		return []string{text}
	}})
}
