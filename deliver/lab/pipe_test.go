package lab_test

import (
	"net"
	"testing"

	"golang.org/x/net/nettest"

	"github.com/sortie-mail/sortie/deliver/lab"
)

// Connections in memory keep every promise of net.Conn.
func TestConnectionsInMemoryAreNetConns(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		c1, c2 = lab.NewPipe()
		return c1, c2, func() { _ = c1.Close(); _ = c2.Close() }, nil
	})
}
