package main

// How often garbage is collected: seldom while little is alive, and not so late that much of it adds up.

import (
	"os"
	"runtime"
	"runtime/debug"
	measured "runtime/metrics"
)

// What may be garbage before it is collected. A relay with an empty queue has a few MiB alive and makes some 20 KiB of garbage a
// message: Go's own rule, as much garbage as there is alive, would collect a hundred times a second.
const (
	garbageLeast = 40 << 20
	garbageShare = 40 // percent of what is alive, where that is more
	percentMost  = 2000
)

// tuneCollector sets that, now and after each collection. Who sets GOGC decides it.
func tuneCollector() {
	if os.Getenv("GOGC") != "" {
		return
	}
	live := []measured.Sample{{Name: "/gc/heap/live:bytes"}}
	measured.Read(live)
	debug.SetGCPercent(garbagePercent(live[0].Value.Uint64()))
	runtime.AddCleanup(new([64]byte), func(int) { tuneCollector() }, 0) // which the next collection calls
}

// garbagePercent is the setting of Go's collector for a number of octets that are alive.
func garbagePercent(live uint64) int {
	return int(min(max(garbageLeast*100/max(live, 1), garbageShare), percentMost))
}
