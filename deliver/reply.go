package deliver

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/sortie-mail/sortie/dsn"
)

// Bounds on what a far end may answer. RFC 5321, section 4.5.3.1.5, allows lines of 512 octets; real ones are longer at
// times, and beyond these it is an attack or a breakdown.
const (
	maxReplyLine  = 4096
	maxReplyLines = 128
	maxReply      = 64 << 10
)

// errProtocol is what is wrong with an answer that is no SMTP reply.
var errProtocol = errors.New("the host does not speak SMTP")

// readReply reads one reply (RFC 5321, section 4.2). A bare LF ends a line too. said is called with each line.
func readReply(r *bufio.Reader, said func(line string)) (reply dsn.Reply, err error) {
	total := 0
	for {
		line, err := readReplyLine(r)
		if err != nil {
			return dsn.Reply{}, err
		}
		said(line)
		code, last, err := parseReplyLine(line)
		switch {
		case err != nil:
			return dsn.Reply{}, err
		case reply.Code != 0 && code != reply.Code:
			return dsn.Reply{}, fmt.Errorf("%w: one reply has the codes %d and %d", errProtocol, reply.Code, code)
		}
		reply.Code = code
		reply.Lines = append(reply.Lines, line[min(4, len(line)):])
		if last {
			return reply, nil
		}
		if total += len(line); total > maxReply || len(reply.Lines) >= maxReplyLines {
			return dsn.Reply{}, fmt.Errorf("%w: its reply has no end", errProtocol)
		}
	}
}

func readReplyLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	switch {
	case err == bufio.ErrBufferFull:
		return "", fmt.Errorf("%w: a line of its reply is longer than %d octets", errProtocol, maxReplyLine)
	case err == io.EOF && len(line) > 0:
		return "", io.ErrUnexpectedEOF
	case err != nil:
		return "", err
	}
	line = line[:len(line)-1]
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return string(line), nil
}

func parseReplyLine(line string) (code int, last bool, err error) {
	for i := range 3 {
		if i >= len(line) || line[i] < '0' || line[i] > '9' {
			return 0, false, fmt.Errorf("%w: it answered %q", errProtocol, clip(line))
		}
		code = code*10 + int(line[i]-'0')
	}
	if code < 200 || code > 599 || (len(line) > 3 && line[3] != ' ' && line[3] != '-') {
		return 0, false, fmt.Errorf("%w: it answered %q", errProtocol, clip(line))
	}
	return code, len(line) == 3 || line[3] == ' ', nil
}

func clip(s string) string { return s[:min(len(s), 80)] }
