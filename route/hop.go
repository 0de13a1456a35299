package route

import (
	"net"
	"strconv"
	"strings"
)

// table of names: the index is the constant.
var (
	kindNames      = [...]string{MX: "direct", Smarthost: "smarthost", Reject: "reject", Hold: "hold", Discard: "discard"}
	conditionNames = [...]string{Always: "always", OnBlocked: "blocked", OnUnreachable: "unreachable", OnTempfail: "tempfail", OnAny: "any"}
	protocolNames  = [...]string{SMTP: "smtp", Submission: "submission", SMTPS: "smtps", LMTP: "lmtp"}
	protocolPorts  = [...]uint16{SMTP: 25, Submission: 587, SMTPS: 465, LMTP: 0}
	tlsNames       = [...]string{TLSDefault: "default", TLSNone: "none", TLSOpportunistic: "opportunistic", TLSRequired: "required", TLSVerified: "verified", TLSDANE: "dane"}
)

// String is the word of the routing file; a Smarthost has none there.
func (k Kind) String() string { return kindNames[k] }

// String is the word behind "on".
func (c Condition) String() string { return conditionNames[c] }

// String is the URL scheme.
func (p Protocol) String() string { return protocolNames[p] }

// String is the value of the option tls.
func (m TLSMode) String() string { return tlsNames[m] }

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
	var b strings.Builder
	b.WriteString(h.Protocol.String() + "://")
	if h.User != "" {
		b.WriteString(escapeUser(h.User) + "@")
	}
	switch {
	case h.IsUnix():
		b.WriteString("unix:" + h.Host)
	case h.Port != 0:
		b.WriteString(net.JoinHostPort(h.Host, strconv.Itoa(int(h.Port))))
	case strings.Contains(h.Host, ":"):
		b.WriteString("[" + h.Host + "]")
	default:
		b.WriteString(h.Host)
	}
	return b.String()
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
	if h.Source.IsValid() {
		all = append(all, option{"source", h.Source.String()})
	}
	if h.HELO != "" {
		all = append(all, option{"helo", h.HELO})
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
