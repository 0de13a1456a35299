package reason_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/dsn/reason"
)

func BenchmarkClassify(b *testing.B) {
	more, err := reason.Parse("more", syntheticRules(1000))
	require.NoError(b, err)
	long := dsn.Reply{Code: 550}
	for range 100 {
		long.Lines = append(long.Lines, "your ip the mailbox of the sender was not blocked by a list or user that is unknown")
	}
	inputs := []struct {
		name  string
		input reason.Input
	}{
		{"Postfix", input("550 5.1.1 <nobody@example.com>: Recipient address rejected: User unknown in virtual mailbox table")},
		{"Spamhaus", input("554 5.7.1 Service unavailable; Client host [192.0.2.25] blocked using zen.spamhaus.org; " +
			"https://www.spamhaus.org/query/ip/192.0.2.25")},
		{"Gmail", input("550-5.7.1 [192.0.2.1      18] Our system has detected that this message is\n" +
			"550-5.7.1 likely suspicious due to the very low reputation of the sending IP\n" +
			"550-5.7.1 address. To best protect our users from spam, the message has been\n" +
			"550 5.7.1 blocked. Please visit https://support.google.com/mail/answer/188131")},
		{"Code", input("450 4.2.0 Nyet")},
		{"4KiB", reason.Input{Reply: long}},
	}
	for _, in := range inputs {
		for _, rules := range []struct {
			name  string
			rules *reason.Rules
		}{{"embedded", nil}, {"and1000", more}} {
			b.Run(in.name+"/"+rules.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					rules.rules.Classify(in.input)
				}
			})
		}
	}
}

func BenchmarkParse(b *testing.B) {
	text := syntheticRules(1000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := reason.Parse("more", text); err != nil {
			b.Fatal(err)
		}
	}
}

func input(reply string) reason.Input {
	r, err := dsn.ParseReply(reply)
	if err != nil {
		panic(err)
	}
	return reason.Input{Reply: r, Stage: "rcpt", Host: "mx.example.com", Site: "example.com"}
}

// syntheticRules are n rules of words that replies have too.
func syntheticRules(n int) string {
	words := strings.Fields("your ip address host server mailbox user recipient sender message blocked rejected list policy " +
		"rate limit spam content domain unknown service connection refused system error temporary access denied contact " +
		"administrator postmaster")
	random := rand.New(rand.NewPCG(1, 2))
	pick := func() string { return words[random.IntN(len(words))] }
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "policy code=5xx \"%s %s * (%s|%s %s) rule%d\"\n", pick(), pick(), pick(), pick(), pick(), i)
	}
	return b.String()
}
