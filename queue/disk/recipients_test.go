package disk

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/queue"
)

// A message to 10,000 recipients in 2,000 domains is one durable write, with its body once.
func TestManyRecipientsAreOneWrite(t *testing.T) {
	s := newSpool(t)
	var to []string
	names := 0
	for n := range 10_000 {
		to = append(to, fmt.Sprintf("%d@%d.test", n, n%2000))
		names += len(to[n])
	}
	body := strings.Repeat("0123456789abcde\n", 4000)
	before := s.q.IO()
	id, err := s.q.Enqueue(t.Context(), queue.Envelope{From: "me@src.test", To: queue.To(to...)}, strings.NewReader(body))
	require.NoError(t, err)
	after := s.q.IO()
	assert.EqualValues(t, 1, after.Syncs-before.Syncs)
	assert.EqualValues(t, 1, after.Writes-before.Writes)
	assert.Less(t, after.Octets-before.Octets, int64(len(body)+names+20*len(to)))
	leases := s.lease()
	require.Len(t, leases, 2000)
	for _, l := range leases {
		require.Len(t, l.Envelope.To, 5)
	}
	assert.Equal(t, body, s.read(id))
}
