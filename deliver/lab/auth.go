package lab

import (
	"encoding/base64"
	"errors"
	"strings"
)

// errCancelled is the client's "*" (RFC 4954, section 4).
var errCancelled = errors.New("authentication cancelled")

func (s *session) cmdAUTH(_, arg string) error {
	mechanism, initial, given := strings.Cut(arg, " ")
	mechanism = strings.ToUpper(mechanism)
	switch {
	case s.offer.Users == nil:
		return s.unknown("502 5.5.1 AUTH is not offered")
	case s.tls == nil && !s.offer.AuthInClear:
		return s.unknown("538 5.7.11 Encryption required")
	case s.user != "":
		return s.unknown("503 5.5.1 Already authenticated")
	case mechanism != "PLAIN" && mechanism != "LOGIN":
		return s.unknown("504 5.5.4 Mechanism not offered")
	}
	user, password, err := s.credentials(mechanism, initial, given)
	switch {
	case errors.Is(err, errCancelled):
		return s.unknown("501 5.7.0 Cancelled")
	case errors.As(err, new(base64.CorruptInputError)):
		return s.unknown("501 5.5.2 That is not base64")
	case err != nil:
		return err
	}
	usual := "535 5.7.8 Authentication credentials invalid"
	if want, known := s.offer.Users[user]; known && want == password {
		usual = "235 2.7.0 Authentication successful"
	}
	ok, err := s.answer(s.step(AtAuth, "AUTH "+mechanism), usual)
	if ok {
		s.user = user
	}
	return err
}

func (s *session) credentials(mechanism, initial string, given bool) (user, password string, err error) {
	if mechanism == "PLAIN" {
		text, err := s.response("", initial, given)
		f := strings.Split(text, "\x00") // RFC 4616, section 2: authzid NUL authcid NUL passwd
		if err != nil || len(f) != 3 {
			return "", "", err
		}
		return f[1], f[2], nil
	}
	if user, err = s.response("Username:", initial, given); err != nil {
		return "", "", err
	}
	password, err = s.response("Password:", "", false)
	return user, password, err
}

// response gives the client's answer to a challenge, or its initial response.
func (s *session) response(challenge, initial string, given bool) (string, error) {
	line := initial
	if !given {
		if err := s.say("334 " + base64.StdEncoding.EncodeToString([]byte(challenge))); err != nil {
			return "", err
		}
		var err error
		if line, err = s.readLine(commandLimit); err != nil {
			return "", err
		}
		s.srv.record(s.id, "C:", "***")
	}
	switch line {
	case "*":
		return "", errCancelled
	case "=": // RFC 4954, section 4: an empty initial response
		return "", nil
	}
	out, err := base64.StdEncoding.DecodeString(line)
	return string(out), err
}
