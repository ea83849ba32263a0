package actor

import (
	"context"

	"google.golang.org/protobuf/proto"
)

// Invocation is a call that was sent: its result can be waited for, here or in another process
// by its ID. It is safe for concurrent use.
type Invocation[T proto.Message] struct {
	id     string
	caller Caller
}

// Attach is the invocation with that id, whose response is a T. It makes no call.
func Attach[T proto.Message](c Caller, id string) *Invocation[T] { return &Invocation[T]{id, c} }

// ID names the invocation for ever.
func (i *Invocation[T]) ID() string { return i.id }

// Attach waits for the result. It works as long as the result is retained, and not yet in a
// handler, which gets an error of code unimplemented.
func (i *Invocation[T]) Attach(ctx context.Context) (result T, err error) {
	runtime, client, err := route(ctx, i.caller, &attachMethod)
	if err != nil {
		return result, err
	}
	if runtime != nil {
		return result, errAttachInHandler
	}
	result = newMessage[T]()
	err = client.retry(ctx, func(ctx context.Context) error {
		proto.Reset(result)
		return client.transport.Attach(ctx, i.id, result)
	})
	return result, err
}

// Cancel asks the invocation to stop: its handler's next wait returns [ErrCanceled]. It does not
// wait for that. An invocation that has ended stays as it is.
func (i *Invocation[T]) Cancel(ctx context.Context) error {
	runtime, client, err := route(ctx, i.caller, &cancelMethod)
	if err != nil {
		return err
	}
	if runtime != nil {
		return runtime.CancelInvocation(ctx, i.id)
	}
	return client.retry(ctx, func(ctx context.Context) error { return client.transport.Cancel(ctx, i.id) })
}

// What route calls these operations in its errors.
var (
	attachMethod  = MethodDesc{Service: "perdure.v1.InvocationService", Name: "Attach"}
	cancelMethod  = MethodDesc{Service: "perdure.v1.InvocationService", Name: "Cancel"}
	resolveMethod = MethodDesc{Service: "perdure.v1.InvocationService", Name: "Resolve"}
)
