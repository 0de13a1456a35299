package deliver

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/route"
)

// A transaction hands the message to a session for some recipients: MAIL, RCPT for each, DATA, the message
// (RFC 5321, section 3.3).
type transaction struct {
	d    *Deliverer
	s    *session
	hop  *route.Hop
	m    *Message
	form form

	waiting []*Outcome // without an answer yet, in the order of their RCPT
	taken   []*Outcome // the host has said yes to their RCPT
	later   []*Outcome // the host has enough recipients: they go in the next transaction (RFC 5321, section 4.5.3.1.10)
	refused *Error     // MAIL was
	ready   bool       // the host waits for the message
}

// run makes the transaction and decides all of waiting, but for later. An error says that the session, or the message on
// this session, has no future; recipients that were not part of the transaction share it.
func (t *transaction) run() *Error {
	e := t.prepare()
	if e == nil && len(t.waiting) > 0 {
		e = t.perform()
	}
	if e != nil && !e.stale {
		if !e.local {
			t.s.at(e)
		}
		failAll(t.waiting, e)
		failAll(t.taken, e)
	}
	return e
}

func (t *transaction) perform() *Error {
	body, err := t.m.Open()
	if err != nil {
		return localErr(StageMail, err)
	}
	defer body.Close()
	t.s.served++
	if e := t.envelope(); e != nil || !t.ready {
		return e
	}
	return t.content(body)
}

// fail makes an error the outcome of recipients.
func (t *transaction) fail(list []*Outcome, e *Error) { failAll(list, t.s.at(e)) }

// A command is a line of the envelope. The replies are of the stage.
type command struct {
	verb  verb
	stage Stage
	line  string
}

type verb uint8

const (
	verbRSET verb = iota
	verbMAIL
	verbRCPT
	verbDATA
)

// commands are those of the envelope, in order. RSET comes first where an earlier transaction was not ended.
func (t *transaction) commands() []command {
	list := make([]command, 0, len(t.waiting)+3)
	if t.s.open {
		list = append(list, command{verbRSET, StageMail, "RSET"})
	}
	list = append(list, command{verbMAIL, StageMail, t.form.mail})
	for _, o := range t.waiting {
		list = append(list, command{verbRCPT, StageRcpt, t.form.rcpt(o)})
	}
	return append(list, command{verbDATA, StageData, "DATA"})
}

// envelope plays everything up to the answer to DATA: some commands, then their answers, then the next commands.
func (t *transaction) envelope() *Error {
	todo := t.commands()
	for len(todo) > 0 && t.refused == nil {
		n, e := t.flight(todo)
		if e != nil || n == 0 {
			return e
		}
		for _, c := range todo[:n] {
			if e := t.answer(c); e != nil {
				return e
			}
		}
		todo = todo[n:]
	}
	return t.refused
}

// flight says the next commands: one, or with PIPELINING (RFC 2920) as many as the write buffer holds, which is all of an
// ordinary envelope. It is bounded so that we never wait to write while the host waits for us to read.
func (t *transaction) flight(todo []command) (n int, _ *Error) {
	if t.s.r.Buffered() > 0 {
		return 0, t.broken(t.s.lost(StageMail, fmt.Errorf("%w: it answered what it was not asked", errProtocol)))
	}
	if err := t.s.within(t.d.set.timeouts.Mail); err != nil {
		return 0, t.broken(t.s.lost(todo[0].stage, err))
	}
	for n < len(todo) && (n == 0 || (t.s.caps.pipelining && len(todo[n].line)+2 <= t.s.w.Available())) {
		if todo[n].verb == verbDATA && n == 0 && len(t.taken) == 0 {
			break // nobody is left
		}
		t.s.say(todo[n].line)
		n++
	}
	return n, nil
}

// reply flushes what was said and reads one reply. An error says that the session is over: it broke, the host closes it
// (421; RFC 5321, section 3.8), or what the host says does not fit what it was asked.
func (t *transaction) reply(stage Stage) (dsn.Reply, *Error) {
	reply, err := t.await(stage)
	switch {
	case err != nil:
		return reply, t.broken(t.s.lost(stage, err))
	case reply.Code == 421 || !fits(stage, reply.Code):
		return reply, t.broken(hostErr(stage, reply))
	}
	return reply, nil
}

func (t *transaction) await(stage Stage) (dsn.Reply, error) {
	if err := t.s.within(t.d.set.timeouts.of(stage)); err != nil {
		return dsn.Reply{}, err
	}
	err := t.s.w.Flush()
	if err != nil && isTimeout(err) {
		return dsn.Reply{}, err
	}
	reply, readErr := t.s.read() // a host that hangs up may have said why before
	if readErr == nil || err == nil {
		return reply, readErr
	}
	return reply, err
}

// broken ends the session. One that was idle before may have died then, which is nobody's failure.
func (t *transaction) broken(e *Error) *Error {
	t.s.broken = true
	e.stale = t.s.reused && t.s.ctx.Err() == nil
	return e
}

// fits reports whether a reply can be one to a command (RFC 5321, section 4.3.2).
func fits(stage Stage, code int) bool {
	switch {
	case code >= 400:
		return true
	case stage == StageData:
		return code == 354
	}
	return code < 300
}

// answer reads the reply to a command, and does what follows from it.
func (t *transaction) answer(c command) *Error {
	reply, e := t.reply(c.stage)
	switch {
	case t.refused != nil && e != nil:
		return t.refused // which says more
	case e != nil:
		return e
	case c.verb == verbDATA:
		return t.answerData(reply)
	case t.refused != nil: // what comes after says nothing new
	case c.verb == verbRSET:
		return t.answerReset(reply)
	case c.verb == verbMAIL:
		t.answerMail(reply)
	default:
		t.answerRcpt(reply)
	}
	return nil
}

func (t *transaction) answerReset(reply dsn.Reply) *Error {
	if reply.Code >= 400 {
		return t.broken(hostErr(StageMail, reply))
	}
	t.s.open = false
	return nil
}

func (t *transaction) answerMail(reply dsn.Reply) {
	t.s.reused = false
	if reply.Code >= 400 {
		t.refused = t.refusal(StageMail, reply)
		return
	}
	t.s.open = true
}

// answerRcpt decides about the first of waiting.
func (t *transaction) answerRcpt(reply dsn.Reply) {
	o := t.waiting[0]
	t.waiting = t.waiting[1:]
	switch {
	case reply.Code < 300:
		t.taken = append(t.taken, o)
	case len(t.taken) > 0 && isTooMany(reply):
		t.later = append(t.later, o)
		t.s.most = len(t.taken)
	default:
		o.fail(t.s.at(t.refusal(StageRcpt, reply)))
	}
}

// isTooMany reports whether a host has enough recipients in one transaction. Old ones say 552 (RFC 5321,
// section 4.5.3.1.10).
func isTooMany(r dsn.Reply) bool {
	status := string(r.Status())
	return strings.HasSuffix(status, ".5.3") || (r.Code == 452 && status == "") ||
		(r.Code == 552 && strings.Contains(strings.ToLower(r.Text()), "too many recipients"))
}

func (t *transaction) answerData(reply dsn.Reply) *Error {
	switch {
	case reply.Code == 354 && len(t.taken) > 0:
		t.ready = true
	case reply.Code == 354:
		t.s.say(".") // a message to nobody (RFC 2920, section 3.1)
		if _, e := t.reply(StageDot); e != nil {
			return e
		}
		t.s.open = false
	default:
		t.fail(t.taken, t.refusal(StageData, reply))
		t.taken = nil
	}
	return nil
}

// refusal is the error of a 4yz or 5yz reply. That we should have logged in, or used TLS, is no word about the recipient.
func (t *transaction) refusal(stage Stage, r dsn.Reply) *Error {
	switch r.Code {
	case 530, 534, 535, 538: // RFC 4954, section 6; RFC 3207, section 4
		switch {
		case t.hop.Kind == route.Smarthost || t.s.key.mode == route.TLSNone:
			return replyErr(stage, r).trouble()
		case t.s.key.plain:
			return hostErr(stage, r)
		}
	}
	return replyErr(stage, r)
}

// content sends the message and reads what becomes of it.
func (t *transaction) content(body io.Reader) *Error {
	if e := t.send(body); e != nil {
		return e
	}
	t.s.open = false
	for len(t.taken) > 0 {
		n := len(t.taken)
		if t.s.key.protocol == route.LMTP {
			n = 1 // a reply for each (RFC 2033, section 4.2)
		}
		reply, e := t.reply(StageDot)
		if e != nil {
			return t.unknown(n, e)
		}
		for _, o := range t.taken[:n] {
			if reply.Code < 300 {
				o.succeed(t.s, reply)
			} else {
				o.fail(t.s.at(t.refusal(StageDot, reply)))
			}
		}
		t.taken = t.taken[n:]
	}
	return nil
}

// unknown is the end of a session that should have said what becomes of the message. Without that nobody knows (RFC 1047);
// only 421 means that the first n do not have it.
func (t *transaction) unknown(n int, e *Error) *Error {
	if e.Reply.Code == 421 {
		no := *e
		t.fail(t.taken[:n], &no)
		t.taken = t.taken[n:]
	}
	e.PossiblyDelivered = len(t.taken) > 0
	return e
}

// send writes the message and the dot. Nothing was delivered when it fails: the dot did not go out whole.
func (t *transaction) send(body io.Reader) *Error {
	n, err := t.copyBody(body)
	t.s.notef("%d octets of message sent", n)
	if err == nil {
		t.s.say(".")
		err = t.s.w.Flush()
	}
	if err == nil {
		return nil
	}
	t.s.broken = true // without a dot: the host throws away what it has
	var local *readError
	if errors.As(err, &local) {
		return localErr(StageDot, local.err)
	}
	lost := t.s.lost(StageDot, err)
	if reply := t.lastWords(); reply.Code >= 400 {
		return replyErr(StageDot, reply)
	}
	return lost
}

// lastWords is what a host said while it was sent the message, and stopped reading or hung up; zero where it said nothing.
func (t *transaction) lastWords() (reply dsn.Reply) {
	if t.s.within(t.d.set.timeouts.Quit) == nil {
		reply, _ = t.s.read()
	}
	return reply
}
