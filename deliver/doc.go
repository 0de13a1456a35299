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
// A [Trace], a log/slog logger and a [Transcript] show what happens meanwhile: the transcript has every line that was said,
// so that a refusal can be read word for word. [Deliverer.Explain] tells where mail would go, and sends none.
//
// # What decides an outcome
//
// The hosts of a domain are tried in order of preference, each at its addresses, until every recipient is taken or refused
// for good. Only the word of a host about a recipient or about the message (a 5yz to MAIL, RCPT, DATA or the message) and
// the word of a working DNS that there is no such domain or no way to it are permanent. A refusal at the greeting, 421,
// silence, nonsense, a broken connection, a failed login, trouble with DNS, with TLS or with the message on our side are
// temporary. [Outcome.Tried] tells what else was tried. When the connection is lost after the message and before the reply
// to it, the host may have it: [Outcome.PossiblyDelivered].
//
// # How a message is written
//
// With PIPELINING the envelope goes out in one flight, and each answer is matched to its command. Large messages, and those
// with long lines, go in chunks where the host offers CHUNKING; small ones together with their envelope, once the host has
// shown that it keeps step. What a host cannot take is converted while it is sent (8-bit text without 8BITMIME, headers
// in UTF-8 without SMTPUTF8, lines over 998 octets without CHUNKING), but never inside a signed part;
// [Deliverer.NoConversion] fails it instead. However large a message is, 200 KiB of it are in memory.
//
// # What protects you
//
// MX records cannot lead to private addresses or back to this host. TLS is used where it is offered, and always where the
// route or the message ([Message.RequireTLS]) asks for it. No password or token is sent in the clear unless the route says
// so, and none is shown in a transcript, log or error, not even where a host repeats it. Bare CR and LF never reach the
// wire. Every step has its timeout ([Timeouts]), and whatever a far end sends is bounded.
package deliver
