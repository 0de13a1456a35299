package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/dsn/reason"
	"github.com/sortie-mail/sortie/route"
)

// KindSuppress is the kind of the notes that are the suppression list: addresses to which nothing is sent, because a host said for
// good that there is nobody, or because somebody says so. A [Runner] refuses such recipients without a connection, with a report
// that quotes what was said, unless the envelope wants it [Envelope.Anyway].
const KindSuppress = "suppress"

// A Suppression is one address on the list, and why.
type Suppression struct {
	Address string       `json:"address"`
	Class   reason.Class `json:"class,omitempty"`
	Status  dsn.Status   `json:"status,omitempty"` // 5.x.x; where it is anything else, 5.1.0
	Reply   dsn.Reply    `json:"reply,omitzero"`   // what the host said; it is shortened where it is long, as is Detail
	Detail  string       `json:"detail,omitempty"` // why, in our words, where no host said anything
	Host    string       `json:"host,omitempty"`   // which said so
	Since   time.Time    `json:"since,omitzero"`   // when it was found out; Suppress writes now for the zero time
	Until   time.Time    `json:"until,omitzero"`   // when it ends; the zero time is never
}

// Suppress puts addresses on the suppression list, or says anew why they are on it. It fails with an [*EnvelopeError] for what is no
// address, and as [Notebook.Note] does.
func Suppress(ctx context.Context, nb Notebook, list ...Suppression) error {
	notes := make([]Note, len(list))
	for i := range list {
		if err := CheckAddress(list[i].Address); err != nil {
			return &EnvelopeError{"recipient", list[i].Address, err.Error()}
		}
		notes[i] = list[i].note(time.Now())
	}
	return nb.Note(ctx, notes...)
}

// Suppressed tells whether an address is on the list, without regard to case, and why.
func Suppressed(ctx context.Context, nb Notebook, address string) (Suppression, bool, error) {
	return lookSuppressed(ctx, nb, suppressKey(address))
}

func lookSuppressed(ctx context.Context, nb Notebook, key string) (Suppression, bool, error) {
	n, ok, err := nb.Lookup(ctx, KindSuppress, key)
	if !ok || err != nil {
		return Suppression{}, false, err
	}
	return readSuppression(n), true, nil
}

// Lift takes addresses off the list.
func Lift(ctx context.Context, nb Notebook, addresses ...string) error {
	notes := make([]Note, len(addresses))
	for i, address := range addresses {
		notes[i] = lifted(address)
	}
	return nb.Note(ctx, notes...)
}

func lifted(address string) Note { return Note{Kind: KindSuppress, Key: suppressKey(address)} }

// Suppressions gives the list, by address, as [Notebook.Notes] does.
func Suppressions(ctx context.Context, nb Notebook, cursor string, limit int) (list []Suppression, next string, err error) {
	notes, next, err := nb.Notes(ctx, KindSuppress, "", cursor, limit)
	for i := range notes {
		list = append(list, readSuppression(notes[i]))
	}
	return list, next, err
}

// suppressKey is the address as it is compared: nobody has mailboxes that differ in case alone.
func suppressKey(address string) string { return suppressKeyIn(address, LaneOf(address)) }

// suppressKeyIn is that of an address whose lane is known.
func suppressKeyIn(address, lane string) string {
	return strings.ToLower(address[:max(strings.LastIndexByte(address, '@'), 0)]) + "@" + lane
}

// Bounds on what a suppression quotes, in octets, so that its note has room for it.
const (
	maxWords = 1000
	maxHost  = 255
	maxClass = 50
)

func (s *Suppression) note(now time.Time) Note {
	kept := *s
	kept.Until = time.Time{} // the note's own knows of clocks that jump
	if kept.Since.IsZero() {
		kept.Since = now
	}
	kept.Host, kept.Class = shortened(kept.Host, maxHost), reason.Class(shortened(string(kept.Class), maxClass))
	kept.Status = failed(kept.Status)
	n := Note{Kind: KindSuppress, Key: suppressKey(s.Address), Until: s.Until}
	for words := maxWords; ; words /= 2 { // what must be escaped is longer
		kept.Detail = shortened(kept.Detail, words)
		kept.Reply.Lines = shortLines(kept.Reply.Lines, words)
		text, err := json.Marshal(&kept)
		if err == nil && len(text) <= MaxNoteValue {
			n.Value = string(text)
		}
		if n.Value != "" || words == 0 {
			return n
		}
	}
}

// shortLines gives the lines of a reply that have room in so many octets, the last one shortened.
func shortLines(lines []string, room int) []string {
	var kept []string
	for _, line := range lines {
		if room <= 0 {
			break
		}
		kept = append(kept, shortened(line, room))
		room -= len(line) + 1
	}
	return kept
}

// failed is a status as one of a failure for good.
func failed(s dsn.Status) dsn.Status {
	if p, ok := dsn.ParseStatus(string(s)); ok && p.Class() == 5 {
		return p
	}
	return "5.1.0"
}

// readSuppression reads a note. One that a person wrote with another value suppresses all the same.
func readSuppression(n Note) (s Suppression) {
	if err := json.Unmarshal([]byte(n.Value), &s); err != nil {
		s = Suppression{Detail: shortened(n.Value, maxWords)}
	}
	if s.Address == "" {
		s.Address = n.Key
	}
	s.Status, s.Until = failed(s.Status), n.Until
	return s
}

// String says in plain words why an address is on the list, since when and until when.
func (s *Suppression) String() string {
	said := s.Reply.String()
	switch {
	case said != "" && s.Host != "":
		said = s.Host + " said: " + said
	case said != "":
		said = "its host said: " + said
	case s.Detail != "":
		said = s.Detail
	default:
		said = "it does not take mail"
	}
	if !s.Since.IsZero() {
		said = "on " + day(s.Since) + " " + said
	}
	until := "until it is taken off the list"
	if !s.Until.IsZero() {
		until = "until " + day(s.Until)
	}
	return said + " (this mail system sends nothing to the address " + until + ")"
}

func day(t time.Time) string { return t.UTC().Format("2 Jan 2006 15:04 MST") }

// refuseSuppressed decides the recipients that are on the suppression list.
func (a *attempt) refuseSuppressed() {
	if a.r.book == nil || a.lease.Envelope.Anyway {
		return
	}
	for i, to := range a.lease.Envelope.To {
		s, ok, err := lookSuppressed(a.ctx, a.r.book, suppressKeyIn(to.Address, a.lease.Lane))
		if err != nil {
			return // what is sent once more does less harm than what is not
		}
		if !ok {
			continue
		}
		if a.refused == nil {
			a.refused = make([]bool, len(a.lease.Envelope.To))
		}
		a.refused[i], a.untried[i] = true, true
		a.outcomes[i] = deliver.Outcome{
			Recipient: to.Address, Result: deliver.PermFail, Status: s.Status, Stage: deliver.StageRoute, End: s.Since,
			Detail: "not tried, because " + s.String(),
		}
		if slices.Contains(nobody, s.Class) { // others may say that the mail waits
			a.outcomes[i].Reason = (*reason.Rules)(nil).Explain(s.Class)
		}
	}
}

// suppress gives the notes that follow from an attempt: of recipients that a host or DNS has refused for good because there is
// nobody, and of those that were tried all the same, and have taken mail.
func (a *attempt) suppress(now time.Time) (notes []Note) {
	if a.r.book == nil {
		return nil
	}
	for i := range a.outcomes {
		o := &a.outcomes[i]
		to := a.lease.Envelope.To[i].Address
		switch {
		case !a.ends(a.fates[i]) || a.untried[i]:
		case o.Result.Success() && a.lease.Envelope.Anyway:
			if _, ok, err := a.r.book.Lookup(context.WithoutCancel(a.ctx), KindSuppress, suppressKey(to)); ok && err == nil {
				notes = append(notes, lifted(to))
			}
		case a.r.SuppressFor > 0 && isNobody(o):
			s := Suppression{
				Address: to, Class: nobodyClass(o), Status: o.Status, Reply: o.Reply, Detail: o.Detail, Host: o.Host,
				Since: now, Until: now.Add(min(a.r.SuppressFor, longestWait)),
			}
			notes = append(notes, s.note(now))
		}
	}
	return notes
}

// nobody are the classes of refusals that say that there is nobody. A mailbox that is full or suspended has somebody, and what is
// about us, our message or their policy says nothing of the address.
var nobody = []reason.Class{reason.UserUnknown, reason.MailboxDisabled, reason.HasMoved, reason.HostUnknown, reason.NoMailHere}

// How sure a refusal must be. Less is enough where its enhanced status says the same as its class.
const (
	surely       = 0.8
	surelyStatus = 0.7
)

// isNobody reports whether a recipient was refused for good because there is nobody, and nothing else can be meant.
func isNobody(o *deliver.Outcome) bool {
	if o.Result != deliver.PermFail || o.RouteTrouble || nobodyClass(o) == "" {
		return false
	}
	switch o.Stage {
	case deliver.StageRoute:
		return o.Hop.Kind == route.MX && o.Reply.IsZero() // DNS says so
	case deliver.StageRcpt, deliver.StageData, deliver.StageDot:
	default:
		return false
	}
	v := &o.Reason
	other := slices.ContainsFunc(v.Classes, func(c reason.Class) bool { return !slices.Contains(nobody, c) })
	return !other && (v.Confidence >= surely || (o.Status == "5.1.1" && v.Confidence >= surelyStatus))
}

// nobodyClass is why there is nobody; "" where that is not what an outcome says.
func nobodyClass(o *deliver.Outcome) reason.Class {
	switch c := o.Reason.Class(); {
	case slices.Contains(nobody, c):
		return c
	case o.Stage == deliver.StageRoute && o.Status == "5.1.2": // RFC 3463, section 3.2: there is no such domain
		return reason.HostUnknown
	case o.Stage == deliver.StageRoute && o.Status == "5.1.10": // RFC 7505, section 4.1: a null MX record
		return reason.NoMailHere
	}
	return ""
}

// openBook finds where notes are kept.
func (r *Runner) openBook() {
	book, ok := r.Queue.(Notebook)
	if ok {
		r.book = book
	} else if r.SuppressFor > 0 {
		r.Logger.Warn(fmt.Sprintf("%T keeps no notes: nothing is put on a suppression list", r.Queue))
	}
}
