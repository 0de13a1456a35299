package deliver_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/route"
)

// told is an explanation as text.
func told(x deliver.Explanation) string {
	var b strings.Builder
	for _, h := range x.Hosts {
		fmt.Fprintf(&b, "%s:%d", h.Name, h.Port)
		if h.MX {
			fmt.Fprintf(&b, " MX %d", h.Preference)
		}
		if h.Secure {
			b.WriteString(" secure")
		}
		if len(h.Aliases) > 0 {
			fmt.Fprintf(&b, " alias of %v", h.Aliases)
		}
		fmt.Fprintf(&b, " %v", h.Addrs)
		for _, r := range h.Refused {
			fmt.Fprintf(&b, " not %v: %s", r.Addr, r.Why)
		}
		if h.Err != nil {
			b.WriteString(" - " + h.Err.Error())
		}
		b.WriteString("\n")
	}
	return b.String()
}

// What an explanation says is what an attempt does: where no host would be tried, both end with the same status.
func TestExplain(t *testing.T) {
	for name, tt := range map[string]struct {
		zone  string // of aol.test
		limit deliver.Limits
		fail  string // what DNS does not answer: "name type"
		self  string
		want  []string // a line for each host, or its beginning
		err   string   // status and words; "" where a host would be tried
	}{
		"two hosts": {
			zone: twoHosts,
			want: []string{"mx.aol.test:25 MX 10 [192.0.2.10]", "second.aol.test:25 MX 20 [192.0.2.20]"},
		},
		"the domain itself": {zone: "@ A 192.0.2.1", want: []string{"aol.test:25 [192.0.2.1]"}},
		"an alias": {
			zone: "@ MX 10 mx\nmx CNAME real\nreal A 192.0.2.10",
			want: []string{"mx.aol.test:25 MX 10 alias of [real.aol.test] [192.0.2.10]"},
		},
		"families in turn": {
			zone: "@ MX 10 mx\nmx A 192.0.2.1\nmx A 192.0.2.2\nmx AAAA 2001:db8::1",
			want: []string{"mx.aol.test:25 MX 10 [2001:db8::1 192.0.2.1 192.0.2.2]"},
		},
		"private addresses": {
			zone: "@ MX 10 mx\n@ MX 20 in\nmx A 192.0.2.1\nmx A 10.0.0.1\nin A 127.0.0.1",
			want: []string{
				"mx.aol.test:25 MX 10 [192.0.2.1] not 10.0.0.1: it leads nowhere on the internet",
				"in.aol.test:25 MX 20 [] not 127.0.0.1: it leads nowhere on the internet - deliver: in.aol.test: route: 5.4.4",
			},
		},
		"private addresses alone": {
			zone: "@ MX 10 in\nin A 127.0.0.1", want: []string{"in.aol.test:25 MX 10 [] not 127.0.0.1"}, err: "5.4.4 the host in.aol.test has only",
		},
		"names that are none": {
			zone: "@ MX 5 192.0.2.9.\n@ MX 7 .\n@ MX 10 mx\nmx A 192.0.2.10",
			want: []string{
				"192.0.2.9:25 MX 5 [] - deliver: route: 5.4.4 the MX records of aol.test name no host: 192.0.2.9 is an address",
				":25 MX 7 [] - deliver: route: 5.4.4 the MX records of aol.test name no host", "mx.aol.test:25 MX 10 [192.0.2.10]",
			},
		},
		"no such host":   {zone: "@ MX 10 gone", want: []string{"gone.aol.test:25 MX 10 [] - "}, err: "5.4.4 the host gone.aol.test does not exist"},
		"null MX":        {zone: "@ MX 0 .", err: "5.1.10 aol.test accepts no mail"},
		"no MX from DNS": {zone: aol, fail: "aol.test MX", err: "4.4.3 the MX records of aol.test could not be looked up"},
		"no address from DNS, and one that is missing": {
			zone: "@ MX 10 mx\n@ MX 20 gone\nmx A 192.0.2.1", fail: "mx.aol.test A",
			want: []string{"mx.aol.test:25 MX 10 [] - ", "gone.aol.test:25 MX 20 [] - "}, err: "4.4.4 the host gone.aol.test does not exist",
		},
		"our name": {
			zone: "@ MX 10 mx\n@ MX 20 mail.example.org.\n@ MX 30 last\nmx A 192.0.2.10",
			want: []string{
				"mx.aol.test:25 MX 10 [192.0.2.10]", "mail.example.org:25 MX 20 [] - deliver: route: 5.4.6 mail for aol.test loops",
				"last.aol.test:25 MX 30 [] - deliver: route: 5.4.6",
			},
		},
		"our name alone": {zone: "@ MX 20 mail.example.org.", want: []string{"mail.example.org:25 MX 20 [] - "}, err: "5.4.6 mail for aol.test loops"},
		"our address": {
			zone: "@ MX 10 mx\n@ MX 20 self\nmx A 192.0.2.10\nself A 192.0.2.77", self: "192.0.2.77",
			want: []string{"mx.aol.test:25 MX 10 [192.0.2.10]", "self.aol.test:25 MX 20 [] - deliver: route: 5.4.6 mail would loop"},
		},
		"our address first": {
			zone: "@ MX 10 self\n@ MX 20 mx\nmx A 192.0.2.10\nself A 192.0.2.77", self: "192.0.2.77",
			want: []string{"self.aol.test:25 MX 10 [] - deliver: route: 5.4.6", "mx.aol.test:25 MX 20 [] - deliver: route: 5.4.6"}, err: "5.4.6 mail would loop",
		},
		"our address behind a name that is none": {
			zone: "@ MX 10 192.0.2.9.\n@ MX 10 self\nself A 192.0.2.77", self: "192.0.2.77",
			want: []string{"", ""}, err: "5.4.6 mail would loop",
		},
		"more hosts than are tried": {
			zone: twoHosts, limit: deliver.Limits{Hosts: 1},
			want: []string{"mx.aol.test:25 MX 10 [192.0.2.10]", "second.aol.test:25 MX 20 [] - deliver: route: 4.4.1 an attempt tries 1 hosts"},
		},
		"more addresses than are tried": {
			zone: "@ MX 10 mx\n@ MX 20 second\nmx A 192.0.2.1\nmx A 192.0.2.2\nmx A 192.0.2.3\nsecond A 192.0.2.20", limit: deliver.Limits{Addresses: 4},
			want: []string{"mx.aol.test:25 MX 10 [192.0.2.1 192.0.2.2] not 192.0.2.3: an attempt tries 4 addresses", "second.aol.test:25 MX 20 [192.0.2.20]"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				require.NoError(t, w.Zone("aol.test", tt.zone))
				w.d.Limits = tt.limit
				if tt.self != "" {
					w.d.Self = []netip.Addr{netip.MustParseAddr(tt.self)}
				}
				if host, qtype, ok := strings.Cut(tt.fail, " "); ok {
					w.FailDNS(host, qtype, lab.DNSServFail)
				}
				server := w.Server("mx.aol.test")
				x := w.d.Explain(context.Background(), direct.Hops[0], "AOL.test")
				assert.Equal(t, "aol.test", x.Domain)
				lines := strings.SplitAfter(told(x), "\n")
				require.Len(t, lines, len(tt.want)+1, "%s", told(x))
				for i, want := range tt.want {
					assert.True(t, strings.HasPrefix(lines[i], want), "%q\n%q", lines[i], want)
				}
				total, _ := server.Connections()
				require.Zero(t, total, "nobody was connected to")
				if tt.err == "" {
					require.Nil(t, x.Err)
					return
				}
				status, words, _ := strings.Cut(tt.err, " ")
				require.NotNil(t, x.Err)
				assert.Equal(t, status, string(x.Err.Status))
				assert.Contains(t, x.Err.Error(), words)
				o := w.one(t, direct)
				assert.Equal(t, x.Err.Status, o.Status, "the attempt says the same: %v", o)
				assert.Equal(t, x.Err.Temporary, o.Result == deliver.TempFail)
			})
		})
	}
}

func TestExplainOtherHops(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("isp.test", "@ MX 10 mx\nmx A 10.0.0.1\nmail A 10.0.0.2"))
		for hop, want := range map[string]string{
			"smtp://mail.isp.test":               "mail.isp.test:25 [10.0.0.2]\n", // whoever wrote the route may have a private network
			"smtps://192.0.2.5":                  "192.0.2.5:465 [192.0.2.5]\n",
			"submission://isp.test mx=yes":       "mx.isp.test:587 MX 10 [10.0.0.1]\n",
			"lmtp://unix:/run/lmtp":              "/run/lmtp:0 []\n",
			"smtp://gone.isp.test":               "gone.isp.test:25 [] - deliver: gone.isp.test: route: 4.4.4 the host gone.isp.test does not exist\n",
			"smtp://mail.isp.test source=::1":    "mail.isp.test:25 [] not 10.0.0.2: the route has no source address of its family - deliver: mail.isp.test: route: 4.4.4 the host mail.isp.test has no address that source=::1 can connect to: leave the option out, or write an address of the other family too\n",
			`reject "550 5.7.1 Not from here"`:   "",
			"hold":                               "",
			"smtp://mail.isp.test:2525 tls=none": "mail.isp.test:2525 [10.0.0.2]\n",
		} {
			table, err := route.Parse("routes", strings.NewReader("* "+hop))
			require.NoError(t, err)
			r, err := table.Route(t.Context(), route.Query{Recipient: "you@aol.test"})
			require.NoError(t, err)
			assert.Equal(t, want, told(w.d.Explain(t.Context(), r.Hops[0], "aol.test")), hop)
		}
		x := w.d.Explain(t.Context(), direct.Hops[0], "[192.0.2.99]")
		assert.Equal(t, "[192.0.2.99]:25 [192.0.2.99]\n", told(x))
	})
}

func TestExplainTellsWhatDNSSECVouchesFor(t *testing.T) {
	w := sockets(t) // a server on loopback is trusted
	require.NoError(t, w.Zone("aol.test", "@ MX 10 mx\n@ MX 20 mx.isp.test.\nmx A 192.0.2.10"))
	require.NoError(t, w.Zone("isp.test", "mx A 192.0.2.20"))
	require.NoError(t, w.Secure("aol.test", true))
	x := w.d.Explain(t.Context(), direct.Hops[0], "aol.test")
	assert.True(t, x.Secure)
	assert.Equal(t, "mx.aol.test:25 MX 10 secure [192.0.2.10]\nmx.isp.test:25 MX 20 [192.0.2.20]\n", told(x))
}
