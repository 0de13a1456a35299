package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/deliver/resolve"
	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/disk"
	"github.com/sortie-mail/sortie/relaycheck"
	"github.com/sortie-mail/sortie/route"
)

// elsewhere are the domains of everybody who is not at AOL.
var elsewhere = []string{"gmx.example", "uni.example", "bakery.example", "city.example"}

func colleague(i int) string {
	return []string{"ann", "ben", "cem", "dora", "emil", "fay", "gus", "hana", "ida", "jon"}[i%10]
}

// A world is the stage: the pretend internet, and Sortie as a mail server would have it within.
type world struct {
	dir      string
	routes   string // the routing file
	internet *lab.Internet
	aol, isp *lab.Server
	home     *lab.Server // of example.org: where notes to Ann and her colleagues go
	others   []*lab.Server

	spool     *disk.Queue
	deliverer *deliver.Deliverer
	runner    *queue.Runner
	refusals  *relaycheck.Refusals
	policy    *relaycheck.Policy

	stop    context.CancelFunc
	running sync.WaitGroup
	log     session

	refusedAt      time.Time // when AOL began to refuse
	sent           int
	acts, failures int
}

func newWorld() (*world, error) {
	dir, err := os.MkdirTemp("", "sortie-aol")
	if err != nil {
		return nil, err
	}
	w := &world{dir: dir, routes: filepath.Join(dir, "routes")}
	return w, errors.Join(w.buildInternet(), w.buildServer())
}

// buildInternet makes DNS zones and mail servers.
func (w *world) buildInternet() (err error) {
	if w.internet, err = lab.New(lab.Options{}); err != nil {
		return err
	}
	domains := append([]string{"example.org", "aol.com", "isp.example"}, elsewhere...)
	servers := make([]*lab.Server, len(domains))
	for i, domain := range domains {
		host := "mail"
		if domain == "example.org" {
			host = "inbox" // mail.example.org is Ann's own server, which only sends
		}
		if err := w.internet.Zone(domain, fmt.Sprintf("@ MX 10 %s\n%s A 192.0.2.%d", host, host, i+1)); err != nil {
			return err
		}
		servers[i] = w.internet.Server(host + "." + domain)
	}
	w.home, w.aol, w.isp, w.others = servers[0], servers[1], servers[2], servers[3:]
	return nil
}

// buildServer wires Sortie together: routes, spool, deliverer, runner. A real server has the internet's DNS and port 25 here
// where this one has the lab's, and leaves the schedule at its defaults.
func (w *world) buildServer() error {
	if err := os.WriteFile(w.routes, []byte("# pattern   hops\n*           direct\n"), 0o600); err != nil {
		return err
	}
	quiet := slog.New(slog.DiscardHandler)
	w.refusals = new(relaycheck.Refusals)
	w.policy = &relaycheck.Policy{ // who may send through the server: its own machine, and nobody else
		Rules: []relaycheck.Rule{{Action: relaycheck.Allow, Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}}},
	}
	w.deliverer = &deliver.Deliverer{
		Hostname:   "mail.example.org",
		Resolver:   &resolve.Resolver{Servers: []string{w.internet.DNS()}},
		Dial:       w.internet.Dial,
		Transcript: deliver.NewTranscript(&w.log),
		Trace:      &deliver.Trace{Outcome: w.refusals.Observe},
	}
	routes, err := route.NewReloader(w.routes, w.deliverer)
	if err != nil {
		return err
	}
	routes.Interval, routes.Logger = 50*time.Millisecond, quiet
	if w.spool, err = (disk.Options{Logger: quiet, MinFree: -1}).Open(filepath.Join(w.dir, "spool")); err != nil {
		return err
	}
	w.runner = &queue.Runner{
		Queue: w.spool, Router: routes, Deliverer: w.deliverer, Hostname: "mail.example.org",
		Schedule: queue.Schedule{Waits: []time.Duration{day / 4, day / 2}, DelayAfter: delayAfter, Lifetime: lifetime},
	}
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	routes.OnChange = func(*route.Table) { _, _ = w.runner.Reroute(ctx) } // frees what waits for the new route
	w.running.Go(func() { routes.Run(ctx) })
	w.running.Go(func() { _ = w.runner.Run(ctx) })
	return nil
}

func (w *world) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := w.runner.Shutdown(ctx)
	w.stop()
	w.running.Wait()
	return errors.Join(err, w.deliverer.Close(), w.spool.Close(), w.internet.Close(), os.RemoveAll(w.dir))
}

// send hands a mail to Sortie. When it returns, the mail is safe on disk.
func (w *world) send(from, to string) {
	w.sent++
	text := fmt.Sprintf("From: <%s@example.org>\r\nTo: <%s>\r\nDate: %s\r\nMessage-ID: <%d@example.org>\r\nSubject: Greetings\r\n\r\nHow are you?\r\n",
		from, to, time.Now().Format(time.RFC1123Z), w.sent)
	envelope := queue.Envelope{From: from + "@example.org", To: queue.To(to)}
	if _, err := w.spool.Enqueue(context.Background(), envelope, strings.NewReader(text)); err != nil {
		w.check(false, "the mail from %s to %s is accepted: %v", from, to, err)
	}
}

func (w *world) arrivedElsewhere() (n int) {
	for _, s := range w.others {
		n += len(s.Mailbox())
	}
	return n
}

func (w *world) waitingFor(domain string) int {
	entries, _, err := w.spool.List(context.Background(), queue.Filter{Lane: domain}, "", 1000)
	if err != nil {
		w.check(false, "the queue can be listed: %v", err)
	}
	return len(entries)
}

func (w *world) ispHasOnly(domain string) bool {
	for _, m := range w.isp.Mailbox() {
		for _, address := range m.Addresses() {
			if !strings.HasSuffix(address, "@"+domain) {
				return false
			}
		}
	}
	return true
}

// addRoute writes a line to the end of the routing file, as an editor would.
func (w *world) addRoute(line string) {
	f, err := os.OpenFile(w.routes, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = fmt.Fprintln(f, line)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		w.check(false, "the routing table can be edited: %v", err)
	}
}

// A session is the session log, in memory.
type session struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (s *session) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *session) lines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Split(strings.TrimRight(s.buf.String(), "\n"), "\n")
}
