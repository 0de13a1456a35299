package deliver_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/deliver/resolve"
)

// A counter counts the connections that a Deliverer has open.
type counter struct {
	mu   sync.Mutex
	open int // guarded by mu
	most int // guarded by mu
}

func (c *counter) change(by int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open += by
	c.most = max(c.most, c.open)
}

// counts counts what a world's Deliverer opens, from before it connects on.
func (w *world) counts() *counter {
	c := &counter{}
	dial := w.d.Dial
	w.d.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		c.change(1)
		conn, err := dial(ctx, network, address)
		if err != nil {
			c.change(-1)
			return nil, err
		}
		return &countedConn{Conn: conn, c: c}, nil
	}
	return c
}

type countedConn struct {
	net.Conn
	once sync.Once
	c    *counter
}

func (c *countedConn) Close() error {
	c.once.Do(func() { c.c.change(-1) })
	return c.Conn.Close()
}

// domains makes hosts, each of a domain of its own: domain0.test and so on.
func (w *world) domains(t *testing.T, n int, behaviours ...lab.Behaviour) {
	t.Helper()
	for i := range n {
		domain := fmt.Sprintf("domain%d.test", i)
		require.NoError(t, w.Zone(domain, fmt.Sprintf("@ MX 10 mx\nmx A 192.0.2.%d\n", i+1)))
		w.Server("mx."+domain, behaviours...)
	}
}

// However many hosts there is mail for, no more connections are open at once than are allowed, idle ones included; everybody
// has a turn, and waiting for it is no trouble with a host.
func TestConnectionsHaveABound(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		const hosts, rounds, most = 12, 3, 4
		w.domains(t, hosts, lab.Delay(lab.AtConnect, time.Second), lab.Delay(lab.AtDot, 40*time.Second))
		w.d.Limits = deliver.Limits{Connections: most, IdleTime: time.Hour, Age: 24 * time.Hour}
		seen := w.counts()
		var all sync.WaitGroup
		for range rounds {
			for i := range hosts {
				all.Go(func() {
					o := w.all(t, direct, letter(fmt.Sprintf("you@domain%d.test", i)))[0]
					assert.Equal(t, deliver.Delivered, o.Result, "%v", o)
					assert.Less(t, o.Timing.Connect, 2*time.Second, "waiting for a turn is not connecting")
				})
			}
		}
		all.Wait()
		assert.Equal(t, most, seen.most)
		require.NoError(t, w.d.Close())
		assert.Zero(t, seen.open)
		assert.Zero(t, deliver.InUse(w.d))
	})
}

// An idle connection ends where another host needs its place, the one that has been idle for longest first.
func TestIdleConnectionsMakeRoom(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		w.domains(t, 3)
		w.d.Limits = deliver.Limits{Connections: 2, IdleTime: time.Hour}
		seen := w.watch()
		for _, i := range []int{0, 1, 2, 1} {
			o := w.all(t, direct, letter(fmt.Sprintf("you@domain%d.test", i)))[0]
			require.Equal(t, deliver.Delivered, o.Result, "%v", o)
			time.Sleep(time.Second)
		}
		at := func(i int) string { return fmt.Sprintf("mx.domain%d.test 192.0.2.%d:25", i, i+1) }
		require.Equal(t, []string{at(0), at(1), at(2), at(1) + " reused"}, seen.connects)
	})
}

// Who waits for a connection until it is told to end has learnt nothing of a host.
func TestWaitingForAConnectionEnds(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		w.domains(t, 2, lab.Delay(lab.AtDot, time.Minute))
		w.d.Limits.Connections = 1
		var first sync.WaitGroup
		first.Go(func() { assert.Equal(t, deliver.Delivered, w.all(t, direct, letter("you@domain0.test"))[0].Result) })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		o := w.allIn(ctx, t, by(t, "direct, on unreachable smtp://mx.domain0.test"), letter("you@domain1.test"))[0]
		require.True(t, o.Shortage, "%v", o)
		require.EqualValues(t, "4.3.0", o.Status)
		require.Contains(t, o.Detail, "all 1 connections that may be open at once are in use")
		first.Wait()
		require.Zero(t, deliver.Absent(w.d))
		require.Equal(t, deliver.Delivered, w.all(t, direct, letter("you@domain1.test"))[0].Result)
	})
}

// A host's second address is tried beside the first one only where there is room for both connections.
func TestARaceNeedsRoom(t *testing.T) {
	for most, want := range map[int]time.Duration{1: 30 * time.Second, 2: 250 * time.Millisecond} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				require.NoError(t, w.Zone("aol.test", "@ MX 10 mx\nmx A 192.0.2.10\nmx A 192.0.2.11\n"))
				w.Server("mx.aol.test")
				w.d.Limits.Connections = most
				addrs := w.roads(map[string]road{"192.0.2.10": {lost: true}, "192.0.2.11": {lost: true}})
				_ = addrs
				begin := time.Now()
				o := w.one(t, direct)
				require.Equal(t, deliver.TempFail, o.Result, "%v", o)
				require.False(t, o.Shortage)
				require.Equal(t, 30*time.Second+want, time.Since(begin))
				require.Zero(t, deliver.InUse(w.d))
			})
		})
	}
}

// short is what the system says that has no more files.
func short(call string, errno syscall.Errno) error {
	return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError(call, errno)}
}

// What this machine is short of is no host's fault: nothing is remembered against it, no other way is taken, and the same
// attempt succeeds a moment later.
func TestAShortageIsOurs(t *testing.T) {
	for name, begin := range map[string]func(w *world, m *deliver.Message) (end func()){
		"files of the process": dialFails(short("socket", syscall.EMFILE)),
		"files of the system":  dialFails(short("socket", syscall.ENFILE)),
		"ports":                dialFails(short("connect", syscall.EADDRNOTAVAIL)),
		"a proxy's files":      dialFails(&net.OpError{Op: "socks connect", Err: short("socket", syscall.EMFILE)}),
		"files for DNS": func(w *world, _ *deliver.Message) func() {
			good := w.d.Resolver
			shortOf := &shortResolver{good, short("socket", syscall.EMFILE)}
			w.d.Resolver = shortOf
			return func() { shortOf.err = nil }
		},
		"files for the message": func(_ *world, m *deliver.Message) func() {
			open := m.Open
			m.Open = func() (io.ReadCloser, error) {
				return nil, &os.PathError{Op: "open", Path: "spool/x", Err: syscall.EMFILE}
			}
			return func() { m.Open = open }
		},
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				w.Server("mx.aol.test")
				m := letter("you@aol.test")
				end := begin(w, m)
				o := w.all(t, by(t, "direct, on unreachable smtp://other.test, on tempfail smtp://other.test"), m)[0]
				require.True(t, o.Shortage, "%v", o)
				require.Equal(t, deliver.TempFail, o.Result)
				require.EqualValues(t, "4.3.0", o.Status)
				require.False(t, o.RouteTrouble)
				require.Empty(t, o.Tried)
				var e *deliver.Error
				require.ErrorAs(t, o.Err(), &e)
				require.True(t, e.Shortage)
				require.Zero(t, deliver.Absent(w.d))
				end()
				o = w.all(t, direct, m)[0]
				require.Equal(t, deliver.Delivered, o.Result, "%v", o)
				require.False(t, o.Shortage)
			})
		})
	}
}

func dialFails(err error) func(w *world, m *deliver.Message) (end func()) {
	return func(w *world, _ *deliver.Message) func() {
		dial, failing := w.d.Dial, true
		w.d.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if failing {
				return nil, err
			}
			return dial(ctx, network, address)
		}
		return func() { failing = false }
	}
}

type shortResolver struct {
	deliver.Resolver
	err error
}

func (r *shortResolver) LookupMX(ctx context.Context, domain string) ([]resolve.MX, error) {
	if r.err != nil {
		return nil, &resolve.Error{Name: domain, Type: "MX", Err: r.err}
	}
	return r.Resolver.LookupMX(ctx, domain)
}

func (r *shortResolver) LookupAddr(ctx context.Context, host string) ([]netip.Addr, error) {
	if r.err != nil {
		return nil, r.err
	}
	return r.Resolver.LookupAddr(ctx, host)
}

// A source address that this machine does not have is a mistake in the route, and no shortage of ports; nor is a host that
// refuses, or one of which a word came.
func TestWhatIsNoShortage(t *testing.T) {
	for name, err := range map[string]error{
		"source address": short("bind", syscall.EADDRNOTAVAIL),
		"refused":        short("connect", syscall.ECONNREFUSED),
		"other":          errors.New("too many open files, says the host"),
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				dialFails(err)(w, nil)
				o := w.one(t, direct)
				require.False(t, o.Shortage, "%v", o)
				require.EqualValues(t, "4.4.1", o.Status)
			})
		})
	}
}
