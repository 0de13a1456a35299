//go:build unix

package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// acquire takes the spool's lock. The system gives it back when the process ends, however it ends.
func acquire(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("disk: the spool cannot be locked: %w", full(err))
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		defer f.Close()
		holder, _ := io.ReadAll(io.LimitReader(f, 500))
		return nil, &LockedError{Dir: filepath.Dir(path), Holder: strings.TrimSpace(string(holder))}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("disk: %s cannot be locked: %w", path, err)
	}
	host, _ := os.Hostname()
	self := fmt.Sprintf("process %d (%s) on %s, since %s\n", os.Getpid(), filepath.Base(os.Args[0]), host, time.Now().Format(time.DateTime))
	if err := f.Truncate(0); err == nil {
		f.WriteAt([]byte(self), 0) // for people only: the lock holds without it
	}
	return f, nil
}

// freeBytes is how much an unprivileged process may still write to the disk of a folder.
func freeBytes(dir string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}
