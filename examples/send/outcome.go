package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/dsn/reason"
)

// A printer writes what is told to standard output, as text or as a JSON object a line.
type printer struct {
	w    io.Writer
	json bool
	err  error // the first one of w
}

func newPrinter(w io.Writer, asJSON bool) *printer { return &printer{w: w, json: asJSON} }

func (p *printer) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(p.w, format, args...); err != nil && p.err == nil {
		p.err = err
	}
}

func (p *printer) object(v any) {
	b, err := json.Marshal(v)
	if err != nil && p.err == nil {
		p.err = err
	}
	p.printf("%s\n", b)
}

// outcome tells what became of one recipient.
func (p *printer) outcome(o *deliver.Outcome) {
	if p.json {
		p.object(newOutcomeLine(o))
		return
	}
	p.printf("%v\n", o)
	for _, t := range o.Tried {
		p.printf("  before: %s: %s\n", place(&t), printable(t.Err))
	}
	if o.Reason.Class() != reason.Unknown {
		p.printf("  reason: %s. %s\n", o.Reason.Class(), o.Reason.Admin)
	}
	if times := o.Timing.String(); times != "" {
		p.printf("  time: %s\n", times)
	}
}

// place is where a host was tried: its name, address and stage, or the hop alone where no host was known.
func place(t *deliver.Try) string {
	switch {
	case t.Host == "":
		return fmt.Sprintf("%s (%s)", t.Hop, t.Stage)
	case !t.Addr.IsValid():
		return fmt.Sprintf("%s (%s)", printable(t.Host), t.Stage)
	}
	return fmt.Sprintf("%s %s (%s)", printable(t.Host), t.Addr, t.Stage)
}

// An outcomeLine is an outcome as JSON. Its fields are promised to those who read them.
type outcomeLine struct {
	Type              string         `json:"type"` // "outcome"
	Recipient         string         `json:"recipient"`
	Result            deliver.Result `json:"result"` // delivered, relayed, tempfail, permfail, held or discarded
	Status            string         `json:"status"` // enhanced status (RFC 3463)
	Exit              int            `json:"exit"`   // the exit code that this recipient alone would have
	Reply             string         `json:"reply,omitempty"`
	Detail            string         `json:"detail,omitempty"`
	Stage             string         `json:"stage"`
	Entry             string         `json:"entry,omitempty"` // of the routing file
	Hop               string         `json:"hop,omitempty"`
	Host              string         `json:"host,omitempty"`
	Addr              string         `json:"addr,omitempty"`
	TLS               *tlsLine       `json:"tls,omitempty"`
	Timing            deliver.Timing `json:"timing"`           // of each stage, in nanoseconds
	Reason            string         `json:"reason,omitempty"` // class of a refusal
	Tried             []tryLine      `json:"tried,omitempty"`  // what failed before
	PossiblyDelivered bool           `json:"possibly_delivered,omitempty"`
	RouteTrouble      bool           `json:"route_trouble,omitempty"`
}

type tlsLine struct {
	Version  string `json:"version"`
	Cipher   string `json:"cipher"`
	Verified bool   `json:"verified"`
}

type tryLine struct {
	Hop    string         `json:"hop"`
	Host   string         `json:"host,omitempty"`
	Addr   string         `json:"addr,omitempty"`
	Stage  string         `json:"stage"`
	Status string         `json:"status"`
	Error  string         `json:"error"`
	Timing deliver.Timing `json:"timing"`
}

func newOutcomeLine(o *deliver.Outcome) *outcomeLine {
	l := &outcomeLine{
		Type: "outcome", Recipient: o.Recipient, Result: o.Result, Status: string(o.Status), Exit: exitOf(o),
		Reply: o.Reply.String(), Detail: o.Detail, Stage: string(o.Stage), Host: o.Host,
		PossiblyDelivered: o.PossiblyDelivered, RouteTrouble: o.RouteTrouble, Timing: o.Timing,
	}
	if len(o.Route.Hops) > 0 {
		l.Entry, l.Hop = o.Route.Where(), o.Hop.String()
	}
	if o.Addr.IsValid() {
		l.Addr = o.Addr.String()
	}
	if o.TLS.Version != "" {
		l.TLS = &tlsLine{o.TLS.Version, o.TLS.Cipher, o.TLS.Verified}
	}
	if c := o.Reason.Class(); c != reason.Unknown {
		l.Reason = string(c)
	}
	for _, t := range o.Tried {
		try := tryLine{Hop: t.Hop.String(), Host: t.Host, Stage: string(t.Stage), Status: string(t.Status), Error: t.Err, Timing: t.Timing}
		if t.Addr.IsValid() {
			try.Addr = t.Addr.String()
		}
		l.Tried = append(l.Tried, try)
	}
	return l
}

// printable makes what others wrote, into DNS for one, fit for a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
