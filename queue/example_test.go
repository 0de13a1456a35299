package queue_test

import (
	"context"
	"fmt"
	"log"
	"strings"
	"time"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/deliver/resolve"
	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/memory"
	"github.com/sortie-mail/sortie/route"
)

// A mail goes through a queue to a server of a pretend internet. With disk.Open("spool") for the queue, and without Resolver and
// Dial, the same program sends on the real one.
func Example() {
	internet, err := lab.New(lab.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer internet.Close()
	if err := internet.Zone("aol.test", "@ MX 10 mx\nmx A 192.0.2.10"); err != nil {
		log.Fatal(err)
	}
	mx := internet.Server("mx.aol.test")

	spool := memory.New()
	runner := &queue.Runner{
		Queue:  spool,
		Router: route.Direct,
		Deliverer: &deliver.Deliverer{
			Hostname: "mail.example.org",
			Resolver: &resolve.Resolver{Servers: []string{internet.DNS()}},
			Dial:     internet.Dial,
		},
	}
	go runner.Run(context.Background())

	message := strings.NewReader("From: <me@example.org>\r\nTo: <you@aol.test>\r\nSubject: Hello\r\n\r\nHello.\r\n")
	_, err = spool.Enqueue(context.Background(), queue.Envelope{From: "me@example.org", To: queue.To("you@aol.test")}, message)
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	arrived, err := mx.WaitMail(ctx, 1)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(arrived[0].From, arrived[0].Addresses())
	if err := runner.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: me@example.org [you@aol.test]
}

// What waits can be looked at, and freed.
func ExampleInspector() {
	var spool queue.Inspector = memory.New()
	ctx := context.Background()
	entries, _, err := spool.List(ctx, queue.Filter{Lane: "aol.com", OlderThan: time.Hour}, "", 100)
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range entries {
		fmt.Println(e.ID, e.From, e.Attempts, e.Due, e.Last.Results)
	}
	freed, err := spool.Retry(ctx, queue.Filter{Lane: "aol.com"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(freed, "are tried now")
	// Output: 0 are tried now
}

// A host that does not know whether its last call got through calls again, with the same key.
func ExampleEnvelope_key() {
	ctx := context.Background()
	spool := memory.New()
	defer spool.Close()
	env := queue.Envelope{From: "shop@example.org", To: queue.To("you@aol.com"), Key: "receipt for order 17"}
	first, _ := spool.Enqueue(ctx, env, strings.NewReader("Subject: Your order\r\n\r\nThank you.\r\n"))
	again, _ := spool.Enqueue(ctx, env, strings.NewReader("Subject: Your order\r\n\r\nThank you.\r\n"))
	stats, _ := spool.Stats(ctx)
	fmt.Println(first == again, stats.Messages)
	// Output: true 1
}
