package route

import (
	"context"
	"net/netip"
)

// A Query asks where one recipient's mail goes.
type Query struct {
	Sender    string // reverse-path without angle brackets; "" is the null sender
	Recipient string // forward-path without angle brackets
}

// A Router decides where mail goes. Implementations are safe for concurrent use.
//
// An error means that the decision could not be made now (for instance because DNS did not answer an mx:
// pattern): the caller treats it as temporary and asks again later. A recipient that must not be sent
// anywhere is not an error but a [Route] with a [Reject] hop.
type Router interface {
	Route(ctx context.Context, q Query) (Route, error)
}

// Direct is the Router that sends everything to the recipient domain's mail exchangers.
var Direct Router = directRouter{}

type directRouter struct{}

var directHops = []Hop{{Kind: MX}}

func (directRouter) Route(context.Context, Query) (Route, error) { return Route{Hops: directHops}, nil }

// A Route is where a recipient's mail goes: hops in the order in which they are tried, and the entry they
// came from. The hops are shared with the table and must not be changed.
type Route struct {
	Hops    []Hop
	Pattern string // the pattern that matched, as written; "" when no entry did and mail goes direct, and of ParseRoute
	File    string // where the entry stands; "" when it came from no file
	Line    int    // 1-based
}

// Route makes a Route a [Router], which sends everything its way: one that [ParseRoute] read can stand where a table does.
func (r Route) Route(context.Context, Query) (Route, error) { return r, nil }

// Kind says what a hop does with mail.
type Kind uint8

const (
	MX        Kind = iota // to the recipient domain's mail exchangers ("direct"); the zero value
	Smarthost             // to the host that the hop names
	Reject                // fail it with the hop's reply
	Hold                  // keep it until a person, or a changed route, releases it
	Discard               // accept and forget it
)

// Condition says after which outcome of the hop before it a hop is tried.
type Condition uint8

const (
	Always        Condition = iota // the first hop of a route has no condition
	OnBlocked                      // the refusal is about our address or its reputation
	OnUnreachable                  // no connection to any host could be made
	OnTempfail                     // any temporary failure
	OnAny                          // any failure
)

// Protocol is how a smarthost is spoken to: the scheme of its URL.
type Protocol uint8

const (
	SMTP       Protocol = iota // port 25, opportunistic STARTTLS
	Submission                 // port 587, STARTTLS required (RFC 6409)
	SMTPS                      // port 465, TLS from the start (RFC 8314)
	LMTP                       // no default port, or a unix socket (RFC 2033)
)

// TLSMode is what a hop asks of TLS.
type TLSMode uint8

const (
	TLSDefault       TLSMode = iota // what the protocol says: opportunistic for direct and smtp, required for submission and smtps
	TLSNone                         // never
	TLSOpportunistic                // where offered, any certificate, else in the clear (RFC 7435)
	TLSRequired                     // always, any certificate
	TLSVerified                     // always, with a certificate that is valid for the host's name
	TLSDANE                         // always, with a certificate that DANE vouches for (RFC 7672)
)

// Auth is the mechanism of a login (RFC 4954). Secrets are the hop's or, of tokens, those of a token source.
type Auth uint8

const (
	AuthDefault     Auth = iota // the safest that the host offers and the credentials fit
	AuthPlain                   // a password in clear text (RFC 4616)
	AuthLogin                   // the same in two parts
	AuthCRAMMD5                 // a password that is not shown (RFC 2195)
	AuthSCRAMSHA256             // one that the host proves to know (RFC 7677)
	AuthXOAUTH2                 // an access token, as Google and Microsoft began it
	AuthOAuthBearer             // an access token (RFC 7628)
	AuthExternal                // the client certificate of TLS (RFC 4422, appendix A)
)

// A Hop is one way for mail to go.
type Hop struct {
	Kind     Kind
	On       Condition
	Protocol Protocol // of a Smarthost
	Host     string   // of a Smarthost: A-label name, IP address without brackets, or the path of a unix socket
	Port     uint16   // of a Smarthost; 0 is the protocol's own
	LookupMX bool     // the smarthost's name is a domain to look up by MX (mx=yes)
	TLS      TLSMode
	User     string // who to log in as; "" is no login, but with AuthExternal whom the certificate names
	Secret   Secret // the password or, with AuthXOAUTH2 and AuthOAuthBearer, the access token, by reference
	Auth     Auth   // how to log in, whatever else the host offers

	// Source is the address to connect from; the zero Addr lets the system choose. Source6 is the IPv6 one beside an IPv4
	// Source. Where only one is set, addresses of the other family are not connected to. See SourceFor.
	Source, Source6 netip.Addr
	// HELO is the name to greet with; "" is the host's own. HELO6 is another one for connections over IPv6. See HELOFor.
	HELO, HELO6 string
	Proxy       Proxy // what to connect through; the zero Proxy is none

	NoPipelining bool // one command at a time, whatever the host offers (pipelining=no)
	NoChunking   bool // DATA and no BDAT, whatever the host offers (chunking=no)

	Reply string // of a Reject: "550 5.1.2 text"
}

// A Proxy is a SOCKS 5 server (RFC 1928) that connects for us. It is given addresses, never names: what DNS says of a host
// is judged on this side.
type Proxy struct {
	Host   string // A-label name, or IP address without brackets
	Port   uint16 // 0 is 1080
	User   string // who to log in as (RFC 1929); "" is no login
	Secret Secret // the password, by reference
}
