package queue

import (
	"errors"
	"slices"
	"time"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/dsn/reason"
)

// A fate is what follows for one recipient from an attempt.
type fate uint8

const (
	waits    fate = iota // it is tried again; the zero value, so that what is unknown is never lost
	done                 // it has arrived, or the route discards it
	fails                // it will not arrive, and its sender is told
	lost                 // it will not arrive, and nobody is to be told: nothing goes to the null sender (RFC 5321, section 6.1)
	heldBack             // the route holds it
)

// decideFates decides what follows from the outcomes.
func (a *attempt) decideFates(now time.Time) []fate {
	expired := !now.Before(a.r.Schedule.expires(a.lease.Accepted))
	fates := make([]fate, len(a.outcomes))
	for i := range a.outcomes {
		switch o := &a.outcomes[i]; {
		case a.interrupted(o):
			fates[i] = waits
		case o.Result.Success() || o.Result == deliver.Discarded:
			fates[i] = done
		case o.Result == deliver.Held:
			fates[i] = heldBack
		case !expired && (o.Result == deliver.TempFail || a.blocked(o)):
			fates[i] = waits
		case a.lease.Envelope.From != "" && a.lease.Envelope.To[i].Notify.Failure():
			fates[i] = fails
		default:
			fates[i] = lost
		}
	}
	return fates
}

// blocked reports a refusal for good that is about our address, and so ends only when the address or the route changes.
func (a *attempt) blocked(o *deliver.Outcome) bool {
	return o.Result == deliver.PermFail && o.Reason.Blocked() && !a.r.BounceBlocked
}

// interrupted reports that the Runner stopped in the middle of a recipient's try. Such a try does not count.
func (a *attempt) interrupted(o *deliver.Outcome) bool {
	return a.r.work.Err() != nil && o.Result == deliver.TempFail && o.Reply.IsZero() && !o.PossiblyDelivered
}

// settlement makes of the outcomes what is to be recorded.
func (a *attempt) settlement() Settlement {
	now := time.Now()
	a.fates = a.decideFates(now)
	s := Settlement{}
	var report []dsn.Recipient
	counts := [heldBack + 1]int{}
	cut := 0
	for i, f := range a.fates {
		to := &a.lease.Envelope.To[i]
		o := &a.outcomes[i]
		if f == waits && a.interrupted(o) {
			cut++
		}
		if f == lost && !a.r.KeepUnreported || f == done || f == fails {
			s.Done = append(s.Done, to.Address)
		}
		if action := a.action(i, f, now); action != "" {
			report = append(report, a.reportOn(i, action, now))
			if action == dsn.Delayed {
				s.Warned = append(s.Warned, to.Address)
			}
		}
		counts[f]++
	}
	switch {
	case cut > 0 && cut == counts[waits] && len(s.Done) == 0:
		return Settlement{} // put back as it was, due at once
	case counts[waits] > 0:
		s.Next, s.Unreached, s.Pause = a.again(now)
	case counts[heldBack] > 0:
		s.Hold = "the route says hold"
	case counts[lost] > 0 && a.r.KeepUnreported:
		s.Hold = "it failed, and there is nobody to tell: " + a.whyLost()
	}
	if len(s.Done) < len(a.fates) {
		s.Attempt = a.history(now) // of what ends here nobody will read one
	}
	a.learn(&s, now)
	if len(report) > 0 {
		a.addReport(&s, report)
	}
	return s
}

func (a *attempt) whyLost() string {
	return a.outcomes[slices.Index(a.fates, lost)].String()
}

// again is when the recipients that wait are tried: at the earliest time that one of them asks for. unreached says that
// all of them wait because of the destination, and pause for how long all of the lane waits.
func (a *attempt) again(now time.Time) (next time.Time, unreached bool, pause time.Duration) {
	unreached = true
	for i, f := range a.fates {
		if f != waits {
			continue
		}
		o := &a.outcomes[i]
		if a.interrupted(o) {
			next = now
			continue
		}
		t := a.r.Schedule.next(now, a.lease.Accepted, a.lease.Attempts, o.Reason.Retry)
		if next.IsZero() || t.Before(next) {
			next = t
		}
		unreached = unreached && ofDestination(o)
		if o.Reason.Is(reason.RateLimited) || o.Reason.Is(reason.TooManyConnections) {
			pause = min(slowDown, t.Sub(now))
		}
	}
	return next, unreached, pause
}

// slowDown is how long a lane rests whose destination asks for less mail at once.
const slowDown = time.Minute

// ofDestination reports whether a failure is of the destination or of our standing with it, and so alike for all mail that
// goes there.
func ofDestination(o *deliver.Outcome) bool {
	switch o.Stage {
	case deliver.StageMail, deliver.StageRcpt, deliver.StageData, deliver.StageDot:
		return o.Reason.Blocked() || o.Reply.IsZero()
	}
	return true
}

func unreachable(o *deliver.Outcome) bool {
	return o.Result == deliver.TempFail && o.Stage == deliver.StageConnect && o.Reply.IsZero()
}

// learn notes what the attempt says about the lane, for the attempts that follow.
func (a *attempt) learn(s *Settlement, now time.Time) {
	success, trouble, nobody := false, false, len(a.fates) > 0
	for i := range a.outcomes {
		o := &a.outcomes[i]
		success = success || o.Result.Success()
		if a.untried[i] || a.interrupted(o) {
			nobody = false
			continue
		}
		down := unreachable(o)
		nobody = nobody && down
		trouble = trouble || (a.fates[i] == waits && ofDestination(o))
		if down && a.fates[i] == waits {
			a.r.down.begin(a.destination(i), o, s.Next.Sub(now))
		} else if o.Stage != deliver.StageRoute {
			a.r.down.end(a.destination(i))
		}
	}
	switch {
	case success:
		s.Wake = a.r.lanes.succeeded(a.lease.Lane)
	case trouble:
		a.r.lanes.failed(a.lease.Lane, nobody)
	}
}

// history is what the attempt leaves behind.
func (a *attempt) history(now time.Time) Attempt {
	h := Attempt{Time: now, Route: waysText(a.ways), Results: make([]AttemptResult, len(a.outcomes))}
	for i := range a.outcomes {
		o := &a.outcomes[i]
		r := AttemptResult{
			Recipient: a.lease.Envelope.To[i].Address, Result: o.Result, Status: o.Status, Reply: o.Reply, Detail: o.Detail,
			Stage: o.Stage, Host: o.Host, PossiblyDelivered: o.PossiblyDelivered,
		}
		if o.Addr.IsValid() {
			r.Addr = o.Addr.String()
		}
		if c := o.Reason.Class(); c != reason.Unknown {
			r.Class = string(c)
		}
		h.Results[i] = r
	}
	return h
}

// settleError tells errors of Settle that more tries do not mend.
func settleError(err error) error {
	if errors.Is(err, ErrLeaseLost) || errors.Is(err, ErrClosed) || errors.Is(err, ErrNotFound) {
		return err
	}
	return nil
}
