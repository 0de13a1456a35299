package queue

import (
	"net/netip"
	"time"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/dsn"
)

// How long a message is of use to its sender, where the sender says so (RFC 2852).

// The statuses of what was not delivered by its time: for good in by-mode R, and not yet in by-mode N.
const (
	statusTooLate dsn.Status = "5.4.7"
	statusLate    dsn.Status = "4.4.7"
)

// overdue reports that the message is of no use any more: its time is over, and its sender wants it back (by-mode R).
func (l *Lease) overdue(now time.Time) bool {
	by := &l.Envelope.DeliverBy
	return !by.Time.IsZero() && !by.Notify && !now.Before(by.Time)
}

// late reports that the time is over at which its sender wants to hear that it was not delivered (by-mode N).
func (l *Lease) late(now time.Time) bool {
	by := &l.Envelope.DeliverBy
	return !by.Time.IsZero() && by.Notify && !now.Before(by.Time)
}

// expires is when the message is given up: at the end of its lifetime, or as soon as it is of no use any more.
func (a *attempt) expires() time.Time {
	return a.r.Schedule.expiresBy(a.lease.Accepted, &a.lease.Envelope.DeliverBy)
}

func (s *Schedule) expiresBy(accepted time.Time, by *deliver.DeliverBy) time.Time {
	expires := s.expires(accepted)
	if !by.Time.IsZero() && !by.Notify && by.Time.Before(expires) {
		return by.Time
	}
	return expires
}

// late is when the sender is told that the message is late: at the time that it named, else when the Schedule says; the zero
// time is never. It is told once, so that of the two the sender's own time counts.
func (a *attempt) late() time.Time {
	return a.r.Schedule.lateBy(a.lease.Accepted, &a.lease.Envelope.DeliverBy)
}

func (s *Schedule) lateBy(accepted time.Time, by *deliver.DeliverBy) time.Time {
	if !by.Time.IsZero() && by.Notify {
		return by.Time
	}
	return s.late(accepted)
}

// decideOverdue fails what is of no use any more, without another try. The words of the last one tell why it did not arrive.
func (a *attempt) decideOverdue() {
	a.decideAll(deliver.PermFail, statusTooLate, a.missed())
	before := make(map[string]*AttemptResult, len(a.lease.Last.Results))
	for i := range a.lease.Last.Results {
		before[a.lease.Last.Results[i].Recipient] = &a.lease.Last.Results[i]
	}
	for i := range a.outcomes {
		o := &a.outcomes[i]
		last := before[o.Recipient]
		if last == nil || last.Result.Success() {
			continue
		}
		o.Reply, o.Stage, o.Host, o.PossiblyDelivered = last.Reply, last.Stage, last.Host, last.PossiblyDelivered
		o.Addr, _ = netip.ParseAddrPort(last.Addr) // the zero value where there was none
		if last.Detail != "" {
			o.Detail += "; the last try: " + last.Detail
		}
	}
}

// missed is what is said of a message that was not delivered by its time.
func (a *attempt) missed() string {
	return "not delivered by " + a.lease.Envelope.DeliverBy.Time.UTC().Format("15:04:05 MST on 2 January 2006")
}

// tellOverdue makes the part of a report say that a time is over, and what follows.
func (a *attempt) tellOverdue(r *dsn.Recipient, o *deliver.Outcome, now time.Time) {
	switch {
	case r.Action == dsn.Failed && a.lease.overdue(now) && (o.Result == deliver.TempFail || o.Status == statusTooLate):
		r.Status = statusTooLate
		r.Advice = "The message was sent with the request to return it if it was " + a.missed() + ". Send it again if it is still of use."
	case r.Action == dsn.Delayed && a.lease.late(now):
		r.Status = statusLate
	default:
		return
	}
	if o.Status != statusTooLate {
		r.Detail = join(a.missed(), r.Detail)
	}
}

func join(what, more string) string {
	if more == "" {
		return what
	}
	return what + ": " + more
}
