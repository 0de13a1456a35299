package main

import (
	"context"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
)

// No client waits long for a DNS that is silent, and the next ones do not wait at all until it is asked again.
func TestSendersDoNotWaitForDNS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		s := &senders{what: checkExists, wait: time.Second, check: func(ctx context.Context, from string) error {
			asked++
			<-ctx.Done()
			return &deliver.Error{Status: "4.4.3", Temporary: true, Err: ctx.Err()}
		}}
		begin := time.Now()
		for range 5 {
			require.Nil(t, s.refusal("a@silent.test"))
			require.Equal(t, time.Second, time.Since(begin))
		}
		require.Equal(t, 1, asked)
		require.Nil(t, s.refusal("a@other.test"))
		require.Equal(t, 1, asked, "the resolver is silent about everything")
		time.Sleep(silenceRest)
		require.Nil(t, s.refusal("a@silent.test"))
		require.Equal(t, 2, asked)
		for i := range 2 * maxResting {
			s.rest(strconv.Itoa(i), false)
		}
		require.LessOrEqual(t, len(s.resting), maxResting)
	})
}
