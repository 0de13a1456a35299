package resolve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// A Resolver asks recursive DNS servers and remembers their answers. The zero value asks the servers of /etc/resolv.conf. It is safe
// for concurrent use; its fields must not change after the first lookup, and it must not be copied. [Resolver.Close] ends what goes on in
// the background.
type Resolver struct {
	// Servers are the servers to ask, in order, as "host:port" or as an IP address alone (port 53). If it is empty those of
	// ConfigFile are asked, and without any 127.0.0.1 and ::1.
	Servers []string

	// ConfigFile is the resolv.conf(5) file whose nameserver lines name the servers if Servers is empty; it is read again when it
	// changes. Default: /etc/resolv.conf.
	ConfigFile string

	// Dial opens a connection to a server, network being "udp" or "tcp". It must return when its context ends. A connection that is
	// no net.PacketConn, a net.Pipe for example, carries messages with a length before each as over TCP. Default: a net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	// Timeout is how long one server is waited for, once over UDP and once over TCP where that is needed. Default: 3 seconds. A whole
	// lookup, with all its servers and aliases, ends after 30 seconds.
	Timeout time.Duration

	// Attempts is how often a server that gives no usable answer is asked. A server that answers with an error, SERVFAIL for example,
	// is asked once. Default: 2.
	Attempts int

	// MaxSockets is how many questions may be on their way at once: each has a socket of its own. More of them wait for their turn, which
	// does not count for Timeout. Default: 256.
	MaxSockets int

	// CacheSize is the memory for answers, in octets, roughly. An ordinary answer takes less than a kilobyte, and every one counts at
	// least half of one, so that the default of 16 MiB is also a bound of 32768 answers. Negative: nothing is kept.
	CacheSize int

	// MaxTTL is how long an answer is kept at most, whatever its TTL says. Default: 24 hours.
	MaxTTL time.Duration

	// MaxNegativeTTL is how long the absence of a name or of records is remembered at most. Default: 15 minutes, so that mail to a
	// domain that was just registered or repaired is not refused for long.
	MaxNegativeTTL time.Duration

	// MaxStale is how long after its end an answer may still be used if no server gives a new one, whether by silence or by an error
	// (RFC 8767; its section 5 suggests one to three days at most). Only answers with records are: nobody is told that a name, its
	// records or its willingness to take mail are missing because they once were. Whoever sends mail by such an answer should take
	// what follows from it alone, for example that a host in it does not exist, as temporary; [Answer.Stale] tells, and package
	// deliver does so. Default: none is used, since mail can wait in a queue until the DNS works again.
	MaxStale time.Duration

	// TrustAD says that the servers, and the network between, are trusted to have validated what they mark as authenticated
	// (the AD bit; RFC 4035, section 4.9.3, RFC 7672, section 2.1.1). Servers on loopback addresses are always trusted so.
	TrustAD bool

	// Logger is told which server failed and why. Default: nothing is logged.
	Logger *slog.Logger

	cache   cache
	flights flights
	manners manners
	sockets sockets
	system  systemServers
}

// An MX is a mail exchanger of a domain.
type MX struct {
	// Host is its name in A-label form, in lower case and without the final dot. It is empty for the root: alone in an answer this is
	// a null MX, the word of a domain that takes no mail (RFC 7505, section 3). It is as served and may be no name of a host at all,
	// see [MX.Err].
	Host string
	// Preference is the order in which hosts are tried, the lowest first.
	Preference uint16
}

// Err says why the record names no host whose addresses could be looked up, whoever wrote it: it is the root, an IP address where RFC
// 5321, section 5.1 wants a name, or has characters that no host has. It is nil for all other records, and wraps [ErrBadName].
func (mx MX) Err() error {
	if mx.Host == "" {
		return badName("the root is no host")
	}
	if _, err := netip.ParseAddr(mx.Host); err == nil {
		return badName(fmt.Sprintf("the IP address %s where a host must be named", mx.Host))
	}
	return checkName(mx.Host)
}

// LookupMX returns the mail exchangers of a domain in the order in which they were served, aliases followed (RFC 5321, section 5.1).
// It returns none, and no error, if the domain exists without MX records: then it is its own exchanger.
func (r *Resolver) LookupMX(ctx context.Context, domain string) ([]MX, error) {
	answer, err := r.Lookup(ctx, domain, dns.TypeMX)
	if err != nil {
		return nil, err
	}
	return answer.MX(), nil
}

// LookupAddr returns the addresses of a host, IPv6 before IPv4, each in the order in which they were served. It returns none, and no
// error, if the host exists without addresses. An IP address, without brackets, is returned as it is.
//
// Both families are asked at once. If one fails while the other has addresses, those are returned: some servers mishandle AAAA alone
// (RFC 4074). If none has addresses and one failed, that error is returned, since what it would have said is unknown.
func (r *Resolver) LookupAddr(ctx context.Context, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr.Unmap()}, nil
	}
	name, err := asciiName(host)
	if err != nil {
		return nil, &Error{Name: host, Type: "A", Err: err}
	}
	six := r.start(ctx, key{name, dns.TypeAAAA})
	four := r.start(ctx, key{name, dns.TypeA})
	answer6, err6 := r.finish(ctx, six)
	answer4, err4 := r.finish(ctx, four)
	addrs := append(answer6.Addrs(), answer4.Addrs()...)
	if len(addrs) > 0 {
		return addrs, nil
	}
	return nil, neither(err4, err6)
}

// neither joins the errors of the two address families of a host without addresses. Trouble with one outweighs all that is known from
// the other; and a name that exists for one family exists (RFC 8020, section 2), even if a confused server denies it for the other.
func neither(err4, err6 error) error {
	for _, err := range []error{err4, err6} {
		if err != nil && !notFound(err) {
			return err
		}
	}
	if err4 == nil || err6 == nil {
		return nil
	}
	return err4
}

func notFound(err error) bool {
	var failure *Error
	return errors.As(err, &failure) && failure.NotFound
}

// LookupTXT returns the TXT records of a name, the strings of each record joined without a separator, as SPF, DKIM and MTA-STS read
// them (RFC 7208, section 3.3). It returns none, and no error, if the name exists without TXT records.
func (r *Resolver) LookupTXT(ctx context.Context, name string) ([]string, error) {
	answer, err := r.Lookup(ctx, name, dns.TypeTXT)
	if err != nil {
		return nil, err
	}
	var texts []string
	for _, txt := range Records[*dns.TXT](answer) {
		texts = append(texts, strings.Join(txt.Txt, ""))
	}
	return texts, nil
}

// LookupPTR returns the names that an address claims, in lower case and without the final dot, as served. They are claims: whoever runs
// the address wrote them. It returns none, and no error, if the reverse name exists without PTR records.
func (r *Resolver) LookupPTR(ctx context.Context, addr netip.Addr) ([]string, error) {
	name, err := dns.ReverseAddr(addr.Unmap().WithZone("").String())
	if err != nil {
		return nil, &Error{Name: addr.String(), Type: "PTR", Err: badName("not an IP address")}
	}
	answer, err := r.Lookup(ctx, name, dns.TypePTR)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, ptr := range Records[*dns.PTR](answer) {
		names = append(names, canonical(ptr.Ptr))
	}
	return names, nil
}

func (r *Resolver) timeout() time.Duration { return positive(r.Timeout, defaultTimeout) }

func (r *Resolver) attempts() int { return positive(r.Attempts, defaultAttempts) }

func (r *Resolver) maxSockets() int { return positive(r.MaxSockets, defaultMaxSockets) }

func (r *Resolver) maxTTL() time.Duration { return positive(r.MaxTTL, defaultMaxTTL) }

func (r *Resolver) maxNegativeTTL() time.Duration {
	return positive(r.MaxNegativeTTL, defaultMaxNegativeTTL)
}

func (r *Resolver) cacheSize() int { return cmp.Or(r.CacheSize, defaultCacheSize) }

// positive returns a setting, or its default if it is not set.
func positive[T int | time.Duration](setting, fallback T) T {
	if setting > 0 {
		return setting
	}
	return fallback
}

func (r *Resolver) log(ctx context.Context, level slog.Level, msg string, attrs ...slog.Attr) {
	if r.Logger != nil {
		r.Logger.LogAttrs(ctx, level, msg, attrs...)
	}
}
