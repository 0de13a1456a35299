package deliver

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"

	"github.com/sortie-mail/sortie/deliver/resolve"
	"github.com/sortie-mail/sortie/route"
)

// A target is a host to try.
type target struct {
	host       string
	port       uint16
	unix       string // path of a socket, instead of all else
	free       bool   // its addresses are not a stranger's to choose: they may be private, and ours
	mx         bool   // an MX record names it
	preference uint16 // of that record

	addrs  []netip.Addr  // what lookUp found
	err    *Error        // or why it did not
	looked time.Duration // how long DNS took to tell of it
	stale  error         // why what DNS told is out of date; nil where it is not
}

// MXHosts gives the names of a domain's MX hosts, best first and equal ones in any order, so that a Deliverer serves as the
// MXLookup of package route. A domain has none, and no error, without MX records, with a null MX, and where it does not
// exist: delivery itself will say so. Trouble with DNS is an error.
func (d *Deliverer) MXHosts(ctx context.Context, domain string) ([]string, error) {
	d.init()
	if strings.HasPrefix(domain, "[") {
		return nil, nil
	}
	records, err := d.set.resolver.LookupMX(d.set.trace.lookups(ctx), asciiDomain(domain))
	if err != nil {
		if e := lookupError(domain, err); e.Temporary {
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

// CheckSender says why a reverse-path is one that nobody could answer to, before its mail is taken on: an [*Error] with
// 5.7.27 where its domain has a null MX record (RFC 7505, section 4.2), with 5.1.8 where it does not exist, and a temporary
// one where DNS does not tell. It is nil for all others, and for the null sender.
func (d *Deliverer) CheckSender(ctx context.Context, from string) error {
	d.init()
	domain := domainOf(from)
	if from == "" || strings.HasPrefix(domain, "[") {
		return nil
	}
	records, err := d.set.resolver.LookupMX(d.set.trace.lookups(ctx), asciiDomain(domain))
	switch {
	case err != nil:
		e := lookupError(domain, err)
		if !e.Temporary {
			e.Status = "5.1.8"
		}
		return e
	case isNull(records):
		return permErr(StageRoute, "5.7.27", "%s accepts no mail, and no answer: it has a null MX record (RFC 7505)", domain)
	}
	return nil
}

func isNull(records []resolve.MX) bool { return len(records) == 1 && records[0].Host == "" } // RFC 7505, section 3

// mxTargets finds the hosts for a domain, best first (RFC 5321, section 5.1).
func (d *Deliverer) mxTargets(ctx context.Context, domain string) ([]target, *Error) {
	all, e := d.mxCandidates(ctx, domain)
	if e != nil {
		return nil, e
	}
	targets, refused := chooseHosts(all)
	if d.set.trace.Hosts != nil && !strings.HasPrefix(domain, "[") {
		d.set.trace.Hosts(asciiDomain(domain), names(targets[:min(len(targets), d.set.limits.Hosts)]))
	}
	return targets, refused
}

// mxCandidates finds every host that DNS names for a domain, best first, and says with each why mail may not go there.
// Without records the domain is its own host (RFC 5321, section 5.1).
func (d *Deliverer) mxCandidates(ctx context.Context, domain string) ([]target, *Error) {
	if strings.HasPrefix(domain, "[") {
		return d.literalTarget(domain)
	}
	domain = asciiDomain(domain)
	begin := time.Now()
	records, stale, err := d.lookupMX(ctx, domain)
	looked := time.Since(begin)
	switch {
	case err != nil:
		return nil, lookupError(domain, err)
	case len(records) == 0:
		return []target{{host: domain, port: d.set.port, looked: looked, stale: stale}}, nil
	case isNull(records):
		return nil, permErr(StageRoute, "5.1.10", "%s accepts no mail: it has a null MX record (556, RFC 7505)", domain)
	}
	all := d.judge(domain, inOrder(records))
	for i := range all {
		all[i].looked, all[i].stale = looked, stale
		all[i].err = all[i].doubt(all[i].err)
	}
	return all, nil
}

func names(targets []target) []string {
	hosts := make([]string, len(targets))
	for i := range targets {
		hosts[i] = targets[i].host
	}
	return hosts
}

// judge makes targets of MX records that are in order. Where we are one of the hosts ourselves, those of equal or lower
// priority would send the mail back to us.
func (d *Deliverer) judge(domain string, records []resolve.MX) []target {
	own := slices.IndexFunc(records, func(mx resolve.MX) bool { return sameName(mx.Host, d.set.hostname) })
	all := make([]target, len(records))
	for i, mx := range records {
		all[i] = target{host: mx.Host, port: d.set.port, mx: true, preference: mx.Preference}
		switch {
		case own >= 0 && mx.Preference >= records[own].Preference:
			all[i].err = permErr(StageRoute, "5.4.6",
				"mail for %s loops back to this host, %s, which is its best MX host", domain, d.set.hostname)
		case isLiteral(mx.Host): // what stands there is a name (RFC 5321, section 5.1), and whose address it is nobody says
			all[i].err = permErr(StageRoute, "5.4.4", "the MX records of %s name no host: %s is an address, and no name", domain, oneWord(mx.Host))
		case mx.Host == "":
			all[i].err = permErr(StageRoute, "5.4.4", "the MX records of %s name no host", domain)
		}
	}
	return all
}

// chooseHosts leaves out, in place, the hosts that mail may not go to. Where no other is left it says why: a loop says most,
// and a name that is none says more than the root.
func chooseHosts(all []target) (targets []target, refused *Error) {
	name := "" // of the host of refused
	targets = slices.DeleteFunc(all, func(t target) bool {
		if t.err != nil && (name == "" || t.err.Status > refused.Status) { // 5.4.6
			refused, name = t.err, t.host
		}
		return t.err != nil
	})
	if len(targets) > 0 {
		return targets, nil
	}
	return nil, refused
}

func isLiteral(host string) bool {
	_, err := netip.ParseAddr(strings.TrimSuffix(host, "."))
	return err == nil
}

// inOrder sorts MX records by preference, equal ones shuffled (RFC 5321, section 5.1).
func inOrder(records []resolve.MX) []resolve.MX {
	if len(records) < 2 {
		return records
	}
	records = slices.Clone(records)
	rand.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
	slices.SortStableFunc(records, func(a, b resolve.MX) int { return cmp.Compare(a.Preference, b.Preference) })
	return records
}

// literalTarget is the address of user@[192.0.2.1] or user@[IPv6:2001:db8::1] (RFC 5321, section 4.1.3).
func (d *Deliverer) literalTarget(domain string) ([]target, *Error) {
	inner, closed := strings.CutSuffix(domain[1:], "]")
	v6 := len(inner) > 5 && strings.EqualFold(inner[:5], "IPv6:")
	if v6 {
		inner = inner[5:]
	}
	addr, err := netip.ParseAddr(inner)
	if err != nil || !closed || addr.Zone() != "" || addr.Is6() != v6 {
		return nil, permErr(StageRoute, "5.1.3", "%s is no address literal: write [192.0.2.1] or [IPv6:2001:db8::1]", domain)
	}
	return []target{{host: domain, port: d.set.port, addrs: []netip.Addr{addr.Unmap()}}}, nil
}

// An mxFinder finds hosts by the MX records of a domain.
type mxFinder func(ctx context.Context, domain string) ([]target, *Error)

// smarthostTargets finds the hosts of a smarthost. Whatever is wrong with its name is the route's trouble and never fails
// a recipient. byMX finds the hosts of a name that is looked up by MX.
func (d *Deliverer) smarthostTargets(ctx context.Context, hop *route.Hop, byMX mxFinder) ([]target, *Error) {
	t := target{host: hop.Host, port: hop.EffectivePort(), free: true}
	addr, err := netip.ParseAddr(hop.Host)
	switch {
	case hop.IsUnix():
		t.unix = hop.Host
		return []target{t}, nil
	case err == nil:
		t.addrs = []netip.Addr{addr}
		return []target{t}, nil
	case !hop.LookupMX || hop.Protocol == route.LMTP: // LMTP has no MX (RFC 2033, section 5)
		return []target{t}, nil
	}
	targets, refused := byMX(ctx, hop.Host)
	if refused != nil {
		return nil, refused.trouble()
	}
	for i := range targets {
		targets[i].port, targets[i].free = t.port, true
	}
	return targets, nil
}

// lookupError is the error of the lookup of a domain. Only an authoritative "there is no such name" is permanent: a
// resolver in trouble must never bounce mail.
func lookupError(domain string, err error) *Error {
	var dns *resolve.Error
	switch {
	case errors.As(err, &dns) && dns.NotFound:
		return permErr(StageRoute, "5.1.2", "%w", &missing{"the domain " + domain + " does not exist", err})
	case errors.Is(err, resolve.ErrBadName):
		return permErr(StageRoute, "5.1.2", "%s is no domain: %w", domain, err)
	}
	return tempErr(StageRoute, "4.4.3", "the MX records of %s could not be looked up: %w", domain, err)
}

// asciiDomain is a domain as DNS has it (RFC 5890, section 2.3.2.1).
func asciiDomain(domain string) string {
	domain = strings.TrimSuffix(domain, ".")
	if ascii, err := idna.Lookup.ToASCII(domain); err == nil {
		return ascii
	}
	return strings.ToLower(domain)
}

func sameName(a, b string) bool { return strings.EqualFold(strings.TrimSuffix(a, "."), b) }

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
		domain := asciiDomain(domainOf(o.Recipient))
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

// A missing name is a matter of the address, and its sender reads of it in these words; which server said so is in err.
type missing struct {
	words string
	err   error
}

func (m *missing) Error() string { return m.words }
func (m *missing) Unwrap() error { return m.err }
