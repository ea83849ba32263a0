package actor

import (
	"context"

	"google.golang.org/protobuf/proto"
)

// Inbox is where the signals of one name arrive at a workflow's run, in order, also those sent
// before it started. Each is received once.
type Inbox[T proto.Message] interface {
	// Receive waits for the next signal.
	Receive(ctx context.Context) (T, error)
	// ReceiveAsync claims the next signal without waiting for it.
	ReceiveAsync(ctx context.Context) Future[T]
}

// InboxOf is an inbox of the workflow whose handler runs. Generated contexts call it.
func InboxOf[T proto.Message](ctx Context, name string) Inbox[T] { return inboxHandle[T]{name} }

type inboxHandle[T proto.Message] struct{ name string }

func (i inboxHandle[T]) Receive(ctx context.Context) (T, error) {
	return i.ReceiveAsync(ctx).Await(ctx)
}

func (i inboxHandle[T]) ReceiveAsync(ctx context.Context) Future[T] {
	runtime, err := runtimeOf(ctx, "Receive of "+i.name)
	if err != nil {
		return failedFuture[T]{err}
	}
	index, err := runtime.Receive(ctx, i.name)
	if err != nil {
		return failedFuture[T]{err}
	}
	return &stepFuture[T]{runtime, index, decodeMessage[T]}
}
