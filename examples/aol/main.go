// Command aol plays the story that Sortie exists for, in one process: a queue on disk, the real deliverer, and a pretend
// internet with real sockets on loopback. One big provider starts to refuse a mail server as "open relay, open proxy or
// dynamic address". All other mail keeps flowing; senders are told, the administrator sees why, adds one line to the
// routing table, and the provider's mail takes the detour. It shows how the packages are wired together (world.go),
// and ends with 1 if anything did not happen as told.
//
//	go run ./examples/aol
package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/dsn"
)

// The provider's words are those that AOL used.
const refusal = "554 5.7.1 The IP address you are using to connect to AOL is either\n" +
	"open to the free relaying of e-mail, is serving as an open proxy,\n" +
	"or is a dynamic (residential) IP address. AOL cannot accept\n" +
	"further e-mail transactions from your server."

// One day of the story takes a second.
const (
	day        = time.Second
	lifetime   = 5 * day
	delayAfter = day
)

func main() {
	w, err := newWorld()
	if err != nil {
		fmt.Fprintln(os.Stderr, "aol: the stage could not be set:", err)
		os.Exit(1)
	}
	for _, act := range []func(*world){ordinaryDay, refused, delayed, failed, diagnosis, detour, ispRefuses} {
		act(w)
	}
	if err := w.close(); err != nil {
		w.check(false, "everything shuts down: %v", err)
	}
	os.Exit(w.verdict())
}

func ordinaryDay(w *world) {
	w.act("An ordinary day",
		"Ann and her colleagues at example.org run their own mail server with Sortie in it. It brings mail straight to",
		"the servers of whoever it is for. Ann writes to Bob, who has his mailbox at AOL.")
	w.send("ann", "bob@aol.com")
	w.until("Bob's mail arrives at AOL", func() bool { return len(w.aol.Mailbox()) == 1 })
}

func refused(w *world) {
	w.aol.Behave(lab.Refuse(lab.AtMail, refusal))
	w.act("AOL starts to refuse the server",
		"Overnight AOL has put the server's address on a list. The colleagues write 10 mails to people at AOL, and 200 to",
		"people elsewhere.")
	w.refusedAt = time.Now()
	for i := range 10 {
		w.send(colleague(i), fmt.Sprintf("friend%d@aol.com", i))
	}
	for i := range 200 {
		w.send(colleague(i), fmt.Sprintf("friend%d@%s", i, elsewhere[i%len(elsewhere)]))
	}
	w.until("all 200 mails for others arrive", func() bool { return w.arrivedElsewhere() == 200 })
	waiting := w.waitingFor("aol.com")
	w.check(waiting == 10 && len(w.aol.Mailbox()) == 1, "meanwhile the %d mails for AOL wait, and none is lost", waiting)
}

func delayed(w *world) {
	w.act("The senders are told that their mail is late",
		"In this play a day lasts a second, which is why all times in it are nearly the same. After a day (four hours,",
		"unless you set something else) each sender gets a note, once. Ann's says:")
	w.until("10 notes about a delay reach the senders", func() bool { return w.countReports(dsn.Delayed) == 10 })
	report := w.reportTo("ann", dsn.Delayed)
	w.quote(textOf(report))
	w.check(strings.Contains(textOf(report), "serving as an open proxy"), "the note quotes AOL's own words")
}

func failed(w *world) {
	w.act("The days go by",
		"Some more mail is written to people at AOL, and AOL goes on refusing. After five days Sortie gives up on the first",
		"10 mails, and returns them. Ann's note says:")
	w.sleepUntil(3 * day)
	for i := range 5 {
		w.send(colleague(i), fmt.Sprintf("late%d@aol.com", i))
	}
	w.until("10 notes about a failure reach the senders", func() bool { return w.countReports(dsn.Failed) == 10 })
	report := w.reportTo("ann", dsn.Failed)
	w.quote(textOf(report))
	w.check(strings.Contains(textOf(report), "serving as an open proxy"), "the note quotes AOL's own words")
	waiting := w.waitingFor("aol.com")
	w.check(waiting == 5, "the %d later mails for AOL still wait", waiting)
}

func diagnosis(w *world) {
	w.act("The administrator looks into it",
		"The session log has every line that was said. The newest refusal in it:")
	lines := w.lastRefusal()
	w.quote(strings.Join(lines, "\n"))
	w.check(strings.Contains(strings.Join(lines, "\n"), "free relaying of e-mail"), "the session log has AOL's words exactly as they were sent")
	w.say("Then the administrator opens the summary:")
	summary := w.summary()
	w.quote(summary)
	w.check(strings.Contains(summary, "aol.com") && strings.Contains(summary, "serving as an open proxy"), "the summary says who refuses, and in which words")
	w.check(strings.Contains(summary, "https://"), "the summary links to the remedy")
	w.check(strings.Contains(summary, "*@aol.com"), "the summary names the line to add meanwhile")
}

func detour(w *world) {
	const line = "*@aol.com   smtp://mail.isp.example"
	w.act("The detour",
		"Until AOL takes the address off its list, its mail shall go through the internet provider's server, and all else",
		"straight as before. The administrator adds one line to the routing table, while everything runs:", "", "    "+line)
	w.addRoute(line)
	w.until("the 5 mails that waited for AOL go through the ISP", func() bool { return len(w.isp.Mailbox()) == 5 })
	for i := range 20 {
		w.send(colleague(i), fmt.Sprintf("detour%d@%s", i, elsewhere[i%len(elsewhere)]))
	}
	w.send("ann", "bob@aol.com")
	w.until("20 more mails for others still go straight to them", func() bool { return w.arrivedElsewhere() == 220 })
	w.until("new mail for AOL goes through the ISP", func() bool { return len(w.isp.Mailbox()) == 6 })
	w.check(w.ispHasOnly("aol.com"), "the ISP was given nothing but mail for AOL")
	w.until("nothing waits for AOL any more", func() bool { return w.waitingFor("aol.com") == 0 }) // the settlement comes after the delivery
}

func ispRefuses(w *world) {
	w.isp.Behave(lab.Refuse(lab.AtRcpt, "550 5.7.1 Your contract allows 6 mails a day", "dave@aol.com"))
	w.act("The ISP refuses one",
		"Ann writes to Dave at AOL. This time it is the ISP that says no, and the note must not send her to AOL with it:")
	w.send("ann", "dave@aol.com")
	w.until("the note about the failure reaches Ann", func() bool { return w.countReports(dsn.Failed) == 11 })
	report := w.reportTo("ann", dsn.Failed)
	w.quote(textOf(report))
	w.check(strings.Contains(textOf(report), "mail.isp.example") && strings.Contains(textOf(report), "Your contract allows 6 mails a day"),
		"the note names the ISP as the one to contact, with its words")
}
