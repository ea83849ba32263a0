package inprocess

import (
	"math/rand/v2"
	"time"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
)

// An invocation that was restarted replays entries of others. Until it has passed those, its
// clock, its random numbers and the ids of its awakeables are those of the invocation that made
// them, or what the handler made of them would not match. From then on they are its own: a request
// or an id made of them must not be another's.

// beganAt is the time before the first entry.
func beganAt(attempt *invoker.Attempt) time.Time {
	_, _, startedAt := originOf(attempt, attempt.Start+1)
	return startedAt
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
	number, id, startedAt := originOf(r.d.attempt, r.d.cursor.Passed()+1)
	if r.source == nil || r.number != number {
		r.source, r.number = randomSource(id, startedAt), number
	}
	return r.source.Uint64()
}

// originOf is the invocation that made an entry, and when that began; number is its place among the
// origins, which the invocation itself comes after.
func originOf(attempt *invoker.Attempt, index uint32) (number int, id invocation.ID, startedAt time.Time) {
	origins := attempt.Origins
	for number < len(origins) && index > origins[number].GetEntries() {
		number++
	}
	if number == len(origins) {
		return number, attempt.ID, attempt.StartedAt
	}
	id, _ = invocation.IDFromBytes(origins[number].GetInvocationId())
	return number, id, time.UnixMilli(origins[number].GetStartedAt())
}
