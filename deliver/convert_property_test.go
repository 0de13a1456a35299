package deliver

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"net/textproto"
	"strings"
	"testing"

	"github.com/jhillyerd/enmime/v2"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// A tree is a random message: either parts, or a leaf.
type tree struct {
	header  []string
	message *tree
	parts   []*tree
	kind    string // of multipart
	body    string
	label   string // its Content-Transfer-Encoding
}

var (
	someWords  = rapid.SampledFrom([]string{"a", "plain", "=", "--b1", "--b1-1", "--b1-2--", ".", "From ", "\t", "é", "ñ=ü", "слово", "日本語", "-", "=41", "?=", strings.Repeat("long", 110)})
	someSpaces = rapid.SampledFrom([]string{" ", " ", " ", "  ", "\t", ""})
	asciiLines = rapid.SampledFrom([]string{"ordinary text", "", ".", "=41 is A", "trailing space ", "-- ", "--b1x", "From here"})
)

func drawLine(t *rapid.T) string {
	if rapid.IntRange(0, 2).Draw(t, "plain") == 0 {
		return asciiLines.Draw(t, "line")
	}
	var b strings.Builder
	for range rapid.IntRange(0, 8).Draw(t, "words") {
		b.WriteString(someWords.Draw(t, "word") + someSpaces.Draw(t, "space"))
	}
	line := b.String()
	if rapid.IntRange(0, 20).Draw(t, "latin") == 0 {
		line += "\xe9\xff"
	}
	for strings.HasPrefix(line, "--b1") {
		line = "x" + line // no delimiter
	}
	return line
}

func drawLines(t *rapid.T) (lines []string) {
	for range rapid.IntRange(0, 6).Draw(t, "lines") {
		lines = append(lines, drawLine(t))
	}
	return lines
}

func drawTree(t *rapid.T, depth int) *tree {
	n := &tree{}
	if rapid.Bool().Draw(t, "described") {
		n.header = append(n.header, "Content-Description: "+strings.TrimSpace(rapid.SampledFrom([]string{"a part", "ein Stück", "часть"}).Draw(t, "description")))
	}
	kind := rapid.IntRange(0, 5).Draw(t, "kind")
	switch {
	case kind == 0 && depth > 0:
		n.message = drawTree(t, depth-1)
		n.message.header = append(n.message.header, "Subject: inner", "MIME-Version: 1.0")
		n.header = append(n.header, "Content-Type: message/rfc822")
		n.label = rapid.SampledFrom([]string{"", "8bit", "binary"}).Draw(t, "label")
	case kind <= 2 && depth > 0:
		n.kind = rapid.SampledFrom([]string{"mixed", "alternative", "related"}).Draw(t, "multipart")
		for range rapid.IntRange(1, 3).Draw(t, "parts") {
			n.parts = append(n.parts, drawTree(t, depth-1))
		}
		n.label = rapid.SampledFrom([]string{"", "8bit", "binary"}).Draw(t, "label")
	default:
		n.drawLeaf(t)
	}
	if n.label != "" {
		n.header = append(n.header, "Content-Transfer-Encoding: "+n.label)
	}
	return n
}

func (n *tree) drawLeaf(t *rapid.T) {
	text := strings.Join(drawLines(t), "\r\n")
	n.header = append(n.header, "Content-Type: "+rapid.SampledFrom([]string{
		"text/plain; charset=utf-8", "text/html; charset=utf-8", "application/octet-stream; name=x", "application/xml",
	}).Draw(t, "type"))
	switch n.label = rapid.SampledFrom([]string{"", "8bit", "quoted-printable", "base64"}).Draw(t, "label"); n.label {
	case "quoted-printable":
		n.body = quotedWithLongLines(text)
	case "base64":
		n.body = base64.StdEncoding.EncodeToString([]byte(text)) // in one line
	default:
		n.body = text
	}
}

// quotedWithLongLines has no soft breaks.
func quotedWithLongLines(text string) string {
	var b strings.Builder
	for i, c := range []byte(text) {
		switch {
		case c == '\r' || c == '\n':
			b.WriteByte(c)
		case c < ' ' || c > '~' || c == '=' || (c == ' ' && (i+1 == len(text) || text[i+1] == '\r')):
			fmt.Fprintf(&b, "=%02X", c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

func (n *tree) text(number *int) string {
	head := strings.Join(n.header, "\r\n")
	switch {
	case n.message != nil:
		return head + "\r\n\r\n" + n.message.text(number)
	case n.parts == nil:
		if head != "" {
			head += "\r\n"
		}
		return head + "\r\n" + n.body
	}
	*number++
	boundary := fmt.Sprintf("b1-%d", *number)
	var b strings.Builder
	fmt.Fprintf(&b, "Content-Type: multipart/%s;\r\n\tboundary=\"%s\"", n.kind, boundary)
	if head != "" {
		b.WriteString("\r\n" + head)
	}
	b.WriteString("\r\n\r\npreamble, ünread\r\n")
	for _, p := range n.parts {
		b.WriteString("--" + boundary + "\r\n" + p.text(number) + "\r\n")
	}
	b.WriteString("--" + boundary + "--\r\nepilogue")
	return b.String()
}

// leaves are the contents of a message and the headers of its parts, read with the standard library.
func leaves(t require.TestingT, header map[string][]string, body io.Reader) (list []string) {
	h := textproto.MIMEHeader(header)
	mediaType, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	require.NoError(t, err, "%v", h)
	description, err := new(mime.WordDecoder).DecodeHeader(h.Get("Content-Description"))
	require.NoError(t, err)
	list = append(list, mediaType+" "+description)
	switch {
	case mediaType == "message/rfc822":
		m, err := mail.ReadMessage(body)
		require.NoError(t, err)
		return append(list, leaves(t, m.Header, m.Body)...)
	case strings.HasPrefix(mediaType, "multipart/"):
		for r := multipart.NewReader(body, params["boundary"]); ; {
			p, err := r.NextRawPart()
			if err == io.EOF {
				return list
			}
			require.NoError(t, err)
			list = append(list, leaves(t, p.Header, p)...)
		}
	}
	switch strings.ToLower(h.Get("Content-Transfer-Encoding")) {
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	}
	content, err := io.ReadAll(body)
	require.NoError(t, err)
	return append(list, strings.TrimRight(string(content), "\r\n"))
}

func leavesOf(t require.TestingT, text string) []string {
	m, err := mail.ReadMessage(strings.NewReader(text))
	require.NoError(t, err)
	return leaves(t, m.Header, m.Body)
}

// mentions reports whether text stands in a leaf. A delimiter there, in the middle of a line, confuses enmime.
func (n *tree) mentions(text string) bool {
	found := strings.Contains(n.body, text) || (n.message != nil && n.message.mentions(text))
	for _, p := range n.parts {
		found = found || p.mentions(text)
	}
	return found
}

// contents are those of a message as another reader finds them, which may fail at messages that are right.
func contents(text string) (list []string, err error) {
	e, err := enmime.ReadEnvelope(strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	e.Root.DepthMatchAll(func(p *enmime.Part) bool {
		if p.ContentType == "message/rfc822" {
			inner, innerErr := contents(string(p.Content))
			list, err = append(list, inner...), errors.Join(err, innerErr)
		} else if p.FirstChild == nil {
			list = append(list, p.ContentType+" "+strings.TrimRight(string(p.Content), "\r\n"))
		}
		return false
	})
	return list, err
}

// A message is the same to its reader after conversion, whatever the host cannot take.
//
// std: C8
// std: C12
func TestConversionKeepsWhatAMessageSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		root := drawTree(t, 3)
		number := 0
		text := "From: me@example.org\r\nSubject: " + rapid.SampledFrom([]string{"Hello", "Grüße aus Köln"}).Draw(t, "subject") + "\r\nMIME-Version: 1.0\r\n" + root.text(&number) + "\r\n"
		if rapid.Bool().Draw(t, "LF") {
			text = strings.ReplaceAll(text, "\r\n", "\n")
		}
		n := rapid.SampledFrom(needsOf).Draw(t, "need")
		out, e := converted(t, text, n)
		require.Nil(t, e)
		wire := strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\n", "\r\n")
		outWire := strings.ReplaceAll(strings.ReplaceAll(out, "\r\n", "\n"), "\n", "\r\n")
		require.Equal(t, leavesOf(t, wire), leavesOf(t, outWire), "%q\n%q", wire, outWire)
		if before, err := contents(wire); err == nil && !root.mentions("--b1-") {
			after, err := contents(outWire)
			require.NoError(t, err)
			require.Equal(t, before, after)
		}
		for line := range strings.Lines(outWire) {
			if n.shortLines {
				require.LessOrEqual(t, len(line), 1000)
			}
			if n.sevenBit {
				require.True(t, isASCII(line))
			}
		}
		untouched(t, text, out, root, n)
	})
}

// untouched sees that the leaves that a host can take stand in the message as they did.
func untouched(t require.TestingT, text, out string, n *tree, needs need) {
	for _, p := range n.parts {
		untouched(t, text, out, p, needs)
	}
	if n.message != nil {
		untouched(t, text, out, n.message, needs)
	}
	if n.message != nil || n.parts != nil || surveyOfBody(t, n.body) != (survey{}) {
		return
	}
	body := n.body
	if !strings.Contains(text, "\r") {
		body = strings.ReplaceAll(body, "\r\n", "\n")
	}
	require.Contains(t, out, body)
}

func surveyOfBody(t require.TestingT, body string) survey { return *surveyed(t, "\r\n"+body) }
