package deliver

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	"github.com/emersion/go-sasl"

	"github.com/sortie-mail/sortie/route"
)

// A credential is what a hop has to log in with.
type credential uint8

const (
	byPassword credential = iota
	byToken
	byCertificate
)

var credentialNames = [...]string{byPassword: "password", byToken: "token", byCertificate: "client certificate"}

// credentials are who logs in, with what, and where.
type credentials struct {
	kind         credential
	user, secret string // the password or the token
	host         string
	port         int
}

// A mechanism is one way to log in.
type mechanism struct {
	name   string
	kind   credential
	bare   bool // who listens learns the secret
	client func(*credentials) sasl.Client
}

// mechanisms are what is known here, for each kind of credential the best first. With SCRAM-SHA-256 nobody learns the
// password, and the host must prove that it knows it. CRAM-MD5 keeps it from listeners alone, with a hash of the past, and
// forces hosts to store it readable; those that do not, offer it all the same and fail: within TLS, where nobody listens,
// it comes last. A host in the middle gains nothing by that, since it could offer PLAIN alone.
var mechanisms = []mechanism{
	{oauthBearer, byToken, true, newOAuthBearer},
	{xoauth2, byToken, true, newXOAUTH2},
	{scramSHA256, byPassword, false, newScram},
	{sasl.Plain, byPassword, true, newPlain},
	{sasl.Login, byPassword, true, newLOGIN},
	{cramMD5, byPassword, false, newCRAM},
	{sasl.External, byCertificate, false, newExternal},
}

// fitting are the mechanisms for a credential that the route lets be used and the host offers, in the order in which they
// are tried. Those that show it to whoever listens need TLS, a unix socket, or a route that says tls=none and means it; in
// the clear even then what shows nothing is better.
func (s *session) fitting(hop *route.Hop, kind credential) ([]*mechanism, *Error) {
	secure := s.tls.Version != "" || hop.IsUnix()
	mayShow := secure || hop.TLS == route.TLSNone
	if kind == byCertificate && s.tls.Version == "" {
		return nil, tempErr(StageAuth, "4.7.11", "no client certificate is sent without TLS, which %s does not offer: "+
			"ask its operator", s.host).trouble()
	}
	var fit []*mechanism
	var known []string
	withheld := false // what fits may be offered within TLS
	for i := range mechanisms {
		m := &mechanisms[i]
		switch {
		case m.kind != kind, hop.Auth != route.AuthDefault && m.name != authNames[hop.Auth]:
			continue
		case m.bare && !mayShow:
			withheld = true
		case s.offersLogin(m.name):
			fit = append(fit, m)
		}
		known = append(known, m.name)
	}
	switch {
	case len(fit) == 0:
		return nil, s.nothingFits(hop, kind, known, withheld)
	case !secure:
		slices.SortStableFunc(fit, func(a, b *mechanism) int { return boolInt(a.bare) - boolInt(b.bare) })
	}
	return fit, nil
}

// nothingFits says why there is no way to log in.
func (s *session) nothingFits(hop *route.Hop, kind credential, known []string, withheld bool) *Error {
	switch {
	case withheld:
		return tempErr(StageAuth, "4.7.11", "no %s is sent without TLS, which %s does not offer: "+
			"ask its operator, or write tls=none in the route if the network is safe", credentialNames[kind], s.host).trouble()
	case hop.Auth != route.AuthDefault:
		return tempErr(StageAuth, "4.7.4", "the route says auth=%v, and %s offers %v: write another mechanism, or leave auth out",
			hop.Auth, s.host, shownOffer(s.caps.auth)).trouble()
	}
	return tempErr(StageAuth, "4.7.4", "%s offers no login that is known here for a route with a %s: it offers %v, and %v are known",
		s.host, credentialNames[kind], shownOffer(s.caps.auth), known).trouble()
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (s *session) offersLogin(name string) bool {
	return slices.ContainsFunc(s.caps.auth, func(offered string) bool { return strings.EqualFold(offered, name) })
}

// shownOffer is what an error says of an offer.
func shownOffer(names []string) []string {
	const most, length = 12, 20 // RFC 4422, section 3.1: the longest name
	shown := make([]string, 0, most)
	for _, name := range names[:min(len(names), most)] {
		name = oneWord(name)
		shown = append(shown, name[:min(len(name), length)])
	}
	return shown
}

// authNames are the mechanisms of [route.Auth]; "" leaves the choice.
var authNames = [...]string{
	route.AuthPlain: sasl.Plain, route.AuthLogin: sasl.Login, route.AuthCRAMMD5: cramMD5, route.AuthSCRAMSHA256: scramSHA256,
	route.AuthXOAUTH2: xoauth2, route.AuthOAuthBearer: oauthBearer, route.AuthExternal: sasl.External,
}

// credentials are what a hop has to log in with. Without any the route is wrong, for every host.
func (d *Deliverer) credentials(hop *route.Hop) (*credentials, *Error) {
	c := &credentials{user: hop.User, secret: hop.Secret.Value()}
	has := [...]bool{
		byPassword:    !hop.Secret.IsZero(),
		byToken:       d.Token != nil,
		byCertificate: d.TLS != nil && (len(d.TLS.Certificates) > 0 || d.TLS.GetClientCertificate != nil),
	}
	if hop.Auth != route.AuthDefault {
		has[byToken] = has[byToken] || has[byPassword]
		return c, c.force(hop, has[:])
	}
	i := slices.Index(has[:], true)
	if i < 0 {
		return nil, wrongLogin("the route has a user, and neither a secret nor a token source nor a client certificate to log in with")
	}
	c.kind = credential(i)
	return c, nil
}

// force chooses what the hop's mechanism logs in with. EXTERNAL needs no user: without one the host goes by the certificate
// alone (RFC 4422, appendix A.1).
func (c *credentials) force(hop *route.Hop, has []bool) *Error {
	m := mechanisms[slices.IndexFunc(mechanisms, func(m mechanism) bool { return m.name == authNames[hop.Auth] })]
	c.kind = m.kind
	switch {
	case hop.User == "" && hop.Auth != route.AuthExternal:
		return wrongLogin("the route says auth=%v, and has no user", hop.Auth)
	case !has[m.kind]:
		return wrongLogin("the route says auth=%v, and there is no %s to log in with", hop.Auth, credentialNames[m.kind])
	}
	return nil
}

// wrongLogin is an error of the route's credentials: no host would do better.
func wrongLogin(format string, args ...any) *Error {
	e := tempErr(StageAuth, "4.3.5", format, args...).trouble()
	e.ends = true
	return e
}

// maxAuthLine is how much of base64 a line of a login may have (RFC 4954, section 4).
const maxAuthLine = 12288 - len("\r\n")

// check finds what no mechanism can carry.
func (c *credentials) check(hop *route.Hop) *Error {
	const around = 100 // octets that a mechanism adds, with the host's name apart
	switch size := len(c.secret) + 2*len(c.user) + len(c.host) + around; {
	case strings.ContainsFunc(c.user, isControl):
		return wrongLogin("the user of %s has a control character in it", hop.URL())
	case strings.Contains(c.secret, "\x00"): // RFC 4616, section 2
		return wrongLogin("the secret of %s has a NUL in it, which no login can carry", hop.URL())
	case c.kind == byToken && (c.secret == "" || strings.ContainsFunc(c.secret, notInToken)):
		return wrongLogin("what %s has is no access token (RFC 6750, section 2.1)", c.from(hop))
	case base64.StdEncoding.EncodedLen(size) > maxAuthLine:
		return wrongLogin("user and secret of %s are too long for a login (RFC 4954, section 4)", hop.URL())
	}
	return nil
}

// from is where a token came from.
func (c *credentials) from(hop *route.Hop) string {
	if hop.Secret.IsZero() {
		return "the token source for " + hop.URL()
	}
	return "secret=" + hop.Secret.String()
}

// notInToken reports what a header of HTTP could not carry either: providers are not all strict beyond that.
func notInToken(r rune) bool { return r <= ' ' || r >= 0x7f }

// token asks the token source. Its failure is no host's fault, and no other host would do better.
func (d *Deliverer) token(ctx context.Context, s *session, hop *route.Hop) (string, *Error) {
	within, cancel := context.WithTimeout(ctx, d.set.timeouts.Auth)
	defer cancel()
	token, err := d.Token(within, *hop)
	switch {
	case err == nil:
		return token, nil
	case s.ctx.Err() != nil:
		return "", s.lost(StageAuth, err)
	case errors.Is(err, context.DeadlineExceeded) && within.Err() != nil:
		err = errors.New("it took longer than " + d.set.timeouts.Auth.String())
	}
	e := tempErr(StageAuth, "4.7.0", "the token source has no token for %s: %s", hop.URL(), withoutTokens(err.Error())).trouble()
	e.ends = true
	return "", e
}
