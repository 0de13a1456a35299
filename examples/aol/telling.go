package main

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/jhillyerd/enmime/v2"

	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/relaycheck"
)

// patience is how long a step of the story may take to happen.
const patience = 10 * time.Second

// act begins a part of the story.
func (w *world) act(title string, text ...string) {
	w.acts++
	fmt.Printf("\n%d. %s\n\n", w.acts, title)
	w.say(text...)
}

func (w *world) say(lines ...string) {
	for _, line := range lines {
		fmt.Println("   " + line)
	}
	fmt.Println()
}

// quote shows a text that Sortie has written.
func (w *world) quote(text string) {
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		fmt.Println("   | " + strings.TrimRight(line, "\r"))
	}
	fmt.Println()
}

// check tells what happened, or that it did not.
func (w *world) check(ok bool, format string, args ...any) {
	mark := "   [ok] "
	if !ok {
		mark = "   [!!] this did not happen: "
		w.failures++
	}
	fmt.Printf(mark+format+"\n", args...)
}

// until waits for something to happen.
func (w *world) until(what string, happened func() bool) {
	start := time.Now()
	for !happened() && time.Since(start) < patience {
		time.Sleep(10 * time.Millisecond)
	}
	w.check(happened(), "%s", what)
}

// sleepUntil waits for a day of the story, counted from the refusal.
func (w *world) sleepUntil(d time.Duration) { time.Sleep(time.Until(w.refusedAt.Add(d))) }

func (w *world) verdict() int {
	if w.failures > 0 {
		fmt.Printf("\n%d things did not happen.\n", w.failures)
		return 1
	}
	fmt.Printf("\nAll of it happened: %d mails were sent, and each has arrived or its sender knows that it did not.\n", w.sent)
	return 0
}

// countReports counts the notes of a kind that have reached Ann and her colleagues.
func (w *world) countReports(kind dsn.Action) (n int) {
	for _, m := range w.home.Mailbox() {
		if actionOf(m) == kind {
			n++
		}
	}
	return n
}

// reportTo is the newest note of a kind to a colleague.
func (w *world) reportTo(name string, kind dsn.Action) (found lab.Message) {
	for _, m := range w.home.Mailbox() {
		if actionOf(m) == kind && m.Addresses()[0] == name+"@example.org" {
			found = m
		}
	}
	return found
}

func actionOf(m lab.Message) dsn.Action {
	report, err := dsn.Parse(bytes.NewReader(m.Body))
	if err != nil || len(report.Recipients) == 0 {
		return ""
	}
	return report.Recipients[0].Action
}

// textOf is what a person reads of a note.
func textOf(m lab.Message) string {
	mail, err := enmime.ReadEnvelope(bytes.NewReader(m.Body))
	if err != nil {
		return ""
	}
	return "Subject: " + mail.GetHeader("Subject") + "\n\n" + mail.Text
}

// lastRefusal is the end of the newest session of the log in which AOL refused: from our MAIL command to its last line.
func (w *world) lastRefusal() []string {
	lines := w.log.lines()
	end := len(lines) - 1
	for end >= 0 && !strings.Contains(lines[end], "S: 554 5.7.1") && !strings.Contains(lines[end], "S: 554 ") {
		end--
	}
	if end < 0 {
		return nil
	}
	start := end
	for start > 0 && !strings.Contains(lines[start], "C: MAIL FROM") {
		start--
	}
	var session []string
	for _, line := range lines[start : end+1] { // other sessions may have lines between
		if strings.Contains(line, "mail.aol.com") {
			session = append(session, line)
		}
	}
	return session
}

// summary is what the administrator opens first: the audit of who may send mail through this server, and who refuses it.
func (w *world) summary() string {
	findings := append(relaycheck.AuditPolicy(w.policy), w.refusals.Findings()...)
	return relaycheck.Summarize("mail.example.org", time.Now(), findings...).String()
}
