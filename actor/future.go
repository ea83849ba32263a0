package actor

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
)

// Future is a result that comes later: of a call, a Run, a timer, a signal, or of several of them
// (see [AllAsync]). It belongs to the handler or the client that made it. It is sealed.
type Future[T any] interface {
	AnyFuture
	// Await waits for the result. In a handler it returns [ErrCanceled] if the invocation is
	// cancelled while it waits, and a derived ctx's error if that ends first; the future can be
	// awaited again after either.
	Await(ctx context.Context) (T, error)

	// take is the result, once pending is decided.
	take() (T, error)
}

// AnyFuture is a [Future] of any type, for [Select].
type AnyFuture interface {
	// pending says what the result waits for.
	pending() *Condition
}

// stepFuture is a future in a handler.
type stepFuture[T any] struct {
	runtime Runtime
	index   uint32
	decode  func(data []byte) (T, error)
}

func (f *stepFuture[T]) pending() *Condition { return &Condition{Entry: f.index, runtime: f.runtime} }

func (f *stepFuture[T]) Await(ctx context.Context) (value T, err error) {
	return awaitStep(ctx, f.runtime, f.index, f.decode)
}

func (f *stepFuture[T]) take() (T, error) { return stepResult(f.runtime, f.index, f.decode) }

func awaitStep[T any](ctx context.Context, runtime Runtime, index uint32, decode func([]byte) (T, error)) (value T, err error) {
	if _, err := runtime.Wait(ctx, []uint32{index}); err != nil {
		return value, err
	}
	return stepResult(runtime, index, decode)
}

func stepResult[T any](runtime Runtime, index uint32, decode func([]byte) (T, error)) (value T, err error) {
	data, err := runtime.Result(index)
	if err != nil {
		return value, err
	}
	value, err = decode(data)
	if err == nil {
		return value, nil
	}
	if _, ok := errors.AsType[*Error](err); !ok { // recorded data that a fixed deploy can read
		runtime.Fail(Terminal(DataLoss, err))
	}
	return value, err
}

// failedFuture is the future of a step that was refused.
type failedFuture[T any] struct{ err error }

func (f failedFuture[T]) pending() *Condition { return &Condition{refused: f.err} }

func (f failedFuture[T]) Await(context.Context) (T, error) { return f.take() }

func (f failedFuture[T]) take() (value T, err error) { return value, f.err }

// clientFuture is a future outside handlers.
type clientFuture[T any] struct {
	done  chan struct{}
	value T // written before done is closed
	err   error
}

func (f *clientFuture[T]) pending() *Condition {
	return &Condition{outside: &outside{f.done, func() bool { return f.err != nil }}}
}

func (f *clientFuture[T]) Await(ctx context.Context) (value T, err error) {
	select {
	case <-f.done:
		return f.take()
	default:
	}
	select {
	case <-f.done:
		return f.take()
	case <-ctx.Done():
		return value, ctx.Err()
	}
}

func (f *clientFuture[T]) take() (T, error) { return f.value, f.err }

func decodeMessage[M proto.Message](data []byte) (M, error) {
	message := newMessage[M]()
	if err := proto.Unmarshal(data, message); err != nil {
		return message, fmt.Errorf("a recorded %s cannot be read: %w", message.ProtoReflect().Descriptor().FullName(), err)
	}
	return message, nil
}
