package lab

import (
	"net/netip"
	"strings"
	"sync"
	"time"
)

// AcceptAll takes every message from and to anybody: what a server does without any behaviour. In front of others
// ([Server.Behave]) it overrides them, except their Offer.
var AcceptAll Behaviour = On(Anywhere, func(Step) Answer { return Answer{Accept: true} })

// Refuse gives a reply at a stage, "554 5.7.1 We do not like you"; a reply of several lines has them separated by
// \n. With patterns ("*@aol.test", * stands for anything, case does not count) it does so only for those recipients; at AtDot of a session that
// is not LMTP, where one of them is among the recipients. After a 421 the server closes the connection.
func Refuse(at Stage, reply string, recipients ...string) Behaviour {
	return On(at, func(s Step) Answer {
		if !concerns(s, recipients) {
			return Answer{}
		}
		return Answer{Reply: reply}
	})
}

func concerns(s Step, patterns []string) bool {
	if len(patterns) == 0 {
		return true
	}
	for _, to := range s.To {
		for _, p := range patterns {
			if glob(strings.ToLower(p), strings.ToLower(to)) {
				return true
			}
		}
	}
	return false
}

// Hang falls silent at a stage: the server stays connected and says nothing more. At AtConnect the connection never
// comes about; at AtBody the server does not read either.
func Hang(at Stage) Behaviour {
	return On(at, func(Step) Answer { return Answer{Hang: true} })
}

// Drop closes the connection at a stage, without a reply. At AtConnect the connection is refused; at AtDot the
// message does not count as arrived (see [DropAfterTaking]).
func Drop(at Stage) Behaviour {
	return On(at, func(Step) Answer { return Answer{Drop: true} })
}

// DropAfterTaking takes the message and closes the connection instead of saying so (RFC 1047).
func DropAfterTaking() Behaviour {
	return On(AtDot, func(Step) Answer { return Answer{Drop: true, Keep: true} })
}

// Times lets a behaviour act n times on the server, and never again. An [Offer] and a [Script] are not limited by it.
func Times(n int, b Behaviour) Behaviour {
	r, ok := b.(rule)
	if !ok {
		return b
	}
	var mu sync.Mutex // guards n
	return rule(func(s Step) Answer {
		mu.Lock()
		defer mu.Unlock()
		if n <= 0 {
			return Answer{}
		}
		a := r(s)
		if a != (Answer{}) {
			n--
		}
		return a
	})
}

// Tempfail answers "451 4.3.0" the first n times that a stage is reached.
func Tempfail(at Stage, n int) Behaviour {
	return Times(n, Refuse(at, "451 4.3.0 Try again later"))
}

// greylistReply is what most greylisting servers say.
const greylistReply = "450 4.7.1 Greylisted, try again later"

// Greylist refuses the first try of each sender, recipient and client address, and accepts tries after wait.
func Greylist(wait time.Duration) Behaviour {
	type triplet struct {
		sender, recipient string
		client            netip.Addr
	}
	var mu sync.Mutex // guards first
	first := make(map[triplet]time.Time)
	return On(AtRcpt, func(s Step) Answer {
		key := triplet{s.Sender, strings.Join(s.To, ","), s.Client.Addr()}
		mu.Lock()
		defer mu.Unlock()
		if _, seen := first[key]; !seen {
			first[key] = time.Now()
		}
		if time.Since(first[key]) < wait || wait == 0 {
			return Answer{Reply: greylistReply}
		}
		return Answer{}
	})
}

// Delay waits before every answer at a stage, or at every stage with [Anywhere].
func Delay(at Stage, d time.Duration) Behaviour {
	return On(at, func(Step) Answer { return Answer{Delay: d} })
}

// Raw sends octets as they are instead of the reply at a stage. The server goes on as if it had accepted where they
// begin with a 2 (at AtData with a 3).
func Raw(at Stage, octets string) Behaviour {
	return On(at, func(Step) Answer { return Answer{Raw: octets} })
}

// junk is no SMTP reply in any reading: control octets, octets over 127, and no line that begins with a digit.
const junk = "\x00\x01\x02\x16\x03\xff\xfe\r\n\x80\x81\x82\r\n"

// Junk sends binary junk instead of the reply at a stage.
func Junk(at Stage) Behaviour { return Raw(at, junk) }

// EndlessReply sends a reply at a stage that has no last line, for as long as the client reads.
func EndlessReply(at Stage) Behaviour {
	line := "250-" + strings.Repeat("and another thing ", 4) + "\r\n"
	return On(at, func(Step) Answer { return Answer{Raw: strings.Repeat(line, 50), Endless: true} })
}

// EndlessLine sends a reply at a stage whose first line never ends.
func EndlessLine(at Stage) Behaviour {
	return On(at, func(Step) Answer { return Answer{Raw: strings.Repeat("250 and so on ", 300), Endless: true} })
}

// AlwaysOK says "250 OK" to everything, also to DATA, to QUIT, to the lines of a body and to the connection itself;
// nothing ever arrives.
func AlwaysOK() Behaviour {
	return On(Anywhere, func(s Step) Answer {
		if s.Stage == AtConnect || s.Stage == AtBody {
			return Answer{Accept: true}
		}
		return Answer{Raw: "250 OK\r\n"}
	})
}
