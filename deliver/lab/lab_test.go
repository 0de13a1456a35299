package lab_test

import (
	"context"
	"net"
	"net/smtp"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sortie-mail/sortie/deliver/lab"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const aol = `
@  MX 10 mx
mx A  192.0.2.10
   AAAA 2001:db8::10
`

// bothModes runs a test over real sockets, and in memory in a bubble.
func bothModes(t *testing.T, f func(t *testing.T, n *lab.Internet)) {
	t.Helper()
	t.Run("sockets", func(t *testing.T) { f(t, lab.Test(t)) })
	t.Run("memory", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { f(t, lab.TestInMemory(t)) })
	})
}

func dial(t *testing.T, n *lab.Internet, addr string) *smtp.Client {
	t.Helper()
	conn, err := n.Dial(t.Context(), "tcp", addr)
	require.NoError(t, err)
	host, _, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	c, err := smtp.NewClient(conn, host)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// send sends one message and gives the first error.
func send(c *smtp.Client, from string, to []string, body string) error {
	if err := c.Mail(from); err != nil {
		return err
	}
	for _, r := range to {
		if err := c.Rcpt(r); err != nil {
			return err
		}
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte(body)); err != nil {
		return err
	}
	return w.Close()
}

func TestAMessageArrivesWithItsEnvelope(t *testing.T) {
	bothModes(t, func(t *testing.T, n *lab.Internet) {
		require.NoError(t, n.Zone("aol.test", aol))
		mx := n.Server("mx.aol.test")
		c := dial(t, n, "192.0.2.10:25")
		require.NoError(t, c.Hello("client.test"))
		require.NoError(t, send(c, "me@here.test", []string{"a@aol.test", "b@aol.test"}, "Subject: x\r\n\r\n.dot\r\n"))
		require.NoError(t, c.Quit())
		msgs, err := mx.WaitMail(t.Context(), 1)
		require.NoError(t, err)
		m := msgs[0]
		require.Equal(t, "client.test", m.HELO)
		require.Equal(t, "me@here.test", m.From)
		require.Equal(t, "8BITMIME", m.Params["BODY"])
		require.Equal(t, []string{"a@aol.test", "b@aol.test"}, m.Addresses())
		require.Equal(t, "Subject: x\r\n\r\n.dot\r\n", string(m.Body))
		require.Nil(t, m.TLS)
		require.Contains(t, mx.Transcript(), "#1 C: MAIL FROM:<me@here.test>")
	})
}

func TestFiveDaysOfRetriesPassInNoTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := lab.TestInMemory(t)
		require.NoError(t, n.Zone("aol.test", aol))
		mx := n.Server("mx.aol.test", lab.Refuse(lab.AtRcpt, "451 4.3.0 later"))
		begin := time.Now()
		tries := 0
		for {
			tries++
			c := dial(t, n, "192.0.2.10:25")
			err := send(c, "me@here.test", []string{"you@aol.test"}, "x\r\n")
			_ = c.Close()
			if err == nil {
				break
			}
			require.ErrorContains(t, err, "4.3.0 later")
			time.Sleep(time.Hour)
			if time.Since(begin) == 5*24*time.Hour {
				mx.Behave(lab.AcceptAll)
			}
		}
		require.Equal(t, 121, tries)
		require.Equal(t, begin.Add(5*24*time.Hour), mx.Mailbox()[0].Received)
	})
}

func TestHangingServerEndsByTheClientsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := lab.TestInMemory(t)
		mx := n.Server("mx.aol.test", lab.Hang(lab.AtGreeting))
		conn, err := n.Dial(t.Context(), "tcp", "mx.aol.test:25")
		require.NoError(t, err)
		begin := time.Now()
		require.NoError(t, conn.SetReadDeadline(begin.Add(5*time.Minute)))
		_, err = conn.Read(make([]byte, 1))
		var timeout net.Error
		require.ErrorAs(t, err, &timeout)
		require.True(t, timeout.Timeout())
		require.Equal(t, 5*time.Minute, time.Since(begin))
		require.NoError(t, conn.Close())
		require.NoError(t, mx.Wait(context.Background(), func() bool { _, open := mx.Connections(); return open == 0 }))
	})
}
