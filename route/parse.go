package route

import (
	"bufio"
	"fmt"
	"hash/maphash"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds on routing files. Ten million entries are well within them.
const (
	maxLine = 16 << 10 // in octets
	maxFile = 1 << 30
)

// ReadFile reads a routing file. All its mistakes are in the error, an [Errors].
func ReadFile(name string) (*Table, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("route: %w", err)
	}
	defer f.Close()
	return Parse(name, f)
}

// Parse reads a routing file from r; name stands in errors and routes. All its mistakes are in the error, an [Errors].
func Parse(name string, r io.Reader) (*Table, error) {
	p := newParser(name)
	if err := p.read(r); err != nil {
		return nil, fmt.Errorf("route: %s: %w", name, err)
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	p.table.records = strings.Clone(p.records.String()) // without the room that was left for more
	return p.table, nil
}

// ParseRoute reads the hops of one entry, what stands behind the pattern in a line of a routing file:
// "direct, on blocked smtp://mail.isp.example". The hops are the caller's own, and may be changed until the route is used, and the
// Route is a [Router]. All mistakes are in the error, an [Errors] of no file.
func ParseRoute(text string) (Route, error) {
	p := newParser("")
	p.number, p.inHops = 1, true
	hops := p.route(text)
	if err := p.err(); err != nil {
		return Route{}, err
	}
	return Route{Hops: hops}, nil
}

func (p *parser) route(text string) []Hop {
	if len(text) > maxLine {
		p.fail(1, text[:100], fmt.Sprintf("the route is longer than %d octets", maxLine), "write one with fewer or shorter hops")
		return nil
	}
	if i := strings.IndexAny(text, "\r\n"); i >= 0 {
		p.fail(i+1, text[i:i+1], "a line break", "write the hops in one line, with commas between them")
		return nil
	}
	text, ok := p.clean([]byte(text))
	if !ok {
		return nil
	}
	list, open := words(text, nil)
	switch {
	case open > 0:
		p.notClosed(text, open)
		return nil
	case len(list) == 0:
		p.fail(1, "", "there is no hop", "write where mail goes, for instance: smtp://mail.isp.example")
		return nil
	}
	n, fold := p.hops(text, list)
	if i := slices.IndexFunc(list, func(w word) bool { return w.text == "case=ignore" }); fold && i >= 0 {
		p.fail(list[i].col, list[i].text, "it is an option of entries, and there is no pattern here", "leave it out")
	}
	if p.mistakes() > 0 {
		return nil
	}
	return p.table.lists[n]
}

func newParser(name string) *parser {
	return &parser{
		table:   &Table{file: name, seed: maphash.MakeSeed()},
		lists:   map[string]uint32{},
		secrets: map[string]Secret{},
	}
}

// err is all that is wrong with what was read.
func (p *parser) err() error {
	if p.more > 0 {
		p.errs = append(p.errs, &Error{
			p.table.file, p.moreFrom, 1, "", fmt.Sprintf("%d more mistakes from this line on", p.more), "mend those above first",
		})
	}
	if len(p.errs) > 0 {
		return p.errs
	}
	return nil
}

// parser reads a file line by line.
type parser struct {
	table   *Table
	records strings.Builder // becomes the table's; the table has what there is so far
	number  int             // of the line
	words   []word
	head    [recordHead]byte
	lists   map[string]uint32 // hops by their text
	secrets map[string]Secret
	errs    Errors

	more, moreFrom int  // mistakes that are only counted, and the line of the first
	inHops         bool // what is read now may hold a password that should not be there
}

// mistakes is how many there are so far.
func (p *parser) mistakes() int { return len(p.errs) + p.more }

func (p *parser) fail(col int, text, problem, fix string) {
	if len(p.errs) == maxErrors {
		if p.more++; p.more == 1 {
			p.moreFrom = p.number
		}
		return
	}
	if p.inHops {
		text, problem, fix = redact(text), redact(problem), redact(fix)
	}
	p.errs = append(p.errs, &Error{p.table.file, p.number, col, text, problem, fix})
}

// read reads all lines. A line that is too long is a mistake like others.
func (p *parser) read(r io.Reader) error {
	limited := &io.LimitedReader{R: r, N: maxFile + 1}
	in := bufio.NewReaderSize(limited, maxLine)
	for {
		line, err := in.ReadSlice('\n')
		if limited.N == 0 {
			return fmt.Errorf("the file is longer than %d octets: it is no routing file", maxFile)
		}
		if len(line) > 0 {
			p.number++
			if err == bufio.ErrBufferFull {
				p.fail(1, string(line[:100]), fmt.Sprintf("the line is longer than %d octets", maxLine), "write one entry a line")
			} else if text, ok := p.clean(line); ok {
				p.line(text)
			}
		}
		for err == bufio.ErrBufferFull {
			_, err = in.ReadSlice('\n')
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// clean takes the line break and a byte order mark away, and tells of what is no text.
func (p *parser) clean(line []byte) (string, bool) {
	text := strings.TrimSuffix(strings.TrimSuffix(string(line), "\n"), "\r")
	if p.number == 1 {
		text = strings.TrimPrefix(text, "\ufeff")
		if strings.HasPrefix(text, "\xff\xfe") || strings.HasPrefix(text, "\xfe\xff") {
			p.fail(1, text[:2], "the file is in UTF-16", "save it as UTF-8")
			return "", false
		}
	}
	for i, c := range text {
		switch {
		case c == utf8.RuneError && !strings.HasPrefix(text[i:], "\ufffd"):
			p.fail(i+1, text[i:i+1], "the line is not in UTF-8", "save the file as UTF-8")
		case c == '\r':
			p.fail(i+1, "\r", "a carriage return within the line", "end lines with LF or CRLF")
		case c < ' ' && c != '\t' || c == 0x7f:
			p.fail(i+1, text[i:i+1], "a control character", "remove it")
		default:
			continue
		}
		return "", false
	}
	return text, true
}

func (p *parser) notClosed(line string, open int) {
	p.fail(open, line[open-1:], "the double quote is not closed", "put a \" at the end of the quoted text")
}

func (p *parser) line(line string) {
	var open int
	p.words, open = words(line, p.words[:0])
	if open > 0 {
		p.notClosed(line, open)
		return
	}
	if len(p.words) == 0 {
		return
	}
	before := p.mistakes()
	first := p.words[0]
	if first.text[0] != '"' && p.isAction(first.text) {
		p.inHops = true
		p.fail(first.col, first.text, "the line has hops and no pattern", "write whose mail goes there in front of it, for instance: *  "+shorten(first.text))
		p.inHops = false
		return
	}
	pat := p.pattern(first)
	wrong := p.mistakes() > before
	if len(p.words) == 1 {
		p.fail(first.col, first.text, "the pattern has no hops", "write where its mail goes, for instance: "+shorten(first.text)+"  smtp://mail.isp.example")
		return
	}
	p.inHops = true
	list, fold := p.hops(line, p.words[1:])
	p.inHops = false
	if !wrong { // a second line with the same pattern is told of though the hops are wrong
		p.add(first, pat, list, fold)
	}
}

// add puts an entry into the table.
func (p *parser) add(first word, pat pattern, list uint32, fold bool) {
	if fold {
		if pat.rank != rankAddress && pat.rank != rankFrom {
			p.fail(first.col, first.text, "case=ignore is for a pattern with a local part", "leave it out: domains match in any case")
			return
		}
		pat.rank++
		pat.key = string(foldKey(nil, []byte(pat.key)))
	}
	if len(pat.key) > maxKey {
		p.fail(first.col, first.text, "the pattern is longer than an address may be", "a local part has at most 64 octets, and a domain 253")
		return
	}
	t := p.table
	if int64(p.records.Len()) > math.MaxUint32-2*maxLine {
		p.fail(first.col, first.text, "there is more before this line than a table can hold", "split the file")
		return
	}
	if twin := t.lookup(pat.rank, []byte(pat.key)); twin != 0 {
		p.fail(first.col, first.text, fmt.Sprintf("the same pattern as %q in line %d", shorten(t.pattern(twin)), t.line(twin)),
			fmt.Sprintf("remove line %d or line %d: the order in the file does not decide", t.line(twin), p.number))
		return
	}
	e := ref(p.records.Len() + 1)
	key := pat.key
	start := strings.LastIndex(first.text, key)
	if start >= 0 {
		key = ""
	} else {
		start = len(first.text)
	}
	p.records.Write(appendHead(p.head[:0], list, p.number, len(first.text), start, len(pat.key)))
	p.records.WriteString(first.text)
	p.records.WriteString(key)
	t.records = p.records.String()
	t.insert(pat.rank, e)
}
