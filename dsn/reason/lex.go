package reason

import (
	"fmt"
	"strings"
)

// An item is a piece of a line, with quotes as they stand.
type item struct {
	text string
	col  int // 1-based
}

// split cuts lines at blanks outside double quotes. A # at the start of an item begins a comment, up to the end of its line.
// open is the column of a quote that is not closed, 0 if all are.
func split(line string) (items []item, open int) {
	for i := 0; i < len(line); {
		switch line[i] {
		case ' ', '\t', '\n':
			i++
			continue
		case '#':
			if end := strings.IndexByte(line[i:], '\n'); end >= 0 {
				i += end
				continue
			}
			return items, 0
		}
		start, quote := i, -1
		for ; i < len(line) && (quote >= 0 || (line[i] != ' ' && line[i] != '\t' && line[i] != '\n')); i++ {
			switch {
			case line[i] != '"':
			case quote >= 0:
				quote = -1
			default:
				quote = i
			}
		}
		if quote >= 0 {
			return items, quote + 1
		}
		items = append(items, item{line[start:i], start + 1})
	}
	return items, 0
}

// unquote takes double quotes away.
func unquote(s string) string { return strings.ReplaceAll(s, `"`, "") }

// Limits of a phrase: they keep a mistake from filling the memory.
const (
	maxPhrase = 1000 // words, those of its groups together
	maxNested = 6    // groups in groups
)

// phrase reads a phrase in quotes; shift is how much further right in its line it stands than it.col says.
func (p *parser) phrase(it item, text string, shift int) (spec phraseSpec, ok bool) {
	inner, opened := strings.CutPrefix(text, `"`)
	inner, closed := strings.CutSuffix(inner, `"`)
	col := it.col + shift
	if !opened || !closed || strings.Contains(inner, `"`) {
		p.fail(col, it.text, "a phrase stands in double quotes", `write for instance "mailbox is full"`)
		return spec, false
	}
	r := phraseReader{lets: p.file.lets, words: p.words, rest: inner, room: maxPhrase}
	spec.text, spec.sequence = inner, r.sequence(0)
	if r.problem == "" && r.rest != "" {
		r.problem = "a " + r.rest[:1] + " stands outside a group"
	}
	if r.problem == "" {
		r.problem = shape(spec.sequence)
	}
	if r.problem != "" {
		fix := `write words, ~ for up to %d words between, * for up to %d, and (a|b) for alternatives: "(ip|host) * is listed"`
		p.fail(col, it.text, r.problem, fmt.Sprintf(fix, narrowGap, wideGap))
	}
	return spec, r.problem == ""
}

// A phraseReader reads a phrase from left to right, up to its first problem.
type phraseReader struct {
	lets    map[string]string
	words   *vocabulary
	rest    string
	room    int // words that may still come
	problem string
}

// sequence reads elements up to the end, or up to what ends an alternative.
func (r *phraseReader) sequence(depth int) (list []element) {
	for r.rest != "" && r.problem == "" {
		switch r.rest[0] {
		case '*':
			list = append(list, element{gap: wideGap})
			r.rest = r.rest[1:]
		case '~':
			list = append(list, element{gap: narrowGap})
			r.rest = r.rest[1:]
		case '(':
			r.rest = r.rest[1:]
			list = append(list, r.group(depth+1))
			if r.problem == "" && r.rest == "" {
				r.problem = "a ( is not closed"
			}
			r.rest = strings.TrimPrefix(r.rest, ")")
		case '$':
			list = append(list, r.named(depth+1))
		case '|', ')':
			return list
		default:
			list = append(list, r.literal()...)
		}
	}
	return list
}

// group reads alternatives up to the parenthesis that ends them, or to the end.
func (r *phraseReader) group(depth int) element {
	if depth > maxNested {
		r.problem = "groups are nested too deep"
		return element{}
	}
	e := element{group: [][]element{r.alternative(depth)}}
	for r.problem == "" && strings.HasPrefix(r.rest, "|") {
		r.rest = r.rest[1:]
		e.group = append(e.group, r.alternative(depth))
	}
	return e
}

// alternative reads one of a group. One of words that are left out would be an empty one unawares.
func (r *phraseReader) alternative(depth int) []element {
	before := r.rest
	list := r.sequence(depth)
	text := strings.TrimSpace(before[:len(before)-len(r.rest)])
	if len(list) == 0 && text != "" && r.problem == "" {
		r.problem = fmt.Sprintf("the alternative %q has no word that is read (small words are left out)", text)
	}
	return list
}

// named reads a group by its name.
func (r *phraseReader) named(depth int) element {
	end := 1
	for end < len(r.rest) && r.rest[end] >= 'a' && r.rest[end] <= 'z' {
		end++
	}
	name := r.rest[1:end]
	value, ok := r.lets[name]
	if !ok {
		r.problem = "no let before it gives $" + name + " a meaning"
		return element{}
	}
	inner := phraseReader{lets: r.lets, words: r.words, rest: value, room: r.room}
	e := inner.group(depth)
	r.room, r.problem = inner.room, inner.problem
	r.rest = r.rest[end:]
	return e
}

// literal reads words as those of a reply are read.
func (r *phraseReader) literal() (list []element) {
	end := strings.IndexAny(r.rest, "*~($)|")
	if end < 0 {
		end = len(r.rest)
	}
	literal := r.rest[:end]
	r.rest = r.rest[end:]
	var t text
	t.reset(-1)
	t.read([]string{literal})
	if t.hasIP || t.status.class != 0 || len(t.links) > 0 || strings.Contains(literal, "@") {
		r.problem = "URLs, addresses and status codes are no words of a text (name= and status= ask for them)"
	}
	for _, w := range t.words {
		if word := r.words.canonical(string(t.word(w))); word != "" {
			list = append(list, element{word: word})
		}
	}
	if r.room -= len(t.words); r.room < 0 || len(literal) > maxText || len(t.words) == maxWords {
		r.problem = fmt.Sprintf("the phrase has more than %d words in its groups", maxPhrase)
	}
	return list
}

// shape is what is wrong with a phrase as a whole: a gap stands between words, and a word must be in it.
func shape(list []element) string {
	state := after{begin: true}
	switch state = state.sequence(list); {
	case state.doubled:
		return "two gaps stand side by side, or with nothing between them that must be there"
	case state.led, state.gap, state.inner:
		return "a gap stands between words, and not at the beginning of an alternative"
	case state.begin:
		return "a phrase has at least one word that must be there (small words such as a, it and is are left out)"
	}
	return ""
}

// after is what may have come before a place in a phrase.
type after struct {
	begin   bool // nothing
	gap     bool // a gap, and no word since
	led     bool // somewhere a gap that nothing stood before
	doubled bool // somewhere a gap behind a gap
	inner   bool // somewhere a gap that begins an alternative: a place in a phrase has one gap at most
}

func (a after) sequence(list []element) after {
	for _, e := range list {
		switch {
		case e.gap > 0:
			a.led, a.doubled = a.led || a.begin, a.doubled || a.gap
			a.gap, a.begin = true, false
		case e.group == nil:
			a.gap, a.begin = false, false
		default:
			a = a.either(e.group)
		}
	}
	return a
}

func (a after) either(group [][]element) (all after) {
	for _, alternative := range group {
		one := a.sequence(alternative)
		one.inner = one.inner || (len(alternative) > 0 && alternative[0].gap > 0)
		all.begin, all.gap, all.led = all.begin || one.begin, all.gap || one.gap, all.led || one.led
		all.doubled, all.inner = all.doubled || one.doubled, all.inner || one.inner
	}
	return all
}
