package disk

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"path/filepath"

	"github.com/sortie-mail/sortie/queue"
)

func (q *Queue) largePath(id queue.ID) string { return filepath.Join(q.dir, "large", string(id)) }

// writeLarge makes a body that begins with start and goes on with rest durable in a file of its own, and returns its
// checksum. The record that makes it a message comes after.
func (q *Queue) writeLarge(id queue.ID, start []byte, rest io.Reader) (sum uint32, err error) {
	path := q.largePath(id)
	f, err := q.disk.create(path)
	if err != nil {
		return 0, full(fmt.Errorf("disk: %w", err))
	}
	hash := crc32.New(castagnoli)
	var read error
	_, err = io.MultiWriter(f, hash).Write(start)
	if err == nil {
		_, err = io.Copy(io.MultiWriter(f, hash), readErr{rest, &read})
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = q.largeNames.sync(func() error { return q.disk.syncDir(filepath.Dir(path)) })
	}
	if err != nil {
		q.disk.remove(path)
		if read != nil {
			return 0, read // the caller's own reader failed: its error, as it is
		}
		return 0, full(fmt.Errorf("disk: %w", err))
	}
	return hash.Sum32(), nil
}

// readErr remembers the error of a reader, to tell it from one of the writer.
type readErr struct {
	r   io.Reader
	err *error
}

func (r readErr) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && err != io.EOF {
		*r.err = err
	}
	return n, err
}

// openLarge opens a body in a file. Its checksum is compared before the end is told, so that a deliverer ends the
// session without the final dot where it is wrong.
func (q *Queue) openLarge(id queue.ID, sum uint32) (io.ReadCloser, error) {
	path := q.largePath(id)
	f, err := q.disk.open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &DamagedError{ID: id, Path: path}
	}
	if err != nil {
		return nil, fmt.Errorf("disk: body of %s: %w", id, err)
	}
	return &checkedFile{Reader: io.NewSectionReader(f, 0, math.MaxInt64), Closer: f, want: sum, damage: DamagedError{ID: id, Path: path}}, nil
}

type checkedFile struct {
	io.Reader
	io.Closer
	sum    uint32
	want   uint32
	damage DamagedError
}

func (c *checkedFile) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.sum = crc32.Update(c.sum, castagnoli, p[:n])
	if err == io.EOF && c.sum != c.want {
		err = &c.damage
	}
	return n, err
}

// removeLarge removes the file of a message that is gone or did not come to be.
func (q *Queue) removeLarge(id queue.ID) {
	if err := q.disk.remove(q.largePath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		q.logger.Warn("the body of a settled message could not be removed", "id", id, "error", err)
	}
}

// removeOrphans removes files of bodies whose message is gone or was never acknowledged. Where the log has damage, a file
// may be all that is left of its message, and is set aside with the damaged part.
func (q *Queue) removeOrphans(damaged bool) error {
	names, err := q.disk.list(filepath.Join(q.dir, "large"))
	if err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	for _, name := range names {
		id := queue.ID(name)
		at, _, ok := q.index.Place(id)
		switch {
		case ok && at.File:
		case damaged:
			err := q.disk.rename(q.largePath(id), filepath.Join(q.dir, damagedFolder, name))
			q.logger.Warn("a body without a message is set aside, because the log has damage", "id", id, "error", err)
		default:
			q.removeLarge(id)
		}
	}
	return nil
}
