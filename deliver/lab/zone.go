package lab

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

const (
	zoneTTL     = 300 // seconds, where a zone says nothing else
	cnameLimit  = 16  // links of a CNAME chain that are followed
	negativeTTL = 60  // seconds, the SOA minimum of zones without a SOA of their own (RFC 2308, section 5)
)

// A zone is the records of one origin.
type zone struct {
	origin string // in canonical form
	soa    dns.RR
	names  map[string][]dns.RR
	secure bool // answers carry the AD bit
}

// parseZone reads master-file text (RFC 1035, section 5.1). The text may leave out the SOA and the TTL.
func parseZone(origin, text string) (*zone, error) {
	origin = dns.CanonicalName(origin)
	z := &zone{origin: origin, names: make(map[string][]dns.RR)}
	p := dns.NewZoneParser(strings.NewReader(dedent(text)+"\n"), origin, "")
	p.SetDefaultTTL(zoneTTL)
	for rr, ok := p.Next(); ok; rr, ok = p.Next() {
		name := dns.CanonicalName(rr.Header().Name)
		if !dns.IsSubDomain(origin, name) {
			return nil, fmt.Errorf("lab: zone %s: %s is outside the zone", origin, name)
		}
		if rr.Header().Rrtype == dns.TypeSOA {
			z.soa = rr
		}
		z.add(rr)
	}
	if err := p.Err(); err != nil {
		return nil, fmt.Errorf("lab: zone %s: %w", origin, err)
	}
	if z.soa == nil {
		z.soa = defaultSOA(origin)
	}
	return z, nil
}

// dedent takes away the indentation that all lines share, as text inside Go code has: in a master file a blank at the
// start of a line means something.
func dedent(text string) string {
	lines := strings.Split(text, "\n")
	shared, first := "", true
	for _, line := range lines {
		blank := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
		if len(blank) == len(line) {
			continue
		}
		if first {
			shared, first = blank, false
		}
		for !strings.HasPrefix(blank, shared) {
			shared = shared[:len(shared)-1]
		}
	}
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], shared)
	}
	return strings.Join(lines, "\n")
}

func defaultSOA(origin string) dns.RR {
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: origin, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: negativeTTL},
		Ns:  "ns.lab.invalid.", Mbox: "hostmaster.lab.invalid.",
		Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: negativeTTL,
	}
}

func (z *zone) add(rr dns.RR) {
	name := dns.CanonicalName(rr.Header().Name)
	z.names[name] = append(z.names[name], rr)
}

// exists reports whether name or anything below it has records: an empty non-terminal exists (RFC 8020).
func (z *zone) exists(name string) bool {
	for have := range z.names {
		if dns.IsSubDomain(name, have) {
			return true
		}
	}
	return name == z.origin
}

// find gives the records of name, by a wildcard where there are none (RFC 4592), and whether the name exists.
func (z *zone) find(name string) ([]dns.RR, bool) {
	if rrs, ok := z.names[name]; ok {
		return rrs, true
	}
	if z.exists(name) {
		return nil, true
	}
	for at := name; at != z.origin; {
		next, end := dns.NextLabel(at, 0)
		if end {
			break
		}
		at = at[next:]
		if rrs, ok := z.names["*."+at]; ok {
			return rename(rrs, name), true
		}
		if z.exists(at) {
			break
		}
	}
	return nil, false
}

func rename(rrs []dns.RR, name string) []dns.RR {
	out := make([]dns.RR, len(rrs))
	for i, rr := range rrs {
		out[i] = dns.Copy(rr)
		out[i].Header().Name = name
	}
	return out
}

// zoneOf finds the longest zone that holds name. The caller holds d.mu.
func (d *nameServer) zoneOf(name string) *zone {
	for off, end := 0, false; !end; off, end = dns.NextLabel(name, off) {
		if z := d.zones[name[off:]]; z != nil {
			return z
		}
	}
	return d.zones["."]
}

// An answer is what the zones say to a question.
type answer struct {
	rcode   int
	records []dns.RR
	soa     dns.RR // for the authority section of a negative answer
	secure  bool
}

// lookup answers a question, following CNAMEs through the zones. A name in no zone does not exist.
func (d *nameServer) lookup(name string, qtype uint16) answer {
	d.mu.Lock()
	defer d.mu.Unlock()
	name = dns.CanonicalName(name)
	ans := answer{secure: true}
	for range cnameLimit {
		z := d.zoneOf(name)
		if z == nil {
			ans.rcode, ans.secure = dns.RcodeNameError, false
			return ans
		}
		ans.secure = ans.secure && z.secure
		rrs, ok := z.find(name)
		if !ok {
			ans.rcode, ans.soa = dns.RcodeNameError, z.soa
			return ans
		}
		found, cname := pick(rrs, qtype)
		ans.records = append(ans.records, found...)
		if cname == "" {
			if len(found) == 0 {
				ans.soa = z.soa
			}
			return ans
		}
		name = cname
	}
	return answer{rcode: dns.RcodeServerFailure}
}

// pick chooses the records of a type; where there is a CNAME instead it gives that, and its target.
func pick(rrs []dns.RR, qtype uint16) (found []dns.RR, cname string) {
	for _, rr := range rrs {
		if t := rr.Header().Rrtype; t == qtype || qtype == dns.TypeANY {
			found = append(found, rr)
		}
	}
	if len(found) > 0 {
		return found, ""
	}
	for _, rr := range rrs {
		if c, ok := rr.(*dns.CNAME); ok {
			return []dns.RR{rr}, dns.CanonicalName(c.Target)
		}
	}
	return nil, ""
}

// addresses gives the addresses of a name, IPv4 first.
func (d *nameServer) addresses(name string) []netip.Addr {
	var out []netip.Addr
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		for _, rr := range d.lookup(name, qtype).records {
			if a, ok := addressOf(rr); ok {
				out = append(out, a)
			}
		}
	}
	return out
}

func addressOf(rr dns.RR) (netip.Addr, bool) {
	switch rr := rr.(type) {
	case *dns.A:
		a, ok := netip.AddrFromSlice(rr.A)
		return a.Unmap(), ok
	case *dns.AAAA:
		return netip.AddrFromSlice(rr.AAAA)
	}
	return netip.Addr{}, false
}

// knows reports whether any zone gives a name to this address.
func (d *nameServer) knows(addr netip.Addr) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, z := range d.zones {
		for _, rrs := range z.names {
			for _, rr := range rrs {
				if a, ok := addressOf(rr); ok && a == addr {
					return true
				}
			}
		}
	}
	return false
}

// Zone puts a zone into the DNS, or replaces it. The text is master-file syntax (RFC 1035, section 5.1) with names
// relative to origin; SOA and TTL may be left out (default TTL 300 s). The most specific zone answers for a name, and a
// name in no zone does not exist. An error names the line.
func (n *Internet) Zone(origin, text string) error {
	z, err := parseZone(origin, text)
	if err != nil {
		return n.mistake(err)
	}
	n.dns.mu.Lock()
	defer n.dns.mu.Unlock()
	if old := n.dns.zones[z.origin]; old != nil {
		z.secure = old.secure
	}
	n.dns.zones[z.origin] = z
	return nil
}

// RemoveZone takes a zone out of the DNS; its names do not exist any more.
func (n *Internet) RemoveZone(origin string) {
	n.dns.mu.Lock()
	defer n.dns.mu.Unlock()
	delete(n.dns.zones, dns.CanonicalName(origin))
}

// Secure says whether answers from a zone carry the AD bit, as from a validating resolver (RFC 6840, section 5.8).
func (n *Internet) Secure(origin string, secure bool) error {
	n.dns.mu.Lock()
	defer n.dns.mu.Unlock()
	z := n.dns.zones[dns.CanonicalName(origin)]
	if z == nil {
		return fmt.Errorf("lab: no zone %s to secure", origin)
	}
	z.secure = secure
	return nil
}

// addAddress gives a name that has none an address of its own.
func (n *Internet) addAddress(name string, addr netip.Addr) {
	rr := &dns.A{
		Hdr: dns.RR_Header{Name: dns.Fqdn(name), Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: zoneTTL},
		A:   addr.AsSlice(),
	}
	n.dns.mu.Lock()
	defer n.dns.mu.Unlock()
	z := n.dns.zoneOf(dns.CanonicalName(name))
	if z == nil {
		origin := dns.CanonicalName(name)
		z = &zone{origin: origin, soa: defaultSOA(origin), names: make(map[string][]dns.RR)}
		n.dns.zones[origin] = z
	}
	z.add(rr)
}
