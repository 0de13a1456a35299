package lab

import (
	"fmt"
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

// lines are the capability lines of a reply to EHLO, in order.
func (s *session) capabilityLines() []string {
	lines := s.offer.Capabilities
	if lines == nil {
		lines = DefaultCapabilities()
	}
	lines = lines[:len(lines):len(lines)]
	if s.offer.TLS != TLSNone && s.offer.TLS != TLSImplicit && s.tls == nil {
		lines = append(lines, "STARTTLS")
	}
	if s.offer.Users != nil && (s.tls != nil || s.offer.AuthInClear) {
		lines = append(lines, "AUTH PLAIN LOGIN")
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
	if !ok || err != nil || a.Raw != "" {
		return err
	}
	// RFC 3207, section 4.2: everything that was learnt in the clear is forgotten.
	s.helo, s.caps, s.tx, s.user = "", nil, nil, ""
	if s.offer.TLS == TLSBroken {
		_, _ = s.r.Peek(1) // the client's hello
		_ = s.write(junk)
		return s.hang(AtTLS)
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
		s.tx = &transaction{msg: Message{
			HELO: s.helo, From: path, Params: params,
			TLS: s.tls, User: s.user, Client: s.client, Session: s.id,
		}}
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
	case syntax != nil:
		return "501 5.5.4 " + syntax.Error()
	}
	if refusal := s.refuseParams(params, mailParams); refusal != "" {
		return refusal
	}
	if _, ok := params["SMTPUTF8"]; !ok && !ascii(path) {
		return "553 5.6.7 Non-ASCII address without SMTPUTF8"
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
	case s.tx.failed != nil || s.tx.msg.BDAT:
		return "503 5.5.1 RCPT after BDAT"
	case syntax != nil:
		return "501 5.5.4 " + syntax.Error()
	case path == "":
		return "501 5.1.3 A recipient cannot be empty"
	}
	if refusal := s.refuseParams(params, rcptParams); refusal != "" {
		return refusal
	}
	if _, ok := s.tx.msg.Params["SMTPUTF8"]; !ok && !ascii(path) {
		return "553 5.6.7 Non-ASCII address without SMTPUTF8"
	}
	if limit := s.offer.MaxRecipients; limit > 0 && len(s.tx.msg.To) >= limit {
		return "452 4.5.3 Too many recipients"
	}
	return ""
}

// Which extension a parameter belongs to: RFC 1870, 6152, 6531, 3461, 4954, 8689, 6710, 2852.
var (
	mailParams = map[string]string{
		"SIZE": "SIZE", "BODY": "8BITMIME", "SMTPUTF8": "SMTPUTF8", "RET": "DSN", "ENVID": "DSN",
		"AUTH": "AUTH", "REQUIRETLS": "REQUIRETLS", "MT-PRIORITY": "MT-PRIORITY", "BY": "DELIVERBY",
	}
	rcptParams = map[string]string{"NOTIFY": "DSN", "ORCPT": "DSN"}
)

func (s *session) refuseParams(params, known map[string]string) string {
	for name, value := range params {
		extension := known[name]
		if strings.EqualFold(value, "BINARYMIME") {
			extension = "BINARYMIME"
		}
		if extension == "" || !s.caps.has(extension) {
			return "555 5.5.4 Parameter " + name + " belongs to nothing that is offered"
		}
	}
	return ""
}

func ascii(text string) bool {
	for i := range len(text) {
		if text[i] >= 0x80 {
			return false
		}
	}
	return true
}

// parsePath reads "FROM:<path> PARAM=VALUE …" (RFC 5321, section 4.1.2). The path is given without angle brackets,
// byte for byte.
func parsePath(arg, keyword string) (string, map[string]string, error) {
	if len(arg) < len(keyword) || !strings.EqualFold(arg[:len(keyword)], keyword) {
		return "", nil, fmt.Errorf("expected %s<path>", keyword)
	}
	rest := strings.TrimLeft(arg[len(keyword):], " ")
	end := pathEnd(rest)
	if end < 0 {
		return "", nil, fmt.Errorf("no path in angle brackets after %s", keyword)
	}
	params := make(map[string]string)
	for _, p := range strings.Fields(rest[end+1:]) {
		name, value, _ := strings.Cut(p, "=")
		params[strings.ToUpper(name)] = value
	}
	return rest[1:end], params, nil
}

// pathEnd finds the closing bracket of a path, past quoted strings; -1 where there is none.
func pathEnd(path string) int {
	if !strings.HasPrefix(path, "<") {
		return -1
	}
	quoted := false
	for i := 1; i < len(path); i++ {
		switch c := path[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == '>' && !quoted:
			return i
		}
	}
	return -1
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
