package deliver

import (
	"context"
	"net/netip"

	"github.com/sortie-mail/sortie/deliver/resolve"
)

// goesStale reports whether a resolver uses answers after their time.
func goesStale(r Resolver) bool {
	own, ok := r.(*resolve.Resolver)
	return ok && own.MaxStale > 0
}

// watched makes a lookup. stale is nil unless the answer has outlived its time: then it is why no server gave a new one.
func watched[T any](ctx context.Context, name string, lookup func(context.Context, string) (T, error)) (answer T, stale, err error) {
	ctx = resolve.WithTrace(ctx, &resolve.Trace{Answered: func(a resolve.Answer, err error) {
		if err == nil && a.Stale != nil {
			stale = a.Stale
		}
	}})
	answer, err = lookup(ctx, name)
	return answer, stale, err
}

// doubt makes an error temporary that follows from a stale answer: it was true once, and mail is not returned for that (RFC
// 8767, section 5).
func (t *target) doubt(e *Error) *Error {
	if t.stale == nil || e == nil || e.Temporary {
		return e
	}
	return tempErr(StageRoute, "4.4.3", "%w; so DNS said until a while ago, and now: %w", e.Err, t.stale)
}

func (d *Deliverer) lookupMX(ctx context.Context, domain string) (records []resolve.MX, stale, err error) {
	if d.set.stale {
		return watched(ctx, domain, d.set.resolver.LookupMX)
	}
	records, err = d.set.resolver.LookupMX(ctx, domain)
	return records, nil, err
}

func (d *Deliverer) lookupAddr(ctx context.Context, host string) (addrs []netip.Addr, stale, err error) {
	if d.set.stale {
		return watched(ctx, host, d.set.resolver.LookupAddr)
	}
	addrs, err = d.set.resolver.LookupAddr(ctx, host)
	return addrs, nil, err
}
