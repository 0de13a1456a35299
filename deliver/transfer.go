package deliver

import (
	"errors"
	"strings"

	"github.com/sortie-mail/sortie/dsn"
)

// A transfer is the dialogue of one transaction (RFC 5321, section 3.3): MAIL, RCPT for each recipient, the message, and
// what becomes of it. With PIPELINING the envelope is said in one flight, and every answer is matched to its command
// (RFC 2920).
type transfer struct {
	peer  *peer
	form  *form
	rcpts []*Outcome
	lmtp  bool // a reply for each recipient follows the message (RFC 2033, section 4.2)
	judge judge
	told  func() // is told when a host answers for a recipient; nil where nobody is

	state  transferState
	said   step // the next command of the envelope
	heard  step // the next to be answered
	flight int  // octets of commands said since all were answered
	chunks int  // without an answer
	out    bool // all of the message was sent

	taken   []*Outcome  // the host has said yes to their RCPT
	room    [4]*Outcome // for the first of them
	denied  []*Outcome  // the host has said no
	later   []*Outcome  // the host has enough recipients: they go in the next transaction (RFC 5321, section 4.5.3.1.10)
	refused *Error      // MAIL was
	stopped bool        // a chunk was refused
	err     *Error      // the session is over
}

// A judge says what a 4yz or 5yz reply means on a session.
type judge interface {
	refusal(stage Stage, r dsn.Reply) *Error
}

type transferState uint8

const (
	atEnvelope transferState = iota // commands, up to the one that the message follows
	atMessage                       // the host waits for it, after DATA
	atChunks                        // it goes out in chunks
	atNobody                        // the host waits for a message that nobody is to get
	atDot                           // it is out, and the host says what becomes of it
	atEnd
)

// A step is the place of a command in the envelope. Those of the recipients begin with stepRCPT; DATA, or the chunk that is
// the whole message, comes after them.
type step int

const (
	stepRSET step = iota // only where an earlier transaction was not ended
	stepMAIL
	stepRCPT
)

// maxFlight bounds what is said before the answers are read, so that we never wait to write while the host waits for us to
// read. It is all of an ordinary envelope.
const maxFlight = writeBuffer

// chunksAhead is how many chunks may be without an answer: one on its way while the host works on the other.
const chunksAhead = 2

// begin makes the transfer ready to be played.
func (t *transfer) begin() {
	t.taken = t.room[:0]
	if !t.peer.open {
		t.said, t.heard = stepMAIL, stepMAIL
	}
}

// after is the step behind the last RCPT.
func (t *transfer) after() step { return stepRCPT + step(len(t.rcpts)) }

// end is the step behind the last command of the envelope.
func (t *transfer) end() step {
	if t.form.by == byChunks {
		return t.after()
	}
	return t.after() + 1
}

func (t *transfer) next() move {
	switch {
	case t.err != nil:
	case t.state == atEnvelope:
		return t.envelope()
	case t.state == atMessage:
		return move{do: doSend}
	case t.state == atChunks:
		return t.chunk()
	case t.state == atNobody:
		t.state, t.peer.open = atDot, false
		return move{do: doSay, stage: StageDot, line: "."} // RFC 2920, section 3.1
	case t.state == atDot:
		return move{do: doHear, stage: StageDot}
	}
	return move{do: doEnd}
}

// envelope says the next command where it may, and otherwise waits for an answer.
func (t *transfer) envelope() move {
	if m, ok := t.command(); ok {
		t.said++
		t.flight += len(m.line) + 2
		return m
	}
	return move{do: doHear, stage: t.stage(t.heard)}
}

// command is the next one, where it may be said now: when all before it is answered or, with PIPELINING, while it fits into
// the flight.
func (t *transfer) command() (move, bool) {
	if t.said == t.end() {
		return move{}, false
	}
	m := t.write(t.said)
	waits := t.said > t.heard && (!t.form.pipelining || t.flight+len(m.line)+2 > maxFlight)
	return m, !waits
}

func (t *transfer) write(s step) move {
	m := move{do: doSay, stage: t.stage(s)}
	switch {
	case s == stepRSET:
		m.line = "RSET"
	case s == stepMAIL:
		m.line = t.form.mail
	case s < t.after():
		m.line = t.form.rcpt(t.rcpts[s-stepRCPT])
	case t.form.by == byChunk:
		m.do = doChunk
	default:
		m.line = "DATA"
	}
	return m
}

func (t *transfer) stage(s step) Stage {
	switch {
	case s < stepRCPT:
		return StageMail
	case s < t.after():
		return StageRcpt
	case t.form.by == byChunk:
		return StageDot
	}
	return StageData
}

// chunk sends the next chunk, as long as the host keeps up.
func (t *transfer) chunk() move {
	if t.out || t.stopped || t.chunks == chunksAhead {
		return move{do: doHear, stage: StageDot}
	}
	t.chunks++
	return move{do: doChunk}
}

func (t *transfer) sent(last bool) {
	t.out = last
	if t.state == atMessage {
		t.state, t.peer.open = atDot, false
	}
}

func (t *transfer) hear(reply dsn.Reply) {
	stage := StageDot
	if t.state == atEnvelope {
		stage = t.stage(t.heard)
	}
	switch {
	case !fits(stage, reply.Code):
		t.outOfStep()
		fallthrough
	case reply.Code == 421: // the host closes (RFC 5321, section 3.8)
		t.peer.broken = true
		t.err = hostErr(stage, reply)
		return
	}
	switch t.state {
	case atEnvelope:
		t.hearCommand(reply)
	case atChunks:
		t.hearChunk(reply)
	default:
		t.hearEnd(reply)
	}
}

// outOfStep is for a host that does not give each command one reply. Nobody knows then whose the answers were, so those that
// said no for good did not.
func (t *transfer) outOfStep() {
	for _, o := range t.denied {
		o.reopen()
	}
	if t.refused != nil {
		t.refused.soften().Err = errors.New(notInStep)
	}
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

// hearCommand takes the answer to a command of the envelope, and looks what comes after the last one.
func (t *transfer) hearCommand(reply dsn.Reply) {
	s := t.heard
	t.heard++
	switch {
	case s == stepRSET:
		t.hearReset(reply)
	case s == stepMAIL:
		t.hearMail(reply)
	case s < t.after():
		t.hearRcpt(reply, t.rcpts[s-stepRCPT])
	case t.form.by == byChunk:
		t.hearEnd(reply)
	default:
		t.hearData(reply)
	}
	if t.state == atEnvelope && t.heard == t.said {
		t.answered()
	}
}

// answered begins the next flight, when all that was said is answered.
func (t *transfer) answered() {
	t.flight = 0
	switch {
	case t.refused != nil, t.said >= t.after() && len(t.taken) == 0:
		t.state = atEnd
	case t.said == t.end(): // byChunks: DATA and the only chunk have left the envelope
		t.state = atChunks
	}
}

func (t *transfer) hearReset(reply dsn.Reply) {
	t.peer.open = false
	if reply.Code >= 400 {
		t.peer.broken = true
		t.err = hostErr(StageMail, reply)
	}
}

func (t *transfer) hearMail(reply dsn.Reply) {
	t.peer.reused = false
	switch {
	case reply.Code < 400:
		t.peer.open = true
	case t.peer.served > 1 && reply.Code == 452: // it has had enough messages: that is no word about this one
		t.peer.worn = true
		t.refused = hostErr(StageMail, reply)
	default:
		t.refused = t.judge.refusal(StageMail, reply)
	}
}

func (t *transfer) hearRcpt(reply dsn.Reply, o *Outcome) {
	if t.told != nil {
		t.told()
		t.told = nil
	}
	switch {
	case t.refused != nil: // what comes after says nothing new
	case reply.Code < 300:
		t.taken = append(t.taken, o)
	case len(t.taken) > 0 && isTooMany(reply):
		t.later = append(t.later, o)
		t.peer.most = len(t.taken)
	default:
		e := t.judge.refusal(StageRcpt, reply)
		if isTooMany(reply) { // which is never for good
			e.soften()
		}
		o.fail(t.peer.at(e))
		t.denied = append(t.denied, o)
	}
}

// isTooMany reports whether a host has enough recipients in one transaction. Old ones say 552 (RFC 5321,
// section 4.5.3.1.10).
func isTooMany(r dsn.Reply) bool {
	status := string(r.Status())
	return strings.HasSuffix(status, ".5.3") || (r.Code == 452 && status == "") ||
		(r.Code == 552 && strings.Contains(strings.ToLower(r.Text()), "too many recipients"))
}

func (t *transfer) hearData(reply dsn.Reply) {
	switch {
	case reply.Code != 354:
		t.failTaken(t.judge.refusal(StageData, reply))
		t.state = atEnd
	case len(t.taken) > 0:
		t.state = atMessage
	default:
		t.state = atNobody
	}
}

// hearChunk takes the answer to a chunk. After a no the host has nothing, and the chunks that are on their way count for
// nothing (RFC 3030, section 2).
func (t *transfer) hearChunk(reply dsn.Reply) {
	t.chunks--
	switch {
	case t.stopped:
	case t.chunks == 0 && t.out:
		t.hearEnd(reply)
	case reply.Code >= 400:
		t.stopped = true
		t.failTaken(t.judge.refusal(StageDot, reply))
	}
	if t.stopped && t.chunks == 0 {
		t.state = atEnd
	}
}

// hearEnd takes the answer to the message: for all of taken, or in LMTP for the first of them.
func (t *transfer) hearEnd(reply dsn.Reply) {
	t.state = atDot
	t.peer.open = t.peer.open && reply.Code >= 400 // after a chunk only: RSET must undo it
	n := len(t.taken)
	if t.lmtp {
		n = min(n, 1)
	}
	for _, o := range t.taken[:n] {
		if reply.Code < 300 {
			o.succeed(t.peer, reply)
		} else {
			o.fail(t.peer.at(t.judge.refusal(StageDot, reply)))
		}
	}
	if t.taken = t.taken[n:]; len(t.taken) == 0 {
		t.state = atEnd
	}
}

func (t *transfer) failTaken(e *Error) {
	failAll(t.taken, t.peer.at(e))
	t.denied = append(t.denied, t.taken...)
	t.taken = nil
}

// lost takes the end of the connection, or of the session (nil for none), and gives the error of all that have no answer.
// Where the message was out, nobody knows whether the host has it (RFC 1047); only 421 says that it has not, in LMTP of one
// recipient.
func (t *transfer) lost(e *Error) *Error {
	if e != nil && errors.Is(e.Err, errProtocol) {
		t.outOfStep()
	}
	switch {
	case t.refused != nil: // which says more
		return t.refused
	case e == nil:
		return nil
	}
	if t.lmtp && len(t.taken) > 1 { // said in the middle of the message it is about one of them, or about all
		e.soften()
	}
	possibly := t.out && !e.unsent
	if possibly && e.Reply.Code == 421 {
		n := len(t.taken)
		if t.lmtp && e.Stage == StageDot {
			n = min(n, 1)
		}
		no := *e
		failAll(t.taken[:n], t.peer.at(&no))
		t.taken = t.taken[n:]
		possibly = len(t.taken) > 0
	}
	e.PossiblyDelivered = possibly
	return e
}

// undecided are the recipients that the transfer has left without an outcome.
func (t *transfer) undecided() []*Outcome {
	if t.refused != nil {
		return t.rcpts
	}
	answered := max(0, min(len(t.rcpts), int(t.heard-stepRCPT)))
	return append(t.taken, t.rcpts[answered:]...)
}
