package lab

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A parameter is one that MAIL or RCPT may have.
type parameter struct {
	extension string                  // which must be offered
	fits      func(value string) bool // what its value may be
}

// The parameters: RFC 1870, 6152, 6531, 3461, 4954, 8689, 6710, 2852.
var (
	mailParams = map[string]parameter{
		"SIZE":        {"SIZE", isSize},
		"BODY":        {"8BITMIME", oneOf("7BIT", "8BITMIME")}, // and BINARYMIME: see refuseParam
		"SMTPUTF8":    {"SMTPUTF8", oneOf("")},
		"RET":         {"DSN", oneOf("FULL", "HDRS")},
		"ENVID":       {"DSN", func(v string) bool { return isXText(v) && len(v) <= 100 }},
		"AUTH":        {"AUTH", func(v string) bool { return v == "<>" || isXText(v) }},
		"REQUIRETLS":  {"REQUIRETLS", oneOf("")},
		"MT-PRIORITY": {"MT-PRIORITY", func(v string) bool { _, err := parsePriority(v); return err == nil }},
		"BY":          {"DELIVERBY", func(v string) bool { _, err := parseDeliverBy(v); return err == nil }},
	}
	rcptParams = map[string]parameter{
		"NOTIFY": {"DSN", isNotify},
		"ORCPT":  {"DSN", isOriginal},
	}
)

// refuseParams says which parameter makes MAIL or RCPT refused and why, or "".
func (c capabilities) refuseParams(params map[string]string, known map[string]parameter) string {
	for name, value := range params {
		if refusal := c.refuseParam(name, value, known[name]); refusal != "" {
			return refusal
		}
	}
	return ""
}

func (c capabilities) refuseParam(name, value string, p parameter) string {
	if name == "BODY" && strings.EqualFold(value, "BINARYMIME") && p.fits != nil {
		// RFC 3030, section 3: without CHUNKING there is no way to send it
		if c.has("BINARYMIME") && c.has("CHUNKING") {
			return ""
		}
		p.extension = ""
	}
	switch {
	case p.extension == "" || !c.has(p.extension):
		return "555 5.5.4 Parameter " + name + " belongs to nothing that is offered"
	case !p.fits(value):
		return "501 5.5.4 Parameter " + name + " has no such value"
	}
	return ""
}

func oneOf(values ...string) func(string) bool {
	return func(v string) bool { return slices.Contains(values, strings.ToUpper(v)) }
}

// isSize is RFC 1870, section 3: up to twenty digits.
func isSize(v string) bool {
	return v != "" && len(v) <= 20 && strings.Trim(v, "0123456789") == ""
}

// isXText is RFC 3461, section 4: printable ASCII but + and =, which are written as +XX.
func isXText(v string) bool {
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case c == '+':
			if i+2 >= len(v) || strings.Trim(v[i+1:i+3], "0123456789ABCDEF") != "" {
				return false
			}
			i += 2
		case c < '!' || c > '~' || c == '=':
			return false
		}
	}
	return v != ""
}

// isNotify is RFC 3461, section 4.1: NEVER stands alone.
func isNotify(v string) bool {
	if strings.EqualFold(v, "NEVER") {
		return true
	}
	seen := make(map[string]bool)
	for f := range strings.SplitSeq(strings.ToUpper(v), ",") {
		if seen[f] || !slices.Contains([]string{"SUCCESS", "FAILURE", "DELAY"}, f) {
			return false
		}
		seen[f] = true
	}
	return true
}

// isOriginal is RFC 3461, section 4.2, and for the type utf-8 RFC 6533, section 3.
func isOriginal(v string) bool {
	kind, address, _ := strings.Cut(v, ";")
	if strings.EqualFold(kind, "utf-8") {
		return address != "" && strings.IndexFunc(address, func(r rune) bool { return r <= ' ' || r == 0x7f }) < 0
	}
	return kind != "" && isXText(kind) && isXText(address)
}

// parsePriority reads MT-PRIORITY (RFC 6710, section 4.1).
func parsePriority(v string) (int, error) {
	digit := strings.TrimPrefix(v, "-")
	if len(digit) != 1 || digit[0] < '0' || digit[0] > '9' {
		return 0, errors.New("a priority is a number from -9 to 9")
	}
	return strconv.Atoi(v)
}

// parseDeliverBy reads BY (RFC 2852, section 4): up to nine digits, ";", the mode, and T for trace. A message that is to
// be returned must have time left.
func parseDeliverBy(v string) (DeliverBy, error) {
	count, mode, _ := strings.Cut(v, ";")
	seconds, err := strconv.Atoi(count)
	if err != nil || len(strings.TrimLeft(count, "+-")) > 9 || mode == "" {
		return DeliverBy{}, errors.New("expected seconds;mode")
	}
	mode = strings.ToUpper(mode)
	by := DeliverBy{Within: time.Duration(seconds) * time.Second, Mode: mode[0], Trace: mode[1:] == "T"}
	switch {
	case (by.Mode != 'R' && by.Mode != 'N') || (mode[1:] != "" && !by.Trace):
		return DeliverBy{}, errors.New("the mode is R or N, with or without T")
	case by.Mode == 'R' && seconds <= 0:
		return DeliverBy{}, errors.New("it is late already")
	}
	return by, nil
}

// tooSoon reports whether a message is to be returned before the server would have tried: min-by-time (RFC 2852, section 3).
func (c capabilities) tooSoon(by DeliverBy) bool {
	least, err := strconv.Atoi(c["DELIVERBY"])
	return err == nil && by.Mode == 'R' && by.Within < time.Duration(least)*time.Second
}

// readParams notes what the parameters of MAIL ask for.
func (m *Message) readParams() {
	_, m.RequireTLS = m.Params["REQUIRETLS"]
	m.Priority, _ = parsePriority(m.Params["MT-PRIORITY"])
	m.DeliverBy, _ = parseDeliverBy(m.Params["BY"])
}

// parsePath reads "FROM:<path> PARAM=VALUE …" (RFC 5321, section 4.1.2). The path is given without angle brackets,
// byte for byte.
func parsePath(arg, keyword string) (string, map[string]string, error) {
	if len(arg) < len(keyword) || !strings.EqualFold(arg[:len(keyword)], keyword) {
		return "", nil, fmt.Errorf("expected %s<path>", keyword)
	}
	rest := arg[len(keyword):]
	end := pathEnd(rest)
	if end < 0 || (end+1 < len(rest) && rest[end+1] != ' ') {
		return "", nil, fmt.Errorf("no path in angle brackets after %s", keyword)
	}
	params := make(map[string]string)
	for _, p := range strings.Fields(rest[end+1:]) {
		name, value, _ := strings.Cut(p, "=")
		name = strings.ToUpper(name)
		if _, twice := params[name]; twice {
			return "", nil, fmt.Errorf("parameter %s stands there twice", name)
		}
		params[name] = value
	}
	return rest[1:end], params, nil
}

// pathEnd finds the closing bracket of a path, past quoted strings; -1 where there is none.
func pathEnd(path string) int {
	if !strings.HasPrefix(path, "<") {
		return -1
	}
	quoted := false
	for i := 1; i < len(path); i++ {
		switch c := path[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == '>' && !quoted:
			return i
		}
	}
	return -1
}

func ascii(text string) bool {
	for i := range len(text) {
		if text[i] >= 0x80 {
			return false
		}
	}
	return true
}
