package disk

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

// Every caller's name is durable when it is told so, and a crowd shares few syncs.
func TestFolderSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f folderSync
		var named, durable, syncs atomic.Int64
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				time.Sleep(time.Duration(i%10) * time.Millisecond)
				mine := named.Add(1)
				assert.NoError(t, f.sync(func() error {
					syncs.Add(1)
					seen := named.Load() // what is there when it begins
					time.Sleep(5 * time.Millisecond)
					durable.Store(seen)
					return nil
				}))
				assert.GreaterOrEqual(t, durable.Load(), mine)
			})
		}
		all.Wait()
		assert.Equal(t, int64(3), syncs.Load())
	})
}

func TestFolderSyncFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f folderSync
		broken := errors.New("broken")
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				assert.Equal(t, broken, f.sync(func() error { time.Sleep(time.Second); return broken }))
			})
		}
		all.Wait()
		assert.NoError(t, f.sync(func() error { return nil }), "one that begins later tells for itself")
	})
}
