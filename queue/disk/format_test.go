package disk

import (
	"log/slog"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/queue"
)

// testdata/format1 was written by the version that knew no newer format: mail that was tried with its report, mail that is held,
// and mail that was deleted. Nothing of it is lost, and the old version does not open what this one writes.
func TestOlderFormat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		require.NoError(t, os.CopyFS(dir, os.DirFS("testdata/format1")))
		require.NoError(t, os.Mkdir(dir+"/large", 0o700))
		written := time.Date(2026, 11, 25, 0, 49, 21, 0, time.UTC)
		time.Sleep(time.Until(written.Add(10 * time.Minute)))
		opts := Options{MinFree: -1, Logger: slog.New(slog.NewTextHandler(testWriter{t}, nil))}
		for range 2 { // as it was written, and as this version has gone on with it
			q, err := opts.Open(dir)
			require.NoError(t, err)
			compareOlder(t, q, written)
			require.NoError(t, q.Close())
			text, err := os.ReadFile(dir + "/format")
			require.NoError(t, err)
			assert.Equal(t, "sortie disk queue, format 3\n0aebd1e471733aab\n", string(text))
			assert.NoDirExists(t, dir+"/"+damagedFolder)
		}
	})
}

// testdata/format2 was written by the version that knew no notes, with mail that asks for all that its envelopes could.
func TestFormat2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		require.NoError(t, os.CopyFS(dir, os.DirFS("testdata/format2")))
		require.NoError(t, os.Mkdir(dir+"/large", 0o700))
		written := time.Date(2026, 11, 25, 3, 47, 40, 0, time.UTC)
		time.Sleep(time.Until(written.Add(10 * time.Minute)))
		opts := Options{MinFree: -1, Logger: slog.New(slog.NewTextHandler(testWriter{t}, nil))}
		for i := range 2 {
			q, err := opts.Open(dir)
			require.NoError(t, err)
			entries, _, err := q.List(t.Context(), queue.Filter{}, "", 0)
			require.NoError(t, err)
			require.Len(t, entries, 3)
			tried, held := entries[0], entries[1]
			assert.Equal(t, []queue.Recipient{{Address: "tried@a.test"}}, tried.To)
			assert.WithinDuration(t, written.Add(time.Hour), tried.Due, time.Second)
			assert.Equal(t, 1, tried.Last.Freed)
			assert.Equal(t, "look at it", held.Why)
			d, err := q.Show(t.Context(), tried.ID)
			require.NoError(t, err)
			by := deliver.DeliverBy{Time: d.Envelope.DeliverBy.Time, Notify: true, Trace: true}
			assert.WithinDuration(t, time.Date(2026, 12, 24, 12, 0, 0, 0, time.UTC), by.Time, time.Second)
			assert.Equal(t, queue.Envelope{
				From: "me@src.test", EnvelopeID: "envelope 2", Return: dsn.ReturnHeaders, UTF8: true, Binary: true, RequireTLS: true, Priority: 3,
				DeliverBy: by, To: d.Envelope.To,
			}, d.Envelope)
			_, ok, err := q.Lookup(t.Context(), "a", "x")
			require.NoError(t, err)
			assert.Equal(t, i > 0, ok)
			require.NoError(t, q.Note(t.Context(), queue.Note{Kind: "a", Key: "x", Value: "new"}))
			require.NoError(t, q.Close())
			text, err := os.ReadFile(dir + "/format")
			require.NoError(t, err)
			assert.Equal(t, "sortie disk queue, format 3\nd8ea58e6930d62d1\n", string(text))
			assert.NoDirExists(t, dir+"/"+damagedFolder)
		}
	})
}

func compareOlder(t *testing.T, q *Queue, written time.Time) {
	entries, _, err := q.List(t.Context(), queue.Filter{}, "", 0)
	require.NoError(t, err)
	require.Len(t, entries, 3)
	tried, report, held := entries[0], entries[1], entries[2]
	assert.Equal(t, []queue.Recipient{{
		Address: "tried@a.test", Notify: dsn.NotifyDelay | dsn.NotifyFailure, Original: dsn.Address{Type: "rfc822", Addr: "old@a.test"},
	}}, tried.To)
	assert.WithinDuration(t, written.Add(time.Hour), tried.Due, time.Second)
	assert.Equal(t, 1, tried.Attempts)
	assert.Equal(t, deliver.TempFail, tried.Last.Results[0].Result)
	assert.Equal(t, dsn.Reply{Code: 450, Lines: []string{"4.2.0 Not now"}}, tried.Last.Results[0].Reply)
	assert.Equal(t, "me@src.test", report.To[0].Address)
	assert.Equal(t, queue.Held, held.State)
	assert.Equal(t, "look at it", held.Why)
	d, err := q.Show(t.Context(), tried.ID)
	require.NoError(t, err)
	assert.Equal(t, queue.Envelope{
		From: "me@src.test", EnvelopeID: "envelope 1", Return: dsn.ReturnHeaders, UTF8: true, To: d.Envelope.To,
	}, d.Envelope, "what the old format does not know is not asked for")
	assert.Equal(t, 1, d.Hops)
}

// testWriter fails a test that logs: nothing is wrong with an older format.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Errorf("the log says: %s", p)
	return len(p), nil
}
