package resolve_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/miekg/dns"

	"github.com/sortie-mail/sortie/deliver/resolve"
)

// Find out where the mail of a domain goes, and what to do if that cannot be found out.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	var resolver resolve.Resolver
	hosts, err := resolver.LookupMX(ctx, "bücher.example")
	var failure *resolve.Error
	switch {
	case errors.As(err, &failure) && failure.Temporary():
		fmt.Println("try again later:", err)
	case err != nil:
		fmt.Println("return the mail:", err)
	case len(hosts) == 0:
		fmt.Println("the domain itself takes its mail")
	case len(hosts) == 1 && hosts[0].Host == "":
		fmt.Println("the domain takes no mail")
	}
	for _, mx := range hosts {
		fmt.Println(mx.Preference, mx.Host)
	}
}

// A name that cannot be in the DNS is told from one that is not.
func Example_badName() {
	var resolver resolve.Resolver
	_, err := resolver.LookupMX(context.Background(), "not a domain")
	fmt.Println(err)
	fmt.Println(errors.Is(err, resolve.ErrBadName))
	// Output:
	// resolve: MX of "not a domain": not a domain name: character ' '
	// true
}

// Ask for a TLSA record, which counts only if DNSSEC vouches for it.
func ExampleResolver_Lookup() {
	resolver := resolve.Resolver{Servers: []string{"127.0.0.1:53"}}
	answer, err := resolver.Lookup(context.Background(), "_25._tcp.mx.example.org", dns.TypeTLSA)
	if err != nil {
		log.Print(err)
		return
	}
	for _, tlsa := range resolve.Records[*dns.TLSA](answer) {
		fmt.Println("DANE applies:", answer.Secure, tlsa.Usage, tlsa.Selector, tlsa.MatchingType, tlsa.Certificate)
	}
}

// Ask a blocklist about an address: what it says is an address itself, and a name that does not exist is good news.
func ExampleResolver_Lookup_blocklist() {
	resolver := resolve.Resolver{Servers: []string{"127.0.0.1:53"}}
	answer, err := resolver.Lookup(context.Background(), "1.2.0.192.dnsbl.example", dns.TypeA)
	var failure *resolve.Error
	switch {
	case errors.As(err, &failure) && failure.NotFound:
		fmt.Println("not listed")
	case err != nil:
		fmt.Println("nobody knows:", err)
	default:
		fmt.Println("listed:", answer.Addrs())
	}
}

// Watch which aliases were followed on the way to an address.
func ExampleWithTrace() {
	ctx := resolve.WithTrace(context.Background(), &resolve.Trace{
		Answered: func(answer resolve.Answer, err error) {
			if len(answer.Aliases) > 0 {
				log.Printf("%s is an alias of %s", answer.Name, answer.Owner())
			}
			if answer.Stale != nil {
				log.Printf("an answer of %s is used, since now there is none: %v", answer.Expires, answer.Stale)
			}
		},
	})
	var resolver resolve.Resolver
	addrs, err := resolver.LookupAddr(ctx, "localhost")
	fmt.Println(addrs, err)
	// Output: [::1 127.0.0.1] <nil>
}
