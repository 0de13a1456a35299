// Command relayd is a small outbound relay: go-smtp takes mail from your own machines, Sortie keeps it safe, routes it,
// delivers it, and tells senders what became of it. It shows how the packages fit together in a server, and is meant to be
// copied from:
//
//	relay.go                  wires the parts, and stops them without losing anything
//	session.go                makes an envelope and a queued message of SMTP commands
//	path.go data.go           read addresses and messages octet for octet
//	parameters.go starttls.go are of SMTP what go-smtp leaves out, or has where it does not fit
//	sender.go                 refuses senders whom nobody could answer
//	suppress.go               refuses recipients that are known not to exist
//	conn.go listener.go       keep room for users, whatever other clients do
//	policy.go                 says who may relay, audits that, and tells the administrator what is wrong
//	metrics.go console.go     are for the monitoring
//	admin.go                  shows the queue over HTTP, and lets people of this host hold, release, retry, fail or delete mail
//	budget.go collector.go    use of the machine what they are told, and spare its CPU
//	flags.go logfile.go       are what every server needs
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
	tuneCollector()
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	r, err := newRelay(o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "relayd:", err)
		return 1
	}
	context.AfterFunc(ctx, cancel) // a second signal ends the process at once
	if err := r.run(ctx, hup); err != nil {
		fmt.Fprintln(os.Stderr, "relayd:", err)
		return 1
	}
	return 0
}
