package memory_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/memory"
)

// A person looks at what waits, and holds it.
func ExampleNew() {
	ctx := context.Background()
	q := memory.New()
	defer q.Close()
	env := queue.Envelope{From: "me@example.org", To: queue.To("you@aol.com", "they@example.net")}
	if _, err := q.Enqueue(ctx, env, strings.NewReader("Subject: Hello\r\n\r\nHello!\r\n")); err != nil {
		fmt.Println(err)
	}
	if _, err := q.Hold(ctx, queue.Filter{Lane: "aol.com"}, "our address is listed there"); err != nil {
		fmt.Println(err)
	}
	entries, _, err := q.List(ctx, queue.Filter{}, "", 10)
	if err != nil {
		fmt.Println(err)
	}
	for _, e := range entries {
		fmt.Println(e.To[0].Address, e.State, e.Why)
	}
	// Output:
	// you@aol.com held our address is listed there
	// they@example.net waiting
}
