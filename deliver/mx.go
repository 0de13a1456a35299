package deliver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"

	"github.com/sortie-mail/sortie/deliver/resolve"
	"github.com/sortie-mail/sortie/route"
)

// A target is a host to try.
type target struct {
	host  string
	port  uint16
	addrs []netip.Addr // known already; otherwise they are looked up when it is the host's turn
	unix  string       // path of a socket, instead of all else
	free  bool         // its addresses are not a stranger's to choose: they may be private
}

// mxTargets finds the hosts for a domain, best first (RFC 5321, section 5.1).
func (d *Deliverer) mxTargets(ctx context.Context, domain string) ([]target, *Error) {
	if strings.HasPrefix(domain, "[") {
		return d.literalTarget(domain)
	}
	ascii := asciiDomain(domain)
	records, err := d.Resolver.LookupMX(ctx, ascii)
	if err != nil {
		return nil, lookupError(ascii, "MX", err)
	}
	hosts, refused := d.chooseHosts(ascii, records)
	if d.Trace.Hosts != nil {
		d.Trace.Hosts(ascii, hosts)
	}
	if refused != nil {
		return nil, refused
	}
	targets := make([]target, 0, len(hosts))
	for _, h := range hosts[:min(len(hosts), d.Limits.Hosts)] {
		targets = append(targets, target{host: h, port: d.Port})
	}
	return targets, nil
}

// MXHosts gives the names of a domain's MX hosts, best first and equal ones in any order, so that a Deliverer serves as the
// MXLookup of package route. A domain has none, and no error, without MX records, with a null MX, and where it does not
// exist: delivery itself will say so. Trouble with DNS is an error.
func (d *Deliverer) MXHosts(ctx context.Context, domain string) ([]string, error) {
	d.init()
	if strings.HasPrefix(domain, "[") {
		return nil, nil
	}
	records, err := d.Resolver.LookupMX(ctx, asciiDomain(domain))
	if err != nil {
		if e := lookupError(domain, "MX", err); e.Temporary {
			return nil, e
		}
		return nil, nil
	}
	var hosts []string
	for _, mx := range inOrder(records) {
		if mx.Host != "" {
			hosts = append(hosts, mx.Host)
		}
	}
	return hosts, nil
}

// asciiDomain is a domain as DNS has it (RFC 5890, section 2.3.2.1).
func asciiDomain(domain string) string {
	domain = strings.TrimSuffix(domain, ".")
	if ascii, err := idna.Lookup.ToASCII(domain); err == nil {
		return ascii
	}
	return strings.ToLower(domain)
}

// inOrder sorts MX records by preference, equal ones shuffled (RFC 5321, section 5.1).
func inOrder(records []resolve.MX) []resolve.MX {
	records = slices.Clone(records)
	rand.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
	slices.SortStableFunc(records, func(a, b resolve.MX) int { return cmp.Compare(a.Preference, b.Preference) })
	return records
}

// chooseHosts puts MX hosts in order. Without records the domain is its own host (RFC 5321, section 5.1).
func (d *Deliverer) chooseHosts(domain string, records []resolve.MX) ([]string, *Error) {
	if len(records) == 0 {
		return []string{domain}, nil
	}
	if len(records) == 1 && records[0].Host == "" { // RFC 7505: a lone null MX
		return nil, permErr(StageRoute, "5.1.10", "556 the domain %s accepts no mail: it has a null MX record", domain)
	}
	records = inOrder(records)
	var hosts []string
	for i, mx := range records {
		if strings.EqualFold(strings.TrimSuffix(mx.Host, "."), d.Hostname) {
			return d.beforeOwn(domain, records[:i], mx.Preference)
		}
		if mx.Host != "" {
			hosts = append(hosts, mx.Host)
		}
	}
	if len(hosts) == 0 {
		return nil, permErr(StageRoute, "5.4.4", "the MX records of %s name no host", domain)
	}
	return hosts, nil
}

// beforeOwn are the hosts of higher priority than our own, which is one of the domain's MX hosts. Those of equal or
// lower priority would send the mail back to us (RFC 5321, section 5.1).
func (d *Deliverer) beforeOwn(domain string, better []resolve.MX, own uint16) ([]string, *Error) {
	var hosts []string
	for _, mx := range better {
		if mx.Preference < own && mx.Host != "" {
			hosts = append(hosts, mx.Host)
		}
	}
	if len(hosts) == 0 {
		return nil, permErr(StageRoute, "5.4.6", "mail for %s loops back to this host, %s, which is its best MX host", domain, d.Hostname)
	}
	return hosts, nil
}

// literalTarget is the address of user@[192.0.2.1] or user@[IPv6:2001:db8::1] (RFC 5321, section 4.1.3).
func (d *Deliverer) literalTarget(domain string) ([]target, *Error) {
	inner := strings.Trim(domain, "[]")
	v6 := len(inner) > 5 && strings.EqualFold(inner[:5], "IPv6:")
	if v6 {
		inner = inner[5:]
	}
	addr, err := netip.ParseAddr(inner)
	if err != nil || addr.Zone() != "" || (v6 && !addr.Is6()) || (!v6 && !addr.Is4()) {
		return nil, permErr(StageRoute, "5.1.3", "%s is no address literal: write [192.0.2.1] or [IPv6:2001:db8::1]", domain)
	}
	return []target{{host: domain, port: d.Port, addrs: []netip.Addr{addr.Unmap()}}}, nil
}

// smarthostTargets finds the hosts of a smarthost. Whatever is wrong with its name is the route's trouble and never fails
// a recipient.
func (d *Deliverer) smarthostTargets(ctx context.Context, hop *route.Hop) ([]target, *Error) {
	port := hop.EffectivePort()
	switch addr, err := netip.ParseAddr(hop.Host); {
	case hop.IsUnix():
		return []target{{host: hop.Host, unix: hop.Host}}, nil
	case err == nil:
		return []target{{host: hop.Host, port: port, addrs: []netip.Addr{addr}, free: true}}, nil
	case !hop.LookupMX:
		return []target{{host: hop.Host, port: port, free: true}}, nil
	}
	targets, refused := d.mxTargets(ctx, hop.Host)
	if refused != nil {
		refused.Status = "4" + refused.Status[1:]
		return nil, refused.trouble()
	}
	for i := range targets {
		targets[i].port, targets[i].free = port, true
	}
	return targets, nil
}

// addresses looks up the addresses of a target that may be used, families interleaved.
func (d *Deliverer) addresses(ctx context.Context, t *target) ([]netip.Addr, *Error) {
	addrs := t.addrs
	if addrs == nil {
		var err error
		if addrs, err = d.Resolver.LookupAddr(ctx, t.host); err != nil {
			return nil, lookupError(t.host, "address", err)
		}
		if len(addrs) == 0 {
			return nil, permErr(StageRoute, "5.4.4", "the host %s has no address", t.host)
		}
	}
	if t.free {
		return interleave(addrs), nil
	}
	for _, a := range addrs {
		if d.own[a.Unmap()] && !(d.AllowPrivate && a.IsLoopback()) {
			return nil, permErr(StageRoute, "5.4.6", "mail would loop back to this host: %s has its address %s", t.host, a)
		}
	}
	if d.AllowPrivate {
		return interleave(addrs), nil
	}
	public := slices.DeleteFunc(slices.Clone(addrs), isPrivate)
	if len(public) == 0 {
		return nil, permErr(StageRoute, "5.4.4", "the host %s has only addresses that lead nowhere on the internet (%s)", t.host, addrs[0])
	}
	return interleave(public), nil
}

// isPrivate reports whether mail may not be led to an address by somebody's DNS.
func isPrivate(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsUnspecified() || a.IsMulticast() ||
		a.IsInterfaceLocalMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) || thisNetwork.Contains(a)
}

// thisNetwork leads to this host on some systems (RFC 1122, section 3.2.1.3).
var thisNetwork = netip.MustParsePrefix("0.0.0.0/8")

// interleave puts IPv6 and IPv4 addresses in turn, so that one broken family costs one try (RFC 8305, section 4).
func interleave(addrs []netip.Addr) []netip.Addr {
	var v6, v4, all []netip.Addr
	for _, a := range addrs {
		if a.Unmap().Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	for i := range max(len(v6), len(v4)) {
		if i < len(v6) {
			all = append(all, v6[i])
		}
		if i < len(v4) {
			all = append(all, v4[i])
		}
	}
	return all
}

// lookupError is the error of a lookup. Only an authoritative "there is no such name" is permanent: a resolver in
// trouble must never bounce mail.
func lookupError(name, what string, err error) *Error {
	var dns *resolve.Error
	switch {
	case errors.As(err, &dns) && dns.NotFound:
		return permErr(StageRoute, "5.1.2", "the domain %s does not exist: %w", name, err)
	case errors.Is(err, resolve.ErrBadName):
		return permErr(StageRoute, "5.1.2", "%w", err)
	}
	return tempErr(StageRoute, "4.4.3", "the %s records of %s could not be looked up: %w", what, name, err)
}

// ownAddresses are the addresses of this host.
func ownAddresses(more []netip.Addr) map[netip.Addr]bool {
	own := map[netip.Addr]bool{}
	for _, a := range more {
		own[a.Unmap()] = true
	}
	nets, err := net.InterfaceAddrs()
	if err != nil {
		return own
	}
	for _, n := range nets {
		if p, err := netip.ParsePrefix(n.String()); err == nil {
			own[p.Addr().Unmap()] = true
		}
	}
	return own
}

func domainOf(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }

// siteOf is the name of who runs a host: its registered domain.
func siteOf(host string) string {
	site, err := publicsuffix.EffectiveTLDPlusOne(strings.ToLower(strings.TrimSuffix(host, ".")))
	if err != nil {
		return ""
	}
	return site
}

// byDomain groups outcomes by the domain of their recipients, in order of their first.
func byDomain(pending []*Outcome) (groups [][]*Outcome) {
	if len(pending) == 1 {
		return [][]*Outcome{pending}
	}
	index := map[string]int{}
	for _, o := range pending {
		domain := strings.ToLower(domainOf(o.Recipient))
		i, ok := index[domain]
		if !ok {
			i = len(groups)
			index[domain] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], o)
	}
	return groups
}

// String names a target in errors.
func (t *target) String() string {
	if t.unix != "" {
		return t.unix
	}
	return fmt.Sprintf("%s:%d", t.host, t.port)
}
