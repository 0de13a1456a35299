package disk

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/queue"
)

// roundsSpool is set in the environment of a child that TestRounds kills.
const roundsSpool = "SORTIE_TEST_ROUNDS_SPOOL"

// roundsOptions make segments so short that they are begun, cleaned and removed within a life.
func roundsOptions() Options { return Options{segmentSize: 20_000, MinFree: -1} }

// TestRounds kills, at any moment of its short life and again and again, a process that accepts, tries, settles and deletes mail.
// A model knows what it was told. Nothing acknowledged is lost or forgotten, what is gone does not come back, each entry has one
// report, and a delivery is made again only if it was under way when its process was killed. With SORTIE_INTEROP=1 it is 200
// rounds.
//
// std: Q1
func TestRounds(t *testing.T) {
	if dir := os.Getenv(roundsSpool); dir != "" {
		roundsVictim(dir)
		return
	}
	rounds := 20
	switch {
	case os.Getenv("SORTIE_INTEROP") == "1":
		rounds = 200
	case testing.Short():
		rounds = 5
	}
	r := &roundsModel{TB: t, dir: t.TempDir(), entries: map[string]*roundsEntry{}}
	for r.life = 1; r.life <= rounds; r.life++ {
		r.round(time.Duration(rand.IntN(100)) * time.Millisecond)
		if r.life%4 > 0 || r.life == rounds { // else the next process is the first to open what this one has left
			r.check()
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	t.Logf("%d accepted, %d tries recorded, %d settled, %d deleted, %d made again, in %d lives", r.accepted, r.tried, r.settled, r.deleted, r.doubled, rounds)
	assert.Positive(t, r.settled, "the test has tested something")
}

// roundsModel is what the processes of all rounds were told.
type roundsModel struct {
	testing.TB
	dir     string
	life    int
	entries map[string]*roundsEntry // by ID and lane

	accepted, tried, settled, deleted, doubled int
}

// roundsEntry is what is known of one entry.
type roundsEntry struct {
	sum      string // of the body; "" where the acceptance was not told
	accepted bool
	begun    int // deliveries
	underWay int // the life in which one was begun that has not ended as far as was told
	tries    int // recorded, as was told
	settled  bool
	deleting bool
	deleted  bool
	reports  int
	gone     bool // it was seen that it is not there
}

func (r *roundsModel) entry(key string) *roundsEntry {
	e := r.entries[key]
	if e == nil {
		e = &roundsEntry{}
		r.entries[key] = e
	}
	return e
}

// round lets a process live for a while, counted from its start: it may be killed while it opens the spool.
func (r *roundsModel) round(life time.Duration) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestRounds$")
	cmd.Env = append(os.Environ(), roundsSpool+"="+r.dir)
	out, err := cmd.StdoutPipe()
	require.NoError(r, err)
	require.NoError(r, cmd.Start())
	var timer *time.Timer
	if r.life%5 == 0 {
		timer = time.AfterFunc(life/3, func() { cmd.Process.Kill() })
	}
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			break // a line cut off by the end was not told
		}
		f := strings.Fields(line)
		if f[0] == "up" && timer == nil {
			r.intrude(cmd.Process.Pid)
			timer = time.AfterFunc(life, func() { cmd.Process.Kill() })
		}
		r.told(f)
	}
	if timer != nil {
		timer.Stop()
	}
	io.Copy(io.Discard, out)
	cmd.Wait()
	require.False(r, cmd.ProcessState.Exited(), "life %d: it ended by itself: %v", r.life, cmd.ProcessState)
}

// intrude tries to open the spool while another process has it.
//
// std: Q3
func (r *roundsModel) intrude(pid int) {
	if r.life%10 != 1 {
		return
	}
	_, err := roundsOptions().Open(r.dir)
	var locked *LockedError
	require.ErrorAs(r, err, &locked)
	require.Contains(r, err.Error(), fmt.Sprintf("process %d (", pid))
}

func (r *roundsModel) told(f []string) {
	switch f[0] {
	case "accepted": // ID, checksum
		for _, lane := range []string{"a.test", "b.test"} {
			e := r.entry(f[1] + " " + lane)
			e.accepted, e.sum = true, f[2]
			r.accepted++
		}
		return
	case "begun", "tried", "settled", "deleting", "deleted":
	default:
		return
	}
	key := strings.Join(f[1:], " ")
	e := r.entry(key)
	switch f[0] {
	case "begun":
		require.False(r, e.settled || e.gone, "life %d: %s is delivered again, and was settled: %+v", r.life, key, e)
		require.NotEqual(r, r.life, e.underWay, "life %d: %s is delivered twice at once", r.life, key)
		if e.underWay > 0 {
			r.doubled++ // it was under way when its process was killed
		}
		e.begun++
		e.underWay = r.life
	case "tried":
		e.tries++
		e.underWay = 0
		r.tried++
	case "settled":
		e.settled, e.underWay = true, 0
		r.settled++
	case "deleting":
		e.deleting = true
	case "deleted":
		e.deleted = true
		r.deleted++
	}
}

// check opens the spool and holds what is there against the model. It takes the reports away, each of which must not come
// back, and makes everything due.
func (r *roundsModel) check() {
	q, err := roundsOptions().Open(r.dir)
	require.NoError(r, err)
	defer q.Close()
	ctx := context.Background()
	entries, _, err := q.List(ctx, queue.Filter{}, "", 0)
	require.NoError(r, err)
	present := map[string]bool{}
	for i := range entries {
		r.see(q, &entries[i], present)
	}
	for key, e := range r.entries {
		r.judge(key, e, present[key])
	}
	_, err = q.Delete(ctx, queue.Filter{Sender: "<>"})
	require.NoError(r, err)
	_, err = q.Retry(ctx, queue.Filter{All: true})
	require.NoError(r, err)
}

// see takes one entry that is there into account.
func (r *roundsModel) see(q *Queue, i *queue.Info, present map[string]bool) {
	body := readAll(r, q, i.ID)
	if i.From == "" {
		r.entry(strings.TrimPrefix(body, "report about ")).reports++
		return
	}
	key := string(i.ID) + " " + i.Lane
	require.False(r, present[key], "life %d: %s is there twice", r.life, key)
	present[key] = true
	e := r.entry(key)
	e.accepted = true
	if e.sum != "" {
		require.Equal(r, e.sum, sumOf(body), "life %d: the body of %s is not what was sent", r.life, key)
	}
	require.GreaterOrEqual(r, i.Attempts, e.tries, "life %d: a try of %s is forgotten", r.life, key)
	require.LessOrEqual(r, i.Attempts, e.begun, "life %d: a try of %s was never made", r.life, key)
	e.tries = i.Attempts
}

// judge decides whether what became of an entry was possible.
func (r *roundsModel) judge(key string, e *roundsEntry, present bool) {
	switch {
	case present:
		require.False(r, e.settled || e.deleted || e.gone, "life %d: %s was gone, and is back: %+v", r.life, key, e)
		require.Zero(r, e.reports, "life %d: %s is there, and has a report", r.life, key)
		e.deleting = false
	case e.settled:
		require.Equal(r, 1, e.reports, "life %d: reports of %s, which is settled", r.life, key)
	case e.reports > 0:
		require.Equal(r, 1, e.reports, "life %d: reports of %s", r.life, key)
		require.Positive(r, e.begun, "life %d: %s has a report that nobody made", r.life, key)
	case e.accepted:
		require.True(r, e.deleting || e.deleted, "life %d: %s was accepted, and is lost: %+v", r.life, key, e)
	}
	e.gone = !present && e.accepted
}

// roundsVictim works until it is killed, and says what it was told.
func roundsVictim(dir string) {
	opts := roundsOptions()
	opts.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	q, err := opts.Open(dir)
	if err != nil {
		panic(err)
	}
	var out sync.Mutex
	say := func(what ...any) {
		out.Lock()
		defer out.Unlock()
		fmt.Println(what...)
	}
	say("up")
	ctx, end := context.WithTimeout(context.Background(), 30*time.Second) // should its parent die first
	defer end()
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() { repeat(ctx, func() error { return roundsSend(ctx, q, say) }) })
		all.Go(func() { repeat(ctx, func() error { return roundsTry(ctx, q, say) }) })
	}
	all.Wait()
}

func repeat(ctx context.Context, do func() error) {
	for ctx.Err() == nil {
		if err := do(); err != nil {
			panic(err)
		}
	}
}

// roundsSend enqueues a message for two lanes, while there are not too many, and now and then deletes it.
func roundsSend(ctx context.Context, q *Queue, say func(...any)) error {
	if stats, err := q.Stats(ctx); err != nil || stats.Messages > 100 {
		time.Sleep(time.Millisecond)
		return err
	}
	body := "message " + strings.Repeat("x", rand.IntN(3000))
	if rand.IntN(30) == 0 {
		body += strings.Repeat("y", inlineMax)
	}
	id, err := q.Enqueue(ctx, queue.Envelope{From: "me@src.test", To: queue.To("1@a.test", "1@b.test")}, strings.NewReader(body))
	if err != nil {
		return err
	}
	say("accepted", id, sumOf(body))
	if rand.IntN(10) > 0 {
		return nil
	}
	lane := []string{"a.test", "b.test"}[rand.IntN(2)]
	say("deleting", id, lane)
	n, err := q.Delete(ctx, queue.Filter{ID: id, Lane: lane})
	if n == 1 {
		say("deleted", id, lane)
	}
	return err
}

// roundsTry leases an entry, and settles it with a report or records a try.
func roundsTry(ctx context.Context, q *Queue, say func(...any)) error {
	leases, _, err := q.Lease(ctx, queue.LeaseRequest{Max: 1, For: time.Hour, Room: func(a queue.Ask) queue.Grant {
		if a.Lane == "src.test" {
			return queue.Grant{} // reports stay, to be counted
		}
		return queue.Grant{N: 100}
	}})
	if err != nil || len(leases) == 0 {
		time.Sleep(100 * time.Microsecond)
		return err
	}
	l := leases[0]
	say("begun", l.ID, l.Lane)
	s := queue.Settlement{Attempt: queue.Attempt{Time: time.Now(), Route: "direct"}, Next: time.Now().Add(time.Hour)}
	word := "tried"
	if rand.IntN(3) > 0 {
		word = "settled"
		s.Done = []string{l.Envelope.To[0].Address}
		s.Reports = []queue.Submission{{Envelope: queue.Envelope{To: queue.To("me@src.test")}, Body: fmt.Appendf(nil, "report about %s %s", l.ID, l.Lane)}}
	}
	err = q.Settle(ctx, l, s)
	if errors.Is(err, queue.ErrLeaseLost) { // it was deleted
		return nil
	}
	if err == nil {
		say(word, l.ID, l.Lane)
	}
	return err
}
