package actor

import (
	"context"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
)

// CallRequest is one call or send with its options resolved, as a [Runtime] or [Transport] gets
// it. It must not change Request.
type CallRequest struct {
	// Method that is called; its descriptor is shared.
	Method *MethodDesc
	// Key of the object, as text; "" for a SERVICE.
	Key string
	// Request has its key field set.
	Request proto.Message
	// IdempotencyKey is "" for none.
	IdempotencyKey string
	// AutoKey: a client made the key up for its own retries, so it need not be kept for long.
	AutoKey bool
	// Delay of a send.
	Delay time.Duration
	// LimitKey and Tenant are "" if the caller does not give them.
	LimitKey, Tenant string
	// Priority is the caller's if PrioritySet.
	Priority int
	// PrioritySet: the caller gives it.
	PrioritySet bool
	// Headers that the handler sees, by their names in lower case; nil for none. They were not
	// checked yet.
	Headers map[string]string
}

const maxIdempotencyKeyBytes = 255

// Invoke calls a handler and waits for its response. Generated stubs call it. With the ctx of a
// handler it is a step of that handler, whatever c is; elsewhere it goes through c, a [Client].
func Invoke[R proto.Message](ctx context.Context, c Caller, method *MethodDesc, key string, req proto.Message, opts []CallOption) (response R, err error) {
	call, err := newCall(ctx, method, key, req, opts)
	if err != nil {
		return response, err
	}
	runtime, client, err := route(ctx, c, method)
	if err != nil {
		return response, err
	}
	if client != nil {
		return clientCall[R](ctx, client, call)
	}
	index, err := runtime.Call(ctx, call)
	if err != nil {
		return response, err
	}
	return awaitStep(ctx, runtime, index, decodeMessage[R])
}

// InvokeAsync is [Invoke] without waiting. Generated stubs call it. Outside a handler the call
// ends when ctx does.
func InvokeAsync[R proto.Message](ctx context.Context, c Caller, method *MethodDesc, key string, req proto.Message, opts []CallOption) Future[R] {
	call, err := newCall(ctx, method, key, req, opts)
	if err != nil {
		return failedFuture[R]{err}
	}
	runtime, client, err := route(ctx, c, method)
	if err != nil {
		return failedFuture[R]{err}
	}
	if client != nil {
		future := &clientFuture[R]{done: make(chan struct{})}
		go func() {
			defer close(future.done)
			future.value, future.err = clientCall[R](ctx, client, call)
		}()
		return future
	}
	index, err := runtime.Call(ctx, call)
	if err != nil {
		return failedFuture[R]{err}
	}
	return &stepFuture[R]{runtime, index, decodeMessage[R]}
}

// InvokeSend starts a call, perhaps after a [Delay], and returns once it is durable, without
// waiting for its result. In a TRANSACTION it returns at once, and the call starts if and when the
// transaction takes effect. Generated stubs call it.
func InvokeSend[R proto.Message](ctx context.Context, c Caller, method *MethodDesc, key string, req proto.Message, opts []SendOption) (*Invocation[R], error) {
	call, err := newCall(ctx, method, key, req, nil)
	if err != nil {
		return nil, err
	}
	for _, opt := range opts {
		opt.applySend(&call)
	}
	if err := call.check(); err != nil {
		return nil, err
	}
	runtime, client, err := route(ctx, c, method)
	if err != nil {
		return nil, err
	}
	var id string
	if client != nil {
		id, err = client.send(ctx, call)
	} else {
		id, err = runtime.Send(ctx, call)
	}
	if err != nil {
		return nil, err
	}
	return &Invocation[R]{id, c}, nil
}

// AttachKey waits for the run of the workflow named key, whoever started it. Generated stubs
// call it.
func AttachKey[R proto.Message](ctx context.Context, c Caller, method *MethodDesc, key string) (response R, err error) {
	if _, err := method.withKey(method.NewRequest(), key); err != nil {
		return response, err
	}
	runtime, client, err := route(ctx, c, method)
	if err != nil {
		return response, err
	}
	if runtime != nil {
		return Attach[R](c, IDOf(method.Service, key, method.Name, "")).attach(ctx, runtime).Await(ctx)
	}
	response = newMessage[R]()
	err = client.retry(ctx, func(ctx context.Context) error {
		proto.Reset(response)
		return client.transport.AttachKey(ctx, method, key, response)
	})
	return response, err
}

func newCall(ctx context.Context, method *MethodDesc, key string, req proto.Message, opts []CallOption) (CallRequest, error) {
	filled, err := method.withKey(req, key)
	if err != nil {
		return CallRequest{}, err
	}
	call := CallRequest{Method: method, Key: key, Request: filled}
	if handler, _ := lookup(ctx); handler != nil && handler.options != nil {
		for _, opt := range *handler.options {
			opt.applyCall(&call)
		}
	}
	for _, opt := range opts {
		opt.applyCall(&call)
	}
	return call, call.check()
}

// check resolves the idempotency key against the one in the request.
func (call *CallRequest) check() error {
	if inRequest := call.Method.RequestIdempotencyKey(call.Request); inRequest != "" {
		if call.IdempotencyKey != "" && call.IdempotencyKey != inRequest {
			return Errorf(InvalidArgument, "%s: the idempotency key is %q in the request and %q in the options: give one of them", call.Method.FullName(), inRequest, call.IdempotencyKey)
		}
		call.IdempotencyKey = inRequest
	}
	switch {
	case len(call.IdempotencyKey) > maxIdempotencyKeyBytes:
		return Errorf(InvalidArgument, "%s: the idempotency key has %d bytes; at most %d are allowed", call.Method.FullName(), len(call.IdempotencyKey), maxIdempotencyKeyBytes)
	case !utf8.ValidString(call.IdempotencyKey):
		return Errorf(InvalidArgument, "%s: the idempotency key is not valid utf-8", call.Method.FullName())
	}
	return call.checkLimits()
}

// route decides by ctx where a call goes: to the runtime of ctx's handler, or else to c.
func route(ctx context.Context, c Caller, method *MethodDesc) (Runtime, *Client, error) {
	handler, inside := lookup(ctx)
	if handler != nil {
		return handler.runtime, nil, nil
	}
	if c == nil {
		return nil, nil, Errorf(FailedPrecondition, "%s: the stub was made with a nil Caller: give it a *actor.Client or a handler's ctx", method.FullName())
	}
	client, _ := c.caller()
	switch {
	case client != nil:
		return nil, client, nil
	case inside != "":
		return nil, nil, Errorf(FailedPrecondition, "%s was called inside the closure of Run %q through the handler's ctx: make the stub with an *actor.Client there, or make the call outside Run", method.FullName(), inside)
	}
	return nil, nil, Errorf(FailedPrecondition, "%s was called through a handler's ctx with a ctx that is not derived from it: pass the handler's ctx to the call", method.FullName())
}
