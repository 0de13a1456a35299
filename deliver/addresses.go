package deliver

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/sortie-mail/sortie/deliver/resolve"
	"github.com/sortie-mail/sortie/route"
)

// lookUp finds the addresses of a target, once.
func (d *Deliverer) lookUp(ctx context.Context, t *target) {
	if t.addrs != nil || t.err != nil {
		return
	}
	begin := time.Now()
	addrs, stale, err := d.lookupAddr(ctx, t.host)
	t.looked += time.Since(begin)
	if stale != nil {
		t.stale = stale
	}
	var dns *resolve.Error
	switch {
	case err == nil && len(addrs) > 0:
		t.addrs = addrs
	case err == nil:
		t.err = permErr(StageRoute, "5.4.4", "the host %s has no address", t.host)
	case errors.As(err, &dns) && dns.NotFound, errors.Is(err, resolve.ErrBadName):
		t.err = permErr(StageRoute, "5.4.4", "%w", &missing{"the host " + t.host + " does not exist", err})
	default:
		t.err = tempErr(StageRoute, "4.4.3", "the addresses of %s could not be looked up: %w", t.host, err)
	}
	t.err = t.doubt(t.err)
	if t.err != nil && t.free {
		t.err.trouble()
	}
}

// loops reports that one of our own addresses is among those of the hosts that begin here and share a preference. Their
// mail would come back, and so would that of the hosts after them (RFC 5321, section 5.1).
func (d *Deliverer) loops(ctx context.Context, rest []target, begins bool) *Error {
	if !begins {
		return nil
	}
	for i := range rest {
		t := &rest[i]
		if t.free || t.preference != rest[0].preference {
			return nil
		}
		d.lookUp(ctx, t)
		for _, addr := range t.addrs {
			if d.set.own[addr.Unmap()] {
				return t.doubt(permErr(StageRoute, "5.4.6", "mail would loop back to this host: %s has its address %s", t.host, addr))
			}
		}
	}
	return nil
}

// usable gives the addresses of a target that may be tried, families interleaved.
func (d *Deliverer) usable(ctx context.Context, hop *route.Hop, t *target) ([]netip.Addr, *Error) {
	d.lookUp(ctx, t)
	if t.err != nil {
		return nil, t.err
	}
	addrs := t.addrs
	if !t.free && !d.AllowPrivate {
		if addrs = slices.DeleteFunc(slices.Clone(addrs), isPrivate); len(addrs) == 0 {
			return nil, t.doubt(permErr(StageRoute, "5.4.4",
				"the host %s has only addresses that lead nowhere on the internet (%s)", t.host, t.addrs[0]))
		}
	}
	if source := cmp.Or(hop.Source, hop.Source6); source.IsValid() {
		other := func(a netip.Addr) bool { _, ok := hop.SourceFor(a); return !ok }
		if addrs = slices.DeleteFunc(slices.Clone(addrs), other); len(addrs) == 0 {
			return nil, tempErr(StageRoute, "4.4.4", "the host %s has no address that source=%s can connect to: "+
				"leave the option out, or write an address of the other family too", t.host, source).trouble()
		}
	}
	return interleave(addrs), nil
}

// Networks that lead into this host or its network, besides those that netip knows.
var insideNetworks = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),      // this host on some systems (RFC 1122, section 3.2.1.3)
	netip.MustParsePrefix("100.64.0.0/10"),  // shared with the provider (RFC 6598)
	netip.MustParsePrefix("240.0.0.0/4"),    // reserved, and the broadcast address (RFC 1112, section 4)
	netip.MustParsePrefix("fec0::/10"),      // site-local (RFC 3879)
	netip.MustParsePrefix("64:ff9b:1::/48"), // translation inside a network (RFC 8215)
}

// embedding are the networks whose IPv6 addresses have an IPv4 address in them, and at which octet.
var embedding = map[netip.Prefix]int{
	netip.MustParsePrefix("64:ff9b::/96"): 12, // NAT64 (RFC 6052, section 2.1)
	netip.MustParsePrefix("2002::/16"):    2,  // 6to4 (RFC 3056, section 2)
	netip.MustParsePrefix("::/96"):        12, // IPv4-compatible (RFC 4291, section 2.5.5.1)
}

// isPrivate reports whether mail may not be led to an address by somebody's DNS.
func isPrivate(a netip.Addr) bool {
	a = a.Unmap()
	if !a.IsGlobalUnicast() || a.IsPrivate() { // loopback, link-local, multicast and unspecified are not global
		return true
	}
	for _, p := range insideNetworks {
		if p.Contains(a) {
			return true
		}
	}
	for p, at := range embedding {
		if p.Contains(a) {
			octets := a.As16()
			return isPrivate(netip.AddrFrom4([4]byte(octets[at : at+4])))
		}
	}
	return false
}

// interleave puts IPv6 and IPv4 addresses in turn, so that one broken family costs one try (RFC 8305, section 4). Each
// family keeps its order (RFC 5321, section 5.1).
func interleave(addrs []netip.Addr) []netip.Addr {
	if len(addrs) < 2 {
		return addrs
	}
	var v6, v4 []netip.Addr
	for _, a := range addrs {
		if a.Unmap().Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	all := make([]netip.Addr, 0, len(addrs))
	for i := range max(len(v6), len(v4)) {
		all = append(all, v6[min(i, len(v6)):min(i+1, len(v6))]...)
		all = append(all, v4[min(i, len(v4)):min(i+1, len(v4))]...)
	}
	return all
}

// documentation are the networks that no mail host of the internet is in (RFC 5737, RFC 3849). Machines behind a NAT have
// their addresses at times, and labs use them.
var documentation = []netip.Prefix{
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("2001:db8::/32"),
}

// ownAddresses are those of this host's interfaces by which others may know it, and more. Loopback is everybody's.
func ownAddresses(nets []net.Addr, more []netip.Addr) map[netip.Addr]bool {
	own := map[netip.Addr]bool{}
	for _, n := range nets {
		p, err := netip.ParsePrefix(n.String())
		if err != nil || p.Addr().IsLoopback() {
			continue
		}
		addr := p.Addr().Unmap()
		own[addr] = !slices.ContainsFunc(documentation, func(p netip.Prefix) bool { return p.Contains(addr) })
	}
	for _, a := range more {
		own[a.Unmap()] = true
	}
	return own
}
