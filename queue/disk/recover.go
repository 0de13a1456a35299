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
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/memory"
)

// damagedFolder is where what cannot be read is set aside.
const damagedFolder = "damaged"

// replay reads all segments, oldest first, into the index. It reports whether some of what they held is lost.
func (q *Queue) replay() (damaged bool, err error) {
	if err := q.openSegments(); err != nil {
		return false, err
	}
	for i, s := range q.segments {
		newest := i == len(q.segments)-1
		if newest {
			// What the last life wrote and did not live to sync is acted upon from now on, and must not vanish later.
			if err := s.file.Sync(); err != nil {
				return false, fmt.Errorf("disk: %s: %w", s.path, err)
			}
		}
		lost, err := q.replaySegment(s, newest)
		if err != nil {
			return false, err
		}
		damaged = damaged || lost
	}
	return damaged, nil
}

// openSegments opens the log's files. They are removed oldest first, so that a number between two is never missing.
func (q *Queue) openSegments() error {
	names, err := q.disk.list(filepath.Join(q.dir, "log"))
	if err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	slices.Sort(names)
	for _, name := range names {
		path := filepath.Join(q.dir, "log", name)
		if filepath.Ext(name) == ".hint" {
			if !slices.Contains(names, strings.TrimSuffix(name, ".hint")+".log") {
				q.disk.remove(path) // its segment was given back
			}
			continue
		}
		number, err := strconv.ParseUint(strings.TrimSuffix(name, ".log"), 10, 64)
		if err != nil || segmentPath(q.dir, number) != path {
			return fmt.Errorf("disk: %s: not a segment of the log: move it out of the folder", path)
		}
		s, err := q.openSegment(path, number)
		if err != nil {
			return err
		}
		if n := len(q.segments); n > 0 && q.segments[n-1].number+1 != number {
			q.logger.Error("segments of the log are missing; mail in them is lost, and mail that they settled may go out again",
				"after", q.segments[n-1].path, "before", path)
		}
		q.segments = append(q.segments, s)
	}
	return nil
}

func (q *Queue) openSegment(path string, number uint64) (*segment, error) {
	f, err := q.disk.open(path)
	if err != nil {
		return nil, fmt.Errorf("disk: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("disk: %w", err)
	}
	if number > math.MaxUint32 || info.Size() > math.MaxUint32 {
		f.Close()
		return nil, fmt.Errorf("disk: %s: no segment has such a number or length: move it out of the folder", path)
	}
	return &segment{number: number, path: path, file: f, size: info.Size(), changed: info.ModTime()}, nil
}

// replaySegment applies a segment's records: from its hint, or from itself, which makes a new hint.
func (q *Queue) replaySegment(s *segment, newest bool) (damaged bool, err error) {
	first, err := q.readSegmentLine(s)
	if err != nil {
		return false, err
	}
	if ok, err := q.replayHint(s, first); ok || err != nil {
		return false, err
	}
	if damaged, err = q.readSegment(s, first, newest); err != nil {
		return damaged, err
	}
	s.unhinted = s.unhinted || damaged
	q.saveHint(s)
	return damaged, nil
}

// readSegment applies the records of a segment from the first one on. What is damaged is set aside.
func (q *Queue) readSegment(s *segment, first int64, newest bool) (damaged bool, err error) {
	r := &scanner{seg: s, mark: q.log.mark}
	r.seek(first)
	for {
		start := r.off
		rec, err := r.next()
		if err == io.EOF {
			return damaged, nil
		}
		if err == nil {
			err = q.apply(s, rec)
		}
		if err == nil {
			continue
		}
		var damage damageError
		if !errors.As(err, &damage) {
			return damaged, err
		}
		damaged = true
		end := r.resync(start)
		if err := q.setAside(s, start, end, newest && end == s.size, damage); err != nil {
			return damaged, err
		}
		r.seek(end)
	}
}

// readSegmentLine learns the last ID that was given before the segment was begun, so that none is given twice. It returns
// where the records start, which is 0 for a line that cannot be read.
func (q *Queue) readSegmentLine(s *segment) (length int64, err error) {
	text := make([]byte, min(s.size, 200))
	n, _ := s.file.ReadAt(text, 0) // what cannot be read is damage, which the scanner meets too
	line, _, ok := bytes.Cut(text[:n], []byte("\n"))
	f := strings.Fields(string(line))
	if !ok || len(f) < 3 || len(f) > 4 || f[0] != "sortie-log" {
		return 0, nil
	}
	if f[2] == q.log.mark {
		q.ids.Seen(queue.ID(strings.Join(f[3:], "")))
		return int64(len(line) + 1), nil
	}
	other := &scanner{seg: s, mark: f[2]}
	if isMark(f[2]) && other.resync(0) < s.size {
		return 0, fmt.Errorf("disk: %s is the log of a spool with the mark %s, and %s has the mark %s: move the file out of the folder, or restore the other",
			s.path, f[2], filepath.Join(q.dir, "format"), q.log.mark)
	}
	return 0, nil
}

// damageError is what is wrong with a record.
type damageError string

func (e damageError) Error() string { return string(e) }

// read is a record as it was read.
type read struct {
	header
	text  []byte
	data  []byte
	start int64 // where it starts in the segment
	at    int64 // where data does
	size  int64 // of the whole record
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
	left := r.seg.size - off
	r.in = bufio.NewReaderSize(io.NewSectionReader(r.seg.file, off, left), int(min(left, 1<<20)))
}

// next reads the record at off and moves behind it. It returns io.EOF at the end of the segment, and a damageError
// for what is no whole record.
func (r *scanner) next() (rec read, err error) {
	start := r.off
	rec.start = start
	line, err := r.in.ReadSlice('\n')
	if err == io.EOF && len(line) == 0 {
		return rec, io.EOF
	}
	if err != nil && err != io.EOF && err != bufio.ErrBufferFull {
		return rec, damageError("it cannot be read: " + err.Error())
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
		return rec, damageError("it cannot be read: " + err.Error())
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

// page is in what portions a disk fails to read.
const page = 4096

// resync finds the next record's start after a damaged one's, or the segment's end.
func (r *scanner) resync(start int64) int64 {
	pattern := []byte("=" + r.mark + " ")
	buf := make([]byte, min(r.seg.size-start, 1<<20))
	for off := start + 1; off < r.seg.size; {
		n, err := r.seg.file.ReadAt(buf[:min(int64(len(buf)), r.seg.size-off)], off)
		if i := bytes.Index(buf[:n], pattern); i >= 0 {
			return off + int64(i)
		}
		end := off + int64(n)
		switch {
		case end >= r.seg.size:
			return r.seg.size
		case err != nil && err != io.EOF: // a bad place on the disk
			off = (end/page + 1) * page
		default:
			off = end - int64(len(pattern)) + 1
		}
	}
	return r.seg.size
}

// setAside copies a damaged region and reports it. At the end of the newest segment it is what a write left that was
// never acknowledged.
func (q *Queue) setAside(s *segment, start, end int64, tail bool, why damageError) error {
	name := filepath.Join(q.dir, damagedFolder, fmt.Sprintf("%010d-%d", s.number, start))
	if f, err := q.disk.open(name); err == nil {
		f.Close()
		return nil // it was reported at an earlier opening
	}
	data := make([]byte, end-start)
	for off := int64(0); off < end-start; {
		n, err := s.file.ReadAt(data[off:], start+off)
		if off += int64(n); err != nil { // what cannot be read stays 0
			off = ((start+off)/page+1)*page - start
		}
	}
	err := makeFolder(q.disk, filepath.Dir(name))
	if err == nil {
		err = writeDurable(q.disk, name, data)
	}
	if err != nil {
		return fmt.Errorf("disk: a damaged region of %s cannot be set aside: %w", s.path, full(err))
	}
	level, text := slog.LevelError, "a damaged region of the spool is set aside; mail in it may be lost"
	if tail {
		level, text = slog.LevelWarn, "the spool ends in what is no whole record, which is set aside: after a crash it is a write that nobody was told of"
	}
	q.logger.Log(q.ctx, level, text, "segment", s.path, "from", start, "to", end, "problem", string(why), "copy", name)
	return nil
}

// apply brings a record into the index, and into the hint of its segment.
func (q *Queue) apply(s *segment, rec read) error {
	var hint []byte
	var err error
	switch rec.kind {
	case typeMail:
		hint, err = q.applyMail(s, rec)
	case typeSettle:
		hint, err = q.applySettle(s, rec)
	default:
		hint, err = hintOf(rec.kind, nil, rec.text), q.applyOther(rec.kind, rec.text, s)
	}
	var unknown damageError
	if err != nil && !errors.As(err, &unknown) {
		return damageError("the description cannot be read: " + err.Error())
	}
	s.hint = appendHint(s.hint, rec.size, rec.at-rec.start, hint)
	return err
}

// applyOther brings a record into the index that a hint has as it is.
func (q *Queue) applyOther(kind string, text []byte, s *segment) error {
	switch kind {
	case typeChange:
		var c changeMeta
		if err := json.Unmarshal(text, &c); err != nil {
			return err
		}
		q.index.Apply(c.Op, c.Why, c.Entries, c.At)
	case typeClock:
		var c clockMeta
		if err := json.Unmarshal(text, &c); err != nil {
			return err
		}
		q.index.Shift(c.Jump)
		q.notes.Shift(c.Jump)
	case typeNotes:
		var n notesMeta
		if err := json.Unmarshal(text, &n); err != nil {
			return err
		}
		q.keepNotes(s, n.Notes)
	default:
		return damageError("records of type " + strconv.Quote(kind) + " are unknown")
	}
	return nil
}

func (q *Queue) applyMail(s *segment, rec read) (hint []byte, err error) {
	var m mailMeta
	if err := json.Unmarshal(rec.text, &m); err != nil {
		return nil, err
	}
	if m.Sum == 0 && !m.File {
		m.Sum = rec.bodySum
	}
	if !m.File && rec.body != m.Size {
		return nil, fmt.Errorf("its body has %d octets, and not %d", rec.body, m.Size)
	}
	hint = hintOf(typeMail, &m, nil)
	m.sender = memory.SenderOf(m.Envelope.From)
	return hint, q.addMail(&m, spot{s, rec.start, rec.at})
}

// addMail brings a message into the index.
func (q *Queue) addMail(m *mailMeta, at spot) error {
	m.Split()
	if err := m.check(); err != nil {
		return err
	}
	if old, size, ok := q.index.Place(m.ID); ok { // it was moved: the older place is dead
		q.segment(old.Segment).live.Add(-stored(old, size))
		q.pins.drop(m.ID, "")
	}
	q.ids.Seen(m.ID)
	at.seg.live.Add(m.stored())
	q.keepNotes(at.seg, memory.KeyOf(&m.Message))
	q.index.Add(m.bare(at.place(m)))
	return nil
}

// check tells what a message has that the index cannot take.
func (m *mailMeta) check() error {
	switch {
	case !memory.IsID(m.ID):
		return fmt.Errorf("%q is no ID", m.ID)
	case len(m.Entries) == 0:
		return fmt.Errorf("it has no entries")
	case m.Size < 0 || m.Envelope.Priority < -queue.MaxPriority || m.Envelope.Priority > queue.MaxPriority:
		return fmt.Errorf("its size or priority is out of range")
	}
	return nil
}

// bare is the message for the index, without words: nobody may want them soon.
func (m *mailMeta) bare(at memory.Place) memory.Placed {
	return memory.Placed{Message: &m.Message, Place: at, Bare: true, Sender: m.sender}
}

func (q *Queue) applySettle(s *segment, rec read) (hint []byte, err error) {
	var m settleMeta
	if err := json.Unmarshal(rec.text, &m); err != nil {
		return nil, err
	}
	hint = hintOf(typeSettle, &m, nil)
	at := spot{s, rec.start, rec.at}
	for i := range m.Reports {
		m.Reports[i].sender = memory.SenderOf(m.Reports[i].Envelope.From)
	}
	if m.Left == nil {
		s.unhinted = true
		q.settleOld(&m, at)
	}
	return hint, q.addSettlement(&m, at, rec.body)
}

// addSettlement brings an outcome into the index, whose record has a body of so many octets.
func (q *Queue) addSettlement(m *settleMeta, at spot, body int64) error {
	end := int64(0)
	for i := range m.Reports {
		r := &m.Reports[i]
		r.Split()
		if err := r.check(); err != nil {
			return err
		}
		q.ids.Seen(r.ID)
		end += r.Size
	}
	if end != body {
		return fmt.Errorf("its reports take %d octets, and there are %d", end, body)
	}
	reports := placeReports(at, m.Reports)
	for i := range reports {
		reports[i] = m.Reports[i].bare(reports[i].Place)
	}
	at.seg.live.Add(storedReports(m.Reports))
	q.keepNotes(at.seg, m.Notes)
	q.index.Settled(m.Key, m.outcome(&queue.Settlement{
		Attempt: m.Attempt, Next: m.Next, Hold: m.Hold, Unreached: m.Unreached, Wake: m.Wake, WakeLanes: m.WakeLanes,
	}, at), m.At, reports...)
	return nil
}

// settleOld works out what a settlement has left that does not tell, and keeps the words of the entry, which it would take all
// settlements before it to know.
func (q *Queue) settleOld(m *settleMeta, at spot) {
	left := 0
	m.Left = &left
	place, _, ok := q.index.Place(m.ID)
	if !ok {
		return // its message was in a segment that was given back
	}
	e, ok := q.pins.last(m.Key)
	if !ok {
		words, err := words{q}.Message(m.ID, place)
		if err != nil {
			left = 1 // it stays, and is held when it is read
			return
		}
		first := words.Entry(m.Lane)
		if first == nil {
			return
		}
		e = *first
	}
	e.Settle(m.Done, m.Warned, m.Attempt)
	if left = len(e.To); left > 0 {
		q.pins.put(m.Key, e, at.mark())
	} else {
		q.pins.drop(m.ID, m.Lane)
	}
}
