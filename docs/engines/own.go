package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/disk"
)

// An own engine is queue/disk: unlike the others it does all the work of a queue, with lanes, leases, and envelopes that
// it understands.
type own struct{ q *disk.Queue }

// ownReserve is disk.Options.MinFree. It is switched off where a disk is filled to the last octet, since others reserve nothing.
var ownReserve int64

func openOwn(dir string) (engine, error) {
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn, ReplaceAttr: withoutTime}))
	q, err := disk.Options{Logger: logger, MinFree: ownReserve}.Open(dir)
	if err != nil {
		return nil, err
	}
	return own{q}, nil
}

func withoutTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

func (o own) enqueue(m mail) error {
	_, err := o.q.Enqueue(context.Background(), envelope(m.seq), bytes.NewReader(m.body))
	return err
}

func (o own) take(most int) ([]job, error) {
	leases, _, err := o.q.Lease(context.Background(), queue.LeaseRequest{Max: most, For: 24 * time.Hour})
	jobs := make([]job, len(leases))
	for i, l := range leases {
		jobs[i] = job{seqOf(l.Envelope), l}
	}
	return jobs, err
}

func (o own) read(j job) (meta, body []byte, err error) {
	l := j.ref.(queue.Lease)
	r, err := o.q.Open(context.Background(), l.ID)
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	buf := bytes.NewBuffer(make([]byte, 0, l.Size+bytes.MinRead))
	if _, err := io.Copy(buf, r); err != nil {
		return nil, nil, err
	}
	meta, err = json.Marshal(l.Envelope)
	return meta, buf.Bytes(), err
}

func (o own) settle(j job, record []byte) error {
	l := j.ref.(queue.Lease)
	to := l.Envelope.To[0].Address
	return o.q.Settle(context.Background(), l, queue.Settlement{
		Done: []string{to},
		Attempt: queue.Attempt{
			Time:    time.Now(),
			Results: []queue.AttemptResult{{Recipient: to, Result: deliver.Delivered, Detail: string(record)}},
		},
	})
}

func (o own) close() error { return o.q.Close() }
