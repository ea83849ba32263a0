package actor

import (
	"context"
	"iter"
	"strings"
)

type header struct{ name, value string }

func (h header) applyCall(call *CallRequest) {
	name := strings.ToLower(h.name)
	if h.value == "" {
		delete(call.Headers, name)
		return
	}
	if call.Headers == nil {
		call.Headers = map[string]string{}
	}
	call.Headers[name] = h.value
}

func (h header) applySend(call *CallRequest) { h.applyCall(call) }

// Header gives a call a header, which its handler reads with [HeaderOf], in every attempt and on
// every node. Case makes no difference to the name; of two with the same name the later counts, and
// an empty value is none.
//
// Headers are kept on disk with the invocation, so a name that says it is a secret (authorization,
// cookie, what has "token" or "secret" in it, …) makes the call fail with [InvalidArgument]. So does
// one that is the protocol's own, a value with control characters, and more than 32 headers or
// 4 KiB of names and values. They are no part of what an idempotency key stands for: if two calls
// are one, the first one's headers count. A READ handler and one of a TRANSACTION see them too, a
// signal has none.
func Header(name, value string) Option { return header{name, value} }

// HeaderOf is the value of a header that the invocation was called with, "" if there is none. Case
// makes no difference to the name; several values are one, with ", " between them. ctx is a
// handler's, one derived from it, or that of a Run's closure. It is no step, and the same in each
// attempt.
//
// A handler sees what its caller gave with [Header], or named in the header Perdure-Headers, and what
// the node keeps of all requests (cluster.Config.Headers). What a handler calls does not see them
// unless it gives them on.
func HeaderOf(ctx context.Context, name string) string {
	name = strings.ToLower(name)
	for known, value := range HeadersOf(ctx) {
		if known == name {
			return value
		}
	}
	return ""
}

// HeadersOf are all headers that [HeaderOf] finds, in the order of their names, which are in lower
// case.
func HeadersOf(ctx context.Context) iter.Seq2[string, string] {
	if handler := around(ctx); handler != nil {
		return handler.runtime.Headers()
	}
	return func(func(string, string) bool) {}
}

// around is the handler that ctx is of, also within the closure of a Run.
func around(ctx context.Context) *handlerContext {
	if direct, ok := ctx.(Context); ok {
		return direct.handler()
	}
	switch found := ctx.Value(contextKey{}).(type) {
	case *handlerContext:
		return found
	case *closureContext:
		return around(found.Context)
	}
	return nil
}
