package deliver_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
)

func TestAMessageArrives(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		mx := w.Server("mx.aol.test")
		o := w.one(t, direct)
		require.Equal(t, deliver.Delivered, o.Result, "%v", o)
		mail := mx.Mailbox()
		require.Len(t, mail, 1)
		require.Equal(t, "me@example.org", mail[0].From)
		require.Equal(t, []string{"you@aol.test"}, mail[0].Addresses())
		require.Equal(t, hello, string(mail[0].Body))
	})
}
