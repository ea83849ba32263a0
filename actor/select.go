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
	first := combine(QuantifierFirst, "Select", len(futures), func(position int) AnyFuture { return futures[position] })
	for position, part := range first.Parts {
		if part.refused != nil {
			return position, nil
		}
	}
	if first.refused != nil {
		return -1, first.refused
	}
	if err := await(ctx, first); err != nil {
		return -1, err
	}
	return first.winner, nil
}

// combine makes a condition over the futures.
func combine(quantifier Quantifier, name string, count int, future func(position int) AnyFuture) *Condition {
	combined := &Condition{Quantifier: quantifier, Parts: make([]*Condition, count)}
	for position := range combined.Parts {
		combined.Parts[position] = future(position).pending()
	}
	if _, _, ok := combined.owner(); !ok {
		combined.refused = Errorf(FailedPrecondition, "%s: the futures are not all of the same handler", name)
	}
	return combined
}

// await waits until c is decided.
func await(ctx context.Context, c *Condition) error {
	if c.refused != nil {
		return c.refused
	}
	if c.verdict != open {
		return nil
	}
	owner, outside, _ := c.owner()
	switch {
	case owner != nil:
		return owner.WaitUntil(ctx, c)
	case outside:
		return awaitOutside(ctx, c)
	}
	// Nothing in it waits: it has no parts, or they were all refused.
	c.Decide(func(uint32) (bool, bool) { return false, false })
	return nil
}

func awaitOutside(ctx context.Context, c *Condition) error {
	never := func(uint32) (bool, bool) { return false, false }
	for !c.Decide(never) {
		cases := []reflect.SelectCase{{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(ctx.Done())}}
		c.outstanding(func(done <-chan struct{}) {
			cases = append(cases, reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(done)})
		})
		if chosen, _, _ := reflect.Select(cases); chosen == 0 {
			return ctx.Err()
		}
	}
	return nil
}

// outstanding calls yield for the calls of a client that have not ended.
func (c *Condition) outstanding(yield func(done <-chan struct{})) {
	if c.outside != nil {
		select {
		case <-c.outside.done:
		default:
			yield(c.outside.done)
		}
	}
	for _, part := range c.Parts {
		part.outstanding(yield)
	}
}

// combined is a future over others.
type combined[T any] struct {
	condition *Condition
	result    func() (T, error)
}

func (f *combined[T]) pending() *Condition { return f.condition }

func (f *combined[T]) Await(ctx context.Context) (value T, err error) {
	if err := await(ctx, f.condition); err != nil {
		return value, err
	}
	return f.take()
}

func (f *combined[T]) take() (value T, err error) {
	if f.condition.refused != nil {
		return value, f.condition.refused
	}
	return f.result()
}

func combineSame[T any](quantifier Quantifier, name string, futures []Future[T]) *Condition {
	condition := combine(quantifier, name, len(futures), func(position int) AnyFuture { return futures[position] })
	if len(futures) == 0 && quantifier != QuantifierAll {
		condition.refused = Errorf(InvalidArgument, "%s needs at least one future", name)
	}
	return condition
}
