package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// An amount is how much a process has written.
type amount struct {
	Calls int64 // octets that it handed to the kernel, with those for pipes, which are few
	Pages int64 // octets of pages that became dirty by it. A folio counts as a whole, however little of it is written
}

func (a amount) plus(b amount) amount { return amount{a.Calls + b.Calls, a.Pages + b.Pages} }

// written is how much this process has written. The file system's own journal is not in it.
func written() amount {
	data, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return amount{}
	}
	return amount{field(data, "wchar:"), field(data, "write_bytes:")}
}

// resident is how much memory this process has, and how much of it is mapped files. What the garbage collector could give back is
// not counted.
func resident() (all, files int64) {
	runtime.GC()
	debug.FreeOSMemory()
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, 0
	}
	return field(data, "VmRSS:") << 10, field(data, "RssFile:") << 10
}

// field is the number behind a name in a file of /proc.
func field(data []byte, name string) int64 {
	for line := range bytes.Lines(data) {
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok {
			n, _ := strconv.ParseInt(string(bytes.Fields(rest)[0]), 10, 64)
			return n
		}
	}
	return 0
}

func cpu() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// quiet waits until this process writes nothing more, for at most three seconds: compaction goes on after the work.
func untilQuiet() {
	last := written()
	for still, end := 0, time.Now().Add(3*time.Second); still < 3 && time.Now().Before(end); {
		time.Sleep(100 * time.Millisecond)
		now := written()
		if still++; now != last {
			still = 0
		}
		last = now
	}
}

// sizeOf is the room that a folder takes on disk.
func sizeOf(dir string) (size int64) {
	filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // it was removed meanwhile
		}
		if info, err := e.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				size += st.Blocks * 512
			}
		}
		return nil
	})
	return size
}

// peak watches the room that a folder takes until stop is called.
func peak(dir string) (stop func() int64) {
	quit, most := make(chan struct{}), make(chan int64)
	go func() {
		top := int64(0)
		for {
			top = max(top, sizeOf(dir))
			select {
			case <-quit:
				most <- top
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	return func() int64 {
		close(quit)
		return <-most
	}
}

// forgetPages makes the kernel forget what it has cached of a folder, so that it is read from the disk.
func forgetPages(dir string) {
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return nil
		}
		if f, err := os.Open(path); err == nil {
			unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
			f.Close()
		}
		return nil
	})
}

// probe is how many appends of 4 KiB, each synced, one writer gets done in a second: what the disk allows without sharing.
func probe(dir string) (float64, error) {
	f, err := os.Create(filepath.Join(dir, "probe"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n, start := 0, time.Now()
	for ; time.Since(start) < 500*time.Millisecond; n++ {
		if _, err := f.Write(noise()[:4096]); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, fmt.Errorf("fsync: %w", err)
		}
	}
	return float64(n) / time.Since(start).Seconds(), nil
}
