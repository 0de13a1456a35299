package relaycheck

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// width is how wide texts are for a terminal, in characters. What others said and what is to be copied is not broken.
const width = 78

// timeForm is how texts write times, which are in UTC.
const timeForm = "2 Jan 2006, 15:04 UTC"

func when(t time.Time) string { return t.UTC().Format(timeForm) }

// String is the summary as WriteText writes it.
func (s Summary) String() string {
	p := &page{}
	s.page(p)
	return p.String()
}

// WriteText writes the summary for a terminal, in plain words and without colours. The same summary gives the same text.
func (s Summary) WriteText(w io.Writer) error {
	_, err := io.WriteString(w, s.String())
	return err
}

func (s Summary) page(p *page) {
	p.para("", fmt.Sprintf("The mail of %s: %s", s.Host, s.verdict()))
	p.para("", "as of "+when(s.At))
	if !s.Since.IsZero() {
		p.para("", "with the deliveries seen since "+when(s.Since))
	}
	for i := range s.Findings {
		p.gap()
		s.Findings[i].page(p)
	}
	p.gap()
	p.para("", "WHAT TO DO FIRST")
	switch {
	case len(s.First) > 0:
	case s.worst() >= Warning: // of a summary that was made by hand
		p.para("  ", "Read what is said above, the worst first.")
	default:
		p.para("  ", "Nothing needs doing.")
		if !s.Since.IsZero() {
			p.para("  ", "What became of mail before "+when(s.Since)+" is not known here.")
		}
	}
	p.steps("  ", s.First)
}

// worst is the worst of the severities.
func (s Summary) worst() Severity {
	worst := s.Severity
	for i := range s.Findings {
		worst = max(worst, s.Findings[i].Severity)
	}
	return worst
}

// verdict is the summary in half a sentence.
func (s Summary) verdict() string {
	var counts [Critical + 1]int
	for i := range s.Findings {
		counts[min(s.Findings[i].Severity, Critical)]++
	}
	var parts []string
	for _, c := range []struct {
		severity  Severity
		one, many string
	}{
		{Critical, "critical problem", "critical problems"},
		{Serious, "serious problem", "serious problems"},
		{Warning, "warning", "warnings"},
	} {
		switch n := counts[c.severity]; {
		case n == 1:
			parts = append(parts, "1 "+c.one)
		case n > 1:
			parts = append(parts, fmt.Sprintf("%d %s", n, c.many))
		}
	}
	switch {
	case len(s.Findings) == 0:
		return "nothing is known yet"
	case len(parts) == 0:
		return "no problem is known"
	}
	return strings.Join(parts, ", ")
}

func (f *Finding) page(p *page) {
	p.hang(strings.ToUpper(f.Severity.String())+"  ", f.Title)
	if seen := f.seen(); seen != "" {
		p.para("  ", seen)
	}
	for text := range strings.SplitSeq(f.Text, "\n\n") {
		p.gap()
		p.para("  ", text)
	}
	if f.Quote != nil {
		p.gap()
		p.para("  ", f.Quote.By+" said, in its own words:")
		p.gap()
		p.lines("      ", strings.Split(f.Quote.Words, "\n"))
	}
	f.possibilities(p)
	if len(f.Evidence) > 0 {
		p.gap()
		for _, e := range f.Evidence {
			p.hang("  - ", e.Label+": "+e.Text)
		}
	}
	if len(f.Remedy) > 0 {
		p.gap()
		p.para("  ", "What to do:")
		p.steps("  ", f.Remedy)
	}
	if len(f.Links) > 0 {
		p.gap()
		for _, l := range f.Links {
			p.lines("  ", []string{l.Title + ": " + l.URL})
		}
	}
	p.lines("  ", []string{"id: " + f.ID})
}

// seen is since when and how often.
func (f *Finding) seen() string {
	if f.First.IsZero() {
		return ""
	}
	times := "once"
	if f.Count != 1 {
		times = fmt.Sprintf("%d times", f.Count)
	}
	switch {
	case !f.Ended.IsZero():
		return fmt.Sprintf("From %s until %s: %s.", when(f.First), when(f.Ended), times)
	case f.Count == 1:
		return fmt.Sprintf("On %s, once.", when(f.First))
	}
	return fmt.Sprintf("Since %s: %s, the last time on %s.", when(f.First), times, when(f.Last))
}

func (f *Finding) possibilities(p *page) {
	if len(f.Possibilities) == 0 {
		return
	}
	p.gap()
	p.para("  ", "What may be behind it, in the order in which to check:")
	for i, one := range f.Possibilities {
		number := fmt.Sprintf("  %d. ", i+1)
		p.hang(number, one.Title+": "+one.Text)
		for _, known := range one.Known {
			p.hang(strings.Repeat(" ", len(number)-2)+"> ", known)
		}
	}
}

// A page is text in the making. All that is put on it loses its control characters there.
type page struct{ strings.Builder }

// gap is an empty line.
func (p *page) gap() { p.WriteByte('\n') }

// lines writes lines as they are.
func (p *page) lines(indent string, lines []string) {
	for _, line := range lines {
		p.WriteString(strings.TrimRight(indent+clean(line, len(line)), " ") + "\n")
	}
}

// para writes a paragraph, broken into lines.
func (p *page) para(indent, text string) { p.wrap(indent, indent, text) }

// hang writes a paragraph behind a mark.
func (p *page) hang(mark, text string) { p.wrap(mark, strings.Repeat(" ", len(mark)), text) }

func (p *page) wrap(first, rest, text string) {
	line, empty := first, true
	for word := range strings.FieldsSeq(clean(text, len(text))) {
		if !empty && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			p.WriteString(line + "\n")
			line, empty = rest, true
		}
		if !empty {
			line += " "
		}
		line, empty = line+word, false
	}
	p.WriteString(strings.TrimRight(line, " ") + "\n")
}

// steps writes what to do. What others do says who they are: Who is the subject of the sentence.
func (p *page) steps(indent string, steps []Step) {
	for i, step := range steps {
		text := step.Do
		if step.Who != you && step.Who != "" {
			first, n := utf8.DecodeRuneInString(step.Who)
			text = string(unicode.ToUpper(first)) + step.Who[n:] + " " + text
		}
		p.hang(fmt.Sprintf("%s%d. ", indent, i+1), text)
		if len(step.Lines) > 0 {
			p.gap()
			p.lines(indent+"       ", step.Lines)
			if i < len(steps)-1 {
				p.gap()
			}
		}
	}
}
