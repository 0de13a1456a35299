package route

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// smarthost reads what stands behind the scheme: [USER@]HOST[:PORT], or unix:/path.
func (p *parser) smarthost(h *Hop, w word, rest string) {
	var ok bool
	if h.User, rest, ok = p.user(w, rest, "secret"); !ok {
		return
	}
	if path, socket := strings.CutPrefix(rest, "unix:"); socket {
		if h.Protocol != LMTP || !strings.HasPrefix(path, "/") {
			p.fail(w.col, w.text, "a socket is reached by LMTP, at an absolute path", "write lmtp://unix:/run/lmtp.sock")
		}
		h.Host = path
		return
	}
	h.Host, h.Port, ok = p.hostPort(w, h.Protocol.String(), rest)
	if ok && h.Protocol == LMTP && h.Port == 0 {
		p.fail(w.col, w.text, "LMTP has no port of its own", "write lmtp://"+h.Host+":24, or lmtp://unix:/path")
	}
}

// user reads USER@ before a host, where it stands. secret is the option that the password belongs to.
func (p *parser) user(w word, text, secret string) (name, host string, ok bool) {
	user, host, found := cutLast(text, "@")
	if !found {
		return "", text, true
	}
	name, err := url.PathUnescape(user)
	switch {
	case strings.Contains(user, ":"):
		p.fail(w.col, w.text, "no password stands in a routing file",
			"write the user alone, and "+secret+"=env:NAME or "+secret+"=file:PATH")
		return "", host, false
	case err != nil || name == "" || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		p.fail(w.col, w.text, "the user before the @ cannot be read", "write %40 for an @ in it, %25 for a %")
		return "", host, false
	}
	return name, host, true
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return "", s, false
}

// hostPort reads HOST[:PORT]: the name as DNS has it, or an address without its brackets; 0 where there is no port.
func (p *parser) hostPort(w word, scheme, text string) (host string, port uint16, ok bool) {
	host, number, hasPort := text, "", false
	if strings.HasPrefix(text, "[") {
		end := strings.IndexByte(text, ']')
		if end < 0 {
			p.fail(w.col, w.text, "the [ is not closed", "write "+scheme+"://[2001:db8::1]:25")
			return "", 0, false
		}
		host, number = text[1:end], text[end+1:]
		if number, hasPort = strings.CutPrefix(number, ":"); !hasPort && number != "" {
			p.fail(w.col, w.text, "only :PORT may come after the ]", "write "+scheme+"://["+host+"]:25")
			return "", 0, false
		}
	} else if strings.Count(text, ":") == 1 {
		host, number, hasPort = strings.Cut(text, ":")
	}
	if hasPort {
		if port, ok = p.port(w, number); !ok {
			return "", 0, false
		}
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.String(), port, true
	}
	if key := domainKey(host); validDomain(key) {
		return key, port, true
	}
	p.fail(w.col, w.text, strconv.Quote(host)+" is no host name", "write "+scheme+"://mail.isp.example")
	return "", 0, false
}

func (p *parser) port(w word, number string) (uint16, bool) {
	n, err := strconv.ParseUint(number, 10, 16)
	if err == nil && n > 0 {
		return uint16(n), true
	}
	text := w.text
	if strings.Trim(number, "0123456789") != "" { // perhaps the beginning of a password with a blank in it
		text, number = strings.TrimSuffix(text, number)+"…", "…"
	}
	p.fail(w.col, text, strconv.Quote(number)+" is no port", "a port is a number from 1 to 65535")
	return 0, false
}
