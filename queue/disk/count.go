package disk

import "sync/atomic"

// IO counts what a queue has asked of the disk since it was opened.
type IO struct {
	Writes int64 // calls that wrote something
	Octets int64 // what they wrote
	Syncs  int64 // fsync of a file or a folder
}

// IO tells what the queue has written and synced, its opening included. It may be called at any time, also after Close.
func (q *Queue) IO() IO {
	return IO{Writes: q.io.writes.Load(), Octets: q.io.octets.Load(), Syncs: q.io.syncs.Load()}
}

type ioCounter struct{ writes, octets, syncs atomic.Int64 }

// counted is a storage that counts.
type counted struct {
	storage
	n *ioCounter
}

func (s counted) create(path string) (file, error) { return s.count(s.storage.create(path)) }
func (s counted) open(path string) (file, error)   { return s.count(s.storage.open(path)) }

func (s counted) syncDir(dir string) error {
	s.n.syncs.Add(1)
	return s.storage.syncDir(dir)
}

func (s counted) count(f file, err error) (file, error) {
	if err != nil {
		return nil, err
	}
	return countedFile{f, s.n}, nil
}

type countedFile struct {
	file
	n *ioCounter
}

func (f countedFile) Write(p []byte) (int, error) {
	f.n.writes.Add(1)
	n, err := f.file.Write(p)
	f.n.octets.Add(int64(n))
	return n, err
}

func (f countedFile) Sync() error {
	f.n.syncs.Add(1)
	return f.file.Sync()
}
