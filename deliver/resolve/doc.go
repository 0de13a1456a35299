// Package resolve answers the questions a mail sender puts to the DNS, and never turns a broken resolver into a bounce.
//
// [Resolver] is a stub resolver: it asks recursive servers, those of /etc/resolv.conf unless told otherwise, and its zero value is ready
// to use. [Resolver.LookupMX], [Resolver.LookupAddr], [Resolver.LookupTXT] and [Resolver.LookupPTR] serve everyday questions;
// [Resolver.Lookup] asks for records of any type and returns an [Answer], from which [Records] takes them by their type and which also
// says whether it was authenticated by DNSSEC, which aliases were followed and how long it may be kept. [Error] is the one type of error:
// only a name that does not exist ([Error.NotFound]) and a name that cannot exist ([ErrBadName]) are permanent, all else is temporary,
// whatever the server said.
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
// Servers are asked in order over UDP with EDNS (RFC 6891), each question from a socket of its own, with a random id and, unless the
// server is on this machine, its letters in random case; a truncated answer is asked for again over TCP (RFC 7766). An answer is believed only if it is whole and repeats the
// question. A server that fails hands the question to the next one, and one that does not answer is asked last for half a minute. For an
// hour, a server that stumbles over EDNS is asked without, and one that does not repeat the case of a question in lower case. Aliases are
// followed, in one answer or across several, up to [MaxAliases].
//
// Answers are cached for their TTL, negative ones as RFC 2308 says, within the bounds of the Resolver's settings; failures are never
// cached. A name that is much used is asked for again shortly before its answer expires. Where the servers fail, an answer that has
// expired may stand in if [Resolver.MaxStale] allows it. Callers that ask the same question at the same time share one query, which ends
// when the last of them has left.
//
// # What becomes of a hostile answer
//
// Whoever runs a name writes its records, and whoever is near enough can send a datagram. Both are strangers:
//
//   - An answer with a wrong id is overlooked. More than 16 of them, or one with the right id and the question in another case, send the
//     question to TCP, where an answer cannot be forged from afar.
//   - Any other answer that is malformed, cut off or answers something else counts as none: the next server is asked, and in the end the
//     error is temporary. So it is with SERVFAIL and every other error code, referrals, and NXDOMAIN with records.
//   - Records of other names, types or classes are not looked at, wherever in the answer they are: addresses of MX hosts are always asked
//     for. Of several aliases of one name the first is followed.
//   - A loop of aliases, and more than [MaxAliases] in a row, are a temporary error.
//   - Of more than [MaxRecords] records of a type the rest is dropped, of MX records those with the highest preference;
//     [Answer.Dropped] says how many.
//   - An MX record without a host, with an IP address for one, or with a name that no host can have, is passed on as it is, since the
//     choice is the caller's; [MX.Err] says what is wrong. LookupAddr refuses such names with [ErrBadName], but for an IP address.
//   - An address is passed on, private, loopback or otherwise: which of them mail may be sent to is for the caller to decide. One mapped
//     into IPv6 is given as IPv4, so that it cannot hide.
//   - A TTL counts up to [Resolver.MaxTTL] or [Resolver.MaxNegativeTTL]. An answer of more than 8 KiB is used but not cached, and the
//     whole cache stays within [Resolver.CacheSize].
//   - However slowly a server answers, a lookup ends after 30 seconds.
//
// # What it does not do
//
// It reads no hosts file and no search list: a mail domain is a name in the DNS, and a smarthost is best given by a DNS name or an IP
// address. The names localhost and *.localhost are the loopback addresses, as RFC 6761, section 6.3 asks of a resolver library.
// It does not validate DNSSEC: it reports what a trusted server validated, see [Resolver.TrustAD]. It never asks for SRV records in the
// place of MX records.
package resolve
