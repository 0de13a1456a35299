// Package memory keeps a mail queue in memory. What it holds is gone when the process ends: use it in tests, and
// where the host keeps the mail safe by other means.
//
//	q := memory.New()
//	id, err := q.Enqueue(ctx, queue.Envelope{From: "me@example.org", To: queue.To("you@aol.com")}, message)
//
// [Queue] is the queue. [Index] is its schedule alone, for backends that keep it in memory and the mail elsewhere,
// as package disk does.
package memory
