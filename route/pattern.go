package route

import (
	"net/netip"
	"strings"

	"golang.org/x/net/idna"
)

// pattern is what a pattern's text means.
type pattern struct {
	rank rank
	key  string
}

// pattern reads a pattern, and tells what is wrong with it.
func (p *parser) pattern(w word) pattern {
	text, from := strings.CutPrefix(w.text, "from:")
	name, mx := strings.CutPrefix(w.text, "mx:")
	switch {
	case w.text == "*":
		return pattern{rankAll, ""}
	case mx:
		return p.mxPattern(w, name)
	case from && text == "<>":
		return pattern{rankFrom, ""}
	case from && text == "*":
		p.fail(w.col, w.text, "every sender is no pattern", "write * for all mail that no other entry matches")
		return pattern{}
	case text == "<>":
		p.fail(w.col, w.text, "the null sender is no recipient", "write from:<>")
		return pattern{}
	case strings.HasPrefix(text, "<") && strings.HasSuffix(text, ">"):
		p.fail(w.col, w.text, "an address stands without angle brackets", "write "+strings.TrimSuffix(w.text, text)+text[1:len(text)-1])
		return pattern{}
	}
	at := strings.LastIndexByte(text, '@')
	if at < 0 {
		p.noAt(w, text, from)
		return pattern{}
	}
	return p.addressPattern(w, text[:at], text[at+1:], from)
}

func (p *parser) addressPattern(w word, local, domain string, from bool) pattern {
	sub := false
	if local == "*" {
		domain, sub = strings.CutPrefix(domain, "*.")
	}
	key, ok := p.domain(w, domain)
	if !ok {
		return pattern{}
	}
	r := rankDomain
	switch {
	case sub && key[0] == '[':
		p.fail(w.col, w.text, "an address literal has no subdomains", "write *@"+domain)
		return pattern{}
	case sub:
		r = rankSub
	case local != "*":
		if !p.local(w, local, domain) {
			return pattern{}
		}
		r, key = rankAddress, local+"@"+key
	}
	if from {
		r += fromOf(r)
	}
	return pattern{r, key}
}

// local checks the local part of a pattern: atoms with dots between them, which are seen less narrowly in the field than in
// RFC 5321, section 4.1.2, or a quoted string.
func (p *parser) local(w word, local, domain string) bool {
	switch {
	case local == "":
		p.fail(w.col, w.text, "there is nothing before the @", "write *@"+domain+" for the whole domain")
	case local[0] == '"':
		if end, _ := quotedEnd(local); end == len(local) {
			return true
		}
		p.fail(w.col, w.text, "the quoted part does not reach to the @", "write \"…\"@"+domain)
	case strings.Contains(local, "*"):
		p.fail(w.col, w.text, "a local part is matched whole", "write *@"+domain+" for all of its addresses, or one address a line")
	case strings.ContainsAny(local, "()<>[]:;@\\\""):
		kind, rest, _ := strings.Cut(w.text, ":")
		if near := p.nearest(kind, []string{"from", "mx"}); near != "" && near != kind {
			p.fail(w.col, w.text, "no pattern begins with "+kind+":", "did you mean "+near+":"+rest+"?")
			return false
		}
		p.fail(w.col, w.text, "a character that needs double quotes stands before the @", "write "+quote(local)+"@"+domain)
	default:
		return true
	}
	return false
}

// quotedEnd is behind the quoted string with which s begins.
func quotedEnd(s string) (end int, closed bool) {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1, true
		}
	}
	return len(s), false
}

// fromOf is how far the rank for senders is from that for recipients.
func fromOf(r rank) rank {
	if r == rankAddress {
		return rankFrom - rankAddress
	}
	return 1
}

func (p *parser) mxPattern(w word, name string) pattern {
	rest, sub := strings.CutPrefix(name, "*.")
	if strings.Contains(name, "@") {
		p.fail(w.col, w.text, "mx: is followed by the name of an MX host", "write mx:*."+name[strings.LastIndexByte(name, '@')+1:])
		return pattern{}
	}
	if strings.Contains(rest, "*") || strings.HasPrefix(rest, "[") {
		p.fail(w.col, w.text, "mx: is followed by the name of an MX host, or by *. and the domain that it is in", "write mx:mx1.isp.example or mx:*.isp.example")
		return pattern{}
	}
	key, ok := p.domain(w, rest)
	if !ok {
		return pattern{}
	}
	if sub {
		return pattern{rankMXSub, key}
	}
	return pattern{rankMX, key}
}

// noAt tells how to write what was meant by a pattern without an @.
func (p *parser) noAt(w word, text string, from bool) {
	prefix := ""
	if from {
		prefix = "from:"
	}
	if kind, rest, ok := strings.Cut(w.text, ":"); ok && !from {
		if near := p.nearest(kind, []string{"from", "mx"}); near != "" {
			p.fail(w.col, w.text, "no pattern begins with "+kind+":", "did you mean "+near+":"+rest+"?")
			return
		}
	}
	domain, sub := text, false
	if domain, sub = strings.CutPrefix(text, "*."); !sub {
		domain, sub = strings.CutPrefix(text, ".")
	}
	fix := "write " + prefix + "*@" + domain + " for the domain, " + prefix + "*@*." + domain + " for its subdomains"
	if sub {
		fix = "write " + prefix + "*@*." + domain
	}
	p.fail(w.col, w.text, "a pattern has an @", fix)
}

// domain reads a domain of a pattern into the form of keys.
func (p *parser) domain(w word, domain string) (string, bool) {
	domain = strings.TrimSuffix(domain, ".")
	if strings.HasPrefix(domain, "[") && strings.HasSuffix(domain, "]") {
		return p.literal(w, domain)
	}
	if isAddr(domain) {
		p.fail(w.col, w.text, "an IP address is no domain", "write it as "+literalOf(domain))
		return "", false
	}
	if strings.Contains(domain, "*") {
		p.fail(w.col, w.text, "a * stands alone before the @, or before the first dot of the domain", "write *@domain, *@*.domain or *")
		return "", false
	}
	key := strings.ToLower(domain)
	if !isASCII(domain) {
		a, err := idna.Lookup.ToASCII(domain)
		if err != nil {
			p.fail(w.col, w.text, "no domain name: "+strings.TrimPrefix(err.Error(), "idna: "), "write the domain as it stands in addresses")
			return "", false
		}
		key = a
	}
	if !validDomain(key) {
		p.fail(w.col, w.text, "no domain name", "a domain has labels of 1 to 63 letters, digits and hyphens, with dots between them")
		return "", false
	}
	return key, true
}

// literal reads an address literal (RFC 5321, section 4.1.3).
func (p *parser) literal(w word, domain string) (string, bool) {
	key := strings.ToLower(domain)
	text, v6 := strings.CutPrefix(key[1:len(key)-1], "ipv6:")
	if addr, err := netip.ParseAddr(text); err != nil || addr.Is4() == v6 || addr.Zone() != "" {
		p.fail(w.col, w.text, "no address literal", "write [192.0.2.1] or [IPv6:2001:db8::1]")
		return "", false
	}
	return key, true
}

// isAddr reports whether a domain is an IP address. Top-level domains have no digit at their end.
func isAddr(domain string) bool {
	if domain == "" || !strings.Contains(domain, ":") && (domain[len(domain)-1] < '0' || domain[len(domain)-1] > '9') {
		return false
	}
	_, err := netip.ParseAddr(domain)
	return err == nil
}

func literalOf(addr string) string {
	if strings.Contains(addr, ":") {
		return "[IPv6:" + addr + "]"
	}
	return "[" + addr + "]"
}

func validDomain(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}
