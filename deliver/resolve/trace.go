package resolve

import "context"

// A Trace watches the lookups made with a context, in the manner of net/http/httptrace. It lets a caller of LookupMX or LookupAddr see
// aliases, servers, DNSSEC state, records left out and stale answers without asking again. Any field may be nil.
type Trace struct {
	// Answered is called at the end of each lookup of one name and type, from the cache or not, with its error if it failed; LookupAddr
	// makes two. It is called in the goroutine of the caller, before the lookup returns. [Answer.Stale] tells of an answer that is used
	// after its time.
	Answered func(Answer, error)

	outer *Trace
}

type traceKey struct{}

// WithTrace returns a context whose lookups are reported to trace, after those to whom ctx reports already.
func WithTrace(ctx context.Context, trace *Trace) context.Context {
	if trace == nil {
		return ctx
	}
	outer, _ := ctx.Value(traceKey{}).(*Trace)
	return context.WithValue(ctx, traceKey{}, &Trace{Answered: trace.Answered, outer: outer})
}

func reportAnswer(ctx context.Context, answer Answer, err error) {
	trace, _ := ctx.Value(traceKey{}).(*Trace)
	trace.report(answer, err)
}

func (t *Trace) report(answer Answer, err error) {
	if t == nil {
		return
	}
	t.outer.report(answer, err)
	if t.Answered != nil {
		t.Answered(answer, err)
	}
}
