package route

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// optionNames are what an option can be called; port is one that stands elsewhere.
var optionNames = []string{
	"tls", "secret", "auth", "source", "helo", "helo6", "proxy", "proxy-secret", "pipelining", "chunking", "mx", "case", "port",
}

var optionList = "options are " + strings.Join(optionNames[:len(optionNames)-2], ", ") + " and case"

func (p *parser) option(h *Hop, w word, name, value string) {
	switch name {
	case "tls":
		p.tlsOption(h, w, value)
	case "secret":
		h.Secret = p.secretOption(w, name, value)
	case "auth":
		p.authOption(h, w, value)
	case "source":
		p.sourceOption(h, w, value)
	case "helo":
		h.HELO = p.heloOption(w, name, value)
	case "helo6":
		h.HELO6 = p.heloOption(w, name, value)
	case "proxy":
		p.proxyOption(h, w, value)
	case "proxy-secret":
		h.Proxy.Secret = p.secretOption(w, name, value)
	case "pipelining":
		h.NoPipelining = !p.yesOrNo(w, name, value, "write pipelining=no for a host that loses commands sent together")
	case "chunking":
		h.NoChunking = !p.yesOrNo(w, name, value, "write chunking=no for a host that fails at BDAT")
	case "mx":
		h.LookupMX = p.yesOrNo(w, name, value, "write mx=yes to look the smarthost up by MX")
	case "port":
		p.fail(w.col, w.text, "the port stands in the URL", "write "+h.Protocol.String()+"://"+h.Host+":"+value)
	default:
		p.unknownOption(w, name, value)
	}
}

func (p *parser) yesOrNo(w word, name, value, fix string) bool {
	if value != "yes" && value != "no" {
		p.fail(w.col, w.text, name+" is yes or no", fix)
	}
	return value == "yes"
}

// unknownOption shows the value only where it is not one of a misspelt secret, pass or password.
func (p *parser) unknownOption(w word, name, value string) {
	text, fix := name+"=…", optionList
	switch near := p.nearest(name, optionNames); near {
	case "":
	case "secret", "proxy-secret":
		fix = "did you mean " + near + "=env:NAME or " + near + "=file:PATH?"
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

func (p *parser) authOption(h *Hop, w word, value string) {
	for a, name := range authNames[1:] {
		if strings.EqualFold(value, name) {
			h.Auth = Auth(a + 1)
			return
		}
	}
	fix := "write " + strings.Join(authNames[1:len(authNames)-1], ", ") + " or external"
	if near := p.nearest(strings.ToLower(value), authNames[1:]); near != "" {
		fix = "did you mean auth=" + near + "?"
	}
	p.fail(w.col, w.text, "unknown way to log in", fix)
}

func (p *parser) secretOption(w word, name, ref string) Secret {
	if s, ok := p.secrets[ref]; ok {
		return s
	}
	s, err := ReadSecret(ref)
	if err != nil {
		text, fix := w.text, "set it before the table is loaded"
		if !strings.HasPrefix(ref, "env:") && !strings.HasPrefix(ref, "file:") {
			text, fix = name+"=…", "write "+name+"=env:NAME or "+name+"=file:PATH, never the password itself"
		}
		p.fail(w.col, text, "the secret cannot be read: "+err.Error(), fix)
		return Secret{}
	}
	p.secrets[ref] = s
	return s
}

// sourceOption reads an address to connect from: one, or one of each family. Of two, Source6 is the IPv6 one.
func (p *parser) sourceOption(h *Hop, w word, value string) {
	addr, err := netip.ParseAddr(value)
	if err != nil {
		p.fail(w.col, w.text, "no IP address", "write the address of this machine to connect from: source=192.0.2.1")
		return
	}
	addr = addr.Unmap()
	for _, other := range []netip.Addr{h.Source, h.Source6} {
		if other.IsValid() && other.Is4() == addr.Is4() {
			p.fail(w.col, w.text, "source="+other.String()+" and source="+addr.String()+" are of the same family",
				"leave one out: there may be one IPv4 and one IPv6 address")
			return
		}
	}
	switch {
	case !h.Source.IsValid():
		h.Source = addr
	case addr.Is4():
		h.Source, h.Source6 = addr, h.Source
	default:
		h.Source6 = addr
	}
}

func (p *parser) heloOption(w word, name, value string) string {
	helo := domainKey(value)
	if !validDomain(helo) {
		p.fail(w.col, w.text, "no host name", "write the name to greet with: "+name+"=mail.example.org")
	}
	return helo
}

// proxyOption reads socks5://[USER@]HOST[:PORT].
func (p *parser) proxyOption(h *Hop, w word, value string) {
	scheme, rest, ok := strings.Cut(value, "://")
	switch {
	case !ok:
		p.fail(w.col, w.text, "a proxy is a URL", "write proxy=socks5://HOST:1080")
		return
	case strings.EqualFold(scheme, "socks5h"): // as curl has it
		p.fail(w.col, w.text, "names are looked up on this side, where the rules for MX hosts are kept", "write proxy=socks5://"+rest)
		return
	case !strings.EqualFold(scheme, "socks5"):
		p.fail(w.col, w.text, "a proxy is spoken to by SOCKS 5 (RFC 1928)", "write proxy=socks5://"+rest)
		return
	}
	if h.Proxy.User, rest, ok = p.user(w, rest, "proxy-secret"); ok {
		h.Proxy.Host, h.Proxy.Port, _ = p.hostPort(w, "socks5", rest)
	}
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
	case h.Kind >= Reject && h.sends():
		p.fail(w.col, w.text, "nothing is sent, and its options mean nothing", "leave them out")
	case !smarthost && (!h.Secret.IsZero() || h.Auth != AuthDefault || h.LookupMX):
		p.fail(w.col, w.text, "secret, auth and mx are options of a smarthost", "leave them out")
	case p.wrongLogin(h, w):
	case h.Protocol == SMTPS && (h.TLS == TLSNone || h.TLS == TLSOpportunistic):
		p.fail(w.col, w.text, "smtps is TLS from the start, and tls="+h.TLS.String()+" contradicts it", "write smtp://"+h.Host+" tls="+h.TLS.String())
	case h.Protocol == Submission && (h.TLS == TLSNone || h.TLS == TLSOpportunistic):
		p.fail(w.col, w.text, "submission requires TLS, and tls="+h.TLS.String()+" contradicts it", "write smtp://"+h.Host+":587 tls="+h.TLS.String())
	case h.LookupMX && h.IsUnix():
		p.fail(w.col, w.text, "a socket has no MX", "leave mx=yes out")
	case h.Proxy != Proxy{}:
		p.checkProxy(h, w)
	}
}

// wrongLogin tells what does not fit together in a login, and reports whether there is such a thing.
func (p *parser) wrongLogin(h *Hop, w word) bool {
	before := p.mistakes()
	external := h.Auth == AuthExternal
	bySecret := !external && h.Auth != AuthXOAUTH2 && h.Auth != AuthOAuthBearer // others may have a token source
	switch {
	case external && !h.Secret.IsZero():
		p.fail(w.col, w.text, "auth=external logs in by the client certificate of TLS, and has no secret", "leave the secret out")
	case external && h.TLS == TLSNone:
		p.fail(w.col, w.text, "auth=external logs in by the client certificate of TLS, and tls=none contradicts it", "leave one of the two out")
	case h.User == "" && !h.Secret.IsZero():
		p.fail(w.col, w.text, "the secret has no user", "write "+h.Protocol.String()+"://USER@"+h.Host)
	case h.User == "" && h.LogsIn() && !external:
		p.fail(w.col, w.text, "auth="+h.Auth.String()+" has no user", "write "+h.Protocol.String()+"://USER@"+h.Host)
	case h.User != "" && h.Secret.IsZero() && bySecret:
		p.fail(w.col, w.text, "the user has no secret", "write secret=env:NAME or secret=file:PATH")
	}
	return p.mistakes() > before
}

// sends reports whether a hop has options that are about connections.
func (h *Hop) sends() bool {
	plain := *h
	plain.Kind, plain.On, plain.Reply = 0, 0, ""
	plain.Secret, plain.Auth, plain.LookupMX = Secret{}, AuthDefault, false // which have a mistake of their own
	return plain != Hop{}
}

// maxProxyWord is how many octets the user and the password of a proxy have at most (RFC 1929, section 2).
const maxProxyWord = 255

func (p *parser) checkProxy(h *Hop, w word) {
	x := h.Proxy
	switch {
	case x.Host == "":
		p.fail(w.col, w.text, "there is a proxy-secret and no proxy", "write proxy=socks5://USER@HOST:1080")
	case x.User == "" && !x.Secret.IsZero():
		p.fail(w.col, w.text, "the proxy-secret has no user", "write proxy=socks5://USER@"+x.Host)
	case x.User != "" && x.Secret.IsZero():
		p.fail(w.col, w.text, "the proxy's user has no secret", "write proxy-secret=env:NAME or proxy-secret=file:PATH")
	case len(x.User) > maxProxyWord || len(x.Secret.Value()) > maxProxyWord:
		p.fail(w.col, w.text, fmt.Sprintf("the proxy's user or its secret is longer than %d octets (RFC 1929)", maxProxyWord), "choose shorter ones")
	case h.IsUnix():
		p.fail(w.col, w.text, "a socket is not behind a proxy", "leave proxy out")
	case h.Source.IsValid():
		p.fail(w.col, w.text, "it is the proxy that connects to the host, and source means nothing", "leave source out, or proxy")
	}
}
