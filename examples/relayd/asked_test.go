package main_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/dsn"
)

// offeringInTLS is a server with a good certificate that offers more than most.
func offeringInTLS(more ...string) lab.Behaviour {
	return lab.Offer{TLS: lab.TLSOffered, Capabilities: append(lab.DefaultCapabilities(), more...)}
}

// What a client asks for arrives at a host that offers it, through the door, the queue and the way out; a host that offers none
// of it gets the message without, but for what it cannot go without.
//
// std: C17 C19
func TestWhatIsAskedForArrives(t *testing.T) {
	t.Parallel()
	cert, key, roots := certify(t)
	w := newWorld(t)
	all := w.host("all.test", offeringInTLS("REQUIRETLS", "MT-PRIORITY", "DELIVERBY"))
	few := w.host("few.test", offeringInTLS())
	home := w.host("src.test", offeringInTLS("REQUIRETLS", "MT-PRIORITY"))
	r := start(t, w.flags("-cert", cert, "-key", key, "-ca", writeFile(t, "ca.pem", string(w.CA().PEM())))...)
	c := r.hello()
	c.startTLS(roots)
	c.offers()
	ask := func(mail, to string) {
		t.Helper()
		c.cmd(250, "MAIL FROM:<a@src.test>"+mail)
		c.cmd(250, "RCPT TO:<"+to+">")
		c.cmd(354, "DATA")
		c.cmd(250, letter("asks")+".")
	}

	ask(" REQUIRETLS BY=600;NT MT-PRIORITY=5", "b@all.test")
	m := arrived(t, all, 1)[0]
	assert.NotNil(t, m.TLS)
	assert.True(t, m.RequireTLS)
	assert.Equal(t, 5, m.Priority)
	assert.EqualValues(t, 'N', m.DeliverBy.Mode)
	assert.True(t, m.DeliverBy.Trace)
	assert.Greater(t, m.DeliverBy.Within, 600*time.Second-2*patience)
	assert.LessOrEqual(t, m.DeliverBy.Within, 600*time.Second, "what it took here counts")

	ask(" BY=600;R MT-PRIORITY=-3", "c@all.test")
	m = arrived(t, all, 2)[1]
	assert.False(t, m.RequireTLS)
	assert.Equal(t, -3, m.Priority)
	assert.EqualValues(t, 'R', m.DeliverBy.Mode)
	assert.False(t, m.DeliverBy.Trace)

	ask(" BY=600;N MT-PRIORITY=5", "d@few.test")
	m = arrived(t, few, 1)[0]
	assert.Zero(t, m.Priority)
	assert.Zero(t, m.DeliverBy)

	ask(" REQUIRETLS MT-PRIORITY=2", "e@few.test")
	ask(" BY=600;R", "f@few.test")
	reports := map[string]lab.Message{}
	for _, m := range arrived(t, home, 3) {
		reports[reportFrom(t, m).Recipients[0].Final.Addr] = m
	}
	require.Contains(t, reports, "b@all.test")
	assert.Equal(t, dsn.Relayed, reportFrom(t, reports["b@all.test"]).Recipients[0].Action, "it asked for a trace")
	m = reports["e@few.test"]
	require.Contains(t, reports, "e@few.test")
	assert.Equal(t, dsn.Status("5.7.30"), reportFrom(t, m).Recipients[0].Status)
	assert.NotNil(t, m.TLS)
	assert.True(t, m.RequireTLS, "a report is protected as its message")
	assert.Equal(t, 2, m.Priority)
	assert.NotContains(t, string(m.Body), "Hello.", "and has its header alone (RFC 8689, section 5)")
	m = reports["f@few.test"]
	require.Contains(t, reports, "f@few.test")
	assert.Equal(t, dsn.Status("5.4.7"), reportFrom(t, m).Recipients[0].Status, "nobody there would return it in time (RFC 2852)")
	assert.Len(t, few.Mailbox(), 1)
}
