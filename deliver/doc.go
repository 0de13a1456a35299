// Package deliver makes one attempt to hand a message to where its route leads: the recipient domain's mail exchangers, or a
// smarthost. It is an SMTP and LMTP client, the rules for MX hosts, and nothing of a queue: it can be used alone.
//
// The types to know are [Deliverer], which does it; [Message], what is sent; and [Outcome], what became of each recipient.
//
//	d := &deliver.Deliverer{Hostname: "mail.example.org"}
//	defer d.Close()
//	outcomes := d.Deliver(ctx, route.Route{Hops: []route.Hop{{}}}, &deliver.Message{ // one hop: direct
//		From: "me@example.org",
//		To:   []deliver.Recipient{{Address: "you@aol.com"}},
//		Open: func() (io.ReadCloser, error) { return os.Open("message.eml") },
//	})
//	for _, o := range outcomes {
//		fmt.Println(o)
//	}
//
// A [Trace], a log/slog logger and a [Transcript] show what happens meanwhile.
package deliver
