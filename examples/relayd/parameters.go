package main

// What go-smtp does not know of MAIL: the parameters BY (RFC 2852) and MT-PRIORITY (RFC 6710), which it takes for those of RCPT.

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/queue"
)

// extensions are what relayd offers beside what go-smtp says that it does.
const extensions = "250-DELIVERBY\r\n250-MT-PRIORITY\r\n"

// A parameter is one of MAIL that relayd reads itself.
type parameter struct {
	name, value string
}

// takeParameters takes the parameters that relayd reads itself out of a MAIL command. It gives the command without them.
func takeParameters(line []byte) (rest []byte, taken []parameter) {
	_, end, ok := pathAt(line)
	if !ok || bytes.IndexByte(line[:end], '\r') >= 0 {
		return line, nil // go-smtp refuses it
	}
	if end < len(line) && line[end] == '>' {
		end++
	}
	rest = bytes.Clone(line[:end])
	for word := range bytes.FieldsSeq(line[end:]) {
		name, value, _ := strings.Cut(string(word), "=")
		switch name = strings.ToUpper(name); name {
		case "BY", "MT-PRIORITY":
			taken = append(taken, parameter{name, value})
		default:
			rest = append(append(rest, ' '), word...)
		}
	}
	if taken == nil {
		return line, nil
	}
	return append(rest, "\r\n"...), taken
}

// readParameters puts what was taken out of a command into an envelope.
func readParameters(env *queue.Envelope, taken []parameter, now time.Time) *smtp.SMTPError {
	seen := map[string]bool{}
	for _, p := range taken {
		if seen[p.name] {
			return reply(501, "5.5.4", "%s is given twice", p.name)
		}
		seen[p.name] = true
		var err *smtp.SMTPError
		switch p.name {
		case "BY":
			env.DeliverBy, err = readBy(p.value, now)
		case "MT-PRIORITY":
			env.Priority, err = readPriority(p.value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// byForm is the value of RFC 2852, section 4.
var byForm = regexp.MustCompile(`^([-+]?[0-9]{1,9});([NnRr])([Tt]?)$`)

// readBy reads the value of BY. In mode N it may be negative: a relay before this one has told the sender that the time is over, and
// there is no limit any more.
func readBy(value string, now time.Time) (by deliver.DeliverBy, _ *smtp.SMTPError) {
	m := byForm.FindStringSubmatch(value)
	if m == nil {
		return by, reply(501, "5.5.4", "BY=%s: write seconds, a semicolon, and N or R, like BY=3600;R (RFC 2852)", shown(value))
	}
	seconds, err := strconv.Atoi(m[1])
	if err != nil {
		return by, reply(501, "5.5.4", "BY=%s: %s is no number of seconds", shown(value), m[1])
	}
	by.Notify, by.Trace = strings.EqualFold(m[2], "N"), m[3] != ""
	switch {
	case seconds <= 0 && !by.Notify:
		return by, reply(501, "5.5.4", "BY=%s: mode R needs a time that is not over yet", value)
	case seconds >= 0:
		by.Time = now.Add(time.Duration(seconds) * time.Second)
	}
	return by, nil
}

// priorityForm is the value of RFC 6710, section 4.
var priorityForm = regexp.MustCompile(`^(-?[1-9]|0)$`)

func readPriority(value string) (int, *smtp.SMTPError) {
	if !priorityForm.MatchString(value) {
		return 0, reply(501, "5.5.4", "MT-PRIORITY=%s: write -9 to 9 (RFC 6710)", shown(value))
	}
	n, _ := strconv.Atoi(value) // the form has no other numbers
	return n, nil
}
