// Command relayd is a small outbound relay: go-smtp takes mail from your own machines, Sortie keeps it safe, routes it,
// delivers it, and tells senders what became of it. It shows how the packages fit together in a server, and is meant to be
// copied from: relay.go wires the parts, session.go makes envelopes of SMTP commands, conn.go and listener.go keep the
// server usable when clients misbehave.
//
//	relayd -hostname mail.example.org -routes routes
//	relayd -h
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(start(os.Args[1:])) }

// start returns the exit code: 0 after SIGTERM, 1 where something could not be had, 2 where the command line is wrong.
func start(args []string) int {
	o, err := parseFlags(args, os.Stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(os.Stderr, "relayd: %v\nrelayd -h tells what each flag means\n", err)
		return 2
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	r, err := newRelay(o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "relayd:", err)
		return 1
	}
	go func() {
		for range hup {
			r.reload()
		}
	}()
	context.AfterFunc(ctx, cancel) // a second signal ends the process at once
	if err := r.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "relayd:", err)
		return 1
	}
	return 0
}
