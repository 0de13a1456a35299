// Command embed sends one mail, the message on its standard input, from a queue on disk: the program of the README with flags
// and an orderly end. It shows all that a program needs which wants to hand off mail and forget about it. If it is
// interrupted, the mail stays in the spool, and the next run goes on with it.
//
//	go run ./examples/embed -from me@example.org -to you@example.net <message.eml
//
// With -routes FILE the mail goes where that routing file says, for instance "*  smtp://mail.isp.example".
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/disk"
	"github.com/sortie-mail/sortie/route"
)

func main() {
	from := flag.String("from", "", "reverse-path: whom reports go to; empty is the null sender")
	to := flag.String("to", "", "recipients, separated by commas")
	routes := flag.String("routes", "", "routing file; without it mail goes direct")
	spool := flag.String("spool", "spool", "folder of the queue")
	hostname := flag.String("hostname", "", "the name to greet with; the system's by default")
	flag.Parse()
	if *to == "" {
		fmt.Fprintln(os.Stderr, "embed: -to is needed, and the message on standard input; -h lists the flags")
		os.Exit(2)
	}
	envelope := queue.Envelope{From: *from, To: queue.To(strings.Split(*to, ",")...)}
	if err := send(*spool, *routes, *hostname, envelope, os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "embed:", err)
		os.Exit(1)
	}
}

func send(dir, routingFile, hostname string, envelope queue.Envelope, message *os.File) error {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))

	deliverer := &deliver.Deliverer{Hostname: hostname, Logger: log}
	defer deliverer.Close()
	router := route.Direct
	if routingFile != "" {
		table, err := route.ReadFile(routingFile)
		if err != nil {
			return err
		}
		table.MX = deliverer
		router = table
	}
	spool, err := disk.Open(dir)
	if err != nil {
		return err
	}
	defer spool.Close()
	id, err := spool.Enqueue(ctx, envelope, message)
	if err != nil {
		return err
	}
	fmt.Println(id, "is safe in", dir)

	runner := &queue.Runner{Queue: spool, Router: router, Deliverer: deliverer, Hostname: hostname, Logger: log}
	go untilEmpty(ctx, spool, runner)
	if err := runner.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return left(spool)
}

// untilEmpty ends the runner when no mail is left. A program that goes on after its first mail does not need it.
func untilEmpty(ctx context.Context, spool queue.Inspector, runner *queue.Runner) {
	for {
		if s, err := spool.Stats(ctx); err == nil && s.Messages == 0 {
			_ = runner.Shutdown(ctx)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func left(spool queue.Inspector) error {
	s, err := spool.Stats(context.Background())
	if err == nil && s.Messages > 0 {
		err = fmt.Errorf("%d messages are still in the queue: run it again to go on", s.Messages)
	}
	if err == nil {
		fmt.Println("the queue is empty")
	}
	return err
}
