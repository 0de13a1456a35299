package lab_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/lab"
)

// inBubble runs a test in memory with a server mx.aol.test.
func inBubble(t *testing.T, behaviours []lab.Behaviour, f func(t *testing.T, n *lab.Internet, mx *lab.Server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := lab.TestInMemory(t)
		require.NoError(t, n.Zone("aol.test", aol))
		f(t, n, n.Server("mx.aol.test", behaviours...))
	})
}

func some(b ...lab.Behaviour) []lab.Behaviour { return b }

// until plays a transaction and gives what was sent before the server fell silent for an hour.
func until(t *testing.T, n *lab.Internet) string {
	t.Helper()
	conn, err := n.Dial(t.Context(), "tcp", "mx.aol.test:25")
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	r := bufio.NewReader(conn)
	last := ""
	for _, cmd := range []string{"", "HELO c", "MAIL FROM:<a@b.test>", "RCPT TO:<a@aol.test>", "DATA", "x\r\n.", "RSET", "NOOP", "QUIT"} {
		if cmd != "" {
			_, err = io.WriteString(conn, cmd+"\r\n")
			require.NoError(t, err)
			last = cmd
		}
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Hour)))
		_, err := r.ReadString('\n')
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return last
		}
		require.NoError(t, err)
	}
	return "the end"
}

func TestHangAtEveryStage(t *testing.T) {
	for stage, last := range map[lab.Stage]string{
		lab.AtGreeting: "", lab.AtEHLO: "HELO c", lab.AtMail: "MAIL FROM:<a@b.test>", lab.AtRcpt: "RCPT TO:<a@aol.test>",
		lab.AtData: "DATA", lab.AtBody: "x\r\n.", lab.AtDot: "x\r\n.", lab.AtRset: "RSET", lab.AtOther: "NOOP", lab.AtQuit: "QUIT",
	} {
		t.Run(string(stage), func(t *testing.T) {
			inBubble(t, some(lab.Hang(stage)), func(t *testing.T, n *lab.Internet, mx *lab.Server) {
				begin := time.Now()
				assert.Equal(t, last, until(t, n))
				assert.Equal(t, time.Hour, time.Since(begin))
				assert.Equal(t, stage == lab.AtRset || stage == lab.AtOther || stage == lab.AtQuit, len(mx.Mailbox()) == 1)
			})
		})
	}
}

func TestHangInTheBodyStopsTheSender(t *testing.T) {
	inBubble(t, some(lab.Hang(lab.AtBody)), func(t *testing.T, n *lab.Internet, mx *lab.Server) {
		c := dial(t, n, "mx.aol.test:25")
		require.NoError(t, c.Mail("a@b.test"))
		require.NoError(t, c.Rcpt("a@aol.test"))
		w, err := c.Data()
		require.NoError(t, err)
		sent := make(chan error, 1)
		go func() {
			_, err := io.Copy(w, strings.NewReader(strings.Repeat("x\r\n", 1<<20)))
			sent <- err
		}()
		synctest.Wait()
		assert.Empty(t, sent, "the writer waits for room")
		mx.Hangup()
		require.Error(t, <-sent)
		require.NoError(t, mx.Wait(t.Context(), func() bool { _, open := mx.Connections(); return open == 0 }))
	})
}

func TestDropInTheBody(t *testing.T) {
	inBubble(t, some(lab.Drop(lab.AtBody)), func(t *testing.T, n *lab.Internet, mx *lab.Server) {
		c := dial(t, n, "mx.aol.test:25")
		require.ErrorIs(t, send(c, "a@b.test", []string{"a@aol.test"}, strings.Repeat("x\r\n", 1<<20)), syscall.EPIPE)
		require.Empty(t, mx.Mailbox())
		require.Contains(t, mx.Transcript(), "#1 - drops the connection at body")
	})
}

func TestConnectionRefusedAndHanging(t *testing.T) {
	bothModes(t, func(t *testing.T, n *lab.Internet) {
		require.NoError(t, n.Zone("aol.test", aol+"\nnobody A 192.0.2.11"))
		mx := n.Server("mx.aol.test", lab.Drop(lab.AtConnect))
		for addr, want := range map[string]error{
			"192.0.2.10:25":       syscall.ECONNREFUSED,
			"[2001:db8::10]:25":   syscall.ECONNREFUSED,
			"192.0.2.10:26":       syscall.ECONNREFUSED,
			"192.0.2.11:25":       syscall.ECONNREFUSED,
			"192.0.2.99:25":       syscall.EHOSTUNREACH,
			"nowhere.aol.test:25": &net.DNSError{Err: "no such host", Name: "nowhere.aol.test", Server: n.DNS(), IsNotFound: true},
		} {
			_, err := n.Dial(t.Context(), "tcp", addr)
			var op *net.OpError
			require.ErrorAs(t, err, &op, addr)
			require.Equal(t, want, op.Err, addr)
		}
		total, _ := mx.Connections()
		require.Zero(t, total)

		mx.Behave(lab.Hang(lab.AtConnect))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			_, err := n.Dial(ctx, "tcp", "192.0.2.10:25")
			ended <- err
		}()
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)

		mx.Behave(lab.AcceptAll)
		require.NoError(t, dial(t, n, "[2001:db8::10]:25").Quit())
	})
}

func TestGreylistKnowsSenderRecipientAndAddress(t *testing.T) {
	inBubble(t, some(lab.Greylist(5*time.Minute)), func(t *testing.T, n *lab.Internet, _ *lab.Server) {
		try := func(from, to string) error {
			c := dial(t, n, "mx.aol.test:25")
			defer func() { _ = c.Close() }()
			return send(c, from, []string{to}, "x\r\n")
		}
		require.ErrorContains(t, try("a@b.test", "a@aol.test"), "Greylisted")
		time.Sleep(5*time.Minute - time.Second)
		require.ErrorContains(t, try("a@b.test", "a@aol.test"), "Greylisted")
		time.Sleep(time.Second)
		require.NoError(t, try("a@b.test", "a@aol.test"))
		require.ErrorContains(t, try("a@b.test", "b@aol.test"), "Greylisted")
		require.ErrorContains(t, try("b@b.test", "a@aol.test"), "Greylisted")
	})
}

func TestDelaysAddUp(t *testing.T) {
	behaviours := some(lab.Delay(lab.Anywhere, time.Second), lab.Delay(lab.AtDot, time.Minute), lab.Refuse(lab.AtDot, "554 no"))
	inBubble(t, behaviours, func(t *testing.T, n *lab.Internet, _ *lab.Server) {
		begin := time.Now()
		c := dial(t, n, "mx.aol.test:25")
		require.ErrorContains(t, send(c, "a@b.test", []string{"a@aol.test"}, "x\r\n"), "no")
		// connect, greeting, EHLO, MAIL, RCPT, DATA, body and dot
		require.Equal(t, 8*time.Second+time.Minute, time.Since(begin))
	})
}

func TestEndlessReplies(t *testing.T) {
	for name, b := range map[string]lab.Behaviour{
		"reply": lab.EndlessReply(lab.AtGreeting), "line": lab.EndlessLine(lab.AtGreeting),
	} {
		t.Run(name, func(t *testing.T) {
			bothModes(t, func(t *testing.T, n *lab.Internet) {
				mx := n.Server("mx.aol.test", b)
				conn, err := n.Dial(t.Context(), "tcp", "mx.aol.test:25")
				require.NoError(t, err)
				text := make([]byte, 10<<20)
				_, err = io.ReadFull(conn, text)
				require.NoError(t, err)
				require.NotContains(t, string(text), "\r\n250 ")
				require.Equal(t, name == "line", !strings.Contains(string(text), "\n"))
				require.NoError(t, conn.Close())
				require.NoError(t, mx.Wait(t.Context(), func() bool { _, open := mx.Connections(); return open == 0 }))
			})
		})
	}
}

func TestBehaviourChangesInsideASession(t *testing.T) {
	bothModes(t, func(t *testing.T, n *lab.Internet) {
		mx := n.Server("mx.aol.test", lab.Refuse(lab.AtMail, "550 5.7.1 base"))
		c := dial(t, n, "mx.aol.test:25")
		require.ErrorContains(t, c.Mail("a@b.test"), "base")
		mx.Behave(lab.Refuse(lab.AtMail, "550 5.7.1 new"))
		require.ErrorContains(t, c.Mail("a@b.test"), "new")
		mx.Behave()
		require.ErrorContains(t, c.Mail("a@b.test"), "base")
		mx.Behave(lab.AcceptAll)
		require.NoError(t, c.Mail("a@b.test"))
	})
}

func TestHangupAndClose(t *testing.T) {
	bothModes(t, func(t *testing.T, n *lab.Internet) {
		mx := n.Server("mx.aol.test")
		c := dial(t, n, "mx.aol.test:25")
		require.NoError(t, c.Noop())
		mx.Hangup()
		require.Error(t, c.Noop())
		require.NoError(t, dial(t, n, "mx.aol.test:25").Noop())
		require.NoError(t, mx.Close())
		require.NoError(t, mx.Close())
		_, err := n.Dial(t.Context(), "tcp", "mx.aol.test:25")
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		again := n.Server("mx.aol.test")
		require.NoError(t, dial(t, n, "mx.aol.test:25").Noop())
		total, _ := again.Connections()
		require.Equal(t, 1, total)
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, _ *lab.Internet, mx *lab.Server) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		_, err := mx.WaitMail(ctx, 1)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, mx.WaitTranscript(ctx, "C: DATA"), context.DeadlineExceeded)
	})
}

func TestServersFollowTheZones(t *testing.T) {
	bothModes(t, func(t *testing.T, n *lab.Internet) {
		require.NoError(t, n.Zone("aol.test", aol))
		n.Server("mx.aol.test")
		require.NoError(t, dial(t, n, "192.0.2.10:25").Quit())
		require.NoError(t, n.Zone("aol.test", "mx A 192.0.2.77"))
		_, err := n.Dial(t.Context(), "tcp", "192.0.2.10:25")
		require.ErrorIs(t, err, syscall.EHOSTUNREACH)
		conn, err := n.Dial(t.Context(), "tcp", "192.0.2.77:25")
		require.NoError(t, err)
		require.Equal(t, "192.0.2.77:25", conn.RemoteAddr().String())
		require.NoError(t, conn.Close())
	})
}

func TestListenOnAnAddressOfOnesChoice(t *testing.T) {
	n := lab.Test(t)
	mx, err := n.Listen("mx.aol.test", "127.0.0.5:0")
	require.NoError(t, err)
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", mx.Addr())
	require.NoError(t, err)
	greeting, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, greeting, "220 mx.aol.test")
	require.NoError(t, conn.Close())
	require.NoError(t, dial(t, n, mx.Addr()).Quit())

	mx.Behave(lab.Drop(lab.AtConnect))
	conn, err = n.Dial(t.Context(), "tcp", mx.Addr())
	if err == nil { // the reset may come before or after the dial returns
		_, err = conn.Read(make([]byte, 1))
		_ = conn.Close()
	}
	require.ErrorIs(t, err, syscall.ECONNRESET)
}

// failing is a test that notes what failed.
type failing struct {
	testing.TB
	said []string
}

func (f *failing) Errorf(format string, _ ...any) { f.said = append(f.said, format) }

func TestMistakesInTheSetupFailTheTest(t *testing.T) {
	f := &failing{TB: t}
	n := lab.TestInMemory(f)
	require.ErrorContains(t, n.Zone("aol.test", "@ MX ten mx"), "line: 1")
	require.ErrorContains(t, n.Zone("aol.test", "mx.gmail.test. A 192.0.2.1"), "outside the zone")
	_, err := n.Listen("mx.aol.test", "127.0.0.1:0")
	require.ErrorContains(t, err, "in memory")
	require.Len(t, f.said, 3)
}

func TestCloseWaitsForEverySession(t *testing.T) {
	bothModes(t, func(t *testing.T, n *lab.Internet) {
		hung := n.Server("hung.test", lab.Hang(lab.AtGreeting))
		slow := n.Server("slow.test", lab.Delay(lab.AtGreeting, 24*time.Hour))
		idle := n.Server("idle.test")
		for _, s := range []*lab.Server{hung, slow, idle} {
			conn, err := n.Dial(t.Context(), "tcp", s.Name()+":25")
			require.NoError(t, err)
			defer func() { _ = conn.Close() }()
			require.NoError(t, s.WaitTranscript(t.Context(), "connection from"))
		}
		require.NoError(t, n.Close())
		for _, s := range []*lab.Server{hung, slow, idle} {
			total, open := s.Connections()
			require.Equal(t, 1, total)
			require.Zero(t, open, s.Name())
		}
		_, err := n.Dial(t.Context(), "tcp", "idle.test:25")
		require.Error(t, err)
	})
}
