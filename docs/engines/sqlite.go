package main

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"

	_ "modernc.org/sqlite"
)

// A sqliteStore has one connection that writes and some that read.
type sqliteStore struct {
	db      *sql.DB
	writer  *sql.Conn
	writers map[string]*sql.Stmt // by what they do
	get     *sql.Stmt
}

const sqliteSchema = `
CREATE TABLE IF NOT EXISTS message (seq INTEGER PRIMARY KEY, meta BLOB NOT NULL, body BLOB);
CREATE TABLE IF NOT EXISTS ended (slot INTEGER PRIMARY KEY, record BLOB NOT NULL);`

func openSQLite(dir string) (store, error) {
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "sqlite")+"?_pragma=page_size(8192)&_pragma=journal_mode(WAL)"+
		"&_pragma=synchronous(FULL)&_pragma=wal_autocheckpoint(4096)&_pragma=mmap_size(268435456)&_pragma=busy_timeout(10000)&_txlock=immediate")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(5)
	db.SetMaxIdleConns(5)
	s := &sqliteStore{db: db, writers: map[string]*sql.Stmt{}}
	if err := s.prepare(); err != nil {
		db.Close()
		return nil, err
	}
	return s, nil
}

func (s *sqliteStore) prepare() (err error) {
	ctx := context.Background()
	if s.writer, err = s.db.Conn(ctx); err != nil {
		return err
	}
	if _, err := s.writer.ExecContext(ctx, sqliteSchema); err != nil {
		return err
	}
	for _, q := range []string{sqliteBegin, sqliteCommit, sqliteRollback, sqlitePut, sqliteDelete, sqliteEnd} {
		if s.writers[q], err = s.writer.PrepareContext(ctx, q); err != nil {
			return err
		}
	}
	s.get, err = s.db.PrepareContext(ctx, "SELECT meta, body FROM message WHERE seq = ?")
	return err
}

const (
	sqliteBegin    = "BEGIN IMMEDIATE"
	sqliteCommit   = "COMMIT"
	sqliteRollback = "ROLLBACK"
	sqlitePut      = "INSERT INTO message (seq, meta, body) VALUES (?, ?, ?)"
	sqliteDelete   = "DELETE FROM message WHERE seq = ?"
	sqliteEnd      = "INSERT OR REPLACE INTO ended (slot, record) VALUES (?, ?)"
)

func (s *sqliteStore) commit(changes []change) error {
	if _, err := s.writers[sqliteBegin].Exec(); err != nil {
		return err
	}
	err := s.apply(changes)
	if err == nil {
		_, err = s.writers[sqliteCommit].Exec()
	}
	if err != nil {
		s.writers[sqliteRollback].Exec()
	}
	return err
}

func (s *sqliteStore) apply(changes []change) error {
	for _, c := range changes {
		if c.record == nil {
			if _, err := s.writers[sqlitePut].Exec(int64(c.seq), c.meta, c.body); err != nil {
				return err
			}
			continue
		}
		if _, err := s.writers[sqliteDelete].Exec(int64(c.seq)); err != nil {
			return err
		}
		if _, err := s.writers[sqliteEnd].Exec(int64(c.seq%keptRecords), c.record); err != nil {
			return err
		}
	}
	return nil
}

func (s *sqliteStore) scan(after uint64, most int) (entries []entry, err error) {
	rows, err := s.db.Query("SELECT seq, meta FROM message WHERE seq > ? ORDER BY seq LIMIT ?", int64(after), most)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var e entry
		if err := rows.Scan(&e.seq, &e.meta); err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, rows.Err()
}

func (s *sqliteStore) last() (uint64, error) {
	var seq sql.NullInt64
	err := s.db.QueryRow("SELECT max(seq) FROM message").Scan(&seq)
	return uint64(seq.Int64), err
}

func (s *sqliteStore) read(seq uint64) (meta, body []byte, err error) {
	err = s.get.QueryRow(int64(seq)).Scan(&meta, &body)
	if errors.Is(err, sql.ErrNoRows) {
		err = errGone
	}
	return meta, body, err
}

func (s *sqliteStore) close() error {
	return errors.Join(s.writer.Close(), s.db.Close())
}
