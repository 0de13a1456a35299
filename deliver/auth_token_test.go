package deliver_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/route"
)

// tokens is a token source whose token is good, or not any more.
func tokens(good bool) func(context.Context, route.Hop) (string, error) {
	if good {
		return tokenOf(token)
	}
	return tokenOf("stale-token-0123456789")
}

func tokenOf(text string) func(context.Context, route.Hop) (string, error) {
	return func(context.Context, route.Hop) (string, error) { return text, nil }
}

func tokenOffer(mechanisms ...string) lab.Offer {
	return lab.Offer{TLS: lab.TLSOffered, Tokens: map[string]string{"user": token}, Mechanisms: mechanisms, AuthRequired: true}
}

// The token source is asked for every login, with the hop, and for nothing else.
//
// std: C16
func TestTokensAreAskedForWhenTheyAreNeeded(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		ispWorld(t, w)
		isp := w.Server("mail.isp.test:587", tokenOffer("PLAIN"))
		var asked atomic.Int32
		w.d.Token = func(ctx context.Context, hop route.Hop) (string, error) {
			asked.Add(1)
			end, bounded := ctx.Deadline()
			require.True(t, bounded)
			require.Equal(t, 2*time.Minute, time.Until(end))
			require.Equal(t, "submission://user@mail.isp.test", hop.URL())
			return token, nil
		}
		require.Equal(t, deliver.TempFail, w.one(t, submission("user")).Result)
		require.Zero(t, asked.Load(), "not for a host that takes none")
		isp.Behave(tokenOffer("OAUTHBEARER"))
		require.Equal(t, deliver.TempFail, w.one(t, submission("user", opportunist, func(h *route.Hop) { h.Port = 588 })).Result)
		require.Zero(t, asked.Load(), "not for a host that does not answer")
		for range 3 {
			require.Equal(t, deliver.Delivered, w.one(t, submission("user")).Result)
		}
		require.Equal(t, int32(1), asked.Load(), "a connection that is used again needs no login")
		require.NoError(t, w.d.Close())
		require.Equal(t, deliver.Delivered, w.one(t, submission("user")).Result)
		require.Equal(t, int32(2), asked.Load())
	})
}

// Tokens of thousands of octets do not fit into the command, and wait until they are asked for (RFC 4954, section 4).
//
// std: C16
func TestLongTokens(t *testing.T) {
	for _, mechanism := range []string{"OAUTHBEARER", "XOAUTH2"} {
		for _, n := range []int{100, 200, 1000, 8000} {
			inMemory(t, func(t *testing.T, w *world) {
				ispWorld(t, w)
				long := strings.Repeat("x", n)
				isp := w.Server("mail.isp.test:587", lab.Offer{TLS: lab.TLSOffered, Tokens: map[string]string{"user": long}, Mechanisms: []string{mechanism}})
				w.d.Token = tokenOf(long)
				require.Equal(t, deliver.Delivered, w.one(t, submission("user")).Result)
				require.Equal(t, n < 300, strings.Contains(isp.Transcript(), "C: AUTH "+mechanism+" ***\n"))
				require.NotContains(t, w.said.String(), "xxxx")
			})
		}
	}
}

// A token that a host does not take is the route's trouble, in the host's own words, and no other address is asked.
//
// std: C16
func TestARefusedToken(t *testing.T) {
	for mechanism, words := range map[string]string{
		"OAUTHBEARER": "of the access token the host said status=invalid_token, scope=mail.send, schemes=bearer",
		"XOAUTH2":     "of the access token the host said status=400, scope=https://mail.example/, schemes=Bearer",
	} {
		bothWays(t, func(t *testing.T, w *world) {
			ispWorld(t, w)
			isp := w.Server("mail.isp.test:587", tokenOffer(mechanism))
			w.d.Token = tokens(false)
			o := w.one(t, submission("user"))
			require.Equal(t, deliver.TempFail, o.Result)
			require.True(t, o.RouteTrouble)
			require.Equal(t, "535 5.7.8 Authentication credentials invalid", o.Reply.Wire())
			require.Equal(t, words, o.Detail)
			require.Equal(t, 1, strings.Count(isp.Transcript(), "S: 535"))
			require.False(t, givesAway(w.said.String()+o.String()+isp.Transcript(), "stale-token-0123456789"))
			w.d.Token = tokens(true)
			require.Equal(t, deliver.Delivered, w.one(t, submission("user")).Result, "the next attempt has a fresh one")
		})
	}
}

// A token source that fails is the route's trouble, for all hosts alike, and its words give nothing away.
//
// std: C16
func TestATokenSourceThatFails(t *testing.T) {
	for name, tt := range map[string]struct {
		source func(ctx context.Context, hop route.Hop) (string, error)
		words  string
		after  time.Duration
	}{
		"an error": {
			source: func(context.Context, route.Hop) (string, error) { return "", errors.New("oauth2: invalid_grant") },
			words:  "the token source has no token for submission://user@mail.isp.test: oauth2: invalid_grant",
		},
		"an error that tells too much": {
			source: func(context.Context, route.Hop) (string, error) {
				return "", errors.New("400 for refresh_token=" + token + " in Bearer " + token + ` {"access_token": "` + token + `"} and ` + token + "\x1b[31m")
			},
			words: `400 for refresh_token=*** in Bearer ***`,
		},
		"a token beside an error": {
			source: func(context.Context, route.Hop) (string, error) { return token, errors.New("expired") }, words: ": expired",
		},
		"no end": {
			source: func(ctx context.Context, _ route.Hop) (string, error) { <-ctx.Done(); return "", ctx.Err() },
			words:  "it took longer than 2m0s", after: 2 * time.Minute,
		},
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				ispWorld(t, w)
				isp := w.Server("mail.isp.test:587", tokenOffer("XOAUTH2"))
				w.d.Token = tt.source
				begin := time.Now()
				o := w.one(t, submission("user"))
				require.Equal(t, tt.after, time.Since(begin))
				require.Equal(t, deliver.TempFail, o.Result)
				require.Equal(t, deliver.StageAuth, o.Stage)
				require.True(t, o.RouteTrouble)
				require.Contains(t, o.Detail, tt.words)
				require.NotContains(t, o.Detail, "\x1b")
				require.Equal(t, 1, opened(isp), "no other address would do better")
				shut(t, w, isp, o)
			})
		})
	}
}

// An attempt that ends while it waits for a token is no trouble of the route.
func TestAnAttemptEndsBeforeTheToken(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		ispWorld(t, w)
		w.Server("mail.isp.test:587", tokenOffer("XOAUTH2"))
		w.d.Token = func(ctx context.Context, _ route.Hop) (string, error) { <-ctx.Done(); return "", ctx.Err() }
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		o := w.allIn(ctx, t, submission("user"), letter("you@aol.test"))[0]
		require.Equal(t, deliver.TempFail, o.Result)
		require.False(t, o.RouteTrouble, "%v", o)
		require.Contains(t, o.Detail, "given up before the end")
	})
}
