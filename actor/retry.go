package actor

import "time"

// RunPolicy says how the closure of a [Run] is tried again after it failed. The zero value waits
// 100 ms, doubling up to 10 s, and gives up after 30 tries.
//
// Tries that failed are counted, and the time runs on, across crashes and suspensions. A try that a
// crash cut short is not counted: nobody knows how it ended, and another takes its place.
type RunPolicy struct {
	// MaxAttempts counts the first try: 1 is never to try again. 0: 30.
	MaxAttempts int
	// MaxElapsed is the longest time that all tries may take together, the waits between them
	// included, from the first one on. It is the deadline of the closure's ctx, and no try begins
	// behind it. 0: any time.
	MaxElapsed time.Duration
	// InitialInterval is the wait before the second try; each later one is Factor times longer, up
	// to MaxInterval. 0: 100 ms, and 10 s or InitialInterval if that is more.
	InitialInterval, MaxInterval time.Duration
	// Factor is at least 1. 0: 2.
	Factor float64
	// Jitter is the part of each wait, from 0 to 1, that may be cut off at random, so that those who
	// failed together do not come back together. 0: none.
	Jitter float64
	// Retryable says whether an error is worth another try. nil: those without a code are. An error
	// with a wait of its own ([RetryAfter]) is in any case.
	Retryable func(err error) bool
}

// RetryAfter returns err with a wait of its own: what returns it, a closure of a [Run] or a DURABLE
// or RUN handler, is tried again after wait and not after that of its policy, even if err has a
// code. It counts as a try, and MaxElapsed still holds. A wait of 0 is that of the policy. It
// returns nil for a nil err.
//
// Any error in a chain that has a method RetryAfter() time.Duration asks for a wait in this way.
func RetryAfter(err error, wait time.Duration) error {
	if err == nil {
		return nil
	}
	return &retryAfter{err, max(wait, 0)}
}

type retryAfter struct {
	err  error
	wait time.Duration
}

func (r *retryAfter) Error() string             { return r.err.Error() }
func (r *retryAfter) Unwrap() error             { return r.err }
func (r *retryAfter) RetryAfter() time.Duration { return r.wait }
