package queue_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/dsn/reason"
	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/memory"
	"github.com/sortie-mail/sortie/route"
)

const month = 30 * 24 * time.Hour

// suppressing is a world whose Runner puts addresses on the suppression list.
func suppressing(w *world) { w.runner.SuppressFor = month }

// suppressed is what the list says of an address.
func (w *world) suppressed(address string) (queue.Suppression, bool) {
	w.t.Helper()
	s, ok, err := queue.Suppressed(w.t.Context(), w.queue, address)
	require.NoError(w.t, err)
	return s, ok
}

// An address that does not exist is found out once: what comes later is refused without a connection, with the old words.
//
// std: Q11
func TestSuppressionIsFoundOutOnce(t *testing.T) {
	play(t, suppressing, func(w *world) {
		aol := w.server("aol.test", lab.Refuse(lab.AtRcpt, "550 5.1.1 <gone@aol.test>: no such user here", "gone@aol.test"))
		w.send(queue.To("gone@aol.test", "bob@aol.test")...)
		w.sleep(time.Hour)
		require.Len(t, w.reports(w.home), 1)
		s, ok := w.suppressed("GONE@AOL.test")
		require.True(t, ok)
		assert.Equal(t, queue.Suppression{
			Address: "gone@aol.test", Class: reason.UserUnknown, Status: "5.1.1", Host: "mail.aol.test", Since: s.Since, Until: s.Until,
			Reply: dsn.Reply{Code: 550, Lines: []string{"5.1.1 <gone@aol.test>: no such user here"}},
		}, s)
		assert.WithinDuration(t, w.start, s.Since, time.Minute)
		assert.WithinDuration(t, w.start.Add(month), s.Until, time.Minute)
		_, ok = w.suppressed("bob@aol.test")
		assert.False(t, ok)

		sessions, _ := aol.Connections()
		w.send(queue.To("Gone@aol.TEST")...)
		w.sleep(time.Hour)
		again, _ := aol.Connections()
		assert.Equal(t, sessions, again, "nobody is asked again")
		mail := w.home.Mailbox()
		require.Len(t, mail, 2)
		r := w.reports(w.home)[1].Recipients[0]
		assert.Equal(t, dsn.Failed, r.Action)
		assert.Equal(t, dsn.Status("5.1.1"), r.Status)
		assert.Empty(t, r.RemoteMTA, "no host was asked")
		assert.True(t, r.Diagnostic.IsZero())
		for _, words := range []string{"no such user here", "mail.aol.test said", s.Since.UTC().Format("2 Jan 2006"), "until " + s.Until.UTC().Format("2 Jan 2006")} {
			assert.Contains(t, strings.Join(strings.Fields(string(mail[1].Body)), " "), words)
		}
		assert.True(t, w.empty())

		w.send(queue.To("gone@aol.test", "bob@aol.test")...)
		w.sleep(time.Hour)
		assert.Len(t, aol.Mailbox(), 2, "the others get theirs")

		w.sleep(month)
		w.send(queue.To("gone@aol.test")...)
		w.sleep(time.Hour)
		assert.Equal(t, "550 5.1.1 <gone@aol.test>: no such user here", w.reports(w.home)[3].Recipients[0].Diagnostic.String(), "it is asked again after that")
	})
}

// std: Q11
func TestSuppressionCanBeOverridden(t *testing.T) {
	f := &far{say: byName}
	play(t, f.through(), func(w *world) { // without SuppressFor: what is on the list is refused all the same
		anyway := func(anyway bool, to ...string) {
			t.Helper()
			env := queue.Envelope{From: "ann@example.org", To: queue.To(to...), Anyway: anyway}
			_, err := w.queue.Enqueue(t.Context(), env, strings.NewReader(plain))
			require.NoError(t, err)
			w.sleep(time.Minute)
		}
		require.NoError(t, queue.Suppress(t.Context(), w.queue,
			queue.Suppression{Address: "bob@aol.test", Detail: "they asked for it"}, queue.Suppression{Address: "unknown@aol.test"}))
		anyway(false, "bob@aol.test", "unknown@aol.test", "cid@aol.test")
		assert.Empty(t, f.triesOf("bob@aol.test"))
		assert.Len(t, f.triesOf("cid@aol.test"), 1)
		require.Len(t, f.told(t), 1)
		assert.Contains(t, f.told(t)[0].Recipients[0].Detail, "they asked for it")
		anyway(true, "bob@aol.test", "unknown@aol.test")
		assert.Len(t, f.triesOf("bob@aol.test"), 1)
		assert.Len(t, f.triesOf("unknown@aol.test"), 1)
		_, ok := w.suppressed("bob@aol.test")
		assert.False(t, ok, "mail that it takes takes it off the list")
		_, ok = w.suppressed("unknown@aol.test")
		assert.True(t, ok)
		require.NoError(t, queue.Lift(t.Context(), w.queue, "UNKNOWN@aol.test"))
		anyway(false, "bob@aol.test", "unknown@aol.test")
		assert.Len(t, f.triesOf("bob@aol.test"), 2)
		assert.Len(t, f.triesOf("unknown@aol.test"), 2)
		_, ok = w.suppressed("unknown@aol.test")
		assert.False(t, ok, "without SuppressFor nothing is put on the list")
	})
}

// Only what says that there is nobody puts an address on the list: nothing about us, the message, their policy or a mailbox that
// somebody has, and nothing that may mean something else.
//
// std: Q11
func TestWhatIsSuppressed(t *testing.T) {
	ambiguous := unknown
	ambiguous.Reason.Classes = []reason.Class{reason.UserUnknown, reason.Policy}
	tests := []struct {
		outcome deliver.Outcome
		class   reason.Class // "" is not suppressed
	}{
		{unknown, reason.UserUnknown},
		{refusal(deliver.PermFail, deliver.StageDot, "550 5.1.1 User unknown"), reason.UserUnknown}, // LMTP
		{refusal(deliver.PermFail, deliver.StageRcpt, "550 5.1.1 Go away"), reason.UserUnknown},
		{refusal(deliver.PermFail, deliver.StageRcpt, "550 5.2.1 This account has been disabled"), reason.MailboxDisabled},
		{refusal(deliver.PermFail, deliver.StageRcpt, "551 5.1.6 User has moved to ann@b.test"), reason.HasMoved},
		{refusal(deliver.PermFail, deliver.StageRcpt, "550 5.1.2 Host unknown"), reason.HostUnknown},
		{deliver.Outcome{Result: deliver.PermFail, Status: "5.1.2", Stage: deliver.StageRoute, Detail: "the domain aol.test does not exist"}, reason.HostUnknown},
		{deliver.Outcome{Result: deliver.PermFail, Status: "5.1.10", Stage: deliver.StageRoute, Detail: "aol.test accepts no mail"}, reason.NoMailHere},

		{refusal(deliver.PermFail, deliver.StageRcpt, "550 Requested action not taken"), ""},
		{ambiguous, ""},
		{refusal(deliver.PermFail, deliver.StageRcpt, "550 5.1.1 Access denied, spam source [192.0.2.1] is blocked"), ""},
		{refusal(deliver.PermFail, deliver.StageMail, "550 5.1.1 User unknown"), ""}, // it is the sender
		{refusal(deliver.PermFail, deliver.StageRcpt, "552 5.2.2 Mailbox is full"), ""},
		{refusal(deliver.PermFail, deliver.StageDot, "554 5.7.1 Message contains a virus"), ""},
		{refusal(deliver.PermFail, deliver.StageRcpt, "550 5.7.1 Relaying denied"), ""},
		{refusal(deliver.PermFail, deliver.StageDot, "552 5.3.4 Message too big"), ""},
		{refusal(deliver.PermFail, deliver.StageRcpt, "554 5.7.1 Rejected by policy"), ""},
		{blocked, ""},
		{later, ""},
		{noAnswer, ""},
		{refusal(deliver.TempFail, deliver.StageRcpt, "450 4.1.1 User unknown"), ""},
		{deliver.Outcome{Result: deliver.PermFail, Status: "5.1.2", Stage: deliver.StageRoute, RouteTrouble: true}, ""},
		{deliver.Outcome{Result: deliver.PermFail, Status: "5.4.4", Stage: deliver.StageRoute, Detail: "the host has no address"}, ""},
		{deliver.Outcome{Result: deliver.PermFail, Status: "5.1.2", Stage: deliver.StageRoute, Reply: dsn.Reply{Code: 550, Lines: []string{"5.1.2 says the route"}}}, ""},
	}
	for _, test := range tests {
		f := &far{say: always(test.outcome)}
		play(t, f.through(suppressing, func(w *world) { w.runner.BounceBlocked = true }), func(w *world) {
			w.send(queue.To("bob@aol.test")...)
			w.sleep(6 * 24 * time.Hour)
			require.True(t, w.empty())
			s, ok := w.suppressed("bob@aol.test")
			assert.Equal(t, test.class != "", ok, "%s", &test.outcome)
			assert.Equal(t, test.class, s.Class, "%s", &test.outcome)
		})
	}
}

// What ends a message without a try says nothing of its recipients, and a smarthost that a route rejects or an administrator who
// fails mail neither.
//
// std: Q11
func TestNobodyIsSuppressedUntried(t *testing.T) {
	play(t, suppressing, func(w *world) {
		w.by(parse(t, "bob@aol.test reject \"550 5.1.1 No such user\"\n*@nowhere.test hold\n* direct"))
		w.send(queue.To("bob@aol.test")...)
		id := w.send(queue.To("ann@nowhere.test")...)
		w.sleep(time.Minute)
		_, err := w.queue.Fail(t.Context(), queue.Filter{ID: id}, "no use")
		require.NoError(t, err)
		w.sleep(time.Hour)
		require.True(t, w.empty())
		list, _, err := queue.Suppressions(t.Context(), w.queue, "", 0)
		require.NoError(t, err)
		assert.Empty(t, list)
	})
}

// A report to an address that is on the list is not sent, and a Runner whose queue keeps no notes does its work.
//
// std: Q11
func TestSuppressionElsewhere(t *testing.T) {
	f := &far{say: byName}
	play(t, f.through(suppressing), func(w *world) {
		require.NoError(t, queue.Suppress(t.Context(), w.queue, queue.Suppression{Address: "ann@example.org"}))
		w.send(queue.To("unknown@aol.test")...)
		w.sleep(time.Hour)
		assert.Empty(t, f.told(t))
		assert.True(t, w.empty())
		assert.Contains(t, w.logText(), "there is nobody to tell")
	})
	play(t, f.through(suppressing, func(w *world) { w.runner.Queue = struct{ queue.Queue }{w.queue} }), func(w *world) {
		for range 2 {
			w.send(queue.To("unknown2@aol.test")...)
			w.sleep(time.Hour)
		}
		assert.Len(t, f.triesOf("unknown2@aol.test"), 2)
		assert.Contains(t, w.logText(), "keeps no notes")
	})
}

func TestSuppressionList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, q := t.Context(), memory.New()
		defer q.Close()
		until := time.Now().Add(time.Hour)
		require.NoError(t, queue.Suppress(ctx, q,
			queue.Suppression{Address: "Ü@Bücher.test", Until: until}, queue.Suppression{Address: "b@a.test", Status: "4.0.0", Class: "complaint"},
			queue.Suppression{Address: "c@[IPv6:2001:DB8::1]"}))
		var bad *queue.EnvelopeError
		require.ErrorAs(t, queue.Suppress(ctx, q, queue.Suppression{Address: "nobody"}), &bad)
		assert.Equal(t, "recipient", bad.Field)

		list, next, err := queue.Suppressions(ctx, q, "", 2)
		require.NoError(t, err)
		require.Len(t, list, 2)
		assert.Equal(t, "b@a.test c@[IPv6:2001:DB8::1]", list[0].Address+" "+list[1].Address)
		assert.Equal(t, dsn.Status("5.1.0"), list[0].Status)
		assert.Equal(t, time.Now(), list[0].Since.Local())
		list, next, err = queue.Suppressions(ctx, q, next, 2)
		require.NoError(t, err)
		assert.Empty(t, next)
		require.Len(t, list, 1)
		for _, same := range []string{"Ü@Bücher.test", "ü@xn--bcher-kva.TEST", "ü@bücher.test."} {
			s, ok, err := queue.Suppressed(ctx, q, same)
			require.NoError(t, err)
			assert.True(t, ok, same)
			assert.Equal(t, "Ü@Bücher.test", s.Address)
			assert.True(t, until.Equal(s.Until))
		}
		for _, other := range []string{"ü@test", "nobody", "", "x@a.test", "b@b@a.test"} {
			_, ok, err := queue.Suppressed(ctx, q, other)
			require.NoError(t, err)
			assert.False(t, ok, other)
		}
		time.Sleep(time.Hour)
		_, ok, err := queue.Suppressed(ctx, q, "ü@bücher.test")
		require.NoError(t, err)
		assert.False(t, ok)
		assert.NoError(t, queue.Lift(ctx, q, "never there"))
	})
}

// However long and strange what a host said is, it has room in a note.
func TestSuppressionQuotes(t *testing.T) {
	ctx, q := t.Context(), memory.New()
	defer q.Close()
	for _, words := range []string{strings.Repeat("very long words ", 1000), strings.Repeat("<é\x01&\">", 5000), "\xff\xfe", ""} {
		s := queue.Suppression{
			Address: strings.Repeat("a", 64) + "@" + strings.Repeat("b.", 90) + "test", Class: reason.Class(words), Status: dsn.Status(words),
			Detail: words, Host: words, Reply: dsn.Reply{Code: 550, Lines: []string{words, words, "last"}},
		}
		require.NoError(t, queue.Suppress(ctx, q, s))
		got, ok, err := queue.Suppressed(ctx, q, s.Address)
		require.NoError(t, err)
		require.True(t, ok)
		assert.Equal(t, s.Address, got.Address)
		assert.True(t, utf8.ValidString(got.String()))
		if strings.HasPrefix(words, "very") {
			assert.Contains(t, got.String(), "550 very long words")
		}
	}
}

// FuzzSuppression refuses mail by whatever a note of the suppression list says, and reports it.
func FuzzSuppression(f *testing.F) {
	f.Add(`{"address":"gone@aol.test","class":"user-unknown","status":"5.1.1","reply":{"code":550,"lines":["5.1.1 No such user"]},"since":"2026-11-25T00:00:00Z"}`)
	f.Add(`{"class":"open-relay","status":"4.7.1","detail":"x\u0000\r\nX: y"}`)
	f.Add(`{"status":"5.999999.1","reply":{"code":-1,"lines":[]},"since":"9999-12-31T23:59:59Z"}`)
	f.Add("a person wrote this")
	f.Add("")
	f.Fuzz(func(t *testing.T, value string) {
		n := queue.Note{Kind: queue.KindSuppress, Key: "gone@aol.test", Value: value, Until: time.Now().Add(time.Hour)}
		if n.Validate() != nil {
			t.Skip("it is no note")
		}
		far := &far{say: always(took)}
		synctest.Test(t, func(t *testing.T) {
			w := &world{t: t, queue: memory.New(), start: time.Now()}
			n.Until = time.Now().Add(time.Hour)
			require.NoError(t, w.queue.Note(t.Context(), n))
			r := &queue.Runner{Queue: w.queue, Router: route.Direct, Deliverer: far, Hostname: "relay.test"}
			go r.Run(t.Context())
			w.send(queue.To("gone@aol.test", "bob@aol.test")...)
			w.sleep(time.Minute)
			require.True(t, w.empty())
			require.NoError(t, r.Shutdown(context.Background()))
		})
		require.Empty(t, far.triesOf("gone@aol.test"))
		require.Len(t, far.triesOf("bob@aol.test"), 1)
		told := far.told(t)
		require.Len(t, told, 1)
		require.Equal(t, 5, told[0].Recipients[0].Status.Class())
		require.Contains(t, told[0].Recipients[0].Detail, "not tried, because")
	})
}

func ExampleSuppress() {
	ctx := context.Background()
	q := memory.New()
	defer q.Close()
	err := queue.Suppress(ctx, q, queue.Suppression{
		Address: "you@aol.com", Detail: "the recipient wants no more of it", Since: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC),
	})
	if err != nil {
		panic(err)
	}
	s, listed, _ := queue.Suppressed(ctx, q, "You@AOL.com")
	fmt.Println(listed, s.String())
	// Output: true on 24 Nov 2026 12:00 UTC the recipient wants no more of it (this mail system sends nothing to the address until it is taken off the list)
}
