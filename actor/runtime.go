package actor

import (
	"context"
	"iter"
	"log/slog"
	"math/rand/v2"
	"time"
)

// Runtime is the one hook in this package for what runs handlers; neither handlers nor clients
// use it, and methods may be added to it in any version. It puts every step in terms of names
// and bytes, so that what is typed stays on this side of it.
//
// Steps that finish later return an entry index from 1, which Wait and Result understand.
// Methods without an error do not return if they fail: they end the attempt as Fail does. A
// Runtime is used by the goroutine of its handler; steps from elsewhere return an error.
type Runtime interface {
	// Invocation says what is running.
	Invocation() RuntimeInvocation
	// Headers are those of the invocation, by name. Any goroutine may ask.
	Headers() iter.Seq2[string, string]
	// Replaying: the next step was recorded by an earlier attempt. Any goroutine may ask.
	Replaying() bool
	// Logger logs nothing while steps are replayed.
	Logger() *slog.Logger
	// Now is the instant of the last step.
	Now() time.Time
	// Rand gives the same numbers in every attempt.
	Rand() *rand.Rand
	// Fail ends the attempt with err and does not return.
	Fail(err error)

	// State is the object's state message; ok is false if there is none. The value is read-only.
	State() (value []byte, ok bool)
	// SetState replaces or clears it. It keeps value.
	SetState(value []byte, clear bool)
	// TableGet returns one row, read-only.
	TableGet(table, key string) (value []byte, ok bool)
	// TableLen is the number of rows.
	TableLen(table string) int
	// TableScan calls yield with the rows from key from on, ascending, until it returns false.
	TableScan(table, from string, yield func(key string, value []byte) bool)
	// TablePut replaces or removes one row. It keeps value.
	TablePut(table, key string, value []byte, remove bool)

	// Call makes a request whose response is the entry's result.
	Call(ctx context.Context, call CallRequest) (index uint32, err error)
	// Send makes a one-way request and returns the id of its invocation.
	Send(ctx context.Context, call CallRequest) (id string, err error)
	// Run runs fn once its start is recorded. If async is set it returns at once and fn runs on
	// another goroutine; else it returns when the result is recorded.
	Run(ctx context.Context, name string, retry RunPolicy, async bool, fn func(context.Context) ([]byte, error)) (index uint32, err error)
	// Sleep completes at until.
	Sleep(ctx context.Context, wait time.Duration) (index uint32, until time.Time, err error)
	// StopTimer completes the entry of a Sleep with an error, unless it has completed.
	StopTimer(ctx context.Context, index uint32) error
	// Version is what the invocation runs with of a change: recorded, or highest if nothing is.
	Version(ctx context.Context, change string, lowest, highest int) int
	// Awakeable completes when somebody resolves or rejects id.
	Awakeable(ctx context.Context) (id string, index uint32, err error)
	// CompleteAwakeable resolves the awakeable with value, or rejects it with failure.
	CompleteAwakeable(ctx context.Context, id string, value []byte, failure *Error) error
	// AwaitPromise completes when the object's promise does.
	AwaitPromise(ctx context.Context, name string) (index uint32, err error)
	// PeekPromise looks at the promise without waiting.
	PeekPromise(ctx context.Context, name string) (value []byte, done bool, err error)
	// CompletePromise resolves the object's promise with value, or rejects it with failure.
	CompletePromise(ctx context.Context, name string, value []byte, failure *Error) error
	// Receive takes the next signal of that name.
	Receive(ctx context.Context, name string) (index uint32, err error)
	// CancelInvocation asks another invocation to stop.
	CancelInvocation(ctx context.Context, id string) error

	// Attach completes with the result of another invocation.
	Attach(ctx context.Context, id string) (index uint32, err error)
	// Peek is the result of another invocation, if it has one.
	Peek(ctx context.Context, id string) (value []byte, done bool, err error)

	// Wait returns the position in indexes of the first entry to complete. If none has, it returns
	// [ErrCanceled] once if the invocation was cancelled, and ctx's error if a context derived
	// from the handler's ended.
	Wait(ctx context.Context, indexes []uint32) (winner int, err error)
	// WaitUntil is Wait for a condition, which it has decided when it returns no error.
	WaitUntil(ctx context.Context, condition *Condition) error
	// Result is how an entry that Wait or WaitUntil found completed ended.
	Result(index uint32) (value []byte, err error)
}

// RuntimeInvocation is what a [Runtime] says of the invocation it runs.
type RuntimeInvocation struct {
	// ID of the invocation, as text.
	ID string
	// Attempt counts from 1.
	Attempt int
	// Method that runs.
	Method *MethodDesc
	// Key of the object, as text; "" for a SERVICE.
	Key string
}
