package lab

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The examples of the RFCs hold for the servers of the lab, so that a client which agrees with these agrees with them.
//
// std: C16
func TestLoginsOfTheRFCs(t *testing.T) {
	t.Run("RFC 2195, section 2", func(t *testing.T) {
		const challenge = "<1896.697170952@postoffice.reston.mci.net>"
		users := map[string]string{"tim": "tanstaaftanstaaf"}
		user, err := verifyCRAM(users, challenge, "tim b913a602c7eda7a495b4e6e7334d3890")
		require.NoError(t, err)
		require.Equal(t, "tim", user)
		_, err = verifyCRAM(users, challenge, "tim b913a602c7eda7a495b4e6e7334d3891")
		require.ErrorIs(t, err, errDenied)
	})
	t.Run("RFC 7677, section 3", func(t *testing.T) {
		sc, final := rfc7677(t)
		require.Equal(t, "user", sc.user)
		require.Equal(t, "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", sc.challenge)
		signature, err := sc.finish(map[string]string{"user": "pencil"}, final)
		require.NoError(t, err)
		require.Equal(t, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", signature)
		_, err = sc.finish(map[string]string{"user": "pencils"}, final)
		require.ErrorIs(t, err, errDenied)
		_, err = sc.finish(map[string]string{}, final)
		require.ErrorIs(t, err, errDenied)
	})
	t.Run("RFC 7628, section 4.1", func(t *testing.T) {
		text, err := base64.StdEncoding.DecodeString("bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQz" +
			"AWF1dGg9QmVhcmVyIHZGOWRmdDRxbVRjMk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB")
		require.NoError(t, err)
		user, token, err := parseBearer(string(text))
		require.NoError(t, err)
		require.Equal(t, "user@example.com", user)
		require.Equal(t, "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==", token)
	})
}

// rfc7677 gives an exchange of the example, and the client's last message.
func rfc7677(t *testing.T) (*scram, string) {
	t.Helper()
	salt, err := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	require.NoError(t, err)
	sc := &scram{nonce: "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", salt: salt}
	_, err = sc.begin("n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
	require.NoError(t, err)
	return sc, "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
}

// A client that errs in a message is told so, whatever its password.
func TestMessagesThatAreWrong(t *testing.T) {
	for _, first := range []string{
		"", "n,,", "n,,n=user", "p=tls-unique,,n=user,r=12345678", "n,,r=12345678,n=user", "n,,n=us=er,r=12345678", "n,,n=user,r=1", "n=user,r=12345678",
	} {
		_, err := new(scram).begin(first)
		require.ErrorIs(t, err, errMalformed, first)
	}
	_, err := new(scram).begin("n,a=boss,n=user,r=12345678")
	require.ErrorIs(t, err, errDenied)
	users := map[string]string{"user": "pencil"}
	for name, change := range map[string][2]string{
		"the binding": {"c=biws", "c=eSws"}, "the nonce": {"r=rOpr", "r=xOpr"}, "no proof": {",p=", ",x="}, "a short proof": {"p=dHzb", "p="},
	} {
		sc, final := rfc7677(t)
		_, err := sc.finish(users, strings.Replace(final, change[0], change[1], 1))
		require.ErrorIs(t, err, errMalformed, name)
	}
	for _, text := range []string{
		"", "n,,\x01auth=Bearer x\x01\x01", "n,a=u,\x01auth=Basic x\x01\x01", "n,a=u,\x01auth=Bearer x\x01", "n,a=u,\x01odd=1\x01auth=Bearer x\x01\x01",
		"n,a=a,b,\x01auth=Bearer x\x01\x01",
	} {
		_, _, err := parseBearer(text)
		require.ErrorIs(t, err, errMalformed, "%q", text)
	}
}

func FuzzScramServer(f *testing.F) {
	f.Add("n,,n=user,r=rOprNGfwEbeRWgbNEkqO", "c=biws,r=rOprNGfwEbeRWgbNEkqOx,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
	f.Add("y,a=u,n=u,r=12345678", ",p=")
	f.Fuzz(func(t *testing.T, first, final string) {
		sc := scram{nonce: "x", salt: []byte("salt")}
		if _, err := sc.begin(first); err != nil {
			return
		}
		_, err := sc.finish(map[string]string{}, final)
		require.Error(t, err, "nobody is known")
	})
}

func FuzzBearer(f *testing.F) {
	f.Add("n,a=user,\x01host=h\x01port=587\x01auth=Bearer x\x01\x01")
	f.Fuzz(func(t *testing.T, text string) {
		if user, token, err := parseBearer(text); err == nil {
			require.NotEmpty(t, user)
			require.LessOrEqual(t, len(user)+len(token), len(text))
		}
	})
}
