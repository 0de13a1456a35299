package queue_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/disk"
	"github.com/sortie-mail/sortie/queue/memory"
	"github.com/sortie-mail/sortie/queue/queuetest"
	"github.com/sortie-mail/sortie/route"
)

// Whatever happens and whoever intervenes, each recipient ends exactly once: delivered, reported, dropped where nobody is to
// be told, held, or deleted by a person.
//
// std: D3 D5 D9 Q4 Q8
func TestEachRecipientEndsOnce(t *testing.T) {
	kept := memory.New()
	t.Run("memory", func(t *testing.T) {
		eachRecipientEndsOnce(t, func() queuetest.Queue { kept = memory.New(); return kept }, func() queuetest.Queue { return kept })
	})
	t.Run("disk", func(t *testing.T) {
		dir := ""
		open := func() queuetest.Queue {
			q, err := disk.Open(dir)
			require.NoError(t, err)
			return q
		}
		eachRecipientEndsOnce(t, func() queuetest.Queue { dir = t.TempDir(); return open() }, open)
	})
}

// eachRecipientEndsOnce plays with a new queue each time, which is opened again when a Runner begins again.
func eachRecipientEndsOnce(t *testing.T, create, reopen func() queuetest.Queue) {
	rapid.Check(t, func(r *rapid.T) { // what happens is drawn before, and happens in a bubble
		keep := rapid.Bool().Draw(r, "keep what nobody is told of")
		events := rapid.SliceOfN(rapid.Custom(drawEvent), 1, 40).Draw(r, "events")
		v := new(verdict)
		synctest.Test(t, func(*testing.T) {
			m := &runs{verdict: v, keep: keep, q: &faultyQueue{Queue: create()}, reopen: reopen, script: map[string][]string{}, to: map[string]*modelRecipient{}}
			defer func() { _ = m.q.Close() }()
			defer m.stop(0)
			defer v.catch()
			m.play(events)
		})
		if v.text != "" {
			r.Fatal(v.text)
		}
	})
}

// A faultyQueue fails to record outcomes for a while.
type faultyQueue struct {
	queuetest.Queue
	fault func() error
}

func (q *faultyQueue) Settle(ctx context.Context, l queue.Lease, s queue.Settlement) error {
	if err := q.fault(); err != nil {
		return err
	}
	return q.Queue.Settle(ctx, l, s)
}

// A verdict takes failures out of a bubble.
type verdict struct{ text string }

func (v *verdict) Errorf(format string, args ...any) { v.text += fmt.Sprintf(format, args...) }
func (v *verdict) FailNow()                          { panic(v) }

func (v *verdict) catch() {
	if p := recover(); p != nil && p != v {
		panic(p)
	}
}

// An event is something that happens to a queue.
type event struct {
	what   string
	time   time.Duration
	number int

	from    string
	notify  []string
	lanes   []int
	scripts [][]string
}

// What a far end may say in a model.
var sayings = map[string]deliver.Outcome{
	"takes it": took, "later": later, "no answer": noAnswer, "blocked": blocked, "unknown": unknown,
	"slower":   refusal(deliver.TempFail, deliver.StageMail, "421 4.7.0 Too many connections from your address"),
	"the hold": {Result: deliver.Held, Status: "2.0.0", Stage: deliver.StageRoute},
	"hangs":    {Stage: "hangs"}, "panics": {Stage: "panics"},
}

func drawEvent(r *rapid.T) event {
	e := event{
		what: rapid.SampledFrom([]string{
			"enqueue", "enqueue", "enqueue", "sleep", "sleep", "hold", "release", "retry", "fail", "delete", "reroute", "restart", "crash", "fault",
		}).Draw(r, "what"),
		time:   rapid.SampledFrom([]time.Duration{0, 1, time.Second, time.Minute, time.Hour, 5 * time.Hour}).Draw(r, "time"),
		number: rapid.IntRange(0, 20).Draw(r, "number"),
	}
	if e.what != "enqueue" {
		return e
	}
	e.from = rapid.SampledFrom([]string{"ann@example.org", "ann@example.org", ""}).Draw(r, "from")
	for range rapid.IntRange(1, 4).Draw(r, "recipients") {
		e.notify = append(e.notify, rapid.SampledFrom([]string{"", "", "NEVER", "FAILURE", "SUCCESS"}).Draw(r, "notify"))
		e.lanes = append(e.lanes, rapid.IntRange(0, 2).Draw(r, "lane"))
		e.scripts = append(e.scripts, rapid.SliceOfN(rapid.SampledFrom(slices.Sorted(maps.Keys(sayings))), 1, 5).Draw(r, "script"))
	}
	return e
}

// runs are Runners, one after the other, over one queue.
type runs struct {
	*verdict
	q      *faultyQueue
	reopen func() queuetest.Queue
	far    *far
	keep   bool

	runner  *queue.Runner
	ended   chan error
	crashed bool // what had arrived may arrive again (RFC 1047)

	to map[string]*modelRecipient // by address
	id []queue.ID

	mu     sync.Mutex
	script map[string][]string // guarded by mu: what the far end says of each recipient, try by try; the last one repeats
	faults int                 // guarded by mu: settlements that will fail
	other  bool                // guarded by mu: mail has another route
}

type modelRecipient struct {
	id      queue.ID
	told    bool // its sender wants to hear of a failure
	deleted bool
	ended   bool // a person let it fail
}

func (m *runs) play(events []event) {
	m.far = &far{say: m.say}
	m.q.fault = m.fault
	m.start()
	for _, e := range events {
		switch e.what {
		case "enqueue":
			m.enqueue(&e)
		case "sleep":
			time.Sleep(e.time)
			synctest.Wait()
		case "reroute":
			m.setRoutes()
			_, err := m.runner.Reroute(context.Background())
			require.NoError(m, err)
		case "restart":
			m.setFaults(0) // what was delivered and cannot be recorded before the end may be delivered twice
			time.Sleep(2 * time.Minute)
			m.stop(e.time)
			m.restart()
		case "crash":
			m.crash()
		case "fault":
			m.setFaults(e.number)
		default:
			m.change(&e)
		}
	}
	m.finish()
}

func (m *runs) say(ctx context.Context, _ route.Route, _ *deliver.Message, to string) deliver.Outcome {
	m.mu.Lock()
	script := m.script[to]
	if len(script) > 1 {
		m.script[to] = script[1:]
	}
	m.mu.Unlock()
	switch script[0] {
	case "hangs":
		<-ctx.Done()
		return deliver.Outcome{Result: deliver.TempFail, Status: "4.4.2", Stage: deliver.StageRcpt, Detail: "it hung"}
	case "panics":
		panic("poison")
	}
	time.Sleep(time.Second)
	return sayings[script[0]]
}

func (m *runs) fault() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.faults > 0 {
		m.faults--
		return errDisk
	}
	return nil
}

func (m *runs) setFaults(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.faults = n
}

func (m *runs) setRoutes() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.other = !m.other
}

func (m *runs) route(context.Context, route.Query) (route.Route, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.other {
		return route.Route{Hops: []route.Hop{{Kind: route.Smarthost, Host: "mail.isp.test"}}}, nil
	}
	return route.Route{Hops: []route.Hop{{Kind: route.MX}}}, nil
}

func (m *runs) start() {
	m.runner = &queue.Runner{
		Queue: m.q, Deliverer: m.far, Router: routerFunc(m.route), KeepUnreported: m.keep, AttemptTime: 10 * time.Minute, LaneConcurrency: 5,
		Schedule: queue.Schedule{DelayAfter: 2 * time.Hour, Lifetime: 6 * time.Hour},
	}
	m.ended = make(chan error, 1)
	run, ended := m.runner.Run, m.ended
	go func() { ended <- run(context.Background()) }()
	synctest.Wait()
}

// restart begins another Runner, with the queue of disk opened anew.
func (m *runs) restart() {
	if _, ok := m.q.Queue.(*disk.Queue); ok {
		require.NoError(m, m.q.Close())
	}
	m.q.Queue = m.reopen()
	m.start()
}

// crash takes the queue of disk away from a Runner that does not know: nothing that is under way is recorded.
func (m *runs) crash() {
	q, ok := m.q.Queue.(*disk.Queue)
	if !ok {
		return
	}
	m.setFaults(0)
	require.NoError(m, q.Close())
	m.stop(0)
	m.crashed = true
	m.q.Queue = m.reopen()
	m.start()
}

// stop ends the Runner, with some time for what is under way.
func (m *runs) stop(within time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	_ = m.runner.Shutdown(ctx)
	err := <-m.ended
	m.ended <- err // it may be asked again
}

func (m *runs) enqueue(e *event) {
	env := queue.Envelope{From: e.from}
	for i := range e.notify {
		one := to(fmt.Sprintf("r%d@%d.test", len(m.to), e.lanes[i]), e.notify[i])
		if slices.Contains(e.scripts[i], "panics") { // with others that arrived they would arrive again
			one.Address = fmt.Sprintf("alone@%d.alone.test", len(m.to))
		}
		env.To = append(env.To, one)
		m.to[one.Address] = &modelRecipient{told: env.From != "" && one.Notify.Failure()}
		m.mu.Lock()
		m.script[one.Address] = e.scripts[i]
		m.mu.Unlock()
	}
	id, err := m.q.Enqueue(context.Background(), env, strings.NewReader(plain))
	require.NoError(m, err)
	for _, one := range env.To {
		m.to[one.Address].id = id
	}
	m.id = append(m.id, id)
}

// change lets a person intervene.
func (m *runs) change(e *event) {
	if len(m.id) == 0 {
		return
	}
	id := m.id[e.number%len(m.id)]
	ctx, f := context.Background(), queue.Filter{ID: id}
	var err error
	switch e.what {
	case "hold":
		_, err = m.q.Hold(ctx, f, "wait")
	case "release":
		_, err = m.q.Release(ctx, f)
	case "retry":
		_, err = m.q.Retry(ctx, f)
	case "fail":
		_, err = m.q.Fail(ctx, f, "enough")
	case "delete":
		_, err = m.q.Delete(ctx, f)
	}
	require.NoError(m, err)
	for _, one := range m.to {
		one.ended = one.ended || (one.id == id && e.what == "fail")
		one.deleted = one.deleted || (one.id == id && e.what == "delete")
	}
}

// finish lets everything end, and looks how it did.
func (m *runs) finish() {
	m.setFaults(0)
	m.mu.Lock()
	for address := range m.script {
		m.script[address] = []string{"later"}
	}
	m.mu.Unlock()
	for range 3 { // what is released may be held again
		_, err := m.q.Release(context.Background(), queue.Filter{All: true})
		require.NoError(m, err)
		time.Sleep(24 * time.Hour)
		synctest.Wait()
	}
	held := m.left()
	m.stop(time.Hour)
	require.NoError(m, <-m.ended)
	m.ended <- nil
	for address, one := range m.to {
		m.check(address, one, held[address])
	}
}

// left are the recipients that are still there: held, all of them.
func (m *runs) left() map[string]int {
	held := map[string]int{}
	list, _, err := m.q.List(context.Background(), queue.Filter{}, "", 0)
	require.NoError(m, err)
	for _, e := range list {
		require.Equal(m, queue.Held, e.State, "%+v", e)
		for _, one := range e.To {
			held[one.Address]++
		}
	}
	return held
}

func (m *runs) check(address string, one *modelRecipient, held int) {
	arrived, failed, delayed := 0, 0, 0
	for _, try := range m.far.triesOf(address) {
		if try.outcome.Result.Success() {
			arrived++
		}
	}
	seen := map[string]bool{} // a report may arrive twice too
	for _, text := range m.far.home {
		if seen[string(text)] {
			continue
		}
		seen[string(text)] = true
		report, err := dsn.Parse(bytes.NewReader(text))
		require.NoError(m, err)
		switch actions(report)[address] {
		case dsn.Failed:
			failed++
		case dsn.Delayed:
			delayed++
		}
	}
	require.LessOrEqual(m, failed+held, 1, "%s: failed %d, held %d", address, failed, held)
	if m.crashed {
		arrived = min(arrived, 1-failed-held)
	}
	what := fmt.Sprintf("%s: arrived %d, failed %d, delayed %d, held %d, %+v", address, arrived, failed, delayed, held, *one)
	require.LessOrEqual(m, arrived+failed+held, 1, what)
	require.LessOrEqual(m, delayed, 1, what)
	switch {
	case one.deleted:
	case one.told:
		require.Equal(m, 1, arrived+failed, what)
	case m.keep && !one.ended:
		require.Equal(m, 1, arrived+held, what)
	}
}
