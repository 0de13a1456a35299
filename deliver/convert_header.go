package deliver

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// field gives a header field, or a line that should be one, as a host can take it, and whether that changed it. Of nested
// headers the transport asks nothing as long as it takes 8 bits: what has no form in ASCII stays there.
func (n need) field(raw []byte, nested bool) (_ []byte, changed bool, _ error) {
	out := raw
	if n.noBinary && bytes.IndexByte(raw, 0) >= 0 {
		out = bytes.ReplaceAll(raw, []byte{0}, []byte(" ")) // a header cannot carry it at all (RFC 5322, section 2.2)
		changed = true
	}
	if n.asciiHeader && !isASCII(out) {
		ascii, err := asciiField(out)
		switch {
		case err == nil:
			out, changed = ascii, true
		case !nested || n.sevenBit:
			return nil, false, err
		}
	}
	if (n.shortLines || changed) && hasLongLine(out) {
		out, changed = shortField(out), true
	}
	return out, changed, nil
}

// A fieldKind is what a header field is made of.
type fieldKind uint8

const (
	unstructured fieldKind = iota // what all unknown fields are
	addresses                     // an address list
	parameters                    // a value and parameters
	structured                    // words and comments
	links                         // URLs in angle brackets
	identifiers                   // message identifiers
)

var fieldKinds = map[string]fieldKind{
	"from": addresses, "sender": addresses, "reply-to": addresses, "to": addresses, "cc": addresses, "bcc": addresses,
	"resent-from": addresses, "resent-sender": addresses, "resent-reply-to": addresses, "resent-to": addresses,
	"resent-cc": addresses, "resent-bcc": addresses, "return-path": addresses, "errors-to": addresses,
	"disposition-notification-to": addresses, "return-receipt-to": addresses, "mail-followup-to": addresses,
	"mail-reply-to": addresses, "delivered-to": addresses, "x-original-to": addresses, "apparently-to": addresses,
	"content-type": parameters, "content-disposition": parameters,
	"received": structured, "date": structured, "resent-date": structured, "mime-version": structured,
	"content-transfer-encoding": structured, "content-id": structured,
	"list-archive": links, "list-help": links, "list-owner": links, "list-post": links, "list-subscribe": links,
	"list-unsubscribe": links,
	"message-id":       identifiers, "resent-message-id": identifiers, "in-reply-to": identifiers, "references": identifiers,
}

// asciiField writes a field in ASCII.
func asciiField(raw []byte) ([]byte, error) {
	name, value := splitField(raw)
	value = strings.Trim(value, " \t")
	if name == "" { // no field: there is no way to write it
		return append([]byte(question(value)), crlf...), nil
	}
	kind := fieldKinds[fieldName(name)]
	if kind == identifiers {
		// There is no such thing in ASCII. It is kept under the name that RFC 6857 has for it.
		name = "Downgraded-" + name
	}
	f := newFolder(name)
	var err error
	switch kind {
	case addresses:
		err = asciiAddresses(f, value)
	case parameters:
		err = asciiParameters(f, value)
	case structured:
		asciiStructured(f, value)
	case links:
		asciiLinks(f, value)
	case identifiers:
		f.addEncoded(" ", value)
	default:
		encodeUnstructured(f, " "+value)
	}
	if err != nil {
		return nil, err
	}
	return f.end(), nil
}

// question puts question marks in place of characters that are not ASCII.
func question(text string) string {
	return strings.Map(func(r rune) rune {
		if r >= utf8.RuneSelf {
			return '?'
		}
		return r
	}, text)
}

// foldAt is how long a line should be (RFC 5322, section 2.1.1; RFC 2047, section 2).
const foldAt = 76

// A folder writes a header field in lines that are not too long.
type folder struct {
	b      []byte
	column int
	bare   bool // nothing but the name is written yet
}

func newFolder(name string) *folder {
	return &folder{b: append([]byte(name), ':'), column: len(name) + 1, bare: true}
}

// add writes a word, after white space at which the line may be folded.
func (f *folder) add(space, word string) {
	if word == "" {
		return // white space at the end of a line, or a line of it, would be lost
	}
	if space != "" && !f.bare && f.column+len(space)+len(word) > foldAt {
		f.b = append(f.b, crlf...)
		f.column = 0
	}
	f.b = append(append(f.b, space...), word...)
	f.column += len(space) + len(word)
	f.bare = false
}

// addEncoded writes text as encoded-words.
func (f *folder) addEncoded(space, text string) { f.addWrapped(space, "", text, "") }

// addWrapped is addEncoded with something directly before and after the words.
func (f *folder) addWrapped(space, before, text, after string) {
	words := encodedWords(text, foldAt-f.column-len(space)-len(before)-len(after))
	words[0] = before + words[0]
	words[len(words)-1] += after
	for _, w := range words {
		f.add(space, w)
		space = " "
	}
}

func (f *folder) end() []byte { return append(f.b, crlf...) }

// shortField folds the lines of a field that are too long, at white space, which changes nothing. Where there is none a
// line is cut, as Postfix does: white space in the middle of a word is the least that gets the message through.
func shortField(raw []byte) (out []byte) {
	for l := range bytes.Lines(raw) {
		text := trimEnd(l)
		end := l[len(text):]
		lead := 0 // octets that are put before the text
		for len(text)+lead > longestLine {
			n := foldPoint(text, longestLine-lead)
			if !isBlank(text[:n]) { // a line of white space alone could be taken for the end of the header
				out = append(append(append(out, "  "[:lead]...), text[:n]...), crlf...)
			}
			if text, lead = text[n:], 0; !isSpace(text[0]) {
				lead = 1
			}
		}
		if n := len(text); n < len(l)-len(end) && isBlank(text) {
			continue
		}
		out = append(append(append(out, "  "[:lead]...), text...), end...)
	}
	return out
}

// foldPoint is where a line is to be folded so that at most room octets come before.
func foldPoint(text []byte, room int) int {
	if i := bytes.LastIndexAny(text[1:room+1], " \t"); i >= 0 {
		return i + 1
	}
	for i := room; i > room-utf8.UTFMax; i-- {
		if utf8.RuneStart(text[i]) {
			return i
		}
	}
	return room
}

func isBlank(p []byte) bool { return len(bytes.Trim(p, " \t")) == 0 }

// asciiParameters writes a value with parameters. They become extended parameters (RFC 2231); what else is not ASCII has no
// meaning there.
func asciiParameters(f *folder, value string) error {
	parts := splitParameters(value)
	for i, p := range parts {
		end := ";"
		if i == len(parts)-1 {
			end = ""
		}
		p = strings.Trim(p, " \t")
		name, v, _ := strings.Cut(p, "=")
		name = strings.TrimRight(name, " \t")
		switch {
		case isASCII(p) || i == 0 || !isASCII(name):
			f.add(" ", question(p)+end)
		case strings.EqualFold(name, "boundary"):
			return cannotConvert("a multipart of the message has 8-bit text in its boundary")
		default:
			encodeParameter(f, name, bareValue(v), end)
		}
	}
	return nil
}

// asciiStructured writes words and comments. Of trace fields the domains become A-labels (RFC 5890, section 2.3.2.1), and what
// has no form in ASCII goes into a comment, where it is of use to people at least; a FOR clause that needs UTF-8 is no clause any
// more (RFC 6531, section 3.7.3, has it in UTF-8 only where the message goes on with SMTPUTF8).
func asciiStructured(f *folder, value string) {
	list := scanItems(value)
	for i, it := range list {
		if it.kind == itemComment {
			addComment(f, it)
			continue
		}
		if ascii, ok := it.ascii(); ok {
			if i+1 < len(list) && strings.EqualFold(it.text, "for") {
				if _, ok := list[i+1].ascii(); !ok {
					continue
				}
			}
			f.add(it.space(i), ascii)
			continue
		}
		f.addWrapped(" ", "(", it.inner(), ")")
	}
}

// asciiLinks writes URLs in angle brackets, and text between them (RFC 2369, section 2).
func asciiLinks(f *folder, value string) {
	for rest := " " + value; rest != ""; {
		outside, after, found := strings.Cut(rest, "<")
		encodeUnstructured(f, outside)
		if !found {
			return
		}
		link, tail, closed := strings.Cut(after, ">")
		link = "<" + percent(link, func(c byte) bool { return c < utf8.RuneSelf }) // RFC 3987, section 3.1
		if closed {
			link += ">"
		}
		f.add(" ", link)
		rest = tail
	}
}
