package dsn

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// readStatus reads the part for programs. Its groups of fields should stand apart by empty lines, but in some reports they do not,
// and in others such lines stand within a group: a recipient begins with a group, or where one is named again, and a group
// that names none is about the message.
func (r *Report) readStatus(status []byte) {
	var to statusRecipient
	for name, value := range fields(status) {
		name = strings.ToLower(name)
		if name == "" || to.has(name) {
			r.addRecipient(&to)
			to = statusRecipient{}
		}
		if len(r.Recipients) == MaxRecipients {
			return
		}
		if !to.read(name, value) {
			r.readStatusField(name, value)
		}
	}
	r.addRecipient(&to)
}

// readStatusField reads a field about the message (RFC 3464, section 2.2; RFC 2852).
func (r *Report) readStatusField(name, value string) {
	switch name {
	case "reporting-mta":
		r.ReportingMTA = parseHost(value)
	case "original-envelope-id":
		r.EnvelopeID = strings.TrimSpace(decodeWords(unfold(value)))
	case "arrival-date":
		r.Arrival = parseTime(value)
	case "deliver-by-date":
		r.DeliverBy = parseTime(value)
	}
}

func (r *Report) addRecipient(to *statusRecipient) {
	if to.Final.Addr == "" {
		to.Final = to.actual
	}
	if to.Final.Addr == "" {
		to.Final = to.Original
	}
	if to.Final.Addr == "" {
		return
	}
	if to.Status == "" {
		to.Status = to.Diagnostic.Status()
	}
	if to.Diagnostic.IsZero() && to.Detail == "" {
		to.Detail = to.comment
	}
	r.Recipients = append(r.Recipients, to.Recipient)
}

// A statusRecipient is a recipient whose fields are being read.
type statusRecipient struct {
	Recipient
	actual  Address  // X-Actual-Recipient, of Sendmail: where an alias led
	comment string   // the comment in the Status field
	named   []string // fields that name it and were read
}

// has reports whether a field names a recipient and was read already.
func (to *statusRecipient) has(name string) bool { return slices.Contains(to.named, name) }

// read reads a field about a recipient (RFC 3464, section 2.3), and reports whether it is one.
func (to *statusRecipient) read(name, value string) bool {
	switch name {
	case "original-recipient", "final-recipient", "x-actual-recipient":
		to.readAddress(name, parseAddress(neutral(unfold(value))))
	case "action":
		to.Action = parseAction(unfold(value))
	case "status":
		to.Status, to.comment = parseStatus(unfold(value))
	case "remote-mta":
		to.RemoteMTA, to.RemoteAddr = parseMTA(value)
	case "diagnostic-code":
		to.readDiagnostic(value)
	case "last-attempt-date":
		to.LastAttempt = parseTime(value)
	case "final-log-id":
		to.LogID = strings.TrimSpace(decodeWords(unfold(value)))
	case "will-retry-until":
		to.RetryUntil = parseTime(value)
	case strings.ToLower(detailField):
		to.Detail = strings.TrimSpace(decodeWords(unfold(value)))
	case strings.ToLower(smarthostField):
		to.Smarthost = parseHost(value)
	default:
		return false
	}
	return true
}

func (to *statusRecipient) readAddress(name string, a Address) {
	to.named = append(to.named, name)
	switch name {
	case "original-recipient":
		to.Original = a
	case "final-recipient":
		to.Final = a
	default:
		to.actual = a
	}
}

// parseAction reads an action that a comment may follow.
func parseAction(s string) Action {
	word := strings.ToLower(firstWord(s))
	for _, a := range []Action{Failed, Delayed, Delivered, Relayed, Expanded} {
		if word == string(a) {
			return a
		}
	}
	return ""
}

// parseStatus reads a status that a comment, or other text, may follow.
func parseStatus(s string) (status Status, comment string) {
	status, _ = ParseStatus(firstWord(s))
	if _, rest, ok := strings.Cut(s, "("); ok {
		comment, _, _ = strings.Cut(rest, ")")
	}
	return status, strings.TrimSpace(decodeWords(comment))
}

func firstWord(s string) string {
	word, _, _ := strings.Cut(strings.TrimSpace(s), " ")
	word, _, _ = strings.Cut(word, "(")
	return strings.TrimRight(word, "\t;,")
}

// parseMTA reads "dns; name (192.0.2.1)" and what mail systems make of it: the address in brackets, in place of the name,
// or at the start of a longer comment.
func parseMTA(value string) (name, addr string) {
	value = neutral(unfold(value))
	if _, rest, ok := strings.Cut(value, ";"); ok {
		value = rest
	}
	name, comment, _ := strings.Cut(strings.TrimSpace(value), "(")
	name, literal, _ := strings.Cut(strings.TrimSpace(name), "[")
	name = strings.TrimSuffix(strings.TrimSpace(name), ".")
	if addr = parseIP(comment); addr == "" {
		addr = parseIP(literal)
	}
	if ip := parseIP(name); ip != "" {
		name, addr = "", ip
	}
	return name, addr
}

// parseHost reads the name of a host, or its address where that stands in its place.
func parseHost(value string) string {
	name, addr := parseMTA(value)
	if name == "" {
		return addr
	}
	return name
}

// parseIP reads an IP address that other text may follow.
func parseIP(s string) string {
	s = strings.TrimSpace(s)
	if len(s) > 5 && strings.EqualFold(s[:5], "IPv6:") {
		s = s[5:]
	}
	if i := strings.IndexAny(s, ")], "); i >= 0 {
		s = s[:i]
	}
	if _, err := netip.ParseAddr(s); err != nil {
		return ""
	}
	return s
}

// readDiagnostic reads a Diagnostic-Code.
func (to *statusRecipient) readDiagnostic(value string) {
	typ, text, ok := strings.Cut(value, ";")
	typ = strings.TrimSpace(typ)
	if !ok || !isAtom(typ) {
		typ, text = "", value
	}
	text = strings.TrimLeft(text, " \t\n")
	if typ == "" || strings.EqualFold(typ, "smtp") || strings.EqualFold(typ, "lmtp") {
		if to.Diagnostic = parseFolded(text); !to.Diagnostic.IsZero() {
			return
		}
	}
	to.Detail = strings.TrimSpace(decodeWords(unfold(text)))
}

// parseFolded reads a reply from a folded field: with its lines as they were where each stands on a line of its own,
// as Builder writes it, and otherwise with those that can be told from the codes at their start. It returns the zero
// Reply where the text is none.
func parseFolded(text string) Reply {
	code, ok := replyCode(text)
	if !ok {
		return Reply{}
	}
	if lines := foldedLines(text, code); lines != nil {
		return newReply(text, lines)
	}
	var lines []string
	rest := unfold(text)
	for len(rest) > 3 && rest[3] == '-' {
		end := nextLine(rest, code)
		if end < 0 {
			break
		}
		lines = append(lines, rest[:end])
		rest = rest[end+1:]
	}
	return newReply(text, append(lines, rest))
}

// replyCode reads the code at the start of a reply.
func replyCode(text string) (code string, ok bool) {
	if len(text) < 3 || (len(text) > 3 && text[3] != ' ' && text[3] != '-' && text[3] != '\n') {
		return "", false
	}
	n, err := strconv.Atoi(text[:3])
	return text[:3], err == nil && n >= 200 && n <= 599
}

// foldedLines are the lines of a reply that stand on lines of their own, nil where they do not.
func foldedLines(text, code string) (lines []string) {
	var line strings.Builder
	for i, physical := range strings.Split(text, "\n") {
		rest, begins := strings.CutPrefix(physical, "\t"+code)
		if begins && i > 0 && (rest == "" || rest[0] == ' ' || rest[0] == '-') {
			lines = append(lines, line.String())
			line.Reset()
			physical = code + rest
		}
		if line.Len() > 0 {
			line.WriteByte('\n')
		}
		line.WriteString(physical)
	}
	lines = append(lines, line.String())
	for i := range lines {
		lines[i] = unfold(lines[i])
		if goesOn := len(lines[i]) > 3 && lines[i][3] == '-'; goesOn != (i < len(lines)-1) {
			return nil
		}
	}
	return lines
}

// nextLine finds where the next line of a reply begins: at a space before the same code.
func nextLine(s, code string) int {
	for at := 4; ; {
		i := strings.Index(s[at:], " "+code)
		if i < 0 {
			return -1
		}
		at += i
		if end := at + 1 + len(code); end == len(s) || s[end] == '-' || s[end] == ' ' {
			return at
		}
		at++
	}
}

// newReply makes a reply of lines that begin with their code.
func newReply(text string, lines []string) Reply {
	code, _ := strconv.Atoi(text[:3])
	r := Reply{Code: code, Lines: lines}
	for i, line := range lines {
		r.Lines[i] = decodeWords(line[min(4, len(line)):])
	}
	return r
}
