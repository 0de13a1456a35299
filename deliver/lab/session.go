package lab

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

const (
	commandLimit = 12288     // octets of a command line (RFC 4954, section 4: the longest AUTH line)
	messageLimit = 128 << 20 // octets of a message that the mailbox takes
	badCommands  = 1000      // commands that are not understood before the server hangs up
)

var (
	errOver     = errors.New("session over")
	errTooLong  = errors.New("line too long")
	errBareFeed = errors.New("line ends in a bare LF")
)

// A session is one connection to a server, from the server's side. Only its own goroutine uses it, but for gone.
type session struct {
	srv     *Server
	id      int
	raw     net.Conn // as it was accepted
	gone    func()   // closes raw and ends the session, whatever it waits for
	over    <-chan struct{}
	conn    net.Conn // raw or TLS over it
	r       *bufio.Reader
	client  netip.AddrPort
	latency time.Duration // between server and client

	offer  Offer // as it was at the connection or the last EHLO
	caps   capabilities
	tls    *tls.ConnectionState
	helo   string
	user   string
	mails  int // transactions begun
	bad    int
	closed bool // a greeting that refused: only QUIT is understood (RFC 5321, section 3.1)
	tx     *transaction
}

// A transaction is what came since MAIL.
type transaction struct {
	msg    Message
	failed error // why the chunks so far make no message
}

func newSession(srv *Server, id int, conn net.Conn) *session {
	over := make(chan struct{})
	s := &session{srv: srv, id: id, raw: conn, conn: conn, over: over}
	s.r = bufio.NewReader(&tapped{s, conn})
	s.gone = sync.OnceFunc(func() {
		_ = conn.Close()
		close(over)
	})
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		s.client = a.AddrPort()
	}
	s.offer = srv.conduct.offer()
	return s
}

func (s *session) note(format string, args ...any) {
	s.srv.record(s.id, "-", fmt.Sprintf(format, args...))
}

// run plays the session to its end.
func (s *session) run() {
	s.note("connection from %s", s.client)
	if s.offer.TLS == TLSImplicit {
		if s.handshake() != nil {
			return
		}
	} else if s.pause(s.latency) != nil { // the last packet of the connection's handshake is on its way
		return
	}
	if dialogue, ok := s.srv.nextDialogue(); ok {
		s.play(dialogue)
		return
	}
	greeted, err := s.answer(s.step(AtGreeting, ""), "220 "+s.srv.name+" ESMTP lab")
	s.closed = !greeted
	for err == nil {
		err = s.next()
	}
}

// next reads a command and answers it.
func (s *session) next() error {
	line, err := s.readCommand()
	switch {
	case errors.Is(err, errTooLong):
		return s.unknown("500 5.5.6 Line too long")
	case errors.Is(err, errBareFeed):
		return s.unknown("500 5.5.2 Commands end in CRLF")
	case err != nil:
		return err
	}
	verb, arg, _ := strings.Cut(line, " ")
	verb = strings.ToUpper(verb)
	if s.closed && verb != "QUIT" {
		return s.unknown("503 5.5.1 This server said no at the beginning")
	}
	if s.ahead() && (verb != "BDAT" || !s.caps.has("CHUNKING")) {
		return s.unknown(notOffered)
	}
	run, known := commands[verb]
	if !known {
		_, err := s.answer(s.step(AtOther, line), "500 5.5.1 "+verb+" is not known here")
		return s.countBad(err)
	}
	return run(s, line, strings.TrimSpace(arg))
}

const notOffered = "503 5.5.0 Pipelining is not offered"

// ahead reports whether the client goes on without waiting, which it may not.
func (s *session) ahead() bool { return !s.caps.has("PIPELINING") && s.r.Buffered() > 0 }

// unknown says why a command is not understood, and hangs up where there are too many of them.
func (s *session) unknown(reply string) error { return s.countBad(s.say(reply)) }

func (s *session) countBad(err error) error {
	if s.bad++; s.bad > badCommands {
		return errOver
	}
	return err
}

// readCommand reads one line (RFC 5321, section 4.5.3.1.4) and records it.
func (s *session) readCommand() (string, error) {
	line, err := s.readLine(commandLimit)
	if err != nil && !errors.Is(err, errBareFeed) {
		return "", err
	}
	s.srv.record(s.id, "C:", hideCredentials(line))
	return line, err
}

func (s *session) readLine(limit int) (string, error) {
	var line []byte
	long := false
	for {
		part, err := s.r.ReadSlice('\n')
		if !long {
			line = append(line, part...)
		}
		long = long || len(line) > limit
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return "", err
		}
		break
	}
	switch {
	case long:
		return "", errTooLong
	case strings.HasSuffix(string(line), "\r\n"):
		return string(line[:len(line)-2]), nil
	}
	return string(line[:len(line)-1]), errBareFeed
}

// hideCredentials keeps the initial response of AUTH out of the transcript.
func hideCredentials(line string) string {
	if f := strings.Fields(line); len(f) > 2 && strings.EqualFold(f[0], "AUTH") {
		return f[0] + " " + f[1] + " ***"
	}
	return line
}

// step describes what is about to be answered.
func (s *session) step(at Stage, line string) Step {
	st := Step{
		Stage: at, Line: line, Client: s.client, Session: s.id,
		TLS: s.tls != nil, LoggedIn: s.user != "",
	}
	if s.tx != nil {
		st.Sender = s.tx.msg.From
		st.To = s.tx.msg.Addresses()
	}
	return st
}

// answer asks the behaviours what to do, the standard reply being usual, and does it. It reports whether the command
// was accepted; an error ends the session.
func (s *session) answer(step Step, usual string) (bool, error) {
	return s.perform(s.srv.now().decide(step), step.Stage, usual)
}

func (s *session) perform(a Answer, at Stage, usual string) (bool, error) {
	if err := s.pause(a.Delay); err != nil {
		return false, err
	}
	if a.Raw != "" {
		if err := s.sendRaw(a); err != nil {
			return false, err
		}
	}
	switch {
	case a.Hang:
		s.note("hangs at %s", at)
		return false, s.hang(at)
	case a.Reset:
		s.note("resets the connection at %s", at)
		reset(s.raw)
		return false, errOver
	case a.Drop:
		s.note("drops the connection at %s", at)
		return false, errOver
	}
	return s.reply(a, at, usual)
}

// reply says what an answer that leaves the connection says.
func (s *session) reply(a Answer, at Stage, usual string) (bool, error) {
	var err error
	switch {
	case a.Raw != "": // said already
		usual = a.Raw
	case a.Mute:
		s.note("says nothing at %s", at)
	default:
		if a.Reply != "" {
			usual = a.Reply
		}
		if err = s.say(usual); err == nil && a.Twice {
			err = s.say(usual)
		}
	}
	if a.Close && err == nil {
		s.note("closes the connection after %s", at)
		err = errOver
	}
	return accepts(at, usual), err
}

// takes reports whether an answer leaves a message taken.
func (a Answer) takes(usual string) bool {
	switch {
	case a.Keep:
		return true
	case a.Hang, a.Drop, a.Reset:
		return false
	case a.Raw != "":
		return positive(a.Raw)
	case a.Reply != "":
		return positive(a.Reply)
	}
	return positive(usual)
}

// accepts reports whether a reply lets the client go on: 3xx after DATA, 2xx elsewhere (RFC 5321, section 4.3.2).
func accepts(at Stage, reply string) bool {
	if at == AtData {
		return strings.HasPrefix(reply, "3")
	}
	return positive(reply)
}

func positive(reply string) bool { return strings.HasPrefix(reply, "2") }

func (s *session) pause(d time.Duration) error {
	if wait(context.Background(), s.over, d) != nil {
		return errOver
	}
	return nil
}

// hang stays silent until the client goes. In a body it does not read either, and cannot see the client go: it stays
// until the server hangs up.
func (s *session) hang(at Stage) error {
	if at == AtBody {
		<-s.over
		return errOver
	}
	_, _ = io.Copy(io.Discard, s.r)
	return errOver
}

func (s *session) sendRaw(a Answer) error {
	s.srv.record(s.id, "S:", a.Raw)
	err := s.write(a.Raw)
	if a.Twice && err == nil {
		err = s.write(a.Raw)
	}
	for a.Endless && err == nil {
		err = s.write(a.Raw)
	}
	return err
}

// say sends a reply. After a 421 the session is over (RFC 5321, section 3.8).
func (s *session) say(reply string) error {
	wire := wireReply(reply)
	s.srv.record(s.id, "S:", wire)
	if err := s.write(wire); err != nil {
		return err
	}
	if strings.HasPrefix(reply, "421") {
		return errOver
	}
	return nil
}

func (s *session) write(text string) error {
	if !s.offer.OneByte {
		_, err := io.WriteString(s.conn, text)
		return err
	}
	for i := range len(text) {
		if _, err := io.WriteString(s.conn, text[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

// wireReply puts a reply into the form of RFC 5321, section 4.2: lines after the first get its code.
func wireReply(reply string) string {
	lines := strings.Split(strings.TrimRight(strings.ReplaceAll(reply, "\r\n", "\n"), "\n"), "\n")
	code := lines[0]
	if len(code) > 3 {
		code = code[:3]
	}
	var b strings.Builder
	for i, line := range lines {
		sep := "-"
		if i == len(lines)-1 {
			sep = " "
		}
		text := strings.TrimPrefix(line, code)
		if text != line && (strings.HasPrefix(text, "-") || strings.HasPrefix(text, " ")) {
			text = text[1:]
		}
		b.WriteString(code + sep + text + "\r\n")
	}
	return b.String()
}

// handshake turns the session to TLS. What was buffered before it is thrown away (RFC 3207, section 4.2).
func (s *session) handshake() error {
	cfg, err := s.srv.tlsConfig(s.offer)
	if err != nil {
		s.note("no certificate: %v", err)
		return err
	}
	conn := tls.Server(s.raw, s.offer.askCertificate(cfg, s.srv.net.ca))
	if err := conn.HandshakeContext(context.Background()); err != nil {
		s.note("TLS handshake failed: %v", err)
		return err
	}
	state := conn.ConnectionState()
	s.tls, s.conn, s.r = &state, conn, bufio.NewReader(&tapped{s, conn})
	s.note("%s, server name %q", tls.VersionName(state.Version), state.ServerName)
	return nil
}
