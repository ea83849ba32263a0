package inprocess

import "time"

// stressed is set by `make suspend`, with the linker's -X: attempts then suspend at every wait and
// keep next to nothing in memory, unless a test says otherwise. It is empty in every other build.
var stressed string

// DefaultInactivityTimeout is what Config's default is.
func DefaultInactivityTimeout() time.Duration {
	if stressed != "" {
		return SuspendAtOnce
	}
	return time.Minute
}

// heldLimit is maxHeldBytes.
func heldLimit() int64 {
	if stressed != "" {
		return 1 << 10
	}
	return maxHeldBytes
}
