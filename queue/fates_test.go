package queue_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/route"
)

// actions are a report's recipients with what happened to each.
func actions(r *dsn.Report) map[string]dsn.Action {
	all := map[string]dsn.Action{}
	for _, to := range r.Recipients {
		all[to.Final.Addr] = to.Action
	}
	return all
}

// std: D3 D7
func TestOneAttemptMayEndInEveryWay(t *testing.T) {
	relayed := took
	relayed.Result = deliver.Relayed
	f := &far{say: func(ctx context.Context, rt route.Route, m *deliver.Message, to string) deliver.Outcome {
		time.Sleep(time.Millisecond)
		if strings.HasPrefix(to, "relayed") {
			return relayed
		}
		return byName(ctx, rt, m, to)
	}}
	play(t, f.through(func(w *world) { w.runner.Schedule.DelayAfter = time.Nanosecond }), func(w *world) {
		w.send(
			to("bob@aol.test", "SUCCESS,FAILURE"), to("relayed1@aol.test", "SUCCESS"), to("relayed2@aol.test", ""),
			to("later1@aol.test", ""), to("later2@aol.test", "FAILURE"), to("later3@aol.test", "NEVER"),
			to("unknown1@aol.test", ""), to("unknown2@aol.test", "SUCCESS,DELAY"), to("unknown3@aol.test", "NEVER"),
			to("blocked1@aol.test", ""),
		)
		w.sleep(time.Second)
		reports := f.told(t)
		require.Len(t, reports, 1, "what ends together is in one report")
		assert.Equal(t, map[string]dsn.Action{
			"relayed1@aol.test": dsn.Relayed, "later1@aol.test": dsn.Delayed, "unknown1@aol.test": dsn.Failed, "blocked1@aol.test": dsn.Delayed,
		}, actions(reports[0]))
		list := w.list(queue.Filter{})
		require.Len(t, list, 1)
		var left []string
		for _, r := range list[0].To {
			left = append(left, r.Address)
		}
		assert.Equal(t, []string{"later1@aol.test", "later2@aol.test", "later3@aol.test", "blocked1@aol.test"}, left)

		w.sleep(6 * 24 * time.Hour)
		reports = f.told(t)
		require.Len(t, reports, 2, "a delay is told once") // std: D9
		assert.Equal(t, map[string]dsn.Action{"later1@aol.test": dsn.Failed, "later2@aol.test": dsn.Failed, "blocked1@aol.test": dsn.Failed}, actions(reports[1]))
		assert.True(t, w.empty())
	})
}

// A server may refuse our address for one recipient, and take the mail for others.
func TestOneRecipientMayBeBlocked(t *testing.T) {
	play(t, nil, func(w *world) {
		aol := w.server("aol.test", lab.Refuse(lab.AtRcpt, aolWords, "blocked@aol.test"))
		w.send(queue.To("bob@aol.test", "blocked@aol.test")...)
		w.sleep(time.Minute)
		require.Len(t, aol.Mailbox(), 1)
		assert.Equal(t, []string{"bob@aol.test"}, aol.Mailbox()[0].Addresses())
		assert.Empty(t, w.home.Mailbox())
		aol.Behave(lab.AcceptAll)
		w.sleep(time.Hour)
		require.Len(t, aol.Mailbox(), 2)
		assert.Equal(t, []string{"blocked@aol.test"}, aol.Mailbox()[1].Addresses())
	})
}

// std: D5
func TestWhatNobodyIsToldOfAmongOthers(t *testing.T) {
	f := &far{say: byName}
	play(t, f.through(func(w *world) { w.runner.KeepUnreported = true }), func(w *world) {
		w.send(to("unknown1@aol.test", "NEVER"), to("unknown2@aol.test", ""), to("later@aol.test", ""), to("bob@aol.test", "NEVER"))
		w.sleep(time.Minute)
		require.Len(t, f.told(t), 1)
		assert.Equal(t, map[string]dsn.Action{"unknown2@aol.test": dsn.Failed}, actions(f.told(t)[0]))
		assert.Len(t, w.list(queue.Filter{State: queue.Waiting}), 1, "it stays with what waits")
		w.sleep(6 * 24 * time.Hour)
		held := w.list(queue.Filter{})
		require.Len(t, held, 1)
		assert.Equal(t, queue.Held, held[0].State)
		require.Len(t, held[0].To, 1)
		assert.Equal(t, "unknown1@aol.test", held[0].To[0].Address)
		assert.Len(t, f.triesOf("bob@aol.test"), 1)

		_, err := w.queue.Fail(w.t.Context(), queue.Filter{ID: held[0].ID}, "I have seen it")
		require.NoError(t, err)
		w.sleep(time.Minute)
		assert.True(t, w.empty(), "a person has looked at it and ended it")
		assert.Len(t, f.told(t), 3)
	})
}

// std: D7
func TestAReportOfThousands(t *testing.T) {
	f := &far{say: byName}
	play(t, f.through(), func(w *world) {
		var all []queue.Recipient
		for i := range 10_001 {
			all = append(all, queue.To(fmt.Sprintf("unknown%d@aol.test", i))...)
		}
		w.send(all...)
		w.sleep(time.Minute)
		told := map[string]dsn.Action{}
		for _, r := range f.told(t) {
			maps.Copy(told, actions(r))
		}
		assert.Len(t, told, len(all))
		assert.Len(t, f.home, 3, "no mail is longer than hosts take")
		for _, text := range f.home {
			assert.Less(t, len(text), 5<<20)
		}
	})
}

func TestReportsNameTheHostWhateverItIsCalled(t *testing.T) {
	for name, want := range map[string]string{
		"mail.example.org": "mail.example.org", "Bob's <Mac>": "Bob-s--Mac-", "büro.test": "xn--bro-hoa.test", " relay_1 ": "relay_1", "日本 <x>": "----x-",
	} {
		t.Run(name, func(t *testing.T) {
			f := &far{say: byName}
			play(t, f.through(func(w *world) { w.runner.Hostname = name }), func(w *world) {
				w.send(queue.To("unknown@aol.test")...)
				w.sleep(time.Minute)
				require.Len(t, f.told(t), 1)
				assert.Equal(t, want, f.told(t)[0].ReportingMTA)
			})
		})
	}
}

// std: D5
func TestNoDelayIsReportedToTheNullSender(t *testing.T) {
	f := &far{say: byName}
	play(t, f.through(), func(w *world) {
		w.sendFrom("", queue.To("later@aol.test")...)
		w.sleep(6 * 24 * time.Hour)
		assert.True(t, w.empty())
		assert.Empty(t, f.home)
		assert.NotContains(t, w.logText(), "level=ERROR", "nobody tries to write one")
	})
}

// LMTP ends at the mailbox: what it takes is delivered, and nobody else will say so.
func TestDeliveryByLMTPIsReportedAsSuch(t *testing.T) {
	play(t, func(w *world) { w.by(parse(w.t, "*@aol.test lmtp://mail.isp.test:24\n*@other.test discard")) }, func(w *world) {
		box := w.net.Server("mail.isp.test:24", lab.Offer{LMTP: true, Capabilities: []string{"PIPELINING"}})
		w.send(to("bob@aol.test", "SUCCESS"), to("eve@aol.test", ""), to("gone@other.test", "SUCCESS"))
		w.sleep(time.Minute)
		assert.Len(t, box.Mailbox(), 1)
		r := w.reports(w.home)
		require.Len(t, r, 1, "what the route discards is reported to nobody")
		assert.Equal(t, map[string]dsn.Action{"bob@aol.test": dsn.Delivered}, actions(r[0]))
		assert.True(t, w.empty())
		assert.Contains(t, w.logText(), "mail is discarded")
	})
}

// std: D8
func TestSendersOfEveryKindHearOfAFailure(t *testing.T) {
	for _, from := range []string{
		"ann@example.org", "änn@example.org", "ann@[192.0.2.10]", "ann@bücher.test", `"ann b"@example.org`, `"a<n>n\"@x"@example.org`, "ann@EXAMPLE.ORG.",
	} {
		t.Run(from, func(t *testing.T) {
			play(t, nil, func(w *world) {
				require.NoError(t, w.net.Zone("xn--bcher-kva.test", "@ MX 10 mail.example.org."))
				w.server("aol.test", lab.Refuse(lab.AtRcpt, "550 5.1.1 Unbekannter Empfänger"))
				_, err := w.queue.Enqueue(w.t.Context(), queue.Envelope{From: from, To: queue.To("bob@aol.test", "bøb@aol.test"), UTF8: true}, strings.NewReader(plain))
				require.NoError(t, err)
				w.sleep(time.Minute)
				r := w.reports(w.home)
				require.Len(t, r, 1)
				assert.Len(t, r[0].Recipients, 2)
				assert.Equal(t, "NEVER", w.home.Mailbox()[0].To[0].Params["NOTIFY"], "a report asks for none")
				assert.True(t, w.empty())
			})
		})
	}
}

func TestDomainLiterals(t *testing.T) {
	for _, good := range []string{"a@[192.0.2.1]", "a@[IPv6:2001:db8::1]", "a@[ipv6:::1]"} {
		assert.NoError(t, queue.CheckAddress(good), good)
	}
	for _, bad := range []string{"a@[", "a@[]", "a@[192.0.2.1", "a@[192.0.2]", "a@[2001:db8::1]", "a@[IPv6:192.0.2.1]", "a@[IPv6:fe80::1%eth0]", "a@[x> SIZE=1]", "a@[tag:text]"} {
		assert.Error(t, queue.CheckAddress(bad), bad)
	}
	for _, bad := range []string{"<me@x.test>", "Me <me@x.test>", "a@x.test, b@x.test", "a@x.test,b@x.test"} {
		assert.ErrorContains(t, queue.CheckAddress(bad), "write one address alone", bad)
	}
	assert.ErrorContains(t, queue.CheckAddress(""), "it is empty")
}

// std: C14
func TestWhatMayHaveArrivedIsTriedAgain(t *testing.T) {
	play(t, nil, func(w *world) {
		aol := w.server("aol.test", lab.Times(1, lab.DropAfterTaking()))
		id := w.send(queue.To("bob@aol.test")...)
		w.sleep(time.Minute)
		d, err := w.queue.Show(w.t.Context(), id)
		require.NoError(t, err)
		assert.True(t, d.Entries[0].Last.Results[0].PossiblyDelivered)
		assert.Contains(t, w.logText(), "possibly_delivered=true")
		w.sleep(time.Hour)
		mail := aol.Mailbox()
		require.Len(t, mail, 2)
		for _, m := range mail {
			assert.Contains(t, string(m.Body), "Message-ID: <1@example.org>")
		}
		assert.Empty(t, w.home.Mailbox())
	})
}

// std: C14
func TestWhatMayHaveArrivedBeforeShutdownCounts(t *testing.T) {
	play(t, nil, func(w *world) {
		aol := w.server("aol.test", lab.Hang(lab.AtDot))
		w.send(queue.To("bob@aol.test")...)
		w.sleep(time.Second)
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
		defer cancel()
		require.Error(t, w.runner.Shutdown(ctx))
		assert.Empty(t, aol.Mailbox())
		list := w.list(queue.Filter{})
		require.Len(t, list, 1)
		require.Equal(t, 1, list[0].Attempts)
		assert.True(t, list[0].Last.Results[0].PossiblyDelivered)
		assert.Equal(t, 5*time.Minute, time.Until(list[0].Due).Round(time.Minute), "a second copy can wait")
	})
}

// A shutdown in the middle of an entry settles who has the message, and puts back who has not.
func TestShutdownInTheMiddleOfAnEntry(t *testing.T) {
	f := &far{say: byName}
	play(t, f.through(func(w *world) { w.by(parse(w.t, "hangs@aol.test smtp://mail.isp.test")) }), func(w *world) {
		w.send(queue.To("bob@aol.test", "hangs@aol.test", "unknown@aol.test", "later@aol.test")...)
		w.sleep(time.Second)
		ctx, cancel := context.WithCancel(w.t.Context())
		cancel()
		require.Error(t, w.runner.Shutdown(ctx))
		left := w.list(queue.Filter{Lane: "aol.test"})
		require.Len(t, left, 1)
		assert.Equal(t, queue.To("hangs@aol.test", "later@aol.test"), left[0].To)
		assert.False(t, left[0].Due.After(time.Now()))
		reports := w.list(queue.Filter{Sender: "<>"})
		require.Len(t, reports, 1, "the report on what failed is queued with it")
		assert.Equal(t, "ann@example.org", reports[0].To[0].Address)
	})
}

// A router that is slow to fail must not keep an entry of thousands busy for as long as it lives, nor tell senders its secrets.
func TestARouterInTroubleIsAskedAFewTimes(t *testing.T) {
	f := &far{say: byName}
	var asked atomic.Int32
	play(t, f.through(func(w *world) {
		w.runner.Schedule.Lifetime = time.Hour
		w.by(routerFunc(func(ctx context.Context, q route.Query) (route.Route, error) {
			if strings.HasSuffix(q.Recipient, "@example.org") {
				return route.Direct.Route(ctx, q)
			}
			asked.Add(1)
			time.Sleep(5 * time.Second)
			return route.Route{}, errors.New("postgres://routes:s3cret@db does not answer")
		}))
	}), func(w *world) {
		var all []queue.Recipient
		for i := range 1000 {
			all = append(all, queue.To(fmt.Sprintf("bob%d@aol.test", i))...)
		}
		w.send(all...)
		w.sleep(2 * time.Minute)
		assert.EqualValues(t, 10, asked.Load())
		list := w.list(queue.Filter{})
		require.Len(t, list, 1)
		assert.Equal(t, queue.Waiting, list[0].State, "the attempt is over")
		assert.Contains(t, list[0].Last.Results[0].Detail, "does not answer", "the administrator sees why")
		w.sleep(3 * time.Hour)
		reports := f.told(t)
		require.Len(t, reports, 1)
		assert.Len(t, reports[0].Recipients, 1000)
		assert.Equal(t, "no way to the recipient could be found", reports[0].Recipients[0].Detail)
		assert.NotContains(t, string(f.home[0]), "s3cret")
	})
}

// What a deliverer invents is tried again.
func TestAResultThatDoesNotExistIsTemporary(t *testing.T) {
	f := &far{say: always(deliver.Outcome{Result: 77, Status: "7.7.7"})}
	play(t, f.through(), func(w *world) {
		w.send(queue.To("bob@aol.test")...)
		w.sleep(time.Minute)
		assert.Len(t, w.list(queue.Filter{State: queue.Waiting}), 1)
		assert.Empty(t, f.told(t))
	})
}

func TestAChangeOfEverythingMustBeMeant(t *testing.T) {
	for _, f := range []queue.Filter{{}, {OlderThan: -time.Hour}} {
		assert.ErrorIs(t, f.CheckChange(), queue.ErrNoFilter)
	}
	for _, f := range []queue.Filter{{All: true}, {OlderThan: time.Hour}, {OlderThan: -1, Lane: "aol.test"}} {
		assert.NoError(t, f.CheckChange())
	}
}
