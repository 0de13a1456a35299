package disk

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/queue"
)

// stride is the distance of the places that a test tries which could try all: with SORTIE_INTEROP=1 it tries all.
func stride(usual int) int {
	if os.Getenv("SORTIE_INTEROP") == "1" {
		return 1
	}
	return usual
}

// journalSegment is so long that one segment holds it all, and so short that it is worth a hint.
const journalSegment = 100_000

// journal is what a disk and its log were after each step of a script, and what the queue held.
type journal struct {
	dir    string
	disk   []*volatile
	length []int // of the log
	state  []map[string]string
	closed *volatile // after Close
}

// newJournal plays a script on a disk in memory.
func newJournal(t testing.TB, steps int) *journal {
	disk, dir := newMemoryDisk(t)
	j := &journal{dir: dir}
	q, err := openOn(disk, dir, journalSegment)
	require.NoError(t, err)
	s := &script{TB: t, q: q}
	for range steps {
		require.NoError(t, s.step())
		j.disk = append(j.disk, disk.snapshot())
		j.length = append(j.length, len(disk.newest(t, dir).data))
		j.state = append(j.state, stateOf(t, q))
	}
	require.NoError(t, q.Close())
	j.closed = disk.snapshot()
	return j
}

// cutAt gives the disk as it was in the middle of a step, with a log of that many octets: bodies are made before their records
// are, and removed after.
func (j *journal) cutAt(t testing.TB, step, length int) *volatile {
	d := j.disk[step].snapshot()
	for path, n := range j.disk[step-1].now {
		if d.now[path] == nil {
			d.now[path] = n
		}
	}
	n := d.newest(t, j.dir)
	n.data = n.data[:length:length]
	n.synced = n.data
	return d
}

// TestEveryPrefix opens every beginning of a log: after each step it holds what the queue held then, and in between what it held
// before the step or after it, and nothing else.
//
// std: Q2
func TestEveryPrefix(t *testing.T) {
	j := newJournal(t, 40)
	for i := 1; i < len(j.length); i++ {
		for length := j.length[i-1]; length <= j.length[i]; length++ {
			if d := length - j.length[i-1]; d%stride(29) > 1 && j.length[i]-length > 1 {
				continue
			}
			got := j.open(t, j.cutAt(t, i, length))
			before, after := maps.Equal(got, j.state[i-1]), maps.Equal(got, j.state[i])
			switch length {
			case j.length[i-1]:
				require.True(t, before, "step %d: what was acknowledged before it is not there: %v, not %v", i, got, j.state[i-1])
			case j.length[i]:
				require.True(t, after, "step %d: what was acknowledged is not there: %v, not %v", i, got, j.state[i])
			default:
				require.True(t, before || after, "step %d, %d of %d octets: neither before nor after it: %v", i, length-j.length[i-1], j.length[i]-j.length[i-1], got)
			}
		}
	}
}

// TestEveryFlippedBit changes one bit in each octet of a log (with SORTIE_INTEROP=1 each bit), of a queue that was closed and of
// one that was not. What is then different is no more than what one record tells of, and damage is told.
//
// std: Q2
func TestEveryFlippedBit(t *testing.T) {
	j := newJournal(t, 40)
	want, most := j.state[len(j.state)-1], 0
	for i := 1; i < len(j.state); i++ {
		most = max(most, differences(j.state[i-1], j.state[i]))
	}
	require.NotNil(t, j.closed.now[hintPath(segmentPath(j.dir, 1))], "what is closed has a hint")
	for name, disk := range map[string]*volatile{"closed": j.closed, "not closed": j.disk[len(j.disk)-1]} {
		log := disk.newest(t, j.dir).data
		for at := bytes.IndexByte(log, '\n') + 1; at < len(log); at += stride(23) {
			for bit := at % 8; bit < 8; bit += stride(8) {
				d := disk.snapshot()
				d.newest(t, j.dir).data[at] ^= 1 << bit
				got := j.open(t, d)
				if maps.Equal(want, got) {
					continue // a line end, what it changes is over, or it is told elsewhere too
				}
				require.LessOrEqual(t, differences(want, got), most, "%s, bit %d of octet %d: more than one record is lost", name, bit, at)
				aside, err := d.list(filepath.Join(j.dir, damagedFolder))
				require.NoError(t, err)
				require.True(t, len(aside) > 0 || tellsDamage(got), "%s, bit %d of octet %d: nobody was told of it", name, bit, at)
			}
		}
	}
}

// tellsDamage reports whether the queue says of an entry that it, or its body, cannot be read.
func tellsDamage(state map[string]string) bool {
	for _, e := range state {
		if strings.HasSuffix(e, " damaged") || strings.Contains(e, "cannot be read") {
			return true
		}
	}
	return false
}

// open gives what a queue on a disk holds.
func (j *journal) open(t testing.TB, d *volatile) map[string]string {
	q, err := openOn(d, j.dir, journalSegment)
	require.NoError(t, err)
	defer q.Close()
	return stateOf(t, q)
}

// differences counts the entries that are not the same.
func differences(want, got map[string]string) (n int) {
	for key, w := range want {
		if got[key] != w {
			n++
		}
	}
	for key := range got {
		if _, ok := want[key]; !ok {
			n++
		}
	}
	return n
}

// gatedDisk holds up the fsync of files while it is shut.
type gatedDisk struct {
	*volatile
	gate chan struct{} // nil is open
}

func (d *gatedDisk) create(path string) (file, error) {
	f, err := d.volatile.create(path)
	return gatedFile{f, d}, err
}

type gatedFile struct {
	file
	d *gatedDisk
}

func (f gatedFile) Sync() error {
	if f.d.gate != nil {
		<-f.d.gate
	}
	return f.file.Sync()
}

// TestEveryDroppedPage has many callers share a write of several pages, cuts the power before its fsync has ended, and drops
// each set of the pages that the disk may not have got to. What was acknowledged before is there; of the rest, what is there is
// whole; and the queue goes on.
//
// std: Q1
func TestEveryDroppedPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base, dir := newMemoryDisk(t)
		d := &gatedDisk{volatile: base}
		q, err := openOn(d, dir, journalSegment)
		require.NoError(t, err)
		s := &script{TB: t, q: q}
		for range 8 {
			require.NoError(t, s.step())
		}
		d.gate = make(chan struct{})
		known := map[string]string{} // what may be there, by its body
		send := func(body string) {
			known[sumOf(body)] = body
			go q.Enqueue(t.Context(), queue.Envelope{To: queue.To("1@c.test")}, strings.NewReader(body))
			synctest.Wait()
		}
		send("the write that the others wait for")
		from := len(base.newest(t, dir).data) // it is written, and not acknowledged
		for i := range 5 {
			send(strings.Repeat(string(rune('a'+i)), 3000))
		}
		d.gate <- struct{}{} // the first one is acknowledged; the others are written together, and hang
		synctest.Wait()
		acknowledged := stateOf(t, q)
		whole := base.snapshot()
		to := len(whole.newest(t, dir).data)
		require.Greater(t, to-from, 3*page, "several pages are under way")
		close(d.gate)
		require.NoError(t, q.Close())
		dropPages(t, whole, dir, from, to, acknowledged, known)
	})
}

// dropPages opens the disk without each set of the pages between two places of the newest segment.
func dropPages(t *testing.T, whole *volatile, dir string, from, to int, acknowledged, known map[string]string) {
	first, last := from/page, (to-1)/page
	for set := range 1 << (last - first + 1) {
		d := whole.snapshot()
		n := d.newest(t, dir)
		for p := first; p <= last; p++ {
			if set&(1<<(p-first)) != 0 {
				clear(n.data[max(from, p*page):min(to, (p+1)*page)])
			}
		}
		q, err := openOn(d, dir, journalSegment)
		require.NoError(t, err)
		got := stateOf(t, q)
		for key, w := range acknowledged {
			require.Equal(t, w, got[key], "pages %b: %s was acknowledged", set, key)
		}
		for key, g := range got {
			sum := g[strings.LastIndexByte(g, ' ')+1:]
			require.True(t, acknowledged[key] != "" || known[sum] != "", "pages %b: %s is nothing that was sent: %s", set, key, g)
		}
		id, err := q.Enqueue(t.Context(), queue.Envelope{To: queue.To("1@d.test")}, strings.NewReader("after the cut"))
		require.NoError(t, err)
		require.NoError(t, q.Close())
		q, err = openOn(d.cut(), dir, journalSegment)
		require.NoError(t, err)
		assert.Len(t, stateOf(t, q), len(got)+1)
		assert.Equal(t, sumOf("after the cut"), bodyOf(t, q, id))
		require.NoError(t, q.Close())
	}
}
