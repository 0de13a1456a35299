package lab

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// A script is the dialogues that a server plays, one a connection.
type script struct{ dialogues [][]scriptLine }

func (sc *script) behave(c *conduct) {
	if c.script == nil {
		c.script = sc
	}
}

// A scriptLine is one line of a dialogue.
type scriptLine struct {
	number int
	op     string
	arg    string // unquoted, for S-RAW
	wait   time.Duration
}

func (l scriptLine) String() string { return strings.TrimSpace(l.op + " " + l.arg) }

// Script plays a dialogue written as text instead of all other behaviour but the Offer, whose certificate, OneByte and
// implicit TLS still hold. It panics where the text is no script; [ParseScript] gives an error instead. The text has a
// step a line:
//
//	# a comment; empty lines mean nothing
//	S: 220 mx.aol.test ESMTP       sends the line as it is, with CRLF
//	C: EHLO *                      reads a line that must match; * stands for anything, case counts
//	S-RAW "250 \x00\r\n"           sends the octets of a Go string
//	S-WAIT 5s                      waits
//	STARTTLS                       starts TLS, after its reply
//	C-BODY                         reads a message to its dot, into the mailbox
//	C-CHUNK                        reads a BDAT command and its chunk; the LAST one puts the message into the mailbox
//	S-HANG                         says nothing until the client goes
//	S-CLOSE                        closes the connection
//	C-CLOSE                        the client must close the connection here
//	----                           what follows is for the next connection
//
// Connections after the last dialogue play that again. Where a dialogue ends without a close, the client may still
// say QUIT. A client that says something else than the script gets "421 4.3.0" with the line of the script, and
// [Server.ScriptError] says so too; under [Test] it fails the test. Messages have the recipients that were named,
// whatever was answered.
func Script(text string) Behaviour {
	b, err := ParseScript(text)
	if err != nil {
		panic(err)
	}
	return b
}

// scriptOps are the steps of a script, and whether each takes an argument.
var scriptOps = map[string]bool{
	"S:": true, "C:": true, "S-RAW": true, "S-WAIT": true,
	"STARTTLS": false, "C-BODY": false, "C-CHUNK": false, "S-HANG": false, "S-CLOSE": false, "C-CLOSE": false,
}

// nextDialogue divides the dialogues of a script.
const nextDialogue = "----"

// ParseScript is Script with an error, which names the line, for text that is no script.
func ParseScript(text string) (Behaviour, error) {
	sc := &script{dialogues: [][]scriptLine{nil}}
	number := 0
	for raw := range strings.SplitSeq(text, "\n") {
		number++
		line := strings.TrimSpace(raw)
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
			continue
		case line == nextDialogue:
			sc.dialogues = append(sc.dialogues, nil)
			continue
		}
		step, err := parseStep(line)
		if err != nil {
			return nil, fmt.Errorf("lab: script line %d: %w", number, err)
		}
		step.number = number
		last := len(sc.dialogues) - 1
		sc.dialogues[last] = append(sc.dialogues[last], step)
	}
	return sc, nil
}

func parseStep(line string) (scriptLine, error) {
	op, arg, _ := strings.Cut(line, " ")
	takes, known := scriptOps[op]
	switch {
	case !known:
		return scriptLine{}, fmt.Errorf("%q is no step of a script: see the documentation of Script", op)
	case !takes && arg != "":
		return scriptLine{}, fmt.Errorf("%s stands alone, without %q", op, arg)
	}
	l := scriptLine{op: op, arg: arg}
	var err error
	switch op {
	case "S-RAW":
		if l.arg, err = strconv.Unquote(arg); err != nil {
			return l, fmt.Errorf("S-RAW needs a Go string in quotes, not %s", arg)
		}
	case "S-WAIT":
		if l.wait, err = time.ParseDuration(arg); err != nil || l.wait < 0 {
			return l, fmt.Errorf("S-WAIT needs a duration such as 5s, not %q", arg)
		}
	}
	return l, nil
}

// ScriptError gives what went against the scripts so far, joined; nil where nothing did.
func (s *Server) ScriptError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.scriptErrs...)
}

// nextDialogue gives the dialogue that a new connection is to play, and whether there is a script at all.
func (s *Server) nextDialogue() ([]scriptLine, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sc := s.conduct.script
	if sc == nil {
		return nil, false
	}
	i := min(s.played, len(sc.dialogues)-1)
	s.played++
	return sc.dialogues[i], true
}

// A player is a session that plays a script.
type player struct {
	*session
	msg    Message
	secret bool // the client's next line answers a challenge
}

func (s *session) play(dialogue []scriptLine) {
	p := &player{session: s}
	p.fresh()
	for _, l := range dialogue {
		err := p.step(l)
		if errors.Is(err, errOver) {
			return
		}
		if err != nil {
			p.against(l.number, err)
			return
		}
	}
	p.epilogue(dialogue)
}

func (p *player) fresh() { p.msg = Message{Client: p.client, Session: p.id, TLS: p.tls} }

// against reports that the client did not keep to the script, unless the server is closing.
func (p *player) against(number int, err error) {
	if p.srv.isClosed() {
		return
	}
	err = fmt.Errorf("lab: %s, connection %d, script line %d: %w", p.srv.name, p.id, number, err)
	p.note("%v", err)
	p.srv.mu.Lock()
	p.srv.scriptErrs = append(p.srv.scriptErrs, err)
	p.srv.mu.Unlock()
	_ = p.srv.net.mistake(err)
	_ = p.say(fmt.Sprintf("421 4.3.0 Not in the script: %v", err))
}

func (p *player) step(l scriptLine) error {
	switch l.op {
	case "S:":
		p.secret = strings.HasPrefix(l.arg, "334")
		return p.send(l.arg + "\r\n")
	case "S-RAW":
		return p.send(l.arg)
	case "S-WAIT":
		return p.pause(l.wait)
	case "S-HANG":
		return p.hang(Anywhere)
	case "S-CLOSE":
		return errOver
	case "STARTTLS":
		return p.handshake()
	case "C-BODY":
		return p.body()
	case "C-CHUNK":
		return p.chunk()
	case "C-CLOSE":
		return p.expectEnd()
	}
	return p.expect(l)
}

func (p *player) send(text string) error {
	p.srv.record(p.id, "S:", text)
	if err := p.write(text); err != nil {
		return fmt.Errorf("the client was gone before %q: %w", text, err)
	}
	return nil
}

// hear reads a line from the client.
func (p *player) hear() (string, error) {
	line, err := p.readLine(commandLimit)
	if err != nil && !errors.Is(err, errBareFeed) {
		return "", err
	}
	shown := hideCredentials(line)
	if p.secret {
		shown, p.secret = "***", false
	}
	p.srv.record(p.id, "C:", shown)
	return line, err
}

func (p *player) expect(l scriptLine) error {
	secret := p.secret
	line, err := p.hear()
	if err != nil {
		return fmt.Errorf("expected %q: %w", l, err)
	}
	if !glob(l.arg, line) {
		if secret {
			line = "a credential"
		}
		return fmt.Errorf("expected %q, the client said %q", l, hideCredentials(line))
	}
	p.learn(line)
	return nil
}

// learn keeps what a command says of the message to come.
func (p *player) learn(line string) {
	verb, arg, _ := strings.Cut(line, " ")
	switch strings.ToUpper(verb) {
	case "HELO", "EHLO", "LHLO":
		p.helo = arg
	case "MAIL":
		p.fresh()
		p.msg.From, p.msg.Params, _ = parsePath(arg, "FROM:")
		p.msg.readParams()
	case "RCPT":
		if path, params, err := parsePath(arg, "TO:"); err == nil {
			p.msg.To = append(p.msg.To, Recipient{Address: path, Params: params})
		}
	}
}

func (p *player) body() error {
	body, failed, err := p.readBody(messageLimit)
	if err = errors.Join(failed, err); err != nil {
		return fmt.Errorf("expected a body and a dot: %w", err)
	}
	p.srv.record(p.id, "C:", fmt.Sprintf("<%d octets> and a dot", len(body)))
	p.msg.Body = body
	p.arrived()
	return nil
}

func (p *player) chunk() error {
	line, err := p.hear()
	if err != nil {
		return fmt.Errorf("expected BDAT: %w", err)
	}
	verb, arg, _ := strings.Cut(line, " ")
	size, last, err := parseBDAT(arg)
	if err != nil || verb != "BDAT" || size > messageLimit-int64(len(p.msg.Body)) {
		return fmt.Errorf("expected BDAT with a size, the client said %q", line)
	}
	chunk := make([]byte, size)
	if _, err := io.ReadFull(p.r, chunk); err != nil {
		return fmt.Errorf("expected %d octets: %w", size, err)
	}
	p.msg.Body, p.msg.BDAT = append(p.msg.Body, chunk...), true
	p.msg.Chunks++
	if last {
		p.arrived()
	}
	return nil
}

func (p *player) arrived() {
	p.msg.HELO, p.msg.Received = p.helo, time.Now()
	p.srv.deliver(p.msg)
	p.fresh()
}

func (p *player) expectEnd() error {
	switch line, err := p.hear(); {
	case err == nil:
		return fmt.Errorf("expected the client to close, it said %q", line)
	case errors.Is(err, errTooLong), errors.Is(err, errBareFeed):
		return fmt.Errorf("expected the client to close: %w", err)
	}
	return errOver
}

// epilogue lets the client go, politely or not.
func (p *player) epilogue(dialogue []scriptLine) {
	end := 0
	if len(dialogue) > 0 {
		end = dialogue[len(dialogue)-1].number
	}
	line, err := p.hear()
	switch {
	case err != nil:
	case strings.EqualFold(line, "QUIT"):
		_ = p.say("221 2.0.0 Bye")
	default:
		p.against(end, fmt.Errorf("after the end the client said %q", line))
	}
}

// glob matches text with a pattern in which * stands for any text, also none.
func glob(pattern, text string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == text
	}
	first, last := parts[0], parts[len(parts)-1]
	if len(text) < len(first)+len(last) || !strings.HasPrefix(text, first) || !strings.HasSuffix(text, last) {
		return false
	}
	text = text[len(first) : len(text)-len(last)]
	for _, part := range parts[1 : len(parts)-1] {
		at := strings.Index(text, part)
		if at < 0 {
			return false
		}
		text = text[at+len(part):]
	}
	return true
}
