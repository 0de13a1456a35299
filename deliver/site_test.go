package deliver_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/deliver/shape"
)

// A provider has two hosts, for two domains.
func (w *world) provider(t *testing.T, limits string, b ...lab.Behaviour) (one, two *lab.Server) {
	t.Helper()
	rules, err := shape.Parse("own", strings.NewReader("prov *.prov.test "+limits+"\n"))
	require.NoError(t, err)
	w.d.Sites = rules
	require.NoError(t, w.Zone("prov.test", "mx1 A 192.0.2.31\nmx2 A 192.0.2.32"))
	require.NoError(t, w.Zone("one.test", "@ MX 10 mx1.prov.test."))
	require.NoError(t, w.Zone("two.test", "@ MX 10 mx2.prov.test."))
	t.Cleanup(func() {
		_ = w.d.Close()
		assert.Zero(t, deliver.OpenTo(w.d), "connections that are closed still count")
	})
	return w.Server("mx1.prov.test", b...), w.Server("mx2.prov.test", b...)
}

func (w *world) to(t *testing.T, to ...string) {
	t.Helper()
	for _, o := range w.all(t, direct, letter(to...)) {
		require.Equal(t, deliver.Delivered, o.Result, "%v", o)
	}
}

func open(s *lab.Server) int {
	_, open := s.Connections()
	return open
}

// std: C15
func TestASiteSaysHowManyMessagesAConnectionServes(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		one, _ := w.provider(t, "messages=2")
		for range 5 {
			w.to(t, "you@one.test")
		}
		assert.Equal(t, 3, opened(one))
		mx := w.Server("mx.aol.test")
		for range 5 {
			w.to(t, "you@aol.test")
		}
		assert.Equal(t, 1, opened(mx), "and of no other")
	})
}

// std: C6
func TestASiteSaysHowManyRecipientsATransactionHas(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		one, _ := w.provider(t, "recipients=3")
		w.to(t, "a@one.test", "b@one.test", "c@one.test", "d@one.test", "e@one.test", "f@one.test", "g@one.test")
		assert.Len(t, one.Mailbox(), 3)
		assert.Equal(t, 1, opened(one))
	})
}

// Idle connections count too: one of them ends before one too many is made.
func TestASiteHasNoMoreConnectionsThanItTakes(t *testing.T) {
	tests := map[string]struct {
		limits string
		kept   int // connections to the first host, when the second is used
	}{
		"one": {"connections=1", 0}, "two": {"connections=2", 1}, "any": {"connections=none", 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				one, two := w.provider(t, test.limits)
				said := -1 // that the first host had heard goodbye, when the second was connected to
				two.Behave(lab.On(lab.AtConnect, func(lab.Step) lab.Answer {
					said = strings.Count(one.Transcript(), "C: QUIT")
					return lab.Answer{}
				}))
				w.to(t, "you@one.test")
				require.Equal(t, 1, open(one))
				w.to(t, "you@two.test")
				assert.Equal(t, 1-test.kept, said)
				assert.Equal(t, test.kept, open(one))
				assert.Equal(t, 1, open(two))
				w.to(t, "you@two.test")
				assert.Equal(t, 1, opened(two), "what is there is used")
			})
		})
	}
}

// A host that has too many connections is helped by the end of those that are idle.
func TestASiteThatHasTooManyConnectionsGetsIdleOnesBack(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		one, two := w.provider(t, "connections=5")
		w.to(t, "you@one.test")
		require.Equal(t, 1, open(one))
		two.Behave(lab.Refuse(lab.AtGreeting, "421 4.7.0 Too many connections"))
		o := w.all(t, direct, letter("you@two.test"))[0]
		require.Equal(t, 421, o.Reply.Code, "%v", o)
		start := time.Now()
		require.NoError(t, one.Wait(t.Context(), func() bool { return open(one) == 0 }))
		assert.Less(t, time.Since(start), time.Second, "it does not wait for its time")
		assert.Contains(t, one.Transcript(), "C: QUIT")
	})
}

// An attempt hears when a host has answered for a recipient, yes or no, and not before.
func TestAnAttemptHearsThatAHostHasAnswered(t *testing.T) {
	tests := map[string]struct {
		host  lab.Behaviour
		heard bool
	}{
		"takes it":             {lab.AcceptAll, true},
		"knows nobody":         {lab.Refuse(lab.AtRcpt, "550 5.1.1 who?"), true},
		"hangs after it":       {lab.Hang(lab.AtDot), true},
		"hangs at RCPT":        {lab.Hang(lab.AtRcpt), false},
		"does not greet":       {lab.Hang(lab.AtGreeting), false},
		"refuses the sender":   {lab.Refuse(lab.AtMail, "451 4.3.0 later"), true}, // to what went along with it, too
		"is not to be reached": {lab.Drop(lab.AtConnect), false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				w.Server("mx.aol.test", test.host)
				heard := 0
				w.allIn(deliver.WithAnswered(t.Context(), func() { heard++ }), t, direct, letter("you@aol.test"))
				assert.Equal(t, test.heard, heard > 0)
			})
		})
	}
}
