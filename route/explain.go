package route

import (
	"context"
	"fmt"
	"strings"
)

// Explain says in a few lines where a recipient's mail goes and why: the entry that decided, and its hops in the order
// in which they are tried. It fails as Route does.
func (t *Table) Explain(ctx context.Context, q Query) (string, error) {
	r, err := t.Route(ctx, q)
	if err != nil {
		return "", err
	}
	return Explain(q, r), nil
}

// Explain says in a few lines what a route means for a query.
func Explain(q Query, r Route) string {
	var b strings.Builder
	fmt.Fprintf(&b, "mail from <%s> to <%s>\n", q.Sender, q.Recipient)
	switch {
	case r.Pattern != "":
		fmt.Fprintf(&b, "  by %s\n", r.Where())
	case len(r.Hops) == 1 && r.Hops[0] == directHops[0]:
		b.WriteString("  no entry matches, so it goes direct\n")
	default:
		b.WriteString("  by a route of the program, and no entry\n")
	}
	for i, h := range r.Hops {
		fmt.Fprintf(&b, "  %d. %s\n", i+1, h.explain(q.Recipient))
	}
	return b.String()
}

var conditionWords = [...]string{
	OnBlocked:     "if our address is refused for its reputation, ",
	OnUnreachable: "if no host can be reached, ",
	OnTempfail:    "if it fails for now, ",
	OnAny:         "if it fails, ",
}

var tlsWords = [...]string{
	TLSNone:          "without TLS",
	TLSOpportunistic: "with TLS where it is offered",
	TLSRequired:      "with TLS or not at all",
	TLSVerified:      "with TLS and a valid certificate or not at all",
	TLSDANE:          "with TLS that DANE vouches for or not at all",
}

func (h *Hop) explain(recipient string) string {
	when := conditionWords[h.On]
	switch h.Kind {
	case Reject:
		return when + "fail it: " + h.Reply
	case Hold:
		return when + "hold it"
	case Discard:
		return when + "discard it"
	case MX:
		domain := recipient[strings.LastIndexByte(recipient, '@')+1:]
		return when + "to the mail exchangers of " + domainKey(domain) + ", " + tlsWords[h.Mode()] + h.explainRest()
	}
	lookup := ""
	if h.LookupMX {
		lookup = " (by its MX records)"
	}
	return when + "through " + h.URL() + lookup + ", " + tlsWords[h.Mode()] + h.explainRest()
}

func (h *Hop) explainRest() string {
	var b strings.Builder
	if !h.Secret.IsZero() {
		what := "password"
		if h.Auth == AuthXOAUTH2 || h.Auth == AuthOAuthBearer {
			what = "token"
		}
		b.WriteString(", " + what + " from " + h.Secret.String())
	}
	if h.Auth != AuthDefault {
		b.WriteString(", login by " + strings.ToUpper(h.Auth.String()))
	}
	if h.Source.IsValid() {
		b.WriteString(", from " + h.Source.String())
	}
	if h.Source6.IsValid() {
		b.WriteString(" and " + h.Source6.String())
	}
	if h.HELO != "" {
		b.WriteString(", as " + h.HELO)
	}
	if h.HELO6 != "" {
		b.WriteString(", over IPv6 as " + h.HELO6)
	}
	if !h.Proxy.IsZero() {
		b.WriteString(", by way of " + h.Proxy.String())
	}
	if !h.Proxy.Secret.IsZero() {
		b.WriteString(" with the password from " + h.Proxy.Secret.String())
	}
	if h.NoPipelining {
		b.WriteString(", one command at a time")
	}
	if h.NoChunking {
		b.WriteString(", without BDAT")
	}
	return b.String()
}
