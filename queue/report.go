package queue

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/dsn/reason"
	"github.com/sortie-mail/sortie/route"
)

// How much of an original a failure report returns: small messages whole unless their sender asked for the header alone, and
// larger ones only where the sender asked for all of it (RFC 3461, section 4.3).
const (
	fullByDefault = 50 << 10
	fullAtMost    = 1 << 20
)

// maxReported is how many recipients one report tells of: one of 50,000 would be longer than most hosts take.
const maxReported = 5000

// report writes the report that follows from the fates, if one does, in as many mails as it takes. warned are those whose delay
// it tells. With an error there is none, and those that failed must stay.
func (a *attempt) report(now time.Time) (reports []Submission, warned []string, err error) {
	var recipients []dsn.Recipient
	for i, f := range a.fates {
		action := a.action(i, f, now)
		if action == "" {
			continue
		}
		recipients = append(recipients, a.reportOn(i, action, now))
		if action == dsn.Delayed {
			warned = append(warned, a.lease.Envelope.To[i].Address)
		}
	}
	for part := range slices.Chunk(recipients, maxReported) {
		one, err := a.write(part, now)
		if err != nil {
			a.r.Logger.Error("a report cannot be written; what failed is kept", "id", a.lease.ID, "error", err)
			return nil, nil, err
		}
		reports = append(reports, one)
	}
	return reports, warned, nil
}

// action is what is reported about a recipient now, "" for nothing.
func (a *attempt) action(i int, f fate, now time.Time) dsn.Action {
	to, o := &a.lease.Envelope.To[i], &a.outcomes[i]
	late := a.late()
	switch {
	case f == fails:
		return dsn.Failed
	case a.lease.Envelope.From == "":
		return ""
	case f == waits && !late.IsZero() && !now.Before(late) && to.Notify.Delay() && !a.lease.Warned[to.Address] && !a.uncounted(i):
		return dsn.Delayed
	case f == done && o.Result == deliver.Relayed && to.Notify.Success():
		if toMailbox(o) {
			return dsn.Delivered
		}
		return dsn.Relayed // nobody further on will say more (RFC 3461, section 5.2.2)
	case f == done && o.Result.Success() && a.lease.Envelope.DeliverBy.Trace && to.Notify != dsn.NotifyNever && !toMailbox(o):
		return dsn.Relayed // each host that passes it on is to say so (RFC 2852, by-trace)
	}
	return ""
}

// toMailbox reports that the message has not gone to another relay: LMTP ends at the mailbox (RFC 2033, section 2).
func toMailbox(o *deliver.Outcome) bool {
	return o.Hop.Kind == route.Smarthost && o.Hop.Protocol == route.LMTP
}

// reportOn is the part of a report about one recipient.
func (a *attempt) reportOn(i int, action dsn.Action, now time.Time) dsn.Recipient {
	to, o := &a.lease.Envelope.To[i], &a.outcomes[i]
	r := dsn.Recipient{
		Original: to.Original, Final: finalAddress(to.Address), Action: action, Status: o.Status, RemoteMTA: o.Host,
		Diagnostic: o.Reply, Detail: o.Detail, LastAttempt: now, LogID: string(a.lease.ID), Advice: advice(&o.Hop, &o.Reason),
	}
	if a.untried[i] && !o.End.IsZero() {
		r.LastAttempt = o.End
	}
	if o.Addr.IsValid() {
		r.RemoteAddr = o.Addr.Addr().String()
	}
	if o.Hop.Kind == route.Smarthost && !o.Hop.IsUnix() {
		r.Smarthost = o.Hop.Host
	}
	switch words := lastWords(o); {
	case words != nil:
		quote(&r, words)
	case o.RouteTrouble && a.ways[i] == "":
		r.Detail = "no way to the recipient could be found" // a router's own words are the administrator's
	case o.RouteTrouble && o.Reply.IsZero():
		r.Detail = "this mail system could not use its own way to the recipient; its log tells why"
	}
	if o.RouteTrouble {
		r.Advice = "Nothing is wrong with the address. The administrator of this mail system has to mend its way out; you may tell them."
	}
	if action == dsn.Delayed {
		r.RetryUntil = a.expires()
		if r.Status.Class() == 5 {
			r.Status = "4" + r.Status[1:] // refused for good, and tried again all the same
		}
	}
	a.tellOverdue(&r, o, now)
	return r
}

// lastWords is the newest answer of a host of an earlier hop, where the hop that came last got none: a detour that failed
// says less than what made it necessary. It is nil where there is none.
func lastWords(o *deliver.Outcome) *deliver.Try {
	if !o.Reply.IsZero() {
		return nil
	}
	for i := len(o.Tried) - 1; i >= 0; i-- {
		if !o.Tried[i].Reply.IsZero() {
			return &o.Tried[i]
		}
	}
	return nil
}

// quote makes the words of an earlier hop those of a report.
func quote(r *dsn.Recipient, words *deliver.Try) {
	r.Detail = "then another way was tried, without success"
	r.Diagnostic, r.RemoteMTA, r.RemoteAddr, r.Smarthost = words.Reply, words.Host, "", ""
	if words.Addr.IsValid() {
		r.RemoteAddr = words.Addr.Addr().String()
	}
	if words.Hop.Kind == route.Smarthost && !words.Hop.IsUnix() {
		r.Smarthost = words.Hop.Host
	}
	if s := words.Reply.Status(); s != "" {
		r.Status = s
	}
	r.Advice = advice(&words.Hop, &words.Reason)
}

// advice is what the sender can do about a refusal, "" where only the status tells. What a smarthost refuses is a matter of
// the recipient's provider only where it is about the recipient or the message.
func advice(hop *route.Hop, v *reason.Verdict) string {
	if hop.Kind != route.Smarthost {
		return v.Sender
	}
	switch v.Matter {
	case reason.MatterMailbox, reason.MatterMessage, reason.MatterSender:
		return v.Sender
	}
	return ""
}

// finalAddress is the address of a recipient with its type (RFC 3464, section 2.3.2; RFC 6533, section 3).
func finalAddress(address string) dsn.Address {
	if isASCII(address) {
		return dsn.Address{Type: "rfc822", Addr: address}
	}
	return dsn.Address{Type: "utf-8", Addr: address}
}

// write writes a report, without the message that it is about where it cannot be written with it.
func (a *attempt) write(recipients []dsn.Recipient, now time.Time) (Submission, error) {
	env := &a.lease.Envelope
	report := &dsn.Report{
		ReportingMTA: a.r.Hostname, EnvelopeID: env.EnvelopeID, Arrival: a.lease.Accepted, DeliverBy: env.DeliverBy.Time, Recipients: recipients,
		To: env.From, Date: now, UTF8: !isASCII(env.From), // an ASCII address may be at a host without SMTPUTF8
	}
	report.Original, report.HeadersOnly = a.original(slices.ContainsFunc(recipients, func(r dsn.Recipient) bool { return r.Action == dsn.Failed }))
	body, err := a.r.build(report)
	if err != nil {
		a.r.Logger.Error("a report cannot be written with the message that it is about; trying without", "id", a.lease.ID, "error", err)
		report.Original, report.HeadersOnly = nil, true
		if body, err = a.r.build(report); err != nil {
			return Submission{}, err
		}
	}
	// A report asks for no report (RFC 3461, section 6.2), and tells enough of its message to need the same protection (RFC 8689,
	// section 5). It is as urgent as that (RFC 6710).
	to := []Recipient{{Address: env.From, Notify: dsn.NotifyNever}}
	return Submission{Envelope: Envelope{From: "", To: to, UTF8: report.UTF8, RequireTLS: env.RequireTLS, Priority: env.Priority}, Body: body}, nil
}

// build is Build that comes back: a message whose report makes the builder panic must not take all other mail with it.
func (r *Runner) build(report *dsn.Report) (body []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			r.Logger.Error("writing a report panicked", "panic", p, "stack", string(debug.Stack()))
			body, err = nil, errors.New("writing it broke down; the log tells why")
		}
	}()
	return r.Reports.Build(report)
}

// original reads what a report returns of the message: of a failure as much as RET says, else the header section.
func (a *attempt) original(failed bool) (text []byte, headersOnly bool) {
	rc, err := a.r.Queue.Open(context.WithoutCancel(a.ctx), a.lease.ID) // the attempt's own time may be over
	if err != nil {
		a.r.Logger.Error("a report goes out without the message it is about", "id", a.lease.ID, "error", err)
		return nil, true
	}
	defer rc.Close()
	if failed && a.returnsAll() {
		if text, err = io.ReadAll(io.LimitReader(rc, fullAtMost)); err != nil {
			a.r.Logger.Error("a report returns only a part of its message", "id", a.lease.ID, "error", err)
			return headerOf(bufio.NewReader(bytes.NewReader(text))), true
		}
		return text, false
	}
	return headerOf(bufio.NewReader(rc)), true
}

func (a *attempt) returnsAll() bool {
	if a.lease.Envelope.RequireTLS { // whatever RET says (RFC 8689, section 5)
		return false
	}
	switch a.lease.Envelope.Return {
	case dsn.ReturnFull:
		return a.lease.Size <= fullAtMost
	case dsn.ReturnHeaders:
		return false
	}
	return a.lease.Size <= fullByDefault
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

// settled tells the log and the trace what was recorded, and looks whether what waits or is held was
// overtaken by news.
func (a *attempt) settled(s Settlement) {
	a.trace(s)
	for i, f := range a.fates {
		a.tell(i, f, &s)
	}
	for i := range s.Reports {
		a.r.Logger.Info("a report is on its way", "id", a.lease.ID, "to", s.Reports[i].Envelope.To[0].Address)
	}
	if s.Attempt.Time.IsZero() {
		return
	}
	back := a.joinOutages()
	moved := a.r.reroute.Load() != a.rerouted && a.moved(s)
	if moved {
		a.r.early.note(a.lease.Lane, s.Attempt.Time.Add(1)) // after this try, however coarse the clock is
	}
	if back || moved {
		a.free(s)
	}
}

func (a *attempt) trace(s Settlement) {
	if a.r.Trace.Settled == nil {
		return
	}
	defer func() {
		if p := recover(); p != nil {
			a.r.Logger.Error("Trace.Settled panicked", "id", a.lease.ID, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	a.r.Trace.Settled(*a.lease, a.outcomes, s)
}

// tell logs what follows for one recipient. What has arrived is told by the Deliverer.
func (a *attempt) tell(i int, f fate, s *Settlement) {
	o := &a.outcomes[i]
	level, text := logLevel(o), ""
	attrs := []any{"id", a.lease.ID, "sender", a.lease.Envelope.From, "outcome", o}
	if a.untried[i] {
		level = slog.LevelInfo // the alarm was raised by the try that found out
	}
	switch {
	case f == done && o.Result.Success(), a.uncounted(i):
		return
	case f == done:
		text = "mail is discarded, as the route says"
	case f == fails:
		text = "mail failed for good"
	case f == lost:
		level, text = slog.LevelWarn, "mail failed, and there is nobody to tell"
	case s.Hold != "":
		text, attrs = "mail is held", append(attrs, "why", s.Hold)
	case o.Result == deliver.PermFail:
		text, attrs = "mail waits, because the refusal is about our address", append(attrs, "next", s.Next)
	default:
		text, attrs = "mail waits", append(attrs, "next", s.Next)
	}
	a.r.Logger.Log(a.ctx, level, text, attrs...)
}
