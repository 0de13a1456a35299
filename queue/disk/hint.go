package disk

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"strings"
	"time"

	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/memory"
)

// A hint is what an opening needs of a segment's records, without bodies and words, in a file beside it. A segment says all of
// it too: a hint that is missing or not whole costs time and nothing else, and so none is synced.

// hintVersion changes with what hints hold; those of another version are not used.
const hintVersion = 1

// hintMax is how long a hint grows before a new segment is begun: the one of the newest is in memory.
const hintMax = 4 << 20

// hintLongest is how long a hint is at most that is written or read: as long as it may grow with its last write.
const hintLongest = 64 << 20

// hintFirst is the first line of a hint: the mark of the spool, the number and length of its segment, and the length and CRC-32C
// of what follows.
const hintFirst = "sortie-hint %d %s %d %d %d %x\n"

func hintPath(segment string) string { return strings.TrimSuffix(segment, ".log") + ".hint" }

// Of which kinds the records of a hint are.
const (
	hintMail   = 'm'
	hintSettle = 's'
	hintOther  = 'o' // its type, a line break, and its description, which is short
)

// appendHint adds a record to the hint of its segment: how long it is, where its body starts, and what hintOf gives.
func appendHint(hint []byte, size, body int64, of []byte) []byte {
	hint = append(hint, of[0])
	hint = binary.AppendUvarint(hint, uint64(size))
	hint = binary.AppendUvarint(hint, uint64(body))
	hint = binary.AppendUvarint(hint, uint64(len(of)-1))
	return append(hint, of[1:]...)
}

// hintOf is what a hint has of a record.
func hintOf(kind string, meta any, text []byte) []byte {
	switch m := meta.(type) {
	case *mailMeta:
		return hintOfMail(append(make([]byte, 0, 100), hintMail), m)
	case *settleMeta:
		if m.Left != nil {
			return hintOfSettlement(append(make([]byte, 0, 100), hintSettle), m)
		}
	}
	return append([]byte{hintOther}, kind+"\n"+string(text)...)
}

// Of the flags of hints.
const (
	hintFile  uint64 = 1 << iota // of a message: its body is in a file
	hintKey                      // it has one
	hintLanes                    // its entries are new: their lanes say all

	hintHeld      // of an entry
	hintUnreached // see [memory.Entry]; of a settlement, too
	hintFail

	hintCounts // of a settlement: the attempt counts
	hintWhole  // its record has all words of the entry
	hintWake
	hintNotes
)

func flag(flag uint64, on bool) uint64 {
	if on {
		return flag
	}
	return 0
}

func hintOfMail(b []byte, m *mailMeta) []byte {
	entries := m.Entries
	flags := flag(hintFile, m.File) | flag(hintKey, m.Envelope.Key != "") | flag(hintLanes, entries == nil)
	b = binary.AppendUvarint(b, flags)
	b = appendText(b, string(m.ID))
	b = appendTime(b, m.Accepted)
	b = binary.AppendUvarint(b, uint64(m.Size))
	b = binary.AppendUvarint(b, uint64(m.Hops))
	b = binary.AppendVarint(b, int64(m.Envelope.Priority))
	b = binary.LittleEndian.AppendUint32(b, m.Sum)
	b = binary.LittleEndian.AppendUint32(b, memory.SenderOf(m.Envelope.From))
	if m.Envelope.Key != "" {
		b = appendText(b, m.Envelope.Key)
	}
	if entries == nil {
		return appendLanes(b, &m.Envelope)
	}
	b = binary.AppendUvarint(b, uint64(len(entries)))
	for i := range entries {
		b = hintOfEntry(b, &entries[i])
	}
	return b
}

// appendLanes adds the lanes of an envelope.
func appendLanes(b []byte, env *queue.Envelope) []byte {
	if len(env.To) == 1 {
		return appendText(append(b, 1), queue.LaneOf(env.To[0].Address))
	}
	lanes, _ := env.Lanes()
	b = binary.AppendUvarint(b, uint64(len(lanes)))
	for _, lane := range lanes {
		b = appendText(b, lane)
	}
	return b
}

func hintOfEntry(b []byte, e *memory.Entry) []byte {
	flags, why := flag(hintHeld, e.Held)|flag(hintUnreached, e.Unreached)|flag(hintFail, e.Fail != ""), e.Why
	if e.Fail != "" {
		why = e.Fail
	}
	b = binary.AppendUvarint(b, flags)
	b = appendText(b, e.Lane)
	b = appendTime(b, e.Due)
	b = binary.AppendUvarint(b, uint64(e.Wait))
	b = binary.AppendUvarint(b, uint64(e.Attempts))
	return appendText(b, why)
}

func hintOfSettlement(b []byte, m *settleMeta) []byte {
	flags := flag(hintCounts, !m.Attempt.Time.IsZero()) | flag(hintWhole, m.State != nil) | flag(hintUnreached, m.Unreached) |
		flag(hintWake, m.Wake) | flag(hintNotes, len(m.Notes) > 0)
	b = binary.AppendUvarint(b, flags)
	b = appendText(b, string(m.ID))
	b = appendText(b, m.Lane)
	b = appendTime(b, m.At)
	b = appendTime(b, m.Next)
	b = binary.AppendUvarint(b, uint64(*m.Left))
	b = appendText(b, m.Hold)
	b = binary.AppendUvarint(b, uint64(len(m.WakeLanes)))
	for _, lane := range m.WakeLanes {
		b = appendText(b, lane)
	}
	b = binary.AppendUvarint(b, uint64(len(m.Reports)))
	for i := range m.Reports {
		b = hintOfMail(b, &m.Reports[i])
	}
	if len(m.Notes) > 0 {
		text, err := json.Marshal(m.Notes)
		if err != nil {
			text = nil // the hint will not be read, and its segment will
		}
		b = appendText(b, string(text))
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// noTime stands for the zero time.
const noTime = math.MinInt64

func appendTime(b []byte, t time.Time) []byte {
	n := int64(noTime)
	if !t.IsZero() {
		n = t.UnixNano()
	}
	return binary.LittleEndian.AppendUint64(b, uint64(n))
}

// A hintReader reads what a hint has. After the first thing that is not there, all is zero, and bad is set.
type hintReader struct {
	rest string
	bad  bool
	mail mailMeta // used again and again: nobody keeps anything of it
}

func (r *hintReader) fail() { r.rest, r.bad = "", true }

func (r *hintReader) uvarint() (n uint64) {
	for shift := 0; shift < 64; shift += 7 {
		if r.rest == "" {
			break
		}
		c := r.rest[0]
		r.rest = r.rest[1:]
		if n |= uint64(c&0x7f) << shift; c < 0x80 {
			return n
		}
	}
	r.fail()
	return 0
}

// length reads a number of things of which each takes an octet at least.
func (r *hintReader) length() int {
	n := r.uvarint()
	if n > uint64(len(r.rest)) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *hintReader) take(n int) string {
	if n > len(r.rest) {
		r.fail()
		return ""
	}
	s := r.rest[:n]
	r.rest = r.rest[n:]
	return s
}

func (r *hintReader) text() string { return r.take(r.length()) }

func (r *hintReader) fixed(n int) (v uint64) {
	s := r.take(n)
	for i := len(s) - 1; i >= 0; i-- {
		v = v<<8 | uint64(s[i])
	}
	return v
}

func (r *hintReader) time() time.Time {
	n := int64(r.fixed(8))
	if n == noTime {
		return time.Time{}
	}
	return time.Unix(0, n)
}

func (r *hintReader) varint() int64 {
	n := r.uvarint()
	return int64(n>>1) ^ -int64(n&1)
}

// message reads a message into m.
func (r *hintReader) message(m *mailMeta) {
	entries := m.Entries[:0]
	*m = mailMeta{}
	flags := r.uvarint()
	m.File = flags&hintFile != 0
	m.ID = queue.ID(r.text())
	m.Accepted = r.time()
	m.Size = int64(r.uvarint())
	m.Hops = int(r.uvarint())
	m.Envelope.Priority = int(r.varint())
	m.Sum = uint32(r.fixed(4))
	m.sender = uint32(r.fixed(4))
	if flags&hintKey != 0 {
		m.ID, m.Envelope.Key = queue.ID(strings.Clone(string(m.ID))), strings.Clone(r.text()) // they are kept
	}
	for range r.length() {
		if r.bad {
			break
		}
		if flags&hintLanes != 0 {
			entries = append(entries, memory.Entry{Lane: r.text(), Due: m.Accepted})
		} else {
			entries = append(entries, r.entry())
		}
	}
	m.Entries = entries
}

func (r *hintReader) entry() (e memory.Entry) {
	flags := r.uvarint()
	e.Lane = r.text()
	e.Due = r.time()
	e.Wait = time.Duration(r.uvarint())
	e.Attempts = int(r.uvarint())
	why := strings.Clone(r.text())
	e.Held, e.Unreached = flags&hintHeld != 0, flags&hintUnreached != 0
	if flags&hintFail != 0 {
		e.Fail = why
	} else {
		e.Why = why
	}
	return e
}

func (r *hintReader) settlement() *settleMeta {
	m := &settleMeta{}
	flags := r.uvarint()
	if flags&hintCounts != 0 {
		m.Attempt.Time = time.Unix(0, 0)
	}
	if flags&hintWhole != 0 {
		m.State = &memory.Entry{}
	}
	m.Unreached, m.Wake = flags&hintUnreached != 0, flags&hintWake != 0
	m.ID, m.Lane = queue.ID(r.text()), r.text()
	m.At, m.Next = r.time(), r.time()
	left := int(r.uvarint())
	m.Left = &left
	m.Hold = strings.Clone(r.text())
	for range r.length() {
		m.WakeLanes = append(m.WakeLanes, strings.Clone(r.text()))
	}
	for range r.length() {
		if r.bad {
			break
		}
		m.Reports = append(m.Reports, mailMeta{})
		r.message(&m.Reports[len(m.Reports)-1])
	}
	if flags&hintNotes != 0 && json.Unmarshal([]byte(r.text()), &m.Notes) != nil {
		r.fail()
	}
	return m
}

// next reads the frame of a record that starts at off, and tells where the next one does.
func (r *hintReader) next(s *segment, off int64) (kind byte, at spot, end int64) {
	kind = byte(r.fixed(1))
	size, body := int64(r.uvarint()), int64(r.uvarint())
	return kind, spot{s, off, off + body}, off + size
}

// saveHint writes the hint of a segment to which nothing is added any more. A segment that is short is read as fast without.
func (q *Queue) saveHint(s *segment) {
	hint := s.hint
	s.hint = nil
	if s.unhinted || s.size < q.opts.segmentSize/64 || len(hint) > hintLongest {
		return
	}
	first := fmt.Sprintf(hintFirst, hintVersion, q.log.mark, s.number, s.size, len(hint), crc32.Checksum(hint, castagnoli))
	path := hintPath(s.path)
	err := q.disk.remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	var f file
	if err == nil {
		f, err = q.disk.create(path)
	}
	if err == nil {
		_, err = f.Write(append([]byte(first), hint...))
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		q.logger.Warn("the hint of a segment could not be written; the next opening takes longer", "segment", s.path, "error", err)
	}
}

// loadHint reads the hint of a segment. It reports false where there is none that can be used.
func (q *Queue) loadHint(s *segment) (hint string, ok bool) {
	f, err := q.disk.open(hintPath(s.path))
	if err != nil {
		return "", false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.ModTime().Before(s.changed) { // somebody has worked on the segment since
		return "", false
	}
	text, err := io.ReadAll(io.NewSectionReader(f, 0, min(info.Size(), hintLongest+200)))
	if err != nil {
		return "", false
	}
	line, rest, _ := bytes.Cut(text, []byte("\n"))
	var version int
	var mark string
	var number uint64
	var size, length int64
	var sum uint32
	_, err = fmt.Sscanf(string(line)+"\n", hintFirst, &version, &mark, &number, &size, &length, &sum)
	ok = err == nil && version == hintVersion && mark == q.log.mark && number == s.number && size == s.size &&
		length == int64(len(rest)) && crc32.Checksum(rest, castagnoli) == sum
	return string(rest), ok
}

// replayHint applies the records of a segment as its hint tells them. It reports false where there is none that can be used.
func (q *Queue) replayHint(s *segment, start int64) (ok bool, err error) {
	hint, ok := q.loadHint(s)
	if !ok {
		return false, nil
	}
	all := hintReader{rest: hint}
	one := hintReader{}
	for off := start; all.rest != ""; {
		kind, at, end := all.next(s, off)
		one.rest, one.bad = all.text(), false
		err := q.applyHint(kind, &one, at, end-at.body-1)
		if err == nil && (all.bad || one.bad) {
			err = errors.New("it is not what it should be")
		}
		if err != nil {
			return false, fmt.Errorf("disk: %s cannot be used: %w: remove the file, which is made anew, and open the spool again", hintPath(s.path), err)
		}
		off = end
	}
	return true, nil
}

// applyHint brings a record into the index, of whose body the length is given.
func (q *Queue) applyHint(kind byte, r *hintReader, at spot, body int64) error {
	switch kind {
	case hintMail:
		r.message(&r.mail)
		if r.bad {
			return nil
		}
		if !r.mail.File && r.mail.Size != body {
			return fmt.Errorf("a message has %d octets, and its record %d", r.mail.Size, body)
		}
		return q.addMail(&r.mail, at)
	case hintSettle:
		m := r.settlement()
		if r.bad {
			return nil
		}
		return q.addSettlement(m, at, body)
	case hintOther:
		name, text, _ := strings.Cut(r.rest, "\n")
		return q.applyOther(name, []byte(text), at.seg)
	}
	return fmt.Errorf("records of kind %q are unknown", kind)
}
