package route

import (
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// maxHops is how many hops an entry may have.
const maxHops = 10

// hops reads the hops of an entry, and returns the number of their list. Equal ones are kept once.
func (p *parser) hops(line string, words []word) (list uint32, fold bool) {
	last := words[len(words)-1]
	key := line[words[0].col-1 : last.col-1+len(last.text)] // without a comment
	if n, ok := p.lists[key]; ok {
		return n >> 1, n&1 != 0
	}
	before := p.mistakes()
	var hops []Hop
	for start := 0; start <= len(words); {
		end := start
		for end < len(words) && words[end].text != "," {
			end++
		}
		if end == start {
			col := words[min(start, len(words)-1)].col
			p.fail(col, ",", "there is no hop beside the comma", "remove the comma, or write a hop")
		} else {
			hop, f := p.hop(words[start:end], len(hops))
			fold = fold || f
			p.checkPlace(words[start], hop, hops)
			hops = append(hops, hop)
		}
		start = end + 1
	}
	if len(hops) > maxHops {
		p.fail(words[0].col, words[0].text, fmt.Sprintf("there are %d hops, and %d are allowed", len(hops), maxHops), "leave some out")
	}
	if p.mistakes() > before {
		return 0, fold
	}
	n := uint32(len(p.table.lists))
	p.table.lists = append(p.table.lists, hops)
	p.lists[strings.Clone(key)] = n<<1 | b2u(fold)
	return n, fold
}

func b2u(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// checkPlace tells what is wrong about where a hop stands.
func (p *parser) checkPlace(w word, hop Hop, before []Hop) {
	switch {
	case len(before) == 0 && hop.On != Always:
		p.fail(w.col, w.text, "the first hop is always tried, and has no condition", "leave \"on "+hop.On.String()+"\" out, or put a hop before it")
	case len(before) > 0 && hop.On == Always:
		p.fail(w.col, w.text, "a hop after the first needs a condition", "write \"on blocked\", \"on unreachable\", \"on tempfail\" or \"on any\" before it")
	case len(before) > 0 && before[len(before)-1].Kind >= Reject:
		p.fail(w.col, w.text, "nothing comes after "+before[len(before)-1].Kind.String(), "remove this hop, or the one before it")
	}
}

// hop reads one hop.
func (p *parser) hop(words []word, place int) (h Hop, fold bool) {
	words = p.condition(&h, words)
	if len(words) == 0 {
		return h, false
	}
	rest := p.action(&h, words)
	given := make(map[string]bool, len(rest))
	for _, w := range rest {
		name, value, ok := strings.Cut(w.text, "=")
		switch {
		case !ok && (w.text == "on" || p.isAction(w.text)):
			p.fail(w.col, w.text, "hops are separated by commas", "put a comma before "+strconv.Quote(w.text))
			return h, fold
		case !ok:
			p.fail(w.col, w.text, "an option is NAME=VALUE", "options are tls, secret, source, helo, mx and case")
		case given[name]:
			p.fail(w.col, w.text, "the option is given twice", "leave one out")
		case name == "case":
			fold = p.caseOption(w, value, place)
		default:
			p.option(&h, w, name, unquote(value))
		}
		given[name] = true
	}
	p.checkHop(&h, words[0])
	return h, fold
}

func (p *parser) condition(h *Hop, words []word) []word {
	if words[0].text != "on" {
		return words
	}
	if len(words) < 3 {
		p.fail(words[0].col, "on", "a condition and a hop come after it", "for instance: on blocked smtp://mail.isp.example")
		return nil
	}
	for c, name := range conditionNames[1:] {
		if words[1].text == name {
			h.On = Condition(c + 1)
			return words[2:]
		}
	}
	fix := "write on blocked, on unreachable, on tempfail or on any"
	if near := p.nearest(words[1].text, conditionNames[1:]); near != "" {
		fix = "did you mean \"on " + near + "\"?"
	}
	p.fail(words[1].col, words[1].text, "no such condition", fix)
	return nil
}

var actionNames = []string{"direct", "reject", "hold", "discard", "smtp", "submission", "smtps", "lmtp"}

func (p *parser) isAction(text string) bool {
	return text == "direct" || text == "reject" || text == "hold" || text == "discard" || strings.Contains(text, "://")
}

// action reads what a hop does, and returns the words after it.
func (p *parser) action(h *Hop, words []word) []word {
	w := words[0]
	switch w.text {
	case "direct":
		return words[1:]
	case "hold":
		h.Kind = Hold
		return words[1:]
	case "discard":
		h.Kind = Discard
		return words[1:]
	case "reject":
		return p.reject(h, words)
	}
	scheme, rest, ok := strings.Cut(unquote(w.text), "://")
	if !ok {
		p.unknownAction(w)
		return nil
	}
	h.Kind = Smarthost
	for proto, name := range protocolNames {
		if strings.EqualFold(scheme, name) {
			h.Protocol = Protocol(proto)
			p.smarthost(h, w, rest)
			return words[1:]
		}
	}
	fix := "write smtp, submission, smtps or lmtp"
	if near := p.nearest(scheme, protocolNames[:]); near != "" {
		fix = "did you mean " + near + "://" + rest + "?"
	}
	p.fail(w.col, w.text, "unknown scheme "+strconv.Quote(scheme), fix)
	return nil
}

// unknownAction tells how to write what was meant, also by one who comes from Postfix.
func (p *parser) unknownAction(w word) {
	fix := "write direct, hold, discard, reject \"550 5.1.2 text\", or a smarthost as smtp://HOST"
	scheme, rest, ok := strings.Cut(w.text, ":")
	switch {
	case ok && (scheme == "smtp" || scheme == "relay" || scheme == "lmtp"):
		host := strings.NewReplacer("[", "", "]", "").Replace(rest)
		if scheme == "relay" {
			scheme = "smtp"
		}
		fix = "write " + scheme + "://" + host
		if host == "" {
			fix = "write direct"
		}
	case p.nearest(w.text, actionNames) != "":
		fix = "did you mean " + p.nearest(w.text, actionNames) + "?"
	case strings.Contains(w.text, "."):
		fix = "write smtp://" + strings.Trim(w.text, "[]")
	}
	p.fail(w.col, w.text, "unknown hop", fix)
}

// reject reads the reply of a reject hop: RFC 5321, section 4.2, with a 5yz code.
func (p *parser) reject(h *Hop, words []word) []word {
	h.Kind = Reject
	const example = "for instance: reject \"550 5.1.2 This domain has moved\""
	if len(words) < 2 || !strings.HasPrefix(words[1].text, `"`) {
		p.fail(words[0].col, "reject", "a reply in double quotes comes after it", example)
		return nil
	}
	h.Reply = unquote(words[1].text)
	code, _, _ := strings.Cut(h.Reply, " ")
	if n, err := strconv.Atoi(code); err != nil || len(code) != 3 || n < 500 || n > 599 {
		p.fail(words[1].col, words[1].text, "the reply does not begin with a code from 500 to 599", example)
	}
	if strings.ContainsFunc(h.Reply, func(r rune) bool { return r < ' ' || r == 0x7f }) || len(h.Reply) > 500 {
		p.fail(words[1].col, words[1].text, "the reply has control characters or more than 500 octets", example)
	}
	return words[2:]
}

// smarthost reads what stands behind the scheme: [USER@]HOST[:PORT], or unix:/path.
func (p *parser) smarthost(h *Hop, w word, rest string) {
	if user, host, ok := cutLast(rest, "@"); ok {
		name, err := url.PathUnescape(user)
		switch {
		case strings.Contains(user, ":"):
			p.fail(w.col, w.text, "no password stands in a routing file", "write the user alone, and secret=env:NAME or secret=file:PATH")
			return
		case err != nil || name == "" || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
			p.fail(w.col, w.text, "the user before the @ cannot be read", "write %40 for an @ in it, %25 for a %")
			return
		}
		h.User, rest = name, host
	}
	if path, ok := strings.CutPrefix(rest, "unix:"); ok {
		if h.Protocol != LMTP || !strings.HasPrefix(path, "/") {
			p.fail(w.col, w.text, "a socket is reached by LMTP, at an absolute path", "write lmtp://unix:/run/lmtp.sock")
		}
		h.Host = path
		return
	}
	p.hostPort(h, w, rest)
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return "", s, false
}

func (p *parser) hostPort(h *Hop, w word, rest string) {
	host, port, hasPort := rest, "", false
	if strings.HasPrefix(rest, "[") {
		end := strings.IndexByte(rest, ']')
		if end < 0 {
			p.fail(w.col, w.text, "the [ is not closed", "write "+h.Protocol.String()+"://[2001:db8::1]:25")
			return
		}
		host, port = rest[1:end], rest[end+1:]
		if port, hasPort = strings.CutPrefix(port, ":"); !hasPort && port != "" {
			p.fail(w.col, w.text, "only :PORT may come after the ]", "write "+h.Protocol.String()+"://["+host+"]:25")
			return
		}
	} else if strings.Count(rest, ":") == 1 {
		host, port, hasPort = strings.Cut(rest, ":")
	}
	if hasPort {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			text := w.text
			if strings.Trim(port, "0123456789") != "" { // perhaps the beginning of a password with a blank in it
				text, port = strings.TrimSuffix(text, port)+"…", "…"
			}
			p.fail(w.col, text, strconv.Quote(port)+" is no port", "a port is a number from 1 to 65535")
			return
		}
		h.Port = uint16(n)
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		h.Host = addr.String()
	} else if key := domainKey(host); validDomain(key) {
		h.Host = key
	} else {
		p.fail(w.col, w.text, strconv.Quote(host)+" is no host name", "write "+h.Protocol.String()+"://mail.isp.example")
		return
	}
	if h.Protocol == LMTP && h.Port == 0 {
		p.fail(w.col, w.text, "LMTP has no port of its own", "write lmtp://"+host+":24, or lmtp://unix:/path")
	}
}

var optionNames = []string{"tls", "secret", "source", "helo", "mx", "case", "port"}

func (p *parser) option(h *Hop, w word, name, value string) {
	switch name {
	case "tls":
		p.tlsOption(h, w, value)
	case "secret":
		p.secretOption(h, w, value)
	case "source":
		addr, err := netip.ParseAddr(value)
		if err != nil {
			p.fail(w.col, w.text, "no IP address", "write the address of this machine to connect from: source=192.0.2.1")
		}
		h.Source = addr
	case "helo":
		if h.HELO = domainKey(value); !validDomain(h.HELO) {
			p.fail(w.col, w.text, "no host name", "write the name to greet with: helo=mail.example.org")
		}
	case "mx":
		if value != "yes" && value != "no" {
			p.fail(w.col, w.text, "mx is yes or no", "write mx=yes to look the smarthost up by MX")
		}
		h.LookupMX = value == "yes"
	case "port":
		p.fail(w.col, w.text, "the port stands in the URL", "write "+h.Protocol.String()+"://"+h.Host+":"+value)
	default:
		p.unknownOption(w, name, value)
	}
}

// unknownOption shows the value only where it is not one of a misspelt secret, pass or password.
func (p *parser) unknownOption(w word, name, value string) {
	text, fix := name+"=…", "options are tls, secret, source, helo, mx and case"
	switch near := p.nearest(name, optionNames); near {
	case "":
	case "secret":
		fix = "did you mean secret=env:NAME or secret=file:PATH?"
	default:
		text, fix = w.text, "did you mean "+near+"="+value+"?"
	}
	p.fail(w.col, text, "unknown option "+strconv.Quote(name), fix)
}

func (p *parser) tlsOption(h *Hop, w word, value string) {
	for m, name := range tlsNames[1:] {
		if value == name {
			h.TLS = TLSMode(m + 1)
			return
		}
	}
	fix := "write none, opportunistic, required, verified or dane"
	if near := p.nearest(value, tlsNames[1:]); near != "" {
		fix = "did you mean tls=" + near + "?"
	}
	p.fail(w.col, w.text, "unknown TLS mode", fix)
}

func (p *parser) secretOption(h *Hop, w word, ref string) {
	s, ok := p.secrets[ref]
	if !ok {
		var err error
		if s, err = ReadSecret(ref); err != nil {
			text, fix := w.text, "set it before the table is loaded"
			if !strings.HasPrefix(ref, "env:") && !strings.HasPrefix(ref, "file:") {
				text, fix = "secret=…", "write secret=env:NAME or secret=file:PATH, never the password itself"
			}
			p.fail(w.col, text, "the secret cannot be read: "+err.Error(), fix)
			return
		}
		p.secrets[ref] = s
	}
	h.Secret = s
}

func (p *parser) caseOption(w word, value string, place int) bool {
	switch {
	case value != "ignore" && value != "exact":
		p.fail(w.col, w.text, "case is ignore or exact", "write case=ignore to match the local part in any case")
	case place > 0:
		p.fail(w.col, w.text, "case is an option of the entry", "write it after the first hop")
	}
	return value == "ignore"
}

// checkHop tells what does not fit together in a hop.
func (p *parser) checkHop(h *Hop, w word) {
	smarthost := h.Kind == Smarthost
	switch {
	case h.Kind >= Reject && (h.TLS != TLSDefault || h.Source.IsValid() || h.HELO != ""):
		p.fail(w.col, w.text, "nothing is sent, and tls, source and helo mean nothing", "leave them out")
	case !smarthost && (!h.Secret.IsZero() || h.LookupMX):
		p.fail(w.col, w.text, "secret and mx are options of a smarthost", "leave them out")
	case h.User != "" && h.Secret.IsZero() && h.Host != "":
		p.fail(w.col, w.text, "the user has no secret", "write secret=env:NAME or secret=file:PATH")
	case h.User == "" && !h.Secret.IsZero():
		p.fail(w.col, w.text, "the secret has no user", "write "+h.Protocol.String()+"://USER@"+h.Host)
	case h.Protocol == SMTPS && (h.TLS == TLSNone || h.TLS == TLSOpportunistic):
		p.fail(w.col, w.text, "smtps is TLS from the start, and tls="+h.TLS.String()+" contradicts it", "write smtp://"+h.Host+" tls="+h.TLS.String())
	case h.Protocol == Submission && (h.TLS == TLSNone || h.TLS == TLSOpportunistic):
		p.fail(w.col, w.text, "submission requires TLS, and tls="+h.TLS.String()+" contradicts it", "write smtp://"+h.Host+":587 tls="+h.TLS.String())
	case h.LookupMX && h.IsUnix():
		p.fail(w.col, w.text, "a socket has no MX", "leave mx=yes out")
	}
}
