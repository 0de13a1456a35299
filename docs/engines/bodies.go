package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync"
)

// withBodies is a store that keeps envelopes in another one and bodies in a log of its own: what to do where an engine is
// liked and its handling of long values is not. A body is durable before its envelope is.
type withBodies struct {
	store
	log *bodyLog

	mu     sync.Mutex
	places map[uint64]place // guarded by mu: of messages that are being delivered
}

// A place is where a body is. It stands behind the envelope in the other store.
type place struct {
	segment uint32
	length  uint32
	sum     uint32 // CRC-32C
	offset  uint64
}

const placeLength = 20

func (p place) appendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, p.segment)
	b = binary.BigEndian.AppendUint32(b, p.length)
	b = binary.BigEndian.AppendUint32(b, p.sum)
	return binary.BigEndian.AppendUint64(b, p.offset)
}

func cutPlace(meta []byte) ([]byte, place, error) {
	at := len(meta) - placeLength
	if at < 0 {
		return nil, place{}, errors.New("an envelope without a place of its body")
	}
	b := meta[at:]
	return meta[:at], place{
		binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint64(b[12:]),
	}, nil
}

func openWithBodies(open func(string) (store, error)) func(string) (engine, error) {
	return openGrouped(func(dir string) (store, error) {
		inner, err := open(filepath.Join(dir, "envelopes"))
		if err != nil {
			return nil, err
		}
		w := &withBodies{store: inner, places: map[uint64]place{}}
		if w.log, err = openBodyLog(filepath.Join(dir, "bodies")); err == nil {
			err = w.count()
		}
		if err != nil {
			inner.close()
			return nil, err
		}
		return w, nil
	})
}

// count reads all envelopes, to know which segments are alive.
func (w *withBodies) count() error {
	for after := uint64(0); ; {
		entries, err := w.store.scan(after, page)
		if err != nil {
			return err
		}
		for _, e := range entries {
			_, p, err := cutPlace(e.meta)
			if err != nil {
				return err
			}
			w.log.live[p.segment]++
			after = e.seq
		}
		if len(entries) < page {
			return w.log.removeDead()
		}
	}
}

func (w *withBodies) commit(changes []change) (err error) {
	inner := make([]change, len(changes))
	var came, dead []place
	defer func() {
		if err != nil {
			w.log.discount(came)
			w.log.takeBack()
		}
	}()
	for i, c := range changes {
		inner[i] = c
		if c.record != nil {
			p, err := w.forget(c.seq)
			if err != nil {
				return err
			}
			dead = append(dead, p)
			continue
		}
		p, err := w.log.put(c.body)
		if err != nil {
			return err
		}
		came = append(came, p)
		inner[i].meta, inner[i].body = p.appendTo(c.meta[:len(c.meta):len(c.meta)]), nil
	}
	if err := w.log.flush(); err != nil {
		return err
	}
	if err := w.store.commit(inner); err != nil {
		return err
	}
	came = nil
	w.log.discount(dead)
	return w.log.removeDead()
}

// forget gives the place of a message that is settled.
func (w *withBodies) forget(seq uint64) (place, error) {
	w.mu.Lock()
	p, ok := w.places[seq]
	delete(w.places, seq)
	w.mu.Unlock()
	if ok {
		return p, nil
	}
	meta, _, err := w.store.read(seq)
	if err != nil {
		return place{}, err
	}
	_, p, err = cutPlace(meta)
	return p, err
}

func (w *withBodies) read(seq uint64) (meta, body []byte, err error) {
	meta, _, err = w.store.read(seq)
	if err != nil {
		return nil, nil, err
	}
	meta, p, err := cutPlace(meta)
	if err != nil {
		return nil, nil, err
	}
	w.mu.Lock()
	w.places[seq] = p
	w.mu.Unlock()
	body, err = w.log.get(p)
	return meta, body, err
}

func (w *withBodies) close() error { return errors.Join(w.store.close(), w.log.close()) }

// bodySegment is how long a file of the log grows.
const bodySegment = 64 << 20

// A bodyLog is files of bodies, one after the other. All but get is called by one goroutine.
type bodyLog struct {
	dir    string
	number uint32
	size   uint64 // of the newest file, with what is in buf
	buf    []byte
	failed error          // of an fsync: no later one is believed
	live   map[uint32]int // bodies by segment

	mu    sync.RWMutex
	files map[uint32]*os.File // guarded by mu
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openBodyLog opens the files that are there, and begins another: old ones are never written again.
func openBodyLog(dir string) (*bodyLog, error) {
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	l := &bodyLog{dir: dir, live: map[uint32]int{}, files: map[uint32]*os.File{}}
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range names {
		if _, err := fmt.Sscanf(e.Name(), "%d", &l.number); err != nil {
			return nil, err
		}
		if l.files[l.number], err = os.Open(l.path(l.number)); err != nil {
			return nil, err
		}
		l.live[l.number] = 0
	}
	return l, l.begin()
}

func (l *bodyLog) path(number uint32) string {
	return filepath.Join(l.dir, fmt.Sprintf("%010d", number))
}

func (l *bodyLog) begin() error {
	l.number++
	l.size = 0
	f, err := os.OpenFile(l.path(l.number), os.O_RDWR|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.files[l.number] = f
	l.mu.Unlock()
	l.live[l.number] = 0
	return syncDir(l.dir)
}

// put adds a body to what flush writes.
func (l *bodyLog) put(body []byte) (place, error) {
	if l.size >= bodySegment {
		if err := l.flush(); err != nil { // what was put before in this group
			return place{}, err
		}
		if err := l.begin(); err != nil {
			return place{}, err
		}
	}
	p := place{l.number, uint32(len(body)), crc32.Checksum(body, castagnoli), l.size}
	l.buf = append(l.buf, body...)
	l.size += uint64(len(body))
	l.live[l.number]++
	return p, nil
}

// flush makes durable what was put. Where it fails, nothing of it is there, and the next goes to another file.
func (l *bodyLog) flush() error {
	if l.failed != nil || len(l.buf) == 0 {
		return l.failed
	}
	f, before := l.file(l.number), int64(l.size)-int64(len(l.buf))
	_, err := f.Write(l.buf)
	if err == nil {
		err = f.Sync()
		l.failed = err
	}
	l.buf = l.buf[:0]
	if err != nil {
		l.size = bodySegment
		return errors.Join(err, f.Truncate(before))
	}
	return nil
}

// takeBack forgets what was put and not flushed.
func (l *bodyLog) takeBack() {
	l.size -= uint64(len(l.buf))
	l.buf = l.buf[:0]
}

func (l *bodyLog) file(number uint32) *os.File {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.files[number]
}

func (l *bodyLog) get(p place) ([]byte, error) {
	f := l.file(p.segment)
	if f == nil {
		return nil, errGone
	}
	body := make([]byte, p.length)
	if _, err := f.ReadAt(body, int64(p.offset)); err != nil {
		return nil, err
	}
	if crc32.Checksum(body, castagnoli) != p.sum {
		return nil, fmt.Errorf("%s: a body has changed on disk", f.Name())
	}
	return body, nil
}

func (l *bodyLog) discount(places []place) {
	for _, p := range places {
		l.live[p.segment]--
	}
}

// removeDead removes the files in which nothing is alive.
func (l *bodyLog) removeDead() error {
	for number, n := range l.live {
		if n > 0 || number == l.number {
			continue
		}
		delete(l.live, number)
		l.mu.Lock()
		f := l.files[number]
		delete(l.files, number)
		l.mu.Unlock()
		if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (l *bodyLog) close() error {
	var err error
	for _, f := range l.files {
		err = errors.Join(err, f.Close())
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
