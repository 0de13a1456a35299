//go:build unix

package deliver_test

import (
	"context"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
)

// What a host said while its connection was idle is noticed before it is used.
//
// std: C15
func TestWhatWasSaidToAnIdleConnection(t *testing.T) {
	for name, said := range map[string]string{
		"goodbye":            "S: 421 4.4.2 idle for too long\nS-CLOSE",
		"goodbye, and open":  "S: 421 4.4.2 idle for too long\nS-HANG",
		"nothing":            "S-CLOSE",
		"what was not asked": "S: 250 2.0.0 ok\nS-HANG",
	} {
		t.Run(name, func(t *testing.T) {
			w := sockets(t)
			mx, err := w.Listen("mx.aol.test", "127.0.0.1:0",
				lab.Script(upToBody+"C-BODY\nS: 250 taken\nS-WAIT 20ms\n"+said+"\n----\n"+upToBody+"C-BODY\nS: 250 taken\n"))
			require.NoError(t, err)
			w.d.Limits.IdleTime = time.Hour
			var first net.Conn
			w.d.Dial = func(ctx context.Context, network, address string) (c net.Conn, err error) {
				if c, err = w.Dial(ctx, network, address); first == nil {
					first = c
				}
				return c, err
			}
			direct := by(t, "smtp://"+mx.Addr())
			require.Equal(t, deliver.Delivered, w.one(t, direct).Result)
			awaitWords(t, first)
			o := w.one(t, direct)
			require.Equal(t, deliver.Delivered, o.Result, "%v", o)
			require.Empty(t, o.Tried)
			require.Contains(t, w.said.by('*'), "the host ended the connection while it was idle")
			require.Equal(t, 2, strings.Count(strings.Join(w.said.by('C'), "\n"), "MAIL FROM"), "nothing was said to it")
			require.Equal(t, 2, opened(mx))
		})
	}
}

// awaitWords waits until the far end of a connection has said something, or closed it, and leaves what it said to be read.
func awaitWords(t *testing.T, c net.Conn) {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, c.SetReadDeadline(time.Time{}))
	require.NoError(t, raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
		return err != syscall.EAGAIN
	}))
}
