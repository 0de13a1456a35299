package deliver

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"github.com/emersion/go-sasl"

	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/route"
)

// maxAuthRounds is how many challenges a login may have. LOGIN has two.
const maxAuthRounds = 8

// A login is how a session will log in.
type login struct {
	client  sasl.Client
	secrets []string // forms in which credentials are sent and might come back: never shown in transcript, log or error
	next    *login   // what else the host offers and the credentials fit
}

// after is how to go on after a refusal: nil where it is the host's last word. A 535 always is, since accounts are locked
// after a few tries; only a host that does not know the mechanism it offered is asked for another one.
func (l *login) after(refusal dsn.Reply) *login {
	if refusal.Code == 504 { // RFC 4954, section 6
		return l.next
	}
	return nil
}

// proven is nil where a 235 may be believed: the mechanism has the host prove nothing, or it has proven it.
func (l *login) proven() error {
	if c, ok := l.client.(interface{ proven() error }); ok {
		return c.proven()
	}
	return nil
}

// said is what the host said about a refusal before its reply, in a challenge; "" is nothing.
func (l *login) said() string {
	if c, ok := l.client.(interface{ said() string }); ok {
		return c.said()
	}
	return ""
}

// login logs in where the hop has a user (RFC 4954). A refusal is the route's trouble: the recipient has no part in it,
// and other hosts are not asked with the same password, since some lock an account after a few tries.
func (d *Deliverer) login(s *session, hop *route.Hop) *Error {
	l, e := d.newLogin(s.ctx, s, hop)
	for ; l != nil; l = l.next {
		s.secrets = l.secrets
		reply, err := d.authenticate(s, l.client)
		if err == nil && reply.Code == 235 {
			err = l.proven()
		}
		switch {
		case err != nil:
			return s.lost(StageAuth, err)
		case reply.Code == 235:
			return nil
		case l.after(reply) == nil:
			return refusedLogin(l, reply)
		}
	}
	return e
}

// refusedLogin is the error of a login that the host did not take.
func refusedLogin(l *login, reply dsn.Reply) *Error {
	e := hostErr(StageAuth, reply)
	if said := l.said(); said != "" && e.Err == nil {
		e.Err = errors.New(said)
	}
	if reply.Permanent() {
		e.trouble().ends = true
	}
	return e
}

// newLogin chooses a mechanism that the host offers and the hop's credentials fit. It is nil where the hop has no user and
// none is needed.
func (d *Deliverer) newLogin(_ context.Context, s *session, hop *route.Hop) (*login, *Error) {
	if hop.User == "" {
		return nil, nil
	}
	client, e := mechanism(s, hop)
	if e != nil {
		return nil, e.trouble()
	}
	return &login{client: client, secrets: secrets(hop)}, nil
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
