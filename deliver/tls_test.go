package deliver_test

import (
	"crypto/tls"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
)

// TestTLSModes is every mode against every kind of host.
//
// std: T1
// std: T8
func TestTLSModes(t *testing.T) {
	offers := map[string]lab.Offer{
		"none":        {},
		"valid":       {TLS: lab.TLSOffered},
		"required":    {TLS: lab.TLSRequired},
		"wrong name":  {TLS: lab.TLSOffered, Certificate: lab.CertWrongName},
		"expired":     {TLS: lab.TLSOffered, Certificate: lab.CertExpired},
		"self-signed": {TLS: lab.TLSOffered, Certificate: lab.CertSelfSigned},
		"broken":      {TLS: lab.TLSBroken},
		"refused":     {TLS: lab.TLSRefused},
	}
	const clear, secure, verified, fails = "clear", "secure", "verified", "fails"
	for mode, want := range map[string]map[string]string{
		"": {
			"none": clear, "valid": verified, "required": verified, "wrong name": secure, "expired": secure, "self-signed": secure,
			"broken": clear, "refused": clear,
		},
		"none": {
			"none": clear, "valid": clear, "required": fails, "wrong name": clear, "expired": clear, "self-signed": clear,
			"broken": clear, "refused": clear,
		},
		"opportunistic": {
			"none": clear, "valid": verified, "required": verified, "wrong name": secure, "expired": secure, "self-signed": secure,
			"broken": clear, "refused": clear,
		},
		"required": {
			"none": fails, "valid": verified, "required": verified, "wrong name": secure, "expired": secure, "self-signed": secure,
			"broken": fails, "refused": fails,
		},
		"verified": {
			"none": fails, "valid": verified, "required": verified, "wrong name": fails, "expired": fails, "self-signed": fails,
			"broken": fails, "refused": fails,
		},
	} {
		for name, offer := range offers {
			t.Run(mode+" and "+name, func(t *testing.T) {
				bothWays(t, func(t *testing.T, w *world) {
					mx := w.Server("mx.aol.test", offer)
					hops := "direct"
					if mode != "" {
						hops += " tls=" + mode
					}
					o := w.one(t, by(t, hops))
					if want[name] == fails {
						if mode == "none" { // our route is at fault, and nobody's mail is returned for that
							require.Equal(t, deliver.TempFail, o.Result, "%v", o)
							require.True(t, o.RouteTrouble)
						} else {
							require.Equal(t, deliver.TempFail, o.Result, "%v", o)
							require.Equal(t, deliver.StageTLS, o.Stage)
							require.Contains(t, []string{"4.7.4", "4.7.5", "4.7.0"}, o.Status.String())
						}
						require.Empty(t, mx.Mailbox())
						require.NotContains(t, mx.Transcript(), "C: RCPT TO:<you@aol.test>\n#1 S: 250")
						return
					}
					require.Equal(t, deliver.Delivered, o.Result, "%v", o)
					require.Equal(t, want[name] != clear, o.TLS.Version != "")
					require.Equal(t, want[name] == verified, o.TLS.Verified)
					state := mx.Mailbox()[0].TLS
					require.Equal(t, want[name] != clear, state != nil)
					if state != nil { // std: T7
						require.Equal(t, "mx.aol.test", state.ServerName)
						require.Equal(t, "TLS 1.3", o.TLS.Version)
					}
				})
			})
		}
	}
}

// std: T1
func TestTheClearIsTriedLast(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("aol.test", "@ MX 10 a\n@ MX 20 b\na A 192.0.2.1\nb A 192.0.2.2"))
		a, b := w.Server("a.aol.test", lab.Offer{TLS: lab.TLSBroken}), w.Server("b.aol.test", lab.Offer{TLS: lab.TLSOffered})
		o := w.one(t, direct)
		require.Equal(t, "b.aol.test", o.Host, "%v", o)
		require.NotEmpty(t, o.TLS.Version)
		require.Empty(t, a.Mailbox())

		require.NoError(t, w.d.Close())
		b.Behave(lab.Refuse(lab.AtRcpt, "451 4.3.0 later"))
		o = w.one(t, direct)
		require.Equal(t, deliver.Delivered, o.Result, "%v", o)
		require.Equal(t, "a.aol.test", o.Host)
		require.Empty(t, o.TLS.Version)
		require.Equal(t, "a.aol.test", o.Tried[0].Host)
		require.Equal(t, deliver.StageTLS, o.Tried[0].Stage)
		require.Equal(t, "451 4.3.0 later", o.Tried[1].Reply.String())
	})
}

// std: T1
func TestAHostIsAskedOnceInTheClear(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		seen := w.watch()
		require.NoError(t, w.Zone("aol.test", "@ MX 10 mx\nmx A 192.0.2.10\nmx AAAA 2001:db8::10"))
		w.Server("mx.aol.test", lab.Offer{TLS: lab.TLSBroken}, lab.Refuse(lab.AtRcpt, "451 4.3.0 later"))
		o := w.one(t, direct)
		require.Equal(t, "451 4.3.0 later", o.Reply.String())
		require.Equal(t, []string{
			"mx.aol.test [2001:db8::10]:25", "mx.aol.test 192.0.2.10:25", // with TLS
			"mx.aol.test [2001:db8::10]:25",
		}, seen.connects)
	})
}

// A host may end the session only after we think that the handshake is done.
//
// std: T1
func TestAHandshakeThatTheHostEndsLate(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		mx := w.Server("mx.aol.test", lab.Offer{
			TLS:       lab.TLSOffered,
			TLSConfig: &tls.Config{ClientAuth: tls.RequireAnyClientCert, Certificates: []tls.Certificate{issue(t, w)}},
		})
		o := w.one(t, direct)
		require.Equal(t, deliver.Delivered, o.Result, "%v", o)
		require.Nil(t, mx.Mailbox()[0].TLS)
		o = w.one(t, by(t, "direct tls=required"))
		require.Equal(t, deliver.TempFail, o.Result)
		require.Equal(t, deliver.StageTLS, o.Stage)
	})
}

func issue(t *testing.T, w *world) tls.Certificate {
	t.Helper()
	cert, err := w.CA().Issue(lab.CertValid, "mx.aol.test")
	require.NoError(t, err)
	return cert
}

// That a host wants TLS, and has it broken, is not the recipient's failure.
func TestAHostThatInsistsOnItsBrokenTLS(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		w.Server("mx.aol.test", lab.Offer{TLS: lab.TLSBroken}, lab.Refuse(lab.AtMail, "530 5.7.0 Must issue a STARTTLS command first"))
		o := w.one(t, direct)
		require.Equal(t, deliver.TempFail, o.Result, "%v", o)
		require.Equal(t, "4.7.0", o.Status.String())
		require.False(t, o.RouteTrouble)
	})
}

// std: T7
func TestOldTLSIsForOpportunistsOnly(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		mx := w.Server("mx.aol.test", lab.Offer{
			TLS:       lab.TLSOffered,
			TLSConfig: &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11, Certificates: []tls.Certificate{issue(t, w)}},
		})
		o := w.one(t, direct)
		require.Equal(t, deliver.Delivered, o.Result, "%v", o)
		require.Equal(t, "TLS 1.1", o.TLS.Version)
		for _, hops := range []string{"direct tls=required", "direct tls=verified"} {
			o = w.one(t, by(t, hops))
			require.Equal(t, deliver.TempFail, o.Result)
			require.Equal(t, deliver.StageTLS, o.Stage)
		}
		require.Len(t, mx.Mailbox(), 1)
	})
}

// std: T7
func TestOurOwnMinimumHolds(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		w.d.TLS.MinVersion = tls.VersionTLS13
		mx := w.Server("mx.aol.test", lab.Offer{
			TLS:       lab.TLSOffered,
			TLSConfig: &tls.Config{MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{issue(t, w)}},
		})
		o := w.one(t, direct)
		require.Equal(t, deliver.Delivered, o.Result, "%v", o)
		require.Nil(t, mx.Mailbox()[0].TLS, "in the clear, since TLS failed")
		require.Equal(t, deliver.StageTLS, o.Tried[0].Stage)
	})
}

// std: T7
func TestSessionsAreResumed(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		w.d.Limits.Idle = -1
		mx := w.Server("mx.aol.test", lab.Offer{TLS: lab.TLSOffered, TLSConfig: &tls.Config{Certificates: []tls.Certificate{issue(t, w)}}})
		for range 2 {
			o := w.one(t, by(t, "direct tls=verified"))
			require.True(t, o.TLS.Verified, "%v", o)
		}
		mail := mx.Mailbox()
		require.False(t, mail[0].TLS.DidResume)
		require.True(t, mail[1].TLS.DidResume)
	})
}

// A resumed session is checked like a new one: what was good enough for one route is not for another.
func TestAResumedSessionIsVerified(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		w.d.Limits.Idle = -1
		cert, err := w.CA().Issue(lab.CertSelfSigned, "mx.aol.test")
		require.NoError(t, err)
		mx := w.Server("mx.aol.test", lab.Offer{TLS: lab.TLSOffered, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}})
		for range 2 {
			require.Equal(t, deliver.Delivered, w.one(t, by(t, "direct tls=required")).Result)
		}
		require.True(t, mx.Mailbox()[1].TLS.DidResume)
		o := w.one(t, by(t, "direct tls=verified"))
		require.Equal(t, deliver.TempFail, o.Result, "%v", o)
		require.Contains(t, o.Detail, "the certificate is not valid for mx.aol.test")
	})
}

// Connections that are kept serve only routes that ask for the same.
func TestKeptConnectionsKeepTheirPolicy(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		mx := w.Server("mx.aol.test", lab.Offer{TLS: lab.TLSOffered, Certificate: lab.CertSelfSigned})
		require.Empty(t, w.one(t, by(t, "direct tls=none")).TLS.Version)
		require.NotEmpty(t, w.one(t, direct).TLS.Version)
		require.Equal(t, deliver.TempFail, w.one(t, by(t, "direct tls=verified")).Result)
		require.Len(t, mx.Mailbox(), 2)
	})
}

// std: T9
func TestInjectionBeforeTLSIsAnError(t *testing.T) {
	for _, hops := range []string{"direct tls=required", "direct tls=verified", "direct"} {
		t.Run(hops, func(t *testing.T) {
			bothWays(t, func(t *testing.T, w *world) {
				w.Server("mx.aol.test", lab.Script(`
					S: 220 mx
					C: EHLO *
					S: 250-mx
					S: 250 STARTTLS
					C: STARTTLS
					S-RAW "220 go\r\n250-mx\r\n250 AUTH PLAIN\r\n"
					C-CLOSE
					----
					S: 220 mx
					C: EHLO *
					S: 250 mx
					C: MAIL *
					S: 250 ok
					C: RCPT *
					S: 250 ok
					C: DATA
					S: 354 go
					C-BODY
					S: 250 taken`))
				o := w.one(t, by(t, hops))
				if hops == "direct" { // the clear is all that is left, and was allowed
					require.Equal(t, deliver.Delivered, o.Result, "%v", o)
					require.Contains(t, o.Tried[0].Err, "between its answer to STARTTLS and the handshake")
					return
				}
				require.Equal(t, deliver.TempFail, o.Result, "%v", o)
				require.Equal(t, deliver.StageTLS, o.Stage)
				require.Contains(t, o.Detail, "between its answer to STARTTLS and the handshake")
			})
		})
	}
}

func TestDANEIsNotBuiltInYet(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		mx := w.Server("mx.aol.test", lab.Offer{TLS: lab.TLSOffered})
		for _, hops := range []string{"direct tls=dane", "smtps://mx.aol.test tls=dane", "submission://mx.aol.test tls=dane"} {
			o := w.one(t, by(t, hops))
			require.Equal(t, deliver.TempFail, o.Result, "%v", o)
			require.True(t, o.RouteTrouble)
			require.Contains(t, o.Detail, "not built in yet")
		}
		require.Empty(t, mx.Transcript())
	})
}

// std: T8
func TestSmarthostsByProtocol(t *testing.T) {
	for hops, tt := range map[string]struct {
		server string
		offer  lab.Offer
		tls    bool
	}{
		"smtp://mail.isp.test":                       {"mail.isp.test", lab.Offer{}, false},
		"smtp://mail.isp.test:26":                    {"mail.isp.test:26", lab.Offer{TLS: lab.TLSOffered}, true},
		"submission://mail.isp.test":                 {"mail.isp.test:587", lab.Offer{TLS: lab.TLSOffered}, true},
		"smtps://mail.isp.test":                      {"mail.isp.test:465", lab.Offer{TLS: lab.TLSImplicit}, true},
		"smtps://mail.isp.test tls=verified":         {"mail.isp.test:465", lab.Offer{TLS: lab.TLSImplicit}, true},
		"submission://mail.isp.test:26 tls=verified": {"mail.isp.test:26", lab.Offer{TLS: lab.TLSOffered}, true},
	} {
		t.Run(hops, func(t *testing.T) {
			bothWays(t, func(t *testing.T, w *world) {
				require.NoError(t, w.Zone("isp.test", "mail A 192.0.2.50"))
				isp := w.Server(tt.server, tt.offer)
				o := w.one(t, by(t, hops))
				require.Equal(t, deliver.Delivered, o.Result, "%v", o)
				require.Equal(t, tt.tls, isp.Mailbox()[0].TLS != nil)
			})
		})
	}
}

func TestASmarthostWithoutTheTLSItOwes(t *testing.T) {
	for hops, offer := range map[string]lab.Offer{
		"submission://mail.isp.test:25":         {},
		"smtps://mail.isp.test:25":              {},
		"smtps://mail.isp.test:25 tls=verified": {TLS: lab.TLSImplicit, Certificate: lab.CertWrongName},
	} {
		t.Run(hops, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				require.NoError(t, w.Zone("isp.test", "mail A 192.0.2.50"))
				isp := w.Server("mail.isp.test", offer)
				o := w.one(t, by(t, hops))
				require.Equal(t, deliver.TempFail, o.Result, "%v", o)
				require.Equal(t, deliver.StageTLS, o.Stage)
				require.Empty(t, isp.Mailbox())
			})
		})
	}
}

// An address has a certificate of its own, or none that is valid.
func TestTheCertificateOfAnAddress(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		cert, err := w.CA().Issue(lab.CertValid, "192.0.2.10")
		require.NoError(t, err)
		w.Server("mx.aol.test", lab.Offer{TLS: lab.TLSOffered, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}})
		for _, m := range []*deliver.Message{letter("you@[192.0.2.10]")} {
			o := w.all(t, direct, m)[0]
			require.Equal(t, deliver.Delivered, o.Result, "%v", o)
			require.NotEmpty(t, o.TLS.Version)
		}
	})
}

func TestHandshakesAreTraced(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		var states []deliver.TLSState
		var errs []error
		w.d.Trace = &deliver.Trace{
			TLS:     func(_ string, s deliver.TLSState, err error) { states, errs = append(states, s), append(errs, err) },
			Connect: func(string, netip.AddrPort, bool, error) {},
		}
		mx := w.Server("mx.aol.test", lab.Offer{TLS: lab.TLSOffered})
		require.Equal(t, deliver.Delivered, w.one(t, direct).Result)
		require.NoError(t, w.d.Close())
		mx.Behave(lab.Offer{TLS: lab.TLSBroken})
		require.Equal(t, deliver.Delivered, w.one(t, direct).Result)
		require.Len(t, states, 2)
		require.True(t, states[0].Verified)
		require.NoError(t, errs[0])
		require.Error(t, errs[1])
		require.Contains(t, w.said.String(), "*: TLS 1.3 TLS_AES_128_GCM_SHA256, certificate verified: true")
		require.Contains(t, w.said.String(), "*: TLS failed: ")
	})
}
