package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/queue"
)

func TestTakeParameters(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"MAIL FROM:<a@b.test> BY=1;R\r\n":                         "MAIL FROM:<a@b.test>\r\n",
		"MAIL FROM:<a@b.test>  SIZE=5  by=1;R \t BODY=7BIT\r\n":   "MAIL FROM:<a@b.test> SIZE=5 BODY=7BIT\r\n",
		"MAIL FROM:<a@b.test> SIZE=5\r\n":                         "MAIL FROM:<a@b.test> SIZE=5\r\n",
		"MAIL FROM:<@x.test:a@b.test> BY=1;R\n":                   "MAIL FROM:<@x.test:a@b.test>\r\n",
		"MAIL FROM:a@b.test MT-PRIORITY=3\r\n":                    "MAIL FROM:a@b.test\r\n",
		"MAIL FROM:<\"x> BY=1;R\"@b.test> BODY=7BIT\r\n":          "MAIL FROM:<\"x> BY=1;R\"@b.test> BODY=7BIT\r\n",
		"MAIL FROM:<\"x> BY=1;R\"@b.test> BODY=7BIT BY=2;R\r\n":   "MAIL FROM:<\"x> BY=1;R\"@b.test> BODY=7BIT\r\n",
		"MAIL FROM:<a@b.test> XBY=1 BYE=2 AUTH=BY=1;R\r\n":        "MAIL FROM:<a@b.test> XBY=1 BYE=2 AUTH=BY=1;R\r\n",
		"MAIL FROM:<\"never closed BY=1;R\r\n":                    "MAIL FROM:<\"never closed BY=1;R\r\n",
		"MAIL FROM\r\n":                                           "MAIL FROM\r\n",
		"MAIL FROM:<> BY=1;R MT-PRIORITY=1 BY=2;R ENVID=BY=3\r\n": "MAIL FROM:<> ENVID=BY=3\r\n",
	} {
		got, _ := takeParameters([]byte(line))
		assert.Equal(t, want, string(got), line)
	}
}

// go-smtp sees no parameter that is not its own and all that are, the command does not grow, and what is read makes an
// envelope that a queue takes.
func FuzzParameters(f *testing.F) {
	for _, seed := range []string{
		"MAIL FROM:<a@b.test> BY=1;R\r\n", "MAIL FROM:<a@b.test>BY=-1;NT MT-PRIORITY=-9 SIZE=3\r\n", "MAIL FROM:\"a\\\n", "MAIL :@:BY\n", "MAIL FROM:<a> BY \n", "MAIL FROM:<a>\xa0BY=1;R\n",
	} {
		f.Add(seed)
	}
	now := time.Now()
	f.Fuzz(func(t *testing.T, line string) {
		line = strings.ReplaceAll(line, "\n", "") + "\n"
		rest, taken := takeParameters([]byte(line))
		require.LessOrEqual(t, len(rest), len(line))
		require.True(t, strings.HasSuffix(string(rest), "\n"))
		if taken == nil {
			require.Equal(t, line, string(rest))
		}
		before, _ := pathIn([]byte(line))
		after, _ := pathIn(rest)
		require.Equal(t, before, after)
		again, more := takeParameters(rest)
		require.Empty(t, more)
		require.Equal(t, rest, again)
		env := queue.Envelope{From: "a@b.test", To: queue.To("c@d.test")}
		if readParameters(&env, taken, now) == nil {
			require.NoError(t, env.Validate())
			by := env.DeliverBy
			require.True(t, by.Notify || by.Time.IsZero() || by.Time.After(now))
		}
	})
}
