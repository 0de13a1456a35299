package reason

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// maxLine is how long a line of a rules file may be, in octets.
const maxLine = 16 << 10

// parser reads a file line by line.
type parser struct {
	name   string
	file   *file
	words  *vocabulary
	base   bool // the embedded rules are read, which make the vocabulary
	number int  // of the line
	begun  lines
	block  block
	seen   map[string]string // where rules stand, by their conditions
	errs   Errors
}

// lines are a line that begins in the first column and the indented ones that go on with it, joined by line feeds.
type lines struct {
	text   string
	number int   // of the first
	starts []int // where each of the others begins in text
	indent []int // octets that were taken off the front of each of the others
}

// at is the line and column of an octet, which is counted from 1.
func (l *lines) at(col int) (line, column int) {
	line, column = l.number, col
	for i, start := range l.starts {
		if col > start {
			line, column = l.number+1+i, col-start+l.indent[i]
		}
	}
	return line, column
}

// A block takes the indented lines that follow its first line.
type block interface {
	field(p *parser, name, value string, col int)
	fields() []string
}

// parseFile reads a rules file. base is the embedded rules, whose vocabulary and named groups hold for all; nil while they
// are read themselves.
func parseFile(name, text string, base *file) (*file, error) {
	p := &parser{name: name, file: &file{about: map[string]*about{}}, base: base == nil, seen: map[string]string{}}
	if p.base {
		p.file.lets = map[string]string{}
		p.file.words = &vocabulary{same: map[string]string{}, skip: map[string]bool{}}
	} else {
		p.file.lets = maps.Clone(base.lets)
		p.file.words = base.words
	}
	p.words = p.file.words
	for line := range strings.Lines(text) {
		p.number++
		p.line(strings.TrimRight(line, " \t\r\n"))
	}
	p.finish()
	if len(p.errs) > 0 {
		return nil, p.errs
	}
	return p.file, nil
}

// fail notes a mistake at a column of what is being read.
func (p *parser) fail(col int, text, problem, fix string) {
	line := p.number
	if p.begun.text != "" {
		line, col = p.begun.at(col)
	}
	if len(text) > maxErrorText {
		text = strings.ToValidUTF8(text[:maxErrorText], "") + "…"
	}
	if len(p.errs) < maxErrors {
		p.errs = append(p.errs, &Error{p.name, line, col, text, problem, fix})
	}
}

func (p *parser) line(line string) {
	trimmed := strings.TrimLeft(line, " \t")
	indent := len(line) - len(trimmed)
	switch {
	case len(line) > maxLine || len(p.begun.text) > maxLine:
		p.finish()
		p.fail(1, "", fmt.Sprintf("the line is longer than %d octets", maxLine), "a rules file has one rule a line")
	case indent == 0 && line != "" && line[0] != '#':
		p.finish()
		p.block = nil
		p.begun = lines{text: line, number: p.number}
		if word, _, _ := strings.Cut(line, " "); slices.Contains(blockWords, word) {
			p.block = ignored{} // unless its first line is right
			p.finish()
		}
	case p.block != nil && trimmed != "" && trimmed[0] != '#':
		p.field(trimmed, indent+1)
	case p.begun.text != "":
		p.begun.starts = append(p.begun.starts, len(p.begun.text)+1)
		p.begun.indent = append(p.begun.indent, indent)
		p.begun.text += "\n" + trimmed
	case trimmed != "" && trimmed[0] != '#':
		p.fail(indent+1, trimmed, "an indented line goes on with the line before it, and there is none", "begin it in the first column")
	}
}

// ignored is a block whose first line has a mistake.
type ignored struct{}

func (ignored) field(*parser, string, string, int) {}
func (ignored) fields() []string                   { return nil }

// blockWords begin a block.
var blockWords = []string{"class", "list", "provider"}

// field reads an indented line of a block.
func (p *parser) field(line string, col int) {
	name, value, _ := strings.Cut(line, " ")
	value = strings.TrimSpace(value)
	switch {
	case p.block.fields() == nil:
	case !slices.Contains(p.block.fields(), name):
		p.fail(col, name, "unknown field", suggest(name, p.block.fields()))
	case value == "":
		p.fail(col, name, "the field has no value", "write it behind the name")
	default:
		p.block.field(p, name, value, col+strings.Index(line, value))
	}
}

// finish reads the lines that have begun.
func (p *parser) finish() {
	if p.begun.text == "" {
		return
	}
	p.start(p.begun.text)
	p.begun = lines{}
}

// start reads a line that begins in the first column, with those that go on with it.
func (p *parser) start(line string) {
	items, open := split(line)
	if open > 0 {
		text, _, _ := strings.Cut(line[open-1:], "\n")
		p.fail(open, text, "the double quote is not closed", "put a \" at the end of the phrase")
		return
	}
	switch items[0].text {
	case "let":
		p.let(line)
	case "same", "skip":
		p.vocabulary(items)
	case "class":
		p.class(items)
	case "list":
		p.list(items)
	case "provider":
		p.provider(items)
	default:
		p.rule(items)
	}
}

// let reads a name for alternatives: let NAME a|b|c.
func (p *parser) let(line string) {
	name, value, _ := strings.Cut(strings.TrimSpace(line[len("let"):]), " ")
	value = strings.TrimSpace(value)
	if name == "" || value == "" || strings.ContainsFunc(name, func(r rune) bool { return r < 'a' || r > 'z' }) {
		p.fail(1, line, "a let has a name in small letters, and alternatives", "write for instance: let mailbox mailbox|inbox|mail box")
		return
	}
	r := phraseReader{lets: p.file.lets, words: p.words, rest: value, room: maxPhrase}
	r.group(1)
	if r.problem == "" && r.rest != "" {
		r.problem = "a ) stands outside a group"
	}
	if r.problem != "" {
		p.fail(strings.Index(line, value)+1, value, r.problem, "write for instance: let mailbox mailbox|inbox|mail box")
		return
	}
	p.file.lets[name] = value
}

// vocabulary reads words that mean the same, or nothing.
func (p *parser) vocabulary(items []item) {
	if !p.base || len(items) < 2 {
		p.fail(1, items[0].text, "the embedded rules alone say which words mean the same or nothing",
			"write alternatives in the phrase: (a|b)")
		return
	}
	for i, it := range items[1:] {
		word := it.text
		_, isSame := p.words.same[word]
		switch {
		case !isPlainWord(word):
			p.fail(it.col, word, "it is no word as replies are read: small letters and digits alone", "leave it out")
		case isSame || p.words.skip[word]:
			p.fail(it.col, word, "the word stands in two lines", "leave one out")
		case items[0].text == "skip":
			p.words.skip[word] = true
		case i > 0:
			p.words.same[word] = items[1].text
		}
	}
}

func isPlainWord(s string) bool {
	var t text
	t.reset(-1)
	t.read([]string{s})
	return len(t.words) == 1 && string(t.word(t.words[0])) == s
}

// class begins what is said about a class.
func (p *parser) class(items []item) {
	if len(items) != 2 {
		p.fail(1, items[0].text, "a class block begins with the class and nothing else", "write for instance: class mailbox-full")
		return
	}
	if classes := p.classes(items[1]); classes != nil {
		key := joinClasses(classes)
		a := p.file.about[key]
		if a == nil {
			a = &about{}
			p.file.about[key] = a
		}
		p.block = a
	}
}

// list begins a blocklist.
func (p *parser) list(items []item) {
	if len(items) != 2 || unquote(items[1].text) == "" {
		p.fail(1, items[0].text, "a list block begins with the name of the blocklist and nothing else",
			`write for instance: list "Trend Micro"`)
		return
	}
	p.file.lists = append(p.file.lists, listSpec{name: unquote(items[1].text)})
	p.block = &p.file.lists[len(p.file.lists)-1]
}

// provider begins the pages of a provider.
func (p *parser) provider(items []item) {
	if len(items) == 3 {
		if sites, ok := strings.CutPrefix(items[2].text, "site="); ok && sites != "" {
			spec := providerSpec{name: unquote(items[1].text), sites: strings.Split(strings.ToLower(sites), "|")}
			p.file.providers = append(p.file.providers, spec)
			p.block = &p.file.providers[len(p.file.providers)-1]
			return
		}
	}
	p.fail(1, items[0].text, "a provider block begins with its name and its sites",
		"write for instance: provider Google site=google.com|gmail.com")
}

func (a *about) fields() []string        { return []string{"matter", "retry", "sender", "admin", "link"} }
func (l *listSpec) fields() []string     { return []string{"words", "link"} }
func (s *providerSpec) fields() []string { return []string{"link"} }

func (a *about) field(p *parser, name, value string, col int) {
	switch name {
	case "matter":
		a.matter = oneOf(p, value, col, matters)
	case "retry":
		a.retry = oneOf(p, value, col, retries)
	case "sender":
		a.sender = strings.TrimSpace(a.sender + " " + value)
	case "admin":
		a.admin = strings.TrimSpace(a.admin + " " + value)
	case "link":
		a.links = p.link(a.links, value, col)
	}
}

func (l *listSpec) field(p *parser, name, value string, col int) {
	if name == "link" {
		l.links = p.link(l.links, value, col)
		return
	}
	items, open := split(value)
	if open > 0 {
		p.fail(col+open-1, value[open-1:], "the double quote is not closed", "put a \" at the end of the phrase")
		return
	}
	for _, it := range items {
		if spec, ok := p.phrase(it, it.text, col-1); ok {
			l.words = append(l.words, spec)
		}
	}
}

func (s *providerSpec) field(p *parser, _, value string, col int) {
	s.links = p.link(s.links, value, col)
}

// link reads "URL title".
func (p *parser) link(links []Link, value string, col int) []Link {
	address, title, _ := strings.Cut(value, " ")
	u, err := url.Parse(address)
	title = strings.TrimSpace(title)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || title == "" {
		p.fail(col, value, "a link is the address of a page and a title",
			"write for instance: link https://www.example.org/ How to be removed from the list")
		return links
	}
	return append(links, Link{Title: title, URL: address})
}

// oneOf reads a word of a fixed set, perhaps in quotes.
func oneOf[T ~string](p *parser, value string, col int, all []T) T {
	word := T(unquote(value))
	if slices.Contains(all, word) {
		return word
	}
	names := make([]string, len(all))
	for i, v := range all {
		names[i] = string(v)
	}
	p.fail(col, value, "unknown value", suggest(string(word), names))
	return ""
}
