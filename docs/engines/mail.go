package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"

	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/queue"
)

// lanes is how many domains mail is for.
const lanes = 50

// envelopeMark is what an envelope is found by in a file.
const envelopeMark = "engines-"

// envelope is that of the message with a number: 300 octets as JSON.
func envelope(seq uint64) queue.Envelope {
	to := fmt.Sprintf("some.body.%d@recipients-%d.example", seq, seq%lanes)
	return queue.Envelope{
		From:       fmt.Sprintf("newsletter+bounce-%d@sender-%d.example", seq, seq%7),
		To:         []queue.Recipient{{Address: to, Original: dsn.Address{Type: "rfc822", Addr: to}}},
		EnvelopeID: fmt.Sprintf(envelopeMark+"%d-%s", seq, strings.Repeat("e", 40)),
		Return:     "HDRS",
	}
}

// seqOf is the number of the message with an envelope, or 0.
func seqOf(env queue.Envelope) uint64 {
	parts := strings.Split(env.EnvelopeID, "-")
	if len(parts) != 3 {
		return 0
	}
	seq, _ := strconv.ParseUint(parts[1], 10, 64)
	return seq
}

// record is what is kept of an end: 200 octets.
var record = []byte(strings.Repeat("250 2.0.0 queued as 4XyZ ", 8))

// metaOf is the envelope as a store gets it.
func metaOf(seq uint64) []byte {
	meta, err := json.Marshal(envelope(seq))
	if err != nil {
		panic(err) // it is our own
	}
	return meta
}

// noise is text that hardly compresses, as most of today's mail by weight: base64 in lines.
var noise = sync.OnceValue(func() []byte {
	raw := make([]byte, 57)
	r := rand.NewChaCha8([32]byte{1})
	var b strings.Builder
	for b.Len() < 8<<20 {
		r.Read(raw)
		b.WriteString(base64.StdEncoding.EncodeToString(raw))
		b.WriteString("\r\n")
	}
	return []byte(b.String())
})

// bodyOf is the body of a message: each has another, and the same one at every call. It is shared: not to be changed.
func bodyOf(seq uint64, size int) []byte {
	n := noise()
	start := int(seq * 4099 % uint64(len(n)-size))
	return n[start : start+size]
}

func newMail(seq uint64, size int) mail {
	return mail{seq: seq, meta: metaOf(seq), body: bodyOf(seq, size)}
}
