package deliver_test

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
)

// enough is a host that takes so many messages on a connection and says the reply to the next MAIL.
func enough(of int, reply string) lab.Behaviour {
	var mu sync.Mutex
	had := map[int]int{}
	return lab.On(lab.AtMail, func(s lab.Step) lab.Answer {
		mu.Lock()
		defer mu.Unlock()
		if had[s.Session]++; had[s.Session] > of {
			return lab.Answer{Reply: reply}
		}
		return lab.Answer{}
	})
}

// A host that has had enough messages on a connection, as OpenSMTPD says it, costs no attempt: the next one goes over a new
// connection.
//
// std: C15
func TestAHostThatHasHadEnoughMessages(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		mx := w.Server("mx.aol.test", enough(2, "452 4.5.3 Too many recipients: Too many messages sent"))
		for range 5 {
			require.Equal(t, deliver.Delivered, w.one(t, direct).Result)
		}
		all, _ := mx.Connections()
		require.Equal(t, 3, all)
		require.Len(t, mx.Mailbox(), 5)
	})
	bothWays(t, func(t *testing.T, w *world) { // in one attempt, too
		w.d.Limits.Recipients = 1
		mx := w.Server("mx.aol.test", enough(2, "452 4.5.3 Too many messages sent"))
		for _, o := range w.all(t, direct, letter("a@aol.test", "b@aol.test", "c@aol.test", "d@aol.test", "e@aol.test")) {
			require.Equal(t, deliver.Delivered, o.Result, "%v", o)
			require.Empty(t, o.Tried)
		}
		all, _ := mx.Connections()
		require.Equal(t, 3, all)
	})
	bothWays(t, func(t *testing.T, w *world) { // what it says of the first message is about the message
		w.Server("mx.aol.test", enough(0, "452 4.3.1 No room"))
		o := w.one(t, direct)
		require.Equal(t, deliver.TempFail, o.Result)
		require.Equal(t, "4.3.1", o.Status.String())
	})
}
