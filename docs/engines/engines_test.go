package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMain lets the tests' own program be the process that is killed.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "-task" {
		runTask(os.Args[2])
		return
	}
	os.Exit(m.Run())
}

func forEach(t *testing.T, f func(t *testing.T, k kind)) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) { f(t, k) })
	}
}

func begin(t *testing.T, k kind, dir string, size int) *worker {
	t.Helper()
	e, err := k.open(dir)
	require.NoError(t, err)
	return &worker{e: e, size: size}
}

func list(t *testing.T, k kind, dir string, size int) result {
	t.Helper()
	var r result
	require.NoError(t, doList(task{Engine: k.name, Dir: dir, Size: size}, &r))
	assert.Empty(t, r.Wrong)
	assert.Empty(t, r.Damaged)
	return r
}

// What is accepted is there, and what is settled is not, when an engine is opened again.
func TestKeepsOverClose(t *testing.T) {
	forEach(t, func(t *testing.T, k kind) {
		for _, size := range []int{4 << 10, 300 << 10} {
			dir := filepath.Join(t.TempDir(), "spool")
			w := begin(t, k, dir, size)
			require.NoError(t, w.fill(40))
			for range 15 {
				more, err := w.deliver()
				require.NoError(t, err)
				require.True(t, more)
			}
			require.NoError(t, w.e.close())
			found := list(t, k, dir, size).Found
			assert.Len(t, found, 25)

			w = begin(t, k, dir, size)
			w.seq.Store(40)
			require.NoError(t, w.fill(10))
			require.NoError(t, w.drain())
			assert.EqualValues(t, 35, w.count.Load(), "what an earlier life left and what came since is delivered, each once")
			require.NoError(t, w.e.close())
			assert.Empty(t, list(t, k, dir, size).Found)
		}
	})
}

// A message is handed out once.
func TestTakesOnce(t *testing.T) {
	forEach(t, func(t *testing.T, k kind) {
		w := begin(t, k, filepath.Join(t.TempDir(), "spool"), 100)
		require.NoError(t, w.fill(30))
		seen := map[uint64]bool{}
		for {
			jobs, err := w.e.take(7)
			require.NoError(t, err)
			if len(jobs) == 0 {
				break
			}
			for _, j := range jobs {
				assert.False(t, seen[j.seq], j.seq)
				seen[j.seq] = true
			}
		}
		assert.Len(t, seen, 30)
		require.NoError(t, w.e.close())
	})
}

// What was acknowledged before a kill is there after it.
func TestKeepsOverKill(t *testing.T) {
	forEach(t, func(t *testing.T, k kind) {
		work := task{Do: "endless", Engine: k.name, Dir: filepath.Join(t.TempDir(), "spool"), Size: 4 << 10}
		r, err := work.killed(context.Background(), 300)
		require.NoError(t, err)
		require.NotEmpty(t, r.acks.accepted, "%s %s", r.died, r.said)
		left := list(t, k, work.Dir, work.Size)
		lost, back := r.acks.compare(&left)
		assert.Zero(t, lost)
		assert.Zero(t, back)
	})
}

// What is lost is noticed.
func TestCompare(t *testing.T) {
	a := acks{
		accepted: map[uint64]bool{1: true, 2: true, 3: true, 4: true},
		settling: map[uint64]bool{3: true, 4: true},
		settled:  map[uint64]bool{4: true},
	}
	lost, back := a.compare(&result{Found: []uint64{1, 4}})
	assert.Equal(t, 1, lost, "2 is, and 3 may be gone")
	assert.Equal(t, 1, back, "4 is")
}

// A byte that changes is told apart from one that does not, by the engines that have checksums of all.
func TestDamage(t *testing.T) {
	k, err := kindNamed("own")
	require.NoError(t, err)
	cut, flipped, err := damage(context.Background(), k, 200, 4<<10)
	require.NoError(t, err)
	for _, f := range append(cut, flipped...) {
		assert.True(t, f.opens)
		assert.Zero(t, f.wrong)
		assert.NotEmpty(t, f.said)
		assert.InDelta(t, 1, f.missing+f.damaged, 1, f.said)
	}
	k, err = kindNamed("sqlite+bodies")
	require.NoError(t, err)
	_, flipped, err = damage(context.Background(), k, 200, 4<<10)
	require.NoError(t, err)
	assert.Equal(t, 1, flipped[0].damaged, "a body has a checksum")
	for _, f := range flipped {
		assert.Zero(t, f.wrong)
	}
	k, err = kindNamed("files")
	require.NoError(t, err)
	_, flipped, err = damage(context.Background(), k, 200, 4<<10)
	require.NoError(t, err)
	for _, f := range flipped {
		assert.Equal(t, 1, f.wrong+f.damaged, "a changed message has no checksum to be found by")
	}
}

func TestCalls(t *testing.T) {
	assert.Equal(t, 12, calls(`% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 99.00    0.020000        2000        10           fdatasync
  1.00    0.000200         100         2         1 fsync
------ ----------- ----------- --------- --------- ----------------
100.00    0.020200        1683        12         1 total
`))
}

func TestPaste(t *testing.T) {
	path := filepath.Join(t.TempDir(), "doc.md")
	require.NoError(t, os.WriteFile(path, []byte("before\n"+tablesBegin+"old\n"+tablesEnd+"after\n"), 0o600))
	require.NoError(t, paste(path, "new\n"))
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "before\n"+tablesBegin+"\nnew\n\n"+tablesEnd+"after\n", string(data))
	assert.Error(t, paste(filepath.Join(t.TempDir(), "none"), ""))
}
