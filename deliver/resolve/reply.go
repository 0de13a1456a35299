package resolve

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// A reply is what one message of a server says about a question.
type reply struct {
	aliases  []string // from the name asked for
	records  []dns.RR // of the type asked for, at the last alias
	notFound bool     // the last alias does not exist
	final    bool     // nothing is left to be asked
	secure   bool
	ttl      time.Duration
}

// readReply reads a message that answers the question q, and fails if it is no answer.
func readReply(m *dns.Msg, q key) (reply, error) {
	if !isAnswer(m) {
		return reply{}, rcodeError(m.Rcode)
	}
	rep := reply{ttl: math.MaxInt64, notFound: m.Rcode == dns.RcodeNameError}
	owner, err := rep.follow(m.Answer, q)
	if err != nil {
		return reply{}, err
	}
	switch {
	case rep.notFound && len(rep.records) > 0:
		return reply{}, fmt.Errorf("%w: NXDOMAIN with records", errGarbage)
	case len(rep.records) > 0:
		rep.final = true
		return rep, nil
	}
	return rep, rep.deny(m, owner)
}

// follow walks the chain of aliases in an answer section and collects the records at its end. Records beside the chain are not
// believed: nobody asked for them (RFC 2181, section 5.4.1). It stops one alias after those that are allowed, for the caller to refuse.
func (rep *reply) follow(section []dns.RR, q key) (owner string, err error) {
	owner = q.name
	for {
		var target string
		for _, rr := range section {
			header := rr.Header()
			if header.Class != dns.ClassINET || canonical(header.Name) != owner {
				continue
			}
			switch {
			case header.Rrtype == q.qtype:
				err = rep.collect(rr, owner)
			case header.Rrtype == dns.TypeCNAME && target == "":
				target, err = rep.alias(rr)
			}
			if err != nil {
				return owner, err
			}
		}
		if len(rep.records) > 0 || target == "" || len(rep.aliases) > MaxAliases {
			return owner, nil
		}
		rep.aliases = append(rep.aliases, target)
		owner = target
	}
}

// collect takes a record. It is named by the name asked for, whose case in the answer is of no meaning.
func (rep *reply) collect(rr dns.RR, owner string) error {
	// Without data an MX record would read as a null MX, and an A record as no address.
	if rr.Header().Rdlength == 0 {
		return fmt.Errorf("%w: %s record without data", errGarbage, typeName(rr.Header().Rrtype))
	}
	rr.Header().Name = dns.Fqdn(owner)
	rep.records = append(rep.records, rr)
	rep.ttl = min(rep.ttl, ttlOf(rr))
	return nil
}

func (rep *reply) alias(rr dns.RR) (string, error) {
	cname, ok := rr.(*dns.CNAME)
	if !ok || canonical(cname.Target) == "" {
		return "", fmt.Errorf("%w: CNAME record without a target", errGarbage)
	}
	rep.ttl = min(rep.ttl, ttlOf(rr))
	return canonical(cname.Target), nil
}

// deny reads a message without records. It decides whether they do not exist, or whether the end of the chain is still to be asked
// for, and how long that holds (RFC 2308, sections 2 and 5).
func (rep *reply) deny(m *dns.Msg, owner string) error {
	soa := authority(m.Ns, owner)
	switch {
	case soa != nil:
		rep.ttl = min(rep.ttl, ttlOf(soa), seconds(soa.Minttl))
		rep.final = true
	case rep.notFound:
		// Without an SOA it is not cached (RFC 2308, section 5).
		rep.ttl = 0
		rep.final = true
	case len(rep.aliases) > 0:
		// The server may not have followed the chain to its end.
		rep.final = false
	case isReferral(m):
		return errReferral
	default:
		rep.ttl = 0
		rep.final = true
	}
	return nil
}

// authority returns the SOA record of the zone that owner is in.
func authority(section []dns.RR, owner string) *dns.SOA {
	for _, rr := range section {
		soa, ok := rr.(*dns.SOA)
		if ok && soa.Hdr.Rdlength > 0 && dns.IsSubDomain(soa.Hdr.Name, dns.Fqdn(owner)) {
			return soa
		}
	}
	return nil
}

// isReferral tells an empty message that points to other servers from one that says that there is nothing (RFC 2308, section 2.2).
func isReferral(m *dns.Msg) bool {
	return !m.Authoritative && slices.ContainsFunc(m.Ns, func(rr dns.RR) bool {
		return rr.Header().Rrtype == dns.TypeNS
	})
}

func ttlOf(rr dns.RR) time.Duration { return seconds(rr.Header().Ttl) }

// seconds reads a TTL. One with the highest bit set is zero (RFC 2181, section 8).
func seconds(ttl uint32) time.Duration {
	if ttl > math.MaxInt32 {
		return 0
	}
	return time.Duration(ttl) * time.Second
}

// believed cuts a set of records down to MaxRecords. Of MX records those a sender would try first stay, in the order served.
func believed(records []dns.RR) []dns.RR {
	if len(records) <= MaxRecords {
		return records
	}
	order := make([]int, len(records))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(preference(records[i]), preference(records[j])) })
	order = order[:MaxRecords]
	slices.Sort(order)
	kept := make([]dns.RR, len(order))
	for i, from := range order {
		kept[i] = records[from]
	}
	return kept
}

func preference(rr dns.RR) uint16 {
	if mx, ok := rr.(*dns.MX); ok {
		return mx.Preference
	}
	return 0
}
