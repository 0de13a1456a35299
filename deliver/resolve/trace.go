package resolve

import "context"

// A Trace watches the lookups made with a context, in the manner of net/http/httptrace. It lets a caller of LookupMX or LookupAddr see
// aliases, servers and DNSSEC state without asking again. Any field may be nil.
type Trace struct {
	// Answered is called at the end of each lookup of one name and type, from the cache or not, with its error if it failed; LookupAddr
	// makes two. It is called in the goroutine of the caller, before the lookup returns.
	Answered func(Answer, error)
}

type traceKey struct{}

// WithTrace returns a context whose lookups are reported to trace.
func WithTrace(ctx context.Context, trace *Trace) context.Context {
	return context.WithValue(ctx, traceKey{}, trace)
}

func reportAnswer(ctx context.Context, answer Answer, err error) {
	if trace, ok := ctx.Value(traceKey{}).(*Trace); ok && trace != nil && trace.Answered != nil {
		trace.Answered(answer, err)
	}
}
