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
	maxReplyLine  = 4096     // octets
	maxReplyLines = 100      // of one reply
	maxReply      = 16 << 10 // octets of one reply
)

// errProtocol is what is wrong with an answer that is no SMTP reply.
var errProtocol = errors.New("the host does not speak SMTP")

// readReply reads one reply (RFC 5321, section 4.2). A bare LF ends a line too. Each line is given to show, and becomes
// part of the reply as show returns it.
func readReply(r *bufio.Reader, show func(line string) string) (reply dsn.Reply, err error) {
	for total := 0; ; {
		line, err := readReplyLine(r)
		if err != nil {
			return dsn.Reply{}, err
		}
		code, last, ok := parseReplyLine(line)
		text := show(line)
		switch {
		case !ok:
			return dsn.Reply{}, fmt.Errorf("%w: it answered %q", errProtocol, text[:min(len(text), 80)])
		case reply.Code != 0 && code != reply.Code:
			return dsn.Reply{}, fmt.Errorf("%w: one reply has the codes %d and %d", errProtocol, reply.Code, code)
		}
		reply.Code = code
		reply.Lines = append(reply.Lines, text[min(4, len(text)):])
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

// parseReplyLine reads the code, and whether the line is the last of its reply. ok is false where it is no reply at all.
func parseReplyLine(line string) (code int, last, ok bool) {
	if len(line) < 3 {
		return 0, false, false
	}
	for i := range 3 {
		if line[i] < '0' || line[i] > '9' {
			return 0, false, false
		}
		code = code*10 + int(line[i]-'0')
	}
	last = len(line) == 3 || line[3] == ' '
	return code, last, code >= 200 && code <= 599 && (last || line[3] == '-')
}
