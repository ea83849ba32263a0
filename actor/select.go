package actor

import (
	"context"
	"reflect"
)

// Select waits for the first of the futures to complete and returns its position; Await on it
// then returns at once. In a handler the choice is recorded: a replay makes the same one. The
// error is that of the wait (see [Future]), never that of a future.
func Select(ctx context.Context, futures ...AnyFuture) (int, error) {
	if len(futures) == 0 {
		return -1, Errorf(InvalidArgument, "Select needs at least one future")
	}
	first := futures[0].pending()
	indexes := make([]uint32, 0, len(futures))
	for position, future := range futures {
		waited := future.pending()
		if waited.failed != nil {
			return position, nil
		}
		if waited.runtime != first.runtime {
			return -1, Errorf(FailedPrecondition, "Select: the futures at 0 and %d are not of the same handler", position)
		}
		indexes = append(indexes, waited.index)
	}
	if first.runtime == nil {
		return selectOutside(ctx, futures)
	}
	winner, err := first.runtime.Wait(ctx, indexes)
	if err != nil {
		return -1, err
	}
	return winner, nil
}

func selectOutside(ctx context.Context, futures []AnyFuture) (int, error) {
	cases := make([]reflect.SelectCase, 0, len(futures)+1)
	for position, future := range futures {
		done := future.pending().done
		select {
		case <-done:
			return position, nil
		default:
		}
		cases = append(cases, reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(done)})
	}
	cases = append(cases, reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(ctx.Done())})
	winner, _, _ := reflect.Select(cases)
	if winner == len(futures) {
		return -1, ctx.Err()
	}
	return winner, nil
}

// All waits for the futures in their order and returns their results, or the first error it
// meets in that order. The others go on.
func All[T any](ctx context.Context, futures ...Future[T]) ([]T, error) {
	results := make([]T, 0, len(futures))
	for _, future := range futures {
		result, err := future.Await(ctx)
		if err != nil {
			return nil, err
		}
		results = append(results, result)
	}
	return results, nil
}

// Race returns the result of the first future to complete, be it a value or an error. The others
// go on.
func Race[T any](ctx context.Context, futures ...Future[T]) (result T, err error) {
	waited := make([]AnyFuture, len(futures))
	for position, future := range futures {
		waited[position] = future
	}
	winner, err := Select(ctx, waited...)
	if err != nil {
		return result, err
	}
	return futures[winner].Await(ctx)
}
