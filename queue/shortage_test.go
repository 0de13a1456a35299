package queue_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/route"
)

// shortUntil says until a time that this machine has no more files.
func shortUntil(end *time.Time) say {
	return func(context.Context, route.Route, *deliver.Message, string) deliver.Outcome {
		if time.Now().Before(*end) {
			return deliver.Outcome{
				Result: deliver.TempFail, Status: "4.3.0", Stage: deliver.StageConnect, Shortage: true,
				Detail: "no connection: dial tcp: socket: too many open files",
			}
		}
		return took
	}
}

// A try that this machine was too short of files for is none: it is made again soon, and nothing is held against the
// destination, be it a host or a smarthost that many lanes share.
func TestAShortageIsNoAttempt(t *testing.T) {
	for _, way := range []string{"* direct", "* smtp://mail.isp.test"} {
		t.Run(way, func(t *testing.T) {
			var end time.Time
			f := &far{say: shortUntil(&end)}
			play(t, f.through(func(w *world) { w.by(parse(w.t, way)) }), func(w *world) {
				end = time.Now().Add(3 * time.Minute)
				for i := range 20 {
					w.send(queue.To(fmt.Sprintf("bob@%d.test", i))...)
				}
				w.sleep(2 * time.Minute)
				waiting := w.list(queue.Filter{})
				assert.Len(t, waiting, 20)
				for _, e := range waiting {
					assert.Zero(t, e.Attempts, "%s", e.Lane)
					assert.LessOrEqual(t, time.Until(e.Due), time.Minute, "%s", e.Lane)
				}
				w.sleep(2 * time.Minute)
				assert.True(t, w.empty())
				assert.Empty(t, f.told(t))
			})
		})
	}
}

// A shortage that lasts is told to senders as any other delay is.
func TestAShortageHidesNoDelay(t *testing.T) {
	var end time.Time
	f := &far{say: shortUntil(&end)}
	play(t, f.through(func(*world) {}), func(w *world) {
		end = time.Now().Add(10 * 24 * time.Hour)
		w.send(queue.To("bob@a.test")...)
		w.sleep(5 * time.Hour)
		assert.Len(t, f.told(t), 1, "it is late")
		w.sleep(5 * 24 * time.Hour)
		assert.Len(t, f.told(t), 2, "it comes back")
		assert.True(t, w.empty())
	})
}
