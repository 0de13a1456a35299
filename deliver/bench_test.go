package deliver_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

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

// fixed is a resolver that knows one answer.
type fixed struct{}

func (fixed) LookupMX(context.Context, string) ([]resolve.MX, error) {
	return []resolve.MX{{Host: "mx.aol.test", Preference: 10}}, nil
}

func (fixed) LookupAddr(context.Context, string) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("192.0.2.10")}, nil
}

// sink is a mail server that takes everything and keeps nothing.
type sink struct {
	l      net.Listener
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
	"EHLO": "250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE\r\n", "DATA": "354 go\r\n", "QUIT": "221 bye\r\n",
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
		reply, ok := sinkReplies[string(line[:min(4, len(line))])]
		if !ok {
			reply = "250 2.0.0 Ok\r\n"
		}
		body = reply == sinkReplies["DATA"]
		_, _ = w.WriteString(reply)
	}
}
