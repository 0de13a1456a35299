package deliver_test

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/deliver/resolve"
)

// A socks is a SOCKS 5 server (RFC 1928, RFC 1929) before a world's hosts.
type socks struct {
	user, password string // "" asks for no login
	reply          byte   // to every request, unless 0
	hang           string // falls silent: at "greeting" or at "request"
	junk           bool   // speaks something else
	ipv4           bool   // has no IPv6
	dial           func(ctx context.Context, network, address string) (net.Conn, error)

	mu       sync.Mutex // guards the fields below
	requests []string   // addresses that were asked for
	wg       sync.WaitGroup
	done     context.Context
}

// The address of the proxy in the zones, and what routes call it.
const proxyAddr = "203.0.113.80:1080"

// deadProxy is one that nobody answers at.
const deadProxy = "203.0.113.82:1080"

// proxy puts a SOCKS server before the hosts of a world: no host is reached but through it.
func (w *world) proxy(t *testing.T, s *socks) *socks {
	t.Helper()
	require.NoError(t, w.Zone("proxy.test", "@ A 203.0.113.80\nsix AAAA 2001:db8::80\nsix A 203.0.113.80"))
	done, cancel := context.WithCancel(t.Context())
	s.dial, s.done = w.Internet.Dial, done
	w.d.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == deadProxy {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		if address != proxyAddr {
			return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ENETUNREACH}
		}
		client, server := net.Pipe()
		s.wg.Go(func() { s.serve(server) })
		return client, nil
	}
	t.Cleanup(func() {
		cancel()
		_ = w.d.Close()
		s.wg.Wait()
	})
	return s
}

// listen serves on a real socket of this machine until the test ends.
func (s *socks) listen(t *testing.T) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() { s.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		accepting.Wait()
	})
	return l.Addr().String()
}

func (s *socks) serve(conn net.Conn) {
	stop := context.AfterFunc(s.done, func() { _ = conn.Close() })
	defer stop()
	defer conn.Close()
	switch {
	case s.junk:
		_, _ = io.CopyN(io.Discard, conn, 3)
		_, _ = conn.Write([]byte("HTTP/1.0 400 Bad Request\r\n\r\n"))
	case s.hang == "greeting":
		_, _ = io.Copy(io.Discard, conn)
	case s.login(conn):
		s.request(conn)
	}
}

// asked are the addresses that were asked for.
func (s *socks) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

func read(c net.Conn, n int) []byte {
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		return make([]byte, n)
	}
	return b
}

// login plays RFC 1928, section 3, and RFC 1929.
func (s *socks) login(c net.Conn) bool {
	methods := read(c, int(read(c, 2)[1]))
	if s.user == "" {
		_, err := c.Write([]byte{5, 0})
		return err == nil
	}
	if !strings.Contains(string(methods), "\x02") {
		_, _ = c.Write([]byte{5, 0xff})
		return false
	}
	_, _ = c.Write([]byte{5, 2})
	user := read(c, int(read(c, 2)[1]))
	password := read(c, int(read(c, 1)[0]))
	if string(user) != s.user || string(password) != s.password {
		_, _ = c.Write([]byte{1, 1})
		return false
	}
	_, err := c.Write([]byte{1, 0})
	return err == nil
}

// request plays RFC 1928, sections 4 to 6, for CONNECT to an address. A name is refused: what names mean is no matter of
// this proxy.
func (s *socks) request(c net.Conn) {
	head := read(c, 4)
	size := map[byte]int{1: 4, 4: 16}[head[3]]
	addr, _ := netip.AddrFromSlice(read(c, size))
	to := netip.AddrPortFrom(addr, binary.BigEndian.Uint16(read(c, 2)))
	s.mu.Lock()
	s.requests = append(s.requests, to.String())
	s.mu.Unlock()
	if s.hang == "request" {
		_, _ = io.Copy(io.Discard, c)
		return
	}
	host, reply := s.connect(head, to)
	_, _ = c.Write([]byte{5, reply, 0, 1, 0, 0, 0, 0, 0, 0})
	if reply != 0 {
		return
	}
	s.wg.Go(func() {
		_, _ = io.Copy(host, c)
		_ = host.Close()
	})
	_, _ = io.Copy(c, host)
}

func (s *socks) connect(head []byte, to netip.AddrPort) (net.Conn, byte) {
	switch {
	case head[1] != 1:
		return nil, 7
	case head[3] == 3 || (s.ipv4 && head[3] == 4):
		return nil, 8
	case s.reply != 0:
		return nil, s.reply
	}
	host, err := s.dial(s.done, "tcp", to.String())
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, 5
	case err != nil:
		return nil, 4
	}
	return host, 0
}

func TestThroughAProxy(t *testing.T) {
	t.Setenv("PROXY_PASSWORD", password)
	for name, tt := range map[string]struct {
		hops string
		to   string // where the proxy was asked to connect
	}{
		"direct":      {"direct proxy=socks5://u@proxy.test proxy-secret=env:PROXY_PASSWORD", "192.0.2.10:25"},
		"a smarthost": {"smtp://mail.isp.test:2525 proxy=socks5://u@203.0.113.80 proxy-secret=env:PROXY_PASSWORD", "192.0.2.50:2525"},
		"with TLS":    {"direct tls=verified proxy=socks5://u@proxy.test:1080 proxy-secret=env:PROXY_PASSWORD", "192.0.2.10:25"},
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, w *world) {
				require.NoError(t, w.Zone("isp.test", "mail A 192.0.2.50"))
				mx := w.Server("mx.aol.test", lab.Offer{TLS: lab.TLSOffered})
				isp := w.Server("mail.isp.test:2525")
				s := w.proxy(t, &socks{user: "u", password: password})
				for range 2 {
					o := w.one(t, by(t, tt.hops))
					require.Equal(t, deliver.Delivered, o.Result, "%v", o)
					require.Equal(t, tt.to, o.Addr.String(), "the outcome names the host, not the proxy")
				}
				require.Equal(t, []string{tt.to}, s.asked(), "it is given addresses, and the connection is used again")
				require.Equal(t, 2, len(mx.Mailbox())+len(isp.Mailbox()))
				require.NotContains(t, w.log.String()+w.said.String(), password)
			})
		})
	}
}

// Over a real socket, without a Dial of our own.
func TestThroughAProxyOverSockets(t *testing.T) {
	w := sockets(t)
	mx := w.Server("mx.aol.test")
	s := w.proxy(t, &socks{})
	address := s.listen(t)
	w.d.Dial = nil
	o := w.one(t, by(t, "direct proxy=socks5://"+address))
	require.Equal(t, deliver.Delivered, o.Result, "%v", o)
	require.Equal(t, []string{"192.0.2.10:25"}, s.asked())
	require.Len(t, mx.Mailbox(), 1)
}

// What a proxy says of a host is that host's matter; whatever else is wrong with it is the route's trouble, and no other
// host is asked for.
func TestTroubleWithAProxy(t *testing.T) {
	t.Setenv("PROXY_PASSWORD", password)
	const login = "proxy=socks5://u@proxy.test proxy-secret=env:PROXY_PASSWORD"
	for name, tt := range map[string]struct {
		proxy   *socks
		hops    string
		trouble bool
		asked   int // connections that the proxy was asked for
		words   string
		took    time.Duration
	}{
		"a wrong password":        {proxy: &socks{user: "u", password: "other"}, hops: login, trouble: true, words: "username/password authentication failed"},
		"a login is wanted":       {proxy: &socks{user: "u", password: "other"}, hops: "proxy=socks5://proxy.test", trouble: true, words: "no acceptable authentication methods"},
		"no such name":            {hops: "proxy=socks5://gone.proxy.test", trouble: true, words: "gone.proxy.test"},
		"nobody there":            {hops: "proxy=socks5://203.0.113.81", trouble: true, words: "the proxy 203.0.113.81:1080: "},
		"another protocol":        {proxy: &socks{junk: true}, hops: "proxy=socks5://proxy.test", trouble: true, words: "unexpected protocol version"},
		"it takes no connections": {hops: "proxy=socks5://203.0.113.82", trouble: true, took: 30*time.Second + 250*time.Millisecond},
		"silence":                 {proxy: &socks{hang: "greeting"}, hops: "proxy=socks5://proxy.test", trouble: true, took: 30*time.Second + 250*time.Millisecond},
		"not allowed":             {proxy: &socks{reply: 2}, hops: "proxy=socks5://proxy.test", trouble: true, asked: 1, words: "not allowed by ruleset"},
		"a reply that is none":    {proxy: &socks{reply: 99}, hops: "proxy=socks5://proxy.test", trouble: true, asked: 1, words: "unknown code: 99"},
		"general failure":         {proxy: &socks{reply: 1}, hops: "proxy=socks5://proxy.test", asked: 2, words: "general SOCKS server failure"},
		"the network is away":     {proxy: &socks{reply: 3}, hops: "proxy=socks5://proxy.test", asked: 2, words: "network unreachable"},
		"the host is away":        {proxy: &socks{reply: 4}, hops: "proxy=socks5://proxy.test", asked: 2, words: "host unreachable"},
		"the host refuses":        {proxy: &socks{reply: 5}, hops: "proxy=socks5://proxy.test", asked: 2, words: "connection refused"},
		"the way is too long":     {proxy: &socks{reply: 6}, hops: "proxy=socks5://proxy.test", asked: 2, words: "TTL expired"},
		"the host says nothing":   {proxy: &socks{hang: "request"}, hops: "proxy=socks5://proxy.test", asked: 2, took: 30*time.Second + 250*time.Millisecond},
		"a proxy without a host":  {hops: "proxy=socks5://proxy.test", asked: 2, words: "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				require.NoError(t, w.Zone("aol.test", "@ MX 10 mx\nmx A 192.0.2.10\nmx A 192.0.2.11"))
				s := w.proxy(t, cmp.Or(tt.proxy, new(socks)))
				o := w.one(t, by(t, "direct "+tt.hops))
				require.Equal(t, "tempfail 4.4.1", o.Result.String()+" "+o.Status.String(), "%v", o)
				require.Equal(t, deliver.StageConnect, o.Stage)
				require.Equal(t, tt.trouble, o.RouteTrouble, "%v", o)
				require.Contains(t, o.Detail, tt.words)
				require.Len(t, s.asked(), tt.asked)
				require.Equal(t, tt.took, o.End.Sub(o.Start))
				require.Equal(t, tt.trouble, strings.Contains(w.log.String(), `"level":"ERROR"`))
				require.NotContains(t, w.log.String()+w.said.String()+o.String(), password)
			})
		})
	}
}

// A proxy that does not answer costs one attempt its time, and no host is to blame.
func TestAProxyThatIsAwayIsRemembered(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		w.Server("mx.aol.test")
		w.proxy(t, &socks{})
		through := by(t, "direct proxy=socks5://203.0.113.82")
		require.True(t, w.one(t, through).RouteTrouble)
		waited := 0
		var wg sync.WaitGroup
		all := make([]deliver.Outcome, 20)
		for i := range all {
			wg.Go(func() { all[i] = w.d.Deliver(t.Context(), through, letter("you@aol.test"))[0] })
		}
		wg.Wait()
		for _, o := range all {
			require.Equal(t, "tempfail 4.4.1", o.Result.String()+" "+o.Status.String())
			require.True(t, o.RouteTrouble)
			if o.End.Sub(o.Start) > 0 {
				waited++
			} else {
				require.Contains(t, o.Detail, "the proxy 203.0.113.82:1080: not tried again: at 00:00:30 UTC: ")
			}
		}
		require.Equal(t, 1, waited)
		w.d.Dial = w.Internet.Dial
		require.Equal(t, deliver.Delivered, w.one(t, direct).Result)
	})
}

// A proxy without IPv6 is no trouble where the host has another address.
func TestAProxyOfOneFamily(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("aol.test", both))
		w.Server("mx.aol.test")
		s := w.proxy(t, &socks{ipv4: true})
		o := w.one(t, by(t, "direct proxy=socks5://six.proxy.test")) // whose own IPv6 address leads nowhere
		require.Equal(t, deliver.Delivered, o.Result, "%v", o)
		require.Equal(t, []string{"[2001:db8::10]:25", "192.0.2.10:25"}, s.asked())
		require.Contains(t, o.Tried[0].Err, "address type not supported")
		require.False(t, o.RouteTrouble)
	})
}

// What is learned of a host by way of a proxy says nothing of the direct way, and connections are not shared.
func TestAProxyIsAWayOfItsOwn(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("aol.test", standby))
		a := w.Server("a.aol.test")
		w.Server("b.aol.test")
		s := w.proxy(t, &socks{reply: 4})
		through := by(t, "direct proxy=socks5://proxy.test")
		require.Equal(t, deliver.TempFail, w.one(t, through).Result)
		proxied := w.d.Dial
		w.d.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == proxyAddr {
				return proxied(ctx, network, address)
			}
			return w.Internet.Dial(ctx, network, address)
		}
		o := w.one(t, direct)
		require.Equal(t, "a.aol.test", o.Host, "%v", o)
		require.Empty(t, o.Tried)
		s.reply = 0
		o = w.one(t, through)
		require.Equal(t, "a.aol.test", o.Host, "%v", o)
		require.Equal(t, 2, opened(a))
		require.Len(t, s.asked(), 3)
	})
}

// A hop's source addresses and names go by the family of the address that is connected to.
func TestSourceAndNameByFamily(t *testing.T) {
	w := sockets(t)
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("this machine has no IPv6: ", err)
	}
	require.NoError(t, l.Close())
	mx6, err := w.Listen("mx.aol.test", "[::1]:0")
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(mx6.Addr())
	require.NoError(t, err)
	mx4, err := w.Listen("mx.aol.test", "127.0.0.1:"+port)
	require.NoError(t, err)
	require.NoError(t, w.Zone("isp.test", "mail A 127.0.0.1\nmail AAAA ::1\nfour A 127.0.0.1"))
	const options = " source=127.0.0.7 source=::1 helo=four.example helo6=six.example"

	o := w.one(t, by(t, "smtp://mail.isp.test:"+port+options))
	require.Equal(t, deliver.Delivered, o.Result, "%v", o)
	require.Equal(t, "::1", mx6.Mailbox()[0].Client.Addr().String())
	require.Equal(t, "six.example", mx6.Mailbox()[0].HELO)

	o = w.one(t, by(t, "smtp://four.isp.test:"+port+options))
	require.Equal(t, deliver.Delivered, o.Result, "%v", o)
	require.Equal(t, "127.0.0.7", mx4.Mailbox()[0].Client.Addr().String())
	require.Equal(t, "four.example", mx4.Mailbox()[0].HELO)

	require.NoError(t, mx6.Close())
	o = w.one(t, by(t, "smtp://mail.isp.test:"+port+options+" pipelining=no"))
	require.Equal(t, deliver.Delivered, o.Result, "%v", o)
	require.Equal(t, "four.example", mx4.Mailbox()[1].HELO)
	assert.Len(t, o.Tried, 1)
}

// In memory the name is that of the family too, for hops that say nothing of sources.
func TestNamesByFamily(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("aol.test", both))
		mx := w.Server("mx.aol.test")
		w.roads(map[string]road{})
		for i, tt := range []struct{ hops, helo string }{
			{"direct helo=a.example helo6=b.example", "b.example"},
			{"direct helo=a.example", "a.example"},
			{"direct helo6=b.example pipelining=no", "b.example"},
			{"smtp://192.0.2.10 helo=a.example helo6=b.example", "a.example"},
			{"smtp://192.0.2.10 helo6=b.example", "mail.example.org"},
		} {
			o := w.one(t, by(t, tt.hops))
			require.Equal(t, deliver.Delivered, o.Result, "%v", o)
			require.Equal(t, tt.helo, mx.Mailbox()[i].HELO, tt.hops)
		}
	})
}

// The zero Dial connects by itself, by TLS too.
func TestWithoutADialer(t *testing.T) {
	w := sockets(t)
	mx, err := w.Listen("mx.aol.test", "127.0.0.1:0", lab.Offer{TLS: lab.TLSImplicit})
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(mx.Addr())
	require.NoError(t, err)
	d := &deliver.Deliverer{Hostname: "mail.example.org", TLS: &tls.Config{}, Resolver: &resolve.Resolver{Servers: []string{w.DNS()}}}
	t.Cleanup(func() { _ = d.Close() })
	o := d.Deliver(t.Context(), by(t, "smtps://127.0.0.1:"+port), letter("you@aol.test"))[0]
	require.Equal(t, deliver.Delivered, o.Result, "%v", o)
}
