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

// newReloaded runs a Reloader of a file with that text, with its log.
func newReloaded(t *testing.T, text string) (r *route.Reloader, name string, log *bytes.Buffer) {
	log = &bytes.Buffer{}
	name = filepath.Join(t.TempDir(), "routes")
	require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	r, err := route.NewReloader(name, nil)
	require.NoError(t, err)
	r.Logger = slog.New(slog.NewTextHandler(log, nil))
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { r.Run(ctx) })
	t.Cleanup(func() { cancel(); done.Wait() })
	return r, name, log
}

func wait() {
	time.Sleep(2 * time.Minute)
	synctest.Wait()
}

func hopsOf(t *testing.T, r *route.Reloader) string {
	got, err := r.Route(t.Context(), route.Query{Recipient: "you@aol.com"})
	require.NoError(t, err)
	return got.String()
}

// A file of which only a secret was missing is read when the secret is there.
func TestReloaderWaitsForASecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, name, log := newReloaded(t, "* direct\n")
		secret := filepath.Join(filepath.Dir(name), "secret")
		require.NoError(t, os.WriteFile(name, []byte("* smtp://u@b.example secret=file:"+secret+"\n"), 0o600))
		for range 10 {
			wait()
		}
		assert.Equal(t, "direct", hopsOf(t, r))
		assert.Equal(t, 1, bytes.Count(log.Bytes(), []byte("level=ERROR")), "told once: %s", log)
		require.NoError(t, os.WriteFile(secret, []byte("hunter2"), 0o600))
		wait()
		assert.Contains(t, hopsOf(t, r), "smtp://u@b.example")
		assert.NotContains(t, log.String(), "hunter2")
	})
}

// A file that another took the place of is read, even where both have the same length and time.
func TestReloaderSeesAnotherFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, name, _ := newReloaded(t, "* discard\n")
		info, err := os.Stat(name)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(name+".new", []byte("* direct \n"), 0o600))
		require.NoError(t, os.Chtimes(name+".new", info.ModTime(), info.ModTime()))
		require.NoError(t, os.Rename(name+".new", name))
		wait()
		assert.Equal(t, "direct", hopsOf(t, r))
	})
}

// A file that is still being written is not read half.
func TestReloaderWaitsForTheWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, name, log := newReloaded(t, "* hold\n")
		f, err := os.Create(name)
		require.NoError(t, err)
		for _, c := range "*@aol.com discard # half\n* direct\n" {
			_, err := f.WriteString(string(c))
			require.NoError(t, err)
			require.NoError(t, os.Chtimes(name, time.Time{}, time.Now()))
			time.Sleep(time.Second)
			synctest.Wait()
			require.Equal(t, "hold", hopsOf(t, r))
		}
		require.NoError(t, f.Close())
		wait()
		require.Equal(t, "discard", hopsOf(t, r))
		require.NotContains(t, log.String(), "ERROR")
	})
}

// A file that goes and comes back is told of each time it goes.
func TestReloaderTellsEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, name, log := newReloaded(t, "* hold\n")
		for range 3 {
			require.NoError(t, os.Rename(name, name+".away"))
			wait()
			require.NoError(t, os.Rename(name+".away", name))
			wait()
		}
		assert.Equal(t, 3, bytes.Count(log.Bytes(), []byte("level=ERROR")), "%s", log)
		assert.Equal(t, "hold", hopsOf(t, r))
	})
}

// Lookups and reloads at once always see one table or the other.
func TestReloaderUnderLoad(t *testing.T) {
	name := filepath.Join(t.TempDir(), "routes")
	require.NoError(t, os.WriteFile(name, []byte("* hold\n"), 0o600))
	r, err := route.NewReloader(name, nil)
	require.NoError(t, err)
	r.Logger = slog.New(slog.DiscardHandler)
	var all sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				got, err := r.Route(t.Context(), route.Query{Recipient: "you@aol.com"})
				if assert.NoError(t, err) {
					assert.Contains(t, []string{"hold", "discard"}, got.String())
				}
			}
		})
	}
	for i := range 100 {
		require.NoError(t, os.WriteFile(name, []byte([]string{"* hold\n", "* discard\n"}[i%2]), 0o600))
		require.NoError(t, r.Reload())
	}
	close(stop)
	all.Wait()
}

// The resolver goes with each new table.
func TestReloaderAsksForMX(t *testing.T) {
	name := filepath.Join(t.TempDir(), "routes")
	require.NoError(t, os.WriteFile(name, []byte("mx:*.isp.example hold\n"), 0o600))
	r, err := route.NewReloader(name, mxOf{"aol.com": {"mx.isp.example"}})
	require.NoError(t, err)
	r.Logger = slog.New(slog.DiscardHandler)
	for range 2 {
		assert.Equal(t, "hold", hopsOf(t, r))
		require.NoError(t, r.Reload())
	}
}

func TestReloaderNeedsAFile(t *testing.T) {
	_, err := route.NewReloader(filepath.Join(t.TempDir(), "none"), nil)
	assert.ErrorIs(t, err, os.ErrNotExist)
}

// What is wrong with the newest file can be asked until the table is that of the newest file again.
func TestReloaderErr(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, name, _ := newReloaded(t, "* direct\n")
		require.NoError(t, r.Err())
		require.NoError(t, os.WriteFile(name, []byte("* smtp//broken.example\n"), 0o600))
		wait()
		require.ErrorContains(t, r.Err(), "routes:1:")
		require.NoError(t, os.Rename(name, name+".away"))
		wait()
		require.ErrorIs(t, r.Err(), os.ErrNotExist)
		require.NoError(t, os.Rename(name+".away", name))
		wait()
		require.ErrorContains(t, r.Err(), "routes:1:", "it is back, and as broken as before")
		require.NoError(t, os.WriteFile(name, []byte("* hold\n"), 0o600))
		wait()
		require.NoError(t, r.Err())
		require.NoError(t, os.Remove(name))
		require.Error(t, r.Reload())
		require.ErrorIs(t, r.Err(), os.ErrNotExist)
	})
}
