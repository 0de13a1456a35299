package deliver_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
)

// An outcome tells how long each stage took, and a line about it where that was long.
func TestTimingOfEachStage(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		at := map[lab.Stage]time.Duration{
			lab.AtConnect: 100 * time.Millisecond, lab.AtGreeting: time.Second, lab.AtEHLO: 2 * time.Second, lab.AtTLS: 3 * time.Second,
			lab.AtMail: 4 * time.Second, lab.AtRcpt: 5 * time.Second, lab.AtData: 6 * time.Second, lab.AtDot: 7 * time.Second,
		}
		var slow []lab.Behaviour
		for stage, d := range at {
			slow = append(slow, lab.Delay(stage, d))
		}
		w.Server("mx.aol.test", append(slow, lab.Offer{TLS: lab.TLSOffered})...)
		o := w.one(t, direct)
		require.Equal(t, deliver.Delivered, o.Result, "%v", o)
		want := deliver.Timing{
			Connect: 100 * time.Millisecond, Greeting: time.Second, EHLO: 4 * time.Second, TLS: 3 * time.Second,
			Mail: 4 * time.Second, Rcpt: 5 * time.Second, Data: 6 * time.Second, Dot: 7 * time.Second,
		}
		require.Equal(t, want, o.Timing)
		require.Equal(t, 30100*time.Millisecond, o.Timing.Sum())
		require.Regexp(t, ` \[connect 100ms, greeting 1s, ehlo 4s, tls 3s, mail 4s, rcpt 5s, data 6s, dot 7s\]$`, o.String())

		o = w.one(t, direct) // over the same connection
		want.Connect, want.Greeting, want.EHLO, want.TLS = 0, 0, 0, 0
		require.Equal(t, want, o.Timing)
	})
}

func TestTimingOfTheLogin(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("isp.example", "mail A 192.0.2.20"))
		w.Server("mail.isp.example", lab.Offer{TLS: lab.TLSOffered, Users: map[string]string{"u": "password"}}, lab.Delay(lab.AtAuth, 3*time.Second))
		secret := filepath.Join(t.TempDir(), "secret")
		require.NoError(t, os.WriteFile(secret, []byte("password"), 0o600))
		o := w.one(t, by(t, "smtp://u@mail.isp.example tls=required secret=file:"+secret))
		require.Equal(t, deliver.Delivered, o.Result, "%v", o)
		require.Equal(t, 3*time.Second, o.Timing.Auth)
	})
}
