package deliver

import (
	"encoding/base64"
	"strconv"
	"strings"
	"unicode/utf8"
)

// unknownCharset is the charset of 8-bit text that says nothing of itself (RFC 1428, section 3).
const unknownCharset = "unknown-8bit"

func charsetOf(text string) string {
	if utf8.ValidString(text) {
		return "utf-8"
	}
	return unknownCharset
}

// Octets of an encoded-word. The standard says 75 at most (RFC 2047, section 2), and in a comment parentheses are around it.
const (
	longestWord = 72
	leastWord   = 40 // with less there would hardly be room for a character
)

// encodedWords writes text as encoded-words that are good in a phrase and in a comment too (RFC 2047, section 5). The
// first has at most room octets, if that is enough for one.
func encodedWords(text string, room int) (words []string) {
	start, size, encoded := "=?"+charsetOf(text)+"?q?", quotedSize, quotedWord
	if base64Size(text)*3 < quotedSize(text)*2 { // otherwise people may want to read it as it is
		start, size, encoded = "=?"+charsetOf(text)+"?b?", base64Size, base64.StdEncoding.EncodeToString
	}
	for room = min(longestWord, room); text != ""; room = longestWord {
		n := fitting(text, max(room, leastWord)-len(start)-len("?="), size)
		words = append(words, start+encoded([]byte(text[:n]))+"?=")
		text = text[n:]
	}
	return words
}

// fitting is how much of the text, in whole characters, has an encoded size of at most room: one character at least.
func fitting(text string, room int, size func(string) int) (n int) {
	for n < len(text) {
		_, k := utf8.DecodeRuneInString(text[n:])
		if n > 0 && size(text[:n+k]) > room {
			break
		}
		n += k
	}
	return n
}

func base64Size(text string) int { return base64.StdEncoding.EncodedLen(len(text)) }

func quotedSize(text string) int {
	n := len(text)
	for i := range len(text) {
		if !isPlain(text[i]) && text[i] != ' ' {
			n += 2
		}
	}
	return n
}

// quotedWord is the text of an encoded-word in encoding Q.
func quotedWord(text []byte) string {
	b := make([]byte, 0, 3*len(text))
	for _, c := range text {
		switch {
		case isPlain(c):
			b = append(b, c)
		case c == ' ':
			b = append(b, '_')
		default:
			b = append(b, '=', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return string(b)
}

// isPlain reports whether an octet stands for itself everywhere.
func isPlain(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' }

// isEncodedWord reports whether a word will be read as an encoded one.
func isEncodedWord(word string) bool {
	return len(word) > 6 && strings.HasPrefix(word, "=?") && strings.HasSuffix(word, "?=")
}

// encodeUnstructured adds text to a field; its words that are not ASCII become encoded-words. White space between two of
// those is no white space to readers (RFC 2047, section 6.2), so it is encoded with them.
func encodeUnstructured(f *folder, text string) {
	before := "" // the word before
	for text != "" {
		space, word, rest := nextWord(text)
		if isASCII(word) {
			f.add(space, word)
			before, text = word, rest
			continue
		}
		start, end := len(space), len(text)-len(rest) // of what is encoded
		for {
			gap, next, after := nextWord(rest)
			if isASCII(next) {
				if isEncodedWord(next) {
					end += len(gap)
				}
				break
			}
			end, rest = len(text)-len(after), after
		}
		if isEncodedWord(before) {
			start = 0
		}
		f.addEncoded(space, text[start:end])
		before, text = "", rest
	}
}

// nextWord cuts the first word from text, with the white space before it.
func nextWord(text string) (space, word, rest string) {
	word = strings.TrimLeft(text, " \t")
	space = text[:len(text)-len(word)]
	if i := strings.IndexAny(word, " \t"); i >= 0 {
		word, rest = word[:i], word[i:]
	}
	return space, word, rest
}

// parameterRoom is how much of a parameter's value is written in one piece.
const parameterRoom = 50

// encodeParameter adds a parameter with a value that is not ASCII (RFC 2231, sections 3 and 4). The name may have the marks of
// that RFC already.
func encodeParameter(f *folder, name, value, end string) {
	if before, ok := strings.CutSuffix(name, "*"); ok { // the value is encoded but for the octets that should have been
		f.add(" ", before+"*="+percent(value, isToken)+end)
		return
	}
	charset := charsetOf(value) + "''"
	if base, section, ok := strings.Cut(name, "*"); ok {
		if section != "0" {
			charset = ""
		}
		f.add(" ", base+"*"+section+"*="+charset+percent(value, isAttribute)+end)
		return
	}
	encoded := charset + percent(value, isAttribute)
	if len(encoded) <= parameterRoom {
		f.add(" ", name+"*="+encoded+end)
		return
	}
	for i := 0; encoded != ""; i++ {
		n := wholePercents(encoded, parameterRoom)
		tail := ";"
		if n == len(encoded) {
			tail = end
		}
		f.add(" ", name+"*"+strconv.Itoa(i)+"*="+encoded[:n]+tail)
		encoded = encoded[n:]
	}
}

// wholePercents is how much of text fits into room, without cutting a %XX.
func wholePercents(text string, room int) int {
	if len(text) <= room {
		return len(text)
	}
	for i := 1; i < 3; i++ {
		if text[room-i] == '%' {
			return room - i
		}
	}
	return room
}

// percent writes octets as %XX that cannot stand as they are.
func percent(text string, plain func(byte) bool) string {
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; plain(c) {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', hexDigits[c>>4], hexDigits[c&15]})
		}
	}
	return b.String()
}

// isToken reports whether an octet may be in the value of a parameter that is not quoted (RFC 2045, section 5.1).
func isToken(c byte) bool {
	return c > ' ' && c < 0x7f && strings.IndexByte(`()<>@,;:\"/[]?=`, c) < 0
}

// isAttribute is isToken without what RFC 2231, section 7, has a meaning for.
func isAttribute(c byte) bool { return isToken(c) && c != '*' && c != '\'' && c != '%' }
