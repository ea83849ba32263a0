package inprocess

import (
	"time"

	"github.com/perdure/perdure/internal/stress"
)

// DefaultInactivityTimeout is what Config's default is.
func DefaultInactivityTimeout() time.Duration {
	if stress.Tiny() {
		return SuspendAtOnce
	}
	return time.Minute
}
