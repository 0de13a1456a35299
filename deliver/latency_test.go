package deliver_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
)

// distance is how long an octet is on its way: 20 ms there and back.
const distance = 10 * time.Millisecond

// trips are what a message may cost: round trips on a new connection and on one that was kept. The new one costs one
// for the connection, the greeting, EHLO, the envelope and the body each; TLS costs one for STARTTLS, the handshake and
// the second EHLO each.
var trips = map[string]struct {
	offer      lab.Offer
	recipients int
	body       string
	cold, warm int
}{
	"a short message":           {recipients: 1, body: hello, cold: 5, warm: 2},
	"a long message":            {recipients: 1, body: window, cold: 5, warm: 2},
	"a hundred recipients":      {recipients: 100, body: hello, cold: 5, warm: 2},
	"an eight-bit message":      {recipients: 1, body: "Subject: x\r\n\r\nä\r\n", cold: 5, warm: 2},
	"TLS":                       {offer: lab.Offer{TLS: lab.TLSOffered}, recipients: 1, body: hello, cold: 8, warm: 2},
	"CHUNKING, a short text":    {offer: chunking, recipients: 1, body: hello, cold: 5, warm: 2},
	"CHUNKING, many recipients": {offer: chunking, recipients: 100, body: hello, cold: 5, warm: 2},
	"one command at a time":     {offer: lab.Offer{Capabilities: []string{}}, recipients: 3, body: hello, cold: 9, warm: 6},
}

// window is a body of nearly as much as may be on the way at once.
var window = hello + strings.Repeat("A line to fill buffers with.\r\n", 7000)

var chunking = lab.Offer{Capabilities: append(lab.DefaultCapabilities(), "CHUNKING", "BINARYMIME")}

// Round trips are what mail to a far host costs. They are counted, and where time is fake they cost what they should.
//
// std: C5
func TestRoundTrips(t *testing.T) {
	for name, tt := range trips {
		m := letterOf(tt.body)
		for i := range tt.recipients {
			m.To = append(m.To, deliver.Recipient{Address: fmt.Sprintf("you%d@aol.test", i)})
		}
		run := func(t *testing.T, w *world) (cold, warm time.Duration) {
			mx := w.Server("mx.aol.test", tt.offer, lab.Latency(distance))
			deliver := func(want int) time.Duration {
				before, begin := mx.RoundTrips(1), time.Now()
				for _, o := range w.all(t, direct, m) {
					require.True(t, o.Result.Success(), "%v", o)
				}
				require.LessOrEqual(t, mx.RoundTrips(1)-before, want)
				return time.Since(begin)
			}
			cold, warm = deliver(tt.cold), deliver(tt.warm)
			require.Equal(t, 1, opened(mx))
			require.Len(t, mx.Mailbox(), 2)
			return cold, warm
		}
		t.Run(name+"/sockets", func(t *testing.T) { run(t, sockets(t)) })
		t.Run(name+"/memory", func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				cold, warm := run(t, w)
				require.LessOrEqual(t, cold, time.Duration(tt.cold)*2*distance)
				require.LessOrEqual(t, warm, time.Duration(tt.warm)*2*distance)
			})
		})
	}
}
