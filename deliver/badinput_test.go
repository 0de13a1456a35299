package deliver_test

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/route"
)

// A badEnd is a far end that does what it should not, and what is to become of a message for two recipients.
type badEnd struct {
	behaviours []lab.Behaviour
	hops       string // of the route; direct where ""
	body       string

	want     string        // result, status and stage, the same for both recipients
	possibly bool          // delivered
	kept     int           // messages that the host has
	others   bool          // a second host of the domain is asked, and takes it
	within   time.Duration // 0 is at once
	memory   bool          // over sockets buffers may hold all of the message, and its fate is another
}

func (b *badEnd) route(t *testing.T) route.Route { return stuckRoute(t, b.hops) }

// plain offers nothing, so that every command waits for its reply.
var plain = lab.Offer{Capabilities: []string{}}

// offersTLS is what a host says that offers TLS.
var offersTLS = lab.Offer{TLS: lab.TLSOffered}

const must = "direct tls=required"

var badEnds = map[string]badEnd{
	"greets with 554": {
		behaviours: some(lab.Refuse(lab.AtGreeting, "554 5.7.1 No mail from you")),
		want:       "tempfail 4.7.1 greeting", others: true,
	},
	"greets with 421": {
		behaviours: some(lab.Refuse(lab.AtGreeting, "421 4.3.2 Too busy")),
		want:       "tempfail 4.3.2 greeting", others: true,
	},
	"greets with junk":            {behaviours: some(lab.Junk(lab.AtGreeting)), want: "tempfail 4.5.0 greeting", others: true},
	"greets with 250":             {behaviours: some(lab.Raw(lab.AtGreeting, "250 hi\r\n")), want: "tempfail 4.5.0 greeting", others: true},
	"greets with several codes":   {behaviours: some(lab.MixedCodes(lab.AtGreeting, 220, 554)), want: "tempfail 4.5.0 greeting", others: true},
	"does not greet":              {behaviours: some(lab.Hang(lab.AtGreeting)), want: "tempfail 4.4.2 greeting", others: true, within: 5 * time.Minute},
	"greets and goes":             {behaviours: some(lab.CloseAfter(lab.AtGreeting)), want: "tempfail 4.4.2 ehlo", others: true},
	"greets with half a line":     {behaviours: some(lab.On(lab.AtGreeting, half)), want: "tempfail 4.4.2 greeting", others: true},
	"greets in NULs, and is good": {behaviours: some(lab.NULs(lab.AtGreeting, "220 hi")), want: "delivered 2.0.0 dot", kept: 1},

	"refuses the STARTTLS that it offers": {
		behaviours: some(lab.Offer{TLS: lab.TLSRefused}), hops: must, want: "tempfail 4.7.0 starttls", others: true,
	},
	"answers STARTTLS with junk":      {behaviours: some(lab.Offer{TLS: lab.TLSBroken}), hops: must, want: "tempfail 4.7.5 starttls", others: true},
	"hangs up in the handshake":       {behaviours: some(lab.Offer{TLS: lab.TLSCut}), hops: must, want: "tempfail 4.7.5 starttls", others: true},
	"stalls in the handshake":         {behaviours: some(lab.Offer{TLS: lab.TLSStalled}), hops: must, want: "tempfail 4.7.5 starttls", others: true, within: time.Minute},
	"hangs up at STARTTLS":            {behaviours: some(offersTLS, lab.Drop(lab.AtTLS)), hops: must, want: "tempfail 4.4.2 starttls", others: true},
	"resets at STARTTLS":              {behaviours: some(offersTLS, lab.Reset(lab.AtTLS)), hops: must, want: "tempfail 4.4.2 starttls", others: true},
	"has words before TLS":            {behaviours: some(offersTLS, lab.Inject("250-hi\r\n250 SIZE 1\r\n")), hops: must, want: "tempfail 4.7.5 starttls", others: true},
	"has an alert before TLS":         {behaviours: some(offersTLS, lab.Inject("\x15\x03\x03\x00\x02\x02\x28")), hops: must, want: "tempfail 4.7.5 starttls", others: true},
	"has broken TLS that nobody asks": {behaviours: some(lab.Offer{TLS: lab.TLSBroken}), want: "delivered 2.0.0 dot", kept: 1},
	"has cut TLS that nobody asks":    {behaviours: some(lab.Offer{TLS: lab.TLSCut}), want: "delivered 2.0.0 dot", kept: 1},
	"has stalled TLS that nobody asks": {
		behaviours: some(lab.Offer{TLS: lab.TLSStalled}), want: "delivered 2.0.0 dot", kept: 1, within: time.Minute,
	},
	"has injected TLS that nobody asks": {behaviours: some(offersTLS, lab.Inject("250 hi\r\n")), want: "delivered 2.0.0 dot", kept: 1},

	"resets at EHLO":       {behaviours: some(lab.Reset(lab.AtEHLO)), want: "tempfail 4.4.2 ehlo", others: true},
	"resets after EHLO":    {behaviours: some(lab.On(lab.AtEHLO, resetAfterEHLO)), want: "tempfail 4.4.2 *", others: true},
	"goes after EHLO":      {behaviours: some(lab.CloseAfter(lab.AtEHLO)), want: "tempfail 4.4.2 mail", others: true},
	"answers EHLO twice":   {behaviours: some(lab.Twice(lab.AtEHLO)), want: "tempfail 4.5.0 *", others: true},
	"EHLO in several code": {behaviours: some(lab.MixedCodes(lab.AtEHLO, 250, 250, 550)), want: "tempfail 4.5.0 ehlo", others: true},

	"goes after MAIL":            {behaviours: some(lab.CloseAfter(lab.AtMail)), want: "tempfail 4.4.2 rcpt", others: true},
	"goes after MAIL, asked":     {behaviours: some(lab.CloseAfter(lab.AtMail), plain), want: "tempfail 4.4.2 rcpt", others: true},
	"MAIL in several codes":      {behaviours: some(lab.MixedCodes(lab.AtMail, 250, 450)), want: "tempfail 4.5.0 mail", others: true},
	"goes after RCPT":            {behaviours: some(lab.On(lab.AtRcpt, closeAfterLast)), want: "tempfail 4.4.2 data", others: true},
	"goes after RCPT, asked":     {behaviours: some(lab.On(lab.AtRcpt, closeAfterLast), plain), want: "tempfail 4.4.2 data", others: true},
	"RCPT in several codes":      {behaviours: some(lab.MixedCodes(lab.AtRcpt, 250, 550)), want: "tempfail 4.5.0 rcpt", others: true},
	"resets at RCPT":             {behaviours: some(lab.Reset(lab.AtRcpt)), want: "tempfail 4.4.2 *", others: true},
	"DATA in several codes":      {behaviours: some(lab.MixedCodes(lab.AtData, 354, 250)), want: "tempfail 4.5.0 data", others: true},
	"says 250 to DATA":           {behaviours: some(lab.Refuse(lab.AtData, "250 2.0.0 Ok")), want: "tempfail 4.5.0 data", others: true},
	"says 250 to DATA, asked":    {behaviours: some(lab.Refuse(lab.AtData, "250 2.0.0 Ok"), plain), want: "tempfail 4.5.0 data", others: true},
	"refuses DATA":               {behaviours: some(lab.Refuse(lab.AtData, "554 5.5.1 No")), want: "permfail 5.5.1 data"},
	"refuses DATA for now":       {behaviours: some(lab.Refuse(lab.AtData, "451 4.3.0 Later")), want: "tempfail 4.3.0 data", others: true},
	"goes after DATA":            {behaviours: some(lab.CloseAfter(lab.AtData)), body: megabytes, want: "tempfail 4.4.2 dot", others: true, memory: true},
	"goes in the body":           {behaviours: some(lab.DropInBody(100_000)), body: megabytes, want: "tempfail 4.4.2 dot", others: true, memory: true},
	"resets in the body":         {behaviours: some(lab.ResetInBody(100_000)), body: megabytes, want: "tempfail 4.4.2 dot", others: true, memory: true},
	"resets at the dot":          {behaviours: some(lab.Reset(lab.AtDot)), want: "tempfail 4.4.2 dot", possibly: true},
	"the dot in several codes":   {behaviours: some(lab.MixedCodes(lab.AtDot, 250, 554)), want: "tempfail 4.5.0 dot", possibly: true, kept: 1},
	"does not answer the dot":    {behaviours: some(lab.Mute(lab.AtDot)), want: "tempfail 4.4.2 dot", possibly: true, kept: 1, within: 10 * time.Minute},
	"refuses the dot":            {behaviours: some(lab.Refuse(lab.AtDot, "554 5.6.0 Not this one")), want: "permfail 5.6.0 dot"},
	"refuses the dot for now":    {behaviours: some(lab.Refuse(lab.AtDot, "451 4.6.0 Not now")), want: "tempfail 4.6.0 dot", others: true},
	"goes down at the dot":       {behaviours: some(lab.Refuse(lab.AtDot, "421 4.3.2 Going down")), want: "tempfail 4.3.2 dot", others: true},
	"the dot answered in NULs":   {behaviours: some(lab.NULs(lab.AtDot, "250 2.0.0 Ok")), want: "delivered * dot", kept: 1},
	"the dot answered and gone":  {behaviours: some(lab.CloseAfter(lab.AtDot)), want: "delivered 2.0.0 dot", kept: 1},
	"the dot after nine minutes": {behaviours: some(lab.Delay(lab.AtDot, 9*time.Minute)), want: "delivered 2.0.0 dot", kept: 1, within: 9 * time.Minute},
	"stops reading in the body": { // two seconds more, in which the host may say why
		behaviours: some(lab.StopReading(100_000)), body: megabytes, want: "tempfail 4.4.2 dot", others: true,
		within: 3*time.Minute + 2*time.Second,
	},

	"takes less than its SIZE": {
		behaviours: some(lab.SizeLimit(10)), want: "permfail 5.3.4 dot",
	},
	"takes less than its SIZE, and says so at MAIL": {
		behaviours: some(lab.Refuse(lab.AtMail, "552 5.3.4 Too big")), want: "permfail 5.3.4 mail",
	},
	"has no room for its SIZE": {
		behaviours: some(lab.Refuse(lab.AtMail, "452 4.3.1 Disk full")), want: "tempfail 4.3.1 mail", others: true,
	},
	"says a SIZE that is none": {
		behaviours: some(lab.Offer{Capabilities: []string{"SIZE -1 lots"}}), want: "delivered 2.0.0 dot", kept: 1,
	},

	"terminal escapes": {
		behaviours: some(lab.Escapes(lab.AtRcpt, "550 5.1.1 No such user")), want: "permfail 5.1.1 rcpt",
	},
	"terminal escapes in a greeting": {
		behaviours: some(lab.Escapes(lab.AtGreeting, "554 5.7.1 No")), want: "tempfail 4.7.1 greeting", others: true,
	},
	"a refusal in NULs":       {behaviours: some(lab.NULs(lab.AtRcpt, "550 no")), want: "permfail 5.0.0 rcpt"},
	"a refusal without end":   {behaviours: some(lab.EndlessReply(lab.AtRcpt)), want: "tempfail 4.5.0 rcpt", others: true},
	"a refusal of one line":   {behaviours: some(lab.EndlessLine(lab.AtRcpt)), want: "tempfail 4.5.0 rcpt", others: true},
	"packets of one octet":    {behaviours: some(lab.Offer{OneByte: true}), want: "delivered 2.0.0 dot", kept: 1},
	"a 354 that nobody needs": {behaviours: some(lab.Twice(lab.AtData)), want: "tempfail * *"},
	"MAIL answered twice":     {behaviours: some(lab.Twice(lab.AtMail)), want: "tempfail 4.5.0 data", others: true},
	"RCPT answered twice":     {behaviours: some(lab.Twice(lab.AtRcpt)), want: "tempfail 4.5.0 data", others: true},
	"MAIL answered never":     {behaviours: some(lab.Mute(lab.AtMail)), want: "tempfail 4.5.0 rcpt", others: true},
}

// half is a greeting that breaks off.
func half(lab.Step) lab.Answer { return lab.Answer{Raw: "220 mx.aol.te", Drop: true} }

func resetAfterEHLO(lab.Step) lab.Answer {
	return lab.Answer{Raw: "250-mx\r\n250 PIPELINING\r\n", Reset: true}
}

// closeAfterLast is a host that goes when it knows the last recipient.
func closeAfterLast(s lab.Step) lab.Answer {
	return lab.Answer{Close: strings.HasPrefix(s.To[0], "b@")}
}

// Whatever a far end does: the attempt ends in bounded time and memory, each recipient has one outcome and the right one,
// nothing that was not taken counts as taken, another host is asked where that may help, and a later attempt finds
// nothing lost.
//
// std: C3
// std: C4
func TestBadInput(t *testing.T) {
	for name, tt := range badEnds {
		t.Run(name, func(t *testing.T) {
			if tt.within == 0 && !tt.memory {
				t.Run("sockets", func(t *testing.T) { tt.test(t, sockets(t)) })
			}
			t.Run("memory", func(t *testing.T) { inMemory(t, tt.test) })
			t.Run("another host", func(t *testing.T) { inMemory(t, tt.testOthers) })
		})
	}
}

func (b badEnd) message() *deliver.Message {
	return letterOf(orElse(b.body, hello), "a@aol.test", "b@aol.test")
}

func (b badEnd) test(t *testing.T, w *world) {
	mx := w.Server("mx.aol.test", b.behaviours...)
	read := w.countReads()
	told := w.countOutcomes()
	begin := time.Now()
	outcomes := w.all(t, b.route(t), b.message())
	if b.within > 0 {
		require.Equal(t, b.within, time.Since(begin))
	}
	for _, o := range outcomes {
		require.True(t, matches(b.want, o), "wanted %s, got %v", b.want, o)
		if !strings.Contains(b.want, "*") {
			require.Equal(t, b.possibly, o.PossiblyDelivered, "%v", o)
		}
	}
	require.Equal(t, int64(2), told.Load(), "an outcome for each recipient, once")
	require.Less(t, read.Load(), int64(128<<10), "what is read of a far end is bounded")
	require.Less(t, len(w.said.String()), 64<<10)
	requirePlainText(t, w, outcomes)
	require.NoError(t, w.d.Close())
	require.NoError(t, mx.Wait(t.Context(), func() bool { return atRest(mx) }))
	b.accounted(t, mx, outcomes)
	b.later(t, w, mx, outcomes)
}

// atRest reports whether every session of a host is over, or will never be.
func atRest(s *lab.Server) bool {
	_, open := s.Connections()
	return open == 0 || strings.Contains(s.Transcript(), "hangs at body")
}

// accounted checks that what the host has is what the outcomes say.
func (b badEnd) accounted(t *testing.T, mx *lab.Server, outcomes []deliver.Outcome) {
	t.Helper()
	mail := mx.Mailbox()
	require.GreaterOrEqual(t, len(mail), b.kept)
	for _, o := range outcomes {
		if len(mail) > 0 {
			require.True(t, o.Result.Success() || o.PossiblyDelivered, "the host has it: %v", o)
		} else {
			require.False(t, o.Result.Success(), "the host does not have it: %v", o)
		}
	}
}

// later tries again what failed for now, when the host has come to its senses.
func (b badEnd) later(t *testing.T, w *world, mx *lab.Server, outcomes []deliver.Outcome) {
	t.Helper()
	mx.Behave(lab.AcceptAll, offersTLS)
	mx.Forget()
	if outcomes[0].Result != deliver.TempFail {
		return
	}
	for _, o := range w.all(t, b.route(t), b.message()) {
		require.Equal(t, deliver.Delivered, o.Result, "%v", o)
	}
	mail := mx.Mailbox()
	require.Len(t, mail, 1)
	require.Equal(t, []string{"a@aol.test", "b@aol.test"}, mail[0].Addresses())
	require.Equal(t, orElse(b.body, hello), string(mail[0].Body))
}

// testOthers is the same with a host of second choice that is well.
func (b badEnd) testOthers(t *testing.T, w *world) {
	require.NoError(t, w.Zone("aol.test", twoHosts))
	mx := w.Server("mx.aol.test", b.behaviours...)
	second := w.Server("second.aol.test", offersTLS)
	outcomes := w.all(t, b.route(t), b.message())
	for _, o := range outcomes {
		if b.others {
			require.Equal(t, deliver.Delivered, o.Result, "%v", o)
			require.Equal(t, "second.aol.test", o.Host)
		}
		// a host that may have it is not asked a second time, nor is another
		require.False(t, len(mx.Mailbox()) > 0 && len(second.Mailbox()) > 0, "delivered twice: %v", o)
	}
	if b.others {
		require.Len(t, second.Mailbox(), 1)
		require.Empty(t, mx.Mailbox())
	}
}

// matches compares an outcome with result, status and stage; * is anything.
func matches(want string, o deliver.Outcome) bool {
	got := []string{o.Result.String(), o.Status.String(), string(o.Stage)}
	for i, w := range strings.Fields(want) {
		if w != "*" && w != got[i] {
			return false
		}
	}
	return true
}

// countReads counts the octets that the Deliverer reads.
func (w *world) countReads() *atomic.Int64 {
	read := new(atomic.Int64)
	w.d.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := w.Dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &readCounter{c, read}, nil
	}
	return read
}

// countOutcomes counts the outcomes that the trace is told.
func (w *world) countOutcomes() *atomic.Int64 {
	told := new(atomic.Int64)
	w.d.Trace = &deliver.Trace{Outcome: func(*deliver.Message, deliver.Outcome) { told.Add(1) }}
	return told
}

// requirePlainText checks that nothing a far end says acts on a terminal where people read it.
func requirePlainText(t *testing.T, w *world, outcomes []deliver.Outcome) {
	t.Helper()
	const acts = "\x00\x07\b\r\x1b\u009b\u202e"
	for _, o := range outcomes {
		require.False(t, strings.ContainsAny(o.String(), acts+"\n"), "%q", o.String())
		if err := o.Err(); err != nil {
			require.False(t, strings.ContainsAny(err.Error(), acts+"\n"), "%q", err.Error())
		}
		for _, try := range o.Tried {
			require.False(t, strings.ContainsAny(try.Err, acts+"\n"), "%q", try.Err)
		}
	}
	require.False(t, strings.ContainsAny(w.log.String(), acts), "%q", w.log.String())
}
