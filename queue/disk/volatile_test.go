package disk

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// errCut is what every call gets after a power cut.
var errCut = errors.New("the power is off")

// volatile is a disk that keeps over a power cut what POSIX promises, and not more: the bytes of a file as of its last
// fsync, and the names in a folder as of its last fsync. Of what came after, any part may be there: of a file, an
// arbitrary beginning with rubbish at its end; of names, any of those made, renamed and removed.
type volatile struct {
	mu      sync.Mutex
	rng     *rand.Rand
	root    string
	left    int // calls until the power is cut; negative is never
	now     map[string]*inode
	durable map[string]*inode
	pending []change // since the fsync of their folders, in order
}

type inode struct {
	folder bool
	data   []byte
	synced []byte
}

// A change sets what names lead to; nil is a removal.
type change map[string]*inode

func newVolatile(rng *rand.Rand, root string) *volatile {
	names := map[string]*inode{root: {folder: true}}
	return &volatile{rng: rng, root: root, left: -1, now: names, durable: map[string]*inode{root: names[root]}}
}

// step counts a call. After the cut, all fail; the one at which it happens may have its effect and not live to tell.
func (v *volatile) step(effect func() error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.left == 0 {
		return errCut
	}
	if v.left > 0 {
		v.left--
		if v.left == 0 {
			if v.rng.IntN(2) == 0 {
				effect()
			}
			return errCut
		}
	}
	return effect()
}

func (v *volatile) change(c change) {
	for path, n := range c {
		if n == nil {
			delete(v.now, path)
		} else {
			v.now[path] = n
		}
	}
	v.pending = append(v.pending, c)
}

func (v *volatile) apply(c change) {
	for path, n := range c {
		if n == nil {
			delete(v.durable, path)
		} else {
			v.durable[path] = n
		}
	}
}

func (v *volatile) mkdir(dir string) error {
	return v.step(func() error {
		if v.now[dir] != nil {
			return fs.ErrExist
		}
		if up := v.now[filepath.Dir(dir)]; up == nil || !up.folder {
			return fs.ErrNotExist
		}
		v.change(change{dir: {folder: true}})
		return nil
	})
}

func (v *volatile) list(dir string) (names []string, err error) {
	err = v.step(func() error {
		for path := range v.now {
			if filepath.Dir(path) == dir {
				names = append(names, filepath.Base(path))
			}
		}
		return nil
	})
	return names, err
}

func (v *volatile) create(path string) (f file, err error) {
	err = v.step(func() error {
		if v.now[path] != nil {
			return fs.ErrExist
		}
		if v.now[filepath.Dir(path)] == nil {
			return fs.ErrNotExist
		}
		n := &inode{}
		v.change(change{path: n})
		f = &volatileFile{v, n}
		return nil
	})
	return f, err
}

func (v *volatile) open(path string) (f file, err error) {
	err = v.step(func() error {
		n := v.now[path]
		if n == nil {
			return fs.ErrNotExist
		}
		f = &volatileFile{v, n}
		return nil
	})
	return f, err
}

func (v *volatile) remove(path string) error {
	return v.step(func() error {
		if v.now[path] == nil {
			return fs.ErrNotExist
		}
		v.change(change{path: nil})
		return nil
	})
}

func (v *volatile) rename(from, to string) error {
	return v.step(func() error {
		n := v.now[from]
		if n == nil {
			return fs.ErrNotExist
		}
		v.change(change{from: nil, to: n})
		return nil
	})
}

func (v *volatile) syncDir(dir string) error {
	return v.step(func() error {
		v.pending = slices.DeleteFunc(v.pending, func(c change) bool {
			for path := range c {
				if filepath.Dir(path) == dir {
					v.apply(c)
					return true
				}
			}
			return false
		})
		return nil
	})
}

func (v *volatile) free(string) (int64, error) { return 1 << 40, nil }

// cut gives the disk as it may be after the power is back.
func (v *volatile) cut() *volatile {
	v.mu.Lock()
	defer v.mu.Unlock()
	lost := map[string]bool{}
	for _, c := range v.pending {
		drop := v.rng.IntN(2) == 0
		for path := range c {
			drop = drop || lost[path] // what came after on the same name is lost with it
		}
		if !drop {
			v.apply(c)
			continue
		}
		for path := range c {
			lost[path] = true
		}
	}
	after := &volatile{rng: v.rng, root: v.root, left: -1, now: map[string]*inode{}, durable: map[string]*inode{}}
	for path, n := range v.durable {
		if v.reachable(path) {
			data := v.survives(n)
			n = &inode{folder: n.folder, data: data, synced: bytes.Clone(data)}
			after.now[path], after.durable[path] = n, n
		}
	}
	return after
}

func (v *volatile) reachable(path string) bool {
	return path == v.root || v.durable[path] != nil && v.reachable(filepath.Dir(path))
}

// kill gives the disk as the next process finds it where only the last one ended: nothing is lost, and what was not
// synced is not synced yet.
func (v *volatile) kill() *volatile {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.left = -1
	return v
}

// survives gives what is left of a file: what was synced, and a part of what was written since.
func (v *volatile) survives(n *inode) []byte {
	if !bytes.HasPrefix(n.data, n.synced) { // cut short since
		return [][]byte{bytes.Clone(n.data), bytes.Clone(n.synced)}[v.rng.IntN(2)]
	}
	data := bytes.Clone(n.data[:len(n.synced)+v.rng.IntN(len(n.data)-len(n.synced)+1)])
	if rubbish := len(data) - len(n.synced); rubbish > 0 && v.rng.IntN(2) == 0 {
		clear(data[len(data)-v.rng.IntN(rubbish+1):])
	}
	return data
}

type volatileFile struct {
	v *volatile
	n *inode
}

func (f *volatileFile) Write(p []byte) (n int, err error) {
	err = f.v.step(func() error {
		f.n.data = append(f.n.data, p...)
		return nil
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (f *volatileFile) ReadAt(p []byte, off int64) (n int, err error) {
	err = f.v.step(func() error {
		if off >= int64(len(f.n.data)) {
			return io.EOF
		}
		if n = copy(p, f.n.data[off:]); n < len(p) {
			return io.EOF
		}
		return nil
	})
	return n, err
}

func (f *volatileFile) Sync() error {
	return f.v.step(func() error {
		f.n.synced = bytes.Clone(f.n.data)
		return nil
	})
}

func (f *volatileFile) Truncate(size int64) error {
	return f.v.step(func() error {
		f.n.data = f.n.data[:size:size]
		return nil
	})
}

func (f *volatileFile) Stat() (fs.FileInfo, error) {
	f.v.mu.Lock()
	defer f.v.mu.Unlock()
	return volatileInfo{size: int64(len(f.n.data))}, nil
}

func (f *volatileFile) Close() error { return nil }

type volatileInfo struct{ size int64 }

func (i volatileInfo) Name() string       { return "" }
func (i volatileInfo) Size() int64        { return i.size }
func (i volatileInfo) Mode() fs.FileMode  { return 0o600 }
func (i volatileInfo) ModTime() time.Time { return time.Time{} }
func (i volatileInfo) IsDir() bool        { return false }
func (i volatileInfo) Sys() any           { return nil }
