package main

// Slots for connections: users find room, however many strangers there are.

import (
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/sortie-mail/sortie/relaycheck"
)

// A class of clients has slots of its own, so that no other class can take them.
type class struct {
	name      string
	max       int           // connections
	perClient int           // connections of one address
	idle      time.Duration // how long it is waited for
	life      time.Duration // how long a connection lasts at most; 0 is no limit
	yields    bool          // an idle connection ends where a new one needs its slot

	open    map[*conn]struct{}
	clients map[netip.Prefix]int
}

func (c *class) init() {
	c.open, c.clients = map[*conn]struct{}{}, map[netip.Prefix]int{}
}

// What strangers get: enough to be told that this is not the server they look for.
const (
	strangerIdle = 30 * time.Second
	strangerLife = 2 * time.Minute
)

// strangerLines is how many refusals of strangers go to the log in 10 s.
const strangerLines = 20

// restTime is how long a connection that brought mail may rest before another may take its slot.
const restTime = 5 * time.Second

// A listener gives each client a slot of its class, or refuses it. Users and strangers have separate slots: however many
// strangers sit on connections, the users' slots are free of them. Where the users' own slots are taken, the connection
// that has idled for longest gives way.
type listener struct {
	net.Listener
	name      string // of this host, for replies
	log       *slog.Logger
	metrics   *metrics
	policy    *relaycheck.Policy
	tls       *tls.Config // nil without a certificate
	user      class
	stranger  class
	lastNoted time.Time // of a refusal, for the log; used by Accept alone

	strangerNotes quota // of refusals in the log
	spare         *spare

	mu     sync.Mutex
	ending string // guarded by mu, as are the classes' maps: the reply to everybody once the relay shuts down
}

// newListener divides connections between the classes.
func newListener(l net.Listener, o *options, connections int, p *relaycheck.Policy, cert *certificate, log *slog.Logger, m *metrics) *listener {
	few := max(1, connections/10)
	list := &listener{
		Listener: l, name: o.hostname, log: log, metrics: m, policy: p, tls: cert.config(),
		user:     class{name: "user", max: max(1, connections-few), perClient: o.maxPerClient, idle: o.idle, yields: true},
		spare:    newSpare(),
		stranger: class{name: "stranger", max: few, perClient: max(1, few/10), idle: strangerIdle, life: strangerLife},
	}
	list.strangerNotes.most, list.strangerNotes.span = strangerLines, 10*time.Second
	list.user.init()
	list.stranger.init()
	return list
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		nc, short, err := l.spare.accept(l.Listener)
		if err != nil {
			return nil, err
		}
		if short {
			l.refuse(nc, "421 4.3.2 "+l.name+" has no room for more connections; try again later\r\n")
			continue
		}
		c, refusal := l.admit(nc)
		if refusal == "" {
			return c, nil
		}
		l.refuse(nc, refusal)
	}
}

// admit finds a slot for a connection, or the reply with which it is refused.
func (l *listener) admit(nc net.Conn) (c *conn, refusal string) {
	client := clientOf(nc)
	cl := &l.stranger
	if l.policy.Allows(relaycheck.Client{Addr: client}) {
		cl = &l.user
	}
	c = &conn{Conn: nc, stream: nc, list: l, class: cl, client: client, born: time.Now()}
	l.mu.Lock()
	defer l.mu.Unlock()
	if refusal := l.refusal(cl, client); refusal != "" {
		return nil, refusal
	}
	c.buf = inputs.Get().(*[inputSize]byte)[:]
	cl.open[c] = struct{}{}
	cl.clients[site(client)]++
	l.metrics.sessions.WithLabelValues(cl.name).Inc()
	return c, ""
}

// refusal is the reply to a client for whom there is no room and can be made none, with mu held.
func (l *listener) refusal(cl *class, client netip.Addr) string {
	same := func(c *conn) bool { return site(c.client) == site(client) }
	anybody := func(*conn) bool { return true }
	switch {
	case l.ending != "":
		return l.ending
	case cl.clients[site(client)] >= cl.perClient:
		if !l.makeRoom(cl, same) {
			return "421 4.7.0 " + l.name + " has too many connections from your address; try again later\r\n"
		}
	case len(cl.open) >= cl.max:
		if !l.makeRoom(cl, anybody) {
			return "421 4.3.2 " + l.name + " has too many connections; try again later\r\n"
		}
	}
	return ""
}

// makeRoom ends the connection that has idled for longest of those that may go, with mu held. It reports false where none
// is idle.
func (l *listener) makeRoom(cl *class, may func(*conn) bool) bool {
	if !cl.yields {
		return false
	}
	now := time.Now()
	var longest *conn
	most := time.Duration(0)
	for c := range cl.open {
		if idle := c.idle(now); idle > most && may(c) {
			longest, most = c, idle
		}
	}
	if longest == nil {
		return false
	}
	longest.end("421 4.3.2 " + l.name + " needs this idle connection for another client; connect again any time\r\n")
	return true
}

// refuse answers a connection that gets no slot. Nothing waits for its client.
func (l *listener) refuse(nc net.Conn, reply string) {
	l.metrics.refused.WithLabelValues("connections").Inc()
	if now := time.Now(); now.Sub(l.lastNoted) > 10*time.Second { // a flood must not flood the log too
		l.lastNoted = now
		l.log.Warn("a connection is refused; others within the next 10 s are not logged", "client", clientOf(nc), "reply", reply[:len(reply)-2])
	}
	nc.SetWriteDeadline(time.Now().Add(time.Second))
	nc.Write([]byte(reply))
	nc.Close()
}

// leave gives a slot back. It reports false where that was done before.
func (l *listener) leave(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := c.class.open[c]; !ok {
		return false
	}
	delete(c.class.open, c)
	if c.class.clients[site(c.client)]--; c.class.clients[site(c.client)] == 0 {
		delete(c.class.clients, site(c.client))
	}
	return true
}

// shutDown ends all connections that bring no message now, and the others after their message. New ones are refused.
func (l *listener) shutDown() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ending = "421 4.3.2 " + l.name + " is shutting down; try again later\r\n"
	for _, c := range l.all() {
		c.end(l.ending)
	}
}

// breakOff ends what shutDown has left, and tells the clients.
func (l *listener) breakOff() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.all() {
		c.breakOff()
	}
}

// cut ends what even breakOff has left: clients that read nothing.
func (l *listener) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.all() {
		c.Conn.Close()
	}
}

// all are the connections, with mu held.
func (l *listener) all() (all []*conn) {
	for _, cl := range []*class{&l.user, &l.stranger} {
		for c := range cl.open {
			all = append(all, c)
		}
	}
	return all
}

// isEnding reports whether the relay shuts down.
func (l *listener) isEnding() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ending != ""
}

// counts gives the open connections of each class.
func (l *listener) counts() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return map[string]int{l.user.name: len(l.user.open), l.stranger.name: len(l.stranger.open)}
}

func clientOf(nc net.Conn) netip.Addr {
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// site is what counts as one client: an IPv4 address, or the IPv6 network that one customer has (RFC 6177).
func site(a netip.Addr) netip.Prefix {
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p
}
