package lab_test

import (
	"context"
	"fmt"
	"log"
	"net/smtp"

	"github.com/sortie-mail/sortie/deliver/lab"
)

// A provider refuses, then takes the message; what the client sends, and what it is told, can be read afterwards.
func Example() {
	internet, err := lab.New(lab.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer internet.Close()

	err = internet.Zone("aol.test", `
		@   MX 10 mx
		mx  A  192.0.2.10`)
	if err != nil {
		log.Fatal(err)
	}
	mx := internet.Server("mx.aol.test", lab.Times(1, lab.Refuse(lab.AtMail, "450 4.7.1 Not just now")))

	conn, err := internet.Dial(context.Background(), "tcp", "192.0.2.10:25")
	if err != nil {
		log.Fatal(err)
	}
	client, err := smtp.NewClient(conn, "mx.aol.test")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(send(client, "me@example.org", []string{"you@aol.test"}, "Subject: Hello\r\n\r\nHello.\r\n"))
	fmt.Println(send(client, "me@example.org", []string{"you@aol.test"}, "Subject: Hello\r\n\r\nHello.\r\n"))
	_ = client.Quit()

	for _, msg := range mx.Mailbox() {
		fmt.Println(msg.From, msg.Addresses(), len(msg.Body))
	}
	// Output:
	// 450 "4.7.1 Not just now"
	// <nil>
	// me@example.org [you@aol.test] 26
}

// A dialogue is played word for word.
func ExampleScript() {
	internet, err := lab.New(lab.Options{InMemory: true})
	if err != nil {
		log.Fatal(err)
	}
	defer internet.Close()
	mx := internet.Server("mx.aol.test", lab.Script(`
		S: 220 mx.aol.test ESMTP
		C: EHLO *
		S: 250 mx.aol.test
		C: MAIL FROM:<me@example.org>
		S: 554 5.7.1 The IP address is either open to the free relaying of e-mail, or dynamic
		C: QUIT
		S: 221 Bye
		S-CLOSE`))

	conn, err := internet.Dial(context.Background(), "tcp", "mx.aol.test:25")
	if err != nil {
		log.Fatal(err)
	}
	client, err := smtp.NewClient(conn, "mx.aol.test")
	if err != nil {
		log.Fatal(err)
	}
	err = client.Mail("me@example.org")
	fmt.Println(err)
	_ = client.Quit()
	fmt.Println(mx.ScriptError())
	// Output:
	// 554 "5.7.1 The IP address is either open to the free relaying of e-mail, or dynamic"
	// <nil>
}
