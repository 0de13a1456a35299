package deliver_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
)

const password = "open sesame"

// ispWorld has a smarthost at mail.isp.test and a password in the environment.
func ispWorld(t *testing.T, w *world) {
	t.Helper()
	require.NoError(t, w.Zone("isp.test", "mail A 192.0.2.50\nmail A 192.0.2.51"))
}

func base64Of(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// shows reports where the password stands, in any form in which it went over the wire.
func shows(text string) bool {
	for _, secret := range []string{password, base64Of(password), base64Of("\x00user\x00" + password)} {
		if strings.Contains(text, secret) {
			return true
		}
	}
	return false
}

// std: C16
func TestLogins(t *testing.T) {
	t.Setenv("PASSWORD", password)
	t.Setenv("WRONG", "close sesame")
	starttls := lab.Offer{TLS: lab.TLSOffered, Users: users, AuthRequired: true}
	inClear := lab.Offer{Users: users, AuthInClear: true, AuthRequired: true}
	implicit := lab.Offer{TLS: lab.TLSImplicit, Users: users, AuthRequired: true}
	const right = " secret=env:PASSWORD"
	for name, tt := range map[string]struct {
		hops    string
		port    string
		offer   lab.Offer
		good    bool
		trouble bool
		stage   deliver.Stage
		words   string
	}{
		"submission":            {hops: "submission://user@mail.isp.test" + right, port: "587", offer: starttls, good: true},
		"smtps":                 {hops: "smtps://user@mail.isp.test" + right, port: "465", offer: implicit, good: true},
		"smtp with STARTTLS":    {hops: "smtp://user@mail.isp.test" + right, port: "25", offer: starttls, good: true},
		"in the clear, as told": {hops: "smtp://user@mail.isp.test tls=none" + right, port: "25", offer: inClear, good: true},
		"in the clear, untold": {
			hops: "smtp://user@mail.isp.test" + right, port: "25", offer: inClear,
			trouble: true, stage: deliver.StageAuth, words: "no password is sent without TLS",
		},
		"in the clear, opportunist": {
			hops: "smtp://user@mail.isp.test tls=opportunistic" + right, port: "25", offer: inClear,
			trouble: true, stage: deliver.StageAuth, words: "no password is sent without TLS",
		},
		"TLS is broken": {
			hops: "smtp://user@mail.isp.test" + right, port: "25", offer: lab.Offer{TLS: lab.TLSBroken, Users: users, AuthInClear: true},
			stage: deliver.StageTLS, words: "TLS with the host failed",
		},
		"a wrong password": {
			hops: "submission://user@mail.isp.test secret=env:WRONG", port: "587", offer: starttls, trouble: true, stage: deliver.StageAuth,
		},
		"an unknown user": {
			hops: "submission://nobody@mail.isp.test" + right, port: "587", offer: starttls, trouble: true, stage: deliver.StageAuth,
		},
		"no login is offered": {
			hops: "submission://user@mail.isp.test" + right, port: "587", offer: lab.Offer{TLS: lab.TLSOffered},
			trouble: true, stage: deliver.StageAuth, words: "offers no login that is known here",
		},
		"no login that we know": {
			hops: "submission://user@mail.isp.test" + right, port: "587",
			offer:   lab.Offer{TLS: lab.TLSOffered, Capabilities: []string{"AUTH GSSAPI"}},
			trouble: true, stage: deliver.StageAuth, words: "GSSAPI",
		},
		"a login is demanded at all": {
			hops: "submission://mail.isp.test", port: "587", offer: starttls, trouble: true, stage: deliver.StageMail,
		},
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, w *world) {
				ispWorld(t, w)
				isp := w.Server("mail.isp.test:"+tt.port, tt.offer)
				o := w.one(t, by(t, tt.hops))
				require.False(t, shows(w.said.String()+w.log.String()+o.String()))
				if tt.good {
					require.Equal(t, deliver.Delivered, o.Result, "%v", o)
					require.Equal(t, "user", isp.Mailbox()[0].User)
					require.Contains(t, w.said.String(), "C: AUTH PLAIN ***\n")
					return
				}
				require.Equal(t, deliver.TempFail, o.Result, "never the recipient's failure: %v", o)
				require.Equal(t, tt.trouble, o.RouteTrouble)
				require.Equal(t, tt.stage, o.Stage)
				require.Contains(t, o.Detail, tt.words)
				require.Empty(t, isp.Mailbox())
				require.NoError(t, w.d.Close())
				if tt.stage == deliver.StageAuth && tt.words == "" {
					require.Equal(t, "535 5.7.8 Authentication credentials invalid", o.Reply.Wire())
					require.Equal(t, "4.7.8", o.Status.String())
					require.Equal(t, 1, strings.Count(isp.Transcript(), "S: 535 "), "other addresses are not asked: some hosts lock the account")
				} else {
					require.NotContains(t, isp.Transcript(), "C: AUTH")
				}
			})
		})
	}
}

// What hosts say about a login for the moment is no alarm.
//
// std: C16
func TestALoginThatFailsForNow(t *testing.T) {
	t.Setenv("PASSWORD", password)
	for name, b := range map[string]lab.Behaviour{
		"454":  lab.Refuse(lab.AtAuth, "454 4.7.0 Temporary authentication failure"),
		"421":  lab.Refuse(lab.AtAuth, "421 4.3.2 shutting down"),
		"lost": lab.Drop(lab.AtAuth),
		"junk": lab.Junk(lab.AtAuth),
		"odd":  lab.Refuse(lab.AtAuth, "250 ok"),
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, w *world) {
				ispWorld(t, w)
				w.Server("mail.isp.test:587", lab.Offer{TLS: lab.TLSOffered, Users: users}, b)
				o := w.one(t, by(t, "submission://user@mail.isp.test secret=env:PASSWORD"))
				require.Equal(t, deliver.TempFail, o.Result, "%v", o)
				require.Equal(t, deliver.StageAuth, o.Stage)
				require.False(t, o.RouteTrouble)
			})
		})
	}
}

// LOGIN is whatever a host asks for, in its own words.
//
// std: C16
func TestLOGIN(t *testing.T) {
	t.Setenv("PASSWORD", password)
	for name, prompts := range map[string][2]string{
		"as everybody":      {"Username:", "Password:"},
		"in its own words":  {"User Name\x00", "Password\x00"},
		"without any words": {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, w *world) {
				ispWorld(t, w)
				w.Server("mail.isp.test", lab.Script("S: 220 isp\nC: EHLO *\nS: 250-isp\nS: 250-AUTH=LOGIN\n"+
					"S: 250 AUTH LOGIN X\nC: AUTH LOGIN\n"+
					"S: 334 "+base64Of(prompts[0])+"\nC: "+base64Of("user")+"\n"+
					"S: 334 "+base64Of(prompts[1])+"\nC: "+base64Of(password)+"\nS: 235 2.7.0 welcome\n"+
					"C: MAIL *\nS: 250 ok\nC: RCPT *\nS: 250 ok\nC: DATA\nS: 354 go\nC-BODY\nS: 250 ok"))
				o := w.one(t, by(t, "smtp://user@mail.isp.test secret=env:PASSWORD tls=none"))
				require.Equal(t, deliver.Delivered, o.Result, "%v", o)
				require.False(t, shows(w.said.String()))
				require.Equal(t, 2, strings.Count(w.said.String(), "C: ***\n"))
			})
		})
	}
}

// std: C16
func TestLoginsThatMakeNoSense(t *testing.T) {
	t.Setenv("PASSWORD", password)
	for name, tt := range map[string]struct{ script, words string }{
		"no base64":      {"S: 250 AUTH LOGIN\nC: AUTH LOGIN\nS: 334 ?!\nC-CLOSE", "not base64"},
		"one more of it": {"S: 250 AUTH PLAIN\nC: AUTH PLAIN *\nS: 334 \nC-CLOSE", "unexpected server challenge"},
		"two more of it": {
			"S: 250 AUTH LOGIN\nC: AUTH LOGIN\nS: 334 \nC: *\nS: 334 \nC: *\nS: 334 \nC-CLOSE",
			"unexpected server challenge",
		},
		"an empty offer": {"S: 250 AUTH", "offers no login"},
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				require.NoError(t, w.Zone("isp.test", "mail A 192.0.2.50"))
				w.Server("mail.isp.test", lab.Script("S: 220 isp\nC: EHLO *\nS: 250-isp\n"+tt.script))
				o := w.one(t, by(t, "smtp://user@mail.isp.test secret=env:PASSWORD tls=none"))
				require.Equal(t, deliver.TempFail, o.Result, "%v", o)
				require.Equal(t, deliver.StageAuth, o.Stage)
				require.Contains(t, o.Detail, tt.words)
				require.False(t, shows(w.said.String()+o.String()))
			})
		})
	}
}

// A host may repeat what it was sent, in any form. Nothing that is kept or shown has it.
//
// std: C16
func TestAHostThatRepeatsThePassword(t *testing.T) {
	t.Setenv("PASSWORD", password)
	plain := base64Of("\x00user\x00" + password)
	for name, script := range map[string]string{
		"in a refusal":        "S: 535-5.7.8 you said AUTH PLAIN " + plain + "\nS: 535 5.7.8 that is " + password,
		"in junk":             "S: " + plain,
		"in more than a line": "S-RAW \"535-" + password + "\\r\\n550 " + password + "\\r\\n\"",
		"later":               "S: 235 ok\nC: MAIL *\nS: 550 5.7.1 " + password + " is no good, nor is " + base64Of(password),
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, w *world) {
				require.NoError(t, w.Zone("isp.test", "mail A 192.0.2.50"))
				w.Server("mail.isp.test", lab.Script("S: 220 isp\nC: EHLO *\nS: 250-isp\nS: 250 AUTH PLAIN\nC: AUTH PLAIN "+plain+"\n"+script))
				o := w.one(t, by(t, "smtp://user@mail.isp.test secret=env:PASSWORD tls=none"))
				require.NotEqual(t, deliver.Delivered, o.Result)
				require.False(t, shows(w.said.String()), "%s", w.said)
				require.False(t, shows(w.log.String()), "%s", &w.log)
				require.False(t, shows(o.String()+o.Reply.Wire()+o.Detail+o.Err().Error()), "%v", o)
				require.Contains(t, w.said.String(), "***")
				if name == "in a refusal" {
					require.Equal(t, "535-5.7.8 you said AUTH PLAIN ***\n535 5.7.8 that is ***", o.Reply.Wire())
				}
			})
		})
	}
}

// A password that looks like a reply code, or is very short, does not disturb what hosts say.
func TestPasswordsThatLookLikeReplies(t *testing.T) {
	for _, secret := range []string{"250 ", "25", "250-"} {
		t.Setenv("PASSWORD", secret)
		inMemory(t, func(t *testing.T, w *world) {
			require.NoError(t, w.Zone("isp.test", "mail A 192.0.2.50"))
			w.Server("mail.isp.test", lab.Offer{Users: map[string]string{"user": secret}, AuthInClear: true})
			o := w.one(t, by(t, "smtp://user@mail.isp.test secret=env:PASSWORD tls=none"))
			require.Equal(t, deliver.Delivered, o.Result, "%v", o)
		})
	}
}
