package resolve

import (
	"context"
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
	mu  sync.Mutex // guards the map and the waiters of each flight
	all map[key]*flight
}

// A flight is one lookup that any number of callers wait for. It runs on its own, so that a caller who leaves does not take the others'
// answer away, and is cancelled when the last one has left.
type flight struct {
	key     key
	waiters int
	cancel  context.CancelFunc
	done    chan struct{} // closed when result is set
	result  result
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
	if res, ok := r.cache.get(k); ok {
		return ticket{key: k, result: res}
	}
	r.flights.mu.Lock()
	defer r.flights.mu.Unlock()
	if f, ok := r.flights.all[k]; ok {
		f.waiters++
		return ticket{key: k, flight: f}
	}
	// One may have landed since: a flight fills the cache before it leaves the map.
	if res, ok := r.cache.get(k); ok {
		return ticket{key: k, result: res}
	}
	return ticket{key: k, flight: r.takeOff(ctx, k)}
}

// takeOff begins a flight, with flights.mu held.
func (r *Resolver) takeOff(ctx context.Context, k key) *flight {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), lookupLimit, errLimit)
	f := &flight{key: k, waiters: 1, cancel: cancel, done: make(chan struct{})}
	if r.flights.all == nil {
		r.flights.all = make(map[key]*flight)
	}
	r.flights.all[k] = f
	go r.fly(ctx, f)
	return f
}

func (r *Resolver) fly(ctx context.Context, f *flight) {
	defer f.cancel()
	f.result = r.resolve(ctx, f.key)
	if f.result.err == nil || f.result.err.NotFound {
		r.cache.put(f.key, f.result, r.cacheSize())
	}
	r.flights.mu.Lock()
	r.flights.drop(f)
	r.flights.mu.Unlock()
	close(f.done)
}

// drop takes a flight off the map, with mu held, unless another one has its place already.
func (l *flights) drop(f *flight) {
	if l.all[f.key] == f {
		delete(l.all, f.key)
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
	if f.waiters == 0 {
		f.cancel()
		r.flights.drop(f)
	}
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
