// Package disk keeps a mail queue on disk: what it accepted survives the process, the machine and a full disk.
//
//	spool, err := disk.Open("spool")
//	id, err := spool.Enqueue(ctx, queue.Envelope{From: "me@example.org", To: queue.To("you@aol.com")}, message)
//
// [Queue] implements [queue.Queue], [queue.Inspector] and [queue.Notebook]; one process at a time has a spool open.
//
// # Layout, format 3
//
// A spool is a folder:
//
//	format              "sortie disk queue, format 3", and the mark of this spool: 16 random hexadecimal digits
//	lock                held by the process that has the spool open; says which
//	log/0000000001.log  segments of one append-only log, in order
//	log/NUMBER.hint     what an opening needs of a segment, without bodies and words; may be removed, and is made anew then
//	large/ID            bodies of more than 128 KiB, a file each
//	damaged/            what could not be read, set aside byte for byte: NUMBER-OFFSET is a region of a
//	                    segment, ID is a body whose message is not in the log
//
// A segment is text but for the bodies, and can be read with less. It starts with a line
//
//	sortie-log 3 MARK LAST-ID
//
// and holds records, each of a header line, one line of JSON, the body, and a line break:
//
//	=MARK TYPE JSON-LENGTH BODY-LENGTH JSON-CRC BODY-CRC
//	{"id":"1k2...","env":{"from":"me@example.org","to":[{"address":"you@aol.com"}]},...}
//	From: ...
//
// Lengths are decimal octets, checksums CRC-32C in hexadecimal. The mark is secret from the senders of mail, so that
// no message can hold what looks like a record. The types are "mail" (a message: its envelope, and once it was moved the
// state of its entries), "settle" (an outcome, with the reports that follow from it: the JSON describes them, their
// bodies stand one after the other), "change" (what a person did), "notes" (see [queue.Notebook]; those that follow
// from an outcome stand in its record), and "clock" (the clock jumped; times before move by this much). The settlements of an
// entry are a chain: each names the one before it in "prev", by segment and offset, and says in "left" how many recipients are left;
// now and then one has all of the entry's words in "state". To see the envelopes and outcomes of a spool without its bodies:
//
//	grep -ah -A1 "^=$(sed -n 2p spool/format) " spool/log/*.log | grep -a '^{'
//
// # What is in memory
//
// Of each message that waits the index has some 130 octets and no words: see [memory.Index]. Envelopes, recipients and histories are read
// from the log when somebody needs them, but those of mail that came in just now and goes out at once.
//
// An opening reads hints, which hold for each record in order what the index wants to know of it: identities, lanes, times and
// reasons. A hint starts with a line "sortie-hint 1 MARK NUMBER SEGMENT-LENGTH LENGTH CRC" and goes on in binary. It is written when its
// segment is full, and by Close; one that is missing, damaged, of another version, or older than its segment is not used, and the
// segment is read whole, as after a crash the newest one is.
//
// # How it keeps its promises
//
// Concurrent calls share one write and one fsync (group commit), and return when it has ended. A write that the disk
// has no room for is taken back, and the call fails with [queue.ErrFull]; a failed fsync ends all writing and leasing, because
// nobody knows what reached the disk (what was acknowledged before it is safe, and is there after a restart).
// The oldest segment is removed when nothing in it is alive; when dead mail takes more room than
// live mail, the live messages and notes of the oldest segment are written anew at the log's end first. Segments go in order only, each
// durably before the next, so that a settlement is never forgotten before the message that it settles.
//
// A spool of format 2, which knows no notes, no keys and no chains, and one of format 1, whose envelopes know no BINARYMIME, REQUIRETLS,
// MT-PRIORITY and DELIVERBY either, are used as they are, and are of format 3 from their opening on.
//
// Repair is automatic: where a segment is read whole, a region whose checksum is wrong, or that the disk cannot read, is copied to
// damaged/, logged with what it held, and passed over; everything after it is used. What an opening did not read is checked when somebody
// needs it: a damaged description is set aside in the same way and what it describes is held, a damaged body is a [*DamagedError]. To have
// all of a spool checked, remove the hints and open it. A log that belongs to another spool, and a newer format, are
// errors, and nothing is touched.
package disk
