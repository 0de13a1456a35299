package disk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"time"

	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/memory"
)

// The types of records.
const (
	typeMail   = "mail"
	typeSettle = "settle"
	typeChange = "change"
	typeClock  = "clock"
	typeNotes  = "notes"
)

// Bounds on records. What is longer is not written, because it would not be read again.
const (
	maxHeaderLine = 100
	maxMeta       = 256 << 20
	maxBody       = 1 << 30 // bodies in the log are at most inlineMax, or the reports of one settlement
	maxReport     = 64 << 20
)

// errTooLong is about a record that is over the bounds.
var errTooLong = errors.New("the record is longer than the log takes")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// mailMeta is the JSON of a mail record, and of each report in a settle record.
type mailMeta struct {
	memory.Message
	File bool   `json:"file,omitempty"` // the body is in large/ID
	Sum  uint32 `json:"sum,omitempty"`  // CRC-32C of what the body should be; 0 in the log is that of the record

	sender uint32 // see [memory.SenderOf]; set by who reads the log
}

// settleMeta is the JSON of a settle record.
type settleMeta struct {
	memory.Key
	At      time.Time     `json:"at"`
	Attempt queue.Attempt `json:"attempt,omitzero"`
	Done    []string      `json:"done,omitempty"`
	Next    time.Time     `json:"next,omitzero"`
	Warned  []string      `json:"warned,omitempty"`
	Hold    string        `json:"hold,omitempty"`
	Reports []mailMeta    `json:"reports,omitempty"`

	Unreached bool     `json:"unreached,omitempty"`
	Wake      bool     `json:"wake,omitempty"`
	WakeLanes []string `json:"wakelanes,omitempty"`

	Notes []memory.Note `json:"notes,omitempty"`

	// Left is how many recipients are left: with 0 the entry is gone. A version that did not tell has written nil.
	Left *int `json:"left,omitempty"`
	// Prev is the settlement of the entry before this one since the record of its message; the zero Mark is none.
	Prev memory.Mark `json:"prev,omitzero"`
	// State has all of the entry's words after this settlement. Then there is no Prev, and Attempt has no results of its own.
	State *memory.Entry `json:"state,omitempty"`
}

// notesMeta is the JSON of a notes record.
type notesMeta struct {
	Notes []memory.Note `json:"notes"`
}

// changeMeta is the JSON of a change record.
type changeMeta struct {
	Op      memory.Op    `json:"op"`
	Why     string       `json:"why,omitempty"`
	At      time.Time    `json:"at"`
	Entries []memory.Key `json:"entries"`
}

// clockMeta is the JSON of a clock record.
type clockMeta struct {
	Jump time.Duration `json:"jump"`
}

// A record is what the log appends: encoded by the caller, so that the writer only copies.
type record struct {
	kind string
	meta []byte
	body [][]byte
	size int   // of the body
	live int64 // what it counts of its segment, see stored
	hint []byte
}

func newRecord(kind string, meta any, body ...[]byte) (record, error) {
	text, err := json.Marshal(meta)
	if err != nil {
		return record{}, fmt.Errorf("disk: %w", err)
	}
	r := record{kind: kind, meta: text, body: body, hint: hintOf(kind, meta, text)}
	for _, part := range body {
		r.size += len(part)
	}
	if len(text) > maxMeta || r.size > maxBody {
		return record{}, fmt.Errorf("disk: a %s record of %d and %d octets: %w", kind, len(text), r.size, errTooLong)
	}
	return r, nil
}

// appendTo appends the record to buf, and returns where its body starts in buf.
func (r record) appendTo(buf []byte, mark string) (_ []byte, at int) {
	sum := uint32(0)
	for _, part := range r.body {
		sum = crc32.Update(sum, castagnoli, part)
	}
	buf = append(buf, '=')
	buf = append(buf, mark...)
	buf = append(buf, ' ')
	buf = append(buf, r.kind...)
	for _, n := range [...]int{len(r.meta), r.size} {
		buf = append(buf, ' ')
		buf = strconv.AppendInt(buf, int64(n), 10)
	}
	for _, n := range [...]uint32{crc32.Checksum(r.meta, castagnoli), sum} {
		buf = append(buf, ' ')
		buf = strconv.AppendUint(buf, uint64(n), 16)
	}
	buf = append(buf, '\n')
	buf = append(buf, r.meta...)
	buf = append(buf, '\n')
	at = len(buf)
	for _, part := range r.body {
		buf = append(buf, part...)
	}
	return append(buf, '\n'), at
}

// header is a record's first line.
type header struct {
	kind             string
	meta, body       int64
	metaSum, bodySum uint32
}

// parseHeader reads a header line without its line break. It reports false for anything else.
func parseHeader(line []byte, mark string) (h header, ok bool) {
	f := bytes.Fields(line)
	if len(f) != 6 || string(f[0]) != "="+mark {
		return h, false
	}
	h.kind = string(f[1])
	var errs [4]error
	h.meta, errs[0] = strconv.ParseInt(string(f[2]), 10, 64)
	h.body, errs[1] = strconv.ParseInt(string(f[3]), 10, 64)
	metaSum, e2 := strconv.ParseUint(string(f[4]), 16, 32)
	bodySum, e3 := strconv.ParseUint(string(f[5]), 16, 32)
	errs[2], errs[3] = e2, e3
	h.metaSum, h.bodySum = uint32(metaSum), uint32(bodySum)
	for _, err := range errs {
		if err != nil {
			return h, false
		}
	}
	return h, h.meta >= 0 && h.meta <= maxMeta && h.body >= 0 && h.body <= maxBody
}

// firstLine reads the header of the record that starts in buf, and tells where its description does.
func firstLine(buf []byte, mark string) (h header, end int, ok bool) {
	end = bytes.IndexByte(buf[:min(len(buf), maxHeaderLine+1)], '\n') + 1
	if end == 0 {
		return h, 0, false
	}
	h, ok = parseHeader(buf[:end], mark)
	return h, end, ok
}
