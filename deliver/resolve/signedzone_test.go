package resolve_test

import (
	"crypto"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
)

// A signedZone is a small zone with DNSSEC (RFC 4035), signed as it is asked.
type signedZone struct {
	origin  string
	records []dns.RR
	owners  []string // in canonical order
	key     *dns.DNSKEY
	signer  crypto.Signer
	now     time.Time
	spoil   bool // signatures other than that of the keys are wrong
}

// newSignedZone makes a zone from records in which @ stands for its origin, with signatures that hold around some time.
func newSignedZone(t testing.TB, origin string, now time.Time, data []string) *signedZone {
	z := &signedZone{origin: origin, now: now}
	z.key = &dns.DNSKEY{
		Hdr:   dns.RR_Header{Name: origin, Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 300},
		Flags: dns.ZONE | dns.SEP, Protocol: 3, Algorithm: dns.ECDSAP256SHA256,
	}
	private, err := z.key.Generate(256)
	require.NoError(t, err)
	z.signer = private.(crypto.Signer)
	lines := append([]string{"@ 300 IN SOA ns.@ hostmaster.@ 1 7200 900 86400 300", "@ 300 IN NS ns.@", "ns.@ 300 IN A 127.0.0.1"}, data...)
	for i := range lines {
		lines[i] = strings.ReplaceAll(lines[i], "@", origin)
	}
	z.records = append(parseRecords(t, lines...), z.key)
	for _, rr := range z.records {
		if !slices.Contains(z.owners, rr.Header().Name) {
			z.owners = append(z.owners, rr.Header().Name)
		}
	}
	slices.SortFunc(z.owners, canonicalOrder)
	return z
}

// canonicalOrder compares names from the last label on (RFC 4034, section 6.1).
func canonicalOrder(a, b string) int {
	x, y := dns.SplitDomainName(a), dns.SplitDomainName(b)
	slices.Reverse(x)
	slices.Reverse(y)
	return slices.Compare(x, y)
}

// answer is that of an authoritative server. Denials have their proof (RFC 4035, section 3.1.3).
func (z *signedZone) answer(t testing.TB, query *dns.Msg) *dns.Msg {
	m := new(dns.Msg).SetReply(query)
	m.Authoritative = true
	m.SetEdns0(1232, true)
	name, qtype := asked(query), query.Question[0].Qtype
	for _, rrtype := range []uint16{qtype, dns.TypeCNAME} {
		if set := z.set(name, rrtype); len(set) > 0 {
			m.Answer = z.signed(t, set)
			return m
		}
	}
	m.Ns = z.signed(t, z.set(z.origin, dns.TypeSOA))
	i, exists := slices.BinarySearchFunc(z.owners, name, canonicalOrder)
	if exists || i < len(z.owners) && dns.IsSubDomain(name, z.owners[i]) { // an empty name between others exists too
		m.Ns = append(m.Ns, z.signed(t, []dns.RR{z.nsec(i, exists)})...)
		return m
	}
	m.Rcode = dns.RcodeNameError
	m.Ns = append(m.Ns, z.signed(t, []dns.RR{z.nsec(i, false)})...)
	if i != 1 { // the first record also shows that there is no wildcard
		m.Ns = append(m.Ns, z.signed(t, []dns.RR{z.nsec(1, false)})...)
	}
	return m
}

func (z *signedZone) set(name string, rrtype uint16) []dns.RR {
	var set []dns.RR
	for _, rr := range z.records {
		if rr.Header().Name == name && rr.Header().Rrtype == rrtype {
			set = append(set, rr)
		}
	}
	return set
}

// nsec is the record of the owner at i, or of the one before it.
func (z *signedZone) nsec(i int, exact bool) dns.RR {
	if !exact {
		i--
	}
	owner := z.owners[i]
	types := []uint16{dns.TypeRRSIG, dns.TypeNSEC}
	for _, rr := range z.records {
		if rr.Header().Name == owner && !slices.Contains(types, rr.Header().Rrtype) {
			types = append(types, rr.Header().Rrtype)
		}
	}
	slices.Sort(types)
	return &dns.NSEC{
		Hdr:        dns.RR_Header{Name: owner, Rrtype: dns.TypeNSEC, Class: dns.ClassINET, Ttl: 300},
		NextDomain: z.owners[(i+1)%len(z.owners)], TypeBitMap: types,
	}
}

// signed returns a set of records with its signature, and leaves the records as they are.
func (z *signedZone) signed(t testing.TB, set []dns.RR) []dns.RR {
	sig := &dns.RRSIG{
		Hdr:       dns.RR_Header{Ttl: set[0].Header().Ttl},
		Inception: uint32(z.now.Add(-24 * time.Hour).Unix()), Expiration: uint32(z.now.Add(24 * time.Hour).Unix()),
		KeyTag: z.key.KeyTag(), SignerName: z.origin, Algorithm: z.key.Algorithm,
	}
	require.NoError(t, sig.Sign(z.signer, set))
	if z.spoil && set[0].Header().Rrtype != dns.TypeDNSKEY {
		sig.Inception++
	}
	return append(slices.Clone(set), sig)
}
