package relaycheck

import (
	"cmp"
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
	"slices"
)

// A span is a run of addresses of one family, both ends included.
type span struct{ lo, hi netip.Addr }

// A space is a set of addresses: spans in ascending order, IPv4 first, that do not overlap.
type space []span

// spaceOf is the union of networks. Invalid ones are empty, IPv4-mapped ones are of IPv4.
func spaceOf(networks ...netip.Prefix) space {
	spans := make([]span, 0, len(networks))
	for _, n := range networks {
		if n = unmapPrefix(n); n.IsValid() {
			spans = append(spans, span{n.Masked().Addr(), lastOf(n)})
		}
	}
	return unionOf(spans)
}

// unionOf is the union of spans, which it puts in order.
func unionOf(spans []span) space {
	slices.SortFunc(spans, func(a, b span) int { return a.lo.Compare(b.lo) })
	return joined(spans)
}

// joined makes a space of spans that are in the order of their beginnings.
func joined(spans []span) space {
	var s space
	for _, next := range spans {
		if n := len(s); n > 0 && !s[n-1].hi.Less(next.lo) { // all of IPv4 comes before all of IPv6
			if s[n-1].hi.Less(next.hi) {
				s[n-1].hi = next.hi
			}
			continue
		}
		s = append(s, next)
	}
	return s
}

// lastOf is the last address of a network.
func lastOf(n netip.Prefix) netip.Addr {
	b := n.Addr().AsSlice()
	for i := n.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}

// with is the union with a network, in the memory of s where it has room. All of s must be networks too, so that one that is
// not apart from another holds it or lies in it.
func (s space) with(a span) space {
	i, _ := slices.BinarySearchFunc(s, a.lo, func(b span, lo netip.Addr) int { return b.hi.Compare(lo) })
	j := i
	for ; j < len(s) && !a.hi.Less(s[j].lo); j++ {
		if !a.lo.Less(s[j].lo) && !s[j].hi.Less(a.hi) {
			return s
		}
	}
	return slices.Replace(s, i, j, a)
}

// plus is the union.
func (s space) plus(t space) space {
	spans := make([]span, 0, len(s)+len(t))
	for len(s) > 0 && len(t) > 0 {
		if t[0].lo.Less(s[0].lo) {
			s, t = t, s
		}
		spans, s = append(spans, s[0]), s[1:]
	}
	return joined(append(append(spans, s...), t...))
}

// minus is what is in s and not in t.
func (s space) minus(t space) space {
	var rest space
	for _, a := range s {
		first, _ := slices.BinarySearchFunc(t, a.lo, func(b span, lo netip.Addr) int { return b.hi.Compare(lo) })
		t = t[first:]
		lo, left := a.lo, true
		for _, b := range t {
			if a.hi.Less(b.lo) {
				break
			}
			if lo.Less(b.lo) {
				rest = append(rest, span{lo, b.lo.Prev()})
			}
			if left = b.hi.Less(a.hi); !left {
				break
			}
			lo = b.hi.Next()
		}
		if left {
			rest = append(rest, span{lo, a.hi})
		}
	}
	return rest
}

// and is what is in both.
func (s space) and(t space) space { return s.minus(s.minus(t)) }

func (s space) contains(a netip.Addr) bool {
	i, found := slices.BinarySearchFunc(s, a, func(sp span, a netip.Addr) int { return sp.lo.Compare(a) })
	return found || (i > 0 && !s[i-1].hi.Less(a))
}

// sizes are the numbers of addresses of each family; exact up to 2^53.
func (s space) sizes() (v4, v6 float64) {
	for _, a := range s {
		if a.lo.Is4() {
			v4 += a.size()
		} else {
			v6 += a.size()
		}
	}
	return v4, v6
}

func (a span) size() float64 {
	lo, hi := a.lo.As16(), a.hi.As16()
	low, borrow := bits.Sub64(binary.BigEndian.Uint64(hi[8:]), binary.BigEndian.Uint64(lo[8:]), 0)
	high, _ := bits.Sub64(binary.BigEndian.Uint64(hi[:8]), binary.BigEndian.Uint64(lo[:8]), borrow)
	return math.Ldexp(float64(high), 64) + float64(low) + 1
}

// standIns are addresses that no real network has (RFC 5737, RFC 3849): they make the best examples of strangers.
var standIns = []netip.Addr{
	netip.MustParseAddr("203.0.113.5"), netip.MustParseAddr("198.51.100.5"), netip.MustParseAddr("192.0.2.5"),
	netip.MustParseAddr("2001:db8::5"),
}

// example picks an address of a space that is not empty.
func (s space) example() netip.Addr {
	for _, a := range standIns {
		if s.contains(a) {
			return a
		}
	}
	widest := slices.MaxFunc(s, func(a, b span) int { return cmp.Compare(a.size(), b.size()) })
	a := widest.lo
	for range 5 {
		if next := a.Next(); next.IsValid() && !widest.hi.Less(next) {
			a = next
		}
	}
	return a
}

// Addresses from which no stranger comes (RFC 6890 and the IANA registries of special-purpose addresses). The networks for
// documentation are not among them: they stand for public ones.
var (
	loopback = prefixes("127.0.0.0/8", "::1/128")
	private  = prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10", "fc00::/7", "fe80::/10")
	reserved = prefixes("0.0.0.0/8", "192.0.0.0/24", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4", "::/128", "100::/64", "ff00::/8")

	notPublic = loopback.plus(private).plus(reserved)
	internet  = prefixes("0.0.0.0/0", "::/0")
)

func prefixes(texts ...string) space {
	networks := make([]netip.Prefix, len(texts))
	for i, t := range texts {
		networks[i] = netip.MustParsePrefix(t)
	}
	return spaceOf(networks...)
}
