package main

// The command line: every setting with its limits, and every mistake told before anything is touched.

import (
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/sortie-mail/sortie/deliver/shape"
	"github.com/sortie-mail/sortie/queue"
)

// options is what the command line says, read and checked before anything is touched.
type options struct {
	listen, hostname           string
	queueURL, spool            string
	routes                     string
	dns                        string
	dnsStale                   time.Duration
	smtpPort                   uint16
	allowLoopback              bool
	roots                      *x509.CertPool // nil is the system's
	relayFrom                  []netip.Prefix
	schedule                   queue.Schedule
	maxSize                    int64
	maxRecipients              int
	maxConnections             int
	maxDeliveries              int
	maxPerClient               int
	hostConcurrency            int
	checkSender                string
	checkWait                  time.Duration
	idle                       time.Duration
	files                      int
	memory                     int64
	console                    string
	logFile, transcript        string
	caFile                     string
	shapingFile                string
	sites                      *shape.Rules // nil is the embedded ones
	certFile, keyFile          string
	submission                 bool
	relayFromText, retry       string
	delayAfter, lifetime, port string
	suppressText               string
	suppress                   time.Duration
	dnsStaleText               string
	maxSizeText, memoryText    string
	given                      map[string]bool // the flags that the command line names
}

const usage = `relayd takes mail from its users by SMTP and sees to it that it arrives: directly, or by the routes of a file.

  relayd -hostname mail.example.org -routes /etc/relayd/routes

Taking mail
  -listen ADDR           listen here for SMTP (127.0.0.1:2525)
  -relay-from NETS       who may relay: networks or addresses, separated by commas (127.0.0.0/8,::1/128);
                         everybody else gets 550 5.7.1 at RCPT
  -hostname NAME         name of this host: in greetings, Received fields and reports (the system's)
  -max-size SIZE         longest message; with KiB, MiB or GiB, or in octets (50MiB)
  -max-recipients N      recipients of one message, at most 50000 (1000)
  -max-connections N     connections at once (1000); a tenth of them is for those who may not relay, who get
                         30 s to say something, 2 min in all, and 10 refused commands
  -max-per-client N      connections at once from one address that may relay (500); where these or all
                         connections are taken, the one that has idled for longest gives way
  -idle D                how long a client may be silent (5m)
  -cert FILE -key FILE   certificate chain and key, PEM: offers STARTTLS, and within TLS REQUIRETLS
  -check-sender WHAT     refuse mail whose sender nobody could answer, with 550 at MAIL: of a domain with a null MX record
                         (null-mx), or also of one that does not exist (exists); no asks nothing (null-mx)
  -check-sender-wait D   how long MAIL waits for that at most; a resolver that is slower is left alone for a minute (250ms)
  -submission            mail begins here: a Date, Message-ID or From that a message lacks is added (RFC 6409)

Within limits
  -files N               files that may be open, divided among clients, attempts, queue and DNS (the system's limit, ulimit -n);
                         where they are few, there are fewer connections and attempts at once, and clients over it get 421
  -memory SIZE           memory to stay within, like 512MiB (no limit); messages that come in wait where they take more than
                         an eighth of it together, and then get 452

Keeping it
  -spool DIR             queue on disk (./spool)
  -queue URL             another queue disk:DIR, instead of -spool: disk:DIR, memory: (lost with the process, at most
                         1 GiB), or postgres://... (not built in yet)

Sending it
  -routes FILE           routing table; without it all mail goes to the recipient domain's MX hosts
  -dns ADDR              DNS server to ask, instead of the system's
  -dns-stale D           how long after its end an answer of DNS may still lead to a host while no server gives a new one,
                         3d at most; mail is never returned for such an answer (0, never)
  -smtp-port N           port of MX hosts (25); others are for labs
  -allow-loopback        MX hosts may have loopback and private addresses; for labs
  -ca FILE               more trusted roots for TLS, PEM
  -max-deliveries N      attempts at once (5000, or as many as -files allows); 20 at most in one domain
  -host-concurrency N    attempts at once through one smarthost, at most (50, or half of -max-deliveries)
  -shaping FILE          what sites (sets of MX hosts, and smarthosts) get: connections, messages on each, recipients, rates;
                         its rules, one a line like "google connections=5 rate=100/min", go before those that are built in
  -retry D,D,...         waits between tries; the last one repeats (5m,15m,30m,1h,2h,4h)
  -delay-after D         age at which the sender is told of a delay; 0 is never (4h)
  -lifetime D            age at which mail is given up and returned (5d)
  -suppress D            for how long an address is refused at RCPT, with the old words, that a host said for good does not
                         exist; 0 is never (0)

Watching it
  -console ADDR          serve HTTP here: /metrics for Prometheus, /healthz, and /summary (/summary.json) that tells the
                         administrator what is wrong and what to do about it. The queue, in JSON:
                           GET /queue              what waits: ?lane=DOMAIN&sender=A&recipient=A&state=held&older-than=1d,
                                                   the first ?limit=100, at most 1000, and with ?cursor=NEXT the rest
                           GET /queue/ID           all about one message
                           POST /queue/hold        (release, retry, fail, delete) changes what the same parameters and
                                                   id=ID choose, or all=yes; hold and fail take why=TEXT. Only from this
                                                   host, and with the header X-Relayd: yes
                           GET /sites              what each site gets now, and why, or one: ?site=google, ?limit=
                           GET /suppressed         the addresses that -suppress refuses, or one: ?address=A, ?limit= and ?cursor=
                           POST /suppressed/lift   takes address=A off the list, as those above
  -log FILE              log, a JSON object a line (standard error)
  -transcript FILE       session log: every line of every SMTP session that sends mail, without secrets

Clients may ask for DSN, SMTPUTF8, BINARYMIME, MT-PRIORITY (what is higher goes first), DELIVERBY (mail that is not delivered in
time comes back then, or is told of) and REQUIRETLS (only to hosts with verified TLS that promise the same).

Times are like 90s, 15m, 4h or 5d. SIGHUP reads routes and certificate again and reopens the log files; SIGTERM stops
within 10 s, and what is under way then is finished or put back. Nothing that was answered with 250 is lost, not by SIGKILL
either.
`

// parseFlags reads the command line. It returns flag.ErrHelp where help was asked for and printed to out. All other
// errors say which flag is wrong and what to write instead.
func parseFlags(args []string, out io.Writer) (*options, error) {
	o := &options{}
	fs := newFlagSet(o)
	fs.SetOutput(io.Discard)
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		io.WriteString(out, usage)
		return nil, err
	} else if err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("%q is no flag: all settings begin with -", fs.Arg(0))
	}
	o.given = map[string]bool{}
	fs.Visit(func(f *flag.Flag) { o.given[f.Name] = true })
	return o, o.check()
}

func newFlagSet(o *options) *flag.FlagSet {
	fs := flag.NewFlagSet("relayd", flag.ContinueOnError)
	fs.StringVar(&o.listen, "listen", "127.0.0.1:2525", "")
	fs.StringVar(&o.relayFromText, "relay-from", "127.0.0.0/8,::1/128", "")
	fs.StringVar(&o.hostname, "hostname", "", "")
	fs.StringVar(&o.maxSizeText, "max-size", "50MiB", "")
	fs.IntVar(&o.maxRecipients, "max-recipients", 1000, "")
	fs.IntVar(&o.maxConnections, "max-connections", 1000, "")
	fs.IntVar(&o.maxDeliveries, "max-deliveries", 5000, "")
	fs.IntVar(&o.maxPerClient, "max-per-client", 500, "")
	fs.IntVar(&o.files, "files", 0, "")
	fs.StringVar(&o.memoryText, "memory", "", "")
	fs.DurationVar(&o.idle, "idle", 5*time.Minute, "")
	fs.StringVar(&o.spool, "spool", "./spool", "")
	fs.StringVar(&o.queueURL, "queue", "", "")
	fs.StringVar(&o.routes, "routes", "", "")
	fs.StringVar(&o.dns, "dns", "", "")
	fs.StringVar(&o.dnsStaleText, "dns-stale", "0", "")
	fs.IntVar(&o.hostConcurrency, "host-concurrency", 0, "")
	fs.StringVar(&o.checkSender, "check-sender", checkNullMX, "")
	fs.DurationVar(&o.checkWait, "check-sender-wait", 250*time.Millisecond, "")
	fs.StringVar(&o.port, "smtp-port", "25", "")
	fs.BoolVar(&o.allowLoopback, "allow-loopback", false, "")
	fs.StringVar(&o.certFile, "cert", "", "")
	fs.StringVar(&o.keyFile, "key", "", "")
	fs.BoolVar(&o.submission, "submission", false, "")
	fs.StringVar(&o.caFile, "ca", "", "")
	fs.StringVar(&o.shapingFile, "shaping", "", "")
	fs.StringVar(&o.retry, "retry", "", "")
	fs.StringVar(&o.delayAfter, "delay-after", "4h", "")
	fs.StringVar(&o.lifetime, "lifetime", "5d", "")
	fs.StringVar(&o.suppressText, "suppress", "0", "")
	fs.StringVar(&o.console, "console", "", "")
	fs.StringVar(&o.logFile, "log", "", "")
	fs.StringVar(&o.transcript, "transcript", "", "")
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
	note("listen", checkAddr(o.listen))
	note("relay-from", o.checkRelayFrom())
	note("hostname", o.checkHostname())
	note("max-size", o.checkMaxSize())
	note("max-recipients", within(o.maxRecipients, 1, queue.MaxRecipients))
	note("max-connections", within(o.maxConnections, 2, 100_000))
	note("max-per-client", within(o.maxPerClient, 1, 100_000))
	note("max-deliveries", within(o.maxDeliveries, 1, 1_000_000))
	if o.idle < time.Second {
		note("idle", fmt.Errorf("%v is too short: write at least 1s", o.idle))
	}
	if o.given["files"] {
		note("files", within(o.files, leastFiles, 10_000_000))
	}
	note("memory", o.checkMemory())
	note("queue", o.checkQueue())
	if o.given["host-concurrency"] {
		note("host-concurrency", within(o.hostConcurrency, 1, 1_000_000))
	}
	note("check-sender", o.checkCheckSender())
	if o.checkWait < time.Millisecond || o.checkWait > time.Minute {
		note("check-sender-wait", fmt.Errorf("%v makes no sense: write 1ms to 1m", o.checkWait))
	}
	note("dns", o.checkDNS())
	note("dns-stale", o.checkDNSStale())
	note("smtp-port", o.checkPort())
	note("retry", o.checkRetry())
	note("delay-after", o.checkDelayAfter())
	note("lifetime", o.checkLifetime())
	note("suppress", o.checkSuppress())
	note("ca", o.readRoots())
	note("shaping", o.readShaping())
	note("cert", o.checkCertificate())
	if o.console != "" {
		note("console", checkAddr(o.console))
	}
	return errors.Join(errs...)
}

func checkAddr(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("%q is no address to listen on: write HOST:PORT, like 127.0.0.1:2525", addr)
	}
	return nil
}

func within(n, least, most int) error {
	if n < least || n > most {
		return fmt.Errorf("%d is not within %d and %d", n, least, most)
	}
	return nil
}

func (o *options) checkRelayFrom() error {
	for word := range strings.SplitSeq(o.relayFromText, ",") {
		word = strings.TrimSpace(word)
		p, err := netip.ParsePrefix(word)
		if err != nil {
			a, addrErr := netip.ParseAddr(word)
			if addrErr != nil || a.Zone() != "" {
				return fmt.Errorf("%q is no network: write them like 10.0.0.0/8,2001:db8::/32, or single addresses", word)
			}
			p = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())
		}
		if p != p.Masked() {
			return fmt.Errorf("%s is both an address and a network: write %v for the network, or %v/%d for that address alone", word, p.Masked(), p.Addr(), p.Addr().BitLen())
		}
		o.relayFrom = append(o.relayFrom, p)
	}
	return nil
}

func (o *options) checkHostname() error {
	name := o.hostname
	if name == "" {
		var err error
		if name, err = os.Hostname(); err != nil {
			return fmt.Errorf("the system does not tell its name (%w): write one", err)
		}
	}
	o.hostname = strings.TrimSuffix(name, ".")
	if _, err := netip.ParseAddr(o.hostname); err == nil || !isHostname(o.hostname) {
		return fmt.Errorf("%q is no host name: write the one that this host's address has in DNS, like mail.example.org", name)
	}
	return nil
}

// isHostname reports whether a name has the form of RFC 1123, section 2.1.
func isHostname(name string) bool {
	if len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		odd := func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
		}
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' || strings.ContainsFunc(label, odd) {
			return false
		}
	}
	return true
}

func (o *options) checkMaxSize() error {
	n, ok := parseSize(o.maxSizeText)
	if !ok || n > maxMaxSize {
		return fmt.Errorf("%q is no size: write it like 50MiB, at most 2GiB", o.maxSizeText)
	}
	o.maxSize = n
	return nil
}

func (o *options) checkMemory() error {
	if o.memoryText == "" {
		return nil
	}
	n, ok := parseSize(o.memoryText)
	if !ok || n < leastBytes {
		return fmt.Errorf("%q is too little memory, or no size: write it like 512MiB, at least 64MiB", o.memoryText)
	}
	o.memory = n
	return nil
}

// parseSize reads octets, or a number with KiB, MiB or GiB.
func parseSize(text string) (n int64, ok bool) {
	text, unit := strings.TrimSpace(text), int64(1)
	for suffix, octets := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if rest, ok := strings.CutSuffix(text, suffix); ok {
			text, unit = rest, octets
		}
	}
	n, err := strconv.ParseInt(text, 10, 32)
	return n * unit, err == nil && n > 0
}

// maxMaxSize is as far as the SIZE parameter is understood by go-smtp, and far more than anybody delivers.
const maxMaxSize = 2 << 30

func (o *options) checkQueue() error {
	if o.given["queue"] && o.given["spool"] {
		return fmt.Errorf("-spool %s would not be used beside it: leave one of the two out", o.spool)
	}
	switch kind, rest, found := strings.Cut(o.queueURL, ":"); {
	case o.queueURL == "", kind == "memory" && found && rest == "", kind == "disk" && rest != "":
		return nil
	case kind == "postgres" || kind == "postgresql":
		return fmt.Errorf("postgres is not built in yet: write memory: or disk:DIR")
	}
	return fmt.Errorf("%q is no queue: write memory: or disk:DIR", o.queueURL)
}

func (o *options) checkDNS() error {
	if o.dns == "" {
		return nil
	}
	host := o.dns
	if _, err := netip.ParseAddrPort(o.dns); err != nil {
		if _, err := netip.ParseAddr(host); err != nil {
			return fmt.Errorf("%q is no DNS server: write its IP address, with a port or without, like 192.0.2.53:53", o.dns)
		}
	}
	return nil
}

// maxDNSStale is the longest of the times that RFC 8767, section 5, speaks of.
const maxDNSStale = 3 * 24 * time.Hour

func (o *options) checkDNSStale() (err error) {
	if o.dnsStale, err = parseDuration(o.dnsStaleText); err == nil && o.dnsStale > maxDNSStale {
		return fmt.Errorf("%s is too long: hosts move, and mail must not follow where they were; write 3d at most", o.dnsStaleText)
	}
	return err
}

func (o *options) checkCheckSender() error {
	switch o.checkSender {
	case checkNothing, checkNullMX, checkExists:
		return nil
	}
	return fmt.Errorf("%q is nothing to look at: write null-mx, exists or no", o.checkSender)
}

func (o *options) checkPort() error {
	n, err := strconv.ParseUint(o.port, 10, 16)
	if err != nil || n == 0 {
		return fmt.Errorf("%q is no port: write 1 to 65535", o.port)
	}
	o.smtpPort = uint16(n)
	return nil
}

func (o *options) checkRetry() error {
	if o.retry == "" {
		o.schedule.Waits = queue.DefaultWaits()
		return nil
	}
	for word := range strings.SplitSeq(o.retry, ",") {
		d, err := parseDuration(strings.TrimSpace(word))
		if err != nil {
			return err
		}
		if d <= 0 {
			return fmt.Errorf("%s is no wait: write how long to wait before the next try, like 5m,15m,1h", word)
		}
		o.schedule.Waits = append(o.schedule.Waits, d)
	}
	return nil
}

func (o *options) checkDelayAfter() (err error) {
	if o.schedule.DelayAfter, err = parseDuration(o.delayAfter); err == nil && o.schedule.DelayAfter == 0 {
		o.schedule.DelayAfter = -1 // never
	}
	return err
}

func (o *options) checkLifetime() (err error) {
	if o.schedule.Lifetime, err = parseDuration(o.lifetime); err == nil && o.schedule.Lifetime == 0 {
		return fmt.Errorf("0 would return all mail at once: write how long to try, like 5d")
	}
	return err
}

func (o *options) checkSuppress() (err error) {
	o.suppress, err = parseDuration(o.suppressText)
	return err
}

// doubts are settings that are allowed, and that few people mean.
func (o *options) doubts() (doubts []string) {
	if !strings.Contains(o.hostname, ".") {
		doubts = append(doubts, fmt.Sprintf("many servers refuse the greeting of a host named %q, without a dot: set -hostname to the name that this host's address has in DNS", o.hostname))
	}
	if o.schedule.DelayAfter >= o.schedule.Lifetime {
		doubts = append(doubts, fmt.Sprintf("no delay will ever be reported: mail is returned after %v (-lifetime), before it is late after %v (-delay-after)", o.schedule.Lifetime, o.schedule.DelayAfter))
	}
	return doubts
}

// parseDuration reads what time.ParseDuration reads, and days.
func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n uint64
		if n, err = strconv.ParseUint(days, 10, 15); err == nil {
			d = time.Duration(n) * 24 * time.Hour
		}
	}
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is no time: write it like 90s, 15m, 4h or 5d", s)
	}
	return d, nil
}

func (o *options) checkCertificate() error {
	if (o.certFile == "") != (o.keyFile == "") {
		return fmt.Errorf("-cert and -key go together: the one without the other is of no use")
	}
	return nil
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
