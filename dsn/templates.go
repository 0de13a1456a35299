package dsn

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"text/template"
	"time"
	"unicode/utf8"
)

//go:embed templates/en.txt
var embedded embed.FS

// english are the words that are always there.
var english = func() *Templates {
	dir, err := fs.Sub(embedded, "templates")
	if err != nil {
		panic(err)
	}
	t, err := ParseTemplates(dir)
	if err != nil {
		panic(err)
	}
	return t
}()

// Templates are the words of the part for people in one or more languages, and of the subject. They are safe for
// concurrent use.
type Templates struct{ languages map[string]*template.Template }

// ParseTemplates reads the files of a directory whose names end in ".txt", one for each language: "de.txt", "pt-br.txt". What
// stands in them is written down at the top of templates/en.txt of this package, which is the one to begin with. Each
// file is tried on reports of every kind, so that a mistake is found here and not when a report is due.
func ParseTemplates(fsys fs.FS) (*Templates, error) {
	files, err := fs.Glob(fsys, "*.txt")
	if err != nil {
		return nil, fmt.Errorf("dsn: templates: %w", err)
	}
	if len(files) == 0 {
		return nil, errors.New("dsn: templates: there is no file whose name ends in .txt, as de.txt")
	}
	t := &Templates{languages: make(map[string]*template.Template, len(files))}
	for _, file := range files {
		text, err := fs.ReadFile(fsys, file)
		if err != nil {
			return nil, fmt.Errorf("dsn: templates: %w", err)
		}
		tmpl, err := template.New(file).Funcs(template.FuncMap{"utc": utc}).Option("missingkey=error").Parse(string(text))
		if err != nil {
			return nil, fmt.Errorf("dsn: templates: %w", err)
		}
		if err := tryTemplate(tmpl); err != nil {
			return nil, fmt.Errorf("dsn: templates: %s: %w", file, err)
		}
		t.languages[strings.ToLower(strings.TrimSuffix(path.Base(file), ".txt"))] = tmpl
	}
	return t, nil
}

// utc is a time as people read it.
func utc(t time.Time) string { return t.UTC().Format("Mon, 2 Jan 2006, 15:04 UTC") }

// tryTemplate tries a language on reports of every kind.
func tryTemplate(tmpl *template.Template) error {
	when := time.Date(2026, 11, 24, 21, 31, 0, 0, time.UTC)
	for _, action := range []Action{Failed, Delayed, Delivered, Relayed, Expanded} {
		for _, status := range []Status{"5.1.1", "4.4.7", "2.0.0"} {
			d := &draft{Report: &Report{To: "a@a.example", Arrival: when, Recipients: []Recipient{
				{Final: Address{Addr: "b@b.example"}, Action: action, Status: status},
				{
					Original: Address{Addr: "d@d.example"}, Final: Address{Addr: "c@c.example"}, Action: action, Status: status,
					RemoteMTA: "c.example", Diagnostic: Reply{Code: 550, Lines: []string{"No"}}, Detail: "it did not work",
					LastAttempt: when.Add(time.Hour), RetryUntil: when.Add(time.Hour), Smarthost: "smart.example", Advice: "Try again.",
				},
			}}, host: "host.example", original: []byte("x")}
			if _, _, err := execute(tmpl, newView(d)); err != nil {
				return err
			}
		}
	}
	return nil
}

// execute gives the subject and the text as the templates have them.
func execute(tmpl *template.Template, v *view) (subject, text string, err error) {
	var b strings.Builder
	if err := tmpl.ExecuteTemplate(&b, "subject", v); err != nil {
		return "", "", err
	}
	subject = b.String()
	b.Reset()
	if err := tmpl.ExecuteTemplate(&b, "text", v); err != nil {
		return "", "", err
	}
	return subject, b.String(), nil
}

// lookup finds the words of a language, those of the tag without its last subtags where there are none.
func (t *Templates) lookup(tag string) (language string, tmpl *template.Template) {
	for tag = strings.ToLower(tag); tag != "" && t != nil; tag = tag[:max(strings.LastIndexByte(tag, '-'), 0)] {
		if tmpl := t.languages[tag]; tmpl != nil {
			return tag, tmpl
		}
	}
	if t != nil && t.languages["en"] != nil {
		return "en", t.languages["en"]
	}
	return "en", english.languages["en"]
}

// words writes the subject and the part for people, with CRLF line ends.
func (b *Builder) words(d *draft) (language, subject, text string) {
	if b.Language != nil {
		language = b.Language(d.Report)
	}
	v := newView(d)
	language, tmpl := b.Templates.lookup(language)
	subject, text, err := execute(tmpl, v)
	if err != nil { // tried when they were read; a report in English is better than none
		language = "en"
		subject, text, _ = execute(english.languages["en"], v)
	}
	return language, strings.TrimSpace(neutral(subject)), layout(text)
}

// Columns of the text for people.
const (
	textWidth   = 72
	quoteWidth  = 78
	quoteIndent = "        " // of what does not fit in a line that stays as it is
)

// layout fills paragraphs, leaves alone lines that begin with a space but for those too long, and ends lines in CRLF.
func layout(text string) string {
	var b strings.Builder
	var paragraph []string
	empty := true // nothing or an empty line came before
	flush := func() {
		if len(paragraph) > 0 {
			wrap(&b, strings.Fields(strings.Join(paragraph, " ")), "", "", textWidth)
			paragraph, empty = nil, false
		}
	}
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimRight(line, " \t\r")
		kept := strings.HasPrefix(line, " ")
		if kept || line == "" {
			flush()
		}
		switch {
		case kept && utf8.RuneCountInString(line) <= quoteWidth:
			b.WriteString(line + "\r\n")
			empty = false
		case kept:
			indent := line[:len(line)-len(strings.TrimLeft(line, " "))]
			wrap(&b, strings.Split(line[len(indent):], " "), indent, quoteIndent, quoteWidth)
			empty = false
		case line != "":
			paragraph = append(paragraph, line)
		case !empty:
			b.WriteString("\r\n")
			empty = true
		}
	}
	flush()
	return strings.TrimRight(b.String(), "\r\n") + "\r\n"
}

// wrap writes words in lines of at most width characters, if none is longer.
func wrap(b *strings.Builder, words []string, first, next string, width int) {
	b.WriteString(first)
	col, start := utf8.RuneCountInString(first), true
	for _, word := range breakWords(words) {
		n := utf8.RuneCountInString(word)
		switch {
		case start:
		case col+1+n > width:
			b.WriteString("\r\n" + next)
			col = utf8.RuneCountInString(next)
		default:
			b.WriteByte(' ')
			col++
		}
		b.WriteString(word)
		col, start = col+n, false
	}
	b.WriteString("\r\n")
}

// breakWords breaks words that no line of mail could have.
func breakWords(words []string) []string {
	broken := make([]string, 0, len(words))
	for _, word := range words {
		for len(word) > maxLine {
			cut := maxLine
			for !utf8.RuneStart(word[cut]) {
				cut--
			}
			broken = append(broken, word[:cut])
			word = word[cut:]
		}
		broken = append(broken, word)
	}
	return broken
}
