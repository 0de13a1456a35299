package disk

import (
	"bytes"
	"hash/crc32"
	"io"
	"time"

	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/memory"
)

// describeReports makes the messages that a settlement enqueues. Their bodies go into its record whatever their
// length, because they become durable with it.
func (q *Queue) describeReports(reports []queue.Submission, now time.Time) (metas []mailMeta, bodies [][]byte, err error) {
	for _, r := range reports {
		if err := r.Envelope.Validate(); err != nil {
			return nil, nil, err
		}
		r.Envelope.Key = ""
		in := queue.NewIntake(bytes.NewReader(r.Body), maxReport)
		if _, err := io.Copy(io.Discard, in); err != nil {
			return nil, nil, err
		}
		metas = append(metas, mailMeta{
			Message: memory.Message{ID: q.ids.New(now), Envelope: r.Envelope, Accepted: now, Size: in.Size, Hops: in.Hops},
			Sum:     crc32.Checksum(r.Body, castagnoli),
		})
		bodies = append(bodies, r.Body)
	}
	return metas, bodies, nil
}

// stored is what a message counts of the segment of its record.
func (m *mailMeta) stored() int64 { return stored(memory.Place{File: m.File}, m.Size) }

// storedReports is what reports count of the segment of their settle record.
func storedReports(reports []mailMeta) (n int64) {
	for i := range reports {
		n += reports[i].stored()
	}
	return n
}

// placeReports tells where the reports of a settle record are: one after the other from its body's start on.
func placeReports(at spot, reports []mailMeta) []memory.Placed {
	placed := make([]memory.Placed, len(reports))
	for i := range reports {
		m := &reports[i]
		placed[i] = memory.Placed{Message: &m.Message, Place: at.place(m)}
		at.body += m.Size
	}
	return placed
}
