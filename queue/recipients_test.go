package queue_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/queue"
)

// A message to 10,000 recipients in 2,000 domains goes out by lane: one delivery a domain, with all of its recipients, and one report
// tells of all that fail in one.
func TestThousandsOfRecipients(t *testing.T) {
	const lanes, each = 2000, 5
	f := &far{say: byName}
	play(t, f.through(), func(w *world) {
		var to []string
		for n := range lanes * each {
			name := "bob"
			if n%lanes == 17 {
				name = "unknown"
			}
			to = append(to, fmt.Sprintf("%s%d@%d.test", name, n, n%lanes))
		}
		w.send(queue.To(to...)...)
		w.sleep(time.Hour)
		assert.True(t, w.empty())
		assert.Len(t, f.triesOf(""), lanes*each)
		w.mu.Lock()
		settled := len(w.tries)
		w.mu.Unlock()
		assert.Equal(t, lanes+1, settled, "an attempt a lane, and one of the report")
		told := f.told(t)
		require.Len(t, told, 1)
		assert.Len(t, told[0].Recipients, each)
	})
}

// The recipients of one domain go in one transaction.
func TestRecipientsShareTransactions(t *testing.T) {
	play(t, nil, func(w *world) {
		const domains, each = 20, 7
		var to []string
		servers := map[string]*lab.Server{}
		for n := range domains {
			domain := fmt.Sprintf("%d.test", n)
			require.NoError(t, w.net.Zone(domain, fmt.Sprintf("@ MX 10 mail\nmail A 192.0.2.%d", 100+n)))
			servers[domain] = w.server(domain)
			for k := range each {
				to = append(to, fmt.Sprintf("%d@%s", k, domain))
			}
		}
		w.send(queue.To(to...)...)
		w.sleep(time.Minute)
		for domain, s := range servers {
			mail := s.Mailbox()
			require.Len(t, mail, 1, domain)
			assert.Len(t, mail[0].To, each, domain)
			total, _ := s.Connections()
			assert.Equal(t, 1, total)
		}
		assert.True(t, w.empty())
	})
}

// What a person drops is gone without a word.
//
// std: Q8
func TestDropTellsNobody(t *testing.T) {
	play(t, nil, func(w *world) {
		w.server("aol.test", lab.Refuse(lab.AtRcpt, "450 4.2.0 Not now"))
		w.send(queue.To("bob@aol.test", "cid@aol.test")...)
		w.sleep(time.Minute)
		n, err := w.queue.Delete(w.t.Context(), queue.Filter{Sender: "ann@example.org"})
		require.NoError(t, err)
		assert.Equal(t, 1, n)
		w.sleep(6 * 24 * time.Hour)
		assert.Empty(t, w.home.Mailbox())
		assert.True(t, w.empty())
	})
}

// Mail under which a newsletter lies goes first: what people wait for, and reports, before what is bulk; and of the bulk something
// goes all the time.
//
// std: Q9
func TestInteractiveMailBeforeBulk(t *testing.T) {
	f := &far{say: byName}
	play(t, f.through(func(w *world) { w.runner.Concurrency = 1 }), func(w *world) {
		f.say = slow(time.Second)
		enqueue := func(priority int, to string) {
			env := queue.Envelope{From: "ann@example.org", To: queue.To(to), Priority: priority}
			_, err := w.queue.Enqueue(t.Context(), env, strings.NewReader(plain))
			require.NoError(t, err)
		}
		for n := range 100 {
			enqueue(-4, fmt.Sprintf("bulk%d@%d.bulk.test", n, n))
		}
		w.sleep(2500 * time.Millisecond)
		for n := range 30 {
			enqueue(0, fmt.Sprintf("live%d@%d.live.test", n, n))
		}
		w.sleep(time.Hour)
		assert.True(t, w.empty())
		var order strings.Builder
		for _, try := range f.triesOf("") {
			order.WriteByte(try.to[0])
		}
		live := strings.LastIndexByte(order.String(), 'l') - strings.IndexByte(order.String(), 'l') + 1
		assert.LessOrEqual(t, live, 30+30/8+1, order.String())
		assert.Greater(t, live, 30, "and the bulk is not starved: %s", &order)
		assert.LessOrEqual(t, strings.IndexByte(order.String(), 'l'), 5)
	})
}
