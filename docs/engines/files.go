package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// A fileStore is a folder with a file a message: its envelope, a line break, and the body.
type fileStore struct {
	dir    string
	syncfs bool // what comes is synced for all that wait, and not by each caller

	folder *os.File // new
	ends   *os.File
	size   int64 // of ends
}

// endsMost is how long the file of ends grows before it is begun anew.
const endsMost = 1 << 20

func openFiles(syncfs bool) func(string) (engine, error) {
	return func(dir string) (engine, error) {
		s, err := openFileStore(dir, syncfs)
		if err != nil {
			return nil, err
		}
		g := newGroup(s.commit)
		do := func(c change) error {
			if c.record == nil {
				if err := s.write(c); err != nil {
					return err
				}
			}
			return g.do(c)
		}
		return newKept(s, do, g.close)
	}
}

func openFileStore(dir string, syncfs bool) (*fileStore, error) {
	s := &fileStore{dir: dir, syncfs: syncfs}
	if err := os.RemoveAll(filepath.Join(dir, "tmp")); err != nil {
		return nil, err
	}
	for _, name := range []string{"tmp", "new"} {
		if err := makeDir(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	var err error
	if s.folder, err = os.Open(filepath.Join(dir, "new")); err != nil {
		return nil, err
	}
	if s.ends, err = os.OpenFile(filepath.Join(dir, "ends"), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
		s.folder.Close()
		return nil, err
	}
	return s, syncDir(dir)
}

// name of a message: a number that sorts like a text.
func (s *fileStore) path(folder string, seq uint64) string {
	return filepath.Join(s.dir, folder, fmt.Sprintf("%020d", seq))
}

// write makes the file of a message. It is called by many at once.
func (s *fileStore) write(c change) error {
	path := s.path("tmp", c.seq)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	data := make([]byte, 0, len(c.meta)+1+len(c.body))
	data = append(append(append(data, c.meta...), '\n'), c.body...)
	_, err = f.Write(data)
	if err == nil && !s.syncfs {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(path)
	}
	return err
}

// commit makes durable what comes and what ends: the records first, then the names.
func (s *fileStore) commit(changes []change) error {
	if err := s.keepRecords(changes); err != nil {
		return err
	}
	if s.syncfs {
		if err := unix.Syncfs(int(s.folder.Fd())); err != nil {
			return err
		}
	}
	for _, c := range changes {
		var err error
		if c.record == nil {
			err = os.Rename(s.path("tmp", c.seq), s.path("new", c.seq))
		} else {
			err = os.Remove(s.path("new", c.seq))
		}
		if err != nil {
			return err
		}
	}
	return s.folder.Sync()
}

func (s *fileStore) keepRecords(changes []change) error {
	var lines []byte
	for _, c := range changes {
		if c.record != nil {
			lines = fmt.Appendf(lines, "%d %s\n", c.seq, c.record)
		}
	}
	if len(lines) == 0 {
		return nil
	}
	if s.size += int64(len(lines)); s.size > endsMost {
		s.size = 0
		if err := s.ends.Truncate(0); err != nil {
			return err
		}
	}
	if _, err := s.ends.Write(lines); err != nil || s.syncfs {
		return err
	}
	return s.ends.Sync()
}

// names gives the numbers of all that waits, in order.
func (s *fileStore) names() ([]fs.DirEntry, error) { return os.ReadDir(filepath.Join(s.dir, "new")) }

// scan reads the whole folder at once: there is no reading a part of it in order.
func (s *fileStore) scan(after uint64, _ int) (entries []entry, err error) {
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	for _, e := range names {
		seq, err := strconv.ParseUint(e.Name(), 10, 64)
		if err != nil {
			return nil, err
		}
		if seq > after {
			entries = append(entries, entry{seq: seq})
		}
	}
	return entries, nil
}

func (s *fileStore) last() (uint64, error) {
	names, err := s.names()
	if err != nil || len(names) == 0 {
		return 0, err
	}
	return strconv.ParseUint(names[len(names)-1].Name(), 10, 64)
}

func (s *fileStore) read(seq uint64) (meta, body []byte, err error) {
	data, err := os.ReadFile(s.path("new", seq))
	if err != nil {
		return nil, nil, err
	}
	meta, body, ok := bytes.Cut(data, []byte{'\n'})
	if !ok {
		return nil, nil, fmt.Errorf("%s: half a message", s.path("new", seq))
	}
	return meta, body, nil
}

func (s *fileStore) close() error { return errors.Join(s.folder.Close(), s.ends.Close()) }
