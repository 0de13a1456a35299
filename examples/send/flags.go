package main

// The command line: every mistake told before anything is asked or sent.

import (
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/route"
)

// options is what the command line says, read and checked.
type options struct {
	from          string
	to            []string
	route         route.Router // of -route, or route.Direct
	routes        string
	tls           route.TLSMode // instead of what the route asks for
	hostname      string
	dns           string
	smtpPort      uint16
	allowLoopback bool
	roots         *x509.CertPool // nil is the system's
	timeout       time.Duration
	notify        dsn.Notify
	ret           dsn.Return
	envid         string
	requireTLS    bool
	priority      int
	by            deliver.DeliverBy
	noConversion  bool
	explain       bool
	verbose       bool
	json          bool

	hops, tlsText, port, caFile, notifyText, retText, byText string // as they were written
	given                                                    map[string]bool
}

const usage = `send makes one attempt to deliver the message on its standard input, and tells how that went.

  send -from me@example.org -to you@example.net -v <message.eml
  send -to you@example.net -explain

What
  -from ADDR             reverse-path: whom reports go to; "" or <> is the null sender
  -to ADDR,ADDR          recipients; may be repeated
  -notify WORDS          DSN: never, or some of success,failure,delay (RFC 3461)
  -ret full|hdrs         DSN: how much of the message comes back
  -envid TEXT            DSN: the name that reports call the message by
  -require-tls           REQUIRETLS: only to hosts with verified TLS that promise the same (RFC 8689)
  -priority N            MT-PRIORITY, -9 to 9 (RFC 6710)
  -by TIME[,notify][,trace]
                         DELIVERBY: of use for so long, like 2h; late it comes back, or with notify goes on and is told of;
                         with trace every host on the way is to say so (RFC 2852)
  -no-conversion         fail where a host cannot take the message as it is, instead of re-encoding it

Where
  -route HOPS            the way, as in a routing file: "smtp://mail.isp.example", "direct tls=verified",
                         "submission://me@mail.isp.example secret=env:PASSWORD", "direct, on blocked smtp://..."
  -routes FILE           routing file, instead; without either mail goes to the MX hosts of the recipient's domain
  -tls MODE              none, opportunistic, required or verified, instead of what the route says
  -hostname NAME         the name to greet with (the system's)
  -ca FILE               more trusted roots for TLS, PEM
  -dns ADDR              DNS server to ask, instead of the system's
  -smtp-port N           port of MX hosts (25); others are for labs
  -allow-loopback        MX hosts may have loopback and private addresses; for labs
  -timeout D             for everything, like 90s (10m)

Telling
  -explain               tell the route, the hosts and what of them is refused. DNS is asked, nothing is sent, and no
                         message is read
  -v                     tell that first, and then every line that is said, without secrets, on standard error
  -json                  a JSON object a line on standard output: "type":"outcome" for each recipient, and before those,
                         with -explain and -v, "type":"explanation" for each way

Passwords are read from the environment (secret=env:NAME) or a file (secret=file:PATH), and are never shown. The message goes
as it is: nothing is added to its header. The exit code is one of sysexits.h:

   0  delivered, relayed or discarded     73  no room for a copy of the message
  64  the command line is wrong           74  the message could not be read, or nothing written
  65  the message is empty, too long,     75  not now: try again later (also where the route says hold)
      or not what the host takes          76  the host answers what makes no sense, or did not understand us
  67  no such mailbox                     77  refused for who we are or what the policy is; a login failed
  68  no such host, or it takes no mail   78  the route is wrong: a file, a smarthost, a loop
  69  refused, and none of the others

Of several recipients the worst counts: what no retry mends, then 75, then 0, and of equals the first. -explain exits with what
would come of it if the hosts take everything.
`

// parseFlags reads the command line. It returns flag.ErrHelp where help is asked for. All other errors say which flag is
// wrong and what to write instead.
func parseFlags(args []string) (*options, error) {
	o := &options{timeout: 10 * time.Minute}
	fs := newFlagSet(o)
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("%q is no flag: all settings begin with -, and the message comes on standard input", fs.Arg(0))
	}
	o.given = map[string]bool{}
	fs.Visit(func(f *flag.Flag) { o.given[f.Name] = true })
	return o, o.check()
}

func newFlagSet(o *options) *flag.FlagSet {
	fs := flag.NewFlagSet("send", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&o.from, "from", "", "")
	fs.Func("to", "", func(list string) error { o.to = append(o.to, splitAddresses(list)...); return nil })
	fs.StringVar(&o.notifyText, "notify", "", "")
	fs.StringVar(&o.retText, "ret", "", "")
	fs.StringVar(&o.envid, "envid", "", "")
	fs.BoolVar(&o.requireTLS, "require-tls", false, "")
	fs.Func("priority", "", func(text string) (err error) { o.priority, err = parsePriority(text); return err })
	fs.StringVar(&o.byText, "by", "", "")
	fs.BoolVar(&o.noConversion, "no-conversion", false, "")
	fs.StringVar(&o.hops, "route", "", "")
	fs.StringVar(&o.routes, "routes", "", "")
	fs.StringVar(&o.tlsText, "tls", "", "")
	fs.StringVar(&o.hostname, "hostname", "", "")
	fs.StringVar(&o.caFile, "ca", "", "")
	fs.StringVar(&o.dns, "dns", "", "")
	fs.StringVar(&o.port, "smtp-port", "25", "")
	fs.BoolVar(&o.allowLoopback, "allow-loopback", false, "")
	fs.Func("timeout", "", func(text string) (err error) { o.timeout, err = parseTimeout(text); return err })
	fs.BoolVar(&o.explain, "explain", false, "")
	fs.BoolVar(&o.verbose, "v", false, "")
	fs.BoolVar(&o.json, "json", false, "")
	return fs
}

// check reads the values that need more than the flag package. It returns all mistakes.
func (o *options) check() error {
	var errs []error
	note := func(name string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("-%s: %w", name, err))
		}
	}
	note("from", o.checkFrom())
	note("to", o.checkTo())
	note("route", o.checkRoute())
	note("tls", o.checkTLS())
	note("ca", o.readRoots())
	note("dns", o.checkDNS())
	note("smtp-port", o.checkPort())
	note("notify", o.checkNotify())
	note("ret", o.checkRet())
	note("by", o.checkBy())
	if o.priority < -9 || o.priority > 9 {
		note("priority", fmt.Errorf("%d is no priority: write -9 to 9 (RFC 6710)", o.priority))
	}
	if o.timeout <= 0 {
		note("timeout", fmt.Errorf("%v is too short: write how long everything may take, like 90s", o.timeout))
	}
	return errors.Join(errs...)
}

func parsePriority(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, errors.New("write -9 to 9 (RFC 6710)")
	}
	return n, nil
}

func parseTimeout(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err == nil {
		return d, nil
	}
	if _, err := strconv.ParseFloat(text, 64); err == nil {
		return 0, fmt.Errorf("write %ss for seconds, %sm for minutes", text, text)
	}
	return 0, errors.New("write how long everything may take, like 90s or 10m")
}

// splitAddresses splits at the commas outside of quoted local parts.
func splitAddresses(list string) (all []string) {
	quoted, start := false, 0
	for i := 0; i <= len(list); i++ {
		switch {
		case i == len(list) || (list[i] == ',' && !quoted):
			all = append(all, bare(list[start:i]))
			start = i + 1
		case list[i] == '\\' && quoted:
			i++
		case list[i] == '"':
			quoted = !quoted
		}
	}
	return all
}

// bare takes spaces and angle brackets away.
func bare(address string) string {
	address = strings.TrimSpace(address)
	if inner, ok := strings.CutPrefix(address, "<"); ok && strings.HasSuffix(inner, ">") {
		return inner[:len(inner)-1]
	}
	return address
}

// checkAddress tells what people write who think of a header field. What else is wrong with an address is the deliverer's to say.
func checkAddress(address string) error {
	if i := strings.LastIndexByte(address, '<'); i > 0 && strings.HasSuffix(address, ">") {
		return fmt.Errorf("%q is more than an address: write %s, a name stands in the message only", address, address[i+1:len(address)-1])
	}
	at := strings.LastIndexByte(address, '@')
	switch {
	case at <= 0 || at == len(address)-1, strings.ContainsAny(address[at:], " \t<>()\""):
		return fmt.Errorf("%q is no address: write it like you@example.net", address)
	case address[0] != '"' && strings.ContainsAny(address[:at], " \t<>()[]:;@\\\""): // RFC 5321, section 4.1.2
		return fmt.Errorf("%q is no address: write it like you@example.net; what SMTP wants quoted stands in double quotes, "+
			"as in '\"a b\"@example.net'", address)
	}
	return nil
}

func (o *options) checkFrom() error {
	o.from = bare(o.from)
	if o.from != "" {
		return checkAddress(o.from)
	}
	if !o.given["from"] && !o.explain {
		return errors.New(`it is needed: write whom reports go to, or -from "" where nobody wants any`)
	}
	return nil
}

func (o *options) checkTo() error {
	if len(o.to) == 0 {
		return errors.New("it is needed: write who is to get the message")
	}
	seen := map[string]bool{}
	for _, to := range o.to {
		if err := checkAddress(to); err != nil {
			return err
		}
		if seen[to] {
			return fmt.Errorf("%s is there twice", to)
		}
		seen[to] = true
	}
	return nil
}

func (o *options) checkRoute() (err error) {
	switch {
	case o.given["route"] && o.given["routes"]:
		return errors.New("-routes would not be used beside it: leave one of the two out")
	case o.given["route"]:
		o.route, err = parseRoute(o.hops)
		return err
	}
	o.route = route.Direct
	return nil
}

func (o *options) checkTLS() error {
	if o.tlsText == "" && !o.given["tls"] {
		return nil
	}
	for mode := route.TLSNone; mode <= route.TLSVerified; mode++ {
		if mode.String() == o.tlsText {
			o.tls = mode
			return nil
		}
	}
	return fmt.Errorf("%q is none of none, opportunistic, required and verified", o.tlsText)
}

// readRoots adds the roots of -ca to the system's.
func (o *options) readRoots() error {
	if o.caFile == "" {
		return nil
	}
	pem, err := os.ReadFile(o.caFile)
	if err != nil {
		return err
	}
	if o.roots, err = x509.SystemCertPool(); err != nil {
		o.roots = x509.NewCertPool()
	}
	if !o.roots.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)", o.caFile)
	}
	return nil
}

func (o *options) checkDNS() error {
	_, err := netip.ParseAddrPort(o.dns)
	if _, alone := netip.ParseAddr(o.dns); o.dns != "" && err != nil && alone != nil {
		return fmt.Errorf("%q is no DNS server: write its IP address, with a port or without, like 192.0.2.53:53", o.dns)
	}
	return nil
}

func (o *options) checkPort() error {
	n, err := strconv.ParseUint(o.port, 10, 16)
	if err != nil || n == 0 {
		return fmt.Errorf("%q is no port: write 1 to 65535", o.port)
	}
	o.smtpPort = uint16(n)
	return nil
}

func (o *options) checkNotify() (err error) {
	if o.notify, err = dsn.ParseNotify(strings.ToUpper(o.notifyText)); err != nil {
		return fmt.Errorf("%q: write never, or some of success,failure,delay", o.notifyText)
	}
	return nil
}

func (o *options) checkRet() error {
	o.ret = dsn.Return(strings.ToUpper(o.retText))
	if !slices.Contains([]dsn.Return{dsn.ReturnDefault, dsn.ReturnFull, dsn.ReturnHeaders}, o.ret) {
		return fmt.Errorf("%q: write full or hdrs", o.retText)
	}
	return nil
}

func (o *options) checkBy() error {
	if o.byText == "" {
		return nil
	}
	words := strings.Split(o.byText, ",")
	d, err := time.ParseDuration(words[0])
	if err != nil || d < time.Second {
		return fmt.Errorf("%q is no time: write it like 90s or 2h, at least a second", words[0])
	}
	o.by.Time = time.Now().Add(d)
	for _, word := range words[1:] {
		switch word {
		case "notify":
			o.by.Notify = true
		case "trace":
			o.by.Trace = true
		default:
			return fmt.Errorf("%q: write notify or trace, or nothing", word)
		}
	}
	return nil
}
