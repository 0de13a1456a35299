package disk_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/disk"
)

// A message is accepted, and delivered by the next process that opens the spool.
func ExampleOpen() {
	dir, err := os.MkdirTemp("", "spool")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()

	spool, err := disk.Open(dir)
	if err != nil {
		fmt.Println(err) // says who has it open, or what to do about the folder
		return
	}
	env := queue.Envelope{From: "me@example.org", To: queue.To("you@aol.com")}
	if _, err := spool.Enqueue(ctx, env, strings.NewReader("Subject: Hello\r\n\r\nHello!\r\n")); err != nil {
		fmt.Println(err)
	}
	spool.Close()

	spool, err = disk.Open(dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer spool.Close()
	leases, _, err := spool.Lease(ctx, queue.LeaseRequest{Max: 10, For: time.Minute})
	if err != nil {
		fmt.Println(err)
	}
	for _, l := range leases {
		body, err := spool.Open(ctx, l.ID)
		if err != nil {
			fmt.Println(err)
			continue
		}
		text, err := io.ReadAll(body)
		body.Close()
		fmt.Printf("to %s: %q %v\n", l.Envelope.To[0].Address, text, err)
		if err := spool.Settle(ctx, l, queue.Settlement{Done: []string{l.Envelope.To[0].Address}}); err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// to you@aol.com: "Subject: Hello\r\n\r\nHello!\r\n" <nil>
}
