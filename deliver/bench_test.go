package deliver_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/smtp"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	gosmtp "github.com/emersion/go-smtp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/resolve"
)

// BenchmarkDeliver is one message for one recipient over a kept connection to a host that costs next to nothing.
func BenchmarkDeliver(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			benchmark(b, size, 1)
		})
	}
	b.Run("100recipients", func(b *testing.B) { benchmark(b, 4<<10, 100) })
}

func benchmark(b *testing.B, size, recipients int) {
	sink := newSink(b)
	d := &deliver.Deliverer{
		Hostname: "mail.example.org", Dial: sink.dial, Resolver: fixed{}, Limits: deliver.Limits{Messages: 1 << 30},
	}
	b.Cleanup(func() { _ = d.Close() })
	text := hello + strings.Repeat(strings.Repeat("x", 76)+"\r\n", size/78)
	m := letterOf(text)
	m.Open = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
	for i := range recipients {
		m.To = append(m.To, deliver.Recipient{Address: fmt.Sprintf("user%d@aol.test", i)})
	}
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if o := d.Deliver(b.Context(), direct, m)[0]; o.Result != deliver.Delivered {
			b.Fatal(o)
		}
	}
	b.ReportMetric(float64(sink.writes.Load())/float64(b.N), "writes/op")
}

// BenchmarkClients is the same message by this client, by that of go-smtp and by net/smtp, over a kept connection to the
// same host. It tells how many messages a second of CPU is enough for, with the CPU that the host takes.
func BenchmarkClients(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20} {
		text := hello + strings.Repeat(strings.Repeat("x", 76)+"\r\n", size/78)
		for name, send := range map[string]func(b *testing.B, s *sink, text string) func() error{
			"sortie": bySortie, "sortie-data": byDATA, "go-smtp": byGoSMTP, "net-smtp": byNetSMTP, "socket": bySocket,
		} {
			b.Run(fmt.Sprintf("%dKiB/%s", size>>10, name), func(b *testing.B) {
				one := send(b, newSink(b), text)
				b.SetBytes(int64(len(text)))
				b.ReportAllocs()
				before := cpu()
				for b.Loop() {
					require.NoError(b, one())
				}
				b.ReportMetric(float64(b.N)/(cpu()-before).Seconds(), "msgs/cpu-s")
			})
		}
	}
}

func bySortie(b *testing.B, s *sink, text string) func() error {
	d := &deliver.Deliverer{
		Hostname: "mail.example.org", Dial: s.dial, Resolver: fixed{}, Limits: deliver.Limits{Messages: 1 << 30},
	}
	b.Cleanup(func() { _ = d.Close() })
	m := letterOf(text, "you@aol.test")
	return func() error { return d.Deliver(b.Context(), direct, m)[0].Err() }
}

// byDATA is bySortie to a host without CHUNKING.
func byDATA(b *testing.B, s *sink, text string) func() error {
	s.old = true
	return bySortie(b, s, text)
}

// byGoSMTP and byNetSMTP say what their documentation has one say for a message.
func byGoSMTP(b *testing.B, s *sink, text string) func() error {
	c, err := gosmtp.Dial(s.l.Addr().String())
	require.NoError(b, err)
	b.Cleanup(func() { _ = c.Quit() })
	return func() error {
		return c.SendMail("me@example.org", []string{"you@aol.test"}, strings.NewReader(text))
	}
}

func byNetSMTP(b *testing.B, s *sink, text string) func() error {
	c, err := smtp.Dial(s.l.Addr().String())
	require.NoError(b, err)
	b.Cleanup(func() { _ = c.Quit() })
	return func() error {
		if err := c.Mail("me@example.org"); err != nil {
			return err
		}
		if err := c.Rcpt("you@aol.test"); err != nil {
			return err
		}
		w, err := c.Data()
		if err != nil {
			return err
		}
		if _, err := io.Copy(w, strings.NewReader(text)); err != nil {
			return err
		}
		return w.Close()
	}
}

// bySocket is what the machine can do: the message by one copy, between DATA and the dot.
func bySocket(b *testing.B, s *sink, text string) func() error {
	c, err := net.Dial("tcp", s.l.Addr().String())
	require.NoError(b, err)
	b.Cleanup(func() { _ = c.Close() })
	r := bufio.NewReader(c)
	ask := func(text string) error {
		if _, err := io.Copy(c, strings.NewReader(text)); err != nil {
			return err
		}
		_, err := r.ReadString('\n')
		return err
	}
	_, err = r.ReadString('\n')
	require.NoError(b, err)
	return func() error {
		if err := ask("DATA\r\n"); err != nil {
			return err
		}
		return ask(text + ".\r\n")
	}
}

// BenchmarkFiftyHosts is a message of 25 MB to fifty hosts at once, by BDAT and by DATA. It tells the peak of the memory of
// this process, hosts and all; run it alone.
func BenchmarkFiftyHosts(b *testing.B) {
	file := filepath.Join(b.TempDir(), "message")
	f, err := os.Create(file)
	require.NoError(b, err)
	for range 400 { // piece by piece: the message is not to be in memory here either
		_, err := io.WriteString(f, hello+strings.Repeat(strings.Repeat("x", 76)+"\r\n", 64<<10/78))
		require.NoError(b, err)
	}
	require.NoError(b, f.Close())
	for name, old := range map[string]bool{"BDAT": false, "DATA": true} {
		b.Run(name, func(b *testing.B) {
			s := newSink(b)
			s.old = old
			d := &deliver.Deliverer{Hostname: "mail.example.org", Dial: s.dial, Resolver: fixed{}}
			b.Cleanup(func() { _ = d.Close() })
			for b.Loop() {
				var all sync.WaitGroup
				for range 50 {
					all.Go(func() {
						m := letterOf("", "you@aol.test")
						m.Size = 25 << 20
						m.Open = func() (io.ReadCloser, error) { return os.Open(file) }
						assert.NoError(b, d.Deliver(b.Context(), direct, m)[0].Err())
					})
				}
				all.Wait()
			}
			b.ReportMetric(float64(peak())/(1<<20), "peak-MiB")
		})
	}
}

// fixed is a resolver that knows one answer.
type fixed struct{}

func (fixed) LookupMX(context.Context, string) ([]resolve.MX, error) {
	return oneMX, nil
}

func (fixed) LookupAddr(context.Context, string) ([]netip.Addr, error) {
	return oneAddr, nil
}

var (
	oneMX   = []resolve.MX{{Host: "mx.aol.test", Preference: 10}}
	oneAddr = []netip.Addr{netip.MustParseAddr("192.0.2.10")}
)

// sink is a mail server that takes everything and keeps nothing.
type sink struct {
	l      net.Listener
	old    bool         // no CHUNKING
	writes atomic.Int64 // of the client
}

func newSink(tb testing.TB) *sink {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	s := &sink{l: l}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(c)
		}
	}()
	tb.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return s
}

func (s *sink) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", s.l.Addr().String())
	if err != nil {
		return nil, err
	}
	return &counting{c, &s.writes}, nil
}

type counting struct {
	net.Conn
	writes *atomic.Int64
}

func (c *counting) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

var sinkReplies = map[string]string{
	"EHLO": "250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-CHUNKING\r\n250 SIZE\r\n", "DATA": "354 go\r\n", "QUIT": "221 bye\r\n",
}

func (s *sink) serve(c net.Conn) {
	defer c.Close()
	r, w := bufio.NewReaderSize(c, 64<<10), bufio.NewWriter(c)
	_, _ = w.WriteString("220 sink\r\n")
	for body := false; ; {
		if r.Buffered() == 0 && w.Flush() != nil {
			return
		}
		line, err := r.ReadSlice('\n')
		switch {
		case err != nil:
			return
		case body && !bytes.Equal(line, []byte(".\r\n")):
			continue
		}
		verb := string(line[:min(4, len(line))])
		if verb == "BDAT" {
			n, _ := strconv.Atoi(string(bytes.Fields(line)[1]))
			if _, err := r.Discard(n); err != nil {
				return
			}
		}
		reply, ok := sinkReplies[verb]
		if !ok {
			reply = "250 2.0.0 Ok\r\n"
		}
		if s.old && verb == "EHLO" {
			reply = strings.Replace(reply, "250-CHUNKING\r\n", "", 1)
		}
		body = reply == sinkReplies["DATA"]
		_, _ = w.WriteString(reply)
	}
}
