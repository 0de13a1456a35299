package deliver

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

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
	how     *mechanism
	core    sasl.Client // the mechanism's own, behind client
}

// after is how to go on after a refusal: nil where it is the host's last word. A 535 always is, since accounts are locked
// after a few tries. Only a host that does not have, or does not want, the mechanism that it offered is asked for another
// one (RFC 4954, section 6). Some say 534 of a password that they do not like, so it is not shown to them twice.
func (l *login) after(refusal dsn.Reply) *login {
	switch refusal.Code {
	case 504, 538:
		return l.next
	case 534:
		for n := l.next; n != nil; n = n.next {
			if n.how.bare != l.how.bare {
				return n
			}
		}
	}
	return nil
}

// proven is nil where a 235 may be believed: the mechanism has the host prove nothing, or it has proven it.
func (l *login) proven() error {
	if c, ok := l.core.(interface{ proven() error }); ok {
		return c.proven()
	}
	return nil
}

// said is what the host said about a refusal before its reply, in a challenge; "" is nothing.
func (l *login) said() string {
	if c, ok := l.core.(interface{ said() string }); ok {
		return c.said()
	}
	return ""
}

// A loginFault is why a host cannot be logged in to, in spite of what it offers. It stays so until an operator acts.
type loginFault string

func (f loginFault) Error() string { return string(f) }

// login logs in where the hop says so (RFC 4954). A refusal is the route's trouble: the recipient has no part in it,
// and other hosts are not asked with the same password, since some lock an account after a few tries.
func (d *Deliverer) login(s *session, hop *route.Hop) *Error {
	l, e := d.newLogin(s.ctx, s, hop)
	for l != nil {
		s.secrets = l.secrets
		reply, err := d.authenticate(s, l.client)
		if err == nil && reply.Code == 235 {
			err = l.proven()
		}
		switch {
		case err != nil:
			return s.failedLogin(err)
		case reply.Code == 235:
			return nil
		}
		next := l.after(reply)
		if next == nil {
			return s.refusedLogin(l, reply)
		}
		l = next
	}
	return e
}

// failedLogin is the error of a login that came to no end.
func (s *session) failedLogin(err error) *Error {
	var fault loginFault
	if errors.As(err, &fault) {
		fault = loginFault(s.hide(string(fault)))
		s.broken = true
		s.notef("%v", fault)
		return tempErr(StageAuth, "4.7.0", "%w", fault).trouble()
	}
	return s.lost(StageAuth, err)
}

// refusedLogin is the error of a login that the host did not take.
func (s *session) refusedLogin(l *login, reply dsn.Reply) *Error {
	e := hostErr(StageAuth, reply)
	if said := l.said(); said != "" && e.Err == nil {
		e.Err = errors.New(s.hide(said))
	}
	if reply.Permanent() {
		e.trouble().ends = true
	}
	return e
}

// authenticate plays the exchange. The transcript shows none of what we say in it, and nothing of it if the host repeats
// it: what some mechanisms say is enough to try passwords on.
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
		reply, challenge, err := s.exchange(d, line, shown)
		if err != nil || reply.Code != 334 {
			return reply, err
		}
		text, err := base64.StdEncoding.DecodeString(challenge)
		if err != nil {
			return dsn.Reply{}, fmt.Errorf("%w: its challenge is not base64", errProtocol)
		}
		answer, err := client.Next(text)
		if err != nil {
			return dsn.Reply{}, fmt.Errorf("%w: %w", errProtocol, err)
		}
		line, shown = base64.StdEncoding.EncodeToString(answer), "***"
		s.secrets = withSecret(s.secrets, line)
	}
	return dsn.Reply{}, fmt.Errorf("%w: its login has no end", errProtocol)
}

// exchange says a line of a login and reads the reply, whose challenge is given as it came: what stands in it may look
// like a secret, and be none.
func (s *session) exchange(d *Deliverer, line, shown string) (reply dsn.Reply, challenge string, err error) {
	defer func(begin time.Time) { s.times.Auth += time.Since(begin) }(time.Now())
	if err := s.within(d.set.timeouts.Auth); err != nil {
		return dsn.Reply{}, "", err
	}
	s.sayAs(line, shown)
	if err := s.w.Flush(); err != nil {
		return dsn.Reply{}, "", err
	}
	reply, err = readReply(s.r, func(line string) string {
		challenge = line[min(4, len(line)):]
		if strings.HasPrefix(line, "334") { // some challenges are enough to try passwords on, as our answers are
			line = "334 ***"
			s.note('S', line)
			return line
		}
		return s.heard(line)
	})
	return reply, challenge, err
}

// encodeSASL is an initial response, where "=" stands for an empty one (RFC 4954, section 4).
func encodeSASL(b []byte) string {
	if len(b) == 0 {
		return "="
	}
	return base64.StdEncoding.EncodeToString(b)
}

// newLogin chooses a mechanism that the host offers and the hop's credentials fit. It is nil where the hop has no
// login.
func (d *Deliverer) newLogin(ctx context.Context, s *session, hop *route.Hop) (*login, *Error) {
	if !hop.LogsIn() {
		return nil, nil
	}
	c, e := d.credentials(hop)
	if e != nil {
		return nil, e
	}
	fitting, e := s.fitting(hop, c.kind)
	if e != nil {
		return nil, e
	}
	if c.kind == byToken && hop.Secret.IsZero() {
		if c.secret, e = d.token(ctx, s, hop); e != nil {
			return nil, e
		}
	}
	if e := c.check(hop); e != nil {
		return nil, e
	}
	c.host, c.port = s.host, int(s.addr.Port())
	var first *login
	for i := len(fitting) - 1; i >= 0; i-- {
		first = newLogin(fitting[i], c, first)
	}
	return first, nil
}

// newLogin is one way to log in, and what else to try.
func newLogin(how *mechanism, c *credentials, next *login) *login {
	core := how.client(c)
	name, first, err := core.Start()
	l := &login{client: &opening{core, name, first, err}, secrets: secretForms(c.secret), next: next, how: how, core: core}
	if how.bare && first != nil {
		l.secrets = withSecret(l.secrets, encodeSASL(first))
	}
	return l
}

// maxAuthCommand is the length of a command with an initial response; a longer one waits for a challenge (RFC 4954,
// section 4; RFC 5321, section 4.5.3.1.4).
const maxAuthCommand = 512 - len("\r\n")

// An opening is a client that says its first words when they may be said.
type opening struct {
	sasl.Client
	name  string
	first []byte
	err   error
}

// Start gives the mechanism, and its initial response where there is room for it.
func (o *opening) Start() (name string, first []byte, err error) {
	if o.err == nil && len("AUTH  ")+len(o.name)+base64.StdEncoding.EncodedLen(len(o.first)) <= maxAuthCommand {
		first, o.first = o.first, nil
	}
	return o.name, first, o.err
}

// Next answers a challenge; that for an initial response is empty, whatever it says.
func (o *opening) Next(challenge []byte) ([]byte, error) {
	if first := o.first; first != nil {
		o.first = nil
		return first, nil
	}
	return o.Client.Next(challenge)
}
