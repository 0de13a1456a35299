//go:build linux

package deliver_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"mime/quotedprintable"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/route"
)

// A specimen is a message of the corpus.
type specimen struct {
	box  string // who gets it, and nothing else
	kind string
	text string
}

// corpusSize is how many messages each peer is sent.
const corpusSize = 500

// corpus makes messages of all kinds that a client can be asked to send, always the same ones: 1 octet to 25 MB.
func corpus() []specimen {
	list := make([]specimen, 0, corpusSize)
	add := func(kind, text string) {
		list = append(list, specimen{fmt.Sprintf("m%03d", len(list)), kind, text})
	}
	for _, text := range oddities {
		add("oddity", text)
	}
	for _, text := range headless {
		add(noHeader, text)
	}
	add(folded, " folded from nothing\r\n\r\nhello\r\n")
	add(noName, ": no name")
	add(noBody, "Subject: no body")
	add(noBody, "Subject: no body\r\n")
	add(dotField, ".Subject: no name of a field\r\n\r\nhello\r\n")
	add(mboxLine, "From me Mon Jan  1 00:00:00 2024\r\nSubject: an mbox\r\n\r\nhello\r\n")
	for _, text := range aroundBlocks() {
		add("around blocks", text)
	}
	for _, n := range []int{1 << 20, 5 << 20, 25_000_000} {
		add("large", large(n))
	}
	for i := len(list); i < corpusSize; i++ {
		k := kinds[i%len(kinds)]
		add(k.name, k.make(newPen(i)))
	}
	return list
}

// oddities are messages at the limits of what is one, whole.
var oddities = []string{
	"\n", "\r\n", "\r\n\r\n", "\n.\n", "\r\n.\r\n",
	"Subject: no body\r\n\r\n", "Subject: no body\n\n", "Subject: blank\r\n\r\n\r\n\r\n\r\n",
	"Subject: dots\r\n\r\n.", "Subject: dots\r\n\r\n.\r\n", "Subject: dots\r\n\r\n.\n.", "Subject: dots\n\n..\n...\n.\n",
	"Subject: smuggled\r\n\r\nhello\n.\r\nMAIL FROM:<evil@example.org>\r\n",
	"Subject: smuggled\r\n\r\nhello\r.\rMAIL FROM:<evil@example.org>\r\n",
	"Subject: smuggled\r\n\r\nhello\r\n.\rQUIT\r\n", "Subject: smuggled\r\n\r\nhello\r\r\n.\r\r\nQUIT\r\n",
	"Subject: smuggled\r\n\r\nhello\r\n\r.\r\nQUIT",
	"Subject: ends in CR\r\n\r\nhello\r", "Subject: ends in CRs\r\n\r\nhello\r\r\r",
	"Subject: smuggled by BDAT\r\n\r\nBDAT 10 LAST\r\n\r\nRSET\r\nQUIT\r\n",
}

// headless are messages that begin with what is no field.
var headless = []string{
	"x", ".", "..", ".\r\n", ".\n", "x\r\ny\r\n", "no field at all\r\n\r\nhello\r\n",
}

// kinds are made with different words and lengths each time.
var kinds = []struct {
	name string
	make func(w *pen) string
}{
	{"plain", func(w *pen) string { return w.head() + w.lines("\r\n", w.ordinary) }},
	{"LF line ends", func(w *pen) string { return asLF(w.head() + w.lines("\r\n", w.ordinary)) }},
	{"mixed line ends", func(w *pen) string {
		return w.head() + w.lines("\n", w.ordinary) + w.lines("\r\n", w.ordinary) + w.lines("\n", w.dotted)
	}},
	{"no final newline", func(w *pen) string { return w.head() + w.lines("\r\n", w.ordinary) + w.ordinary() }},
	{"dots", func(w *pen) string { return w.head() + w.lines("\r\n", w.dotted) }},
	{"dots and LF", func(w *pen) string { return asLF(w.head()+w.lines("\n", w.dotted)) + "." }},
	{"bare CR", func(w *pen) string { return w.head() + w.lines("\r\n", w.returned) }},
	{"8-bit", func(w *pen) string { return w.head() + w.lines("\r\n", w.eightBit) }},
	{"UTF-8", func(w *pen) string { return w.head() + w.lines("\r\n", w.greek) }},
	{"all octets", func(w *pen) string { return w.head() + w.lines("\r\n", w.octets) }},
	{"white space", func(w *pen) string { return w.head() + w.lines("\r\n", w.blanks) + "\r\n \r\n\t\r\n\r\n" }},
	{"full lines", func(w *pen) string { return w.head() + w.lines("\r\n", w.full) }},
	{"From lines", func(w *pen) string { return w.head() + w.lines("\r\n", w.quotedFrom) }},
	{"many fields", func(w *pen) string { return w.fields() + w.head() + w.lines("\r\n", w.ordinary) }},
	{"empty body", func(w *pen) string { return w.head() + strings.Repeat("\r\n", w.IntN(5)) }},
	{"attachment", func(w *pen) string { return w.multipart() }},
	{longLines, func(w *pen) string { return w.head() + w.lines("\r\n", w.long) }},
	{withNUL, func(w *pen) string { return w.head() + w.lines("\r\n", w.zeros) }},
	{headerUTF8, func(w *pen) string { return "Subject: " + w.fieldText() + "\r\n" + w.head() + w.lines("\r\n", w.greek) }},
}

// The kinds that not every peer takes, or takes as they are.
const (
	longLines  = "lines over 998 octets" // the longest of RFC 5321, section 4.5.3.1.6
	withNUL    = "NUL"                   // which RFC 5321, section 2.3.1 forbids, and many send
	headerUTF8 = "a header in UTF-8"
	noHeader   = "no header"
	folded     = "no header, and white space"
	noName     = "a field without a name"
	noBody     = "no empty line after the header"
	dotField   = "a field with a dot"
	mboxLine   = "a line of an mbox before the header"
)

// A pen writes parts of messages at random, the same ones for the same seed.
type pen struct{ *rand.Rand }

func newPen(seed int) *pen { return &pen{rand.New(rand.NewPCG(uint64(seed), 1))} }

func (w *pen) head() string {
	return fmt.Sprintf("From: me@example.org\r\nTo: you@store.test\r\nSubject: %s\r\nDate: Thu, 1 Jan 2026 00:00:%02d +0000\r\n"+
		"Message-ID: <%d@example.org>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"+
		"Content-Transfer-Encoding: 8bit\r\n\r\n", w.words(5), w.IntN(60), w.Uint64())
}

func (w *pen) fields() string {
	var b strings.Builder
	for i := range 1 + w.IntN(100) {
		fmt.Fprintf(&b, "X-Field-%d:%s%s\r\n\t%s\r\n   %s\r\nx-empty:\r\n",
			i, strings.Repeat(" ", w.IntN(3)), w.words(8), w.words(12), w.words(1))
	}
	return b.String()
}

func (w *pen) lines(end string, line func() string) string {
	var b strings.Builder
	for range 1 + w.IntN(1<<w.IntN(10)) {
		b.WriteString(line() + end)
	}
	return b.String()
}

func (w *pen) words(n int) string {
	known := []string{"the", "mail", "must", "go", "through", "=?not?=", "=20", "a.b", "--", "(x)", "100%", `"quoted"`}
	list := make([]string, 1+w.IntN(n))
	for i := range list {
		list[i] = known[w.IntN(len(known))]
	}
	return strings.Join(list, " ")
}

func (w *pen) ordinary() string { return w.words(15) }
func (w *pen) eightBit() string { return w.words(5) + " gr\xfc\xdfe \x80\xff " + w.words(3) }
func (w *pen) greek() string    { return w.words(5) + " Γειά σου 世界 🐙 " + w.words(3) }

// fieldText has nothing that looks like an encoded word.
func (w *pen) fieldText() string { return strings.ReplaceAll(w.greek(), "=?", "=") }

func (w *pen) blanks() string {
	return strings.Repeat(" ", w.IntN(4)) + w.words(3) + strings.Repeat(" \t", w.IntN(3))
}
func (w *pen) full() string { return strings.Repeat("0123456789", 100)[:998-w.IntN(2)] }
func (w *pen) long() string { return "." + strings.Repeat("0123456789", 1+w.IntN(1000)) }
func (w *pen) zeros() string {
	return w.words(3) + "\x00" + w.words(3) + strings.Repeat("\x00", w.IntN(3))
}
func (w *pen) quotedFrom() string { return strings.Repeat(">", w.IntN(3)) + "From " + w.words(3) }
func (w *pen) dotted() string {
	return strings.Repeat(".", w.IntN(4)) + strings.Repeat(w.words(3), w.IntN(2))
}

func (w *pen) returned() string { return w.words(3) + strings.Repeat("\r", w.IntN(3)) + w.dotted() }

// octets is every octet but NUL, CR and LF.
func (w *pen) octets() string {
	b := make([]byte, 0, 253)
	for c := range 256 {
		if c != 0 && c != '\r' && c != '\n' {
			b = append(b, byte(c))
		}
	}
	w.Shuffle(len(b), func(i, k int) { b[i], b[k] = b[k], b[i] })
	return string(b)
}

func (w *pen) multipart() string {
	data := make([]byte, 1+w.IntN(50_000))
	for i := range data {
		data[i] = byte(w.Uint32())
	}
	var b strings.Builder
	b.WriteString("From: me@example.org\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"=_b\"\r\n\r\n" +
		"preamble\r\n--=_b\r\n\r\nHello.\r\n" +
		"--=_b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n")
	for text := base64.StdEncoding.EncodeToString(data); text != ""; {
		n := min(76, len(text))
		b.WriteString(text[:n] + "\r\n")
		text = text[n:]
	}
	return b.String() + "\r\n--=_b--\r\nepilogue\r\n"
}

// aroundBlocks are messages where a line end, or a dot that may begin a line, stands on both sides of where one block of a
// client that reads by powers of two ends and the next begins.
func aroundBlocks() (texts []string) {
	const block = 32 << 10
	for _, end := range []string{"\r\n", "\n"} {
		start := "Subject: blocks" + end + end + strings.Repeat(strings.Repeat("x", 900)+end, block/1000)
		for _, edge := range []string{"\r\n.", "\r\n.\r\n", "\n.\n", "\r\r\n.", "\r.", ".\r\n.", "x.x"} {
			for cut := range len(edge) + 1 {
				text := start
				for missing := block - cut - len(text); missing > 0; missing = block - cut - len(text) {
					text += strings.Repeat("y", min(missing, 900))
					if missing > 902 {
						text += end
					}
				}
				texts = append(texts, text+edge+"the end"+end)
			}
		}
	}
	return texts
}

func large(n int) string {
	w := newPen(n)
	var b strings.Builder
	for b.WriteString(w.head()); b.Len() < n-1000; {
		b.WriteString(w.dotted() + w.octets() + w.ordinary() + "\r\n")
	}
	return b.String() + strings.Repeat(".", n-b.Len())
}

func asLF(text string) string { return strings.ReplaceAll(text, "\r\n", "\n") }

// stored is a message as it must stand in a mailbox with LF for line ends: CRs before an LF are of that line end, any other
// CR is a line end too, and the last line has one (RFC 5321, sections 2.3.8 and 4.1.1.4).
//
// std: C11
func stored(text string) string {
	for strings.Contains(text, "\r\n") {
		text = asLF(text)
	}
	text = strings.ReplaceAll(text, "\r", "\n")
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return text
}

func TestCorpus(t *testing.T) {
	list := corpus()
	require.Len(t, list, corpusSize)
	seen, shortest, longest := make(map[string]bool), len(list[0].text), 0
	for _, s := range list {
		seen[s.kind] = true
		shortest, longest = min(shortest, len(s.text)), max(longest, len(s.text))
	}
	require.Len(t, seen, len(kinds)+9)
	require.Equal(t, [2]int{1, 25_000_000}, [2]int{shortest, longest})
	require.Equal(t, list, corpus(), "the same every time")
	require.Equal(t, "a\n\nb\n.\n\n", stored("a\r\n\r\nb\r\r\n.\r\r\n\r"))
}

// Habits are what a peer is known to make of messages that are not as it likes them.
type habits struct {
	refuses   []string                         // the kinds that it does not take
	converted []string                         // the kinds that the client converts for it (see decoded)
	makes     func(kind, text string) []string // what it may store in place of what it was sent; nil is the same
	adds      *regexp.Regexp                   // the fields that it puts into a header where they are missing
}

// subject is the first field of a header in UTF-8, as the client writes it for a server that takes ASCII alone.
var subject = regexp.MustCompile(`^Subject: .*\n(?:[ \t].*\n)*`)

// decoded takes back what the client makes of text that a server does not take: every server takes what is quoted-printable,
// base64, or an encoded word.
func decoded(t *testing.T, text string) string {
	t.Helper()
	for line := range strings.Lines(text) {
		require.LessOrEqual(t, len(line), 998)
		require.False(t, strings.ContainsFunc(line, func(r rune) bool { return r >= 0x80 }), "%q", line)
	}
	text = subject.ReplaceAllStringFunc(text, func(field string) string {
		field, err := new(mime.WordDecoder).DecodeHeader(strings.ReplaceAll(strings.TrimSuffix(field, "\n"), "\n", ""))
		require.NoError(t, err)
		return field + "\n"
	})
	header, body, _ := strings.Cut(text, "\n\n")
	for name, reader := range map[string]io.Reader{
		"quoted-printable": quotedprintable.NewReader(strings.NewReader(body)),
		"base64":           base64.NewDecoder(base64.StdEncoding, strings.NewReader(body)),
	} {
		if was := strings.Replace(header, "Encoding: "+name, "Encoding: 8bit", 1); was != header {
			plain, err := io.ReadAll(reader)
			require.NoError(t, err)
			return was + "\n\n" + stored(string(plain))
		}
	}
	t.Errorf("nothing was converted: %s", header)
	return text
}

// corpus sends the whole corpus to a listener, some at once over connections that are used again, and compares what
// arrived, octet by octet.
func (p *peer) corpus(t *testing.T, listener, hops string, h habits) {
	t.Helper()
	list := corpus()
	d, _ := p.deliverer(t, listener)
	d.Transcript = nil
	outcomes := deliverAll(t.Context(), d, p.by(t, listener, hops), list)
	for i, s := range list {
		o := &outcomes[i]
		checkOutcome(t, o, s.box+"@store.test")
		switch {
		case slices.Contains(h.refuses, s.kind):
			assert.Equal(t, deliver.PermFail, o.Result, "%s, %s: %v", s.box, s.kind, o)
			p.empty(t, s.box)
		case assert.True(t, o.Result.Success(), "%s, %s: %v", s.box, s.kind, o):
			want, got := []string{stored(s.text)}, p.arrived(t, s.box, 1)[0]
			if h.makes != nil {
				want = h.makes(s.kind, want[0])
			}
			if slices.Contains(h.converted, s.kind) {
				got = decoded(t, got)
			}
			if h.adds != nil && h.adds.FindString(want[0]) == "" {
				got = h.adds.ReplaceAllString(got, "")
			}
			if !slices.Contains(want, got) {
				differ(t, s, want[0], got)
			}
		}
	}
}

// deliverAll sends messages, a few at a time, and gives the outcome of each.
func deliverAll(ctx context.Context, d *deliver.Deliverer, r route.Route, list []specimen) []deliver.Outcome {
	const atOnce = 4
	outcomes := make([]deliver.Outcome, len(list))
	todo := make(chan int)
	var wg sync.WaitGroup
	for range atOnce {
		wg.Go(func() {
			for i := range todo {
				m := letterOf(list[i].text, list[i].box+"@store.test")
				m.ID = list[i].box
				outcomes[i] = d.Deliver(ctx, r, m)[0]
			}
		})
	}
	for i := range list {
		todo <- i
	}
	close(todo)
	wg.Wait()
	return outcomes
}

// differ fails a test and shows where two texts differ: some are long.
func differ(t *testing.T, s specimen, want, got string) {
	t.Helper()
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	around := func(text string) string { return text[max(0, min(len(text), at)-40):min(len(text), at+40)] }
	t.Errorf("%s, %s: %d octets arrived, not %d, and they differ from octet %d on: %q, not %q",
		s.box, s.kind, len(got), len(want), at, around(got), around(want))
}
