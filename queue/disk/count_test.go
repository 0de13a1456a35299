package disk_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/disk"
)

func TestIO(t *testing.T) {
	q, err := disk.Open(t.TempDir())
	require.NoError(t, err)
	defer q.Close()
	before := q.IO()
	assert.Positive(t, before.Syncs, "the making of a spool is counted")

	body := strings.Repeat("0123456789abcde\n", 256)
	send := func(body string) {
		_, err := q.Enqueue(t.Context(), queue.Envelope{To: queue.To("1@a.test")}, strings.NewReader(body))
		assert.NoError(t, err)
	}
	send(body)
	one := q.IO()
	assert.Equal(t, before.Writes+1, one.Writes)
	assert.Equal(t, before.Syncs+1, one.Syncs, "a message is one fsync")
	assert.Greater(t, one.Octets-before.Octets, int64(len(body)))
	assert.Less(t, one.Octets-before.Octets, int64(len(body))+500, "its body is written once")

	var all sync.WaitGroup
	for range 200 {
		all.Go(func() { send(body) })
	}
	all.Wait()
	many := q.IO()
	assert.Less(t, many.Syncs-one.Syncs, int64(150), "callers that come together share an fsync")

	send(strings.Repeat(body, 100))
	long := q.IO()
	assert.Less(t, long.Octets-many.Octets, int64(101*len(body)), "a long body is written once too")
	assert.LessOrEqual(t, long.Syncs-many.Syncs, int64(3), "its file, its name, and its record")
}
