package dsn_test

import (
	"bytes"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/sortie-mail/sortie/dsn"
)

// The report of a refusal: the text for people is the first part.
func Example() {
	report := &dsn.Report{
		ReportingMTA: "mail.example.org",
		To:           "me@example.org",
		Arrival:      time.Date(2026, time.November, 24, 21, 31, 0, 0, time.UTC),
		Recipients: []dsn.Recipient{{
			Final:      dsn.Address{Type: "rfc822", Addr: "you@aol.com"},
			Action:     dsn.Failed,
			Status:     "5.1.1",
			RemoteMTA:  "mx.aol.com",
			RemoteAddr: "192.0.2.10",
			Diagnostic: dsn.Reply{Code: 550, Lines: []string{"5.1.1 <you@aol.com>: there is nobody", "5.1.1 of that name here"}},
		}},
		Original: []byte("From: me@example.org\r\nSubject: Lunch on Friday\r\n\r\nAt noon?\r\n"),
	}
	mail, err := new(dsn.Builder).Build(report)
	if err != nil {
		log.Fatal(err)
	}

	text := strings.ReplaceAll(string(mail), "\r\n", "\n")
	_, text, _ = strings.Cut(text, "charset=us-ascii\n")
	text, _, _ = strings.Cut(text, "\n--")
	fmt.Println(text)
	// Output:
	// This is the mail system at mail.example.org. A message that you sent
	// could not be delivered to one or more of its recipients.
	//
	//     Subject: Lunch on Friday
	//     Sent:    Tue, 24 Nov 2026, 21:31 UTC
	//
	// It could not be delivered to:
	//
	//     you@aol.com
	//
	// The mail server mx.aol.com [192.0.2.10] refused it, and said:
	//
	//     550-5.1.1 <you@aol.com>: there is nobody
	//     550 5.1.1 of that name here
	//
	// What you can do: Check the address for mistakes. If it is right, ask the
	// recipient in another way whether it is still in use.
	//
	// Your message is attached.
}

// What a mail system of another make reported.
func ExampleParse() {
	mail, err := os.Open("testdata/postfix.eml")
	if err != nil {
		log.Fatal(err)
	}
	defer mail.Close()
	report, err := dsn.Parse(mail)
	if err != nil {
		log.Fatal(err) // errors.Is(err, dsn.ErrNotReport): it is other mail
	}
	for _, r := range report.Recipients {
		fmt.Println(r.Final.Addr, r.Action, r.Status)
		fmt.Println(r.RemoteMTA, "said:", r.Diagnostic)
	}
	// Output:
	// you@shop.example failed 5.2.2
	// mx1.shop.example said: 552 5.2.2 <you@shop.example>: the mailbox of this user is full, please try again later
}

// Reports in the language of their reader. What a file like de.txt has to have is written down at the top of
// templates/en.txt.
func ExampleParseTemplates() {
	templates, err := dsn.ParseTemplates(os.DirFS("testdata/templates"))
	if err != nil {
		log.Fatal(err)
	}
	builder := &dsn.Builder{
		Templates: templates,
		Language: func(r *dsn.Report) string {
			if strings.HasSuffix(r.To, ".de") {
				return "de-DE" // finds de.txt
			}
			return "en"
		},
	}
	mail, err := builder.Build(&dsn.Report{
		ReportingMTA: "mail.firma.de",
		To:           "ich@firma.de",
		Recipients:   []dsn.Recipient{{Final: dsn.Address{Addr: "du@beispiel.de"}, Action: dsn.Failed, Status: "5.1.1"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	for line := range bytes.Lines(mail) {
		if bytes.HasPrefix(line, []byte("Subject:")) {
			fmt.Println(strings.TrimSpace(string(line)))
		}
	}
	// Output: Subject: Unzustellbare E-Mail
}

func ExampleParseReply() {
	reply, err := dsn.ParseReply("550-5.7.1 Your address is listed\r\n550 5.7.1 at bl.example.net")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(reply.Code, reply.Status(), reply.Permanent())
	fmt.Println(reply.Text())
	// Output:
	// 550 5.7.1 true
	// Your address is listed
	// at bl.example.net
}
