package inprocess

import (
	"math/rand/v2"
	"time"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
)

// An invocation that was restarted replays entries of others. Until it has passed those, its
// clock and its random numbers are those of the invocation that made them, or what the handler
// made of them would not match. From then on they are its own: a request or an id made of them
// must not be another's.

// beganAt is the time before the first entry.
func beganAt(attempt *invoker.Attempt) time.Time {
	for _, origin := range attempt.Origins {
		if origin.GetEntries() > attempt.Start {
			return time.UnixMilli(origin.GetStartedAt())
		}
	}
	return attempt.StartedAt
}

// durableRandom is a source whose seed changes where the journal passes from one invocation to
// another.
type durableRandom struct {
	d      *durable
	source rand.Source
	// number of the origin that source is of, len(Origins) for the invocation itself.
	number int
}

func (r *durableRandom) Uint64() uint64 {
	attempt := r.d.attempt
	number := 0
	for number < len(attempt.Origins) && r.d.cursor.Passed() >= attempt.Origins[number].GetEntries() {
		number++
	}
	if r.source == nil || r.number != number {
		id, startedAt := attempt.ID, attempt.StartedAt
		if number < len(attempt.Origins) {
			id, _ = invocation.IDFromBytes(attempt.Origins[number].GetInvocationId())
			startedAt = time.UnixMilli(attempt.Origins[number].GetStartedAt())
		}
		r.source, r.number = randomSource(id, startedAt), number
	}
	return r.source.Uint64()
}
