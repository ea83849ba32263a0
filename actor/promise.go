package actor

import (
	"context"

	"google.golang.org/protobuf/proto"
)

// Promise is a named result of a workflow that is set once and can be awaited any number of
// times, before and after. It is sealed by its generated accessors.
type Promise[T proto.Message] interface {
	// Await waits for the promise, in a RUN handler.
	Await(ctx context.Context) (T, error)
	// AwaitAsync is Await without waiting.
	AwaitAsync(ctx context.Context) Future[T]
	// Peek is how the promise was completed, in a READ handler; done is false while it is not.
	Peek(ctx context.Context) (value T, done bool, err error)
	// Resolve completes the promise. In a READ handler it returns once that is durable, and an
	// error of code failed_precondition if the promise was completed before; in any other handler
	// a later completion is ignored.
	Resolve(ctx context.Context, value T) error
	// Reject completes the promise with an error, which Await returns with code and message.
	Reject(ctx context.Context, failure error) error
}

// PromiseOf is a promise of the workflow whose handler runs. Generated contexts call it.
func PromiseOf[T proto.Message](ctx Context, name string) Promise[T] {
	return promiseHandle[T]{name}
}

// promiseHandle does not hold the handler's context: each method is given one.
type promiseHandle[T proto.Message] struct{ name string }

func (p promiseHandle[T]) Await(ctx context.Context) (T, error) { return p.AwaitAsync(ctx).Await(ctx) }

func (p promiseHandle[T]) AwaitAsync(ctx context.Context) Future[T] {
	runtime, err := runtimeOf(ctx, "Await of promise "+p.name)
	if err != nil {
		return failedFuture[T]{err}
	}
	index, err := runtime.AwaitPromise(ctx, p.name)
	if err != nil {
		return failedFuture[T]{err}
	}
	return &stepFuture[T]{runtime, index, decodeMessage[T]}
}

func (p promiseHandle[T]) Peek(ctx context.Context) (value T, done bool, err error) {
	runtime, err := runtimeOf(ctx, "Peek of promise "+p.name)
	if err != nil {
		return value, false, err
	}
	data, done, err := runtime.PeekPromise(ctx, p.name)
	if err != nil || !done {
		return value, done, err
	}
	value, err = decodeMessage[T](data)
	if err != nil {
		return value, true, Errorf(DataLoss, "promise %s: %w", p.name, err)
	}
	return value, true, nil
}

func (p promiseHandle[T]) Resolve(ctx context.Context, value T) error {
	runtime, err := runtimeOf(ctx, "Resolve of promise "+p.name)
	if err != nil {
		return err
	}
	data, err := marshal(value)
	if err != nil {
		return Errorf(InvalidArgument, "promise %s: the value cannot be encoded: %w", p.name, err)
	}
	return runtime.CompletePromise(ctx, p.name, data, nil)
}

func (p promiseHandle[T]) Reject(ctx context.Context, failure error) error {
	runtime, err := runtimeOf(ctx, "Reject of promise "+p.name)
	if err != nil {
		return err
	}
	return runtime.CompletePromise(ctx, p.name, nil, rejection(failure))
}
