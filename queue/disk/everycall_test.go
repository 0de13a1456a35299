package disk

import (
	"errors"
	"io/fs"
	"maps"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/queue"
)

// failure is how a disk fails.
type failure struct {
	sync  bool // fsync fails, with EIO; else it is writing, with ENOSPC
	torn  bool // a write that fails has written a part
	calls int  // that fail; negative is all that come
}

// failingDisk is a disk that fails from a certain call on, some calls long.
type failingDisk struct {
	*volatile
	failure
	first int // the call that fails first, from 1 on

	mu   sync.Mutex
	made int // guarded by mu: calls so far
}

// fails counts a call that may fail, and reports whether it does.
func (d *failingDisk) fails() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.made++
	return d.made >= d.first && (d.calls < 0 || d.made < d.first+d.calls)
}

// mend lets all calls succeed from now on.
func (d *failingDisk) mend() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = 0
}

func (d *failingDisk) failed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.made >= d.first
}

func (d *failingDisk) mkdir(dir string) error {
	if !d.sync && d.fails() {
		return &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOSPC}
	}
	return d.volatile.mkdir(dir)
}

func (d *failingDisk) create(path string) (file, error) {
	if !d.sync && d.fails() {
		return nil, &fs.PathError{Op: "open", Path: path, Err: syscall.ENOSPC}
	}
	f, err := d.volatile.create(path)
	return failingFile{f, d}, err
}

func (d *failingDisk) open(path string) (file, error) {
	f, err := d.volatile.open(path)
	if err != nil {
		return nil, err
	}
	return failingFile{f, d}, nil
}

func (d *failingDisk) rename(from, to string) error {
	if !d.sync && d.fails() {
		return &fs.PathError{Op: "rename", Path: to, Err: syscall.ENOSPC}
	}
	return d.volatile.rename(from, to)
}

func (d *failingDisk) syncDir(dir string) error {
	if d.sync && d.fails() {
		return &fs.PathError{Op: "sync", Path: dir, Err: syscall.EIO}
	}
	return d.volatile.syncDir(dir)
}

type failingFile struct {
	file
	d *failingDisk
}

func (f failingFile) Write(p []byte) (n int, err error) {
	if f.d.sync || !f.d.fails() {
		return f.file.Write(p)
	}
	if f.d.torn {
		n, _ = f.file.Write(p[:len(p)/2])
	}
	return n, &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
}

func (f failingFile) Sync() error {
	if f.d.sync && f.d.fails() {
		return &fs.PathError{Op: "sync", Path: "x", Err: syscall.EIO}
	}
	return f.file.Sync()
}

// TestFailureAtEveryCall has the disk fail at each call of a spool's life, from its opening on: full for one call, full until
// somebody makes room, and unable to sync. What was acknowledged is there, what failed is not, also after a power cut; where
// there is room again mail is accepted, and after an fsync that failed it is not until the spool is opened anew.
//
// std: Q1
func TestFailureAtEveryCall(t *testing.T) {
	for name, kind := range map[string]failure{
		"full for a call": {calls: 1},
		"full in the middle of a write, for a call":         {calls: 1, torn: true},
		"full until room is made":                           {calls: -1},
		"full in the middle of a write, until room is made": {calls: -1, torn: true},
		"cannot sync for a call":                            {calls: 1, sync: true},
		"cannot sync any more":                              {calls: -1, sync: true},
		"full for a handful":                                {calls: 5},
		"cannot sync for a little":                          {calls: 3, sync: true},
	} {
		t.Run(name, func(t *testing.T) {
			first, reached := 1, true
			for ; reached; first += stride(3) {
				reached = failAt(t, &failingDisk{failure: kind, first: first})
			}
			assert.Greater(t, first, 30, "the test has tested something")
		})
	}
}

// failAt plays a script on a disk that fails, and reports whether it came to that.
func failAt(t *testing.T, d *failingDisk) bool {
	const segment = 3000 // so that segments are begun, cleaned and removed
	v, dir := newMemoryDisk(t)
	q, err := openOn(v, dir, segment)
	require.NoError(t, err)
	s := &script{TB: t, q: q}
	for range 12 {
		require.NoError(t, s.step())
	}
	state := stateOf(t, q)
	require.NoError(t, q.Close())

	d.volatile = v
	if q, err = openOn(d, dir, segment); err == nil {
		s.q = q
		state = s.playFailing(d, state)
		q.Close()
	} else {
		checkFailure(t, d, err)
	}
	q, err = openOn(v.cut(), dir, segment)
	require.NoError(t, err, "call %d", d.first)
	defer q.Close()
	got := stateOf(t, q)
	if d.sync && d.failed() { // of what failed to sync nobody knows; all else is as it was
		require.LessOrEqual(t, differences(state, got), 3, "call %d: %v, not %v", d.first, got, state)
		return true
	}
	require.Equal(t, state, got, "call %d", d.first)
	return d.failed()
}

// playFailing goes on with a script while the disk fails, and gives what the queue must hold in the end.
func (s *script) playFailing(d *failingDisk, state map[string]string) map[string]string {
	broken := false
	for range 30 {
		err := s.step()
		got := stateOf(s, s.q)
		switch {
		case err == nil && !broken:
			state = got
		case err == nil: // there was nothing to do
			require.True(s, maps.Equal(state, got), "call %d: something is written after an fsync that failed", d.first)
		default:
			checkFailure(s, d, err)
			require.True(s, maps.Equal(state, got), "call %d: what failed has changed something: %v, not %v", d.first, got, state)
		}
		broken = broken || (err != nil && strings.Contains(err.Error(), "fsync failed"))
	}
	d.mend()
	_, err := s.q.Enqueue(s.Context(), queue.Envelope{To: queue.To("1@c.test")}, strings.NewReader("there is room"))
	if broken {
		require.Error(s, err)
		return state
	}
	require.NoError(s, err, "call %d", d.first)
	return stateOf(s, s.q)
}

// checkFailure holds an error against what failed.
func checkFailure(t testing.TB, d *failingDisk, err error) {
	require.True(t, d.failed(), "nothing has failed: %v", err)
	if d.sync {
		require.ErrorIs(t, err, syscall.EIO)
		return
	}
	require.ErrorIs(t, err, queue.ErrFull)
	require.True(t, errors.Is(err, syscall.ENOSPC))
}
