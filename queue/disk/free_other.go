//go:build !(linux || darwin || freebsd || dragonfly)

package disk

import "errors"

// freeBytes is not known here: that the disk is full is noticed when a write fails.
func freeBytes(string) (int64, error) { return 0, errors.ErrUnsupported }
