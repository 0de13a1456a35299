package relaycheck

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds on what is remembered of what others say or are called, in octets.
const (
	maxName  = 255  // of a name: the longest of DNS (RFC 1035, section 2.3.4)
	maxWords = 4096 // of a reply
	maxSaid  = 1000 // of a sentence about a failure
)

// clean makes text of others fit for one line, and at most as long as said: control characters and those that turn the
// direction of writing, with which a terminal or a reader can be misled, become spaces.
func clean(s string, most int) string {
	s = clip(strings.ToValidUTF8(s, "?"), most)
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, s)
}

// clip cuts a string that is too long, between characters.
func clip(s string, most int) string {
	const mark = "…"
	if len(s) <= most {
		return s
	}
	end := most - len(mark)
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + mark
}
