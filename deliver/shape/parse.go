package shape

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strconv"
	"strings"
)

// What a rules file may hold.
const (
	maxFile   = 4 << 20 // octets
	maxLine   = 64 << 10
	maxNumber = 1_000_000
	maxErrors = 100 // that are told: a file of another kind has one in each line
)

// An Error is one mistake in a rules file.
type Error struct {
	File    string
	Line    int    // 1-based
	Text    string // the offending text, or its beginning
	Problem string // what is wrong, and what to write instead
}

func (e *Error) Error() string {
	if e.Text == "" {
		return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Problem)
	}
	return fmt.Sprintf("%s:%d: %q: %s", e.File, e.Line, e.Text, e.Problem)
}

// ReadFile reads a host's own rules from a file, as [Parse] does.
func ReadFile(name string) (*Rules, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("shape: %w", err)
	}
	defer f.Close()
	return Parse(name, f)
}

// Parse reads a host's own rules, in the format that the embedded file sites.txt describes at its top. What they say of a site
// wins over what the embedded rules say of it, field by field, and their patterns over the embedded ones. name is what errors
// call the file; all mistakes are told at once, joined as by errors.Join, each an [*Error].
func Parse(name string, r io.Reader) (*Rules, error) { return parse(name, r, embeddedRules()) }

// parse reads rules over others.
func parse(name string, r io.Reader, base *Rules) (*Rules, error) {
	p := &parser{file: name, seen: map[string]int{}, patterns: map[string]int{}, rules: &Rules{
		limits: orEmpty(maps.Clone(base.limits)), exact: orEmpty(maps.Clone(base.exact)), below: orEmpty(maps.Clone(base.below)),
	}}
	lines := bufio.NewScanner(io.LimitReader(r, maxFile+1))
	lines.Buffer(nil, maxLine)
	read := 0
	for number := 1; lines.Scan(); number++ {
		if read += len(lines.Bytes()) + 1; read > maxFile {
			return nil, fmt.Errorf("shape: %s is longer than %d octets", name, maxFile)
		}
		p.number = number
		p.line(lines.Text())
		if len(p.errs) >= maxErrors {
			break
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("shape: %s: after line %d: %w", name, p.number, err)
	}
	if err := errors.Join(p.errs...); err != nil {
		return nil, fmt.Errorf("shape: %w", err)
	}
	return p.rules, nil
}

func orEmpty[V any](m map[string]V) map[string]V {
	if m == nil {
		return map[string]V{}
	}
	return m
}

// A parser reads one file.
type parser struct {
	file     string
	number   int // of the line
	rules    *Rules
	seen     map[string]int // the line in which a site stands
	patterns map[string]int // and a pattern
	errs     []error
}

func (p *parser) fail(text, format string, args ...any) {
	if len(text) > longestName {
		text = text[:longestName]
	}
	p.errs = append(p.errs, &Error{File: p.file, Line: p.number, Text: text, Problem: fmt.Sprintf(format, args...)})
}

func (p *parser) line(text string) {
	text, _, _ = strings.Cut(text, "#")
	fields := strings.Fields(text)
	if len(fields) == 0 {
		return
	}
	name := fields[0]
	if !isName(name) {
		p.fail(name, "this is no name of a site: write letters in lower case, digits, - and . first, and then patterns and limits")
		return
	}
	if before := p.seen[name]; before > 0 {
		p.fail(name, "this site has a rule in line %d already: write all of it in one line", before)
		return
	}
	p.seen[name] = p.number
	var said Limits
	for _, f := range fields[1:] {
		if key, value, ok := strings.Cut(f, "="); ok {
			p.limit(&said, f, key, value)
		} else {
			p.pattern(name, strings.ToLower(f))
		}
	}
	p.rules.limits[name] = p.rules.limits[name].over(said)
}

func isName(s string) bool {
	return len(s) <= longestName && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-.") == "" &&
		!strings.HasPrefix(s, "-") && !strings.HasPrefix(s, ".")
}

// pattern adds hosts to a site.
func (p *parser) pattern(site, pattern string) {
	domain, isBelow := strings.CutPrefix(pattern, "*.")
	switch {
	case site == defaultName || site == smarthostName:
		p.fail(pattern, "%s is every site without a rule and has no patterns: write limits, like connections=10", site)
		return
	case !isHost(domain):
		p.fail(pattern, "this is neither a limit, like connections=10, nor hosts: write mx.example.com, or *.example.com")
		return
	case p.patterns[pattern] > 0:
		p.fail(pattern, "this pattern stands in line %d already", p.patterns[pattern])
		return
	}
	p.patterns[pattern] = p.number
	if isBelow {
		p.rules.below[domain] = site
	} else {
		p.rules.exact[pattern] = site
	}
}

func isHost(s string) bool {
	return s != "" && len(s) < 256 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-_.") == "" &&
		!strings.HasPrefix(s, ".") && !strings.HasSuffix(s, ".") && !strings.Contains(s, "..")
}

// limit reads one key=value.
func (p *parser) limit(l *Limits, field, key, value string) {
	into := map[string]*int{"connections": &l.Connections, "messages": &l.Messages, "recipients": &l.Recipients}[key]
	switch {
	case key == "rate":
		for one := range strings.SplitSeq(value, ",") {
			p.rate(l, field, one)
		}
		return
	case into == nil:
		p.fail(field, "there is no such limit: write connections=, messages=, recipients= or rate=")
		return
	case value == "none":
		*into = -1
		return
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > maxNumber {
		p.fail(field, "write a number from 1 to %d, or none", maxNumber)
		return
	}
	*into = n
}

// rate reads "100/s", "1000/min" or "10000/h".
func (p *parser) rate(l *Limits, field, one string) {
	if one == "none" {
		l.PerSecond, l.PerMinute, l.PerHour = -1, -1, -1
		return
	}
	number, unit, _ := strings.Cut(one, "/")
	into := map[string]*Rate{"s": &l.PerSecond, "min": &l.PerMinute, "h": &l.PerHour}[unit]
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || n > maxNumber || into == nil {
		p.fail(field, "write a number of messages and a time, like rate=10/s or rate=100/min,1000/h, or rate=none")
		return
	}
	*into = Rate(n)
}
