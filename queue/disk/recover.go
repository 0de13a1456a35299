package disk

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/sortie-mail/sortie/queue"
)

// replay reads all segments, oldest first, into the index.
func (q *Queue) replay() error {
	names, err := filepath.Glob(filepath.Join(q.dir, "log", "*.log"))
	if err != nil {
		return err
	}
	slices.Sort(names)
	for i, name := range names {
		number, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(name), ".log"), 10, 64)
		if err != nil {
			return fmt.Errorf("disk: %s: not a segment of the log: move it out of the folder", name)
		}
		s, err := q.openSegment(name, number)
		if err != nil {
			return err
		}
		q.segments = append(q.segments, s)
		if err := q.replaySegment(s, i == len(names)-1); err != nil {
			return err
		}
	}
	return nil
}

func (q *Queue) openSegment(path string, number uint64) (*segment, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return nil, fmt.Errorf("disk: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("disk: %w", err)
	}
	return &segment{number: number, path: path, file: f, size: info.Size()}, nil
}

// replaySegment applies a segment's records. What is damaged is set aside.
func (q *Queue) replaySegment(s *segment, newest bool) error {
	r := &scanner{seg: s, mark: q.log.mark}
	r.seek(0)
	if line, err := r.in.ReadString('\n'); err == nil {
		q.readSegmentLine(line)
		r.off = int64(len(line))
	}
	for {
		start := r.off
		rec, err := r.next()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = q.apply(s, rec)
		}
		if err == nil {
			continue
		}
		var damage damageError
		if !errors.As(err, &damage) {
			return err
		}
		end := r.resync(start)
		if err := q.setAside(s, start, end, newest && end == s.size, damage); err != nil {
			return err
		}
		r.seek(end)
	}
}

// readSegmentLine learns the last ID that was given before the segment was begun, so that none is given twice.
func (q *Queue) readSegmentLine(line string) {
	if f := strings.Fields(line); len(f) == 4 && f[2] == q.log.mark {
		q.ids.Seen(queue.ID(f[3]))
	}
}

// damageError is what is wrong with a record.
type damageError string

func (e damageError) Error() string { return string(e) }

// read is a record as it was read.
type read struct {
	header
	text []byte
	data []byte
	at   int64 // where data starts in the segment
	size int64 // of the whole record
}

// A scanner reads the records of a segment.
type scanner struct {
	seg  *segment
	mark string
	off  int64
	in   *bufio.Reader
}

func (r *scanner) seek(off int64) {
	r.off = off
	r.in = bufio.NewReaderSize(io.NewSectionReader(r.seg.file, off, r.seg.size-off), 1<<20)
}

// next reads the record at off and moves behind it. It returns io.EOF at the end of the segment, and a damageError
// for what is no whole record.
func (r *scanner) next() (rec read, err error) {
	start := r.off
	line, err := r.in.ReadSlice('\n')
	if err == io.EOF && len(line) == 0 {
		return rec, io.EOF
	}
	if err != nil || len(line) > maxHeaderLine {
		return rec, damageError("no record starts here")
	}
	var ok bool
	if rec.header, ok = parseHeader(line, r.mark); !ok {
		return rec, damageError("no record starts here")
	}
	first := int64(len(line))
	rec.size = first + rec.meta + 1 + rec.body + 1
	if start+rec.size > r.seg.size {
		return rec, damageError("the record is cut off")
	}
	all := make([]byte, rec.size-first)
	if _, err := io.ReadFull(r.in, all); err != nil {
		return rec, fmt.Errorf("disk: %s: %w", r.seg.path, err)
	}
	rec.text, rec.data = all[:rec.meta], all[rec.meta+1:len(all)-1]
	rec.at = start + first + rec.meta + 1
	if crc32.Checksum(rec.text, castagnoli) != rec.metaSum {
		return rec, damageError("the checksum of the description is wrong")
	}
	if crc32.Checksum(rec.data, castagnoli) != rec.bodySum {
		return rec, damageError("the checksum of the body is wrong, its description is " + strconv.Quote(string(rec.text[:min(len(rec.text), 300)])))
	}
	r.off = start + rec.size
	return rec, nil
}

// resync finds the next record's start after a damaged one's, or the segment's end.
func (r *scanner) resync(start int64) int64 {
	pattern := []byte("\n=" + r.mark + " ")
	const window = 1 << 20
	buf := make([]byte, window+len(pattern))
	for off := start; off < r.seg.size; off += window {
		n, _ := r.seg.file.ReadAt(buf[:min(int64(len(buf)), r.seg.size-off)], off)
		if i := bytes.Index(buf[:n], pattern); i >= 0 {
			return off + int64(i) + 1
		}
	}
	return r.seg.size
}

// setAside copies a damaged region and reports it. At the end of the newest segment it is what a write left that was
// never acknowledged.
func (q *Queue) setAside(s *segment, start, end int64, tail bool, why damageError) error {
	name := filepath.Join(q.dir, "damaged", fmt.Sprintf("%010d-%d", s.number, start))
	if _, err := os.Stat(name); err == nil {
		return nil // it was reported at an earlier opening
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("disk: a damaged region cannot be set aside: %w", err)
	}
	_, err = io.Copy(f, io.NewSectionReader(s.file, start, end-start))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("disk: a damaged region cannot be set aside: %w", err)
	}
	level, text := slog.LevelError, "a damaged region of the spool is set aside; mail in it may be lost"
	if tail {
		level, text = slog.LevelWarn, "the spool ends in what is no whole record, which is set aside: after a crash it is a write that nobody was told of"
	}
	q.logger.Log(q.ctx, level, text, "segment", s.path, "from", start, "to", end, "problem", string(why), "copy", name)
	return nil
}

// apply brings a record into the index.
func (q *Queue) apply(s *segment, rec read) error {
	var err error
	switch rec.kind {
	case typeMail:
		err = q.applyMail(s, rec)
	case typeSettle:
		err = q.applySettle(s, rec)
	case typeChange:
		var c changeMeta
		if err = json.Unmarshal(rec.text, &c); err == nil {
			q.index.CommitChange(c.Op, c.Why, c.Entries, c.At)
		}
	case typeClock:
		var c clockMeta
		if err = json.Unmarshal(rec.text, &c); err == nil {
			q.index.Shift(c.Jump)
		}
	default:
		return damageError("records of type " + strconv.Quote(rec.kind) + " are unknown")
	}
	if err != nil {
		return damageError("the description cannot be read: " + err.Error())
	}
	return nil
}

func (q *Queue) applyMail(s *segment, rec read) error {
	var m mailMeta
	if err := json.Unmarshal(rec.text, &m); err != nil {
		return err
	}
	if old, ok := q.index.Get(m.ID); ok { // it was moved: the older place is dead
		p := old.Body.(place)
		p.seg.live.Add(-p.stored())
	}
	q.ids.Seen(m.ID)
	p := place{seg: s, off: rec.at, size: rec.body, file: m.File, sum: rec.bodySum}
	if m.File {
		p.sum = m.Sum
	}
	s.live.Add(p.stored())
	m.Body = p
	q.index.Add(m.Message)
	return nil
}

func (q *Queue) applySettle(s *segment, rec read) error {
	var m settleMeta
	if err := json.Unmarshal(rec.text, &m); err != nil {
		return err
	}
	end := int64(0)
	for _, r := range m.Reports {
		q.ids.Seen(r.ID)
		end += r.Size
	}
	if end != rec.body {
		return fmt.Errorf("its reports take %d octets, and there are %d", end, rec.body)
	}
	reports := placeReports(s, rec.at, m.Reports)
	settlement := queue.Settlement{
		Attempt: m.Attempt, Done: m.Done, Next: m.Next, Warned: m.Warned, Hold: m.Hold, Unreached: m.Unreached, Wake: m.Wake,
	}
	q.index.CommitSettle(m.Key, settlement, m.At, reports)
	return nil
}
