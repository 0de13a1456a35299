package route

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// A Reloader is the table of a file that may change while it is in use. A new file that is broken is reported, and the
// table in force stays. It is safe for concurrent use. Make one with [NewReloader].
type Reloader struct {
	// Interval is how often Run looks at the file; 0 is one second. A new file is read when two looks have seen it alike,
	// so that one that is being written is not read half.
	Interval time.Duration
	// OnChange is called after each change of the table, from the goroutine of Run or the caller of Reload. nil is no call.
	OnChange func(*Table)
	// Logger is told of changes and of broken files; nil is slog.Default.
	Logger *slog.Logger

	file  string
	mx    MXLookup
	table atomic.Pointer[Table]

	mu     sync.Mutex  // held while the file is looked at and read
	seen   fs.FileInfo // guarded by mu: the file that was read last
	last   fs.FileInfo // guarded by mu: the file at the last look
	again  time.Time   // guarded by mu: when a broken file is read again although it has not changed; zero for one that is not
	broken error       // guarded by mu: what is wrong with the file that was read last
	lost   error       // guarded by mu: why the last look found no file
}

// retryBroken is how long a broken file is left alone: what is wrong may be a secret that is not there yet.
const retryBroken = time.Minute

// same reports whether a file is still the same and as it was.
func same(a, b fs.FileInfo) bool {
	return a != nil && b != nil && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size() && os.SameFile(a, b)
}

// NewReloader reads a routing file for the first time. mx is for mx: patterns and may be nil where there are none.
func NewReloader(file string, mx MXLookup) (*Reloader, error) {
	r := &Reloader{file: file, mx: mx}
	if _, err := r.load(true); err != nil {
		return nil, err
	}
	return r, nil
}

// Table is the table in force.
func (r *Reloader) Table() *Table { return r.table.Load() }

// Route implements [Router] by the table in force.
func (r *Reloader) Route(ctx context.Context, q Query) (Route, error) {
	return r.table.Load().Route(ctx, q)
}

// Err is why the table in force is not that of the newest file: all mistakes in it, or that it cannot be read. nil is all
// well.
func (r *Reloader) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lost != nil {
		return r.lost
	}
	return r.broken
}

// Reload reads the file now, changed or not: what a host calls on SIGHUP, also after a secret changed. Where the file is
// broken it returns all mistakes, and the table in force stays.
func (r *Reloader) Reload() error {
	_, err := r.load(true)
	if err == nil {
		r.tell()
	}
	return err
}

func (r *Reloader) tell() {
	t := r.Table()
	r.logger().Info("routes are in force", "file", r.file, "entries", t.Len())
	if r.OnChange != nil {
		r.OnChange(t)
	}
}

func (r *Reloader) logger() *slog.Logger {
	if r.Logger != nil {
		return r.Logger
	}
	return slog.Default()
}

// load reads the file where it has changed and is at rest, or in any case. A file is looked at before it is read: a
// change meanwhile is seen the next time.
func (r *Reloader) load(always bool) (changed bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	info, err := os.Stat(r.file)
	if r.lost = nil; err != nil {
		r.lost = fmt.Errorf("route: %w", err)
		return false, r.lost
	}
	rests, due := same(info, r.last), !r.again.IsZero() && !time.Now().Before(r.again)
	r.last = info
	if !always && (!rests || same(info, r.seen) && !due) {
		return false, nil
	}
	r.seen, r.again = info, time.Now().Add(retryBroken)
	t, err := ReadFile(r.file)
	if r.broken = err; err != nil {
		return false, err
	}
	r.again = time.Time{}
	t.MX = r.mx
	r.table.Store(t)
	return true, nil
}

// Run looks at the file again and again until ctx is done.
func (r *Reloader) Run(ctx context.Context) {
	interval := r.Interval
	if interval <= 0 {
		interval = time.Second
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	said, missing := "", false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		changed, err := r.load(false)
		switch {
		case err != nil && err.Error() != said:
			said = err.Error()
			r.logger().Error("the new routes are broken, the old ones stay in force", "file", r.file, "error", err)
		case changed:
			said = ""
			r.tell()
		case err == nil && missing:
			said = "" // it is back
		}
		missing = errors.Is(err, fs.ErrNotExist)
	}
}
