package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/lab"
)

// binary is send, built once for all tests: they see it as its users do, as a process with flags, pipes and an exit code.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "send")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "send")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		panic(fmt.Sprintf("go build: %v\n%s", err, out))
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

const letter = "From: <me@example.org>\r\nTo: <you@aol.test>\r\nSubject: Hello\r\n\r\nHello.\r\n"

// password is what no output may show.
const password = "s3cr3t-of-the-isp"

// A world is a lab with hosts on loopback addresses.
type world struct {
	*lab.Internet
	t    *testing.T
	net  string // the first three octets of the hosts' addresses, of this world alone
	port string // of all MX hosts
	last int    // octet of their addresses
}

// worlds counts them.
var worlds atomic.Int32

func newWorld(t *testing.T) *world {
	t.Helper()
	network := fmt.Sprintf("127.%d.%d", 100+os.Getpid()%100, 1+worlds.Add(1)%250)
	return &world{Internet: lab.Test(t), t: t, net: network, port: freePort(t, network+".1"), last: 1}
}

// freePort is a port that nobody holds on all addresses. It is below those that the system gives to listeners and connections
// which ask for any, so that none of them takes it before the hosts of a world do.
func freePort(t *testing.T, ip string) string {
	t.Helper()
	for i := range 100 {
		port := strconv.Itoa(20000 + (os.Getpid()+i)%10000)
		if l, err := net.Listen("tcp", net.JoinHostPort(ip, port)); err == nil {
			require.NoError(t, l.Close())
			return port
		}
	}
	t.Fatal("no port of a hundred is free on " + ip)
	return ""
}

// here puts the addresses and the port of the world for 127.0.0.x and :PORT.
func (w *world) here(text string) string {
	return strings.NewReplacer("127.0.0.", w.net+".", ":PORT", ":"+w.port, "port PORT", "port "+w.port).Replace(text)
}

// host starts mx.DOMAIN and makes it the MX host of the domain.
func (w *world) host(domain string, behaviours ...lab.Behaviour) *lab.Server {
	w.t.Helper()
	w.last++
	ip := fmt.Sprintf("%s.%d", w.net, w.last)
	s, err := w.Listen("mx."+domain, net.JoinHostPort(ip, w.port), behaviours...)
	require.NoError(w.t, err)
	require.NoError(w.t, w.Zone(domain, "@ MX 10 mx\nmx A "+ip))
	return s
}

// A result is what a run of send left.
type result struct {
	code     int
	out, log string
}

// send runs send in the world, with a message on standard input.
func (w *world) send(message string, flags ...string) result {
	w.t.Helper()
	all := append([]string{"-dns", w.DNS(), "-smtp-port", w.port, "-allow-loopback", "-hostname", "mail.example.org", "-from", "me@example.org"}, flags...)
	return run(w.t, strings.NewReader(message), all...)
}

func run(t *testing.T, in io.Reader, flags ...string) result {
	t.Helper()
	var out, log bytes.Buffer
	cmd := exec.CommandContext(t.Context(), binary, flags...)
	cmd.Env = append(os.Environ(), "ISP_PASSWORD="+password)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &out, &log
	err := cmd.Run()
	if _, ended := err.(*exec.ExitError); err != nil && !ended {
		t.Fatal(err)
	}
	r := result{cmd.ProcessState.ExitCode(), out.String(), log.String()}
	assert.NotContains(t, r.log, "panic")
	for _, secret := range []string{password, "czNjcjN0"} { // and how AUTH PLAIN may have it
		assert.NotContains(t, r.out+r.log, secret)
	}
	return r
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// What becomes of a message is in the exit code, and why is in the text.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	refuse := func(reply string) []lab.Behaviour { return []lab.Behaviour{lab.Refuse(lab.AtRcpt, reply)} }
	login := lab.Offer{TLS: lab.TLSOffered, Users: map[string]string{"me": "another"}, AuthRequired: true}
	for name, tt := range map[string]struct {
		host    []lab.Behaviour
		zone    string // of aol.test, instead of the host's
		dns     lab.DNSFailure
		message string // the letter
		flags   []string
		code    int
		want    []string
	}{
		"delivered": {
			host: []lab.Behaviour{lab.Delay(lab.AtDot, 20*time.Millisecond)},
			want: []string{"<you@aol.test>: delivered 2.0.0 at mx.aol.test[127.0.0.2]:", "\n  time: ", "dot "},
		},
		"relayed": {
			host: []lab.Behaviour{lab.Offer{Capabilities: []string{}}}, flags: []string{"-notify", "success"},
			want: []string{"relayed 2."},
		},
		"greylisted": {
			host: []lab.Behaviour{lab.Greylist(time.Hour)}, code: 75,
			want: []string{"tempfail 4.", "reason: greylisted."},
		},
		"user unknown": {
			host: refuse("550 5.1.1 No such user here"), code: 67,
			want: []string{"permfail 5.1.1", "550 5.1.1 No such user here", "reason: user-unknown"},
		},
		"user unknown, without an enhanced status": {
			host: refuse("550 No such user here"), code: 67, want: []string{"permfail 5.0.0", "550 No such user here"},
		},
		"mailbox full": {host: refuse("552 5.2.2 Mailbox full"), code: 69, want: []string{"permfail 5.2.2"}},
		"no such domain": {
			flags: []string{"-to", "x@gone.test"}, code: 68,
			want: []string{"<you@aol.test>: delivered", "<x@gone.test>: permfail 5.1.2", "does not exist"},
		},
		"null MX": {zone: "@ MX 0 .", code: 68, want: []string{"permfail 5.1.10", "null MX"}},
		"no host with an address": {
			zone: "@ MX 10 gone", code: 68, want: []string{"permfail 5.4.4", "gone.aol.test does not exist"},
		},
		"DNS says SERVFAIL": {
			dns: lab.DNSServFail, code: 75, want: []string{"tempfail 4.4.3", "could not be looked up"},
		},
		"nobody listens": {
			zone: "@ MX 10 mx\nmx A 127.0.0.99", code: 75, want: []string{"tempfail 4.4.1", "connection refused"},
		},
		"the second host": {
			zone: "@ MX 5 away\n@ MX 10 mx\nmx A 127.0.0.2\naway A 127.0.0.99",
			want: []string{"delivered", "\n  before: away.aol.test 127.0.0.99:", "(connect): no connection"},
		},
		"TLS demanded and missing": {
			flags: []string{"-tls", "required"}, code: 75, want: []string{"tempfail 4.7.4", "tls=required"},
		},
		"a certificate for another name": {
			host:  []lab.Behaviour{lab.Offer{TLS: lab.TLSOffered, Certificate: lab.CertWrongName}},
			flags: []string{"-route", "direct tls=verified"}, code: 75, want: []string{"tempfail 4.7.5", "certificate"},
		},
		"any certificate": {
			host: []lab.Behaviour{lab.Offer{TLS: lab.TLSOffered, Certificate: lab.CertWrongName}},
			want: []string{"TLS 1.3", "not verified"},
		},
		"REQUIRETLS where nobody has it": {
			host: []lab.Behaviour{lab.Offer{TLS: lab.TLSOffered}}, flags: []string{"-require-tls", "-ca", "CA"},
			code: 77, want: []string{"permfail 5.7.30"},
		},
		"a verified certificate": {
			host: []lab.Behaviour{lab.Offer{TLS: lab.TLSOffered}}, flags: []string{"-tls", "verified", "-ca", "CA"},
			want: []string{"delivered", "SHA256 verified"},
		},
		"login refused": {
			host: []lab.Behaviour{login}, flags: []string{"-v", "-ca", "CA", "-route", "smtp://me@mx.aol.test:PORT secret=env:ISP_PASSWORD"},
			code: 77, want: []string{"tempfail 4.7.8", "(auth)", "535", "password from env:ISP_PASSWORD", "C: AUTH"},
		},
		"blocked": {
			host: refuse("554 5.7.1 Your address is a dynamic (residential) IP address"), code: 77,
			want: []string{"permfail 5.7.1", "reason: dynamic-address"},
		},
		"refused for the message": {
			host: []lab.Behaviour{lab.Refuse(lab.AtDot, "554 5.6.0 Your message is broken")}, code: 65,
			want: []string{"(dot)", "5.6.0"},
		},
		"too big": {
			host: []lab.Behaviour{lab.Offer{Capabilities: []string{"SIZE 40"}}}, code: 65, want: []string{"permfail 5.3.4"},
		},
		"8-bit text, converted": {
			host: []lab.Behaviour{lab.Offer{Capabilities: []string{}}}, message: "Subject: x\r\n\r\nGrüße\r\n",
			want: []string{"delivered"},
		},
		"8-bit text, not to be converted": {
			host: []lab.Behaviour{lab.Offer{Capabilities: []string{}}}, message: "Subject: x\r\n\r\nGrüße\r\n", flags: []string{"-no-conversion"},
			code: 65, want: []string{"permfail 5.6.3"},
		},
		"an empty message":         {message: "-", code: 65, want: []string{"no message came on standard input"}},
		"a message without header": {message: "Hello.\r\n", want: []string{"does not begin with a header field", "delivered"}},
		"nonsense": {
			host: []lab.Behaviour{lab.Raw(lab.AtData, "250 Ok\r\n")}, code: 76, want: []string{"tempfail 4.5.0"},
		},
		"junk": {
			host: []lab.Behaviour{lab.Junk(lab.AtGreeting)}, code: 76, want: []string{"tempfail 4.5.0"},
		},
		"not understood": {
			host: []lab.Behaviour{lab.Refuse(lab.AtMail, "501 5.5.4 What is that?")}, code: 76,
			want: []string{"permfail 5.5.4"},
		},
		"the route rejects": {
			flags: []string{"-route", `reject "550 5.1.2 This domain has moved"`}, code: 68,
			want: []string{"permfail 5.1.2", "has moved"},
		},
		"the route holds":    {flags: []string{"-route", "hold"}, code: 75, want: []string{"held"}},
		"the route discards": {flags: []string{"-route", "discard"}, want: []string{"discarded"}},
		"no such smarthost": {
			flags: []string{"-route", "smtp://gone.test"}, code: 78,
			want: []string{"tempfail 4.4.4", "gone.test does not exist"},
		},
		"a smarthost that DNS says nothing of": {
			dns: lab.DNSServFail, flags: []string{"-route", "smtp://mx.aol.test"}, code: 75, want: []string{"tempfail 4.4.3"},
		},
		"a smarthost's domain that DNS says nothing of": {
			dns: lab.DNSServFail, flags: []string{"-route", "smtp://aol.test mx=yes"}, code: 75, want: []string{"tempfail 4.4.3"},
		},
		"a smarthost's domain without mail": {
			zone: "@ MX 0 .", flags: []string{"-route", "smtp://aol.test mx=yes"}, code: 78, want: []string{"tempfail 4.1.10"},
		},
		"a proxy that is down": {
			flags: []string{"-route", "direct proxy=socks5://127.0.0.98:1080"}, code: 75, want: []string{"tempfail 4.4.1", "the proxy 127.0.0.98:1080"},
		},
		"a detour": {
			host:  refuse("554 5.7.1 Your address is a dynamic (residential) IP address"),
			flags: []string{"-route", "direct, on blocked smtp://mx.isp.test:PORT"},
			want:  []string{"delivered 2.0.0 at mx.isp.test", "before: mx.aol.test 127.0.0.2:", "(rcpt): 554 5.7.1"},
		},
		"an address that is none": {
			flags: []string{"-to", "a@[IPv6:x]"}, code: 64,
			want: []string{"permfail 5.1.3", "<you@aol.test>: delivered"},
		},
		"an mx: route without DNS": {
			dns: lab.DNSServFail, flags: []string{"-routes", "ROUTES"}, code: 75,
			want: []string{"tempfail 4.4.3", "no route: "},
		},
		"the time is over": {
			host: []lab.Behaviour{lab.Hang(lab.AtGreeting)}, flags: []string{"-timeout", "300ms"}, code: 75,
			want: []string{"tempfail 4.4.", "300ms"},
		},
		"mixed, the worst of which": {
			host:  []lab.Behaviour{lab.Refuse(lab.AtRcpt, "550 5.1.1 No such user", "x@*"), lab.Refuse(lab.AtRcpt, "451 4.2.0 Later", "y@*")},
			flags: []string{"-to", "y@aol.test,x@aol.test"}, code: 67,
			want: []string{"<you@aol.test>: delivered", "<y@aol.test>: tempfail 4.2.0", "<x@aol.test>: permfail 5.1.1"},
		},
		"mixed, and later": {
			host:  []lab.Behaviour{lab.Refuse(lab.AtRcpt, "451 4.2.0 Later", "y@*")},
			flags: []string{"-to", "y@aol.test"}, code: 75,
			want: []string{"<you@aol.test>: delivered", "<y@aol.test>: tempfail 4.2.0"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.host("aol.test", tt.host...)
			w.host("isp.test")
			if tt.zone != "" {
				require.NoError(t, w.Zone("aol.test", w.here(tt.zone)))
			}
			w.FailDNS("aol.test", "", tt.dns)
			w.FailDNS("mx.aol.test", "", tt.dns)
			message := tt.message
			switch message {
			case "":
				message = letter
			case "-":
				message = ""
			}
			flags := []string{"-to", "you@aol.test"}
			for _, f := range tt.flags {
				f = w.here(f)
				switch f {
				case "CA":
					f = writeFile(t, "ca.pem", string(w.CA().PEM()))
				case "ROUTES":
					f = writeFile(t, "routes", "mx:*.isp.test hold\n")
				}
				flags = append(flags, f)
			}
			r := w.send(message, flags...)
			assert.Equal(t, tt.code, r.code, "%s%s", r.out, r.log)
			for _, want := range tt.want {
				assert.Contains(t, r.out+r.log, w.here(want))
			}
		})
	}
}

// What is wrong on the command line is told before anybody is asked.
func TestMistakes(t *testing.T) {
	t.Parallel()
	noPEM := writeFile(t, "ca.pem", "no certificate")
	broken := writeFile(t, "routes", "*@a.test smpt://isp\n*@b.test hold\n*@b.test hold\n")
	for name, tt := range map[string]struct {
		flags []string
		code  int
		want  []string
	}{
		"nothing":      {nil, 64, []string{"-from: it is needed", "-to: it is needed", "send -h"}},
		"unknown flag": {[]string{"-form", "a@b"}, 64, []string{"-form"}},
		"no flag":      {[]string{"-explain", "you@aol.test"}, 64, []string{`"you@aol.test" is no flag`}},
		"from":         {[]string{"-from", "me", "-to", "a@b"}, 64, []string{`-from: "me" is no address`}},
		"to":           {[]string{"-from", "", "-to", "a@b,,c@d"}, 64, []string{`-to: "" is no address`}},
		"from with a name": {
			[]string{"-from", "Me <me@x.test>", "-to", "a@b"}, 64, []string{`-from: "Me <me@x.test>" is more than an address: write me@x.test`},
		},
		"to with names": {
			[]string{"-from", "", "-to", `"Doe, Ann" <ann@x.test>, b@x.test`}, 64, []string{"-to: ", "write ann@x.test"},
		},
		"to with a space":     {[]string{"-from", "", "-to", "a b@c"}, 64, []string{`-to: "a b@c" is no address`}},
		"to with two signs":   {[]string{"-from", "", "-to", "a@@c"}, 64, []string{`-to: "a@@c" is no address`}},
		"to with a remark":    {[]string{"-from", "", "-to", "a@c (Ann)"}, 64, []string{`-to: "a@c (Ann)" is no address`}},
		"a number alone":      {[]string{"-explain", "-to", "a@b", "-timeout", "3"}, 64, []string{"-timeout: write 3s"}},
		"a timeout of words":  {[]string{"-explain", "-to", "a@b", "-timeout", "long"}, 64, []string{"-timeout: write how long", "90s"}},
		"a priority of words": {[]string{"-explain", "-to", "a@b", "-priority", "high"}, 64, []string{"-priority: write -9 to 9"}},
		"to twice":            {[]string{"-from", "", "-to", "a@b", "-to", "<a@b>"}, 64, []string{"-to: a@b is there twice"}},
		"route": {
			[]string{"-explain", "-to", "a@b", "-route", "smpt://isp.test"}, 64, []string{`-route: column 1: "smpt://isp.test"`},
		},
		"route of nothing": {[]string{"-explain", "-to", "a@b", "-route", " "}, 64, []string{"-route: column 1: there is no hop: write where mail goes"}},
		"route of lines":   {[]string{"-explain", "-to", "a@b", "-route", "hold\n*@c hold"}, 64, []string{"in one line"}},
		"password in route": {
			[]string{"-explain", "-to", "a@b", "-route", "smtp://me:" + password + "@isp.test"}, 64, []string{"-route"},
		},
		"secret missing": {
			[]string{"-explain", "-to", "a@b", "-route", "smtps://me@isp.test secret=env:NO_SUCH_NAME"}, 64, []string{"NO_SUCH_NAME"},
		},
		"route and routes": {
			[]string{"-explain", "-to", "a@b", "-route", "hold", "-routes", broken}, 64, []string{"-route: -routes would not be used"},
		},
		"routes broken": {
			[]string{"-explain", "-to", "a@b", "-routes", broken}, 78, []string{broken + ":1:", broken + ":3:"},
		},
		"routes missing": {
			[]string{"-explain", "-to", "a@b", "-routes", "/nowhere/routes"}, 78, []string{"-routes: ", "/nowhere/routes"},
		},
		"ca missing": {
			[]string{"-explain", "-to", "a@b", "-ca", "/nowhere/ca.pem"}, 64, []string{"-ca: ", "/nowhere/ca.pem"},
		},
		"ca without PEM": {[]string{"-explain", "-to", "a@b", "-ca", noPEM}, 64, []string{"no certificate in PEM form"}},
		"several": {
			[]string{"-explain", "-to", "a@b", "-tls", "often", "-dns", "resolver.test", "-smtp-port", "0", "-notify", "always", "-ret", "some", "-by", "soon", "-priority", "10", "-timeout", "-1s"},
			64,
			[]string{`-tls: "often"`, "-dns: ", "-smtp-port: ", `-notify: "always"`, `-ret: "some"`, `-by: "soon"`, "-priority: 10", "-timeout: -1s"},
		},
		"by": {[]string{"-explain", "-to", "a@b", "-by", "2h,loudly"}, 64, []string{`-by: "loudly"`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := run(t, strings.NewReader(letter), tt.flags...)
			assert.Equal(t, tt.code, r.code, r.log)
			for _, want := range tt.want {
				assert.Contains(t, r.log, want)
			}
			assert.Empty(t, r.out)
		})
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	r := run(t, nil, "-h")
	assert.Equal(t, 0, r.code)
	for _, flag := range []string{
		"from", "to", "notify", "ret", "envid", "require-tls", "priority", "by", "no-conversion", "route", "routes", "tls", "hostname", "ca",
		"dns", "smtp-port", "allow-loopback", "timeout", "explain", "v", "json",
	} {
		assert.Regexp(t, `\n  -`+flag+`[ \n]`, r.out)
	}
	for line := range strings.Lines(r.out) {
		assert.LessOrEqual(t, len(line), 131, line)
	}
}

// An explanation asks DNS alone, and reads no message.
func TestExplain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	aol, isp := w.host("aol.test"), w.host("isp.test")
	require.NoError(t, w.Zone("aol.test", w.here("@ MX 10 mx\n@ MX 20 far\n@ MX 30 192.0.2.7.\n@ MX 40 mail.example.org.\nmx A 127.0.0.2\nmx A 0.0.0.1\nfar CNAME away.isp.test.")))
	require.NoError(t, w.Zone("isp.test", w.here("away A 127.0.0.9\nmx A 127.0.0.3")))
	require.NoError(t, w.Zone("example.org", "@ MX 0 ."))
	require.NoError(t, w.Secure("aol.test", true))
	routes := writeFile(t, "routes", "*@aol.test direct tls=verified, on blocked smtp://me@mx.isp.test:"+w.port+" secret=env:ISP_PASSWORD\n*@old.test hold\n")

	never, stop, err := os.Pipe() // nothing comes, and no end
	require.NoError(t, err)
	defer never.Close()
	defer stop.Close()
	r := run(t, never, "-dns", w.DNS(), "-smtp-port", w.port, "-allow-loopback", "-hostname", "mail.example.org", "-from", "me@example.org",
		"-to", "you@aol.test,them@aol.test", "-to", "x@old.test", "-routes", routes, "-explain")
	want := w.here(strings.ReplaceAll(`mail from <me@example.org> to <you@aol.test>
      and to <them@aol.test>
  by ROUTES:1: *@aol.test
  1. to the mail exchangers of aol.test, with TLS and a valid certificate or not at all
     aol.test has 4 MX records, which DNSSEC vouches for
       10 mx.aol.test port PORT, addresses by DNSSEC
         127.0.0.2
         0.0.0.1
       20 far.aol.test port PORT, an alias of away.isp.test
         127.0.0.9
       30 192.0.2.7 port PORT
         not tried: 5.4.4 the MX records of aol.test name no host: 192.0.2.7 is an address, and no name
       40 mail.example.org port PORT
         not tried: 5.4.6 mail for aol.test loops back to this host, mail.example.org, which is its best MX host
  2. if our address is refused for its reputation, through smtp://me@mx.isp.test:PORT, with TLS where it is offered, password from env:ISP_PASSWORD
       mx.isp.test port PORT
         127.0.0.3
mail from <me@example.org> to <x@old.test>
  by ROUTES:2: *@old.test
  1. hold it
note: nobody can answer <me@example.org>: 5.7.27 example.org accepts no mail, and no answer: it has a null MX record (RFC 7505)
`, "ROUTES", routes))
	assert.Equal(t, want, r.out)
	assert.Equal(t, 75, r.code, "one is held")
	assert.Empty(t, r.log)
	for _, s := range []*lab.Server{aol, isp} {
		total, _ := s.Connections()
		assert.Zero(t, total, "nothing is sent")
	}

	r = run(t, never, "-dns", w.DNS(), "-to", "you@aol.test", "-explain") // as the internet would see it
	assert.Equal(t, 68, r.code, r.out)
	assert.Contains(t, r.out, w.here("not 127.0.0.2: it leads nowhere on the internet"))
	assert.Contains(t, r.out, "nothing can be tried: 5.4.4")
}

// All that the envelope asks for is said to the host, and the message arrives octet for octet.
func TestEnvelope(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	offer := lab.Offer{Capabilities: []string{"PIPELINING", "DSN", "8BITMIME", "MT-PRIORITY", "DELIVERBY", "SMTPUTF8"}}
	aol := w.host("aol.test", offer)
	r := w.send(letter, "-to", `"a,b"@aol.test`, "-to", "<you@aol.test>", "-notify", "failure,delay", "-ret", "hdrs", "-envid", "QQ+314",
		"-priority", "3", "-by", "2h,notify,trace", "-from", "<>")
	require.Equal(t, 0, r.code, "%s%s", r.out, r.log)
	mails := aol.Mailbox()
	require.Len(t, mails, 1)
	m := mails[0]
	assert.Equal(t, letter, string(m.Body))
	assert.Equal(t, "", m.From)
	assert.Equal(t, "mail.example.org", m.HELO)
	assert.Equal(t, []string{`"a,b"@aol.test`, "you@aol.test"}, m.Addresses())
	assert.Equal(t, "FAILURE,DELAY", m.To[0].Params["NOTIFY"])
	assert.Equal(t, "HDRS", m.Params["RET"])
	assert.Equal(t, "QQ+2B314", m.Params["ENVID"])
	assert.Equal(t, 3, m.Priority)
	assert.Equal(t, byte('N'), m.DeliverBy.Mode)
	assert.True(t, m.DeliverBy.Trace)
	assert.InDelta(t, 7200, m.DeliverBy.Within.Seconds(), 60)
}

// With -v everything that is said is told, but for what is secret.
func TestVerbose(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	isp := w.host("isp.test", lab.Offer{TLS: lab.TLSOffered, Users: map[string]string{"me": password}, AuthRequired: true})
	ca := writeFile(t, "ca.pem", string(w.CA().PEM()))
	r := w.send(letter, "-v", "-ca", ca, "-to", "you@aol.test", "-route", "submission://me@mx.isp.test:"+w.port+" secret=env:ISP_PASSWORD")
	require.Equal(t, 0, r.code, "%s%s", r.out, r.log)
	require.Len(t, isp.Mailbox(), 1)
	assert.Equal(t, "me", isp.Mailbox()[0].User)
	assert.True(t, strings.HasPrefix(r.out, "mail from <me@example.org> to <you@aol.test>\n  by -route\n  1. through submission://me@mx.isp.test"), r.out)
	assert.Contains(t, r.out, w.here("<you@aol.test>: delivered 2.0.0 at mx.isp.test[127.0.0.2]"))
	for _, line := range []string{"S: 220 mx.isp.test", "C: EHLO mail.example.org", "C: STARTTLS", "C: AUTH ", "***", "C: MAIL FROM:<me@example.org>", "C: QUIT"} {
		assert.Contains(t, r.log, line)
	}
	quiet := w.send(letter, "-ca", ca, "-to", "you@aol.test", "-route", "submission://me@mx.isp.test:"+w.port+" secret=env:ISP_PASSWORD")
	assert.Empty(t, quiet.log, "without -v only the outcome is told")
	assert.True(t, strings.HasPrefix(quiet.out, "<you@aol.test>: delivered"), quiet.out)
}

// A far end cannot play tricks on a terminal.
func TestEscapes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.host("aol.test", lab.Escapes(lab.AtRcpt, "550 5.1.1 No such user"))
	require.NoError(t, w.Zone("aol.test", w.here(`@ MX 5 a\027[2Jb`+"\n@ MX 10 mx\nmx A 127.0.0.2")))
	r := w.send(letter, "-v", "-to", "you@aol.test,\"a\x1bb\"@aol.test")
	assert.Equal(t, 67, r.code)
	for _, c := range r.out + r.log {
		assert.False(t, (c < ' ' && c != '\n') || c == 0x202e || (c >= 0x7f && c < 0xa0), "%q", c)
	}
}

// JSON has a line for each recipient, in the order of the command line.
func TestJSON(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.host("aol.test", lab.Refuse(lab.AtRcpt, "550 5.1.1 No such user", "x@*"), lab.Offer{TLS: lab.TLSOffered})
	require.NoError(t, w.Zone("aol.test", w.here("@ MX 5 away\n@ MX 10 mx\nmx A 127.0.0.2\naway A 127.0.0.99")))
	w.host("isp.test")
	r := w.send(letter, "-json", "-v", "-to", "x@aol.test,y@isp.test,you@aol.test,z@[IPv6:x]")
	assert.Equal(t, 67, r.code)
	var lines []map[string]any
	for line := range strings.Lines(r.out) {
		l := map[string]any{}
		require.NoError(t, json.Unmarshal([]byte(line), &l), line)
		lines = append(lines, l)
	}
	require.Len(t, lines, 7)
	explained := lines[0]
	assert.Equal(t, "explanation", explained["type"])
	assert.Equal(t, []any{"x@aol.test", "you@aol.test"}, explained["recipients"])
	hosts := explained["hops"].([]any)[0].(map[string]any)["hosts"].([]any)
	require.Len(t, hosts, 2)
	assert.Equal(t, "away.aol.test", hosts[0].(map[string]any)["name"])
	assert.EqualValues(t, 5, hosts[0].(map[string]any)["preference"])
	assert.Equal(t, []any{w.net + ".2"}, hosts[1].(map[string]any)["addrs"])

	for i, want := range []struct {
		recipient, result, status string
		exit                      int
	}{{"x@aol.test", "permfail", "5.1.1", 67}, {"y@isp.test", "delivered", "2.0.0", 0}, {"you@aol.test", "delivered", "2.0.0", 0}, {"z@[IPv6:x]", "permfail", "5.1.3", 64}} {
		l := lines[3+i]
		assert.Equal(t, "outcome", l["type"])
		assert.Equal(t, want.recipient, l["recipient"])
		assert.Equal(t, want.result, l["result"])
		assert.Equal(t, want.status, l["status"])
		assert.EqualValues(t, want.exit, l["exit"])
	}
	x := lines[3]
	assert.Equal(t, "550 5.1.1 No such user", x["reply"])
	assert.Equal(t, "rcpt", x["stage"])
	assert.Equal(t, "mx.aol.test", x["host"])
	assert.Equal(t, w.here("127.0.0.2:PORT"), x["addr"])
	assert.Equal(t, "user-unknown", x["reason"])
	assert.Equal(t, "direct", x["hop"])
	assert.Equal(t, map[string]any{"version": "TLS 1.3", "cipher": x["tls"].(map[string]any)["cipher"], "verified": false}, x["tls"])
	assert.Greater(t, x["timing"].(map[string]any)["connect"], 0.0)
	tried := x["tried"].([]any)[0].(map[string]any)
	assert.Equal(t, "away.aol.test", tried["host"])
	assert.Equal(t, "connect", tried["stage"])
	assert.Equal(t, "4.4.1", tried["status"])
}

// Ctrl-C in the middle ends the attempt, and is told as what can be tried again.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	server := w.host("aol.test", lab.Hang(lab.AtData))
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-dns", w.DNS(), "-smtp-port", w.port, "-allow-loopback", "-from", "me@example.org", "-to", "you@aol.test")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(letter), &out, &out
	require.NoError(t, cmd.Start())
	require.NoError(t, server.WaitTranscript(ctx, "C: DATA"))
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	_ = cmd.Wait()
	assert.Equal(t, 75, cmd.ProcessState.ExitCode(), out.String())
	assert.Contains(t, out.String(), "<you@aol.test>: tempfail")
}
