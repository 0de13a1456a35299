package lab_test

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/lab"
)

const oneWay = 10 * time.Millisecond

// latent runs a test over sockets and in memory, with latency.
func latent(t *testing.T, f func(t *testing.T, n *lab.Internet)) {
	t.Helper()
	run := func(t *testing.T, opts lab.Options) {
		n, err := lab.New(opts)
		require.NoError(t, err)
		defer func() { require.NoError(t, n.Close()) }()
		f(t, n)
	}
	t.Run("sockets", func(t *testing.T) { run(t, lab.Options{Latency: oneWay}) })
	t.Run("memory", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { run(t, lab.Options{InMemory: true, Latency: oneWay}) })
	})
}

func TestRoundTripsAreCounted(t *testing.T) {
	latent(t, func(t *testing.T, n *lab.Internet) {
		mx := n.Server("mx.aol.test")
		require.Zero(t, mx.RoundTrips(1))
		c := dial(t, n, "mx.aol.test:25")
		require.Equal(t, 2, mx.RoundTrips(1), "the connection and the greeting")
		require.NoError(t, send(c, "a@b.test", []string{"a@aol.test"}, strings.Repeat("x\r\n", 100_000)))
		require.Equal(t, 7, mx.RoundTrips(1), "EHLO, MAIL, RCPT, DATA and the body")
		c = dial(t, n, "mx.aol.test:25")
		require.NoError(t, c.Noop())
		require.Equal(t, 4, mx.RoundTrips(2))
		require.Equal(t, 7, mx.RoundTrips(1))
		require.Zero(t, mx.RoundTrips(3))
	})
}

// What is said in one write, or in several before anything is read, is one round trip.
func TestWhatIsSaidTogetherIsOneRoundTrip(t *testing.T) {
	latent(t, func(t *testing.T, n *lab.Internet) {
		mx := n.Server("mx.aol.test")
		conn, err := n.Dial(t.Context(), "tcp", "mx.aol.test:25")
		require.NoError(t, err)
		defer func() { _ = conn.Close() }()
		r := bufio.NewReader(conn)
		lines := func(k int) {
			for range k {
				_, err := r.ReadString('\n')
				require.NoError(t, err)
			}
		}
		lines(1)
		_, err = io.WriteString(conn, "EHLO c\r\n")
		require.NoError(t, err)
		lines(7)
		require.Equal(t, 3, mx.RoundTrips(1))
		for _, part := range []string{"MAIL FROM:<a@b.test>\r\nRCPT TO:<a@", "aol.test>\r\n", "DATA\r\n"} {
			_, err = io.WriteString(conn, part)
			require.NoError(t, err)
		}
		lines(3)
		require.Equal(t, 4, mx.RoundTrips(1))
		_, err = io.WriteString(conn, ".\r\nRSET\r\nNOOP\r\n")
		require.NoError(t, err)
		lines(3)
		require.Equal(t, 5, mx.RoundTrips(1))
	})
}

func TestRoundTripsCostTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := lab.TestInMemory(t)
		mx := n.Server("mx.aol.test", lab.Latency(oneWay), lab.Latency(time.Hour))
		begin := time.Now()
		c := dial(t, n, "mx.aol.test:25")
		require.NoError(t, send(c, "a@b.test", []string{"a@aol.test"}, "x\r\n"))
		require.Equal(t, 7*2*oneWay, time.Since(begin))
		require.Equal(t, 7, mx.RoundTrips(1))

		n.Server("near.test")
		begin = time.Now()
		require.NoError(t, dial(t, n, "near.test:25").Noop())
		require.Zero(t, time.Since(begin))
	})
}

func TestLatencyOverSocketsEndsWithTheConnection(t *testing.T) {
	n := lab.Test(t)
	mx, err := n.Listen("mx.aol.test", "127.0.0.1:0", lab.Latency(time.Millisecond))
	require.NoError(t, err)
	for _, end := range []func(c net.Conn){
		func(c net.Conn) { require.NoError(t, c.Close()) },
		func(c net.Conn) { mx.Hangup(); _, _ = io.Copy(io.Discard, c) },
		func(c net.Conn) { _ = c.(*net.TCPConn).CloseWrite(); _, _ = io.Copy(io.Discard, c) },
	} {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", mx.Addr())
		require.NoError(t, err)
		_, err = bufio.NewReader(conn).ReadString('\n')
		require.NoError(t, err)
		end(conn)
		require.NoError(t, mx.Wait(t.Context(), func() bool { _, open := mx.Connections(); return open == 0 }))
		_ = conn.Close()
	}
	require.NoError(t, n.Close())
}
