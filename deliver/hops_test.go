package deliver_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/dsn/reason"
	"github.com/sortie-mail/sortie/route"
)

// openRelay is what a large provider said about a whole provider's customers, word for word.
const openRelay = "554 5.7.1 The IP address you are using to connect is either open to the free relaying of e-mail, " +
	"is serving as an open proxy, or is a dynamic (residential) IP address"

// What a later hop is tried for, by what the hop before it ended in.
func TestHopsByCondition(t *testing.T) {
	down := lab.Drop(lab.AtConnect)
	for name, tt := range map[string]struct {
		first lab.Behaviour
		zone  string
		fail  lab.DNSFailure
		meets string // the conditions that are met, by their first letters: blocked, unreachable, tempfail, any
	}{
		"taken":                   {first: lab.AcceptAll, meets: ""},
		"refused for good":        {first: lab.Refuse(lab.AtRcpt, "550 5.1.1 No such user"), meets: "a"},
		"refused for now":         {first: lab.Refuse(lab.AtRcpt, "451 4.3.0 Try later"), meets: "ta"},
		"refused at the greeting": {first: lab.Refuse(lab.AtGreeting, "450 4.3.2 Busy"), meets: "ta"},
		"not reached":             {first: down, meets: "uta"},
		"lost":                    {first: lab.Drop(lab.AtMail), meets: "ta"},
		"lost at once":            {first: lab.Drop(lab.AtGreeting), meets: "ta"},
		"possibly delivered":      {first: lab.DropAfterTaking(), meets: ""},
		"TLS fails":               {first: lab.Offer{TLS: lab.TLSBroken}, meets: ""}, // in the clear
		"one lost, one not reached": {
			first: lab.Drop(lab.AtGreeting), meets: "ta",
			zone: "@ MX 10 mx\n@ MX 20 down\nmx A 192.0.2.10\ndown A 192.0.2.99",
		},
		"DNS does not answer":     {first: lab.AcceptAll, fail: lab.DNSServFail, meets: "uta"},
		"DNS denies the domain":   {first: lab.AcceptAll, fail: lab.DNSNXDomain, meets: "a"},
		"a null MX":               {first: lab.AcceptAll, zone: "@ MX 0 .", meets: "a"},
		"blocked at the greeting": {first: lab.Refuse(lab.AtGreeting, openRelay), meets: "bta"},
		"blocked at MAIL":         {first: lab.Refuse(lab.AtMail, openRelay), meets: "ba"},
		"blocked at RCPT":         {first: lab.Refuse(lab.AtRcpt, openRelay), meets: "ba"},
		"blocked after the dot":   {first: lab.Refuse(lab.AtDot, openRelay), meets: "ba"},
		"blocked, and one is down": {
			first: lab.Refuse(lab.AtGreeting, openRelay), meets: "bta",
			zone: "@ MX 10 mx\n@ MX 20 down\nmx A 192.0.2.10\ndown A 192.0.2.99",
		},
	} {
		for _, on := range []string{"blocked", "unreachable", "tempfail", "any"} {
			t.Run(name+", on "+on, func(t *testing.T) {
				inMemory(t, func(t *testing.T, w *world) {
					if tt.zone != "" {
						require.NoError(t, w.Zone("aol.test", tt.zone))
					}
					require.NoError(t, w.Zone("isp.test", "mail A 192.0.2.50"))
					w.FailDNS("aol.test", "", tt.fail)
					w.Server("mx.aol.test", tt.first)
					isp := w.Server("mail.isp.test")
					o := w.one(t, by(t, "direct, on "+on+" smtp://mail.isp.test"))
					meets := false
					for _, c := range tt.meets {
						meets = meets || byte(c) == on[0]
					}
					require.Equal(t, meets, len(isp.Mailbox()) == 1, "%v", o)
					if !meets {
						require.Equal(t, route.MX, o.Hop.Kind)
						return
					}
					require.Equal(t, deliver.Delivered, o.Result)
					require.Equal(t, "mail.isp.test", o.Host)
					require.Equal(t, "mail.isp.test", o.Hop.Host)
					require.NotEmpty(t, o.Tried, "what was tried before is told")
					require.Equal(t, route.MX, o.Tried[0].Hop.Kind)
					require.NotEmpty(t, o.Tried[0].Err)
				})
			})
		}
	}
}

// The story of the open relay: blocked at the provider, through the ISP by itself, and both are told.
func TestTheDetourWhenBlocked(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("isp.test", "mail A 192.0.2.50"))
		w.Server("mx.aol.test", lab.Refuse(lab.AtRcpt, openRelay, "you@*"))
		isp := w.Server("mail.isp.test")
		r := by(t, "direct, on blocked smtp://mail.isp.test")
		outcomes := w.all(t, r, letter("you@aol.test", "friend@aol.test"))
		require.Equal(t, "mx.aol.test", outcomes[1].Host, "only whom it concerns takes the detour")
		o := outcomes[0]
		require.Equal(t, deliver.Delivered, o.Result, "%v", o)
		require.Equal(t, []string{"you@aol.test"}, isp.Mailbox()[0].Addresses())
		require.Len(t, o.Tried, 1)
		first := o.Tried[0]
		assert.Equal(t, "mx.aol.test", first.Host)
		assert.Equal(t, "192.0.2.10:25", first.Addr.String())
		assert.Equal(t, deliver.StageRcpt, first.Stage)
		assert.Equal(t, openRelay, first.Reply.Wire(), "word for word")
		assert.Equal(t, openRelay, first.Err)
		assert.True(t, first.Reason.Is(reason.OpenRelay), "%v", first.Reason)
		assert.True(t, first.Reason.Blocked())

		isp.Behave(lab.Refuse(lab.AtRcpt, "550 5.7.1 We do not relay for you either"))
		o = w.one(t, r)
		require.Equal(t, deliver.PermFail, o.Result)
		require.Equal(t, "mail.isp.test", o.Host, "a refusal of the ISP names the ISP")
		require.Contains(t, o.String(), "We do not relay for you either")
		require.Equal(t, openRelay, o.Tried[0].Reply.Wire())
	})
}

// A 554 at the greeting is not the recipient's end, and still classed for what it says.
//
// std: C3
func TestABlockedGreetingIsClassed(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		w.Server("mx.aol.test", lab.Refuse(lab.AtGreeting, openRelay))
		o := w.one(t, direct)
		require.Equal(t, deliver.TempFail, o.Result, "%v", o)
		require.Equal(t, openRelay, o.Reply.Wire())
		require.True(t, o.Reason.Blocked())
		require.Contains(t, w.log.String(), `"reason":"`+string(o.Reason.Class())+`"`)
	})
}

func TestChainsOfHops(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("isp.test", "a A 192.0.2.50\nb A 192.0.2.51"))
		w.Server("mx.aol.test", lab.Refuse(lab.AtRcpt, "451 4.3.0 later"))
		w.Server("a.isp.test", lab.Drop(lab.AtConnect))
		b := w.Server("b.isp.test")
		o := w.one(t, by(t, "direct, on unreachable reject \"550 no\""))
		require.Equal(t, deliver.TempFail, o.Result)
		o = w.one(t, by(t, "direct, on tempfail smtp://gone.isp.test, on unreachable smtp://a.isp.test, "+
			"on unreachable smtp://b.isp.test"))
		require.Equal(t, deliver.Delivered, o.Result, "%v", o)
		require.False(t, o.RouteTrouble)
		require.Len(t, b.Mailbox(), 1)
		var hosts []string
		for _, try := range o.Tried {
			hosts = append(hosts, try.Host+" "+try.Hop.Host+" "+string(try.Stage))
		}
		require.Equal(t, []string{"mx.aol.test  rcpt", "gone.isp.test gone.isp.test route", "a.isp.test a.isp.test connect"}, hosts)
	})
}

func TestHopsThatLeadNowhere(t *testing.T) {
	for hops, tt := range map[string]struct {
		result deliver.Result
		status string
		reply  string
	}{
		`reject "550 5.1.2 It has moved"`: {deliver.PermFail, "5.1.2", "550 5.1.2 It has moved"},
		`reject "550 go away"`:            {deliver.PermFail, "5.0.0", "550 go away"},
		"hold":                            {deliver.Held, "2.0.0", ""},
		"discard":                         {deliver.Discarded, "2.0.0", ""},
		"direct, on any hold":             {deliver.Held, "2.0.0", ""},
		`direct, on any reject "521"`:     {deliver.PermFail, "5.3.2", "521"},
	} {
		t.Run(hops, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				o := w.one(t, by(t, hops)) // nobody listens
				require.Equal(t, tt.result, o.Result, "%v", o)
				require.Equal(t, tt.status, o.Status.String())
				require.Equal(t, tt.reply, o.Reply.String())
				require.Empty(t, o.Host)
				require.Empty(t, o.Reason.Classes, "our own words need no reason")
			})
		})
	}
}

func TestRoutesMadeByHand(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		o := w.one(t, route.Route{})
		require.Equal(t, deliver.TempFail, o.Result)
		require.True(t, o.RouteTrouble)
		o = w.one(t, route.Route{Hops: []route.Hop{{Kind: route.Reject, Reply: "nonsense"}}})
		require.Equal(t, deliver.PermFail, o.Result)
		o = w.one(t, route.Route{Hops: []route.Hop{{Kind: route.Reject, Reply: "450 4.7.1 not yet"}}})
		require.Equal(t, deliver.TempFail, o.Result)
		o = w.one(t, route.Route{Hops: []route.Hop{{}, {Kind: route.Hold}}})
		require.Equal(t, deliver.Held, o.Result, "a later hop without a condition is for any failure")
		require.Empty(t, w.d.Deliver(t.Context(), direct, letter()), "nobody, nothing")
	})
}

// Recipients of several domains in one message are attempts of their own.
func TestRecipientsOfSeveralDomains(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("yahoo.test", "@ MX 10 mx\nmx A 192.0.2.20"))
		aol, yahoo := w.Server("mx.aol.test", lab.Refuse(lab.AtGreeting, "421 4.3.2 no")), w.Server("mx.yahoo.test")
		outcomes := w.all(t, direct, letter("a@aol.test", "b@yahoo.test", "c@AOL.test", "d@nowhere.test", "e@yahoo.test"))
		var got []string
		for _, o := range outcomes {
			got = append(got, o.Result.String()+" "+o.Host)
		}
		require.Equal(t, []string{
			"tempfail mx.aol.test", "delivered mx.yahoo.test", "tempfail mx.aol.test", "permfail ", "delivered mx.yahoo.test",
		}, got)
		require.Equal(t, 1, opened(aol))
		require.Len(t, yahoo.Mailbox(), 1)
	})
}
