package lab

import (
	"fmt"
	"strings"
)

// Reset ends the connection with a reset (RST) at a stage, without a reply: what was on its way is lost. At AtConnect the
// connection is refused.
func Reset(at Stage) Behaviour {
	return On(at, func(s Step) Answer { return Answer{Reset: s.Stage != AtConnect, Drop: s.Stage == AtConnect} })
}

// CloseAfter gives the standard answer at a stage and closes the connection.
func CloseAfter(at Stage) Behaviour {
	return On(at, func(Step) Answer { return Answer{Close: true} })
}

// StopReading reads so many octets of a message and no more; the connection stays, and its buffers fill.
func StopReading(after int64) Behaviour {
	return On(AtBody, func(Step) Answer { return Answer{Hang: true, After: after} })
}

// DropInBody reads so many octets of a message and closes the connection.
func DropInBody(after int64) Behaviour {
	return On(AtBody, func(Step) Answer { return Answer{Drop: true, After: after} })
}

// ResetInBody reads so many octets of a message and resets the connection.
func ResetInBody(after int64) Behaviour {
	return On(AtBody, func(Step) Answer { return Answer{Reset: true, After: after} })
}

// Inject sends octets in the clear right behind the answer to STARTTLS, as somebody on the way would who wants them to
// count as said within TLS (RFC 3207, section 6). The handshake follows.
func Inject(octets string) Behaviour { return Raw(AtTLS, "220 2.0.0 Go ahead\r\n"+octets) }

// MixedCodes sends one reply at a stage whose lines have different codes, against RFC 5321, section 4.2.1.
func MixedCodes(at Stage, codes ...int) Behaviour {
	var b strings.Builder
	for i, code := range codes {
		sep := '-'
		if i == len(codes)-1 {
			sep = ' '
		}
		fmt.Fprintf(&b, "%d%cWhatever\r\n", code, sep)
	}
	return Raw(at, b.String())
}

// NULs sends a reply at a stage with a NUL behind each of its octets but those of the code, and some in front of the
// line end.
func NULs(at Stage, reply string) Behaviour {
	n := min(4, len(reply))
	var b strings.Builder
	b.WriteString(reply[:n])
	for i := n; i < len(reply); i++ {
		b.WriteString(reply[i:i+1] + "\x00")
	}
	return Raw(at, b.String()+"\x00\x00\r\n")
}

// Escapes sends a reply at a stage that is full of what terminals obey, and of characters that turn the direction of text:
// a window title, colours, a line that deletes itself, a carriage return and a backspace.
func Escapes(at Stage, reply string) Behaviour {
	return Raw(at, reply+" \x1b]0;title\x07\x1b[31mred\x1b[0m\x1b[2K\x1b[1A\rover\b\u009b7m\u202ereversed\r\n")
}

// Mute does what is asked for at a stage and says nothing of it: from there on answers are one too few.
func Mute(at Stage) Behaviour {
	return On(at, func(Step) Answer { return Answer{Mute: true} })
}

// Twice gives the standard answer at a stage two times: from there on answers are one too many.
func Twice(at Stage) Behaviour {
	return On(at, func(Step) Answer { return Answer{Twice: true} })
}

// SizeLimit refuses messages of more octets after the dot, whatever SIZE the [Offer] says.
func SizeLimit(octets int64) Behaviour {
	return On(AtDot, func(s Step) Answer {
		if s.Size <= octets {
			return Answer{}
		}
		return Answer{Reply: tooBigReply}
	})
}
