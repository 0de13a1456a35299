package deliver

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/emersion/go-sasl"
)

const (
	oauthBearer = sasl.OAuthBearer // RFC 7628
	xoauth2     = "XOAUTH2"        // what Google and Microsoft had before it
)

// A tokenClient is a [sasl.Client] that shows an access token. A host that does not take it says why in a challenge, and
// refuses after an answer that says nothing.
type tokenClient struct {
	name    string
	token   string
	first   []byte
	nothing []byte // the answer
	refusal []byte // the challenge; nil where none came
}

// newOAuthBearer lets go-sasl write the message, and escapes what it does not (RFC 5801, section 4).
func newOAuthBearer(c *credentials) sasl.Client {
	_, first, _ := sasl.NewOAuthBearerClient(&sasl.OAuthBearerOptions{
		Username: saslName(c.user), Token: c.secret, Host: c.host, Port: c.port,
	}).Start()
	return &tokenClient{name: oauthBearer, token: c.secret, first: first, nothing: []byte{1}} // RFC 7628, section 3.2.3
}

func newXOAUTH2(c *credentials) sasl.Client {
	first := "user=" + c.user + "\x01auth=Bearer " + c.secret + "\x01\x01"
	return &tokenClient{name: xoauth2, token: c.secret, first: []byte(first), nothing: []byte{}}
}

// saslName escapes a user where "," and "=" have a meaning (RFC 5801, section 4; RFC 5802, section 5.1).
func saslName(user string) string { return strings.NewReplacer("=", "=3D", ",", "=2C").Replace(user) }

func (c *tokenClient) Start() (mechanism string, first []byte, err error) {
	return c.name, c.first, nil
}

func (c *tokenClient) Next(challenge []byte) ([]byte, error) {
	if c.refusal != nil {
		return nil, sasl.ErrUnexpectedServerChallenge
	}
	c.refusal = append([]byte{}, challenge...)
	return c.nothing, nil
}

// proven: a host that refused in a challenge and accepts after it makes no sense.
func (c *tokenClient) proven() error {
	if c.refusal != nil {
		return loginFault("the host refused the access token, and then said that it is good: " + c.said())
	}
	return nil
}

// refusalKeys are what a refusal may say, in the order in which it is shown: RFC 7628, section 3.2.2, and RFC 6750.
var refusalKeys = []string{"status", "error", "error_description", "scope", "schemes"}

// said is the refusal in words.
func (c *tokenClient) said() string {
	const most = 200 // octets of a value
	if len(c.refusal) == 0 {
		return ""
	}
	secrets := secretForms(c.token)
	var object map[string]any
	if json.Unmarshal(c.refusal, &object) != nil {
		return "of the access token the host said " + clipped(without(secrets, string(c.refusal)), most)
	}
	var parts []string
	for _, key := range refusalKeys {
		switch value := object[key].(type) {
		case string, float64, bool:
			parts = append(parts, key+"="+clipped(without(secrets, fmt.Sprint(value)), most))
		}
	}
	return "of the access token the host said " + strings.Join(parts, ", ")
}

// clipped is the beginning of a text.
func clipped(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
