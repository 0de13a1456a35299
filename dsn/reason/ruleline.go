package reason

import (
	"slices"
	"strconv"
	"strings"
)

// What stands for a rule without a confidence of its own: the words of a server are good evidence, a name less, and a
// code alone little.
const (
	confidenceWords = 0.9
	confidenceName  = 0.7
	confidenceCode  = 0.4
)

// classes reads classes that commas join; nil after a mistake.
func (p *parser) classes(it item) (list []Class) {
	col := it.col
	for name := range strings.SplitSeq(it.text, ",") {
		if !slices.Contains(allClasses, Class(name)) {
			names := make([]string, len(allClasses))
			for i, c := range allClasses {
				names[i] = string(c)
			}
			p.fail(col, name, "unknown class", suggest(name, names))
			return nil
		}
		if slices.Contains(list, Class(name)) {
			p.fail(col, name, "the class stands twice", "leave one out")
			return nil
		}
		list = append(list, Class(name))
		col += len(name) + 1
	}
	return list
}

func joinClasses(classes []Class) string {
	if len(classes) == 1 {
		return string(classes[0])
	}
	names := make([]string, len(classes))
	for i, c := range classes {
		names[i] = string(c)
	}
	return strings.Join(names, ",")
}

// rule reads a rule: its classes, its conditions, and what its verdict says.
func (p *parser) rule(items []item) {
	before := len(p.errs)
	rs := ruleSpec{where: p.name + ":" + strconv.Itoa(p.begun.number), classes: p.classes(items[0])}
	asked := map[string]bool{}
	for i := 1; i < len(items); i++ {
		not := items[i].text == "not"
		if not {
			if i++; i == len(items) {
				p.fail(items[i-1].col, "not", "there is no condition behind it", `write for instance: not "user unknown"`)
				return
			}
		}
		p.item(&rs, items[i], not, asked)
	}
	if len(rs.phrases)+len(rs.conditions) == 0 && len(p.errs) == before {
		p.fail(items[0].col, items[0].text, "the rule has no condition, and would class everything",
			`say what it is for, for instance: code=5xx "mailbox is full"`)
	}
	if len(p.errs) > before {
		return
	}
	p.unique(items)
	rs.confidence = orDefault(rs)
	p.file.rules = append(p.file.rules, rs)
}

// unique tells of a rule that can never decide because an earlier one asks for the same.
func (p *parser) unique(items []item) {
	var asked []string
	not := ""
	for _, it := range items[1:] {
		name, _, _ := strings.Cut(it.text, "=")
		switch {
		case it.text == "not":
			not = "not "
			continue
		case !slices.Contains(verdictOptions, name):
			asked = append(asked, not+it.text)
		}
		not = ""
	}
	slices.Sort(asked)
	key := strings.Join(asked, "\n")
	if twin, ok := p.seen[key]; ok {
		p.fail(items[0].col, items[0].text, "the rule asks for the same as line "+twin+", which decides before it",
			"remove one, or ask for more here and put it first")
		return
	}
	p.seen[key] = strconv.Itoa(p.begun.number)
}

func orDefault(rs ruleSpec) float64 {
	if rs.confidence > 0 {
		return rs.confidence
	}
	best := confidenceCode
	for _, ph := range rs.phrases {
		if !ph.not && !ph.name {
			return confidenceWords
		}
		if !ph.not {
			best = confidenceName
		}
	}
	return best
}

// verdictOptions are the items of a rule that ask for nothing.
var verdictOptions = []string{"confidence", "matter", "retry", "list"}

// ruleOptions are all names that may stand before a = in a rule.
var ruleOptions = append([]string{"name", "site", "host", "stage", "code", "status", "ip"}, verdictOptions...)

// item reads a condition or an option of a rule.
func (p *parser) item(rs *ruleSpec, it item, not bool, asked map[string]bool) {
	if it.text[0] == '"' {
		p.says(rs, it, it.text, not, false)
		return
	}
	name, value, ok := strings.Cut(it.text, "=")
	if !ok || !slices.Contains(ruleOptions, name) {
		fix := suggest(name, ruleOptions)
		if !ok {
			fix = "write a phrase in double quotes, or a condition such as code=5xx"
		}
		p.fail(it.col, it.text, "unknown condition", fix)
		return
	}
	if name == "name" {
		p.says(rs, it, value, not, true)
		return
	}
	if asked[name] && !not {
		p.fail(it.col, it.text, name+"= stands twice", "write both values in one, with | between them")
		return
	}
	asked[name] = asked[name] || !not
	if slices.Contains(verdictOptions, name) {
		if not {
			p.fail(it.col, it.text, "not stands before a condition", name+"= is none: leave not out")
			return
		}
		p.option(rs, name, value, it.col+len(name)+1)
		return
	}
	c := p.condition(name, strings.ToLower(unquote(value)), it.col+len(name)+1)
	if c == nil {
		return
	}
	if sites, isSite := c.(siteCondition); isSite && !not {
		rs.sites = sites
	}
	if not {
		c = notCondition{c}
	}
	rs.conditions = append(rs.conditions, c)
}

// says reads a phrase.
func (p *parser) says(rs *ruleSpec, it item, text string, not, inName bool) {
	if spec, ok := p.phrase(it, text, 0); ok {
		spec.not, spec.name = not, inName
		rs.phrases = append(rs.phrases, spec)
	}
}

// option reads what a rule says of its verdict.
func (p *parser) option(rs *ruleSpec, name, value string, col int) {
	switch name {
	case "confidence":
		v, err := strconv.ParseFloat(value, 64)
		if err != nil || !(v > 0 && v <= 1) {
			p.fail(col, value, "a confidence is a number above 0 and up to 1", "write for instance 0.7")
		}
		rs.confidence = v
	case "matter":
		rs.matter = oneOf(p, value, col, matters)
	case "retry":
		rs.retry = oneOf(p, value, col, retries)
	case "list":
		rs.list = unquote(value)
	}
}

// condition reads a condition that is no phrase; nil after a mistake.
func (p *parser) condition(name, value string, col int) condition {
	parts := strings.Split(value, "|")
	if slices.Contains(parts, "") {
		p.fail(col, value, name+"= has an empty value", "write what it must be, with | between several")
		return nil
	}
	switch name {
	case "site":
		return siteCondition(parts)
	case "host":
		return hostCondition(parts)
	case "stage":
		return p.stages(parts, col)
	case "code":
		return p.codes(parts, col)
	case "status":
		return p.statuses(parts, col)
	}
	if value != "yes" {
		p.fail(col, value, "ip= is about whether an IP address stands in the text", "write ip=yes, or not ip=yes")
		return nil
	}
	return ipCondition{}
}

func (p *parser) stages(parts []string, col int) condition {
	for _, s := range parts {
		if !slices.Contains(stages, s) {
			p.fail(col, s, "unknown stage", suggest(s, stages))
			return nil
		}
	}
	return stageCondition(parts)
}

func (p *parser) codes(parts []string, col int) condition {
	var c codeCondition
	for _, s := range parts {
		one, ok := parseCode(s)
		if !ok {
			p.fail(col, s, "a reply code has three digits, of which the last ones may be x", "write for instance 550 or 5xx")
			return nil
		}
		c = append(c, one)
	}
	return c
}

func (p *parser) statuses(parts []string, col int) condition {
	var c statusRanges
	for _, s := range parts {
		one, ok := parseStatusMask(s)
		if !ok {
			p.fail(col, s, "an enhanced status code has three numbers, of which each may be x or a range",
				"write for instance 5.1.1, x.7.x or 5.7.600-649")
			return nil
		}
		c = append(c, one)
	}
	return c
}
