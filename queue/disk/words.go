package disk

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"sync"

	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/memory"
)

// words is the [memory.Store] of a queue: it reads envelopes and histories from the records that have them. The settlements of
// an entry are a chain, from the newest back to the one with all of its words, or to the record of its message.
type words struct{ q *Queue }

// chainMax is how many settlements of an entry there are at most without one that has all of its words: an entry is read with at
// most so many reads more, and is written whole once in so many times.
const chainMax = 16

// wordsCache is how much memory the words of mail take that is to be leased soon: at 600 octets a message those of some seconds'
// mail, so that mail that comes in and goes out is never read back, and of a message with as many recipients as one may have.
const wordsCache = 16 << 20

// Message implements [memory.Store].
func (w words) Message(id queue.ID, at memory.Place) (*memory.Message, error) {
	kind, text, err := w.q.description(at.Segment, at.Record)
	if err != nil {
		return nil, err
	}
	var m mailMeta
	switch kind {
	case typeMail:
		err = json.Unmarshal(text, &m)
	case typeSettle:
		var s settleMeta
		err = json.Unmarshal(text, &s)
		for _, r := range s.Reports {
			if r.ID == id {
				m = r
			}
		}
	}
	if err != nil || m.ID != id {
		return nil, fmt.Errorf("disk: the record of %s at %d of segment %d: %w", id, at.Record, at.Segment, memory.ErrDamaged)
	}
	m.Split()
	return &m.Message, nil
}

// Entry implements [memory.Store].
func (w words) Entry(m *memory.Message, lane string, last memory.Mark) (memory.Entry, error) {
	key := memory.Key{ID: m.ID, Lane: lane}
	if e, ok := w.q.pins.get(key, last); ok {
		return e, nil
	}
	var chain []settleMeta
	for at := last; at != (memory.Mark{}); {
		s, err := w.settlement(key, at)
		if err == nil && len(chain) > chainMax {
			err = fmt.Errorf("disk: the history of %s for %s has no beginning: %w", m.ID, lane, memory.ErrDamaged)
		}
		if err != nil {
			return memory.Entry{}, err
		}
		chain = append(chain, s)
		if s.State != nil {
			break
		}
		at = s.Prev
	}
	e := m.Entry(lane)
	if n := len(chain) - 1; chain[n].State != nil {
		e, chain = chain[n].State, chain[:n]
	}
	if e == nil {
		return memory.Entry{}, fmt.Errorf("disk: %s has nothing for %s: %w", m.ID, lane, memory.ErrDamaged)
	}
	now := *e
	for i := len(chain) - 1; i >= 0; i-- {
		now.Settle(chain[i].Done, chain[i].Warned, chain[i].Attempt)
	}
	return now, nil
}

func (w words) settlement(key memory.Key, at memory.Mark) (s settleMeta, err error) {
	kind, text, err := w.q.description(at.Segment, at.Record)
	if err != nil {
		return s, err
	}
	if kind == typeSettle {
		err = json.Unmarshal(text, &s)
	}
	if err != nil || s.Key != key {
		return s, fmt.Errorf("disk: a settlement of %s for %s at %d of segment %d: %w", key.ID, key.Lane, at.Record, at.Segment, memory.ErrDamaged)
	}
	return s, nil
}

// Dropped implements [memory.Store].
func (w words) Dropped(id queue.ID, at memory.Place, size int64) { w.q.dropped(id, at, size) }

// usualDescription is how much is read of a record at first: of most records the whole description.
const usualDescription = 1 << 10

// description reads the description of a record. What is damaged is set aside.
func (q *Queue) description(segment, at uint32) (kind string, text []byte, err error) {
	s := q.segment(segment)
	if s == nil {
		return "", nil, fmt.Errorf("disk: segment %d of the log is gone: %w", segment, fs.ErrNotExist)
	}
	h, text, err := s.description(int64(at), q.log.mark)
	var damage damageError
	if errors.As(err, &damage) {
		if err := q.setRecordAside(s, int64(at), damage); err != nil {
			q.logger.Error("a damaged region of the spool could not be set aside", "segment", s.path, "from", at, "error", err)
		}
		return "", nil, fmt.Errorf("disk: %s at %d: %s: %w", s.path, at, damage, memory.ErrDamaged)
	}
	if err != nil {
		return "", nil, fmt.Errorf("disk: %s at %d: %w", s.path, at, err)
	}
	return h.kind, text, nil
}

// setRecordAside sets a damaged record aside, up to the next one.
func (q *Queue) setRecordAside(s *segment, at int64, why damageError) error {
	info, err := s.file.Stat() // its size is the writer's
	if err != nil || at >= info.Size() {
		return err
	}
	r := scanner{seg: &segment{file: s.file, size: info.Size()}, mark: q.log.mark}
	return q.setAside(s, at, r.resync(at), false, why)
}

// description reads the description of the record at a place, which fails with a damageError where it is not as it was written.
func (s *segment) description(at int64, mark string) (h header, text []byte, err error) {
	buf := make([]byte, usualDescription)
	n, err := s.file.ReadAt(buf, at)
	if err != nil && err != io.EOF {
		return h, nil, err
	}
	h, first, ok := firstLine(buf[:n], mark)
	if !ok {
		return h, nil, damageError("no record starts here")
	}
	if missing := int64(first) + h.meta - int64(n); missing > 0 {
		buf = append(buf[:n], make([]byte, missing)...)
		switch _, err := s.file.ReadAt(buf[n:], at+int64(n)); {
		case err == io.EOF:
			return h, nil, damageError("the record is cut off")
		case err != nil:
			return h, nil, err
		}
	}
	text = buf[first : int64(first)+h.meta]
	if crc32.Checksum(text, castagnoli) != h.metaSum {
		return h, nil, damageError("the checksum of the description is wrong")
	}
	return h, text, nil
}

// pins are the words of entries whose settlements were written by a version that made no chain of them: until their next
// settlement, which is written whole. The zero value is ready.
type pins struct {
	mu  sync.Mutex
	all map[queue.ID]map[string]pinned // guarded by mu
}

type pinned struct {
	memory.Entry
	last memory.Mark
}

func (p *pins) get(k memory.Key, last memory.Mark) (memory.Entry, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept, ok := p.all[k.ID][k.Lane]
	return kept.Entry, ok && kept.last == last
}

// last gives what is kept of an entry.
func (p *pins) last(k memory.Key) (memory.Entry, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept, ok := p.all[k.ID][k.Lane]
	return kept.Entry, ok
}

func (p *pins) put(k memory.Key, e memory.Entry, last memory.Mark) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil {
		p.all = map[queue.ID]map[string]pinned{}
	}
	if p.all[k.ID] == nil {
		p.all[k.ID] = map[string]pinned{}
	}
	p.all[k.ID][k.Lane] = pinned{e, last}
}

// drop forgets the entry of a lane, or all of a message where lane is "".
func (p *pins) drop(id queue.ID, lane string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if delete(p.all[id], lane); lane == "" || len(p.all[id]) == 0 {
		delete(p.all, id)
	}
}
