package resolve_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/resolve"
)

// FuzzAnswer gives arbitrary octets as the answer to a question. Whatever they are, nothing panics, nothing hangs, and a name is denied
// only by octets that deny it.
func FuzzAnswer(f *testing.F) {
	for _, seed := range answerSeeds(f) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := alone(func(_ string, query *dns.Msg) []byte {
			raw := append([]byte{}, data...) // never nil, which would be silence
			if len(raw) >= 2 {
				raw[0], raw[1] = byte(query.Id>>8), byte(query.Id)
			}
			return raw[:min(len(raw), dns.MaxMsgSize)]
		})
		r.Attempts, r.Timeout = 1, 5*time.Second
		answer, err := r.Lookup(context.Background(), "two.example", dns.TypeMX)
		assert.LessOrEqual(t, len(answer.Records), resolve.MaxRecords)
		assert.LessOrEqual(t, len(answer.Aliases), resolve.MaxAliases)
		for _, mx := range answer.MX() {
			assert.Equal(t, strings.ToLower(mx.Host), mx.Host)
		}
		if err != nil {
			checkFuzzError(t, err, data)
		}
	})
}

func checkFuzzError(t *testing.T, err error, data []byte) {
	var failure *resolve.Error
	require.ErrorAs(t, err, &failure)
	assert.NotEmpty(t, err.Error())
	if failure.Temporary() {
		return
	}
	require.True(t, failure.NotFound, err)
	require.GreaterOrEqual(t, len(data), 12)
	assert.NotZero(t, data[2]&0x80, "a response")
	assert.Zero(t, data[2]&0x02, "not truncated")
	assert.EqualValues(t, dns.RcodeNameError, data[3]&0x0f)
	assert.Contains(t, strings.ToLower(string(data)), "two", "the question")
}

// answerSeeds are answers of all kinds, good and bad.
func answerSeeds(f *testing.F) [][]byte {
	query := new(dns.Msg).SetQuestion("two.example.", dns.TypeMX)
	seeds := [][]byte{nil, []byte("x"), []byte(strings.Repeat("\xff", 40)), []byte(strings.Repeat("\x00", 12))}
	for _, broken := range brokenServers(f) {
		for _, network := range []string{"udp", "tcp"} {
			seeds = append(seeds, broken.answer(network, query.Copy()))
		}
	}
	for _, lines := range [][]string{exampleZone, {"two.example. 1 IN CNAME null.example.", "null.example. 1 IN MX 0 ."}, {"x.example. 1 IN A 192.0.2.1"}} {
		seeds = append(seeds, zone(f, lines...)("tcp", query.Copy()))
	}
	return append(seeds, rcode(f, dns.RcodeNameError)("udp", query.Copy()))
}

// FuzzName looks up arbitrary names. What is asked for is a valid name in the one form in which names compare; all else is ErrBadName.
func FuzzName(f *testing.F) {
	for _, seed := range []string{"example.org", "Example.ORG.", "bücher.example", "xn--bcher-kva", "_dmarc.ü", ".", "..", "a\x00b", "\xff", "ß。ﬀ．Ⅷ", "localhost", "1.2.3.4", "::1", "[::1]"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		var question string
		_, err := alone(func(network string, query *dns.Msg) []byte {
			question = asked(query)
			return rcode(t, dns.RcodeNameError)(network, query)
		}).LookupMX(context.Background(), name)
		if err == nil {
			assert.True(t, strings.HasSuffix(strings.ToLower(strings.TrimSuffix(name, ".")), "localhost"), "%q", name)
			return
		}
		if errors.Is(err, resolve.ErrBadName) {
			assert.Empty(t, question)
			return
		}
		_, ok := dns.IsDomainName(question)
		assert.True(t, ok, "%q", question)
		assert.LessOrEqual(t, len(question), 254)
		assert.NotContains(t, question, `\`)
		var failure *resolve.Error
		require.ErrorAs(t, err, &failure)
		assert.Equal(t, strings.TrimSuffix(question, "."), failure.Name, "what was asked for, in lower case")
	})
}
