package lab

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

var (
	errTooBig  = errors.New("message too big")
	errRefused = errors.New("a chunk was refused")
)

const tooBigReply = "552 5.3.4 Message too big"

func (s *session) cmdDATA(line, _ string) error {
	switch {
	case s.tx == nil:
		return s.unknown("503 5.5.1 Say MAIL first")
	case s.tx.msg.BDAT:
		return s.unknown("503 5.5.1 DATA after BDAT")
	case strings.EqualFold(s.tx.msg.Params["BODY"], "BINARYMIME"):
		return s.unknown("503 5.5.1 BINARYMIME needs BDAT") // RFC 3030, section 3
	}
	usual := "354 End data with <CR><LF>.<CR><LF>"
	if len(s.tx.msg.To) == 0 {
		usual = "554 5.5.1 No valid recipients"
	}
	ok, err := s.answer(s.step(AtData, line), usual)
	if !ok || err != nil {
		return err
	}
	if _, err := s.silent(AtBody); err != nil {
		return err
	}
	s.tx.msg.Body, s.tx.failed, err = s.readBody(s.sizeLimit())
	if err != nil {
		return err
	}
	s.srv.record(s.id, "C:", fmt.Sprintf("<%d octets> and a dot", len(s.tx.msg.Body)))
	return s.finish(".")
}

// silent plays a stage that has no reply.
func (s *session) silent(at Stage) (Answer, error) {
	a := s.srv.now().decide(s.step(at, ""))
	if !a.Hang && !a.Drop && !a.Reset {
		return a, s.pause(a.Delay)
	}
	if _, err := io.CopyN(io.Discard, s.r, a.After); err != nil {
		return a, err
	}
	_, err := s.perform(a, at, "")
	return a, err
}

func (s *session) sizeLimit() int64 {
	if limit := s.caps.limit(); limit > 0 {
		return limit
	}
	return messageLimit
}

// readBody reads to the dot and undoes dot-stuffing (RFC 5321, section 4.5.2). Only CRLF ends a line: a dot between
// bare LFs is part of the message. What is over the limit is read and lost, and failed says so.
func (s *session) readBody(limit int64) (body []byte, failed, err error) {
	start, last := true, byte(0) // at the start of a line; the octet before
	for {
		part, err := s.r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, nil, err
		}
		if start && string(part) == ".\r\n" {
			return body, failed, nil
		}
		stuffed := start && part[0] == '.'
		start, last = endsLine(last, part), part[len(part)-1]
		if stuffed {
			part = part[1:]
		}
		if int64(len(body)+len(part)) > limit {
			failed = errTooBig
		}
		if failed == nil {
			body = append(body, part...)
		}
	}
}

// endsLine reports whether what was read so far ends in CRLF, which may be split between two parts.
func endsLine(last byte, part []byte) bool {
	return bytes.HasSuffix(part, []byte("\r\n")) || (last == '\r' && part[0] == '\n')
}

// cmdBDAT takes a chunk (RFC 3030, section 2). The chunk is read whatever the answer is.
func (s *session) cmdBDAT(line, arg string) error {
	if !s.caps.has("CHUNKING") {
		return s.unknown("502 5.5.1 BDAT is not offered") // and what follows is read as commands
	}
	size, last, err := parseBDAT(arg)
	if err != nil {
		_ = s.say("501 5.5.4 " + err.Error())
		return errOver // where the next command begins cannot be known
	}
	if s.tx != nil {
		s.tx.msg.BDAT = true
		s.tx.msg.Chunks++
		if _, err := s.silent(AtBody); err != nil {
			return err
		}
	}
	if err := s.readChunk(size); err != nil {
		return err
	}
	switch {
	case s.ahead():
		return s.unknown(notOffered)
	case s.tx == nil:
		return s.unknown("503 5.5.1 Say MAIL first")
	case len(s.tx.msg.To) == 0:
		return s.unknown("554 5.5.1 No valid recipients")
	case last:
		return s.finish(line)
	case s.tx.failed != nil:
		return s.say(s.tx.reply())
	}
	st := s.step(AtChunk, line)
	st.Size = int64(len(s.tx.msg.Body))
	ok, err := s.answer(st, fmt.Sprintf("250 2.0.0 %d octets received", size))
	if !ok {
		s.tx.failed = errRefused
	}
	return err
}

func parseBDAT(arg string) (size int64, last bool, err error) {
	f := strings.Fields(arg)
	if len(f) == 2 && strings.EqualFold(f[1], "LAST") {
		last, f = true, f[:1]
	}
	if len(f) != 1 {
		return 0, false, errors.New("expected BDAT size [LAST]")
	}
	size, err = strconv.ParseInt(f[0], 10, 64)
	if err != nil || size < 0 {
		return 0, false, errors.New("the size of a chunk is a number")
	}
	return size, last, nil
}

func (s *session) readChunk(size int64) error {
	tx := s.tx
	if tx != nil && tx.failed == nil && size > s.sizeLimit()-int64(len(tx.msg.Body)) {
		tx.failed = errTooBig
	}
	var err error
	if tx == nil || tx.failed != nil || len(tx.msg.To) == 0 {
		_, err = io.CopyN(io.Discard, s.r, size)
	} else {
		at := len(tx.msg.Body)
		tx.msg.Body = append(tx.msg.Body, make([]byte, size)...)
		_, err = io.ReadFull(s.r, tx.msg.Body[at:])
	}
	s.srv.record(s.id, "C:", fmt.Sprintf("<%d octets>", size))
	return err
}

// finish answers the end of a message.
func (s *session) finish(line string) error {
	tx := s.tx
	tx.msg.Received = time.Now()
	st := s.step(AtDot, line)
	st.Size = int64(len(tx.msg.Body))
	s.tx = nil
	if s.offer.LMTP {
		return s.finishLMTP(tx, st)
	}
	usual := tx.reply()
	a := tx.honest(s.srv.now().decide(st))
	if a.takes(usual) {
		s.srv.deliver(tx.msg)
	}
	_, err := s.perform(a, AtDot, usual)
	return err
}

// honest is an answer that takes no message of which the server has only a part.
func (tx *transaction) honest(a Answer) Answer {
	if tx.failed != nil && a.takes(tx.reply()) {
		return Answer{Delay: a.Delay}
	}
	return a
}

func (tx *transaction) reply() string {
	switch {
	case tx.failed == nil:
		return "250 2.0.0 Ok: taken"
	case errors.Is(tx.failed, errTooBig):
		return tooBigReply
	}
	return "503 5.5.1 An earlier chunk was refused"
}

// finishLMTP answers once for each recipient (RFC 2033, section 4.2); the message arrives for those that were told so.
func (s *session) finishLMTP(tx *transaction, st Step) error {
	usual := tx.reply()
	answers := make([]Answer, len(tx.msg.To))
	msg := tx.msg
	msg.To = nil
	for i, to := range tx.msg.To {
		st.To = []string{to.Address}
		if answers[i] = tx.honest(s.srv.now().decide(st)); answers[i].takes(usual) {
			msg.To = append(msg.To, to)
		}
	}
	if len(msg.To) > 0 {
		s.srv.deliver(msg)
	}
	for _, a := range answers {
		if _, err := s.perform(a, AtDot, usual); err != nil {
			return err
		}
	}
	return nil
}
