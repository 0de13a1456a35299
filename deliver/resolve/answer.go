package resolve

import (
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// An Answer is what the DNS has of one type under one name.
type Answer struct {
	// Name is the name asked for in A-label form, in lower case and without the final dot; Type is the type asked for.
	Name string
	Type uint16

	// Aliases are the targets of the CNAME records that were followed, in order; the last one owns the records.
	Aliases []string

	// Records are those of Type, in the order in which they were served, and none if the name exists without them. They are shared
	// with other callers and must not be changed.
	Records []dns.RR

	// Dropped is how many records over MaxRecords were served and not believed.
	Dropped int

	// Secure is true if every part of the answer, aliases included, was authenticated by DNSSEC according to a trusted server, see
	// [Resolver.TrustAD]. It is so of denials too. A stale answer keeps what it was: to take a TLSA record for insecure because its
	// servers are in trouble would help whoever makes the trouble.
	Secure bool

	// Expires is when the answer has to be asked for again.
	Expires time.Time

	// Stale is nil unless the answer has outlived its time and is used because no server gave a new one: then it is the error of the
	// attempt, see [Resolver.MaxStale].
	Stale error

	// Server is the server that gave the answer, or its last part; it is empty for localhost, which no server is asked for.
	Server string
}

// Owner returns the name that the records belong to: the last alias, or the name asked for.
func (a Answer) Owner() string {
	if len(a.Aliases) > 0 {
		return a.Aliases[len(a.Aliases)-1]
	}
	return a.Name
}

// Records returns the records of an answer as what they are, in order: Records[*dns.TLSA](answer) for one to a question for
// dns.TypeTLSA. They are shared with other callers and must not be changed.
func Records[T dns.RR](a Answer) []T {
	var records []T
	for _, rr := range a.Records {
		if record, ok := rr.(T); ok {
			if records == nil {
				records = make([]T, 0, len(a.Records))
			}
			records = append(records, record)
		}
	}
	return records
}

// MX returns the MX records of the answer, in order.
func (a Answer) MX() []MX {
	if a.Type != dns.TypeMX || len(a.Records) == 0 {
		return nil
	}
	hosts := make([]MX, 0, len(a.Records))
	for _, rr := range a.Records {
		if mx, ok := rr.(*dns.MX); ok {
			hosts = append(hosts, MX{Host: canonical(mx.Mx), Preference: mx.Preference})
		}
	}
	return hosts
}

// Addrs returns the addresses in the A or AAAA records of the answer, in order. An IPv4 address that is mapped into IPv6 is returned
// as IPv4, so that checks of what may be connected to see what it is.
func (a Answer) Addrs() []netip.Addr {
	var addrs []netip.Addr
	for _, rr := range a.Records {
		var ip []byte
		switch rr := rr.(type) {
		case *dns.A:
			ip = rr.A
		case *dns.AAAA:
			ip = rr.AAAA
		}
		if addr, ok := netip.AddrFromSlice(ip); ok {
			addrs = append(addrs, addr.Unmap())
		}
	}
	return addrs
}

// localhost answers for the names that never leave the machine: addresses are loopback, all else is absent (RFC 6761, section 6.3).
// DNSSEC says nothing about them.
func localhost(k key) Answer {
	answer := Answer{Name: k.name, Type: k.qtype}
	header := dns.RR_Header{Name: dns.Fqdn(k.name), Rrtype: k.qtype, Class: dns.ClassINET}
	switch k.qtype {
	case dns.TypeA:
		answer.Records = []dns.RR{&dns.A{Hdr: header, A: netip.AddrFrom4([4]byte{127, 0, 0, 1}).AsSlice()}}
	case dns.TypeAAAA:
		answer.Records = []dns.RR{&dns.AAAA{Hdr: header, AAAA: netip.IPv6Loopback().AsSlice()}}
	}
	return answer
}
