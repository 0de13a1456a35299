package deliver

import (
	"encoding/base64"
	"fmt"
	"slices"

	"github.com/emersion/go-sasl"

	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/route"
)

// maxAuthRounds is how many challenges a login may have. LOGIN has two.
const maxAuthRounds = 8

// login logs in where the hop has a user (RFC 4954). A refusal is the route's trouble: the recipient has no part in it,
// and other hosts are not asked with the same password, since some lock an account after a few tries.
func (d *Deliverer) login(s *session, hop *route.Hop) *Error {
	if hop.User == "" {
		return nil
	}
	client, e := mechanism(s, hop)
	if e != nil {
		return e.trouble()
	}
	s.secrets = secrets(hop)
	reply, err := d.authenticate(s, client)
	switch {
	case err != nil:
		return s.lost(StageAuth, err)
	case reply.Code == 235:
		return nil
	case !reply.Permanent():
		return hostErr(StageAuth, reply)
	}
	e = hostErr(StageAuth, reply).trouble()
	e.ends = true
	return e
}

// mechanism chooses how to log in. PLAIN and LOGIN show the password to whoever listens, so they need TLS, a unix socket,
// or a route that says tls=none and means it.
func mechanism(s *session, hop *route.Hop) (sasl.Client, *Error) {
	if s.tls.Version == "" && hop.TLS != route.TLSNone && !hop.IsUnix() {
		return nil, tempErr(StageAuth, "4.7.11", "no password is sent without TLS, which %s does not offer: "+
			"ask its operator, or write tls=none in the route if the network is safe", s.host)
	}
	password := hop.Secret.Value()
	switch {
	case slices.Contains(s.caps.auth, sasl.Plain):
		return sasl.NewPlainClient("", hop.User, password), nil
	case slices.Contains(s.caps.auth, sasl.Login):
		return &loginClient{answers: []string{hop.User, password}}, nil
	}
	return nil, tempErr(StageAuth, "4.7.4",
		"%s offers no login that is known here: it offers %v, and PLAIN and LOGIN are known", s.host, s.caps.auth)
}

// secrets are the forms in which the password is sent, and might come back.
func secrets(hop *route.Hop) []string {
	const least = 4 // octets: what is shorter stands in every other word, and hides nothing
	password := hop.Secret.Value()
	if len(password) < least {
		return nil
	}
	return []string{
		base64.StdEncoding.EncodeToString([]byte("\x00" + hop.User + "\x00" + password)),
		base64.StdEncoding.EncodeToString([]byte(password)),
		password,
	}
}

// authenticate plays the exchange. The transcript shows none of what we say in it.
func (d *Deliverer) authenticate(s *session, client sasl.Client) (dsn.Reply, error) {
	name, first, err := client.Start()
	if err != nil {
		return dsn.Reply{}, err
	}
	line, shown := "AUTH "+name, "AUTH "+name
	if first != nil {
		line, shown = line+" "+encodeSASL(first), shown+" ***"
	}
	for range maxAuthRounds {
		reply, err := s.askAs(d.set.timeouts.Auth, line, shown)
		if err != nil || reply.Code != 334 {
			return reply, err
		}
		challenge, err := base64.StdEncoding.DecodeString(reply.Lines[0])
		if err != nil {
			return dsn.Reply{}, fmt.Errorf("%w: its challenge is not base64", errProtocol)
		}
		answer, err := client.Next(challenge)
		if err != nil {
			return dsn.Reply{}, fmt.Errorf("%w: %w", errProtocol, err)
		}
		line, shown = base64.StdEncoding.EncodeToString(answer), "***"
	}
	return dsn.Reply{}, fmt.Errorf("%w: its login has no end", errProtocol)
}

// encodeSASL is an initial response, where "=" stands for an empty one (RFC 4954, section 4).
func encodeSASL(b []byte) string {
	if len(b) == 0 {
		return "="
	}
	return base64.StdEncoding.EncodeToString(b)
}

// A loginClient is a [sasl.Client] for LOGIN. It answers what it is asked in turn, whatever the words: servers ask for
// "Username:", "User Name" and more, and that of go-sasl takes "Password:" alone.
type loginClient struct{ answers []string }

func (*loginClient) Start() (mechanism string, first []byte, err error) { return sasl.Login, nil, nil }

func (c *loginClient) Next([]byte) ([]byte, error) {
	if len(c.answers) == 0 {
		return nil, sasl.ErrUnexpectedServerChallenge
	}
	answer := c.answers[0]
	c.answers = c.answers[1:]
	return []byte(answer), nil
}
