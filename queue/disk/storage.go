package disk

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// storage is what a spool asks of the file system. Tests put one in its place that fails, or that loses in a power cut what
// was not synced. Only the lock, which is of this life of the machine alone, goes past it.
type storage interface {
	mkdir(dir string) error // one level
	list(dir string) (names []string, err error)
	create(path string) (file, error) // for appending; the name must be new
	open(path string) (file, error)   // for reading
	remove(path string) error
	rename(from, to string) error
	syncDir(dir string) error // makes the names in a folder durable
	free(dir string) (int64, error)
}

// file is what it asks of an *os.File.
type file interface {
	io.Writer
	io.ReaderAt
	io.Closer
	Sync() error
	Truncate(int64) error
	Stat() (fs.FileInfo, error)
}

// osStorage is the file system of the machine. What it makes is for the spool's own user alone.
type osStorage struct{}

func (osStorage) mkdir(dir string) error         { return os.Mkdir(dir, 0o700) }
func (osStorage) remove(path string) error       { return os.Remove(path) }
func (osStorage) rename(from, to string) error   { return os.Rename(from, to) }
func (osStorage) free(dir string) (int64, error) { return freeBytes(dir) }

func (osStorage) create(path string) (file, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
}

func (osStorage) open(path string) (file, error) { return os.Open(path) }

func (osStorage) list(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

func (osStorage) syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// makeFolder makes a folder and its parents where they are missing, each durable by its name in the one above.
func makeFolder(s storage, dir string) error {
	err := s.mkdir(dir)
	if errors.Is(err, fs.ErrNotExist) && filepath.Dir(dir) != dir {
		if err := makeFolder(s, filepath.Dir(dir)); err != nil {
			return err
		}
		err = s.mkdir(dir)
	}
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return err
	}
	return s.syncDir(filepath.Dir(dir))
}

// writeDurable makes a small file with its name.
func writeDurable(s storage, path string, text []byte) error {
	s.remove(path + ".new") // of a life that ended too soon
	f, err := s.create(path + ".new")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = s.rename(path+".new", path)
	}
	if err != nil {
		return err
	}
	return s.syncDir(filepath.Dir(path))
}

// readWhole reads a file of at most max octets.
func readWhole(s storage, path string, max int64) ([]byte, error) {
	f, err := s.open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.NewSectionReader(f, 0, max))
}
