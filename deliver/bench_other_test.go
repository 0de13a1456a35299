//go:build !unix

package deliver_test

import "time"

// What this system does not tell is zero.
func peak() int64        { return 0 }
func cpu() time.Duration { return 0 }
