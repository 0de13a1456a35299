package main

import (
	"errors"
	"fmt"
	"os"
)

// A mail is what a caller hands over.
type mail struct {
	seq  uint64 // names it; grows for the life of a spool
	meta []byte // the envelope, some 300 octets of JSON
	body []byte
}

// A job is a message that was taken to be delivered.
type job struct {
	seq uint64
	ref any // what the engine needs to know of it again
}

// An engine keeps mail, in the way of queue.Queue but for all that a measurement does not need. It is safe for concurrent use.
type engine interface {
	// enqueue makes a message durable.
	enqueue(m mail) error
	// take gives at most so many of the messages that wait, oldest first, each once in the life of the process.
	take(most int) ([]job, error)
	read(j job) (meta, body []byte, err error)
	// settle removes a message and keeps a record of its end, durably.
	settle(j job, record []byte) error
	close() error
}

// keptRecords is how many records of ends a store keeps: enough for a person who asks, and a bound.
const keptRecords = 4096

// A kind is one row of the table.
type kind struct {
	name     string
	open     func(dir string) (engine, error)
	settings string // what is set, and why
	repair   string // what a person does about damage
	aside    bool   // measured only where it is named
}

var kinds = []kind{
	{
		name: "own", open: openOwn,
		settings: "queue/disk as a host gets it: `disk.Open(dir)`. Bodies over 128 KiB have files of their own.",
		repair:   "nothing: a damaged region is set aside as a file and logged with what it held; the log can be read with `less` and `grep`",
	},
	{
		name: "pebble", open: openPebble(nil),
		settings: "Pebble 2.1.7, newest format; memtables of 64 MiB, four of them before writers stop, so that mail which is delivered soon " +
			"dies in the log and no table is written for it; up to two compactions at once; its own commit pipeline shares fsyncs; damage that it " +
			"finds in a table is told and does not end the process, as it does by default",
		repair: "`pebble db check`, `pebble wal dump`; a damaged table is lost as a whole, a damaged MANIFEST means a new store and what a program can salvage",
	},
	{
		name: "pebble-blobs", open: openPebble(withBlobs),
		settings: "the same, with value separation (values from 1 KiB on in blob files, so that compactions move keys alone)",
		repair:   "as pebble",
	},
	{
		name: "pebble-500us", open: openPebble(withPatience), aside: true,
		settings: "the same as pebble, with at least 500 µs between two fsyncs of its log (`WALMinSyncInterval`)",
		repair:   "as pebble",
	},
	{
		name: "pebble+bodies", open: openWithBodies(openPebbleStore(nil)),
		settings: "Pebble for envelopes and places, and a plain segmented log of 64 MiB files for bodies, synced before the envelope; a segment is removed when no body in it is alive",
		repair:   "as pebble; bodies can be read from the log, but what they are is in Pebble alone",
	},
	{
		name: "bbolt", open: openGrouped(openBolt),
		settings: "bbolt 1.5.0; one writer takes all that waits into one transaction (what DB.Batch does, without its delay); freelist as a hash map and " +
			"not synced, which its README advises for big files",
		repair: "`bbolt check`, `bbolt surgery`; no checksums on data pages, so that damage is found by its consequences",
	},
	{
		name: "bbolt+bodies", open: openWithBodies(openBolt),
		settings: "bbolt for envelopes and places, the log of bodies as above",
		repair:   "as bbolt",
	},
	{
		name: "sqlite", open: openGrouped(openSQLite),
		settings: "modernc.org/sqlite 1.62.0; WAL, synchronous=FULL, pages of 8 KiB (its documentation: best for rows of some KiB), a checkpoint " +
			"every 32 MiB; one writer takes all that waits into one transaction; prepared statements",
		repair: "`PRAGMA integrity_check`, `.recover`: the best tools of all; no checksums on pages",
	},
	{
		name: "sqlite+bodies", open: openWithBodies(openSQLite),
		settings: "SQLite for envelopes and places, the log of bodies as above",
		repair:   "as sqlite",
	},
	{
		name: "files", open: openFiles(false),
		settings: "a file a message: written and synced in tmp by its caller, then renamed to new; callers share the fsync of the folder. Ends are " +
			"recorded in a file that is synced before the messages are unlinked",
		repair: "`ls`, `cat`, `rm`; no checksums",
	},
	{
		name: "files-syncfs", open: openFiles(true), aside: true,
		settings: "the same, with one syncfs of the whole file system for all callers that wait instead of an fsync a file: it waits for " +
			"what other programs write too",
		repair: "as files",
	},
}

func kindNamed(name string) (kind, error) {
	for _, k := range kinds {
		if k.name == name {
			return k, nil
		}
	}
	return kind{}, fmt.Errorf("there is no engine %q", name)
}

var errGone = errors.New("no such message")

// makeDir makes a folder whose name is durable, as an engine that makes files in it expects.
func makeDir(dir string) error {
	return os.MkdirAll(dir, 0o700)
}
