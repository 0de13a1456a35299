package disk

import (
	"errors"
	"time"

	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/memory"
)

// describeSettlement makes the description of a settlement: what has changed of the entry, or now and then all of its words.
func (q *Queue) describeSettlement(entry *memory.Settling, s *queue.Settlement, now time.Time) *settleMeta {
	left := len(memory.Without(entry.To, s.Done))
	meta := &settleMeta{
		Key: entry.Key, At: now, Attempt: s.Attempt, Done: s.Done, Next: s.Next, Warned: s.Warned, Hold: s.Hold,
		Unreached: s.Unreached, Wake: s.Wake, WakeLanes: s.WakeLanes, Left: &left,
	}
	if left == 0 {
		return meta
	}
	_, old := q.pins.get(entry.Key, entry.Last)
	if old || entry.Chain >= chainMax {
		if e, err := q.index.Words(*entry); err == nil {
			e.Settle(s.Done, s.Warned, s.Attempt)
			meta.State = &memory.Entry{Lane: e.Lane, To: e.To, Warned: e.Warned, History: e.History}
			meta.Attempt.Results = nil
			return meta
		}
	}
	meta.Prev = entry.Last
	return meta
}

// outcome is what the index needs to know of a settlement.
func (m *settleMeta) outcome(s *queue.Settlement, at spot) memory.Outcome {
	o := memory.OutcomeOf(s, *m.Left == 0)
	o.Mark, o.Whole = at.mark(), m.State != nil
	return o
}

func settleRecord(meta *settleMeta, bodies [][]byte) (record, error) {
	rec, err := newRecord(typeSettle, meta, bodies...)
	if errors.Is(err, errTooLong) { // rather no history than no settlement
		meta.Attempt.Results = nil
		if meta.State != nil {
			meta.State.History = nil
		}
		rec, err = newRecord(typeSettle, meta, bodies...)
	}
	rec.live = storedReports(meta.Reports) + memory.SizeOf(meta.Notes)
	return rec, err
}
