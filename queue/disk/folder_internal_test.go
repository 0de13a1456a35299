package disk

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
)

// Every caller's name is durable when it is told so, however many share a sync.
func TestFolderSync(t *testing.T) {
	var f folderSync
	var named, durable, syncs atomic.Int64
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() {
			mine := named.Add(1)
			assert.NoError(t, f.sync(func() error {
				syncs.Add(1)
				seen := named.Load() // what is there when it begins
				for range 20 {
					runtime.Gosched()
				}
				durable.Store(seen)
				return nil
			}))
			assert.GreaterOrEqual(t, durable.Load(), mine)
		})
	}
	all.Wait()
	assert.LessOrEqual(t, syncs.Load(), int64(200))
}

// The callers of a sync that fails hear of it, and the next one tells for itself.
func TestFolderSyncFails(t *testing.T) {
	var f folderSync
	broken := errors.New("broken")
	assert.Equal(t, broken, f.sync(func() error { return broken }))
	assert.NoError(t, f.sync(func() error { return nil }))
}
