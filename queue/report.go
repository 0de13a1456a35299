package queue

import (
	"bufio"
	"bytes"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/route"
)

// How much of an original a failure report returns: small messages whole unless their sender asked for the header alone, and
// larger ones only where the sender asked for all of it (RFC 3461, section 4.3).
const (
	fullByDefault = 50 << 10
	fullAtMost    = 1 << 20
)

// action is what is reported about a recipient now, "" for nothing.
func (a *attempt) action(i int, f fate, now time.Time) dsn.Action {
	to, o := &a.lease.Envelope.To[i], &a.outcomes[i]
	late := a.r.Schedule.late(a.lease.Accepted)
	switch {
	case f == fails:
		return dsn.Failed
	case a.lease.Envelope.From == "":
		return ""
	case f == waits && !late.IsZero() && !now.Before(late) && to.Notify.Delay() && !a.lease.Warned[to.Address] && !a.interrupted(o):
		return dsn.Delayed
	case f == done && o.Result == deliver.Relayed && to.Notify.Success():
		if o.Hop.Kind == route.Smarthost && o.Hop.Protocol == route.LMTP {
			return dsn.Delivered // LMTP ends at the mailbox (RFC 2033, section 2)
		}
		return dsn.Relayed // nobody further on will say more (RFC 3461, section 5.2.2)
	}
	return ""
}

// reportOn is the part of a report about one recipient.
func (a *attempt) reportOn(i int, action dsn.Action, now time.Time) dsn.Recipient {
	to, o := &a.lease.Envelope.To[i], &a.outcomes[i]
	r := dsn.Recipient{
		Original: to.Original, Final: finalAddress(to.Address), Action: action, Status: o.Status, RemoteMTA: o.Host,
		Diagnostic: o.Reply, Detail: o.Detail, LastAttempt: now, LogID: string(a.lease.ID), Advice: o.Reason.Sender,
	}
	if o.Addr.IsValid() {
		r.RemoteAddr = o.Addr.Addr().String()
	}
	if o.Hop.Kind == route.Smarthost && !o.Hop.IsUnix() {
		r.Smarthost = o.Hop.Host
	}
	if action == dsn.Delayed {
		r.RetryUntil = a.r.Schedule.expires(a.lease.Accepted)
		if r.Status.Class() == 5 {
			r.Status = "4" + r.Status[1:] // refused for good, and tried again all the same
		}
	}
	return r
}

// finalAddress is the address of a recipient with its type (RFC 3464, section 2.3.2; RFC 6533, section 3).
func finalAddress(address string) dsn.Address {
	if isASCII(address) {
		return dsn.Address{Type: "rfc822", Addr: address}
	}
	return dsn.Address{Type: "utf-8", Addr: address}
}

// addReport makes a report a part of the settlement. Where it cannot be written, what would have been settled by it is held:
// a failure that nobody hears of would be lost mail.
func (a *attempt) addReport(s *Settlement, recipients []dsn.Recipient) {
	env := &a.lease.Envelope
	report := &dsn.Report{
		ReportingMTA: a.r.Hostname, EnvelopeID: env.EnvelopeID, Arrival: a.lease.Accepted, Recipients: recipients,
		To: env.From, Date: time.Now(), UTF8: !isASCII(env.From), // an ASCII address may be at a host without SMTPUTF8
	}
	report.Original, report.HeadersOnly = a.original(recipients)
	body, err := a.r.Reports.Build(report)
	if err != nil {
		a.r.Logger.Error("a report cannot be written without what it reports on; trying without", "id", a.lease.ID, "error", err)
		report.Original, report.HeadersOnly = nil, true
		body, err = a.r.Reports.Build(report)
	}
	if err != nil {
		a.r.Logger.Error("a report cannot be written; its message is held", "id", a.lease.ID, "error", err)
		for i := range recipients {
			s.Done = slices.DeleteFunc(s.Done, func(address string) bool { return address == recipients[i].Final.Addr })
		}
		s.Warned, s.Hold = nil, "the report on it cannot be written: "+err.Error()
		return
	}
	s.Reports = append(s.Reports, Submission{
		// A report asks for no report (RFC 3461, section 6.2).
		Envelope: Envelope{From: "", To: []Recipient{{Address: env.From, Notify: dsn.NotifyNever}}, UTF8: report.UTF8},
		Body:     body,
	})
}

// original reads what a report returns of the message: of a failure as much as RET says, else the header section.
func (a *attempt) original(recipients []dsn.Recipient) (text []byte, headersOnly bool) {
	rc, err := a.r.Queue.Open(a.ctx, a.lease.ID)
	if err != nil {
		a.r.Logger.Error("a report goes out without the message it is about", "id", a.lease.ID, "error", err)
		return nil, true
	}
	defer rc.Close()
	if a.returnsAll(recipients) {
		if text, err = io.ReadAll(io.LimitReader(rc, fullAtMost)); err != nil {
			a.r.Logger.Error("a report returns only a part of its message", "id", a.lease.ID, "error", err)
			return headerOf(bufio.NewReader(bytes.NewReader(text))), true
		}
		return text, false
	}
	return headerOf(bufio.NewReader(rc)), true
}

func (a *attempt) returnsAll(recipients []dsn.Recipient) bool {
	failed := false
	for i := range recipients {
		failed = failed || recipients[i].Action == dsn.Failed
	}
	size := a.lease.Size
	switch a.lease.Envelope.Return {
	case dsn.ReturnFull:
		return failed && size <= fullAtMost
	case dsn.ReturnHeaders:
		return false
	}
	return failed && size <= fullByDefault
}

// headerOf reads a header section without the empty line that ends it.
func headerOf(r *bufio.Reader) []byte {
	var header []byte
	for len(header) <= MaxHeader {
		line, err := r.ReadSlice('\n')
		if err == nil && len(bytes.TrimRight(line, "\r\n")) == 0 && (len(header) == 0 || header[len(header)-1] == '\n') {
			break
		}
		header = append(header, line...)
		if err != nil && err != bufio.ErrBufferFull {
			break
		}
	}
	return header
}

// settled tells the log and the trace what was recorded.
func (a *attempt) settled(s Settlement) {
	l := a.lease
	if a.r.Trace.Settled != nil {
		a.r.Trace.Settled(*l, a.outcomes, s)
	}
	for i, f := range a.fates {
		a.tell(&a.outcomes[i], f, &s)
	}
	for i := range s.Reports {
		a.r.Logger.Info("a report is on its way", "id", l.ID, "to", s.Reports[i].Envelope.To[0].Address)
	}
}

// tell logs what follows for one recipient. What has arrived is told by the Deliverer.
func (a *attempt) tell(o *deliver.Outcome, f fate, s *Settlement) {
	level, text := logLevel(o), ""
	attrs := []any{"id", a.lease.ID, "sender", a.lease.Envelope.From, "outcome", o}
	switch {
	case f == done && o.Result.Success(), a.interrupted(o):
		return
	case f == done:
		text = "mail is discarded, as the route says"
	case f == fails:
		text = "mail failed for good"
	case f == lost:
		level, text = slog.LevelWarn, "mail failed, and there is nobody to tell"
	case s.Hold != "":
		text, attrs = "mail is held", append(attrs, "why", s.Hold)
	default:
		text, attrs = "mail waits", append(attrs, "next", s.Next)
	}
	a.r.Logger.Log(a.ctx, level, text, attrs...)
}
