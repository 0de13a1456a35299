//go:build unix

package deliver

import (
	"net"
	"syscall"
)

// quiet reports whether a far end that is not to speak has neither spoken nor closed, as far as is known without waiting.
// A host says 421 before it ends a connection that is idle (RFC 5321, section 3.8).
func quiet(c net.Conn) bool {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	still := false
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK) // the descriptor does not block
		still = err == syscall.EAGAIN || err == syscall.EWOULDBLOCK
		return true
	})
	return err == nil && still
}
