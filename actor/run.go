package actor

import (
	"context"
)

// Run calls fn and records what it returns: once recorded, fn is not called again and a replay
// gets the same result. fn may be called more than once if the node fails before that, so give
// the world outside an idempotency key, such as the invocation's id and name.
//
// T is a message, or a type that encoding/json restores. fn's ctx makes no steps; calls with it
// go over the transport of a [Client]. An error of fn with a code is recorded and returned; any
// other is tried again (see [RunPolicy]) until the tries are used up and then recorded. So what
// Run returns is terminal: return nil, err is right.
func Run[T any](ctx context.Context, name string, fn func(context.Context) (T, error), opts ...RunOption) (result T, err error) {
	runtime, index, err := startRun(ctx, name, false, fn, opts)
	if err != nil {
		return result, err
	}
	return stepResult(runtime, index, decodeValue[T])
}

// RunAsync is [Run] without waiting: fn runs on a goroutine of its own.
func RunAsync[T any](ctx context.Context, name string, fn func(context.Context) (T, error), opts ...RunOption) Future[T] {
	runtime, index, err := startRun(ctx, name, true, fn, opts)
	if err != nil {
		return failedFuture[T]{err}
	}
	return &stepFuture[T]{runtime, index, decodeValue[T]}
}

// Do is [Run] for an fn without a result.
func Do(ctx context.Context, name string, fn func(context.Context) error, opts ...RunOption) error {
	_, err := Run(ctx, name, func(ctx context.Context) (struct{}, error) { return struct{}{}, fn(ctx) }, opts...)
	return err
}

func startRun[T any](ctx context.Context, name string, async bool, fn func(context.Context) (T, error), opts []RunOption) (Runtime, uint32, error) {
	runtime, err := runtimeOf(ctx, "Run "+name)
	if err != nil {
		return nil, 0, err
	}
	var policy RunPolicy
	for _, opt := range opts {
		opt.applyRun(&policy)
	}
	index, err := runtime.Run(ctx, name, policy, async, func(ctx context.Context) ([]byte, error) {
		value, err := fn(&closureContext{ctx, name})
		if err != nil {
			return nil, err
		}
		data, err := encodeValue(value)
		if err != nil {
			return nil, Errorf(Internal, "Run %s: the result, a %T, cannot be recorded: %w", name, value, err)
		}
		return data, nil
	})
	return runtime, index, err
}
