package deliver

import (
	"fmt"
	"time"

	"github.com/sortie-mail/sortie/dsn"
)

// A dialogue is what is to be said in a part of a session, and what follows from the answers: a state machine over commands
// and replies. It knows nothing of connections, deadlines, TLS and buffers, so that a few lines of text are enough to test
// it. A session plays it.
type dialogue interface {
	// next tells what to do now, and counts as done what it tells.
	next() move
	// hear takes the reply to the oldest command that has none.
	hear(reply dsn.Reply)
	// sent tells that the message went out, or a chunk of it; last, that this was all of it.
	sent(last bool)
}

// A move is what a dialogue does next.
type move struct {
	do    deed
	stage Stage
	line  string // what to say
	shown string // what the transcript shows of it; "" is all
}

type deed uint8

const (
	doEnd   deed = iota // the dialogue is over
	doSay               // say a line; what follows may go with it
	doHear              // wait for a reply
	doSend              // send the message and the dot that ends it
	doChunk             // send a chunk of the message with its BDAT
)

// play acts out a dialogue to its end. An error is the end of the connection, or of the message on our side.
func (s *session) play(d dialogue, t *Timeouts, body *sender) *Error {
	for {
		m := d.next()
		switch m.do {
		case doSay:
			if e := s.speak(m, t); e != nil {
				return e
			}
		case doHear:
			reply, e := s.listen(m.stage, t)
			if e != nil {
				return e
			}
			d.hear(reply)
		case doSend:
			if e := body.message(); e != nil {
				return e
			}
			d.sent(true)
		case doChunk:
			last, e := body.chunk()
			if e != nil {
				return e
			}
			d.sent(last)
		default:
			return nil
		}
	}
}

// speak puts a command into the buffer. What a host has said by itself before is no answer to it.
func (s *session) speak(m move, t *Timeouts) *Error {
	if s.unheard == 0 && s.r.Buffered() > 0 {
		return s.unasked(m.stage)
	}
	s.unheard++
	if s.w.Available() < len(m.line)+2 { // the buffer is about to be written
		if err := s.within(t.of(m.stage)); err != nil {
			return s.lost(m.stage, err)
		}
	}
	if m.shown == "" {
		s.say(m.line)
	} else {
		s.sayAs(m.line, m.shown)
	}
	return nil
}

// speaks reports whether the host has said something by itself, as far as is known without waiting.
func (s *session) speaks() bool { return s.r.Buffered() > 0 || (s.tls.Version == "" && !quiet(s.raw)) }

// unasked is the error of a host that says something by itself. It may be 421, that it closes (RFC 5321, section 3.8).
func (s *session) unasked(stage Stage) *Error {
	var reply dsn.Reply
	err := s.within(s.step)
	if err == nil {
		reply, err = s.read()
	}
	switch {
	case err != nil:
		return s.lost(stage, err)
	case reply.Code == 421:
		s.broken = true
		return hostErr(stage, reply)
	}
	return s.lost(stage, fmt.Errorf("%w: it answered what it was not asked", errProtocol))
}

// listen sends what was said and reads one reply. A host that hangs up may have said why before.
func (s *session) listen(stage Stage, t *Timeouts) (dsn.Reply, *Error) {
	begin := time.Now()
	if err := s.within(t.of(stage)); err != nil {
		return dsn.Reply{}, s.lost(stage, err)
	}
	flushErr := s.w.Flush()
	if flushErr != nil && isTimeout(flushErr) {
		return dsn.Reply{}, s.unsent(s.lost(stage, flushErr))
	}
	reply, err := s.read()
	*s.times.of(stage) += time.Since(begin)
	s.unheard = max(0, s.unheard-1)
	switch {
	case err == nil && stage == StageDot && s.together && s.unheard == 0 && s.r.Buffered() > 0:
		return reply, s.lost(stage, fmt.Errorf("%w: it gives more replies than it got commands", errProtocol))
	case err == nil:
		return reply, nil
	case flushErr != nil:
		return reply, s.unsent(s.lost(stage, flushErr))
	}
	return reply, s.lost(stage, err)
}

// unsent marks the error of a connection that was lost before all that was said had gone out.
func (s *session) unsent(e *Error) *Error {
	e.unsent = true
	return e
}
