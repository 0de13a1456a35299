package deliver

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/sortie-mail/sortie/deliver/resolve"
)

// Timeouts bound every step of a session (RFC 5321, section 4.5.3.2). Zero fields have the default of their comment.
type Timeouts struct {
	Connect     time.Duration // 30 s, for each address
	NextAddress time.Duration // 250 ms, after which the host's next address is tried beside it (RFC 8305, section 8); negative is never
	Greeting    time.Duration // 5 min
	EHLO        time.Duration // 5 min, and as much for the answer to STARTTLS
	TLS         time.Duration // 1 min, for the handshake
	Auth        time.Duration // 2 min, for each answer
	Mail        time.Duration // 5 min
	Rcpt        time.Duration // 5 min, for each answer
	Data        time.Duration // 2 min
	Block       time.Duration // 3 min, for each block of the message
	Dot         time.Duration // 10 min
	Quit        time.Duration // 2 s: nothing depends on the answer
	Total       time.Duration // 1 h, for all of an attempt
}

// Limits bound an attempt. Zero fields have the default of their comment.
type Limits struct {
	Hosts      int           // 5 MX hosts are tried
	Addresses  int           // 10 addresses in all
	Recipients int           // 100 in a transaction (RFC 5321, section 4.5.3.1.8)
	Idle       int           // 100 idle connections are kept; negative is none
	IdleTime   time.Duration // 5 s, how long each is
	Messages   int           // 100 transactions on a connection
	// Connections is how many may be open at once, idle ones and those that are being made included; 0 is no limit. Over it
	// attempts wait for their turn, as long as Timeouts.Total lets them, and idle connections end to make room.
	Connections int
	Age         time.Duration // 5 min, after which a connection is used no more
	// Absence is how long an address that did not answer is passed over where the message has another host to go to: 2 min,
	// which is less than mail usually waits for its retry, so that a host that is back is used by then. Negative is never.
	Absence time.Duration
}

func orElse[T int | uint16 | time.Duration](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}

func (t Timeouts) filled() Timeouts {
	return Timeouts{
		Connect: orElse(t.Connect, 30*time.Second), NextAddress: orElse(t.NextAddress, 250*time.Millisecond),
		Greeting: orElse(t.Greeting, 5*time.Minute), EHLO: orElse(t.EHLO, 5*time.Minute), TLS: orElse(t.TLS, time.Minute),
		Auth: orElse(t.Auth, 2*time.Minute), Mail: orElse(t.Mail, 5*time.Minute),
		Rcpt: orElse(t.Rcpt, 5*time.Minute), Data: orElse(t.Data, 2*time.Minute), Block: orElse(t.Block, 3*time.Minute),
		Dot: orElse(t.Dot, 10*time.Minute), Quit: orElse(t.Quit, 2*time.Second), Total: orElse(t.Total, time.Hour),
	}
}

// of is how long the reply of a stage may take.
func (t *Timeouts) of(stage Stage) time.Duration {
	switch stage {
	case StageGreeting:
		return t.Greeting
	case StageEHLO, StageTLS:
		return t.EHLO
	case StageAuth:
		return t.Auth
	case StageMail:
		return t.Mail
	case StageRcpt:
		return t.Rcpt
	case StageData:
		return t.Data
	}
	return t.Dot
}

func (l Limits) filled() Limits {
	return Limits{
		Hosts: max(1, orElse(l.Hosts, 5)), Addresses: max(1, orElse(l.Addresses, 10)), Recipients: max(1, orElse(l.Recipients, 100)),
		Idle: max(0, orElse(l.Idle, 100)), IdleTime: orElse(l.IdleTime, 5*time.Second), Messages: max(1, orElse(l.Messages, 100)),
		Connections: max(0, l.Connections), Age: orElse(l.Age, 5*time.Minute), Absence: orElse(l.Absence, 2*time.Minute),
	}
}

// settings are what a Deliverer goes by: its fields, with defaults where they are zero. The fields stay as they were set.
type settings struct {
	hostname string
	resolver Resolver
	made     *resolve.Resolver // which is that resolver, where the host gave none
	stale    bool              // its answers may be
	port     uint16
	timeouts Timeouts
	tooLong  error // the cause of an attempt's end after Timeouts.Total
	limits   Limits
	log      *slog.Logger
	trace    Trace
	own      map[netip.Addr]bool    // addresses that are this server
	sessions tls.ClientSessionCache // where Deliverer.TLS has none
}

// init fills in the settings, once.
func (d *Deliverer) init() {
	d.once.Do(func() {
		nets, _ := net.InterfaceAddrs() // without them only names tell a loop, and the hop count
		d.set = settings{
			hostname: hostname(d.Hostname),
			resolver: d.Resolver,
			port:     orElse(d.Port, 25),
			timeouts: d.Timeouts.filled(),
			limits:   d.Limits.filled(),
			log:      d.Logger,
			own:      ownAddresses(nets, d.Self),
			sessions: tls.NewLRUClientSessionCache(1000),
		}
		if d.set.log == nil {
			d.set.log = slog.New(slog.DiscardHandler)
		}
		if d.set.resolver == nil {
			d.set.made = &resolve.Resolver{Logger: d.Logger}
			d.set.resolver = d.set.made
		}
		d.set.stale = goesStale(d.set.resolver)
		if d.Trace != nil {
			d.set.trace = *d.Trace
		}
		d.set.tooLong = fmt.Errorf("the attempt took longer than %v", d.set.timeouts.Total)
		d.pool.init(&d.set)
		d.budget.max, d.pool.crowded = d.set.limits.Connections, d.budget.crowded
		d.absent.length = d.set.limits.Absence
	})
}

// hostname is the name to greet with, as it may stand in a command.
func hostname(name string) string {
	if name == "" {
		name, _ = os.Hostname()
	}
	if name = oneWord(asciiDomain(strings.TrimSpace(name))); name == "" {
		return "localhost"
	}
	return name
}
