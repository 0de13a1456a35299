package deliver

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/sortie-mail/sortie/deliver/resolve"
	"github.com/sortie-mail/sortie/route"
)

// An Explanation is where a hop leads for the mail of a domain, as an attempt would find it at this moment.
type Explanation struct {
	Domain  string   // whose hosts these are, as DNS has it: the recipients' domain, or the smarthost
	Aliases []string // of the domain, that were followed to its MX records
	Secure  bool     // DNSSEC vouches for the MX records, or for their absence, according to a server that is trusted (resolve.Resolver)
	Hosts   []Host   // all that DNS names, best first
	Err     *Error   // why no host would be tried, and what an attempt would come to; nil where one would
}

// A Host is one that a hop leads to.
type Host struct {
	Name       string // or the path of a socket
	Port       uint16
	MX         bool   // an MX record names it
	Preference uint16 // of that record
	Aliases    []string
	Secure     bool             // DNSSEC vouches for its addresses, as for an Explanation
	Addrs      []netip.Addr     // that would be tried, in this order
	Refused    []RefusedAddress // that would not
	Err        *Error           // why the host would not be tried; nil where it would
}

// A RefusedAddress is one that no mail goes to, and why.
type RefusedAddress struct {
	Addr netip.Addr
	Why  string
}

// Explain tells where a hop leads for the mail of a recipient's domain, and what of it is refused. It asks DNS, and connects
// to no mail host. Hosts of equal preference come in an order of their own each time, and what is remembered of hosts that
// did not answer does not count. A hop that leads to no host, reject for one, has none in its Explanation.
func (d *Deliverer) Explain(ctx context.Context, hop route.Hop, domain string) Explanation {
	d.init()
	x := explainer{d: d, hop: &hop, answers: map[asked]resolve.Answer{}, budget: d.set.limits.Addresses}
	ctx = resolve.WithTrace(d.set.trace.lookups(ctx), &resolve.Trace{Answered: x.answered})
	var all []target
	switch hop.Kind {
	case route.MX:
		x.Domain = domain
		all, x.Err = d.mxCandidates(ctx, domain)
	case route.Smarthost:
		x.Domain = hop.Host
		all, x.Err = d.smarthostTargets(ctx, &hop, d.mxCandidates)
	default:
		return x.Explanation
	}
	if !strings.HasPrefix(x.Domain, "[") && !hop.IsUnix() {
		x.Domain = asciiDomain(x.Domain)
	}
	x.Aliases, x.Secure = x.known(x.Domain, dns.TypeMX)
	x.hosts(ctx, all)
	return x.Explanation
}

// asked is what DNS was.
type asked struct {
	name  string
	qtype uint16
}

// An explainer makes an Explanation.
type explainer struct {
	Explanation
	d       *Deliverer
	hop     *route.Hop
	answers map[asked]resolve.Answer
	left    int      // hosts that an attempt may try
	budget  int      // addresses that it may try
	tried   []*Error // what came of each that it would try
	loop    *Error   // from here on mail would come back
}

// answered keeps what DNS said.
func (x *explainer) answered(a resolve.Answer, err error) {
	if err == nil {
		x.answers[asked{a.Name, a.Type}] = a
	}
}

// known is what is to be told of the answers about a name.
func (x *explainer) known(name string, types ...uint16) (aliases []string, secure bool) {
	secure = true
	for _, t := range types {
		a, ok := x.answers[asked{name, t}]
		secure = secure && ok && a.Secure
		if ok {
			aliases = a.Aliases
		}
	}
	return aliases, secure
}

// hosts explains hosts in the order in which an attempt tries them, see attempt.hosts.
func (x *explainer) hosts(ctx context.Context, all []target) {
	targets, refused := chooseHosts(slices.Clone(all))
	x.left = min(len(targets), x.d.set.limits.Hosts)
	n := 0 // of targets that are explained
	for i := range all {
		t := &all[i]
		h := Host{Name: t.host, Port: t.port, MX: t.mx, Preference: t.preference, Err: t.err}
		if h.Err == nil {
			x.target(ctx, &h, targets[n:], n == 0 || targets[n-1].preference != t.preference)
			n++
		}
		x.Hosts = append(x.Hosts, h)
	}
	if refused != nil {
		x.Err = refused
	} else if n > 0 {
		x.Err = x.end(len(x.tried) == len(targets))
	}
}

// target explains the first of the targets that are left. It begins a preference, or not.
func (x *explainer) target(ctx context.Context, h *Host, rest []target, begins bool) {
	if x.loop == nil && x.left > 0 {
		x.loop = x.d.loops(ctx, rest, begins)
	}
	switch {
	case x.loop != nil:
		h.Err = x.loop
	case x.left == 0:
		h.Err = tempErr(StageRoute, "4.4.1", "an attempt tries %d hosts, and those before are better", x.d.set.limits.Hosts)
	default:
		x.left--
		x.host(ctx, &rest[0], h)
		x.tried = append(x.tried, h.Err)
	}
}

// end is what an attempt comes to where no host can be tried: the end of the last one, for good only if that was so of all
// that there are.
func (x *explainer) end(all bool) *Error {
	temporary := slices.ContainsFunc(x.tried, func(e *Error) bool { return e == nil || e.Temporary })
	switch {
	case slices.Contains(x.tried, nil):
		return nil
	case x.loop != nil && !temporary:
		return x.loop
	}
	last := *x.tried[len(x.tried)-1]
	if temporary || !all {
		return last.soften()
	}
	return &last
}

// host explains one host, of whose addresses two are left for each of the others.
func (x *explainer) host(ctx context.Context, t *target, h *Host) {
	if t.unix != "" {
		return
	}
	usable, e := x.d.usable(ctx, x.hop, t)
	h.Aliases, h.Secure = x.known(t.host, dns.TypeA, dns.TypeAAAA)
	if h.Err = e; e != nil {
		e.Host = t.host
	}
	n := min(len(usable), max(1, x.budget-2*x.left), x.budget)
	x.budget -= n
	h.Addrs = usable[:n]
	for _, addr := range interleave(t.addrs) {
		if !slices.Contains(h.Addrs, addr) {
			h.Refused = append(h.Refused, RefusedAddress{addr, x.why(t, addr)})
		}
	}
}

// why says why an address of a host would not be tried.
func (x *explainer) why(t *target, addr netip.Addr) string {
	if !t.free && !x.d.AllowPrivate && isPrivate(addr) {
		return "it leads nowhere on the internet"
	}
	if _, ok := x.hop.SourceFor(addr); !ok {
		return "the route has no source address of its family"
	}
	return fmt.Sprintf("an attempt tries %d addresses, and others are better", x.d.set.limits.Addresses)
}
