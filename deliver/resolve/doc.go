// Package resolve answers the questions a mail sender puts to the DNS, and never turns a broken resolver into a bounce.
//
// [Resolver] is a stub resolver: it asks recursive servers, those of /etc/resolv.conf unless told otherwise, and its zero value is ready
// to use. [Resolver.LookupMX], [Resolver.LookupAddr], [Resolver.LookupTXT] and [Resolver.LookupPTR] serve everyday questions;
// [Resolver.Lookup] asks for records of any type and returns an [Answer] that also says whether it was authenticated by DNSSEC, which
// aliases were followed and how long it may be kept. [Error] is the one type of error: only a name that does not exist
// ([Error.NotFound]) and a name that cannot exist ([ErrBadName]) are permanent, all else is temporary, whatever the server said.
//
//	var r resolve.Resolver
//	hosts, err := r.LookupMX(ctx, "example.org")
//	var failure *resolve.Error
//	switch {
//	case errors.As(err, &failure) && failure.Temporary():
//		// try again later: nothing is known about the domain
//	case err != nil:
//		// there is no such domain: the mail can be returned
//	case len(hosts) == 0:
//		// the domain is its own mail exchanger (RFC 5321, section 5.1)
//	case len(hosts) == 1 && hosts[0].Host == "":
//		// a null MX: the domain takes no mail (RFC 7505)
//	}
//
// # What it does
//
// Servers are asked in order over UDP with EDNS (RFC 6891), each question from a socket of its own and with a random id; a truncated
// answer is asked for again over TCP (RFC 7766). An answer is believed only if it is whole and repeats the question. A server that
// fails hands the question to the next one, and one that does not answer is asked last for half a minute. Aliases are followed, in one
// answer or across several, up to [MaxAliases].
//
// Answers are cached for their TTL, negative ones as RFC 2308 says, within the bounds of the Resolver's settings; failures are never
// cached. Callers that ask the same question at the same time share one query, which ends when the last of them has left.
//
// # What it does not do
//
// It reads no hosts file and no search list: a mail domain is a name in the DNS, and a smarthost is best given by a DNS name or an IP
// address. The names localhost and *.localhost are the loopback addresses, as RFC 6761, section 6.3 asks of a resolver library.
// It does not validate DNSSEC: it reports what a trusted server validated, see [Resolver.TrustAD].
package resolve
