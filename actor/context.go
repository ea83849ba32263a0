package actor

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
)

// Context is what every handler gets, embedded in the context type of its service and mode. Its
// Done channel is closed when the attempt is over: superseded, killed, or its node stopped. An
// invocation that is cancelled is told by [ErrCanceled] instead.
//
// It is sealed: methods may be added to it.
type Context interface {
	context.Context
	Caller
	// InvocationID names this invocation for ever. With the name of a step it makes a good
	// idempotency key for the world outside.
	InvocationID() string
	// Attempt counts the tries at running this invocation, from 1.
	Attempt() int
	// Logger logs with the invocation's attributes, and nothing while steps are replayed.
	Logger() *slog.Logger
	// Now is the instant of the last recorded step; it is the same when replayed.
	Now() time.Time
	// Rand is seeded from the invocation id: it gives the same numbers in every attempt.
	Rand() *rand.Rand
	// UUID is a random UUID out of Rand.
	UUID() uuid.UUID

	handler() *handlerContext
}

// Caller is whom a generated stub calls through: a [Client], or a handler's [Context]. It is
// sealed.
type Caller interface {
	caller() (*Client, *handlerContext)
}

type handlerContext struct {
	context.Context
	runtime Runtime
	options *[]Option // of all calls; nil: none. See WithCallOptions
}

// NewContext makes the context of a handler whose steps go to runtime. It is for the runtime
// and for generated code's tests, not for handlers.
func NewContext(parent context.Context, runtime Runtime) Context {
	return &handlerContext{Context: parent, runtime: runtime}
}

// RuntimeOf is what the steps of a handler go to. It is for what runs handlers and for
// actor/actortest, not for handlers.
func RuntimeOf(ctx Context) Runtime { return ctx.handler().runtime }

// closureContext is what a Run closure gets: values and end are the parent's, but steps made with
// it are refused with an error that names the closure.
type closureContext struct {
	context.Context
	run string
}

type contextKey struct{}

// Value finds the handler's context, for contexts derived from it.
func (c *handlerContext) Value(key any) any {
	if key == (contextKey{}) {
		return c
	}
	return c.Context.Value(key)
}

// Value hides the handler's context behind the closure's.
func (c *closureContext) Value(key any) any {
	if key == (contextKey{}) {
		return c
	}
	return c.Context.Value(key)
}

func (c *handlerContext) InvocationID() string               { return c.runtime.Invocation().ID }
func (c *handlerContext) Attempt() int                       { return c.runtime.Invocation().Attempt }
func (c *handlerContext) Logger() *slog.Logger               { return c.runtime.Logger() }
func (c *handlerContext) Now() time.Time                     { return c.runtime.Now() }
func (c *handlerContext) Rand() *rand.Rand                   { return c.runtime.Rand() }
func (c *handlerContext) caller() (*Client, *handlerContext) { return nil, c }
func (c *handlerContext) handler() *handlerContext           { return c }

func (c *handlerContext) UUID() uuid.UUID {
	var id uuid.UUID
	random := c.runtime.Rand()
	for at := 0; at < len(id); at += 8 {
		bits := random.Uint64()
		for shift := range 8 {
			id[at+shift] = byte(bits >> (8 * shift))
		}
	}
	id[6] = id[6]&0x0f | 0x40 // version 4
	id[8] = id[8]&0x3f | 0x80 // RFC 9562 variant
	return id
}

// lookup finds the handler that ctx belongs to; inside is the name of a Run closure that ctx
// belongs to, which hides the handler.
func lookup(ctx context.Context) (handler *handlerContext, inside string) {
	if direct, ok := ctx.(Context); ok {
		return direct.handler(), ""
	}
	switch found := ctx.Value(contextKey{}).(type) {
	case *handlerContext:
		return found, ""
	case *closureContext:
		return nil, found.run
	}
	return nil, ""
}

// runtimeOf is the runtime for a step, or why there is none.
func runtimeOf(ctx context.Context, step string) (Runtime, error) {
	handler, inside := lookup(ctx)
	switch {
	case handler != nil:
		return handler.runtime, nil
	case inside != "":
		return nil, Errorf(FailedPrecondition, "%s inside the closure of Run %q: a closure cannot make durable steps; make them before or after it", step, inside)
	}
	return nil, Errorf(FailedPrecondition, "%s needs the ctx of a handler, or one derived from it; this ctx has no invocation", step)
}
