package main

// How the parts are put together, in which order they are opened, and in which order they stop.

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
	"golang.org/x/net/netutil"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/resolve"
	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/disk"
	"github.com/sortie-mail/sortie/queue/memory"
	"github.com/sortie-mail/sortie/relaycheck"
	"github.com/sortie-mail/sortie/route"
)

// A relay is the whole: go-smtp in front, and behind it queue → runner → routes → deliverer.
type relay struct {
	opts    *options
	budget  *budget
	log     *slog.Logger
	files   []*logFile
	metrics *metrics

	policy   *relaycheck.Policy
	refusals *relaycheck.Refusals
	cert     *certificate // nil without -cert
	listener *listener
	server   *smtp.Server
	console  *http.Server // nil without -console
	web      net.Listener

	queue     mailQueue
	routes    *route.Reloader // nil without -routes
	runner    *queue.Runner
	resolver  *resolve.Resolver
	deliverer *deliver.Deliverer
}

// A mailQueue keeps mail and lets people look into it.
type mailQueue interface {
	queue.Queue
	queue.Inspector
	queue.Notebook
}

// newRelay opens everything that may fail. The queue comes last: it is not touched where anything else is wrong.
func newRelay(o *options) (r *relay, err error) {
	r = &relay{opts: o, budget: newBudget(o), metrics: newMetrics(), refusals: &relaycheck.Refusals{Since: time.Now()}}
	defer func() {
		if err != nil {
			r.closeFiles()
			r.closeListeners()
		}
	}()
	transcript, err := r.openLogs()
	if err != nil {
		return r, err
	}
	r.budget.apply(o, r.log)
	r.resolver = r.newResolver()
	r.deliverer = r.newDeliverer(transcript)
	if o.routes != "" {
		if r.routes, err = route.NewReloader(o.routes, r.deliverer); err != nil {
			return r, fmt.Errorf("-routes: %w", err)
		}
	}
	if r.cert, err = openCertificate(o.certFile, o.keyFile); err != nil {
		return r, err
	}
	if err := r.listen(); err != nil {
		return r, err
	}
	if r.queue, err = openQueue(o, r.budget, r.log); err != nil {
		return r, err
	}
	r.wire()
	return r, nil
}

// openLogs opens the log and the transcript, which is nil where none is wanted.
func (r *relay) openLogs() (deliver.Transcript, error) {
	file, err := openLogFile(r.opts.logFile)
	if err != nil {
		return nil, err
	}
	r.files = append(r.files, file)
	r.log = slog.New(slog.NewJSONHandler(file, nil))
	if r.opts.transcript == "" {
		return nil, nil
	}
	if file, err = openLogFile(r.opts.transcript); err != nil {
		return nil, err
	}
	r.files = append(r.files, file)
	return deliver.NewTranscript(file), nil
}

func (r *relay) newResolver() *resolve.Resolver {
	resolver := &resolve.Resolver{Logger: r.log, MaxStale: r.opts.dnsStale, MaxSockets: r.budget.sockets}
	if r.opts.dns != "" {
		resolver.Servers = []string{r.opts.dns}
	}
	return resolver
}

func (r *relay) newDeliverer(transcript deliver.Transcript) *deliver.Deliverer {
	o := r.opts
	d := &deliver.Deliverer{
		Hostname: o.hostname, Port: o.smtpPort, AllowPrivate: o.allowLoopback, Resolver: r.resolver,
		Logger: r.log, Transcript: transcript, Trace: &deliver.Trace{Outcome: r.outcome},
		Limits: deliver.Limits{Connections: r.budget.attempts}, Sites: o.sites,
	}
	if o.roots != nil {
		d.TLS = &tls.Config{RootCAs: o.roots}
	}
	return d
}

// outcome counts each outcome, and remembers those that concern this server.
func (r *relay) outcome(m *deliver.Message, o deliver.Outcome) {
	r.metrics.attempts.WithLabelValues(o.Result.String()).Inc()
	r.refusals.Observe(m, o)
}

func (r *relay) listen() error {
	// Without TCP's keep-alive, which costs four system calls a connection: every wait for a client has a limit here.
	how := net.ListenConfig{KeepAlive: -1}
	l, err := how.Listen(context.Background(), "tcp", r.opts.listen)
	if err != nil {
		return fmt.Errorf("-listen: %w", err)
	}
	r.policy = newPolicy(r.opts, l.Addr())
	r.listener = newListener(l, r.opts, r.budget.sessions, r.policy, r.cert, r.log, r.metrics)
	if r.opts.console == "" {
		return nil
	}
	if r.web, err = net.Listen("tcp", r.opts.console); err != nil {
		return fmt.Errorf("-console: %w", err)
	}
	r.web = netutil.LimitListener(r.web, r.budget.console)
	return nil
}

// memoryMost is how much a queue in memory may hold.
const memoryMost = 1 << 30

func openQueue(o *options, b *budget, log *slog.Logger) (mailQueue, error) {
	onDisk := disk.Options{Logger: log, MaxIntake: b.intake}
	kind, rest, _ := strings.Cut(o.queueURL, ":")
	switch kind {
	case "":
		return onDisk.Open(o.spool)
	case "disk":
		return onDisk.Open(rest)
	}
	q := memory.New()
	q.MaxBytes = memoryMost
	if b.memory > 0 {
		q.MaxBytes = min(q.MaxBytes, b.memory/2)
	}
	return q, nil
}

// wire puts the parts together.
func (r *relay) wire() {
	r.runner = &queue.Runner{
		Queue: r.queue, Deliverer: r.deliverer, Hostname: r.opts.hostname, Schedule: r.opts.schedule, Logger: r.log,
		Concurrency: r.budget.attempts, HostConcurrency: r.opts.hostConcurrency, Trace: &queue.Trace{Settled: r.metrics.settled},
		SuppressFor: r.opts.suppress,
	}
	if r.routes != nil {
		r.runner.Router = r.routes
		r.routes.Logger = r.log
	}
	from := &senders{check: r.deliverer.CheckSender, what: r.opts.checkSender, wait: r.opts.checkWait}
	r.server = newServer(&front{opts: r.opts, policy: r.policy, senders: from, queue: r.queue, log: r.log, metrics: r.metrics})
	r.metrics.registry.MustRegister(gaugeCollector{r.queue, r.listener.counts, r.routesErr})
	if r.web != nil {
		r.console = newConsole(r)
	}
}

// routesErr is what is wrong with the newest routes.
func (r *relay) routesErr() error {
	if r.routes == nil {
		return nil
	}
	return r.routes.Err()
}

// run works until ctx ends, and then stops within 10 s. hup brings the SIGHUPs.
func (r *relay) run(ctx context.Context, hup <-chan os.Signal) error {
	r.sayListening()
	r.audit()
	failed := make(chan error, 3)
	go func() { failed <- r.runner.Run(context.Background()) }()
	go func() { failed <- r.server.Serve(r.listener) }()
	if r.console != nil {
		go func() { failed <- r.console.Serve(r.web) }()
	}
	ctx, cancel := context.WithCancel(ctx)
	var followers sync.WaitGroup
	followers.Go(func() { r.follow(ctx, hup) })
	var err error
	select {
	case <-ctx.Done():
		r.log.Info("relayd stops")
	case err = <-failed:
		r.log.Error("relayd stops, because a part of it failed", "error", err)
	}
	cancel()
	followers.Wait()
	return errors.Join(err, r.stop())
}

// sayListening tells what the relay works with, and what is odd about it.
func (r *relay) sayListening() {
	spool, entries := r.opts.queueURL, 0
	if spool == "" {
		spool = r.opts.spool
	}
	if r.routes != nil {
		entries = r.routes.Table().Len()
	}
	stats, err := r.queue.Stats(context.Background())
	if err != nil {
		r.log.Error("the queue does not tell what waits in it", "error", err)
	}
	r.log.Info("listening", "smtp", r.listener.Addr().String(), "hostname", r.opts.hostname, "spool", spool, "messages", stats.Messages, "routes", entries)
	for _, doubt := range r.opts.doubts() {
		r.log.Warn(doubt)
	}
	if r.console == nil {
		return
	}
	r.log.Info("listening", "console", r.web.Addr().String())
	if tcp, ok := r.web.Addr().(*net.TCPAddr); ok && !tcp.IP.IsLoopback() {
		r.log.Warn("anybody who reaches the console can read who writes to whom: let -console listen on 127.0.0.1, or keep others away from it", "console", tcp.String())
	}
}

// follow keeps up with the routing file and with SIGHUP.
func (r *relay) follow(ctx context.Context, hup <-chan os.Signal) {
	if r.routes != nil {
		r.routes.OnChange = func(*route.Table) { r.reroute(ctx) }
		var watch sync.WaitGroup
		watch.Go(func() { r.routes.Run(ctx) })
		defer watch.Wait()
	}
	for {
		select {
		case <-hup:
			r.reload()
		case <-ctx.Done():
			return
		}
	}
}

// reload is what SIGHUP asks for.
func (r *relay) reload() {
	for _, f := range r.files {
		if err := f.reopen(); err != nil {
			r.log.Error("a log file stays as it is", "error", err)
		}
	}
	if r.cert != nil {
		if err := r.cert.reload(); err != nil {
			r.log.Error("the new certificate is broken, the old one stays in use", "error", err)
		}
	}
	if r.routes == nil {
		return
	}
	if err := r.routes.Reload(); err != nil {
		r.log.Error("the new routes are broken, the old ones stay in force", "error", err)
	}
}

// reroute lets waiting mail take the new routes now.
func (r *relay) reroute(ctx context.Context) {
	freed, err := r.runner.Reroute(ctx)
	if err != nil {
		r.log.Error("waiting mail takes the new routes only when its time comes", "error", err)
		return
	}
	r.log.Info("waiting mail takes the new routes", "freed", freed)
}

// How long stopping may take: what is under way has finishTime to end by itself.
const (
	finishTime = 7 * time.Second
	cutTime    = time.Second
)

// stop takes nothing more, finishes what is under way or puts it back, and closes everything.
func (r *relay) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), finishTime)
	defer cancel()
	sessions, attempts := make(chan struct{}), make(chan struct{})
	go func() { defer close(sessions); r.server.Shutdown(context.Background()) }()
	go func() { defer close(attempts); r.runner.Shutdown(ctx) }()
	r.listener.shutDown()
	select {
	case <-sessions:
	case <-ctx.Done():
		r.breakOff(sessions)
	}
	<-attempts
	err := r.queue.Close()
	r.deliverer.Close()
	r.resolver.Close()
	if r.console != nil {
		r.console.Close()
	}
	r.log.Info("relayd has stopped")
	r.closeFiles()
	return err
}

// breakOff ends sessions in the middle of a message, first with a reply, and where that does not help without.
func (r *relay) breakOff(sessions <-chan struct{}) {
	for _, end := range []func(){r.listener.breakOff, r.listener.cut} {
		end()
		select {
		case <-sessions:
			return
		case <-time.After(cutTime):
		}
	}
	r.log.Warn("a session did not end")
}

func (r *relay) closeFiles() {
	for _, f := range r.files {
		f.close()
	}
}

func (r *relay) closeListeners() {
	if r.listener != nil {
		r.listener.Close()
	}
	if r.web != nil {
		r.web.Close()
	}
}
