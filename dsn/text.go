package dsn

import (
	"fmt"
	"mime"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/html/charset"
)

// maxSpaces is how many spaces in a row are kept of text from strangers: more would push the rest out of sight.
const maxSpaces = 64

// neutral makes one line of text from strangers: valid UTF-8 in which what controls a terminal, breaks a line or reorders
// letters is a space.
func neutral(s string) string {
	spaces := 0
	return strings.Map(func(r rune) rune {
		switch {
		case r < ' ', r >= 0x7f && r < 0xa0, // C0, DEL and C1
			r == 0x2028, r == 0x2029, // line and paragraph separator
			r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069: // bidirectional embedding, override and isolation
			r = ' '
		}
		if r != ' ' {
			spaces = 0
			return r
		}
		if spaces++; spaces > maxSpaces {
			return -1
		}
		return ' '
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

// cutMark stands where text was cut.
const cutMark = " [cut]"

// clip cuts valid UTF-8 that is longer than most octets.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most] + cutMark
}

// clipReply neutralises a reply and cuts one whose text is longer than most octets.
func clipReply(r Reply, most int) Reply {
	clipped := Reply{Code: r.Code, Lines: make([]string, 0, len(r.Lines))}
	for _, line := range r.Lines {
		line = neutral(line)
		if len(line) > most {
			clipped.Lines = append(clipped.Lines, clip(line, most))
			break
		}
		clipped.Lines = append(clipped.Lines, line)
		most -= len(line)
	}
	return clipped
}

// encodeWords writes text in ASCII: the words from the first that needs it to the last become encoded words (RFC 2047).
func encodeWords(s string) string {
	words := strings.Split(s, " ")
	first, last := -1, -1
	for i, w := range words {
		if !isASCII(w) || strings.Contains(w, "=?") {
			if first < 0 {
				first = i
			}
			last = i
		}
	}
	if first < 0 {
		return s
	}
	encoded := qEncode(strings.Join(words[first:last+1], " "))
	return strings.Join(append(append(words[:first:first], encoded), words[last+1:]...), " ")
}

// qEncode writes all of s as encoded words. mime.QEncoding would leave alone what is ASCII, and looks encoded.
func qEncode(s string) string {
	const start, end, most = "=?utf-8?q?", "?=", 63 // octets of a word, so that two stand in a line with a field's name
	var b strings.Builder
	room := 0
	for _, r := range s {
		q := qRune(r)
		if len(q) > room {
			if b.Len() > 0 {
				b.WriteString(end + " ")
			}
			b.WriteString(start)
			room = most - len(start) - len(end)
		}
		b.WriteString(q)
		room -= len(q)
	}
	return b.String() + end
}

func qRune(r rune) string {
	switch {
	case r == ' ':
		return "_"
	case r < utf8.RuneSelf && (r >= '0' && r <= '9' || r|0x20 >= 'a' && r|0x20 <= 'z'):
		return string(r)
	}
	var b strings.Builder
	for _, c := range []byte(string(r)) {
		fmt.Fprintf(&b, "=%02X", c)
	}
	return b.String()
}

// words reads encoded words of any charset.
var words = mime.WordDecoder{CharsetReader: charset.NewReaderLabel}

// decodeWords reads encoded words in text; what cannot be read stays as it is. The result is neutral.
func decodeWords(s string) string {
	if strings.Contains(s, "=?") {
		if decoded, err := words.DecodeHeader(s); err == nil {
			s = decoded
		}
	}
	return neutral(s)
}

// asASCII makes a question mark of each character that is not ASCII.
func asASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= utf8.RuneSelf {
			return '?'
		}
		return r
	}, s)
}
