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

// storedReports is what reports count of the segment of their settle record.
func storedReports(reports []mailMeta) (n int64) {
	for _, r := range reports {
		n += place{size: r.Size}.stored()
	}
	return n
}

// placeReports tells where the reports of a settle record are: one after the other from at on.
func placeReports(seg *segment, at int64, reports []mailMeta) []memory.Message {
	messages := make([]memory.Message, len(reports))
	for i, r := range reports {
		r.Body = place{seg: seg, off: at, size: r.Size, sum: r.Sum}
		messages[i] = r.Message
		at += r.Size
	}
	return messages
}
