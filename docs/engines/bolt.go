package main

import (
	"bytes"
	"encoding/binary"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
)

// A boltStore has buckets of envelopes, bodies, and records of ends.
type boltStore struct{ db *bbolt.DB }

var boltMeta, boltBody, boltEnds = []byte("meta"), []byte("body"), []byte("ends")

func openBolt(dir string) (store, error) {
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	db, err := bbolt.Open(filepath.Join(dir, "bolt"), 0o600, &bbolt.Options{
		FreelistType: bbolt.FreelistMapType, NoFreelistSync: true, NoStatistics: true, Timeout: time.Second,
	})
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{boltMeta, boltBody, boltEnds} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		db.Close()
		return nil, err
	}
	return boltStore{db}, nil
}

func boltKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func (b boltStore) commit(changes []change) error {
	return b.db.Update(func(tx *bbolt.Tx) error {
		meta, body, ends := tx.Bucket(boltMeta), tx.Bucket(boltBody), tx.Bucket(boltEnds)
		for _, c := range changes {
			if err := boltChange(meta, body, ends, c); err != nil {
				return err
			}
		}
		return nil
	})
}

func boltChange(meta, body, ends *bbolt.Bucket, c change) error {
	key := boltKey(c.seq)
	if c.record != nil {
		if err := meta.Delete(key); err != nil {
			return err
		}
		if err := body.Delete(key); err != nil {
			return err
		}
		return ends.Put(boltKey(c.seq%keptRecords), c.record)
	}
	if c.body != nil {
		if err := body.Put(key, c.body); err != nil {
			return err
		}
	}
	return meta.Put(key, c.meta)
}

func (b boltStore) scan(after uint64, most int) (entries []entry, err error) {
	err = b.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(boltMeta).Cursor()
		for k, v := c.Seek(boltKey(after + 1)); k != nil && len(entries) < most; k, v = c.Next() {
			entries = append(entries, entry{binary.BigEndian.Uint64(k), bytes.Clone(v)})
		}
		return nil
	})
	return entries, err
}

func (b boltStore) last() (seq uint64, err error) {
	err = b.db.View(func(tx *bbolt.Tx) error {
		if k, _ := tx.Bucket(boltMeta).Cursor().Last(); k != nil {
			seq = binary.BigEndian.Uint64(k)
		}
		return nil
	})
	return seq, err
}

func (b boltStore) read(seq uint64) (meta, body []byte, err error) {
	err = b.db.View(func(tx *bbolt.Tx) error {
		m := tx.Bucket(boltMeta).Get(boltKey(seq))
		if m == nil {
			return errGone
		}
		meta = bytes.Clone(m)
		body = bytes.Clone(tx.Bucket(boltBody).Get(boltKey(seq)))
		return nil
	})
	return meta, body, err
}

func (b boltStore) close() error { return b.db.Close() }
