package disk

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/sortie-mail/sortie/queue"
)

// formatVersion is the version of the layout that the package comment describes. Format 2 is the same without notes and keys, and
// format 1 without what envelopes ask for since: a version that knows no other would send the mail without it, and shall not open a
// spool that may hold such.
const formatVersion = 3

// readFormat reads the spool's format and mark, and writes them where the spool is new.
func readFormat(s storage, dir string) (version int, mark string, err error) {
	path := filepath.Join(dir, "format")
	text, err := readWhole(s, path, 1000)
	if errors.Is(err, fs.ErrNotExist) {
		mark, err := writeFormat(s, dir, path)
		return formatVersion, mark, err
	}
	if err != nil {
		return 0, "", fmt.Errorf("disk: %w", err)
	}
	_, err = fmt.Sscanf(string(text), "sortie disk queue, format %d\n%s\n", &version, &mark)
	switch {
	case version > formatVersion:
		return 0, "", newerError(dir, version)
	case err != nil || version < 1 || !isMark(mark):
		return 0, "", fmt.Errorf("disk: %s is not what Sortie wrote there: restore it from a backup, or from the first line of a file in %s",
			path, filepath.Join(dir, "log"))
	}
	return version, mark, nil
}

// saveFormat writes the format file, of a new spool or over that of an older format.
func saveFormat(s storage, dir, mark string) error {
	if err := writeDurable(s, filepath.Join(dir, "format"), fmt.Appendf(nil, "sortie disk queue, format %d\n%s\n", formatVersion, mark)); err != nil {
		return fmt.Errorf("disk: the spool %s cannot be written: %w", dir, full(err))
	}
	return nil
}

func isMark(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 8 && s == strings.ToLower(s)
}

func newerError(dir string, version int) error {
	return fmt.Errorf("disk: the spool %s has format %d, and this version of Sortie knows formats up to %d: run the version that wrote it, let it empty the spool, or upgrade",
		dir, version, formatVersion)
}

func writeFormat(s storage, dir, path string) (mark string, err error) {
	logs, err := s.list(filepath.Join(dir, "log"))
	if err != nil || len(logs) > 0 {
		return "", errors.Join(err, fmt.Errorf("disk: %s is missing beside a log: restore it, its second line is the third word of the first line of %s",
			path, filepath.Join(dir, "log", "*.log")))
	}
	var random [8]byte
	rand.Read(random[:])
	mark = hex.EncodeToString(random[:])
	if err = s.syncDir(filepath.Dir(dir)); err != nil { // also where an earlier life made the folder and ended
		return "", fmt.Errorf("disk: the spool %s cannot be written: %w", dir, full(err))
	}
	return mark, saveFormat(s, dir, mark)
}

// A LockedError tells that another process has the spool open.
type LockedError struct {
	Dir    string
	Holder string // what that process wrote about itself: "process 4711 (relayd) on mail.example.org, since 2026-11-24 12:00:00"
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("disk: the spool %s is in use by %s: stop that process, or give this one another spool", e.Dir, cmp.Or(e.Holder, "another process"))
}

// checkRoom refuses new mail while there is still room for what follows from the mail that is there.
func (q *Queue) checkRoom() error {
	if q.opts.MinFree < 0 {
		return nil
	}
	free, err := q.disk.free(q.dir)
	if err == nil && free < q.opts.MinFree {
		return fmt.Errorf("%w: the disk of %s has %d octets free, and %d are kept for settling what is there", queue.ErrFull, q.dir, free, q.opts.MinFree)
	}
	return nil
}
