package queue_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/queue"
)

// A message that can go only where it is protected comes back, and the report arrives even where the sender's own host promises no
// protection: mail of the null sender must not be lost because of it (RFC 8689, section 5).
//
// std: C17
func TestRequireTLSComesBack(t *testing.T) {
	for name, offer := range map[string]struct {
		of     lab.Offer
		status dsn.Status
	}{
		"no TLS":        {lab.Offer{}, "5.7.10"},
		"no REQUIRETLS": {lab.Offer{TLS: lab.TLSOffered}, "5.7.30"},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, func(w *world) { w.trust() }, func(w *world) {
				aol := w.server("aol.test", offer.of)
				w.ask(queue.Envelope{RequireTLS: true})
				w.sleep(6 * 24 * time.Hour)
				assert.Empty(t, aol.Mailbox())
				reports := w.reports(w.home)
				require.NotEmpty(t, reports)
				r := reports[len(reports)-1].Recipients[0]
				assert.Equal(t, dsn.Failed, r.Action)
				assert.Equal(t, offer.status, r.Status)
				assert.True(t, w.empty())
			})
		})
	}
}

// trust makes the Deliverer trust the certificates of the lab.
func (w *world) trust() {
	w.runner.Deliverer.(*deliver.Deliverer).TLS = w.net.CA().ClientConfig()
}
