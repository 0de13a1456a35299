package deliver

import (
	"mime"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// An item is a piece of a structured header field (RFC 5322, section 3.2), as it stood.
type item struct {
	kind   itemKind
	text   string
	spaced bool // white space comes before it
}

type itemKind uint8

const (
	itemAtom    itemKind = iota // what is nothing else
	itemQuoted                  // "..."
	itemComment                 // (...)
	itemAngle                   // <...>
	itemSpecial                 // a comma, a colon or a semicolon
)

// scanItems takes a field apart. What is not closed goes on to the end.
func scanItems(value string) (list []item) {
	spaced := false
	for i := 0; i < len(value); {
		if isSpace(value[i]) {
			spaced = true
			i++
			continue
		}
		kind, n := scanItem(value[i:])
		list = append(list, item{kind, value[i : i+n], spaced})
		spaced = false
		i += n
	}
	return list
}

// scanItem is the kind and the length of the item that a value begins with.
func scanItem(s string) (itemKind, int) {
	switch s[0] {
	case '"':
		return itemQuoted, quotedEnd(s)
	case '(':
		return itemComment, commentEnd(s)
	case '<':
		return itemAngle, angleEnd(s)
	case ',', ';', ':':
		return itemSpecial, 1
	case '[':
		if i := strings.IndexByte(s, ']'); i >= 0 {
			return itemAtom, i + 1
		}
		return itemAtom, len(s)
	}
	if i := strings.IndexAny(s[1:], " \t\"(<,;:["); i >= 0 {
		return itemAtom, i + 1
	}
	return itemAtom, len(s)
}

// quotedEnd is the length of the quoted string that s begins with.
func quotedEnd(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(s)
}

// commentEnd is the length of the comment that s begins with. Comments may be in comments.
func commentEnd(s string) int {
	for i, depth := 0, 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return len(s)
}

// angleEnd is the length of what s begins with in angle brackets.
func angleEnd(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			i += quotedEnd(s[i:]) - 1
		case '>':
			return i + 1
		}
	}
	return len(s)
}

var closers = map[itemKind]string{itemQuoted: `"`, itemComment: ")", itemAngle: ">"}

// inner is an item without what it stands in.
func (it item) inner() string {
	closer, ok := closers[it.kind]
	if !ok {
		return it.text
	}
	s := strings.TrimSuffix(it.text[1:], closer)
	if it.kind != itemAngle {
		s = unescape(s)
	}
	return s
}

// unescape takes the backslashes from quoted pairs.
func unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b = append(b, s[i])
	}
	return string(b)
}

// space is the white space to write before an item that is number i of its field.
func (it item) space(i int) string {
	if it.spaced || i == 0 {
		return " "
	}
	return ""
}

// ascii is an item with its domain in ASCII, if that is all it takes.
func (it item) ascii() (string, bool) {
	switch {
	case isASCII(it.text):
		return it.text, true
	case it.kind == itemAngle:
		address, err := asciiAddress(it.inner())
		return "<" + address + ">", err == nil
	case it.kind == itemAtom:
		domain, err := idna.Lookup.ToASCII(it.text)
		return domain, err == nil
	}
	return "", false
}

// asciiAddresses writes an address list (RFC 5322, section 3.4).
func asciiAddresses(f *folder, value string) error {
	list := scanItems(value)
	start := 0
	for i, it := range list {
		if it.kind != itemSpecial {
			continue
		}
		if err := asciiMailbox(f, list[start:i], it.text == ":"); err != nil {
			return err
		}
		f.add("", it.text)
		start = i + 1
	}
	return asciiMailbox(f, list[start:], false)
}

// asciiMailbox writes a mailbox, or the name of a group.
func asciiMailbox(f *folder, list []item, group bool) error {
	angle := -1
	ascii := true
	for i, it := range list {
		ascii = ascii && isASCII(it.text)
		if it.kind == itemAngle && angle < 0 {
			angle = i
		}
	}
	switch {
	case ascii:
		addAsIs(f, list)
		return nil
	case angle < 0 && !group && isAddressLike(list):
		return addAddress(f, list)
	case angle < 0:
		addPhrase(f, list)
		return nil
	}
	addPhrase(f, list[:angle])
	address, err := asciiAddress(list[angle].inner())
	if err != nil {
		return err
	}
	f.add(" ", "<"+address+">")
	addPhrase(f, list[angle+1:])
	return nil
}

// addAsIs writes items as they stood, but for where lines are folded.
func addAsIs(f *folder, list []item) {
	for i, it := range list {
		f.add(it.space(i), it.text)
	}
}

func isAddressLike(list []item) bool {
	for _, it := range list {
		if it.kind == itemAtom && strings.Contains(it.text, "@") {
			return true
		}
	}
	return false
}

// addAddress writes an address without angle brackets, and comments.
func addAddress(f *folder, list []item) error {
	var spec strings.Builder
	for _, it := range list {
		if it.kind != itemComment {
			spec.WriteString(it.text)
		}
	}
	address, err := asciiAddress(spec.String())
	if err != nil {
		return err
	}
	f.add(" ", address)
	for _, it := range list {
		if it.kind == itemComment {
			addComment(f, it)
		}
	}
	return nil
}

// addPhrase writes a display name, and comments after it.
func addPhrase(f *folder, list []item) {
	var words []item
	for _, it := range list {
		if it.kind != itemComment {
			words = append(words, it)
		}
	}
	if text := phraseText(words); text != "" {
		f.addEncoded(" ", text)
	} else {
		addAsIs(f, words)
	}
	for _, it := range list {
		if it.kind == itemComment {
			addComment(f, it)
		}
	}
}

// phraseText is what a phrase says, "" where it is ASCII. Words that are encoded already are decoded, to be encoded with the
// others.
func phraseText(words []item) string {
	var b strings.Builder
	ascii := true
	for i, it := range words {
		ascii = ascii && isASCII(it.text)
		if i > 0 && it.spaced {
			b.WriteByte(' ')
		}
		b.WriteString(it.inner())
	}
	text := b.String()
	if ascii {
		return ""
	}
	if utf8.ValidString(text) && strings.Contains(text, "=?") {
		if decoded, err := new(mime.WordDecoder).DecodeHeader(text); err == nil {
			return decoded
		}
	}
	return text
}

func addComment(f *folder, it item) {
	if isASCII(it.text) {
		f.add(" ", it.text)
	} else {
		f.addWrapped(" ", "(", it.inner(), ")")
	}
}

// asciiAddress is an address with its domain in A-labels. Nothing can be done for a local part (RFC 6531, section 3.2).
func asciiAddress(address string) (string, error) {
	address = strings.Trim(address, " \t")
	at := strings.LastIndexByte(address, '@')
	local, domain := address[:at+1], address[at+1:]
	if at < 0 {
		local, domain = address, ""
	}
	if isASCII(local) {
		if isASCII(domain) {
			return address, nil
		}
		if ascii, err := idna.Lookup.ToASCII(domain); err == nil {
			return local + ascii, nil
		}
	}
	return "", needsUTF8("the header has an address that needs SMTPUTF8: <%s>", strings.ToValidUTF8(address, "\uFFFD"))
}

// splitParameters cuts a value at the semicolons that are in no quoted string and no comment. There is at least one piece.
func splitParameters(value string) (parts []string) {
	start := 0
	for i := 0; i < len(value); {
		switch value[i] {
		case '"':
			i += quotedEnd(value[i:])
			continue
		case '(':
			i += commentEnd(value[i:])
			continue
		case ';':
			parts = append(parts, value[start:i])
			start = i + 1
		}
		i++
	}
	return append(parts, value[start:])
}

// bare is text without comments, and without white space around it.
func bare(s string) string {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '(')
		if i < 0 {
			break
		}
		b.WriteString(s[:i])
		s = s[i+commentEnd(s[i:]):]
	}
	b.WriteString(s)
	return strings.Trim(b.String(), " \t")
}

// bareValue is the value of a parameter: a quoted string, or a word without comments.
func bareValue(s string) string {
	if s = strings.Trim(s, " \t"); strings.HasPrefix(s, `"`) {
		return item{kind: itemQuoted, text: s[:quotedEnd(s)]}.inner()
	}
	return bare(s)
}
