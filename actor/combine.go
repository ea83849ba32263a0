package actor

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// All waits until the futures have all succeeded and returns their results in their order, or
// until one fails and returns its error. The others go on.
func All[T any](ctx context.Context, futures ...Future[T]) ([]T, error) {
	return AllAsync(futures...).Await(ctx)
}

// AllAsync is [All] as a future, to be part of another. Combined futures make no steps and cost
// nothing in the journal; a wait for one costs at most one entry, and a replay sees it end in the
// same way.
func AllAsync[T any](futures ...Future[T]) Future[[]T] {
	condition := combineSame(QuantifierAll, "All", futures)
	return &combined[[]T]{condition, func() ([]T, error) {
		if condition.verdict == failed {
			_, err := futures[condition.winner].take()
			return nil, err
		}
		results := make([]T, 0, len(futures))
		for _, future := range futures {
			result, err := future.take()
			if err != nil { // what is recorded cannot be decoded as a T
				return nil, err
			}
			results = append(results, result)
		}
		return results, nil
	}}
}

// Race returns the result of the first future to complete, be it a value or an error. The others
// go on.
func Race[T any](ctx context.Context, futures ...Future[T]) (T, error) {
	return RaceAsync(futures...).Await(ctx)
}

// RaceAsync is [Race] as a future; see [AllAsync].
func RaceAsync[T any](futures ...Future[T]) Future[T] {
	condition := combineSame(QuantifierFirst, "Race", futures)
	return &combined[T]{condition, func() (T, error) { return futures[condition.winner].take() }}
}

// Any returns the result of the first future to succeed. If all fail, its error has the code of the
// first of them, in their order, and the messages of all. The others go on.
func Any[T any](ctx context.Context, futures ...Future[T]) (T, error) {
	return AnyAsync(futures...).Await(ctx)
}

// AnyAsync is [Any] as a future; see [AllAsync].
func AnyAsync[T any](futures ...Future[T]) Future[T] {
	condition := combineSame(QuantifierAny, "Any", futures)
	return &combined[T]{condition, func() (value T, err error) {
		if condition.verdict == succeeded {
			return futures[condition.winner].take()
		}
		errs := make([]error, 0, len(futures))
		for _, future := range futures {
			_, err := future.take()
			errs = append(errs, err)
		}
		return value, noneSucceeded(errs)
	}}
}

// Enough to see what went wrong, and bounded: it may be recorded.
const maxMessagesOfAny = 8

func noneSucceeded(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	var text strings.Builder
	fmt.Fprintf(&text, "none of %d succeeded", len(errs))
	for position, err := range errs {
		if position == maxMessagesOfAny {
			fmt.Fprintf(&text, "; and %d more", len(errs)-position)
			break
		}
		fmt.Fprintf(&text, "; %v", err)
	}
	return &Error{code: validCode(CodeOf(errs[0])), message: text.String(), cause: errs[0]}
}

// Settled waits until all futures have completed, whether they succeed or fail; Await on each then
// returns at once. The error is that of the wait (see [Future]), never that of a future.
func Settled(ctx context.Context, futures ...AnyFuture) error {
	_, err := SettledAsync(futures...).Await(ctx)
	return err
}

// SettledAsync is [Settled] as a future, which succeeds; see [AllAsync].
func SettledAsync(futures ...AnyFuture) Future[struct{}] {
	condition := combine(QuantifierSettled, "Settled", len(futures), func(position int) AnyFuture { return futures[position] })
	return &combined[struct{}]{condition, func() (struct{}, error) { return struct{}{}, nil }}
}

// WithTimeout is future, but fails with code deadline_exceeded if that has not completed once wait
// has passed. It sets a durable timer, from now on, which ends when the future completes before it
// and is awaited. The future itself goes on and can still be awaited.
//
// The deadline of a ctx ends a wait too, but belongs to one attempt: it begins again after a crash,
// and keeps the handler from being suspended.
func WithTimeout[T any](ctx context.Context, future Future[T], wait time.Duration) Future[T] {
	timer := After(ctx, wait)
	if refused := timer.pending().refused; refused != nil {
		return failedFuture[T]{refused}
	}
	parts := []AnyFuture{future, timer}
	condition := combine(QuantifierTimeout, "WithTimeout", len(parts), func(position int) AnyFuture { return parts[position] })
	stopped := false
	return &combined[T]{condition, func() (value T, err error) {
		if condition.winner == 1 {
			return value, Errorf(DeadlineExceeded, "what was waited for did not complete within %s", wait)
		}
		if !stopped {
			stopped = true
			if err := timer.Stop(ctx); err != nil {
				return value, err
			}
		}
		return future.take()
	}}
}
