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
)

// maxLine is how long a line of a routing file may be, in octets.
const maxLine = 16 << 10

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
	p := &parser{
		table:   &Table{file: name, seed: maphash.MakeSeed()},
		lists:   map[string]uint32{},
		secrets: map[string]Secret{},
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	for lines.Scan() {
		p.number++
		p.line(lines.Text())
	}
	if err := lines.Err(); err == bufio.ErrTooLong {
		p.number++
		p.fail(1, "", fmt.Sprintf("the line is longer than %d octets", maxLine), "a routing file has one entry a line")
	} else if err != nil {
		return nil, fmt.Errorf("route: %s: %w", name, err)
	}
	if len(p.errs) > 0 {
		return nil, p.errs
	}
	p.table.text = strings.Clone(p.text.String()) // without the room that was left for more
	p.table.entries = slices.Clone(p.table.entries)
	return p.table, nil
}

// parser reads a file line by line.
type parser struct {
	table   *Table
	text    strings.Builder // becomes the table's text; the table has what it is so far
	number  int             // of the line
	words   []word
	lists   map[string]uint32 // hops by their text
	secrets map[string]Secret
	errs    Errors
}

func (p *parser) fail(col int, text, problem, fix string) {
	if len(p.errs) < maxErrors {
		p.errs = append(p.errs, &Error{p.table.file, p.number, col, text, problem, fix})
	}
}

func (p *parser) line(line string) {
	var open int
	p.words, open = words(line, p.words[:0])
	if open > 0 {
		p.fail(open, line[open-1:], "the double quote is not closed", "put a \" at the end of the quoted text")
		return
	}
	if len(p.words) == 0 {
		return
	}
	before := len(p.errs)
	first := p.words[0]
	pat := p.pattern(first)
	if len(p.words) == 1 {
		p.fail(first.col+len(first.text), "", "the pattern has no hops", "write where its mail goes, for instance: "+first.text+"  smtp://mail.isp.example")
		return
	}
	list, fold := p.hops(line, p.words[1:])
	if len(p.errs) > before {
		return
	}
	p.add(first, pat, list, fold)
}

// add puts an entry into the table.
func (p *parser) add(first word, pat pattern, list uint32, fold bool) {
	if fold {
		if pat.rank != rankAddress && pat.rank != rankFrom {
			p.fail(first.col, first.text, "case=ignore is for a pattern with a local part", "leave it out: domains match in any case")
			return
		}
		pat.rank++
		pat.key = strings.ToLower(pat.key)
	}
	if p.text.Len()+len(first.text)+len(pat.key) > math.MaxUint32 {
		p.fail(first.col, "", "the file is longer than a table can hold", "split it")
		return
	}
	e := entry{list: list, line: uint32(p.number), pattern: uint32(p.text.Len()), patternLen: uint16(len(first.text)), keyLen: uint16(len(pat.key))}
	p.text.WriteString(first.text)
	if i := strings.LastIndex(first.text, pat.key); i >= 0 {
		e.key = e.pattern + uint32(i)
	} else {
		e.key = uint32(p.text.Len())
		p.text.WriteString(pat.key)
	}
	t := p.table
	t.text = p.text.String()
	t.entries = append(t.entries, e)
	if twin := t.insert(pat.rank, len(t.entries)-1); twin != nil {
		p.duplicate(first, twin)
	}
}

func (p *parser) duplicate(first word, twin *entry) {
	p.fail(first.col, first.text, fmt.Sprintf("the same pattern as %q in line %d", p.table.route(twin).Pattern, twin.line),
		fmt.Sprintf("remove line %d or line %d: the order in the file does not decide", twin.line, p.number))
}
