package deliver_test

import (
	"io"
	"mime/quotedprintable"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
)

// REQUIRETLS goes to hosts that are who they say and promise the same, and to no others; what is kept under a weaker policy
// does not do. Where no host does, that is for good.
//
// std: C17
func TestREQUIRETLS(t *testing.T) {
	tls := func(cert lab.CertKind, capabilities ...string) lab.Offer {
		return lab.Offer{TLS: lab.TLSOffered, Certificate: cert, Capabilities: capabilities}
	}
	for name, tt := range map[string]struct {
		offer  lab.Offer
		second *lab.Offer // where it is another
		from   string     // the null sender where ""
		want   string
		host   string
		param  bool
	}{
		"promised": {
			offer: tls(lab.CertValid, "REQUIRETLS"), from: "me@example.org", want: "delivered 2.0.0", host: "mx.aol.test", param: true,
		},
		"not promised": {offer: tls(lab.CertValid), from: "me@example.org", want: "permfail 5.7.30", host: "second.aol.test"},
		"promised by another": {
			offer: tls(lab.CertValid), second: new(tls(lab.CertValid, "REQUIRETLS")), from: "me@example.org", want: "delivered 2.0.0",
			host: "second.aol.test", param: true,
		},
		"no TLS": {
			offer: lab.Offer{Capabilities: []string{"REQUIRETLS"}}, from: "me@example.org", want: "permfail 5.7.10",
			host: "second.aol.test",
		},
		"somebody else": {
			offer: tls(lab.CertSelfSigned, "REQUIRETLS"), from: "me@example.org",
			want: "tempfail 4.7.5", host: "second.aol.test",
		},
		"no TLS for a report": {offer: lab.Offer{}, want: "delivered 2.0.0", host: "mx.aol.test"},
		"promised for a report": {
			offer: tls(lab.CertSelfSigned, "REQUIRETLS"), want: "delivered 2.0.0", host: "mx.aol.test", param: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, w *world) {
				require.NoError(t, w.Zone("aol.test", twoHosts))
				mx, second := w.Server("mx.aol.test", tt.offer), w.Server("second.aol.test", tt.offer)
				if tt.second != nil {
					second.Behave(*tt.second)
				}
				require.Equal(t, deliver.Delivered, w.one(t, direct).Result, "without it anything does")
				mx.Forget()
				m := letter("you@aol.test")
				m.From, m.RequireTLS = tt.from, true
				o := w.all(t, direct, m)[0]
				require.Equal(t, tt.want, o.Result.String()+" "+o.Status.String(), "%v", o)
				require.Equal(t, tt.host, o.Host)
				mail := append(mx.Mailbox(), second.Mailbox()...)
				if o.Result != deliver.Delivered {
					require.Empty(t, mail)
					return
				}
				require.Len(t, mail, 1)
				_, used := mail[0].Params["REQUIRETLS"]
				require.Equal(t, tt.param, used)
				require.Equal(t, tt.from != "", o.TLS.Verified, "%v", o.TLS)
			})
		})
	}
}

// Binary content goes as it is, octet by octet, to who takes it in chunks and says that he takes it, and to others in base64.
//
// std: C9
func TestBinaryContent(t *testing.T) {
	const header = "MIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n"
	const text = header + "\r\n\x00\r\r\n\n.\r\n\xff\r" // no end of line
	all := []string{"CHUNKING", "BINARYMIME", "8BITMIME", "PIPELINING"}
	for name, tt := range map[string]struct {
		offer []string
		hops  string
		asIs  bool
	}{
		"offered":                  {all, "direct", true},
		"without chunks":           {[]string{"BINARYMIME", "8BITMIME"}, "direct", false},
		"chunks alone":             {[]string{"CHUNKING", "8BITMIME"}, "direct", false},
		"a route without chunks":   {all, "direct chunking=no", false},
		"nothing":                  {[]string{}, "direct", false},
		"8BITMIME, which does not": {[]string{"8BITMIME"}, "direct", false},
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, w *world) {
				mx := w.Server("mx.aol.test", lab.Offer{Capabilities: tt.offer})
				m := letterOf(text, "you@aol.test")
				m.Binary = true
				for range 2 { // the second goes with its envelope
					o := w.all(t, by(t, tt.hops), m)[0]
					require.Equal(t, deliver.Delivered, o.Result, "%v", o)
				}
				for _, mail := range mx.Mailbox() {
					require.Equal(t, tt.asIs, mail.Params["BODY"] == "BINARYMIME")
					if tt.asIs {
						require.Equal(t, text, string(mail.Body))
						continue
					}
					require.Contains(t, string(mail.Body), "Content-Transfer-Encoding: base64\r\n")
					require.Contains(t, string(mail.Body), "\r\n\r\n"+base64Of(strings.TrimPrefix(text, header+"\r\n"))+"\r\n")
				}
			})
			inMemory(t, func(t *testing.T, w *world) {
				w.d.NoConversion = true
				mx := w.Server("mx.aol.test", lab.Offer{Capabilities: tt.offer})
				m := letterOf(text, "you@aol.test")
				m.Binary = true
				o := w.all(t, by(t, tt.hops), m)[0]
				if tt.asIs {
					require.Equal(t, deliver.Delivered, o.Result, "%v", o)
					return
				}
				require.Equal(t, "permfail 5.6.3", o.Result.String()+" "+o.Status.String(), "%v", o)
				require.NotContains(t, mx.Transcript(), "C: MAIL")
			})
		})
	}
}

// Lines that DATA cannot carry go in chunks as they are, and are encoded for hosts without.
//
// std: C12
func TestLinesThatAreTooLong(t *testing.T) {
	const header = "Subject: x\r\n\r\n"
	for name, tt := range map[string]struct {
		line  int
		offer []string
		asIs  bool
	}{
		"998 by DATA":        {998, []string{}, true},
		"999 by DATA":        {999, []string{}, false},
		"999 in chunks":      {999, []string{"CHUNKING"}, true},
		"a million in":       {1 << 20, []string{"CHUNKING"}, true},
		"a million by DATA":  {1 << 20, []string{"8BITMIME"}, false},
		"999 with PIPELINES": {999, []string{"CHUNKING", "PIPELINING"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, convert := range []bool{true, false} {
				inMemory(t, func(t *testing.T, w *world) {
					w.d.NoConversion = !convert
					mx := w.Server("mx.aol.test", lab.Offer{Capabilities: tt.offer})
					text := header + strings.Repeat("x", tt.line) + "\r\n"
					o := w.all(t, direct, letterOf(text, "you@aol.test"))[0]
					if !convert && !tt.asIs {
						require.Equal(t, "permfail 5.6.3", o.Result.String()+" "+o.Status.String(), "%v", o)
						require.NotContains(t, mx.Transcript(), "C: MAIL")
						return
					}
					require.Equal(t, deliver.Delivered, o.Result, "%v", o)
					mail := mx.Mailbox()[0]
					if tt.asIs {
						require.Equal(t, text, string(mail.Body))
						require.Equal(t, tt.line > 998, mail.BDAT)
						return
					}
					require.LessOrEqual(t, longestLine(string(mail.Body)), 76)
					_, body, _ := strings.Cut(string(mail.Body), "\r\n\r\n")
					decoded, err := io.ReadAll(quotedprintable.NewReader(strings.NewReader(body)))
					require.NoError(t, err)
					require.Equal(t, text, header+string(decoded))
				})
			}
		})
	}
}
