package reason

import (
	"slices"
	"strconv"
	"strings"
)

// A reading is a refusal as the conditions of rules ask about it.
type reading struct {
	text
	numbers     []uint32 // of the words, while they are read
	said, named words    // the text, and the URLs and names in it
	stage       string
	host, site  string // in lower case
}

// A condition is one thing that a rule asks for.
type condition interface{ holds(r *reading) bool }

type (
	saysCondition  phrase       // it stands in the text
	namesCondition phrase       // it stands in a URL or a name of the text
	siteCondition  []string     // the provider is one of these
	hostCondition  []string     // the name of the host fits one of these
	stageCondition []string     // the session was at one of these
	codeCondition  []codeRange  // the reply code is in one of these
	statusRanges   []statusMask // the enhanced status code fits one of these
	ipCondition    struct{}     // an IP address stands in the text
	notCondition   struct{ condition }
)

// A phrase is one that a phraseBook has.
type phrase struct {
	number   uint32
	elements []element
}

func (c saysCondition) holds(r *reading) bool  { return r.said.has(c.number, c.elements) }
func (c namesCondition) holds(r *reading) bool { return r.named.has(c.number, c.elements) }
func (c stageCondition) holds(r *reading) bool { return slices.Contains(c, r.stage) }
func (c ipCondition) holds(r *reading) bool    { return r.hasIP }
func (c notCondition) holds(r *reading) bool   { return !c.condition.holds(r) }

func (c siteCondition) holds(r *reading) bool {
	for _, site := range c {
		if site == r.site || within(r.host, site) {
			return true
		}
	}
	return false
}

func (c hostCondition) holds(r *reading) bool {
	for _, pattern := range c {
		if rest, ok := strings.CutPrefix(pattern, "*."); pattern == r.host || (ok && rest != r.host && within(r.host, rest)) {
			return true
		}
	}
	return false
}

// within reports whether a host is a domain or below it.
func within(host, domain string) bool {
	rest, ok := strings.CutSuffix(host, domain)
	return ok && (rest == "" || rest[len(rest)-1] == '.')
}

func (c codeCondition) holds(r *reading) bool {
	for _, one := range c {
		if r.code >= one.from && r.code <= one.to {
			return true
		}
	}
	return false
}

func (c statusRanges) holds(r *reading) bool {
	if r.status.class == 0 {
		return false
	}
	for _, one := range c {
		if one.class.has(r.status.class) && one.subject.has(r.status.subject) && one.detail.has(r.status.detail) {
			return true
		}
	}
	return false
}

// codeRange is the reply codes that a pattern such as 55x means.
type codeRange struct{ from, to int }

// parseCode reads three digits, of which the last ones may be x.
func parseCode(s string) (codeRange, bool) {
	digits := strings.TrimRight(s, "x")
	if len(s) != 3 || len(digits) == 0 || digits[0] < '2' || digits[0] > '5' {
		return codeRange{}, false
	}
	from, err1 := strconv.Atoi((digits + "00")[:3])
	to, err2 := strconv.Atoi((digits + "99")[:3])
	return codeRange{from, to}, err1 == nil && err2 == nil && !strings.ContainsAny(digits, "+-")
}

// statusMask is the enhanced status codes that a pattern such as 5.7.x or x.7.600-649 means.
type statusMask struct{ class, subject, detail numberRange }

type numberRange struct{ from, to int }

func (n numberRange) has(v int) bool { return v >= n.from && v <= n.to }

// parseStatusMask reads a class, a subject and a detail: each a number, a range such as 600-649, or x for any.
func parseStatusMask(s string) (m statusMask, ok bool) {
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return m, false
	}
	for i, into := range []*numberRange{&m.class, &m.subject, &m.detail} {
		if parts[i] == "x" {
			*into = numberRange{0, 999}
			continue
		}
		low, high, isRange := strings.Cut(parts[i], "-")
		if !isRange {
			high = low
		}
		from, err1 := strconv.ParseUint(low, 10, 10)
		to, err2 := strconv.ParseUint(high, 10, 10)
		if err1 != nil || err2 != nil || from > to {
			return m, false
		}
		*into = numberRange{int(from), int(to)}
	}
	return m, strings.Contains("x245", parts[0])
}
