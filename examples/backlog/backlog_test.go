package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMain lets the test be the child of itself.
func TestMain(m *testing.M) {
	if len(os.Args) > 3 && os.Args[1] == "hold" {
		if err := hold(os.Args[2], 0); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// small measures a small backlog, and gives the table.
func small(t *testing.T, args ...string) (string, error) {
	if _, err := os.Stat("/proc/self/io"); err != nil {
		t.Skip("the system does not tell what a process writes: ", err)
	}
	b, err := parse(append([]string{"-n", "2000", "-lanes", "100", "-idle", "100ms", "-window", "300ms", "-spool", t.TempDir()}, args...))
	require.NoError(t, err)
	var out bytes.Buffer
	b.out = &out
	for part := range strings.SplitSeq(b.parts, ",") {
		err = errors.Join(err, b.measure(t.Context(), part))
	}
	require.NoError(t, err)
	err = b.print()
	t.Log(out.String())
	return out.String(), err
}

func TestParts(t *testing.T) {
	noSpeed := []string{"-ratio", "0", "-ready", "0", "-cpu", "0", "-drain", "0", "-delay", "0"}
	text, err := small(t, noSpeed...)
	require.NoError(t, err, "memory, what is written, fsyncs and room are bounded at any speed")
	assert.Contains(t, text, "for 2001 messages in 100 lanes", "all of it waits")
	assert.Contains(t, text, "for 0 messages in 0 lanes", "all of it was delivered")
	assert.NotContains(t, text, "MISSED")
	assert.GreaterOrEqual(t, strings.Count(text, "ok\n"), 10)
}

func TestMissedBound(t *testing.T) {
	text, err := small(t, "-parts", "cost", "-small", "0.5")
	require.ErrorContains(t, err, "1 bound is missed", "no message is written by half")
	assert.Contains(t, text, "MISSED")
}

// The live mail arrives where nothing hangs, and where no more hang than may be tried at once.
func TestDead(t *testing.T) {
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("the system does not tell the memory of a process: ", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	args := []string{"-hanging", "20", "-live", "50", "-domains", "5", "-rounds", "1", "-latency", "0s", "-spool", t.TempDir()}
	require.NoError(t, deadMain(ctx, append(args, "-ratio", "1000")))
	require.ErrorContains(t, deadMain(ctx, append(args, "-ratio", "0.00001")), "1 bound is missed")
}

func TestCommandLine(t *testing.T) {
	for _, args := range [][]string{{"-parts", "waiting,nothing"}, {"-n", "10"}, {"-lanes", "0"}} {
		_, err := parse(args)
		require.ErrorContains(t, err, args[0])
	}
	b, err := parse([]string{"-quick"})
	require.NoError(t, err)
	assert.Equal(t, 20_000, b.n)
	assert.Zero(t, b.ready)
	assert.Equal(t, int64(256), b.rss, "memory is bounded at any speed")
}

func TestProc(t *testing.T) {
	stat := "12 (a) b) S 1 12 12 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 100 1000 10 18446744073709551615"
	used, err := cpuTime([]byte(stat))
	require.NoError(t, err)
	assert.Equal(t, 3*time.Second, used, "user and system time, whatever the process is named")
	_, err = cpuTime([]byte("12 (a) S 1"))
	require.Error(t, err)
	n, err := field([]byte("VmPeak:\t  99 kB\nVmRSS:\t  42 kB\n"), "VmRSS")
	require.NoError(t, err)
	assert.Equal(t, int64(42), n)
	_, err = field([]byte("VmPeak:\t99 kB\n"), "VmRSS")
	require.ErrorContains(t, err, "VmRSS")
}
