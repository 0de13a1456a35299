package route_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sortie-mail/sortie/route"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func mustJSON(t testing.TB, v any) string {
	b, err := json.Marshal(v)
	require.NoError(t, err)
	return string(b)
}

func TestReloader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		name := filepath.Join(t.TempDir(), "routes")
		write := func(text string) {
			require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		require.NoError(t, os.WriteFile(name, []byte("*@aol.com direct\n"), 0o600))
		r, err := route.NewReloader(name, nil)
		require.NoError(t, err)
		changes := 0
		r.OnChange = func(*route.Table) { changes++ }
		r.Logger = slog.New(slog.NewTextHandler(&log, nil))
		ctx, cancel := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() { r.Run(ctx) })
		where := func() string {
			got, err := r.Route(t.Context(), route.Query{Recipient: "you@aol.com"})
			require.NoError(t, err)
			return got.String()
		}
		assert.Equal(t, "direct", where())
		write("*@aol.com smtp://mail.isp.example\n")
		assert.Equal(t, "smtp://mail.isp.example", where())
		assert.Equal(t, 1, changes)
		write("*@aol.com smtp//broken.example\n")
		assert.Equal(t, "smtp://mail.isp.example", where(), "the old table stays in force")
		assert.Contains(t, log.String(), "routes:1:11")
		assert.Equal(t, 1, bytes.Count(log.Bytes(), []byte("level=ERROR")), "told once")
		require.Error(t, r.Reload())
		require.NoError(t, os.Remove(name))
		time.Sleep(time.Minute)
		assert.Equal(t, "smtp://mail.isp.example", where())
		write("*@aol.com hold\n")
		assert.Equal(t, "hold", where())
		assert.Equal(t, 2, changes)
		require.NoError(t, r.Reload())
		assert.Equal(t, 3, changes)
		cancel()
		done.Wait()
	})
}

func TestReloaderNeedsAFile(t *testing.T) {
	_, err := route.NewReloader(filepath.Join(t.TempDir(), "none"), nil)
	assert.ErrorIs(t, err, os.ErrNotExist)
}
