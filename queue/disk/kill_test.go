package disk

import (
	"bufio"
	"context"
	"fmt"
	"hash/crc32"
	"io"
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

// victimSpool is set in the environment of a child that TestKill kills.
const victimSpool = "SORTIE_TEST_VICTIM_SPOOL"

// victimSegments is how long its segments are: short, so that they are cleaned and removed within its life.
const victimSegments = 100_000

// TestKill kills a process with SIGKILL that accepts and settles mail as fast as it can, opens its spool, and holds what
// it finds against what that process had been told: nothing acknowledged is lost, and a message is settled with its
// report or neither is.
//
// std: Q1
func TestKill(t *testing.T) {
	if dir := os.Getenv(victimSpool); dir != "" {
		victim(dir)
		return
	}
	dir := t.TempDir()
	k := &killed{TB: t, dir: dir, accepted: map[string]string{}, begun: map[string]bool{}, settled: map[string]bool{}}
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	for range rounds {
		k.round(time.Duration(5+rand.IntN(120)) * time.Millisecond)
	}
	t.Logf("%d accepted and %d settled in %d lives", len(k.accepted), len(k.settled), rounds)
	assert.NotEmpty(t, k.settled, "the test has tested something")
}

// killed is what the victims of all rounds were told.
type killed struct {
	testing.TB
	dir            string
	accepted       map[string]string // the checksum of the body
	begun, settled map[string]bool
}

// round lets a victim live for a while, and checks what it left.
func (k *killed) round(life time.Duration) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
	cmd.Env = append(os.Environ(), victimSpool+"="+k.dir)
	out, err := cmd.StdoutPipe()
	require.NoError(k, err)
	require.NoError(k, cmd.Start())
	lines := bufio.NewReader(out)
	first, err := lines.ReadString('\n') // it is up; its life begins
	require.NoError(k, err)
	k.told(first)
	timer := time.AfterFunc(life, func() { cmd.Process.Kill() })
	defer timer.Stop()
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			break // a line cut off by the end was not told
		}
		k.told(line)
	}
	io.Copy(io.Discard, out)
	cmd.Wait()
	k.check()
}

func (k *killed) told(line string) {
	what, id, _ := strings.Cut(strings.TrimSpace(line), " ")
	switch what {
	case "accepted":
		id, sum, _ := strings.Cut(id, " ")
		k.accepted[id] = sum
	case "begun":
		k.begun[id] = true
	case "settled":
		k.settled[id] = true
	}
}

func (k *killed) check() {
	q, err := Options{segmentSize: victimSegments}.Open(k.dir)
	require.NoError(k, err)
	defer q.Close()
	entries, _, err := q.List(context.Background(), queue.Filter{}, "", 0)
	require.NoError(k, err)
	present, reports := map[string]bool{}, map[string]int{}
	for _, e := range entries {
		body := readAll(k, q, e.ID)
		if e.From == "" {
			reports[strings.TrimPrefix(body, "report about ")]++
			continue
		}
		present[string(e.ID)] = true
		if want := k.accepted[string(e.ID)]; want != "" {
			assert.Equal(k, want, sumOf(body), "the body of %s is not what was sent", e.ID)
		}
	}
	for id := range k.accepted {
		switch {
		case present[id]:
			assert.False(k, k.settled[id], "%s was settled, and is back", id)
			assert.Zero(k, reports[id], "%s is not settled, and has a report", id)
		default:
			assert.True(k, k.begun[id], "%s was accepted, and is lost", id)
			assert.Equal(k, 1, reports[id], "reports of %s, which is settled", id)
		}
	}
}

func sumOf(body string) string { return fmt.Sprint(crc32.Checksum([]byte(body), castagnoli)) }

func readAll(t testing.TB, q *Queue, id queue.ID) string {
	r, err := q.Open(context.Background(), id)
	require.NoError(t, err)
	defer r.Close()
	b, err := io.ReadAll(r)
	require.NoError(t, err)
	return string(b)
}

// victim works until it is killed, and says what it was told.
func victim(dir string) {
	q, err := Options{segmentSize: victimSegments}.Open(dir)
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
	for worker := range 4 {
		all.Go(func() { sender(ctx, q, worker, say) })
		all.Go(func() { settler(ctx, q, say) })
	}
	all.Wait()
}

func sender(ctx context.Context, q *Queue, worker int, say func(...any)) {
	for n := 0; ctx.Err() == nil; n++ {
		body := fmt.Sprintf("message %d of %d %s", n, worker, strings.Repeat("x", rand.IntN(3000)))
		if n%50 == 49 {
			body += strings.Repeat("y", inlineMax)
		}
		id, err := q.Enqueue(ctx, queue.Envelope{From: "me@src.test", To: queue.To("you@a.test")}, strings.NewReader(body))
		if err == nil {
			say("accepted", id, sumOf(body))
		}
	}
}

func settler(ctx context.Context, q *Queue, say func(...any)) {
	for ctx.Err() == nil {
		leases, _, err := q.Lease(ctx, queue.LeaseRequest{Max: 1, For: time.Hour, Room: func(ask queue.Ask) queue.Grant {
			if ask.Lane == "a.test" {
				return queue.Grant{N: 100}
			}
			return queue.Grant{}
		}})
		if err != nil || len(leases) == 0 {
			continue
		}
		l := leases[0]
		report := queue.Submission{Envelope: queue.Envelope{To: queue.To("me@src.test")}, Body: []byte("report about " + string(l.ID))}
		say("begun", l.ID)
		err = q.Settle(ctx, l, queue.Settlement{Done: []string{"you@a.test"}, Reports: []queue.Submission{report}})
		if err == nil {
			say("settled", l.ID)
		}
	}
}
