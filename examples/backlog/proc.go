package main

// What Linux tells about a process and a folder.

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// process is what /proc tells about one.
type process struct {
	RSS, Peak int64         // VmRSS and VmHWM, in octets
	Written   int64         // octets that it caused to be written to a disk
	CPU       time.Duration // user and system time
}

// inspect asks about a process of this user.
func inspect(pid int) (p process, err error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return p, fmt.Errorf("this command needs Linux: %w", err)
	}
	if p.RSS, err = field(status, "VmRSS"); err != nil {
		return p, err
	}
	if p.Peak, err = field(status, "VmHWM"); err != nil {
		return p, err
	}
	p.RSS, p.Peak = p.RSS<<10, p.Peak<<10
	io, err := os.ReadFile(filepath.Join(dir, "io"))
	if err != nil {
		return p, err
	}
	if p.Written, err = field(io, "write_bytes"); err != nil {
		return p, err
	}
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return p, err
	}
	p.CPU, err = cpuTime(stat)
	return p, err
}

// field reads the number of a line "name: number".
func field(text []byte, name string) (int64, error) {
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), name+":"); ok {
			number, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
			return strconv.ParseInt(number, 10, 64)
		}
	}
	return 0, fmt.Errorf("the system does not tell %s", name)
}

// tick is the unit of times in /proc/PID/stat: sysconf(_SC_CLK_TCK), which is 100 a second on all of Linux.
const tick = 10 * time.Millisecond

// cpuTime reads user and system time, the fields 14 and 15; the second is a name in parentheses, which may hold anything.
func cpuTime(stat []byte) (time.Duration, error) {
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(f) < 13 {
		return 0, fmt.Errorf("the system does not tell the time of a process: %q", stat)
	}
	user, err := strconv.ParseInt(f[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * tick, err
}

// folderSize adds up the files of a folder and those below.
func folderSize(dir string) (size int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return ignoreGone(err)
		}
		info, err := d.Info()
		if err == nil {
			size += info.Size()
		}
		return ignoreGone(err)
	})
	return size, err
}

// ignoreGone passes over files that are removed meanwhile.
func ignoreGone(err error) error {
	if os.IsNotExist(err) {
		return nil
	}
	return err
}
