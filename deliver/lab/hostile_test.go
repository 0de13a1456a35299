package lab_test

import (
	"bufio"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/lab"
)

func hostileDialogues() []played {
	return []played{
		{
			name: "differing codes", behaviours: some(lab.MixedCodes(lab.AtMail, 250, 550, 250)),
			dialogue: greeted + "C: MAIL FROM:<a@b.test>\nS: 250-Whatever\nS: 550-Whatever\nS: 250 Whatever\nC: RCPT TO:<a@aol.test>\nS: 250 *",
		},
		{
			name: "NULs", behaviours: some(lab.NULs(lab.AtMail, "550 no")),
			dialogue: greeted + "C: MAIL FROM:<a@b.test>\nS: 550 n\x00o\x00\x00\x00",
		},
		{
			name: "escapes", behaviours: some(lab.Escapes(lab.AtMail, "550 no")),
			dialogue: greeted + "C: MAIL FROM:<a@b.test>\nS: 550 no \x1b]0;title*",
		},
		{
			name: "one answer too few", arrived: arrived{{"a@aol.test"}},
			behaviours: some(lab.Mute(lab.AtMail), lab.Offer{Capabilities: []string{"PIPELINING"}}),
			dialogue:   "S: 220 *\nC: EHLO c\nS: 250-*\nS: 250 PIPELINING\n" + "C: MAIL FROM:<a@b.test>\nC: RCPT TO:<a@aol.test>\nS: 250 2.1.5 *\nC: DATA\nS: 354 *\nC: .\nS: 250 *",
		},
		{
			name: "one answer too many", behaviours: some(lab.Twice(lab.AtMail)),
			dialogue: greeted + "C: MAIL FROM:<a@b.test>\nS: 250 2.1.0 *\nC: RCPT TO:<a@aol.test>\nS: 250 2.1.0 *\nS: 250 2.1.5 *",
		},
		{
			name: "a close after the answer", behaviours: some(lab.CloseAfter(lab.AtDot)), arrived: arrived{{"a@aol.test"}},
			dialogue: transaction + "S: 250 *\nS-EOF",
		},
		{
			name: "a limit that nobody was told of", behaviours: some(lab.SizeLimit(13)), arrived: arrived{{"a@aol.test"}},
			dialogue: transaction + `S: 250 *
				C: MAIL FROM:<a@b.test>
				S: 250 *
				C: RCPT TO:<a@aol.test>
				S: 250 *
				C: DATA
				S: 354 *
				C+ Subject: xyz
				C: .
				S: 552 5.3.4 *`,
		},
		{
			name: "words before TLS", behaviours: some(lab.Inject("250 all yours\r\n"), lab.Offer{TLS: lab.TLSOffered, Capabilities: []string{}}),
			dialogue: tlsOffered + "C: STARTTLS\nS: 220 *\nS: 250 all yours\nSTARTTLS\nC: EHLO c\nS: 250 *",
		},
		{
			name: "a handshake that is cut", behaviours: some(lab.Offer{TLS: lab.TLSCut, Capabilities: []string{}}),
			dialogue: tlsOffered + "C: STARTTLS\nS: 220 *\nC: hello\nS-EOF",
		},
	}
}

const (
	greeted    = "S: 220 *\nC: HELO c\nS: 250 *\n"
	tlsOffered = "S: 220 *\nC: EHLO c\nS: 250-*\nS: 250 STARTTLS\n"
)

func TestHostileServers(t *testing.T) { play(t, hostileDialogues) }

func TestAHandshakeThatStalls(t *testing.T) {
	inBubble(t, some(lab.Offer{TLS: lab.TLSStalled}), func(t *testing.T, n *lab.Internet, mx *lab.Server) {
		c := dial(t, n, "mx.aol.test:25")
		cfg := n.CA().ClientConfig()
		cfg.ServerName = "mx.aol.test"
		ended := make(chan error, 1)
		go func() { ended <- c.StartTLS(cfg) }()
		time.Sleep(time.Hour)
		require.Empty(t, ended)
		mx.Hangup()
		require.Error(t, <-ended)
	})
}

// A reset is no end of file: what was on its way is lost, and the next read says so.
func TestResets(t *testing.T) {
	for name, latency := range map[string]time.Duration{"near": 0, "far": time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			bothModes(t, func(t *testing.T, n *lab.Internet) {
				mx := n.Server("mx.aol.test", lab.Reset(lab.AtEHLO), lab.Latency(latency))
				conn, err := n.Dial(t.Context(), "tcp", "mx.aol.test:25")
				require.NoError(t, err)
				defer func() { _ = conn.Close() }()
				r := bufio.NewReader(conn)
				_, err = r.ReadString('\n')
				require.NoError(t, err)
				_, err = io.WriteString(conn, "EHLO c\r\n")
				require.NoError(t, err)
				_, err = r.ReadByte()
				require.ErrorIs(t, err, syscall.ECONNRESET)
				require.NoError(t, mx.WaitTranscript(t.Context(), "resets the connection at ehlo"))
			})
		})
	}
	bothModes(t, func(t *testing.T, n *lab.Internet) {
		n.Server("mx.aol.test", lab.Reset(lab.AtConnect))
		_, err := n.Dial(t.Context(), "tcp", "mx.aol.test:25")
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
	})
}

// begin goes up to the body.
func begin(t *testing.T, n *lab.Internet) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := n.Dial(t.Context(), "tcp", "mx.aol.test:25")
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	r := bufio.NewReader(conn)
	for _, command := range []string{"", "HELO c\r\n", "MAIL FROM:<a@b.test>\r\n", "RCPT TO:<a@aol.test>\r\n", "DATA\r\n"} {
		_, err := io.WriteString(conn, command)
		require.NoError(t, err)
		_, err = r.ReadString('\n')
		require.NoError(t, err)
	}
	return conn, r
}

// A server that stops reading fills the buffers on the way, and then its client waits.
func TestAServerThatStopsReading(t *testing.T) {
	for name, latency := range map[string]time.Duration{"near": 0, "far": time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			bothModes(t, func(t *testing.T, n *lab.Internet) {
				mx := n.Server("mx.aol.test", lab.StopReading(1<<20), lab.Latency(latency))
				conn, _ := begin(t, n)
				line := []byte(strings.Repeat("x", 1022) + "\r\n")
				sent := 0
				for {
					require.NoError(t, conn.SetWriteDeadline(time.Now().Add(2*time.Second)))
					k, err := conn.Write(line)
					sent += k
					if err != nil {
						var timeout net.Error
						require.ErrorAs(t, err, &timeout)
						require.True(t, timeout.Timeout())
						break
					}
				}
				require.GreaterOrEqual(t, sent, 1<<20)
				require.Less(t, sent, 64<<20)
				mx.Hangup()
				require.Empty(t, mx.Mailbox())
			})
		})
	}
}

func TestTheEndInTheMiddleOfABody(t *testing.T) {
	for name, b := range map[string]lab.Behaviour{"drop": lab.DropInBody(10), "reset": lab.ResetInBody(10)} {
		t.Run(name, func(t *testing.T) {
			bothModes(t, func(t *testing.T, n *lab.Internet) {
				mx := n.Server("mx.aol.test", b)
				conn, r := begin(t, n)
				_, err := io.WriteString(conn, "123456789")
				require.NoError(t, err)
				_, open := mx.Connections()
				require.Equal(t, 1, open)
				_, err = io.WriteString(conn, "0")
				require.NoError(t, err)
				_, err = r.ReadByte()
				require.ErrorIs(t, err, map[string]error{"drop": io.EOF, "reset": syscall.ECONNRESET}[name])
				require.Empty(t, mx.Mailbox())
			})
		})
	}
}

// A tap sees every octet, also within TLS.
func TestTaps(t *testing.T) {
	bothModes(t, func(t *testing.T, n *lab.Internet) {
		var mu sync.Mutex
		heard := make(map[int]string)
		hear := func(connection int, octets []byte) {
			mu.Lock()
			defer mu.Unlock()
			heard[connection] += string(octets)
		}
		mx := n.Server("mx.aol.test", lab.Tap(hear), lab.Offer{TLS: lab.TLSOffered})
		c := dial(t, n, "mx.aol.test:25")
		require.NoError(t, send(c, "a@b.test", []string{"a@aol.test"}, "x\n.y\n"))
		_ = c.Quit()
		c = dial(t, n, "mx.aol.test:25")
		cfg := n.CA().ClientConfig()
		cfg.ServerName = "mx.aol.test"
		require.NoError(t, c.StartTLS(cfg))
		_ = c.Quit()
		require.NoError(t, mx.Wait(t.Context(), func() bool { _, open := mx.Connections(); return open == 0 }))
		mu.Lock()
		defer mu.Unlock()
		require.Equal(t, "EHLO localhost\r\nMAIL FROM:<a@b.test> BODY=8BITMIME SMTPUTF8\r\nRCPT TO:<a@aol.test>\r\nDATA\r\nx\r\n..y\r\n.\r\nQUIT\r\n",
			heard[1])
		require.Equal(t, "EHLO localhost\r\nSTARTTLS\r\nEHLO localhost\r\nQUIT\r\n", heard[2])
	})
}
