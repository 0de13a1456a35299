package lab

import (
	"slices"
	"strconv"
	"strings"
)

// commands are what a session understands, by verb.
var commands map[string]func(s *session, line, arg string) error

func init() {
	commands = map[string]func(s *session, line, arg string) error{
		"HELO":     (*session).cmdHELO,
		"EHLO":     (*session).cmdEHLO,
		"LHLO":     (*session).cmdEHLO,
		"STARTTLS": (*session).cmdSTARTTLS,
		"AUTH":     (*session).cmdAUTH,
		"MAIL":     (*session).cmdMAIL,
		"RCPT":     (*session).cmdRCPT,
		"DATA":     (*session).cmdDATA,
		"BDAT":     (*session).cmdBDAT,
		"RSET":     (*session).cmdRSET,
		"NOOP":     (*session).cmdNOOP,
		"VRFY":     (*session).cmdVRFY,
		"QUIT":     (*session).cmdQUIT,
	}
}

// capabilities are the extensions in force: keyword to parameters.
type capabilities map[string]string

func (c capabilities) has(keyword string) bool { _, ok := c[keyword]; return ok }

// limit is the SIZE limit; 0 is none (RFC 1870, section 4).
func (c capabilities) limit() int64 {
	n, _ := strconv.ParseInt(c["SIZE"], 10, 64)
	return n
}

// reached reports whether n is what a limit of RFC 9422 allows.
func (c capabilities) reached(limit string, n int) bool {
	for _, f := range strings.Fields(c["LIMITS"]) {
		if name, value, _ := strings.Cut(f, "="); strings.EqualFold(name, limit) {
			most, err := strconv.Atoi(value)
			return err == nil && n >= most
		}
	}
	return false
}

// capabilityLines are the lines of a reply to EHLO, in order.
func (s *session) capabilityLines() []string {
	lines := s.offer.Capabilities
	if lines == nil {
		lines = DefaultCapabilities()
	}
	lines = slices.Clone(lines)
	if s.tls == nil { // RFC 8689, section 2: offered within TLS only
		lines = slices.DeleteFunc(lines, func(l string) bool { return strings.EqualFold(l, "REQUIRETLS") })
	}
	if s.offer.TLS != TLSNone && s.offer.TLS != TLSImplicit && s.tls == nil {
		lines = append(lines, "STARTTLS")
	}
	if s.offer.offersAuth(s.tls != nil) {
		lines = append(lines, "AUTH "+strings.Join(s.offer.mechanisms(), " "))
	}
	return lines
}

func (s *session) cmdHELO(line, arg string) error {
	if s.offer.LMTP {
		return s.unknown("500 5.5.1 This is LMTP: say LHLO")
	}
	ok, err := s.answer(s.step(AtEHLO, line), "250 "+s.srv.name)
	if ok {
		s.helo, s.caps, s.tx = arg, nil, nil
	}
	return err
}

func (s *session) cmdEHLO(line, arg string) error {
	s.offer = s.srv.now().offer()
	if lmtp := strings.EqualFold(line[:4], "LHLO"); lmtp != s.offer.LMTP {
		return s.unknown("500 5.5.1 Wrong protocol: " + line[:4] + " is not known here")
	}
	lines := s.capabilityLines()
	reply := "250 " + strings.Join(append([]string{s.srv.name}, lines...), "\n")
	ok, err := s.answer(s.step(AtEHLO, line), reply)
	if !ok {
		return err
	}
	s.helo, s.tx = arg, nil
	s.caps = make(capabilities)
	for _, l := range lines {
		keyword, params, _ := strings.Cut(l, " ")
		s.caps[strings.ToUpper(keyword)] = params
	}
	return err
}

func (s *session) cmdSTARTTLS(line, _ string) error {
	if !s.caps.has("STARTTLS") {
		return s.unknown("502 5.5.1 STARTTLS is not offered")
	}
	usual := "220 2.0.0 Go ahead"
	if s.offer.TLS == TLSRefused {
		usual = "454 4.7.0 TLS not available due to temporary reason"
	}
	a := s.srv.now().decide(s.step(AtTLS, line))
	ok, err := s.perform(a, AtTLS, usual)
	if !ok || err != nil || (a.Raw != "" && !strings.HasPrefix(a.Raw, "220")) {
		return err
	}
	// RFC 3207, section 4.2: everything that was learnt in the clear is forgotten.
	s.helo, s.caps, s.tx, s.user = "", nil, nil, ""
	return s.upgrade()
}

// upgrade is what comes of a handshake.
func (s *session) upgrade() error {
	switch s.offer.TLS {
	case TLSBroken:
		_, _ = s.r.Peek(1) // the client's hello
		_ = s.write(junk)
		return s.hang(AtTLS)
	case TLSStalled:
		return s.hang(AtTLS)
	case TLSCut:
		_, _ = s.r.Peek(1)
		return errOver
	}
	return s.handshake()
}

func (s *session) cmdMAIL(line, arg string) error {
	path, params, err := parsePath(arg, "FROM:")
	if refusal := s.refuseMail(path, params, err); refusal != "" {
		return s.unknown(refusal)
	}
	st := s.step(AtMail, line)
	st.Sender = path
	ok, err := s.answer(st, "250 2.1.0 Ok")
	if ok {
		s.mails++
		s.tx = &transaction{msg: Message{
			HELO: s.helo, From: path, Params: params,
			TLS: s.tls, User: s.user, Client: s.client, Session: s.id,
		}}
		s.tx.msg.readParams()
	}
	return err
}

// refuseMail says why MAIL is out of place, or "".
func (s *session) refuseMail(path string, params map[string]string, syntax error) string {
	switch {
	case s.helo == "":
		return "503 5.5.1 Say EHLO first"
	case s.tx != nil:
		return "503 5.5.1 MAIL inside a transaction"
	case s.offer.TLS == TLSRequired && s.tls == nil:
		return "530 5.7.0 Must issue a STARTTLS command first"
	case s.offer.AuthRequired && s.user == "":
		return "530 5.7.0 Authentication required"
	case s.caps.reached("MAILMAX", s.mails):
		return "421 4.7.0 Too many messages in one session"
	case syntax != nil:
		return "501 5.5.4 " + syntax.Error()
	}
	if refusal := s.caps.refuseParams(params, mailParams); refusal != "" {
		return refusal
	}
	if _, ok := params["SMTPUTF8"]; !ok && !ascii(path) {
		return "553 5.6.7 Non-ASCII address without SMTPUTF8"
	}
	if by, _ := parseDeliverBy(params["BY"]); s.caps.tooSoon(by) {
		return "555 5.5.4 That is too little time"
	}
	size, err := strconv.ParseInt(params["SIZE"], 10, 64)
	if limit := s.caps.limit(); err == nil && limit > 0 && size > limit {
		return "552 5.3.4 Message size exceeds fixed limit"
	}
	return ""
}

func (s *session) cmdRCPT(line, arg string) error {
	path, params, err := parsePath(arg, "TO:")
	if refusal := s.refuseRcpt(path, params, err); refusal != "" {
		return s.unknown(refusal)
	}
	st := s.step(AtRcpt, line)
	st.To = []string{path}
	ok, err := s.answer(st, "250 2.1.5 Ok")
	if ok {
		s.tx.msg.To = append(s.tx.msg.To, Recipient{Address: path, Params: params})
	}
	return err
}

// refuseRcpt says why RCPT is out of place, or "".
func (s *session) refuseRcpt(path string, params map[string]string, syntax error) string {
	switch {
	case s.tx == nil:
		return "503 5.5.1 Say MAIL first"
	case s.tx.msg.BDAT:
		return "503 5.5.1 RCPT after BDAT"
	case syntax != nil:
		return "501 5.5.4 " + syntax.Error()
	case path == "":
		return "501 5.1.3 A recipient cannot be empty"
	}
	if refusal := s.caps.refuseParams(params, rcptParams); refusal != "" {
		return refusal
	}
	if _, ok := s.tx.msg.Params["SMTPUTF8"]; !ok && !ascii(path) {
		return "553 5.6.7 Non-ASCII address without SMTPUTF8"
	}
	to := len(s.tx.msg.To)
	if limit := s.offer.MaxRecipients; (limit > 0 && to >= limit) || s.caps.reached("RCPTMAX", to) {
		return "452 4.5.3 Too many recipients"
	}
	return ""
}

func (s *session) cmdRSET(line, _ string) error {
	ok, err := s.answer(s.step(AtRset, line), "250 2.0.0 Ok")
	if ok {
		s.tx = nil
	}
	return err
}

func (s *session) cmdNOOP(line, _ string) error {
	_, err := s.answer(s.step(AtOther, line), "250 2.0.0 Ok")
	return err
}

func (s *session) cmdVRFY(line, _ string) error {
	_, err := s.answer(s.step(AtOther, line), "252 2.1.5 Cannot verify")
	return err
}

func (s *session) cmdQUIT(line, _ string) error {
	ok, err := s.answer(s.step(AtQuit, line), "221 2.0.0 Bye")
	if err == nil && ok {
		err = errOver
	}
	return err
}
