package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A fault is what became of a spool that was damaged.
type fault struct {
	opens   bool
	missing int    // messages that are not there, and whose reading did not fail either
	damaged int    // messages whose reading failed
	wrong   int    // messages with other bytes, given out as good
	said    string // what was logged, or why it did not open
}

// cuts is how many octets the end of what was written last loses.
var cuts = []int64{1, 6000}

// flips is in how many places, spread over all files, a byte is changed, each time in another copy.
const flips = 3

// damage makes a spool, cuts and flips copies of it, and looks at what is left.
func damage(ctx context.Context, k kind, n, size int) (cut, flipped []fault, err error) {
	dir, err := os.MkdirTemp(shm(), "engines")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(dir)
	base := filepath.Join(dir, "base")
	t := task{Do: "fill", Engine: k.name, Dir: base, Size: size, N: n}
	if r, err := t.do(ctx); err != nil || r.Error != "" {
		return nil, nil, errors.Join(err, errors.New(r.Error))
	}
	t.Do, t.Dir = "list", filepath.Join(dir, "copy")
	look := func(harm func() error) (fault, error) {
		defer os.RemoveAll(t.Dir)
		if err := os.CopyFS(t.Dir, os.DirFS(base)); err != nil {
			return fault{}, err
		}
		if err := harm(); err != nil {
			return fault{}, err
		}
		return t.look(ctx)
	}
	for _, octets := range cuts {
		f, err := look(func() error { return t.tear(octets) })
		if err != nil {
			return nil, nil, err
		}
		cut = append(cut, f)
	}
	for i := range flips {
		f, err := look(func() error { return flip(t.Dir, float64(i)+0.5) })
		if err != nil {
			return nil, nil, err
		}
		flipped = append(flipped, f)
	}
	return cut, flipped, nil
}

// shm is a folder in memory, where there is one: what is looked at here is not the disk.
func shm() string {
	var st unix.Statfs_t
	if unix.Statfs("/dev/shm", &st) == nil && st.Bavail*uint64(st.Bsize) > 1<<30 {
		return "/dev/shm"
	}
	return ""
}

func (t task) look(ctx context.Context) (fault, error) {
	r, err := t.do(ctx)
	f := fault{opens: r.died == "" && r.Error == "", damaged: len(r.Damaged), wrong: len(r.Wrong), said: r.said}
	f.missing = t.N - len(r.Found) - f.damaged - f.wrong
	if !f.opens && f.said == "" {
		f.said = r.died + r.Error
	}
	f.said = firstLine(f.said)
	return f, err
}

// tear does to what was written last what a write does that did not reach the disk in full.
func (t task) tear(octets int64) error {
	path, err := lastLog(t.Dir)
	if err != nil {
		return err
	}
	if filepath.Base(path) == "bolt" {
		return tearBolt(path)
	}
	end, err := t.lastWrite(path)
	if err != nil {
		return err
	}
	return os.Truncate(path, max(0, end-octets))
}

// lastLog is the file that the last write went to: the newest log where there are logs, and the newest file elsewhere.
func lastLog(dir string) (path string, err error) {
	var last fs.FileInfo
	best := 0
	err = filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil || info.Size() < 4096 {
			return err
		}
		rank := 1
		if strings.HasSuffix(p, ".log") || strings.HasSuffix(p, "-wal") {
			rank = 2
		}
		if rank > best || (rank == best && p > path) { // numbers grow
			last, best, path = info, rank, p
		}
		return nil
	})
	if err == nil && last == nil {
		err = fmt.Errorf("%s: there is nothing to tear", dir)
	}
	return path, err
}

// lastWrite is where the last of the newer messages ends in a file. Behind it may be zeros, or what is left of an earlier use.
func (t task) lastWrite(path string) (end int64, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	const newer = 1000
	for at := 0; ; at++ {
		next := bytes.Index(data[at:], []byte(envelopeMark))
		if next < 0 {
			break
		}
		at += next
		rest := data[at:]
		var seq uint64
		if n, _ := fmt.Sscanf(string(rest[:min(len(rest), 40)]), envelopeMark+"%d-", &seq); n == 0 || seq+newer < uint64(t.N) || seq > uint64(t.N) {
			continue
		}
		end = max(end, int64(at+len(envelopeMark)))
		tail := bodyOf(seq, t.Size)[t.Size-64:]
		if i := bytes.Index(rest[:min(len(rest), 2*t.Size)], tail); i >= 0 {
			end = max(end, int64(at+i+len(tail)))
		}
	}
	if end == 0 {
		err = fmt.Errorf("%s: the newer messages are not in it", path)
	}
	return end, err
}

// tearBolt leaves the first half of the newest of the two pages that say where the tree of a bbolt file is: its other pages are
// written where nothing is, and their ends prove nothing.
func tearBolt(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	const header, txid, length = 16, 48, 64 // octets of the page's header, before the transaction's number, and of all
	pages := make([]byte, 2*4096)
	if _, err := f.ReadAt(pages, 0); err != nil {
		return err
	}
	at := 0
	if binary.NativeEndian.Uint64(pages[4096+header+txid:]) > binary.NativeEndian.Uint64(pages[header+txid:]) {
		at = 4096
	}
	_, err = f.WriteAt(make([]byte, length/2), int64(at+header+length/2))
	return err
}

// flip changes a byte at a place, in flips parts of all files one after the other. Pages of zeros are passed over.
func flip(dir string, place float64) error {
	type file struct {
		path string
		size int64
	}
	var files []file
	total := int64(0)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || strings.HasSuffix(path, "-shm") {
			return err
		}
		info, err := e.Info()
		if err == nil {
			files = append(files, file{path, info.Size()})
			total += info.Size()
		}
		return err
	})
	if err != nil {
		return err
	}
	at := int64(place / flips * float64(total))
	for _, f := range files {
		if at >= f.size {
			at -= f.size
			continue
		}
		data, err := os.ReadFile(f.path)
		if err != nil {
			return err
		}
		for int(at) < len(data) && data[at] == 0 {
			at++
		}
		if int(at) == len(data) {
			at = int64(len(bytes.TrimRight(data, "\x00"))) / 2
		}
		data[at] ^= 0x20
		return os.WriteFile(f.path, data, 0o600)
	}
	return fmt.Errorf("%s: there is nothing to change", dir)
}

// smallDisk is how much room there is on the disk that is filled.
const smallDisk = 256 << 20

// doFull is the task that mounts a small disk, and has other processes fill it.
func doFull(t task, r *result) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("%w: %w", errNoMounts, err)
	}
	if err := unix.Mount("tmpfs", t.Dir, "tmpfs", 0, fmt.Sprintf("size=%d", smallDisk)); err != nil {
		return fmt.Errorf("%w: %w", errNoMounts, err)
	}
	ctx, mount := context.Background(), t.Dir
	t.Dir = filepath.Join(t.Dir, "spool")
	t.Do, t.N, t.Patience = "stuff", 2*smallDisk/t.Size, 30*time.Second
	first, err := t.do(ctx)
	if err != nil {
		return err
	}
	all, n := first.acks, len(first.acks.accepted)
	r.Steps = append(r.Steps, fmt.Sprintf("full when %.0f %% of the disk is mail", 100*float64(n*t.Size)/smallDisk))
	ok, step := first.fares("settles and takes new mail at once")
	r.Steps = append(r.Steps, step)
	if !ok {
		t.Do, t.N, t.Patience = "resume", n, 12*time.Second
		again, err := t.do(ctx)
		if err != nil {
			return err
		}
		_, step = again.fares("settles and takes new mail")
		r.Steps = append(r.Steps, "after a restart: "+step)
		for seq := range again.acks.settling {
			all.settling[seq] = true
		}
	}
	if err := unix.Mount("", mount, "", unix.MS_REMOUNT, fmt.Sprintf("size=%d", 8*smallDisk)); err != nil {
		return err
	}
	t.Do, t.Patience = "list", patience
	left, err := t.do(ctx)
	if err != nil {
		return err
	}
	if ok, step := left.fares(""); !ok {
		r.Steps = append(r.Steps, "with more room it cannot be read: "+step)
		return nil
	}
	lost, _ := all.compare(&left.result)
	r.Steps = append(r.Steps, fmt.Sprintf("with more room %d are lost", lost))
	return nil
}

// fares tells whether a process did all that it was to, and what went wrong if not.
func (r *run) fares(well string) (ok bool, how string) {
	switch {
	case r.died != "" && r.said != "":
		return false, r.died + " (`" + firstLine(r.said) + "`)"
	case r.died != "":
		return false, r.died
	case r.Error != "":
		return false, r.Error
	}
	return true, well
}
