package deliver_test

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/deliver/resolve"
	"github.com/sortie-mail/sortie/route"
)

// staleMX has MX records that have expired, at a server that does not tell them any more.
func staleMX(t *testing.T, w *world, maxStale time.Duration) {
	t.Helper()
	w.d.Resolver = &resolve.Resolver{Servers: []string{w.DNS()}, Dial: w.Dial, MaxStale: maxStale}
	_, err := w.d.MXHosts(t.Context(), "two.test")
	require.NoError(t, err)
	time.Sleep(2 * time.Hour)
	w.FailDNS("two.test", "MX", lab.DNSServFail)
}

// What DNS says for good returns mail, but not where it is what DNS said long ago. To a host that takes it mail goes all the
// same.
//
// std: R4
func TestStaleAnswersReturnNothing(t *testing.T) {
	for name, tt := range map[string]struct {
		zone   string
		status string // with answers that are fresh
		words  string
	}{
		"a host that does not exist": {"$TTL 60\n@ MX 1 gone", "5.4.4", "the host gone.two.test does not exist"},
		"a host without addresses":   {"$TTL 60\n@ MX 1 mx\nmx TXT x", "5.4.4", "the host mx.two.test has no address"},
		"private addresses":          {"$TTL 60\n@ MX 1 mx\nmx A 10.0.0.1", "5.4.4", "only addresses that lead nowhere"},
		"our own address":            {"$TTL 60\n@ MX 1 mx\nmx A 192.0.2.25", "5.4.6", "mx.two.test has its address"},
		"our own name":               {"$TTL 60\n@ MX 1 mail.example.org.", "5.4.6", "loops back to this host"},
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				w.d.Self = []netip.Addr{netip.MustParseAddr("192.0.2.25")}
				require.NoError(t, w.Zone("two.test", tt.zone))
				staleMX(t, w, 24*time.Hour)
				o := w.all(t, direct, letter("you@two.test"))[0]
				require.Equal(t, deliver.TempFail, o.Result, "%v", o)
				require.Equal(t, "4.4.3", o.Status.String())
				require.Contains(t, o.Detail, tt.words)
				require.Contains(t, o.Detail, "SERVFAIL")
				x := w.d.Explain(t.Context(), route.Hop{}, "two.test")
				require.NotNil(t, x.Err)
				require.Equal(t, "4.4.3", x.Err.Status.String(), "%v", x.Err)
				w.FailDNS("two.test", "MX", lab.DNSWorks)
				time.Sleep(time.Minute) // it is not asked again at once
				o = w.all(t, direct, letter("you@two.test"))[0]
				require.Equal(t, deliver.PermFail, o.Result, "%v", o)
				require.Equal(t, tt.status, o.Status.String())
				require.Contains(t, o.Detail, tt.words)
			})
		})
	}
}

func TestStaleAddressesReturnNothing(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("two.test", "$TTL 60\n@ MX 1 mx\nmx A 10.0.0.1\nmx AAAA fd00::1"))
		w.d.Resolver = &resolve.Resolver{Servers: []string{w.DNS()}, Dial: w.Dial, MaxStale: 24 * time.Hour}
		require.Equal(t, "5.4.4", w.all(t, direct, letter("you@two.test"))[0].Status.String())
		time.Sleep(2 * time.Hour)
		w.FailDNS("mx.two.test", "AAAA", lab.DNSServFail)
		require.Equal(t, "4.4.3", w.all(t, direct, letter("you@two.test"))[0].Status.String(), "what the one family is now nobody knows")
	})
}

func TestStaleAnswersLeadToAHost(t *testing.T) {
	for _, maxStale := range []time.Duration{0, 24 * time.Hour} {
		inMemory(t, func(t *testing.T, w *world) {
			mx := w.Server("mx.two.test")
			require.NoError(t, w.Zone("two.test", "$TTL 60\n@ MX 1 mx"))
			staleMX(t, w, maxStale)
			o := w.all(t, direct, letter("you@two.test"))[0]
			if maxStale == 0 {
				require.Equal(t, deliver.TempFail, o.Result, "%v", o)
				require.Equal(t, "4.4.3", o.Status.String())
				return
			}
			require.Equal(t, deliver.Delivered, o.Result, "%v", o)
			require.Len(t, mx.Mailbox(), 1)
		})
	}
}

// A Deliverer closes the resolver that it made: nothing of it goes on in the background. One that it was given it does not.
func TestCloseEndsItsOwnResolver(t *testing.T) {
	for _, own := range []bool{true, false} {
		inMemory(t, func(t *testing.T, w *world) {
			require.NoError(t, w.Zone("two.test", "$TTL 60\n@ MX 1 mx"))
			r := w.d.Resolver.(*resolve.Resolver)
			if own {
				w.d.Resolver = nil
				r = deliver.MadeResolver(w.d)
			}
			hangs := make(chan struct{})
			var ended error
			silent := false
			r.Servers, r.CacheSize = []string{w.DNS()}, 0
			r.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				if silent {
					<-ctx.Done()
					ended = context.Cause(ctx)
					close(hangs)
					silent = false
				}
				return w.Dial(ctx, network, address)
			}
			for range 5 {
				_, err := w.d.MXHosts(t.Context(), "two.test")
				require.NoError(t, err)
			}
			silent = true
			time.Sleep(58 * time.Second)
			_, err := w.d.MXHosts(t.Context(), "two.test") // and asks again in the background
			require.NoError(t, err)
			synctest.Wait() // it does so by now
			begin := time.Now()
			require.NoError(t, w.d.Close())
			if !own {
				require.NoError(t, ended)
				require.NoError(t, r.Close())
			}
			<-hangs
			require.ErrorIs(t, ended, context.Canceled)
			require.Zero(t, time.Since(begin))
			_, err = w.d.MXHosts(t.Context(), "two.test")
			require.NoError(t, err, "it can be used again")
		})
	}
}
