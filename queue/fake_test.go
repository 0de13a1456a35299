package queue_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/dsn/reason"
	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/memory"
	"github.com/sortie-mail/sortie/route"
)

// A say is what a far end does with one recipient: for what no lab server says at the right moment, and for thousands of lanes.
type say func(ctx context.Context, rt route.Route, m *deliver.Message, to string) deliver.Outcome

// far is a Deliverer with such a far end. Mail to example.org arrives in its mailbox.
type far struct {
	say say

	mu    sync.Mutex
	tries []farTry // guarded by mu
	home  [][]byte // guarded by mu: the reports that arrived at example.org
	open  int      // guarded by mu: deliveries under way
	most  int      // guarded by mu
}

type farTry struct {
	at      time.Time
	id, to  string
	way     string
	outcome deliver.Outcome
}

func (f *far) Deliver(ctx context.Context, rt route.Route, m *deliver.Message) []deliver.Outcome {
	abroad := !strings.HasSuffix(m.To[0].Address, "@example.org")
	f.begin(abroad)
	defer f.end(abroad)
	outcomes := make([]deliver.Outcome, len(m.To))
	for i, to := range m.To {
		start := time.Now()
		if strings.HasSuffix(to.Address, "@example.org") {
			outcomes[i] = took
		} else {
			outcomes[i] = f.say(ctx, rt, m, to.Address)
		}
		outcomes[i].Recipient, outcomes[i].Route, outcomes[i].Start, outcomes[i].End = to.Address, rt, start, time.Now()
		if len(rt.Hops) > 0 {
			outcomes[i].Hop = rt.Hops[0]
		}
		f.note(rt, m, &outcomes[i])
	}
	return outcomes
}

func (f *far) begin(abroad bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if abroad {
		f.open++
	}
	f.most = max(f.most, f.open)
}

func (f *far) end(abroad bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if abroad {
		f.open--
	}
}

func (f *far) note(rt route.Route, m *deliver.Message, o *deliver.Outcome) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tries = append(f.tries, farTry{at: time.Now(), id: m.ID, to: o.Recipient, way: rt.String(), outcome: *o})
	if !strings.HasSuffix(o.Recipient, "@example.org") || m.From != "" {
		return
	}
	body, err := m.Open()
	if err != nil {
		panic(err)
	}
	text, err := io.ReadAll(body)
	if err != nil {
		panic(err)
	}
	f.home = append(f.home, text)
}

// triesOf gives the tries of a recipient; "" is everybody but example.org.
func (f *far) triesOf(to string) (tries []farTry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.tries {
		if t.to == to || (to == "" && !strings.HasSuffix(t.to, "@example.org")) {
			tries = append(tries, t)
		}
	}
	return tries
}

// busiest is how many deliveries to others there were at once since it was last asked.
func (f *far) busiest() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	most := f.most
	f.most = f.open
	return most
}

// What far ends say.
var (
	took     = deliver.Outcome{Result: deliver.Delivered, Status: "2.0.0", Stage: deliver.StageDot, Host: "mx.far.test"}
	later    = refusal(deliver.TempFail, deliver.StageRcpt, "450 4.2.0 Not now")
	unknown  = refusal(deliver.PermFail, deliver.StageRcpt, "550 5.1.1 No such user")
	blocked  = refusal(deliver.PermFail, deliver.StageRcpt, aolWords)
	noAnswer = deliver.Outcome{Result: deliver.TempFail, Status: "4.4.1", Stage: deliver.StageConnect, Detail: "no MX host answers"}
)

func refusal(result deliver.Result, stage deliver.Stage, text string) deliver.Outcome {
	reply, err := dsn.ParseReply(text)
	if err != nil {
		panic(err)
	}
	return deliver.Outcome{
		Result: result, Status: reply.Status(), Reply: reply, Stage: stage, Host: "mx.far.test",
		Reason: reason.Classify(reason.Input{Reply: reply, Stage: string(stage)}),
	}
}

func always(o deliver.Outcome) say {
	return func(context.Context, route.Route, *deliver.Message, string) deliver.Outcome { return o }
}

// byName lets the far end say what the start of a recipient's name asks for, and take all other mail.
func byName(ctx context.Context, _ route.Route, _ *deliver.Message, to string) deliver.Outcome {
	for name, o := range map[string]deliver.Outcome{"later": later, "unknown": unknown, "blocked": blocked, "dead": noAnswer} {
		if strings.HasPrefix(to, name) {
			return o
		}
	}
	if strings.HasPrefix(to, "hangs") {
		<-ctx.Done()
		return deliver.Outcome{Result: deliver.TempFail, Status: "4.4.2", Stage: deliver.StageRcpt, Detail: context.Cause(ctx).Error()}
	}
	return took
}

// through prepares a world whose mail goes to a far end.
func (f *far) through(prepare ...func(w *world)) func(w *world) {
	return func(w *world) {
		w.runner.Deliverer = f
		for _, p := range prepare {
			p(w)
		}
	}
}

// told are the reports that have arrived at example.org.
func (f *far) told(t *testing.T) (all []*dsn.Report) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, text := range f.home {
		r, err := dsn.Parse(bytes.NewReader(text))
		require.NoError(t, err)
		all = append(all, r)
	}
	return all
}

// A counting queue counts the calls of Lease, and fails when it is told to.
type countingQueue struct {
	*memory.Queue
	mu     sync.Mutex
	leases int                                       // guarded by mu
	writes int                                       // guarded by mu: settlements
	lease  func() error                              // nil is no failure
	settle func(queue.Lease, queue.Settlement) error // nil is no failure
}

func (q *countingQueue) Lease(ctx context.Context, req queue.LeaseRequest) ([]queue.Lease, time.Time, error) {
	q.mu.Lock()
	q.leases++
	fail := q.lease
	q.mu.Unlock()
	if fail != nil {
		if err := fail(); err != nil {
			return nil, time.Time{}, err
		}
	}
	return q.Queue.Lease(ctx, req)
}

func (q *countingQueue) Settle(ctx context.Context, l queue.Lease, s queue.Settlement) error {
	if q.settle != nil {
		if err := q.settle(l, s); err != nil {
			return err
		}
	}
	q.mu.Lock()
	q.writes++
	q.mu.Unlock()
	return q.Queue.Settle(ctx, l, s)
}

// settled is how many settlements there were since it was last asked.
func (q *countingQueue) settled() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := q.writes
	q.writes = 0
	return n
}

// asked is how often Lease was called since it was last asked.
func (q *countingQueue) asked() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := q.leases
	q.leases = 0
	return n
}

// slow lets a far end take mail, each after a while.
func slow(d time.Duration) say {
	return func(context.Context, route.Route, *deliver.Message, string) deliver.Outcome {
		time.Sleep(d)
		return took
	}
}
