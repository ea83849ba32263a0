package actor

import (
	"context"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// HandlerFunc is a handler as [Middleware] sees it. An empty response may be nil.
type HandlerFunc func(ctx Context, req proto.Message) (proto.Message, error)

// Middleware wraps handlers in what all of them need: logs, metrics, checks of who may call, values
// in the context. It is called once for each handler, when that is registered, and what it returns
// runs in place of next, which it calls. It may return next, or nil, to leave a handler alone; one
// that is left alone costs nothing.
//
// method says which handler it is: its service, name, kind, mode, options and, by Schema, all
// options of the .proto. Of the invocation ctx knows the rest: [Context.InvocationID], [Context.Attempt],
// [KeyOf] (as a string for every type of key), [HeaderOf], [Replaying].
//
// It is part of the handler, so what holds for handlers of the mode holds for it:
//
//   - It runs in each attempt. A DURABLE or RUN handler is replayed from its start after each crash and
//     each wait that suspended it, with its middleware; the transaction of a TRANSACTION handler may run
//     several times of which one counts. Nothing it does may depend on the clock or chance as far as steps
//     follow from it; steps that it makes are part of the journal, so adding or removing some diverges
//     from journals of before ([Version] helps).
//   - next may not return: a handler that suspends, is superseded or is stopped unwinds, and runs deferred
//     functions only.
//   - An error it returns is the handler's: with a code it is the result of the invocation, without one the
//     attempt has failed. A panic is one of the handler. Errors of next must be passed on as they are, or
//     wrapped with %w: [ContinueAsNew] is one too.
//   - It may pass on another ctx, made with [WithContext] or [WithCallOptions], another request and another
//     response, of the handler's own types.
//
// A SIGNAL has no handler and so no middleware.
type Middleware func(method *MethodDesc, next HandlerFunc) HandlerFunc

// WithMiddleware is a Registrar that registers with r, each handler within middleware, the first of
// which is the outermost. So a service has middleware of its own:
//
//	bankperdure.RegisterAccountHandler(actor.WithMiddleware(node, audited), accounts)
//
// Middleware for all services of a node is cluster.WithMiddleware, which is around that of
// services. What is registered within middleware in a program should be so in its tests.
func WithMiddleware(r Registrar, middleware ...Middleware) Registrar {
	return wrapping{r, middleware}
}

type wrapping struct {
	registrar  Registrar
	middleware []Middleware
}

// RegisterService implements Registrar.
func (w wrapping) RegisterService(desc *ServiceDesc, handler any) {
	if desc != nil {
		desc = w.wrap(desc, handler)
	}
	w.registrar.RegisterService(desc, handler)
}

func (w wrapping) wrap(desc *ServiceDesc, handler any) *ServiceDesc {
	wrapped := *desc
	wrapped.Methods = make([]*MethodDesc, len(desc.Methods))
	for i, method := range desc.Methods {
		wrapped.Methods[i] = w.method(method, handler)
	}
	return &wrapped
}

func (w wrapping) method(method *MethodDesc, handler any) *MethodDesc {
	if method == nil || method.Handle == nil {
		return method
	}
	request, response := typeOf(method.NewRequest), typeOf(method.NewResponse)
	next := HandlerFunc(func(ctx Context, req proto.Message) (proto.Message, error) {
		// Generated code would panic without a word of where it comes from.
		if req == nil || req.ProtoReflect().Descriptor().FullName() != request {
			return nil, Errorf(Internal, "%s: middleware called the handler with a %T; its request is a %s", method.FullName(), req, request)
		}
		return method.Handle(ctx, handler, req)
	})
	alone := true
	for i := len(w.middleware) - 1; i >= 0; i-- {
		if outer := w.middleware[i](method, next); outer != nil {
			next, alone = outer, false
		}
	}
	if alone {
		return method
	}
	wrapped := *method
	wrapped.Handle = func(ctx Context, _ any, req proto.Message) (proto.Message, error) {
		resp, err := next(ctx, req)
		if err == nil && resp != nil && resp.ProtoReflect().Descriptor().FullName() != response {
			return nil, Errorf(Internal, "%s: middleware returned a %T; the response is a %s", method.FullName(), resp, response)
		}
		return resp, err
	}
	return &wrapped
}

func typeOf(empty func() proto.Message) protoreflect.FullName {
	if empty == nil {
		return ""
	}
	return empty().ProtoReflect().Descriptor().FullName()
}

// WithContext is ctx with the values, the deadline and the end of derived, which must be derived
// from it: it panics if not. Middleware hands values to handlers so:
//
//	return next(actor.WithContext(ctx, context.WithValue(ctx, userKey{}, user)), req)
//
// What ends derived ends waits and no invocation, as any context derived from a handler's does.
func WithContext(ctx Context, derived context.Context) Context {
	of, ok := derived.Value(contextKey{}).(*handlerContext)
	if !ok || of.runtime != ctx.handler().runtime {
		panic("actor.WithContext: the context is not derived from the handler's")
	}
	return &handlerContext{Context: derived, runtime: of.runtime, options: of.options}
}

// WithCallOptions is ctx with options for all calls and sends that are made with it, or with a
// context derived from it: they come before those of the call itself, which count more. So
// middleware gives headers on:
//
//	ctx = actor.WithCallOptions(ctx, actor.Header("x-request-id", actor.HeaderOf(ctx, "x-request-id")))
//
// An [IdempotencyKey] among them would make one of all calls of a handler.
func WithCallOptions(ctx Context, opts ...Option) Context {
	of := ctx.handler()
	var all []Option
	if of.options != nil {
		all = append(all, *of.options...)
	}
	all = append(all, opts...)
	return &handlerContext{Context: ctx, runtime: of.runtime, options: &all}
}

// Replaying reports whether the handler that ctx is of is being replayed: steps that it makes now
// were recorded by an earlier attempt. It is for what leaves no trace in the handler's own work, such as
// a metric that should count once: what depends on it is not replayed the same. [Context.Logger] heeds
// it already. TRANSACTION and READ handlers are never replayed; they run anew, and so does a handler
// that has recorded nothing yet: what happens outside of a Run may happen again.
func Replaying(ctx context.Context) bool {
	handler, _ := lookup(ctx)
	return handler != nil && handler.runtime.Replaying()
}
