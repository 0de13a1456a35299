//go:build linux || darwin || freebsd || dragonfly || openbsd || netbsd

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

// acquire takes the spool's lock. The system gives it back when the process ends, however it ends. The folder is locked
// with the file, because files of that name get removed by people who take them for stale.
func acquire(path string) (io.Closer, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("disk: the spool cannot be locked: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		dir.Close()
		return nil, fmt.Errorf("disk: the spool cannot be locked: %w", full(err))
	}
	lock := locks{f, dir}
	err = flock(f)
	if derr := flock(dir); err == nil && isLocked(derr) { // some network file systems cannot lock a folder
		err = derr
	}
	if isLocked(err) {
		defer lock.Close()
		holder, _ := io.ReadAll(io.LimitReader(f, 500))
		return nil, &LockedError{Dir: filepath.Dir(path), Holder: strings.TrimSpace(string(holder))}
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("disk: %s cannot be locked: %w", path, err)
	}
	host, _ := os.Hostname()
	self := fmt.Sprintf("process %d (%s) on %s, since %s\n", os.Getpid(), filepath.Base(os.Args[0]), host, time.Now().Format(time.DateTime))
	if err := f.Truncate(0); err == nil {
		f.WriteAt([]byte(self), 0) // for people only: the lock holds without it
	}
	return lock, nil
}

// locks are the open files that hold a lock.
type locks []*os.File

func (l locks) Close() error {
	var err error
	for _, f := range l {
		err = errors.Join(err, f.Close())
	}
	return err
}

func flock(f *os.File) error  { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }
func isLocked(err error) bool { return errors.Is(err, syscall.EWOULDBLOCK) }
