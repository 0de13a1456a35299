package main_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/relaycheck"
)

// The summary says who refuses us, in their words, and that the policy is not the reason.
func TestSummary(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.host("aol.test", lab.Refuse(lab.AtMail, "554 5.7.1 The IP address is either open to the free relaying of e-mail, is serving as an open proxy, or is a dynamic address"))
	r := start(t, w.flags("-console", "127.0.0.1:0")...)
	code, text := r.get("/summary")
	assert.Equal(t, 200, code)
	assert.NotContains(t, text, "open proxy")

	r.hello().send(letter("refused"), "a@src.test", "b@aol.test")
	require.Eventually(t, func() bool {
		_, text = r.get("/summary")
		return strings.Contains(text, "serving as an open proxy")
	}, patience, 10*time.Millisecond)
	assert.Contains(t, text, "aol.test")

	code, text = r.get("/summary.json")
	assert.Equal(t, 200, code)
	var s relaycheck.Summary
	require.NoError(t, json.Unmarshal([]byte(text), &s))
	assert.Equal(t, "relay.test", s.Host)
	ids := map[string]relaycheck.Severity{}
	for _, f := range s.Findings {
		ids[f.ID] = f.Severity
	}
	assert.Equal(t, relaycheck.OK, ids["policy/closed"])
	assert.Len(t, ids, 2)
}

// A policy that would let strangers relay is told at the start, also where the listening address still keeps them out.
func TestOpenPolicyIsTold(t *testing.T) {
	t.Parallel()
	r := start(t, "-relay-from", "0.0.0.0/0")
	r.waitLog(func(l map[string]any) bool { return l["level"] == "WARN" && l["finding"] == "policy/everyone" })
}
