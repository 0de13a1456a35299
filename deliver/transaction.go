package deliver

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/route"
)

// A transaction hands the message to a session for some recipients: MAIL, RCPT for each, DATA, the message
// (RFC 5321, section 3.3). Where the host offers PIPELINING the envelope goes out in one write (RFC 2920).
type transaction struct {
	d    *Deliverer
	s    *session
	hop  *route.Hop
	m    *Message
	form form
	body io.ReadCloser

	to    []*Outcome // to ask for; from answer on, those without an answer
	taken []*Outcome // the host has said yes to their RCPT
	later []*Outcome // the host has enough recipients: they go in the next transaction (RFC 5321, section 4.5.3.1.10)
}

// run makes the transaction and decides all of to, but for later. An error says that the session, or the message on
// this session, has no future; recipients that were not part of the transaction share it.
func (t *transaction) run(ctx context.Context) *Error {
	if e := t.prepare(); e != nil {
		t.fail(t.to, e)
		return e
	}
	if len(t.to) == 0 {
		return nil
	}
	body, err := t.m.Open()
	if err != nil {
		e := localErr(err)
		t.fail(t.to, e)
		return e
	}
	t.body = body
	defer body.Close()
	t.s.served++
	if e := t.envelope(ctx); e != nil {
		if !e.stale {
			t.fail(t.to, e)
			t.fail(t.taken, e)
		}
		return e
	}
	if len(t.taken) == 0 {
		return nil
	}
	return t.content(ctx)
}

// fail makes an error the outcome of recipients.
func (t *transaction) fail(list []*Outcome, e *Error) {
	failAll(list, t.s.at(e))
}

// at completes an error with the host.
func (s *session) at(e *Error) *Error {
	e.Host, e.Addr, e.TLS = s.host, s.addr, s.tls
	return e
}

// localErr is trouble with the message itself, on our side: no host is to blame, and none is asked again.
func localErr(err error) *Error {
	e := tempErr(StageRoute, "4.3.0", "the message could not be read: %w", err)
	e.local = true
	return e
}

// envelope plays everything up to the answer to DATA.
func (t *transaction) envelope(ctx context.Context) *Error {
	if t.s.caps.pipelining {
		t.reset()
		t.s.say(t.form.mail)
		for _, o := range t.to {
			t.s.say(t.form.rcpt(o))
		}
		t.s.say("DATA")
		return t.answers(ctx)
	}
	return t.lockstep(ctx)
}

// reset takes back what an earlier transaction left open. Its reply is read before the others'.
func (t *transaction) reset() {
	if t.s.open {
		t.s.say("RSET")
	}
}

// lockstep waits for each reply before the next command.
func (t *transaction) lockstep(ctx context.Context) *Error {
	t.reset()
	if t.s.open {
		if e := t.resetReply(ctx); e != nil {
			return e
		}
	}
	t.s.say(t.form.mail)
	ok, e := t.mailReply(ctx)
	if !ok {
		return e
	}
	for len(t.to) > 0 {
		t.s.say(t.form.rcpt(t.to[0]))
		if e := t.rcptReply(ctx); e != nil {
			return e
		}
	}
	if len(t.taken) == 0 {
		return nil
	}
	t.s.say("DATA")
	return t.dataReply(ctx)
}

// answers reads the replies to a pipelined envelope, each matched to its command.
func (t *transaction) answers(ctx context.Context) *Error {
	if t.s.open {
		if e := t.resetReply(ctx); e != nil {
			return e
		}
	}
	asked := len(t.to)
	ok, e := t.mailReply(ctx)
	if !ok {
		return t.drain(ctx, asked, e)
	}
	for len(t.to) > 0 {
		if e := t.rcptReply(ctx); e != nil {
			return e
		}
	}
	return t.dataReply(ctx)
}

// drain reads the answers to RCPT and DATA after MAIL was refused; they say nothing new.
func (t *transaction) drain(ctx context.Context, asked int, e *Error) *Error {
	for range asked {
		if t.s.broken {
			return e
		}
		if _, lost := t.reply(ctx, StageRcpt); lost != nil {
			return e
		}
	}
	if t.s.broken {
		return e
	}
	if reply, lost := t.reply(ctx, StageData); lost == nil && reply.Code == 354 {
		t.loneDot(ctx)
	}
	return e
}

// reply flushes what was said and reads one reply. The session is broken where that fails, and where the host says that
// it closes (421; RFC 5321, section 3.8).
func (t *transaction) reply(ctx context.Context, stage Stage) (dsn.Reply, *Error) {
	err := t.s.within(ctx, t.d.step(stage))
	if err == nil {
		err = t.s.w.Flush()
	}
	var reply dsn.Reply
	if err == nil || !isTimeout(err) {
		var readErr error
		reply, readErr = t.s.read() // a host that hangs up may have said why before
		if readErr == nil {
			err = nil
		} else if err == nil {
			err = readErr
		}
	}
	if err != nil {
		t.s.broken = true
		return dsn.Reply{}, t.s.lost(stage, err)
	}
	if reply.Code == 421 {
		t.s.broken = true
	}
	return reply, nil
}

func (t *transaction) resetReply(ctx context.Context) *Error {
	reply, e := t.reply(ctx, StageMail)
	switch {
	case e != nil:
	case reply.Code == 250:
		t.s.open = false
		return nil
	default:
		t.s.broken = true
		e = hostErr(StageMail, reply)
	}
	e.stale = t.s.reused
	return t.s.at(e)
}

// mailReply reports whether MAIL was taken.
func (t *transaction) mailReply(ctx context.Context) (ok bool, _ *Error) {
	reply, e := t.reply(ctx, StageMail)
	switch {
	case e != nil:
		e.stale = t.s.reused
	case reply.Code == 421:
		e = hostErr(StageMail, reply)
		e.stale = t.s.reused
	case reply.Code/100 == 2:
		t.s.open, t.s.reused = true, false
		return true, nil
	default:
		t.s.reused = false
		e = t.refusal(StageMail, reply)
	}
	return false, t.s.at(e)
}

// rcptReply reads the answer for the first of to.
func (t *transaction) rcptReply(ctx context.Context) *Error {
	reply, e := t.reply(ctx, StageRcpt)
	o := t.to[0]
	switch {
	case e != nil:
		return e
	case reply.Code == 421:
		return hostErr(StageRcpt, reply)
	case reply.Code/100 == 2:
		t.taken = append(t.taken, o)
	case len(t.taken) > 0 && isTooMany(reply):
		t.later = append(t.later, o)
	default:
		o.fail(t.s.at(t.refusal(StageRcpt, reply)))
	}
	t.to = t.to[1:]
	return nil
}

// isTooMany reports whether a host has enough recipients in one transaction. Old ones say 552 (RFC 5321,
// section 4.5.3.1.10).
func isTooMany(r dsn.Reply) bool {
	status := string(r.Status())
	return strings.HasSuffix(status, ".5.3") || (r.Code == 452 && status == "") ||
		(r.Code == 552 && strings.Contains(strings.ToLower(r.Text()), "too many recipients"))
}

// dataReply reads the answer to DATA. An error concerns everybody who is taken.
func (t *transaction) dataReply(ctx context.Context) *Error {
	reply, e := t.reply(ctx, StageData)
	switch {
	case len(t.taken) == 0 && e != nil:
		return nil // everybody has an answer, and the session is marked as broken
	case e != nil:
		return e
	case reply.Code == 354 && len(t.taken) == 0:
		t.loneDot(ctx) // RFC 2920, section 3.1
		return nil
	case reply.Code == 354 || len(t.taken) == 0:
		return nil
	}
	refused := t.taken
	t.taken = nil
	if reply.Code == 421 {
		t.fail(refused, hostErr(StageData, reply))
		return nil
	}
	t.fail(refused, t.refusal(StageData, reply))
	return nil
}

// loneDot ends a message that goes to nobody.
func (t *transaction) loneDot(ctx context.Context) {
	t.s.say(".")
	if _, e := t.reply(ctx, StageDot); e == nil {
		t.s.open = false
	}
}

// refusal is the error of a reply that is not yes. One that is neither no makes no sense, and nor does what would follow.
func (t *transaction) refusal(stage Stage, r dsn.Reply) *Error {
	if c := r.Code / 100; c == 4 || c == 5 {
		return replyErr(stage, r)
	}
	t.s.broken = true
	return &Error{Stage: stage, Reply: r, Status: "4.5.0", Temporary: true}
}

// content sends the message and reads what becomes of it.
func (t *transaction) content(ctx context.Context) *Error {
	e := t.send(ctx)
	if e != nil {
		t.fail(t.taken, e)
		return e
	}
	if t.hop.Protocol == route.LMTP && t.hop.Kind == route.Smarthost {
		for len(t.taken) > 0 { // a reply for each (RFC 2033, section 4.2)
			one := t.taken[:1]
			if e := t.dotReply(ctx, one); e != nil {
				t.fail(t.taken[1:], e)
				return e
			}
			t.taken = t.taken[1:]
		}
		t.s.open = false
		return nil
	}
	t.s.open = false
	return t.dotReply(ctx, t.taken)
}

// send writes the message and the dot. Nothing was delivered when it fails: the dot did not go out.
func (t *transaction) send(ctx context.Context) *Error {
	n, err := t.copyBody(ctx)
	t.s.note('C', "["+strconv.FormatInt(n, 10)+" octets of message]")
	if err == nil {
		t.s.say(".")
		if err = t.s.within(ctx, t.d.Timeouts.Block); err == nil {
			err = t.s.w.Flush()
		}
	}
	if err == nil {
		return nil
	}
	t.s.broken = true
	var local *readError
	if errors.As(err, &local) {
		t.s.close() // without a dot: the host throws away what it has
		return localErr(local.err)
	}
	if e := t.early(err); e != nil {
		return e
	}
	return t.s.lost(StageDot, err)
}

// early is the refusal of a host that hung up while it was sent the message, where it said why.
func (t *transaction) early(err error) *Error {
	if isTimeout(err) {
		return nil
	}
	t.s.net.SetReadDeadline(deadline(t.d.Timeouts.Quit))
	reply, err := t.s.read()
	if err != nil || reply.Code < 400 {
		return nil
	}
	return replyErr(StageDot, reply)
}

// dotReply reads what became of the message for some recipients. Without a reply nobody knows (RFC 1047).
func (t *transaction) dotReply(ctx context.Context, taken []*Outcome) *Error {
	reply, e := t.reply(ctx, StageDot)
	switch {
	case e != nil:
		e.PossiblyDelivered = true
		t.fail(taken, e)
		return t.s.at(e)
	case reply.Code == 421:
		t.fail(taken, hostErr(StageDot, reply))
	case reply.Code/100 != 2:
		t.fail(taken, t.refusal(StageDot, reply))
	default:
		for _, o := range taken {
			t.succeed(o, reply)
		}
	}
	return nil
}

func (t *transaction) succeed(o *Outcome, reply dsn.Reply) {
	o.leave()
	o.Result, o.Reply, o.Detail, o.Stage = Delivered, reply, "", StageDot
	if o.to.Notify.Success() && !t.s.caps.dsn {
		o.Result = Relayed // RFC 3461, section 5.2.2
	}
	if o.Status = reply.Status(); o.Status == "" {
		o.Status = "2.0.0"
	}
	o.Host, o.Addr, o.TLS = t.s.host, t.s.addr, t.s.tls
}
