package route

import (
	"fmt"
	"strconv"
	"strings"
)

// maxHops is how many hops an entry may have.
const maxHops = 10

// hops reads the hops of an entry, and returns the number of their list. Equal ones are kept once.
func (p *parser) hops(line string, words []word) (list uint32, fold bool) {
	last := words[len(words)-1]
	key := line[words[0].col-1 : last.col-1+len(last.text)] // without a comment
	if n, ok := p.lists[key]; ok {
		return n >> 1, n&1 != 0
	}
	before := p.mistakes()
	var hops []Hop
	for start := 0; start <= len(words); {
		end := start
		for end < len(words) && words[end].text != "," {
			end++
		}
		if end == start {
			col := words[min(start, len(words)-1)].col
			p.fail(col, ",", "there is no hop beside the comma", "remove the comma, or write a hop")
		} else {
			hop, f := p.hop(words[start:end], len(hops))
			fold = fold || f
			p.checkPlace(words[start], hop, hops)
			hops = append(hops, hop)
		}
		start = end + 1
	}
	if len(hops) > maxHops {
		p.fail(words[0].col, words[0].text, fmt.Sprintf("there are %d hops, and %d are allowed", len(hops), maxHops), "leave some out")
	}
	if p.mistakes() > before {
		return 0, fold
	}
	n := uint32(len(p.table.lists))
	p.table.lists = append(p.table.lists, hops)
	p.lists[strings.Clone(key)] = n<<1 | b2u(fold)
	return n, fold
}

func b2u(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// checkPlace tells what is wrong about where a hop stands.
func (p *parser) checkPlace(w word, hop Hop, before []Hop) {
	switch {
	case len(before) == 0 && hop.On != Always:
		p.fail(w.col, w.text, "the first hop is always tried, and has no condition", "leave \"on "+hop.On.String()+"\" out, or put a hop before it")
	case len(before) > 0 && hop.On == Always && w.text != "on": // of a condition that could not be read all is told
		p.fail(w.col, w.text, "a hop after the first needs a condition", "write \"on blocked\", \"on unreachable\", \"on tempfail\" or \"on any\" before it")
	case len(before) > 0 && before[len(before)-1].Kind >= Reject:
		p.fail(w.col, w.text, "nothing comes after "+before[len(before)-1].Kind.String(), "remove this hop, or the one before it")
	}
}

// hop reads one hop.
func (p *parser) hop(words []word, place int) (h Hop, fold bool) {
	words = p.condition(&h, words)
	if len(words) == 0 {
		return h, false
	}
	before := p.mistakes()
	rest := p.action(&h, words)
	given := make(map[string]bool, len(rest))
	for _, w := range rest {
		name, value, ok := strings.Cut(w.text, "=")
		switch {
		case !ok && (w.text == "on" || p.isAction(w.text)):
			p.fail(w.col, w.text, "hops are separated by commas", "put a comma before "+strconv.Quote(w.text))
			return h, fold
		case !ok:
			p.fail(w.col, w.text, "an option is NAME=VALUE", optionList)
		case given[name] && name != "source":
			p.fail(w.col, w.text, "the option is given twice", "leave one out")
		case name == "case":
			fold = p.caseOption(w, value, place)
		default:
			p.option(&h, w, name, unquote(value))
		}
		given[name] = true
	}
	if p.mistakes() == before {
		p.checkHop(&h, words[0])
	}
	return h, fold
}

func (p *parser) condition(h *Hop, words []word) []word {
	if words[0].text != "on" {
		return words
	}
	if len(words) < 3 {
		p.fail(words[0].col, "on", "a condition and a hop come after it", "for instance: on blocked smtp://mail.isp.example")
		return nil
	}
	for c, name := range conditionNames[1:] {
		if words[1].text == name {
			h.On = Condition(c + 1)
			return words[2:]
		}
	}
	fix := "write on blocked, on unreachable, on tempfail or on any"
	if near := p.nearest(words[1].text, conditionNames[1:]); near != "" {
		fix = "did you mean \"on " + near + "\"?"
	}
	p.fail(words[1].col, words[1].text, "no such condition", fix)
	return nil
}

// schemeNames are what a smarthost may begin with; relay is Postfix's.
var schemeNames = append([]string{"relay"}, protocolNames[:]...)

var actionNames = []string{"direct", "reject", "hold", "discard", "smtp", "submission", "smtps", "lmtp"}

func (p *parser) isAction(text string) bool {
	return text == "direct" || text == "reject" || text == "hold" || text == "discard" || strings.Contains(text, "://")
}

// action reads what a hop does, and returns the words after it.
func (p *parser) action(h *Hop, words []word) []word {
	w := words[0]
	switch w.text {
	case "direct":
		return words[1:]
	case "hold":
		h.Kind = Hold
		return words[1:]
	case "discard":
		h.Kind = Discard
		return words[1:]
	case "reject":
		return p.reject(h, words)
	}
	scheme, rest, ok := strings.Cut(unquote(w.text), "://")
	if !ok {
		p.unknownAction(w)
		return nil
	}
	h.Kind = Smarthost
	for proto, name := range protocolNames {
		if strings.EqualFold(scheme, name) {
			h.Protocol = Protocol(proto)
			p.smarthost(h, w, rest)
			return words[1:]
		}
	}
	fix := "write smtp, submission, smtps or lmtp"
	if near := p.nearest(scheme, protocolNames[:]); near != "" {
		fix = "did you mean " + near + "://" + rest + "?"
	}
	p.fail(w.col, w.text, "unknown scheme "+strconv.Quote(scheme), fix)
	return nil
}

// unknownAction tells how to write what was meant, also by one who comes from Postfix.
func (p *parser) unknownAction(w word) {
	fix := "write direct, hold, discard, reject \"550 5.1.2 text\", or a smarthost as smtp://HOST"
	near, host := "", ""
	if end := strings.IndexAny(w.text, ":/"); end > 0 { // smtp:host, smtp//host, and host:port
		near = p.nearest(w.text[:end], schemeNames)
		host = strings.TrimLeft(strings.NewReplacer("[", "", "]", "").Replace(w.text[end:]), ":/")
	}
	switch {
	case host != "" && strings.Trim(host, "0123456789") == "":
		fix = "write smtp://" + w.text
	case near != "":
		if near == "relay" {
			near = "smtp"
		}
		fix = "write " + near + "://" + host
		if host == "" {
			fix = "write direct"
		}
	case p.nearest(w.text, actionNames) != "":
		fix = "did you mean " + p.nearest(w.text, actionNames) + "?"
	case strings.Contains(w.text, ".") && !strings.Contains(w.text, "/"):
		fix = "write smtp://" + strings.Trim(w.text, "[]")
	}
	p.fail(w.col, w.text, "unknown hop", fix)
}

// reject reads the reply of a reject hop: RFC 5321, section 4.2, with a 5yz code.
func (p *parser) reject(h *Hop, words []word) []word {
	h.Kind = Reject
	const example = "for instance: reject \"550 5.1.2 This domain has moved\""
	if len(words) < 2 || !strings.HasPrefix(words[1].text, `"`) {
		p.fail(words[0].col, "reject", "a reply in double quotes comes after it", example)
		return nil
	}
	h.Reply = unquote(words[1].text)
	code, _, _ := strings.Cut(h.Reply, " ")
	if n, err := strconv.Atoi(code); err != nil || len(code) != 3 || n < 500 || n > 599 {
		p.fail(words[1].col, words[1].text, "the reply does not begin with a code from 500 to 599", example)
	}
	if strings.ContainsFunc(h.Reply, func(r rune) bool { return r < ' ' || r == 0x7f }) || len(h.Reply) > 500 {
		p.fail(words[1].col, words[1].text, "the reply has control characters or more than 500 octets", example)
	}
	return words[2:]
}
