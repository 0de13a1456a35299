package deliver

import (
	"crypto/hmac"
	"crypto/md5"
	"encoding/hex"

	"github.com/emersion/go-sasl"
)

func newPlain(c *credentials) sasl.Client { return sasl.NewPlainClient("", c.user, c.secret) }

// newExternal is for the identity in the client's certificate to act as the hop's user (RFC 4422, appendix A.1).
func newExternal(c *credentials) sasl.Client { return sasl.NewExternalClient(c.user) }

// A loginClient is a [sasl.Client] for LOGIN. It answers what it is asked in turn, whatever the words: servers ask for
// "Username:", "User Name" and more, and that of go-sasl takes "Password:" alone.
type loginClient struct{ answers []string }

func newLOGIN(c *credentials) sasl.Client { return &loginClient{answers: []string{c.user, c.secret}} }

func (*loginClient) Start() (mechanism string, first []byte, err error) { return sasl.Login, nil, nil }

func (c *loginClient) Next([]byte) ([]byte, error) {
	if len(c.answers) == 0 {
		return nil, sasl.ErrUnexpectedServerChallenge
	}
	answer := c.answers[0]
	c.answers = c.answers[1:]
	return []byte(answer), nil
}

// cramMD5 is RFC 2195.
const cramMD5 = "CRAM-MD5"

// A cramClient is a [sasl.Client] for CRAM-MD5.
type cramClient struct {
	user, password string
	done           bool
}

func newCRAM(c *credentials) sasl.Client { return &cramClient{user: c.user, password: c.secret} }

func (*cramClient) Start() (mechanism string, first []byte, err error) { return cramMD5, nil, nil }

func (c *cramClient) Next(challenge []byte) ([]byte, error) {
	switch {
	case c.done:
		return nil, sasl.ErrUnexpectedServerChallenge
	case len(challenge) == 0:
		return nil, loginFault("the host's CRAM-MD5 challenge is empty, and the answer to it would be good for ever")
	}
	c.done = true
	mac := hmac.New(md5.New, []byte(c.password))
	mac.Write(challenge)
	return []byte(c.user + " " + hex.EncodeToString(mac.Sum(nil))), nil
}
