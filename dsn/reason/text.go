package reason

import (
	"net/netip"
	"unicode"
	"unicode/utf8"
)

// What of a reply is read. The far end may send what it likes; a reason stands in the first lines.
const (
	maxText  = 4 << 10 // octets
	maxWords = 511     // of the text, and of its URLs and names
	maxURLs  = 8
)

// A text is a reply as the rules see it: words in lower case, without punctuation. Addresses, IP addresses and enhanced status
// codes are taken out of the words, so that nobody's name decides, and "user <ann@example.org> unknown" reads as "user
// unknown". The words of URLs and of names with dots stand apart: they are hints, and not what the server says.
type text struct {
	lower  []byte // the letters of all words
	words  []span
	names  []span // the words of URLs and names; an empty span ends each
	links  []string
	status status // the first one
	code   int    // the reply's, or one that the text quotes where the reply has none
	hasIP  bool

	room  int   // octets that may still be read
	chunk chunk // where the run without blanks began that is being read: what an address takes away
}

// chunk is how many words and names there were.
type chunk struct{ words, names int }

// status is an enhanced status code (RFC 3463); the zero status is none.
type status struct{ class, subject, detail int }

// parseStatus reads the three numbers of s. Subjects over 7 are somebody's version number.
func parseStatus(s string) (st status, ok bool) {
	part := [3]int{}
	for i, n := 0, 0; i < len(s); i++ {
		if s[i] == '.' {
			n++
			continue
		}
		part[n] = part[n]*10 + int(s[i]-'0')
	}
	st = status{part[0], part[1], part[2]}
	return st, (st.class == 2 || st.class == 4 || st.class == 5) && st.subject <= 7
}

// span is a word in text.lower.
type span struct{ from, to uint16 }

// reset forgets what was read. A code of 0 is looked for in the text.
func (t *text) reset(code int) {
	*t = text{lower: t.lower[:0], words: t.words[:0], names: t.names[:0], links: t.links[:0], room: maxText, code: code}
}

func (t *text) word(s span) []byte { return t.lower[s.from:s.to] }

// read takes the lines of a reply in.
func (t *text) read(lines []string) {
	for _, line := range lines {
		t.line(line[:min(len(line), t.room)])
		if t.room -= len(line); t.room <= 0 {
			return
		}
	}
}

// line reads a line: at each place the longest thing that can stand there.
func (t *text) line(s string) {
	t.chunk = chunk{len(t.words), len(t.names)}
	for i := 0; i < len(s) && len(t.words) < maxWords && len(t.names) < maxWords; {
		c := s[i]
		switch {
		case isDigit(c):
			i = t.number(s, i)
		case isLetter(c) || c >= utf8.RuneSelf:
			i = t.letters(s, i)
		case c == '@':
			i = t.address(s, i)
		case c == ':' && i+1 < len(s) && s[i+1] == ':':
			i = t.number(s, i)
		default:
			if !inChunk[c] {
				t.chunk = chunk{len(t.words), len(t.names)}
			}
			i++
		}
	}
}

// letters reads a URL or a word.
func (t *text) letters(s string, i int) int {
	if end := urlEnd(s, i); end > 0 {
		t.url(s[i:end])
		return end
	}
	if isHex(s[i]) {
		if end := ipv6End(s, i); end > 0 {
			return t.ip(s, i, end)
		}
	}
	return t.name(s, i)
}

// name reads a word, or a name with dots.
func (t *text) name(s string, i int) int {
	end := nameEnd(s, i)
	if end == 0 {
		return t.plain(s, i, &t.words)
	}
	t.hint(s[i:end])
	return end
}

// hint keeps the words of a URL or a name.
func (t *text) hint(s string) {
	for i := 0; i < len(s); {
		if isWord(s[i]) {
			i = t.plain(s, i, &t.names)
		} else {
			i++
		}
	}
	if len(t.names) < maxWords {
		t.names = append(t.names, span{})
	}
}

// plain reads a word into a list: letters and digits. "doesn't" is doesnt, "user's" is user, and "e-mail" is email. Each
// ideograph is a word of its own, because they are written without spaces.
func (t *text) plain(s string, i int, into *[]span) int {
	from := len(t.lower)
	if len(s) > i+5 && s[i+1] == '-' && (s[i] == 'e' || s[i] == 'E') && equalFold(s[i+2:i+6], "mail") {
		t.lower = append(t.lower, 'e')
		i += 2
	}
	for i < len(s) {
		c := s[i]
		switch {
		case c < utf8.RuneSelf && asciiLower[c] != 0:
			t.lower = append(t.lower, asciiLower[c])
			i++
			continue
		case c == '\'' && i+1 < len(s) && isLetter(s[i+1]) && len(t.lower) > from:
			if i++; possessive(s[i:]) {
				return t.add(from, i+1, into)
			}
			continue
		case c < utf8.RuneSelf:
			return t.add(from, i, into)
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '’' && possessive(s[i+n:]):
			return t.add(from, i+n+1, into)
		case r == '’': // the typographer's apostrophe
		case r >= 0x2E80 && unicode.IsLetter(r):
			t.add(from, i, into)
			from = len(t.lower)
			t.lower = utf8.AppendRune(t.lower, r)
			t.add(from, i, into)
			from = len(t.lower)
		case unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r):
			t.lower = utf8.AppendRune(t.lower, unicode.ToLower(r))
		default:
			return t.add(from, i+n, into)
		}
		i += n
	}
	return t.add(from, i, into)
}

// possessive reports whether an s and nothing more stands behind an apostrophe.
func possessive(s string) bool {
	return s != "" && s[0]|0x20 == 's' && (len(s) == 1 || !isWord(s[1]))
}

// add ends a word that begins at from, and gives i back.
func (t *text) add(from, i int, into *[]span) int {
	if len(t.lower) > from && len(*into) < maxWords {
		*into = append(*into, span{uint16(from), uint16(len(t.lower))})
	}
	return i
}

// number reads what begins with a digit: an IP address, an enhanced status code, or a word.
func (t *text) number(s string, i int) int {
	parts, end := dotted(s, i)
	free := end == len(s) || !isWord(s[end])
	switch {
	case parts == 4 && free:
		return t.ip(s, i, end)
	case parts == 3 && free:
		if st, ok := parseStatus(s[i:end]); ok {
			if t.status.class == 0 && st.class != 2 {
				t.status = st
			}
			return end
		}
	case parts == 1 && free && end == i+3 && t.code == 0 && t.codeAt(s, i):
		t.code = int(s[i]-'0')*100 + int(s[i+1]-'0')*10 + int(s[i+2]-'0')
		return end
	}
	if end := ipv6End(s, i); end > 0 {
		return t.ip(s, i, end)
	}
	if s[i] == ':' {
		return i + 1
	}
	return t.name(s, i)
}

// codeAt reports whether the three digits at i are a reply code that stands in the text, as reports quote it: first, after a
// colon ("host said: 550"), or before an enhanced status code.
func (t *text) codeAt(s string, i int) bool {
	if s[i] != '4' && s[i] != '5' {
		return false
	}
	first := len(t.words) == 0
	quoted := i > 1 && s[i-1] == ' ' && s[i-2] == ':'
	before := len(s) > i+5 && s[i+4] == s[i] && s[i+5] == '.'
	return first || quoted || before
}

// ip leaves an IP address out, and the name of the host before it where it is written as host[address], or as unknown[address].
func (t *text) ip(s string, i, end int) int {
	t.hasIP = true
	if i > 1 && s[i-1] == '[' && isWord(s[i-2]) {
		t.names = t.names[:t.chunk.names]
		if n := len(t.words) - 1; n == t.chunk.words && string(t.word(t.words[n])) == "unknown" {
			t.words = t.words[:n]
		}
	}
	return end
}

// address leaves a mail address out: the words before the @ that belong to it are read already.
func (t *text) address(s string, i int) int {
	if i == 0 || i+1 == len(s) || s[i-1] == ' ' || (!isWord(s[i+1]) && s[i+1] != '[') {
		t.chunk = chunk{len(t.words), len(t.names)}
		return i + 1
	}
	t.words, t.names = t.words[:t.chunk.words], t.names[:t.chunk.names]
	for i++; i < len(s) && (isWord(s[i]) || s[i] == '-' || s[i] == '.' || s[i] == '[' || s[i] == ']'); {
		i++
	}
	return i
}

// url keeps a URL as it is, for the links, and its words.
func (t *text) url(s string) {
	if len(t.links) == maxURLs {
		return
	}
	t.links = append(t.links, s)
	t.hint(s)
}

// urlEnd is where the URL that begins at i ends, 0 if none does.
func urlEnd(s string, i int) int {
	rest := s[i:]
	switch {
	case len(rest) > 8 && equalFold(rest[:7], "http://"), len(rest) > 9 && equalFold(rest[:8], "https://"):
	case len(rest) > 5 && equalFold(rest[:4], "www."):
	default:
		return 0
	}
	for i < len(s) && s[i] > ' ' && s[i] < 0x7f && s[i] != '<' && s[i] != '>' && s[i] != '"' && s[i] != '`' {
		i++
	}
	return i
}

// nameEnd is where the name with dots that begins at i ends, 0 if none does. A capital behind a dot and a small letter begins
// a sentence that lacks its blank.
func nameEnd(s string, i int) int {
	dots, letters := 0, 0
	for ; i < len(s); i++ {
		c := s[i]
		switch {
		case isLetter(c):
			letters++
		case isDigit(c) || c == '-' || c == '_':
		case c == '.' && i+1 < len(s) && isWord(s[i+1]) && !(s[i-1] >= 'a' && s[i+1] >= 'A' && s[i+1] <= 'Z'):
			dots++
		default:
			if dots == 0 || letters == 0 {
				return 0
			}
			return i
		}
	}
	if dots == 0 || letters == 0 {
		return 0
	}
	return i
}

// dotted counts the numbers of up to three digits that dots join, and says where they end.
func dotted(s string, i int) (parts, end int) {
	for i < len(s) && isDigit(s[i]) {
		digits := i
		for i < len(s) && isDigit(s[i]) {
			i++
		}
		if i-digits > 3 {
			return 0, i
		}
		parts++
		if i+1 >= len(s) || s[i] != '.' || !isDigit(s[i+1]) {
			break
		}
		i++
	}
	return parts, i
}

// ipv6End is where the IPv6 address that begins at i ends, 0 if none does.
func ipv6End(s string, i int) int {
	end, colons := i, 0
	for end < len(s) && end-i < 46 && (isHex(s[end]) || s[end] == ':' || s[end] == '.') {
		if s[end] == ':' {
			colons++
		}
		end++
	}
	if colons < 2 {
		return 0
	}
	for end > i && (s[end-1] == '.' || (s[end-1] == ':' && s[end-2] != ':')) {
		end--
	}
	if _, err := netip.ParseAddr(s[i:end]); err != nil {
		return 0
	}
	return end
}

// inChunk has the punctuation that an address or the name of a host may hold.
var inChunk = func() (t [256]bool) {
	for _, c := range []byte(".-_+=/!#$%&*?^|~'[") {
		t[c] = true
	}
	return t
}()

// asciiLower has the lower-case form of letters and digits, and 0 for all else.
var asciiLower = func() (t [utf8.RuneSelf]byte) {
	for c := range byte(utf8.RuneSelf) {
		switch {
		case isDigit(c) || (c >= 'a' && c <= 'z'):
			t[c] = c
		case c >= 'A' && c <= 'Z':
			t[c] = c | 0x20
		}
	}
	return t
}()

func isDigit(c byte) bool  { return c >= '0' && c <= '9' }
func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
func isWord(c byte) bool   { return isDigit(c) || isLetter(c) }
func isHex(c byte) bool    { return isDigit(c) || (c|0x20 >= 'a' && c|0x20 <= 'f') }

// equalFold compares ASCII; lower is in lower case.
func equalFold(s, lower string) bool {
	for i := range len(s) {
		if s[i] != lower[i] && s[i]|0x20 != lower[i] {
			return false
		}
	}
	return true
}
