package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// A pebbleStore has the keys q+number (envelopes: scanned in order of age), b+number (bodies), and h+number modulo
// keptRecords (records of ends). Its commits may be concurrent.
type pebbleStore struct{ db *pebble.DB }

func openPebble(change func(*pebble.Options)) func(string) (engine, error) {
	return openShared(openPebbleStore(change))
}

// openPebbleStore opens one whose options a variant changes; nil changes nothing.
func openPebbleStore(change func(*pebble.Options)) func(string) (store, error) {
	return func(dir string) (store, error) {
		o := pebbleOptions()
		if change != nil {
			change(o)
		}
		db, err := pebble.Open(dir, o)
		if err != nil {
			return nil, err
		}
		return pebbleStore{db}, nil
	}
}

func pebbleOptions() *pebble.Options {
	return &pebble.Options{
		FormatMajorVersion:          pebble.FormatNewest,
		MemTableSize:                64 << 20,
		MemTableStopWritesThreshold: 4,
		L0StopWritesThreshold:       1000, // as CockroachDB: never stop writers for level 0
		CompactionConcurrencyRange:  func() (int, int) { return 1, 2 },
		BytesPerSync:                1 << 20, // tables are written to disk as they grow, so that an fsync of the log does not wait for one
		Logger:                      quiet{},
		EventListener: &pebble.EventListener{ // the default ends the process
			DataCorruption: func(info pebble.DataCorruptionInfo) { quiet{}.Errorf("%s", info) },
		},
	}
}

// withBlobs keeps values in files of their own.
func withBlobs(o *pebble.Options) {
	o.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy {
		return pebble.ValueSeparationPolicy{
			Enabled: true, MinimumSize: 1 << 10, MaxBlobReferenceDepth: 10, RewriteMinimumAge: time.Minute, TargetGarbageRatio: 0.5,
		}
	}
}

// withPatience waits for more callers before it syncs.
func withPatience(o *pebble.Options) {
	o.WALMinSyncInterval = func() time.Duration { return 500 * time.Microsecond }
}

// quiet tells errors alone.
type quiet struct{}

func (quiet) Infof(string, ...any) {}
func (quiet) Errorf(f string, a ...any) {
	fmt.Fprintf(os.Stderr, f+"\n", a...)
}

// Fatalf must not return, says Pebble.
func (q quiet) Fatalf(f string, a ...any) {
	q.Errorf(f, a...)
	os.Exit(1)
}

func pebbleKey(table byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{table}, n)
}

func (p pebbleStore) commit(changes []change) error {
	b := p.db.NewBatch()
	defer b.Close()
	for _, c := range changes {
		if c.record == nil {
			b.Set(pebbleKey('q', c.seq), c.meta, nil)
			if c.body != nil {
				b.Set(pebbleKey('b', c.seq), c.body, nil)
			}
			continue
		}
		b.Set(pebbleKey('h', c.seq%keptRecords), c.record, nil)
		b.Delete(pebbleKey('q', c.seq), nil)
		b.Delete(pebbleKey('b', c.seq), nil)
	}
	return b.Commit(pebble.Sync)
}

func (p pebbleStore) numbers(after uint64) (*pebble.Iterator, error) {
	return p.db.NewIter(&pebble.IterOptions{LowerBound: pebbleKey('q', after+1), UpperBound: []byte{'q' + 1}})
}

func (p pebbleStore) scan(after uint64, most int) (entries []entry, err error) {
	it, err := p.numbers(after)
	if err != nil {
		return nil, err
	}
	for ok := it.First(); ok && len(entries) < most; ok = it.Next() {
		entries = append(entries, entry{binary.BigEndian.Uint64(it.Key()[1:]), bytes.Clone(it.Value())})
	}
	return entries, errors.Join(it.Error(), it.Close())
}

func (p pebbleStore) last() (seq uint64, err error) {
	it, err := p.numbers(0)
	if err != nil {
		return 0, err
	}
	if it.Last() {
		seq = binary.BigEndian.Uint64(it.Key()[1:])
	}
	return seq, errors.Join(it.Error(), it.Close())
}

func (p pebbleStore) read(seq uint64) (meta, body []byte, err error) {
	if meta, err = p.get('q', seq); err != nil {
		return nil, nil, err
	}
	body, err = p.get('b', seq)
	if errors.Is(err, pebble.ErrNotFound) {
		err = nil // it is elsewhere
	}
	return meta, body, err
}

func (p pebbleStore) get(table byte, seq uint64) ([]byte, error) {
	v, closer, err := p.db.Get(pebbleKey(table, seq))
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	return bytes.Clone(v), nil
}

func (p pebbleStore) close() error { return p.db.Close() }
