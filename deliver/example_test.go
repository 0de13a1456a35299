package deliver_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"strings"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/deliver/resolve"
	"github.com/sortie-mail/sortie/route"
)

// newInternet is a small internet with one provider, which does not like our address, and an ISP. With the real one, leave
// Resolver and Dial of the Deliverer as they are.
func newInternet() *lab.Internet {
	internet, err := lab.New(lab.Options{})
	if err != nil {
		log.Fatal(err)
	}
	for domain, zone := range map[string]string{"aol.test": "@ MX 10 mx\nmx A 192.0.2.10", "isp.test": "mail A 192.0.2.50"} {
		if err := internet.Zone(domain, zone); err != nil {
			log.Fatal(err)
		}
	}
	internet.Server("mx.aol.test", lab.Refuse(lab.AtRcpt, "550 5.1.1 No such user", "nobody@*"),
		lab.Refuse(lab.AtRcpt, "554 5.7.1 Your address is a dynamic (residential) IP address", "you@*"))
	internet.Server("mail.isp.test")
	return internet
}

// message is a short one to some recipients.
func message(to ...string) *deliver.Message {
	const text = "From: me@example.org\r\nSubject: Hello\r\n\r\nHello.\r\n"
	m := &deliver.Message{
		ID: "m1", From: "me@example.org", Size: int64(len(text)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil },
	}
	for _, address := range to {
		m.To = append(m.To, deliver.Recipient{Address: address})
	}
	return m
}

// One attempt to the MX hosts of the recipients' domain.
func Example() {
	internet := newInternet()
	defer internet.Close()

	d := &deliver.Deliverer{
		Hostname: "mail.example.org",
		Resolver: &resolve.Resolver{Servers: []string{internet.DNS()}},
		Dial:     internet.Dial,
	}
	defer d.Close()

	direct := route.Route{Hops: []route.Hop{{Kind: route.MX}}}
	for _, o := range d.Deliver(context.Background(), direct, message("friend@aol.test", "nobody@aol.test")) {
		fmt.Println(o)
	}
	// Output:
	// <friend@aol.test>: delivered 2.0.0 at mx.aol.test[192.0.2.10]:25 (dot): 250 2.0.0 Ok: taken
	// <nobody@aol.test>: permfail 5.1.1 at mx.aol.test[192.0.2.10]:25 (rcpt): 550 5.1.1 No such user
}

// A route through a smarthost, as a routing file has it. It is a detour here: taken when nobody can be reached directly.
func ExampleDeliverer_Deliver_smarthost() {
	internet := newInternet()
	defer internet.Close()
	table, err := route.Parse("routes", strings.NewReader(`
		*@aol.test      smtp://mail.isp.test
		*               direct, on unreachable smtp://mail.isp.test`))
	if err != nil {
		log.Fatal(err)
	}

	d := &deliver.Deliverer{
		Hostname: "mail.example.org",
		Resolver: &resolve.Resolver{Servers: []string{internet.DNS()}},
		Dial:     internet.Dial,
	}
	defer d.Close()

	for _, to := range []string{"you@aol.test", "you@[192.0.2.99]"} {
		r, err := table.Route(context.Background(), route.Query{Recipient: to})
		if err != nil {
			log.Fatal(err)
		}
		o := d.Deliver(context.Background(), r, message(to))[0]
		fmt.Println(o.Recipient, o.Result, "by", o.Host)
		for _, try := range o.Tried {
			fmt.Println("  after", try.Host, try.Err)
		}
	}
	// Output:
	// you@aol.test delivered by mail.isp.test
	// you@[192.0.2.99] delivered by mail.isp.test
	//   after [192.0.2.99] no connection: dial tcp 192.0.2.99:25: no route to host
}

// The session log has the provider's refusal word for word. Each line begins with the time, which is cut off here.
func ExampleNewTranscript() {
	internet := newInternet()
	defer internet.Close()

	d := &deliver.Deliverer{
		Hostname:   "mail.example.org",
		Resolver:   &resolve.Resolver{Servers: []string{internet.DNS()}},
		Dial:       internet.Dial,
		Transcript: deliver.NewTranscript(cutTime{os.Stdout}),
	}
	d.Deliver(context.Background(), route.Route{Hops: []route.Hop{{}}}, message("you@aol.test"))
	d.Close()
	// Output:
	// m1 mx.aol.test[192.0.2.10] *: connected to 192.0.2.10:25
	// m1 mx.aol.test[192.0.2.10] S: 220 mx.aol.test ESMTP lab
	// m1 mx.aol.test[192.0.2.10] C: EHLO mail.example.org
	// m1 mx.aol.test[192.0.2.10] S: 250-mx.aol.test
	// m1 mx.aol.test[192.0.2.10] S: 250-PIPELINING
	// m1 mx.aol.test[192.0.2.10] S: 250-SIZE 52428800
	// m1 mx.aol.test[192.0.2.10] S: 250-8BITMIME
	// m1 mx.aol.test[192.0.2.10] S: 250-SMTPUTF8
	// m1 mx.aol.test[192.0.2.10] S: 250-DSN
	// m1 mx.aol.test[192.0.2.10] S: 250 ENHANCEDSTATUSCODES
	// m1 mx.aol.test[192.0.2.10] C: MAIL FROM:<me@example.org> SIZE=48
	// m1 mx.aol.test[192.0.2.10] C: RCPT TO:<you@aol.test>
	// m1 mx.aol.test[192.0.2.10] C: DATA
	// m1 mx.aol.test[192.0.2.10] S: 250 2.1.0 Ok
	// m1 mx.aol.test[192.0.2.10] S: 554 5.7.1 Your address is a dynamic (residential) IP address
	// m1 mx.aol.test[192.0.2.10] S: 554 5.5.1 No valid recipients
	// m1 mx.aol.test[192.0.2.10] C: QUIT
	// m1 mx.aol.test[192.0.2.10] S: 221 2.0.0 Bye
}

// cutTime leaves out the first word of each line.
type cutTime struct{ io.Writer }

func (c cutTime) Write(p []byte) (int, error) {
	_, rest, _ := strings.Cut(string(p), " ")
	_, err := io.WriteString(c.Writer, rest)
	return len(p), err
}
