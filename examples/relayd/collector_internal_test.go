package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestGarbagePercent(t *testing.T) {
	for _, c := range []struct {
		live    uint64
		percent int
	}{
		{0, percentMost},
		{1 << 20, percentMost},
		{10 << 20, 400},
		{40 << 20, 100},
		{100 << 20, 40},
		{1 << 40, 40},
	} {
		assert.Equal(t, c.percent, garbagePercent(c.live), "%d MiB", c.live>>20)
	}
}
