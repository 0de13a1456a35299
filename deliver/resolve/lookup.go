package resolve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Lookup returns the records of one type, such as dns.TypeTLSA, under a name, aliases followed. An Answer without records, and no
// error, says that the name exists without them. If the name does not exist the error says so and the Answer is that of the denial: its
// Secure and Aliases are meaningful. Questions that stand for several types, such as ANY, are refused.
func (r *Resolver) Lookup(ctx context.Context, name string, qtype uint16) (Answer, error) {
	ascii, err := asciiName(name)
	if err != nil {
		return Answer{}, &Error{Name: name, Type: typeName(qtype), Err: err}
	}
	if !dataType(qtype) {
		return Answer{}, &Error{Name: name, Type: typeName(qtype), Err: fmt.Errorf("%s is no type of record", typeName(qtype))}
	}
	return r.finish(ctx, r.start(ctx, key{ascii, qtype}))
}

// dataType reports whether records of a type exist: OPT and the range of question types do not (RFC 6895, section 3.1).
func dataType(qtype uint16) bool {
	return qtype != dns.TypeNone && qtype != dns.TypeOPT && (qtype < 128 || qtype > 255)
}

// flights are the lookups under way.
type flights struct {
	mu         sync.Mutex // guards the fields below and the waiters of each flight
	all        map[key]*flight
	prefetches int
	closed     bool

	background sync.WaitGroup // of the prefetches
}

// A flight is one lookup that any number of callers wait for. It runs on its own, so that a caller who leaves does not take the others'
// answer away, and is cancelled when the last one has left. Nobody waits for a prefetch at first, and it goes on all the same.
type flight struct {
	key      key
	waiters  int
	prefetch bool
	cancel   context.CancelFunc
	done     chan struct{} // closed when result is set
	result   result
}

// A ticket is a caller's claim to the result of a lookup: one that is there already, or that of a flight.
type ticket struct {
	key    key
	result result
	flight *flight // nil if the result is there
}

// start finds, joins or begins the lookup of k. Every start needs its finish.
func (r *Resolver) start(ctx context.Context, k key) ticket {
	if isLocalhost(k.name) {
		return ticket{key: k, result: result{answer: localhost(k)}}
	}
	if res, ok := r.recall(ctx, k); ok {
		return ticket{key: k, result: res}
	}
	r.flights.mu.Lock()
	defer r.flights.mu.Unlock()
	if f, ok := r.flights.all[k]; ok {
		f.waiters++
		return ticket{key: k, flight: f}
	}
	// One may have landed since: a flight fills the cache before it leaves the map.
	if res, ok, _ := r.cache.get(k, r.MaxStale); ok {
		return ticket{key: k, result: res}
	}
	flying, f := r.takeOff(ctx, k)
	f.waiters = 1
	go r.fly(flying, f)
	return ticket{key: k, flight: f}
}

// recall finds a result in the cache, and has it renewed if it is time.
func (r *Resolver) recall(ctx context.Context, k key) (result, bool) {
	res, ok, ageing := r.cache.get(k, r.MaxStale)
	if ageing {
		r.prefetch(ctx, k)
	}
	return res, ok
}

// prefetch begins a lookup for nobody in particular.
func (r *Resolver) prefetch(ctx context.Context, k key) {
	l := &r.flights
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.prefetches >= maxPrefetches || l.all[k] != nil {
		return
	}
	l.prefetches++
	flying, f := r.takeOff(ctx, k)
	f.prefetch = true
	l.background.Go(func() {
		r.fly(flying, f)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.prefetches--
	})
}

// Close ends the renewal of answers in the background and waits for its end. A Resolver can be used on after that, without renewals.
// There is no need to close a Resolver for other reasons: all else ends with the lookups of the callers.
func (r *Resolver) Close() error {
	l := &r.flights
	l.mu.Lock()
	l.closed = true
	for _, f := range l.all {
		f.prefetch = false
		l.release(f)
	}
	l.mu.Unlock()
	l.background.Wait()
	return nil
}

// takeOff makes a flight with a context of its own, for the caller to let it fly. It is called with flights.mu held.
func (r *Resolver) takeOff(ctx context.Context, k key) (context.Context, *flight) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), lookupLimit, errLimit)
	f := &flight{key: k, cancel: cancel, done: make(chan struct{})}
	if r.flights.all == nil {
		r.flights.all = make(map[key]*flight)
	}
	r.flights.all[k] = f
	return ctx, f
}

func (r *Resolver) fly(ctx context.Context, f *flight) {
	defer f.cancel()
	f.result = r.resolve(ctx, f.key)
	if f.result.err == nil || f.result.err.NotFound {
		r.cache.put(f.key, f.result, r.cacheSize())
	} else if !errors.Is(context.Cause(ctx), context.Canceled) {
		f.result = r.fallback(ctx, f.result)
	}
	r.flights.mu.Lock()
	r.flights.drop(f)
	r.flights.mu.Unlock()
	close(f.done)
}

// fallback looks for a stale answer in place of a failure.
func (r *Resolver) fallback(ctx context.Context, failed result) result {
	answer := failed.answer
	known, ok := r.cache.fallback(key{answer.Name, answer.Type}, failed.err, r.MaxStale)
	if !ok {
		return failed
	}
	if known.answer.Stale != nil {
		r.log(ctx, slog.LevelWarn, "stale DNS answer used", slog.String("name", answer.Name), slog.String("type", typeName(answer.Type)),
			slog.Time("expired", known.answer.Expires), slog.Any("error", failed.err))
	}
	return known
}

// drop takes a flight off the map, with mu held, unless another one has its place already.
func (l *flights) drop(f *flight) {
	if l.all[f.key] == f {
		delete(l.all, f.key)
	}
}

// release ends a flight, with mu held, if nobody needs it.
func (l *flights) release(f *flight) {
	if f.waiters == 0 && !f.prefetch {
		f.cancel()
		l.drop(f)
	}
}

// finish waits for the result of a lookup and returns it.
func (r *Resolver) finish(ctx context.Context, t ticket) (answer Answer, err error) {
	if t.flight == nil {
		answer, err = t.result.unpack()
	} else {
		answer, err = r.await(ctx, t.flight)
	}
	reportAnswer(ctx, answer, err)
	return answer, err
}

func (r *Resolver) await(ctx context.Context, f *flight) (Answer, error) {
	select {
	case <-f.done:
		return f.result.unpack()
	case <-ctx.Done():
		r.leave(f)
		return Answer{Name: f.key.name, Type: f.key.qtype}, &Error{Name: f.key.name, Type: typeName(f.key.qtype), Err: ctx.Err()}
	}
}

func (r *Resolver) leave(f *flight) {
	r.flights.mu.Lock()
	defer r.flights.mu.Unlock()
	f.waiters--
	r.flights.release(f)
}

// resolve asks for k and follows aliases from answer to answer.
func (r *Resolver) resolve(ctx context.Context, k key) result {
	answer := Answer{Name: k.name, Type: k.qtype, Secure: true}
	ttl := r.maxTTL()
	for {
		rep, server, err := r.query(ctx, key{answer.Owner(), k.qtype})
		answer.Server = server
		if err != nil {
			return failed(answer, err)
		}
		if err := answer.extend(rep); err != nil {
			return failed(answer, &serverError{server, err})
		}
		ttl = min(ttl, rep.ttl)
		if rep.final {
			return r.conclude(ctx, answer, rep, ttl)
		}
	}
}

// extend adds a reply to what is known, which only a chain of aliases that does not end can prevent.
func (a *Answer) extend(rep reply) error {
	a.Secure = a.Secure && rep.secure
	for _, alias := range rep.aliases {
		if alias == a.Name || slices.Contains(a.Aliases, alias) {
			return fmt.Errorf("CNAME loop at %q", alias)
		}
		if len(a.Aliases) == MaxAliases {
			return errAliases
		}
		a.Aliases = append(a.Aliases, alias)
	}
	return nil
}

// conclude makes the result of the last reply.
func (r *Resolver) conclude(ctx context.Context, answer Answer, rep reply, ttl time.Duration) result {
	answer.Records = believed(rep.records)
	answer.Dropped = len(rep.records) - len(answer.Records)
	if answer.Dropped > 0 {
		r.log(ctx, slog.LevelWarn, "more DNS records than are believed",
			slog.String("name", answer.Name), slog.String("type", typeName(answer.Type)), slog.Int("dropped", answer.Dropped))
	}
	if len(answer.Records) == 0 {
		ttl = min(ttl, r.maxNegativeTTL())
	}
	answer.Expires = time.Now().Add(ttl)
	if !rep.notFound {
		return result{answer: answer}
	}
	cause := fmt.Errorf("NXDOMAIN: %q does not exist", answer.Owner())
	res := failed(answer, &serverError{answer.Server, cause})
	res.err.NotFound = true
	return res
}

func failed(answer Answer, err error) result {
	return result{answer, &Error{Name: answer.Name, Type: typeName(answer.Type), Server: answer.Server, Err: err}}
}
