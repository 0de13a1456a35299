//go:build !(linux || darwin || freebsd || dragonfly || openbsd || netbsd)

package disk

import (
	"fmt"
	"io"
	"runtime"
)

// acquire fails where no lock is known that ends with its process: without one, two processes could share a spool.
func acquire(path string) (io.Closer, error) {
	return nil, fmt.Errorf("disk: %s cannot be locked: this package does not know how to on %s, use another queue there", path, runtime.GOOS)
}
