package actor

import (
	"context"
	"errors"
)

// Awakeable is a future that somebody else completes by its ID, once: a person, another service,
// another handler. The ID survives crashes and may be sent anywhere. It is sealed.
type Awakeable[T any] interface {
	Future[T]
	// ID is what [ResolveAwakeable], or the InvocationService of any node, completes it by. It is
	// opaque, and of this run of the invocation alone: one that is begun anew under the same key has
	// others. It is "" if the awakeable could not be made; Await says why.
	ID() string
}

type awakeable[T any] struct {
	Future[T]
	id string
}

func (a awakeable[T]) ID() string { return a.id }

// NewAwakeable makes an awakeable. A message T may be resolved with its JSON form, any other T
// is read by encoding/json.
func NewAwakeable[T any](ctx context.Context) Awakeable[T] {
	runtime, err := runtimeOf(ctx, "NewAwakeable")
	if err != nil {
		return awakeable[T]{failedFuture[T]{err}, ""}
	}
	id, index, err := runtime.Awakeable(ctx)
	if err != nil {
		return awakeable[T]{failedFuture[T]{err}, ""}
	}
	return awakeable[T]{&stepFuture[T]{runtime, index, decodeAwakened[T]}, id}
}

// decodeAwakened makes a value of the wrong type the error of the wait: whoever resolved it made
// the mistake, and no deploy would heal it.
func decodeAwakened[T any](data []byte) (T, error) {
	value, err := decodeValue[T](data)
	if err != nil {
		return value, Errorf(InvalidArgument, "the awakeable was resolved with something else than a %T: %w", value, err)
	}
	return value, nil
}

// ResolveAwakeable completes an awakeable with value, a message or anything encoding/json takes
// (a json.RawMessage is sent as it is). The first completion counts; in a handler later ones are
// ignored, a client gets an error.
func ResolveAwakeable(ctx context.Context, c Caller, id string, value any) error {
	data, err := encodeValue(value)
	if err != nil {
		return Errorf(InvalidArgument, "awakeable %s: the value cannot be encoded: %w", id, err)
	}
	return completeAwakeable(ctx, c, id, data, nil)
}

// RejectAwakeable completes an awakeable with an error, which its Await returns with code and
// message.
func RejectAwakeable(ctx context.Context, c Caller, id string, failure error) error {
	return completeAwakeable(ctx, c, id, nil, rejection(failure))
}

func completeAwakeable(ctx context.Context, c Caller, id string, value []byte, failure *Error) error {
	runtime, client, err := route(ctx, c, &resolveMethod)
	if err != nil {
		return err
	}
	if runtime != nil {
		return runtime.CompleteAwakeable(ctx, id, value, failure)
	}
	return client.retry(ctx, func(ctx context.Context) error {
		return client.transport.CompleteAwakeable(ctx, id, value, failure)
	})
}

// rejection is the error that a promise or an awakeable is rejected with.
func rejection(failure error) *Error {
	if failure == nil {
		return NewError(Unknown, "rejected")
	}
	if known, ok := errors.AsType[*Error](failure); ok {
		return known
	}
	return NewError(CodeOf(failure), failure.Error())
}
