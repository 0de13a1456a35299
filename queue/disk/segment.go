package disk

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"
	"sync/atomic"

	"github.com/sortie-mail/sortie/queue"
)

// A segment is one file of the log.
type segment struct {
	number uint64
	path   string
	file   file
	size   int64        // octets written; grows only while it is the newest, by the writer
	live   atomic.Int64 // the sum of stored of the messages that are alive, counted before anybody is told of them
}

func segmentPath(dir string, number uint64) string {
	return filepath.Join(dir, "log", fmt.Sprintf("%010d.log", number))
}

// A place is where a message's bytes are.
type place struct {
	seg  *segment // of the record; also for large bodies, whose record is there
	off  int64
	size int64  // in the log
	file bool   // the body is in large/
	sum  uint32 // CRC-32C of the body
}

// recordOverhead is about what a record takes beside its body. It need not be exact: it decides when a
// segment is cleaned, and must only not be 0 while the record is needed.
const recordOverhead = 512

// stored is about how much of its segment a message takes.
func (p place) stored() int64 { return p.size + recordOverhead }

// open gives the bytes at a place, and never wrong ones: a checksum that does not match is an error before they end.
func (q *Queue) open(id queue.ID, p place) (io.ReadCloser, error) {
	if p.file {
		return q.openLarge(id, p.sum)
	}
	data := make([]byte, p.size)
	if _, err := p.seg.file.ReadAt(data, p.off); err != nil && err != io.EOF {
		return nil, fmt.Errorf("disk: body of %s: %w", id, err)
	}
	if crc32.Checksum(data, castagnoli) != p.sum {
		return nil, &DamagedError{ID: id, Path: p.seg.path}
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
