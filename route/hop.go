package route

import (
	"cmp"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// table of names: the index is the constant.
var (
	kindNames      = [...]string{MX: "direct", Smarthost: "smarthost", Reject: "reject", Hold: "hold", Discard: "discard"}
	conditionNames = [...]string{Always: "always", OnBlocked: "blocked", OnUnreachable: "unreachable", OnTempfail: "tempfail", OnAny: "any"}
	protocolNames  = [...]string{SMTP: "smtp", Submission: "submission", SMTPS: "smtps", LMTP: "lmtp"}
	protocolPorts  = [...]uint16{SMTP: 25, Submission: 587, SMTPS: 465, LMTP: 0}
	authNames      = [...]string{
		AuthDefault: "default", AuthPlain: "plain", AuthLogin: "login", AuthCRAMMD5: "cram-md5", AuthSCRAMSHA256: "scram-sha-256",
		AuthXOAUTH2: "xoauth2", AuthOAuthBearer: "oauthbearer", AuthExternal: "external",
	}
	tlsNames = [...]string{TLSDefault: "default", TLSNone: "none", TLSOpportunistic: "opportunistic", TLSRequired: "required", TLSVerified: "verified", TLSDANE: "dane"}
)

// String is the word of the routing file; a Smarthost has none there.
func (k Kind) String() string { return kindNames[k] }

// String is the word behind "on".
func (c Condition) String() string { return conditionNames[c] }

// String is the URL scheme.
func (p Protocol) String() string { return protocolNames[p] }

// String is the value of the option tls.
func (m TLSMode) String() string { return tlsNames[m] }

// String is the value of the option auth: the name of the mechanism, in lower case.
func (a Auth) String() string { return authNames[a] }

// LogsIn reports whether the hop logs in at its host.
func (h *Hop) LogsIn() bool { return h.User != "" || h.Auth != AuthDefault }

// Mode is what the hop asks of TLS, with the default of its protocol filled in.
func (h *Hop) Mode() TLSMode {
	switch {
	case h.TLS != TLSDefault:
		return h.TLS
	case h.Kind == Smarthost && (h.Protocol == Submission || h.Protocol == SMTPS):
		return TLSRequired
	}
	return TLSOpportunistic
}

// EffectivePort is the smarthost's port, with the default of its protocol filled in; 0 for a unix socket.
func (h *Hop) EffectivePort() uint16 {
	if h.Port != 0 || h.IsUnix() {
		return h.Port
	}
	return protocolPorts[h.Protocol]
}

// IsUnix reports whether the smarthost is a unix socket, whose path is Host.
func (h *Hop) IsUnix() bool { return h.Kind == Smarthost && strings.HasPrefix(h.Host, "/") }

// URL is the smarthost as the routing file names it, "" of other hops. The secret is not part of it.
func (h *Hop) URL() string {
	if h.Kind != Smarthost {
		return ""
	}
	place := "unix:" + h.Host
	if !h.IsUnix() {
		place = hostPort(h.Host, h.Port)
	}
	return h.Protocol.String() + "://" + userAt(h.User) + place
}

func userAt(user string) string {
	if user == "" {
		return ""
	}
	return escapeUser(user) + "@"
}

// hostPort is a host, with its port unless that is 0.
func hostPort(host string, port uint16) string {
	switch {
	case port != 0:
		return net.JoinHostPort(host, strconv.Itoa(int(port)))
	case strings.Contains(host, ":"):
		return "[" + host + "]"
	}
	return host
}

// SourceFor is the address to connect from to an address of a host; the zero Addr lets the system choose. ok is false where
// the hop has source addresses, and none of the family.
func (h *Hop) SourceFor(to netip.Addr) (source netip.Addr, ok bool) {
	for _, source := range []netip.Addr{h.Source, h.Source6} {
		if source.IsValid() && source.Unmap().Is4() == to.Unmap().Is4() {
			return source, true
		}
	}
	return netip.Addr{}, !h.Source.IsValid() && !h.Source6.IsValid()
}

// HELOFor is the name to greet an address of a host with; "" is the host's own. It is HELO, and HELO6 over IPv6 where that
// is set.
func (h *Hop) HELOFor(to netip.Addr) string {
	if to.Is6() && !to.Is4In6() {
		return cmp.Or(h.HELO6, h.HELO)
	}
	return h.HELO
}

// proxyPort is the port that SOCKS servers have (RFC 1928, section 3).
const proxyPort = 1080

// IsZero reports whether there is no proxy.
func (x Proxy) IsZero() bool { return x.Host == "" }

// Address is the proxy's host:port, with the default port filled in.
func (x Proxy) Address() string {
	return net.JoinHostPort(x.Host, strconv.Itoa(int(cmp.Or(x.Port, proxyPort))))
}

// String is the proxy as the routing file names it, "" of none. The secret is not part of it.
func (x Proxy) String() string {
	if x.IsZero() {
		return ""
	}
	return "socks5://" + userAt(x.User) + hostPort(x.Host, x.Port)
}

// String is the hop as the routing file writes it, with the reference of its secret.
func (h Hop) String() string {
	var parts []string
	if h.On != Always {
		parts = append(parts, "on "+h.On.String())
	}
	switch h.Kind {
	case Smarthost:
		parts = append(parts, quoteIfNeeded(h.URL()))
	case Reject:
		parts = append(parts, "reject "+quote(h.Reply))
	default:
		parts = append(parts, h.Kind.String())
	}
	for _, o := range h.options() {
		parts = append(parts, o.name+"="+quoteIfNeeded(o.value))
	}
	return strings.Join(parts, " ")
}

type option struct{ name, value string }

func (h *Hop) options() (all []option) {
	if h.TLS != TLSDefault {
		all = append(all, option{"tls", h.TLS.String()})
	}
	if !h.Secret.IsZero() {
		all = append(all, option{"secret", h.Secret.String()})
	}
	if h.Auth != AuthDefault {
		all = append(all, option{"auth", h.Auth.String()})
	}
	for _, source := range []netip.Addr{h.Source, h.Source6} {
		if source.IsValid() {
			all = append(all, option{"source", source.String()})
		}
	}
	for _, o := range []option{{"helo", h.HELO}, {"helo6", h.HELO6}, {"proxy", h.Proxy.String()}, {"proxy-secret", h.Proxy.Secret.String()}} {
		if o.value != "" {
			all = append(all, o)
		}
	}
	if h.NoPipelining {
		all = append(all, option{"pipelining", "no"})
	}
	if h.NoChunking {
		all = append(all, option{"chunking", "no"})
	}
	if h.LookupMX {
		all = append(all, option{"mx", "yes"})
	}
	return all
}

func quoteIfNeeded(s string) string {
	if strings.ContainsAny(s, " \t,\"\\") || strings.HasPrefix(s, "#") {
		return quote(s)
	}
	return s
}

// String is the route's hops as the routing file writes them. Two routes with the same String send mail the same way.
func (r Route) String() string {
	hops := make([]string, len(r.Hops))
	for i, h := range r.Hops {
		hops[i] = h.String()
	}
	return strings.Join(hops, ", ")
}

// Where is the entry that the route came from, "routes:3: *@aol.com"; "no entry" where none matched.
func (r Route) Where() string {
	if r.Pattern == "" {
		return "no entry"
	}
	if r.File == "" {
		return r.Pattern
	}
	return r.File + ":" + strconv.Itoa(r.Line) + ": " + r.Pattern
}

// escapeUser writes a login name for a URL: everything that would end it is percent-encoded.
func escapeUser(user string) string {
	var b strings.Builder
	for i := range len(user) {
		switch c := user[i]; {
		case c <= ' ' || c >= 0x7f || strings.IndexByte("%@:/[]\"\\,#", c) >= 0:
			b.WriteString("%" + strings.ToUpper(strconv.FormatUint(uint64(c)+0x100, 16)[1:]))
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
