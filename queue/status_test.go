package queue_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/queue"
)

// What a reply means for the message goes by its code; what it is about, by its enhanced status, unless the two contradict each
// other. A code without one gets the status that it stands for.
//
// std: C20
func TestStatusOfReplies(t *testing.T) {
	tests := []struct {
		reply  string
		result deliver.Result
		status dsn.Status
		class  string // of the refusal
	}{
		{"550 5.1.1 No such user", deliver.PermFail, "5.1.1", "user-unknown"},
		{"554 5.2.2 Sorry", deliver.PermFail, "5.2.2", "mailbox-full"},
		{"552 5.1.1 Sorry", deliver.PermFail, "5.1.1", "user-unknown"}, // the code alone is about storage
		{"452 4.2.2 Sorry", deliver.TempFail, "4.2.2", "mailbox-full"}, // the code alone is about the system,
		{"550 zork", deliver.PermFail, "5.0.0", "user-unknown"},
		{"450 zork", deliver.TempFail, "4.0.0", "system-error"},
		{"452 zork", deliver.TempFail, "4.3.1", "system-full"},
		{"550 4.1.1 zork", deliver.PermFail, "5.0.0", "user-unknown"},
		{"550 4.2.0 zork", deliver.PermFail, "5.0.0", "user-unknown"},
		{"450 5.1.1 zork", deliver.TempFail, "4.0.0", "user-unknown"},
	}
	for _, test := range tests {
		t.Run(test.reply, func(t *testing.T) {
			var got deliver.Outcome
			play(t, func(w *world) {
				w.runner.Trace = &queue.Trace{Settled: func(l queue.Lease, outcomes []deliver.Outcome, _ queue.Settlement) {
					if l.Lane == "aol.test" {
						got = outcomes[0]
					}
				}}
			}, func(w *world) {
				w.server("aol.test", lab.Refuse(lab.AtRcpt, test.reply))
				w.send(queue.To("bob@aol.test")...)
				w.sleep(time.Minute)
				assert.Equal(t, test.result, got.Result)
				assert.Equal(t, test.status, got.Status)
				assert.Equal(t, test.class, string(got.Reason.Class()))
				reports := w.reports(w.home)
				if test.result != deliver.PermFail {
					assert.Empty(t, reports)
					assert.False(t, w.empty(), "it waits")
					return
				}
				require.Len(t, reports, 1)
				assert.Equal(t, dsn.Failed, reports[0].Recipients[0].Action)
				assert.Equal(t, test.status, reports[0].Recipients[0].Status)
				assert.True(t, w.empty())
			})
		})
	}
}
