package resolve_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/resolve"
)

// However many lookups there are at once, no more sockets are open than are allowed; those that wait are answered too.
func TestSocketsHaveABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		open, most := 0, 0
		slow := func(network string, query *dns.Msg) []byte {
			mu.Lock()
			open++
			most = max(most, open)
			mu.Unlock()
			time.Sleep(2 * time.Second) // within the time that a server has
			mu.Lock()
			open--
			mu.Unlock()
			return zone(t, fmt.Sprintf("%s 60 IN A 192.0.2.1", asked(query)))(network, query)
		}
		r := alone(slow)
		r.MaxSockets = 5
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				addrs, err := r.Lookup(t.Context(), fmt.Sprintf("host%d.example", i), dns.TypeA)
				assert.NoError(t, err)
				assert.Len(t, addrs.Records, 1)
			})
		}
		all.Wait()
		assert.Equal(t, 5, most)
	})
}

// Who gives up while waiting for a socket leaves none taken.
func TestWaitingForASocketEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := alone(silence)
		r.MaxSockets, r.Attempts = 1, 1
		var first sync.WaitGroup
		first.Go(func() {
			_, err := r.Lookup(t.Context(), "silent.example", dns.TypeA)
			assert.ErrorContains(t, err, "no answer within 3s")
		})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := r.Lookup(ctx, "other.example", dns.TypeA)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		first.Wait()
		_, err = r.Lookup(t.Context(), "other.example", dns.TypeA)
		require.ErrorContains(t, err, "no answer within 3s")
	})
}

// Where this machine has no sockets, the error tells it, and no server is asked last for it afterwards.
func TestAShortageOfSocketsIsOurs(t *testing.T) {
	var asked []string
	good := zone(t, "aol.example. 60 IN MX 10 mx.aol.example.")
	servers := memory{"192.0.2.1:53": good, "192.0.2.2:53": good}
	dial, short := record(&asked, servers), true
	r := servers.resolver("192.0.2.1", "192.0.2.2")
	r.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if short {
			return nil, &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("socket", syscall.EMFILE)}
		}
		return dial(ctx, network, addr)
	}
	_, err := r.LookupMX(t.Context(), "aol.example")
	require.ErrorIs(t, err, syscall.EMFILE)
	var e *resolve.Error
	require.ErrorAs(t, err, &e)
	require.True(t, e.Temporary())
	short = false
	_, err = r.LookupMX(t.Context(), "aol.example")
	require.NoError(t, err)
	require.Equal(t, []string{"192.0.2.1:53"}, asked)
}
