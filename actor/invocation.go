package actor

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
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

// Attach waits for the result, for as long as that is retained; code not_found says that there is
// no such invocation any more, or never was. In a handler it is a step: the result is recorded.
// TRANSACTION and READ handlers cannot wait for an invocation.
func (i *Invocation[T]) Attach(ctx context.Context) (result T, err error) {
	runtime, client, err := route(ctx, i.caller, &attachMethod)
	if err != nil {
		return result, err
	}
	if runtime != nil {
		return i.attach(ctx, runtime).Await(ctx)
	}
	result = newMessage[T]()
	err = client.retry(ctx, func(ctx context.Context) error {
		proto.Reset(result)
		return client.transport.Attach(ctx, i.id, result)
	})
	return result, err
}

// AttachAsync is [Invocation.Attach] without waiting.
func (i *Invocation[T]) AttachAsync(ctx context.Context) Future[T] {
	runtime, client, err := route(ctx, i.caller, &attachMethod)
	if err != nil {
		return failedFuture[T]{err}
	}
	if runtime != nil {
		return i.attach(ctx, runtime)
	}
	future := &clientFuture[T]{done: make(chan struct{})}
	go func() {
		defer close(future.done)
		future.value, future.err = Attach[T](client, i.id).Attach(ctx)
	}()
	return future
}

func (i *Invocation[T]) attach(ctx context.Context, runtime Runtime) Future[T] {
	index, err := runtime.Attach(ctx, i.id)
	if err != nil {
		return failedFuture[T]{err}
	}
	return &stepFuture[T]{runtime, index, decodeMessage[T]}
}

// Peek is the result if it is there, without waiting for it; done is false while it is not. If done
// is true, err is how the invocation failed; else it says why nobody knows, as for
// [Invocation.Attach]. In a handler it is a step: what was seen is recorded.
func (i *Invocation[T]) Peek(ctx context.Context) (result T, done bool, err error) {
	runtime, client, err := route(ctx, i.caller, &peekMethod)
	if err != nil {
		return result, false, err
	}
	if runtime == nil {
		return peekOutside[T](ctx, client, i.id)
	}
	data, done, err := runtime.Peek(ctx, i.id)
	if err != nil || !done {
		return result, done, err
	}
	if result, err = decodeMessage[T](data); err != nil {
		return result, true, Terminal(DataLoss, err)
	}
	return result, true, nil
}

func peekOutside[T proto.Message](ctx context.Context, client *Client, id string) (result T, done bool, err error) {
	response := &perdurev1.PeekResponse{}
	err = client.retry(ctx, func(ctx context.Context) error {
		return client.transport.BuiltIn(ctx, "perdure.v1.InvocationService/Peek", &perdurev1.PeekRequest{InvocationId: id}, response)
	})
	if err != nil || !response.GetDone() {
		return result, false, err
	}
	if failure := response.GetError(); failure != nil {
		return result, true, NewError(Code(failure.GetCode()), failure.GetMessage(), failure.GetDetails()...)
	}
	result = newMessage[T]()
	if err := response.GetResponse().UnmarshalTo(result); err != nil {
		return result, true, Errorf(InvalidArgument, "the response of %s is a %s, not a %s", id, response.GetResponse().MessageName(), result.ProtoReflect().Descriptor().FullName())
	}
	return result, true, nil
}

// IDOf is the id of the call that was, or will be, made with that idempotency key to a handler of
// an object; of the run of a workflow, whose handler is its RUN and which has no idempotency key.
// Key is "" for a SERVICE. Give it to [Attach].
func IDOf(service, key, handler, idempotencyKey string) string {
	target := invocation.Target{Service: service, Key: key, Handler: handler}
	if idempotencyKey == "" {
		return invocation.DerivedID(target, "run").String()
	}
	return invocation.DerivedID(target, "idempotency", idempotencyKey).String()
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
	peekMethod    = MethodDesc{Service: "perdure.v1.InvocationService", Name: "Peek"}
	cancelMethod  = MethodDesc{Service: "perdure.v1.InvocationService", Name: "Cancel"}
	resolveMethod = MethodDesc{Service: "perdure.v1.InvocationService", Name: "Resolve"}
)
