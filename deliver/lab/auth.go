package lab

import (
	"crypto/subtle"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
)

// Why a login fails, other than by the end of the connection.
var (
	errCancelled = errors.New("authentication cancelled") // the client's "*" (RFC 4954, section 4)
	errDenied    = errors.New("credentials invalid")
	errMalformed = errors.New("response malformed")
)

// An exchange is one login, from the server's side.
type exchange struct {
	s       *session
	initial *string // the initial response, not decoded, until it is used
}

// logins are the mechanisms of the package. Each gives the user that it has verified.
var logins = map[string]func(*exchange) (user string, err error){
	"PLAIN":         (*exchange).plain,
	"LOGIN":         (*exchange).login,
	"CRAM-MD5":      (*exchange).cramMD5,
	"SCRAM-SHA-256": (*exchange).scramSHA256,
	"OAUTHBEARER":   (*exchange).oauthBearer,
	"XOAUTH2":       (*exchange).xoauth2,
	"EXTERNAL":      (*exchange).external,
}

// mechanisms are what the offer lists after AUTH.
func (o *Offer) mechanisms() []string {
	list := o.Mechanisms
	if list == nil && o.Users != nil {
		list = append(list, "PLAIN", "LOGIN")
	}
	if o.Mechanisms == nil && o.Tokens != nil {
		list = append(list, "OAUTHBEARER", "XOAUTH2")
	}
	return list
}

// offersAuth reports whether AUTH is offered on a connection with TLS, or without it.
func (o *Offer) offersAuth(secure bool) bool {
	return len(o.mechanisms()) > 0 && (secure || o.AuthInClear)
}

// askCertificate makes a server ask for the client's certificate where a login goes by it.
func (o *Offer) askCertificate(cfg *tls.Config, ca *Authority) *tls.Config {
	if !slices.Contains(o.mechanisms(), "EXTERNAL") {
		return cfg
	}
	cfg = cfg.Clone()
	cfg.ClientAuth, cfg.ClientCAs = tls.VerifyClientCertIfGiven, ca.Pool()
	return cfg
}

func (s *session) cmdAUTH(_, arg string) error {
	name, initial, given := strings.Cut(arg, " ")
	name = strings.ToUpper(name)
	login, known := logins[name]
	switch {
	case len(s.offer.mechanisms()) == 0:
		return s.unknown("502 5.5.1 AUTH is not offered")
	case !s.offer.offersAuth(s.tls != nil):
		return s.unknown("538 5.7.11 Encryption required")
	case s.user != "":
		return s.unknown("503 5.5.1 Already authenticated")
	case s.tx != nil: // RFC 4954, section 4
		return s.unknown("503 5.5.1 AUTH inside a transaction")
	case !known || !slices.Contains(s.offer.mechanisms(), name):
		return s.unknown("504 5.5.4 Mechanism not offered")
	}
	x := &exchange{s: s}
	if given {
		x.initial = &initial
	}
	user, err := login(x)
	return s.endLogin(name, user, err)
}

// endLogin answers what a login came to.
func (s *session) endLogin(name, user string, err error) error {
	usual := "235 2.7.0 Authentication successful"
	switch {
	case errors.Is(err, errCancelled):
		return s.unknown("501 5.7.0 Cancelled")
	case errors.As(err, new(base64.CorruptInputError)):
		return s.unknown("501 5.5.2 That is not base64")
	case errors.Is(err, errMalformed):
		return s.unknown("501 5.5.2 That is no response of " + name)
	case errors.Is(err, errDenied):
		usual = "535 5.7.8 Authentication credentials invalid"
	case err != nil:
		return err
	}
	ok, err := s.answer(s.step(AtAuth, "AUTH "+name), usual)
	if ok {
		s.user = user
	}
	return err
}

// first gives the client's first response: that which came with AUTH, or else the answer to a challenge.
func (x *exchange) first(challenge string) (string, error) {
	if x.initial == nil {
		return x.ask(challenge)
	}
	if *x.initial == "=" { // RFC 4954, section 4: an empty initial response
		return "", nil
	}
	text, err := base64.StdEncoding.DecodeString(*x.initial)
	return string(text), err
}

// ask sends a challenge and gives the response.
func (x *exchange) ask(challenge string) (string, error) {
	if err := x.s.say("334 " + base64.StdEncoding.EncodeToString([]byte(challenge))); err != nil {
		return "", err
	}
	line, err := x.s.readLine(commandLimit)
	if err != nil {
		return "", err
	}
	x.s.srv.record(x.s.id, "C:", "***")
	if line == "*" {
		return "", errCancelled
	}
	text, err := base64.StdEncoding.DecodeString(line)
	return string(text), err
}

// verify compares what a user gave with what is on record.
func verify(records map[string]string, user, given string) (string, error) {
	want, known := records[user]
	if !known || subtle.ConstantTimeCompare([]byte(want), []byte(given)) != 1 {
		return "", errDenied
	}
	return user, nil
}

// plain is RFC 4616: authorization identity, user and password with NUL between them.
func (x *exchange) plain() (string, error) {
	text, err := x.first("")
	if err != nil {
		return "", err
	}
	f := strings.Split(text, "\x00")
	if len(f) != 3 || f[1] == "" {
		return "", errMalformed
	}
	if f[0] != "" && f[0] != f[1] {
		return "", errDenied
	}
	return verify(x.s.offer.Users, f[1], f[2])
}

// login has no RFC: the user, then the password, each when asked.
func (x *exchange) login() (string, error) {
	user, err := x.first("Username:")
	if err != nil {
		return "", err
	}
	password, err := x.ask("Password:")
	if err != nil {
		return "", err
	}
	return verify(x.s.offer.Users, user, password)
}

// external is RFC 4422, appendix A: the user is the common name of the client's certificate.
func (x *exchange) external() (string, error) {
	wanted, err := x.first("")
	if err != nil {
		return "", err
	}
	if x.s.tls == nil || len(x.s.tls.VerifiedChains) == 0 {
		return "", errDenied
	}
	name := x.s.tls.PeerCertificates[0].Subject.CommonName
	if wanted != "" && wanted != name {
		return "", errDenied
	}
	return name, nil
}
