package deliver

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"

	"github.com/emersion/go-sasl"

	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/route"
)

// maxAuthRounds is how many challenges a login may have. LOGIN has two.
const maxAuthRounds = 8

// login logs in where the hop has a user (RFC 4954). Whatever goes wrong is the route's trouble: the recipient has no part
// in it.
func (d *Deliverer) login(ctx context.Context, s *session, hop *route.Hop) *Error {
	if hop.User == "" {
		return nil
	}
	client, e := mechanism(s, hop)
	if e != nil {
		return e.trouble()
	}
	reply, err := d.authenticate(ctx, s.conn, client)
	switch {
	case err != nil:
		return tempErr(StageAuth, "4.7.0", "the login of %s did not end: %w", hop.User, err).trouble()
	case reply.Code != 235:
		return replyErr(StageAuth, reply).trouble()
	}
	return nil
}

// mechanism chooses how to log in. PLAIN and LOGIN show the password to whoever listens, so they need TLS, a unix socket,
// or a route that says tls=none and means it.
func mechanism(s *session, hop *route.Hop) (sasl.Client, *Error) {
	if s.tls.Version == "" && hop.TLS != route.TLSNone && !hop.IsUnix() {
		return nil, tempErr(StageAuth, "4.7.0", "no password is sent without TLS, which %s does not offer: ask its operator, or write tls=none in the route if the network is safe", s.conn.host)
	}
	password := hop.Secret.Value()
	switch {
	case slices.Contains(s.caps.auth, "PLAIN"):
		return sasl.NewPlainClient("", hop.User, password), nil
	case slices.Contains(s.caps.auth, "LOGIN"):
		return sasl.NewLoginClient(hop.User, password), nil
	}
	return nil, tempErr(StageAuth, "4.7.0", "%s offers no login that is known here (it offers %v)", s.conn.host, s.caps.auth)
}

// authenticate plays the exchange. The transcript shows none of what we say in it.
func (d *Deliverer) authenticate(ctx context.Context, c *conn, client sasl.Client) (dsn.Reply, error) {
	name, first, err := client.Start()
	if err != nil {
		return dsn.Reply{}, err
	}
	line, shown := "AUTH "+name, "AUTH "+name
	if first != nil {
		line, shown = line+" "+encodeSASL(first), shown+" ***"
	}
	for range maxAuthRounds {
		if err := c.within(ctx, d.Timeouts.Auth); err != nil {
			return dsn.Reply{}, err
		}
		c.saySecret(line, shown)
		if err := c.w.Flush(); err != nil {
			return dsn.Reply{}, err
		}
		reply, err := c.read()
		if err != nil || reply.Code != 334 {
			return reply, err
		}
		challenge, err := base64.StdEncoding.DecodeString(reply.Lines[0])
		if err != nil {
			return dsn.Reply{}, fmt.Errorf("%w: its challenge is not base64", errProtocol)
		}
		answer, err := client.Next(challenge)
		if err != nil {
			return dsn.Reply{}, err
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
