package deliver

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The examples of the RFCs.
//
// std: C16
func TestMechanismsOfTheRFCs(t *testing.T) {
	t.Run("RFC 2195, section 2", func(t *testing.T) {
		c := newCRAM(&credentials{user: "tim", secret: "tanstaaftanstaaf"})
		name, first, err := c.Start()
		require.NoError(t, err)
		require.Equal(t, "CRAM-MD5", name)
		require.Nil(t, first)
		answer, err := c.Next([]byte("<1896.697170952@postoffice.reston.mci.net>"))
		require.NoError(t, err)
		require.Equal(t, "tim b913a602c7eda7a495b4e6e7334d3890", string(answer))
		_, err = c.Next([]byte("another"))
		require.ErrorIs(t, err, sasl.ErrUnexpectedServerChallenge)
	})
	t.Run("RFC 7677, section 3", func(t *testing.T) {
		c := newScramClient("user", "pencil", "rOprNGfwEbeRWgbNEkqO")
		name, first, err := c.Start()
		require.NoError(t, err)
		require.Equal(t, "SCRAM-SHA-256", name)
		require.Equal(t, "n,,n=user,r=rOprNGfwEbeRWgbNEkqO", string(first))
		answer, err := c.Next([]byte("r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"))
		require.NoError(t, err)
		require.Equal(t, "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", string(answer))
		require.Error(t, c.proven())
		answer, err = c.Next([]byte("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="))
		require.NoError(t, err)
		require.Empty(t, answer)
		require.NoError(t, c.proven())
	})
	t.Run("RFC 7628, section 4.1", func(t *testing.T) {
		_, first, err := newOAuthBearer(&credentials{
			user: "user@example.com", secret: "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==", host: "server.example.com", port: 143,
		}).Start()
		require.NoError(t, err)
		require.Equal(t, "bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVy"+
			"IHZGOWRmdDRxbVRjMk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB", base64.StdEncoding.EncodeToString(first))
	})
	t.Run("XOAUTH2, as Google has it", func(t *testing.T) {
		_, first, err := newXOAUTH2(&credentials{user: "someuser@example.com", secret: "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg"}).Start()
		require.NoError(t, err)
		require.Equal(t, "dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQmhkSFJoZG1semRHRXVZMjl0Q2cBAQ==",
			base64.StdEncoding.EncodeToString(first))
	})
	t.Run("RFC 5801, section 4", func(t *testing.T) {
		_, first, err := newOAuthBearer(&credentials{user: "a,b=c", secret: "x"}).Start()
		require.NoError(t, err)
		require.Equal(t, "n,a=a=2Cb=3Dc,\x01auth=Bearer x\x01\x01", string(first))
		require.Equal(t, "n=a=2Cb=3Dc,r=x", newScramClient("a,b=c", "", "x").bare)
	})
}

// std: C16
func TestSASLprep(t *testing.T) {
	for in, want := range map[string]string{
		// RFC 4013, section 3.
		"I\u00adX": "IX", "user": "user", "USER": "USER", "\u00aa": "a", "\u2168": "IX",
		"\u0007": "\u0007", "\u0627\u0031": "\u0627\u0031",
		"a\u00a0b\u3000c": "a b c", "u\u0308ber": "\u00fcber", "\u0627\u0031\u0628": "\u0627\u0031\u0628", "\ufb01": "fi",
		// What is forbidden stays as it is, all of it.
		"\u2168\u200e": "\u2168\u200e", "\u2168\ue000": "\u2168\ue000", "\u2168\u0085": "\u2168\u0085", "\u2168\uffff": "\u2168\uffff",
		"\u0627\u2168": "\u0627\u2168", "\u00ad": "\u00ad", "\u2168\xff": "\u2168\xff", "\u2168\U000e0020": "\u2168\U000e0020",
	} {
		assert.Equal(t, want, saslprep(in), "%+q", in)
	}
}

// No number of iterations is believed that is no number, unsafe, or work for hours.
func TestIterations(t *testing.T) {
	for _, good := range []string{"4096", "10000", "1000000"} {
		_, err := scramIterations(good)
		require.NoError(t, err, good)
	}
	for _, bad := range []string{"", "0", "1", "4095", "1000001", "2147483648", "99999999999999999999", "+4096", "-4096", "04096", "4096 ", "4e5", "٤٠٩٦"} {
		_, err := scramIterations(bad)
		require.ErrorAs(t, err, new(loginFault), bad)
	}
}

// FuzzScram has a host say anything at all: it is never believed, and nothing takes long.
func FuzzScram(f *testing.F) {
	f.Add("r=nonce+,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
	f.Add("r=nonce,s=,i=1", "e=other-error")
	f.Add("m=x,r=nonce+,s=AAAA,i=4096,x=y", "")
	f.Add("r=nonce+,s=AAAA,i=999999999999", "v=")
	f.Fuzz(func(t *testing.T, first, last string) {
		c := newScramClient("user", "pencil", "nonce")
		answer, err := c.Next([]byte(first))
		if err == nil {
			require.Contains(t, string(answer), "c=biws,r=nonce")
			require.NotContains(t, string(answer), "pencil")
			answer, _ = c.Next([]byte(last))
			require.Empty(t, answer)
			_, err = c.Next(nil)
		}
		require.Error(t, err)
		require.Error(t, c.proven())
	})
}

// FuzzTokenRefusal: whatever a host says of a token is some text, and short.
func FuzzTokenRefusal(f *testing.F) {
	f.Add([]byte(`{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}`))
	f.Add([]byte(`{"status":400,"scope":["a"],"error":{"x":null}}`))
	f.Add([]byte("\x00\xff"))
	f.Fuzz(func(t *testing.T, refusal []byte) {
		c := newXOAUTH2(&credentials{user: "u", secret: "token"}).(*tokenClient)
		answer, err := c.Next(refusal)
		require.NoError(t, err)
		require.Empty(t, answer)
		require.LessOrEqual(t, len(c.said()), 1200)
		require.Error(t, c.proven())
		_, err = c.Next(refusal)
		require.Error(t, err)
	})
}

// FuzzSecretForms: in whatever a host wraps a secret, something of it that would give it away is found and hidden.
func FuzzSecretForms(f *testing.F) {
	f.Add("open sesame", "a", "b")
	f.Add(`pass"word\/<&>é`, "", "xyz")
	f.Add("ya29.a0AfH6SMBx-_~+/=", "12", "")
	f.Fuzz(func(t *testing.T, secret, before, after string) {
		if len(secret) < leastSecret || len(secret) > 1000 {
			return
		}
		c := &conn{secrets: secretForms(secret)}
		quoted, err := json.Marshal(before + secret + after)
		require.NoError(t, err)
		for _, text := range []string{
			secret, before + secret + after, string(quoted),
			base64.StdEncoding.EncodeToString([]byte(before + secret + after)), base64.RawURLEncoding.EncodeToString([]byte(before + secret + after)),
			base64.StdEncoding.EncodeToString(quoted), strings.ReplaceAll(string(quoted), "/", `\/`), inASCII(strings.ReplaceAll(string(quoted), "/", `\/`)),
		} {
			if strings.ToValidUTF8(secret, "") == secret {
				require.Contains(t, c.hide(text), "***", "%q", text)
			}
		}
	})
}

// What a token source says when it fails is shown, but for what may be a token.
func TestErrorsOfTokenSources(t *testing.T) {
	for in, want := range map[string]string{
		"connection refused": "connection refused",
		`Post "https://oauth2.googleapis.com/token": dial tcp 192.0.2.1:443: i/o timeout`:           `Post "https://oauth2.googleapis.com/token": dial tcp 192.0.2.1:443: i/o timeout`,
		`oauth2: "invalid_grant" "Token has been expired or revoked."`:                              `oauth2: "invalid_grant" "Token has been expired or revoked."`,
		"oauth2: cannot fetch token: 400 Bad Request":                                               "oauth2: cannot fetch token: 400 Bad Request",
		`Response: {"access_token":"abc","refresh_token" : "def","expires_in":3599}`:                `Response: {"access_token":"***","refresh_token" : "***","expires_in":3599}`,
		`Post "https://x/token?client_secret=hunter2&code=abc": EOF`:                                `Post "https://x/token?client_secret=***&code=***": EOF`,
		"bad header Authorization: Bearer abc.def":                                                  "bad header Authorization: Bearer ***",
		"got ya29.a0AfH6SMBx1234567890abc from it":                                                  "got ya29.*** from it",
		"eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abcdefghijKLMNOPQRSTUVWX": "***.***.***",
	} {
		assert.Equal(t, want, withoutTokens(in))
	}
}

func BenchmarkScramAtTheBound(b *testing.B) {
	for b.Loop() {
		c := newScramClient("user", "pencil", "nonce")
		_, err := c.Next([]byte("r=nonce+,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1000000"))
		require.NoError(b, err)
	}
}
