package deliver

import (
	"context"
	"net/netip"

	"github.com/sortie-mail/sortie/deliver/resolve"
)

// A Trace is a set of hooks that are called while attempts are made, in the manner of net/http/httptrace. Any may be nil.
// They are called from the goroutine of the attempt, several at once, and must return quickly.
type Trace struct {
	// Lookup tells every answer of a [resolve.Resolver], with the aliases that were followed.
	Lookup func(answer resolve.Answer, err error)
	// Hosts tells the MX hosts of a domain in the order in which they will be tried.
	Hosts func(domain string, hosts []string)
	// Connect tells of a connection: made anew, taken from those that were kept, or failed.
	Connect func(host string, addr netip.AddrPort, reused bool, err error)
	// TLS tells of a handshake.
	TLS func(host string, state TLSState, err error)
	// Outcome tells each outcome at the end of an attempt.
	Outcome func(m *Message, o Outcome)
}

type answeredKey struct{}

// WithAnswered gives the context of an attempt a function that is called, from the goroutine of the attempt, when a host has
// answered for a recipient, yes or no: the attempt is none that hangs. It must return quickly, and may be called again.
func WithAnswered(ctx context.Context, f func()) context.Context {
	return context.WithValue(ctx, answeredKey{}, f)
}

// answered gives that function; nil where there is none.
func answered(ctx context.Context) func() {
	f, _ := ctx.Value(answeredKey{}).(func())
	return f
}

// Answered calls that function. It is for those who deliver in another way than with a [Deliverer].
func Answered(ctx context.Context) {
	if f := answered(ctx); f != nil {
		f()
	}
}

func (t *Trace) lookups(ctx context.Context) context.Context {
	if t.Lookup == nil {
		return ctx
	}
	return resolve.WithTrace(ctx, &resolve.Trace{Answered: t.Lookup})
}
