// Command send delivers one message, the one on its standard input, and tells how that went: which way it takes and why,
// which hosts there are and which of their addresses are refused, what each host said, and how long it took. There is no
// queue: it makes one attempt, and its exit code says what became of it. It is for finding out why mail does not arrive,
// and shows what package deliver does alone:
//
//	main.go     the whole in order
//	flags.go    the command line
//	message.go  a message that can be opened again for each host
//	way.go      routes, and which recipients share one
//	explain.go  tells where mail would go, with Deliverer.Explain
//	outcome.go  tells what became of it, from a deliver.Outcome
//	exit.go     exit codes, from the same
//
//	send -from me@example.org -to you@example.net -v <message.eml
//	send -to you@example.net -explain
//	send -h
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/resolve"
	"github.com/sortie-mail/sortie/route"
)

func main() { os.Exit(start(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// start returns the exit code.
func start(args []string, in *os.File, out, log io.Writer) int {
	o, err := parseFlags(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		io.WriteString(out, usage)
		return exOK
	case err != nil:
		fmt.Fprintf(log, "send: %v\nsend -h tells what each flag means\n", err)
		return exUsage
	}
	s := &sender{opts: o, out: newPrinter(out, o.json)}
	s.deliverer = newDeliverer(o, log)
	defer s.deliverer.Close()
	code, err := s.run(in, log)
	if err = errors.Join(err, s.out.err); err != nil {
		fmt.Fprintln(log, "send:", err)
	}
	if code == exOK && err != nil {
		return exIOErr
	}
	return code
}

func newDeliverer(o *options, log io.Writer) *deliver.Deliverer {
	resolver := &resolve.Resolver{}
	if o.dns != "" {
		resolver.Servers = []string{o.dns}
	}
	d := &deliver.Deliverer{
		Hostname: o.hostname, Port: o.smtpPort, AllowPrivate: o.allowLoopback, NoConversion: o.noConversion, Resolver: resolver,
		Timeouts: deliver.Timeouts{Total: o.timeout},
	}
	if o.roots != nil {
		d.TLS = &tls.Config{RootCAs: o.roots}
	}
	if o.verbose && !o.explain {
		d.Transcript = deliver.NewTranscript(log)
	}
	return d
}

// A sender makes one attempt.
type sender struct {
	opts      *options
	out       *printer
	deliverer *deliver.Deliverer
	router    route.Router
}

// run finds the ways, tells of them, and sends.
func (s *sender) run(in *os.File, log io.Writer) (code int, err error) {
	if s.router, err = s.newRouter(); err != nil {
		return exConfig, err
	}
	var m *message
	if !s.opts.explain {
		if m, code, err = readMessage(in, log); err != nil {
			return code, err
		}
		defer m.close()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, s.opts.timeout, fmt.Errorf("the time of -timeout, %v, is over", s.opts.timeout))
	defer cancel()
	ways, unrouted := s.ways(ctx)
	if s.opts.explain || s.opts.verbose {
		code = s.explain(ctx, ways, unrouted)
	}
	if s.opts.explain {
		return code, nil
	}
	return s.send(ctx, ways, unrouted, m), nil
}

// send makes the attempt, and tells of each recipient in the order of the command line.
func (s *sender) send(ctx context.Context, ways []*way, outcomes []deliver.Outcome, m *message) int {
	for _, w := range ways {
		outcomes = append(outcomes, s.deliverer.Deliver(ctx, w.route, s.envelope(w, m))...)
	}
	code := exOK
	for _, o := range s.inOrder(outcomes) {
		code = worst(code, exitOf(&o))
		s.out.outcome(&o)
	}
	return code
}

// envelope is the message for the recipients of a way.
func (s *sender) envelope(w *way, m *message) *deliver.Message {
	o := s.opts
	d := &deliver.Message{
		From: o.from, EnvelopeID: o.envid, Return: o.ret, RequireTLS: o.requireTLS, Priority: o.priority, DeliverBy: o.by,
		Size: m.size, Open: m.open,
	}
	for _, to := range w.to {
		d.To = append(d.To, deliver.Recipient{Address: to, Notify: o.notify})
	}
	return d
}
