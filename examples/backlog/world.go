package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/deliver/resolve"
)

// A world is where dead sends mail: domains whose host takes it, and domains whose host takes the connection and never says
// anything. Each has an MX host with an address of its own, as on the internet; they listen on loopback.
type world struct {
	net    *lab.Internet
	live   []*lab.Server
	silent net.Listener
	done   sync.WaitGroup // the silent host

	open    atomic.Int64 // connections to hosts that say nothing
	refused atomic.Int64 // connections that could not be made, for want of files perhaps

	mu   sync.Mutex
	held []net.Conn // guarded by mu: of the silent host
}

// The domains are l0.test, l1.test and so on, which are live, and d0.test and so on, which hang. The addresses of their hosts
// are of the network for benchmarks (RFC 2544), and lead to loopback.
var networks = map[byte]netip.Addr{'l': netip.MustParseAddr("198.18.0.0"), 'd': netip.MustParseAddr("198.19.0.0")}

// newWorld makes a world with so many live domains, whose hosts are so far away.
func newWorld(domains int, latency time.Duration) (*world, error) {
	internet, err := lab.New(lab.Options{})
	if err != nil {
		return nil, err
	}
	w := &world{net: internet}
	for i := range domains {
		s, err := internet.Listen(fmt.Sprintf("mx.l%d.test", i), "127.0.0.1:0", lab.Latency(latency))
		if err != nil {
			return nil, errors.Join(err, internet.Close())
		}
		w.live = append(w.live, s)
	}
	if w.silent, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, errors.Join(err, internet.Close())
	}
	w.done.Go(w.beSilent)
	return w, nil
}

// beSilent is the host that says nothing.
func (w *world) beSilent() {
	for {
		c, err := w.silent.Accept()
		if err != nil {
			return
		}
		w.mu.Lock()
		w.held = append(w.held, c)
		w.mu.Unlock()
	}
}

// hangUp closes what the silent host holds.
func (w *world) hangUp() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.held {
		c.Close()
	}
	w.held = nil
}

func (w *world) close() error {
	err := w.silent.Close()
	w.done.Wait()
	w.hangUp()
	return errors.Join(err, w.net.Close())
}

// LookupMX implements [deliver.Resolver].
func (w *world) LookupMX(_ context.Context, domain string) ([]resolve.MX, error) {
	return []resolve.MX{{Host: "mx." + domain, Preference: 10}}, nil
}

// LookupAddr implements [deliver.Resolver].
func (w *world) LookupAddr(_ context.Context, host string) ([]netip.Addr, error) {
	name := strings.TrimSuffix(strings.TrimPrefix(host, "mx."), ".test")
	n, err := strconv.Atoi(name[1:])
	network, ok := networks[name[0]]
	if err != nil || !ok || n >= 1<<16 {
		return nil, fmt.Errorf("%s is not in this world", host)
	}
	four := network.As4()
	four[2], four[3] = byte(n>>8), byte(n)
	return []netip.Addr{netip.AddrFrom4(four)}, nil
}

// Dial is for [deliver.Deliverer.Dial].
func (w *world) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	four := to.Addr().As4()
	if four[1] == networks['l'].As4()[1] {
		return w.dial(ctx, network, w.live[int(four[2])<<8|int(four[3])].Addr())
	}
	c, err := w.dial(ctx, network, w.silent.Addr().String())
	if err != nil {
		return nil, err
	}
	w.open.Add(1)
	return &silentConn{Conn: c, open: &w.open}, nil
}

func (w *world) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil && ctx.Err() == nil {
		w.refused.Add(1)
	}
	return c, err
}

// silentConn counts itself while it is open.
type silentConn struct {
	net.Conn
	open *atomic.Int64
	once sync.Once
}

func (c *silentConn) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}
