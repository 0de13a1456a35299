package disk

import (
	"bytes"
	"cmp"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/memory"
)

// A segment is one file of the log.
type segment struct {
	number uint64
	path   string
	file   file
	size   int64        // octets written; grows only while it is the newest, by the writer
	hint   []byte       // of what was written so far; of the writer alone until the next segment is begun
	live   atomic.Int64 // the sum of stored of the messages that are alive, counted before anybody is told of them

	changed  time.Time // of the file, when it was opened
	unhinted bool      // it cannot have a hint: it is damaged, or has records that say too little
}

func segmentPath(dir string, number uint64) string {
	return filepath.Join(dir, "log", fmt.Sprintf("%010d.log", number))
}

// segment gives the segment of a number, nil where it is not there any more.
func (q *Queue) segment(number uint32) *segment {
	q.segMu.Lock()
	defer q.segMu.Unlock()
	i, ok := slices.BinarySearchFunc(q.segments, uint64(number), func(s *segment, n uint64) int { return cmp.Compare(s.number, n) })
	if !ok {
		return nil
	}
	return q.segments[i]
}

// recordOverhead is about what a record takes beside its body. It need not be exact: it decides when a
// segment is cleaned, and must only not be 0 while the record is needed.
const recordOverhead = 512

// stored is about how much of its segment a message takes.
func stored(at memory.Place, size int64) int64 {
	if at.File {
		return recordOverhead
	}
	return size + recordOverhead
}

// open gives the bytes at a place, and never wrong ones: a checksum that does not match is an error before they end.
func (q *Queue) open(id queue.ID, at memory.Place, size int64) (io.ReadCloser, error) {
	if at.File {
		return q.openLarge(id, at.Sum)
	}
	s := q.segment(at.Segment)
	if s == nil {
		return nil, fmt.Errorf("disk: body of %s: segment %d of the log is gone: %w", id, at.Segment, fs.ErrNotExist)
	}
	data := make([]byte, size)
	if _, err := s.file.ReadAt(data, int64(at.Body)); err != nil && err != io.EOF {
		return nil, fmt.Errorf("disk: body of %s: %w", id, err)
	}
	if crc32.Checksum(data, castagnoli) != at.Sum {
		return nil, &DamagedError{ID: id, Path: s.path}
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// A DamagedError tells that the bytes of a message have changed on disk.
type DamagedError struct {
	ID   queue.ID
	Path string // the file they are in
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("disk: body of %s: %s has changed on disk or is missing: restore it from a backup, or delete the message", e.ID, e.Path)
}
