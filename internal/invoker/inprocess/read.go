package inprocess

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
)

// read runs one READ handler on the goroutine of its caller. Its steps may come from any number of
// goroutines: nothing is journaled, so their order means nothing.
type read struct {
	invoker *Invoker
	method  *method
	read    *invoker.Read
	life    lifetime
	rows    rows // nothing is written to it
	began   time.Time

	mu struct {
		sync.Mutex
		random *rand.Rand
		logger *slog.Logger
		steps  []*readStep // index 1 is at 0
		failed error
		// migrated is the state as the handler sees it, once it has asked.
		migrated migrated
	}
}

// readStep is a call to another READ handler.
type readStep struct {
	done   chan struct{}
	result *recordv1.Result // written before done is closed
	err    error
}

var _ actor.Runtime = (*read)(nil)

// stopRead is what Fail panics with: the goroutine is the caller's, so runtime.Goexit would end
// more than the handler. A handler that recovers it fails all the same.
type stopRead struct{}

// Read runs a READ handler.
func (inv *Invoker) Read(ctx context.Context, request *invoker.Read) (result *recordv1.Result) {
	m := inv.method(request.Target.Service, request.Target.Handler)
	if m == nil || m.desc.Handle == nil {
		return errorResult(errorRecord(errNotRegistered(request.Target)))
	}
	// Only if asked for: most reads are too short to pay for a timer.
	if m.desc.Options.StepTimeout > 0 {
		timed, cancel := context.WithTimeoutCause(ctx, m.stepTimeout, errStepTimeout(m))
		defer cancel()
		ctx = timed
	}
	ctx, span := inv.startAttempt(ctx, m, request.ID, request.Target, 1, request.Traceparent)
	defer func() { endSpan(span, result.GetError()) }()
	r := &read{invoker: inv, method: m, read: request, began: time.Now(), rows: rows{base: request.Tables}}
	r.life.parent = ctx
	if !inv.pool.enter(r) {
		return errorResult(errorRecord(errClosed))
	}
	defer inv.pool.leave(r)
	defer func() {
		panicked := recover()
		r.life.end(errFinished) // also for the calls that nobody awaited; the pool waits for them
		r.mu.Lock()
		failed := r.mu.failed
		r.mu.Unlock()
		switch {
		case failed != nil:
			result = errorResult(errorRecord(failed))
		case panicked != nil:
			result = inv.panicked(m, request.ID, panicked, debug.Stack())
		}
	}()
	req, err := m.decodeInput(request.Input)
	if err != nil {
		return errorResult(errorRecord(err))
	}
	resp, err := m.desc.Handle(actor.NewContext(&r.life, r), m.service.handler, req)
	if err != nil {
		switch {
		case errors.Is(err, context.Canceled) && r.life.endedBy(errClosed):
			err = errClosed
		case !isCoded(err) && ctx.Err() != nil && errors.Is(err, ctx.Err()):
			err = context.Cause(ctx)
		}
		inv.logUncoded(m, request.ID, 1, err)
		return errorResult(errorRecord(err))
	}
	return m.encodeResponse(resp)
}

func (r *read) String() string { return describe(r.read.Target, r.read.ID) }

// Abort ends the handler's ctx.
func (r *read) Abort(cause error) { r.life.end(cause) }

func (r *read) Fail(err error) {
	r.mu.Lock()
	if r.mu.failed == nil {
		r.mu.failed = err
	}
	r.mu.Unlock()
	if !onReadStack() {
		runtime.Goexit() // a goroutine of the handler's own, where a panic would end the process
	}
	panic(stopRead{})
}

// onReadStack reports whether Read is below on this goroutine's stack.
func onReadStack() bool {
	counters := make([]uintptr, 256)
	frames := runtime.CallersFrames(counters[:runtime.Callers(2, counters)])
	for {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.Function, "inprocess.(*Invoker).Read") {
			return true
		}
		if !more {
			return false
		}
	}
}

func (r *read) Invocation() actor.RuntimeInvocation {
	return actor.RuntimeInvocation{ID: r.read.ID.String(), Attempt: 1, Method: r.method.desc, Key: r.read.Target.Key}
}

func (r *read) Logger() *slog.Logger {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.logger == nil {
		r.mu.logger = r.invoker.loggerOf(r.read.ID, r.read.Target, 1)
	}
	return r.mu.logger
}

func (r *read) Now() time.Time { return r.began }

func (r *read) Rand() *rand.Rand {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.random == nil {
		r.mu.random = randomOf(r.read.ID, r.began)
	}
	return r.mu.random
}

func (r *read) State() ([]byte, bool) {
	if !r.read.HasState {
		return nil, false
	}
	state, err := r.migrate()
	if err != nil {
		r.Fail(err)
	}
	return state, true
}

func (r *read) migrate() ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock() // Read takes it again, also if a migration ends the goroutine.
	return r.mu.migrated.of(r.method.service, r.read.Target.Key, r.read.State)
}

func (r *read) SetState([]byte, bool) { r.Fail(r.refuse("State().Set")) }

func (r *read) TableGet(table, key string) ([]byte, bool) {
	value, ok, err := r.rows.get(table, key)
	if err != nil {
		r.Fail(errTable(table, err))
	}
	if ok {
		if value, err = r.method.service.row(r.read.Target.Key, table, key, value); err != nil {
			r.Fail(err)
		}
	}
	return value, ok
}

func (r *read) TableLen(table string) int {
	count, err := r.rows.len(table)
	if err != nil {
		r.Fail(errTable(table, err))
	}
	return count
}

func (r *read) TableScan(table, from string, yield func(string, []byte) bool) {
	migrating, err := r.method.service.rows(&r.rows, r.read.Target.Key, table, from, yield)
	if migrating != nil {
		r.Fail(migrating)
	}
	if err != nil {
		r.Fail(errTable(table, err))
	}
}

func (r *read) TablePut(table, _ string, _ []byte, _ bool) { r.Fail(r.refuse("Put of table " + table)) }

func (r *read) refuse(step string) error { return refuseInRead(r.method, step) }

func refuseInRead(m *method, step string) error {
	return actor.Errorf(actor.FailedPrecondition, "%s: %s is a READ handler, which changes nothing and does not wait; give the rpc option (perdure.v1.method) = {mode: TRANSACTION} to write, or {mode: DURABLE} for steps that wait", step, m.desc.FullName())
}

func refuseAwaitInRead(m *method, name string) error {
	return actor.Errorf(actor.FailedPrecondition, "Await of promise %s: %s is a READ handler, which does not wait; Peek looks at the promise, and Await is for the RUN handler", name, m.desc.FullName())
}

// refuseCallInRead is nil for a call that a READ handler can make.
func refuseCallInRead(m *method, callee *actor.MethodDesc) error {
	if callee.Mode == actor.ModeRead {
		return nil
	}
	return actor.Errorf(actor.FailedPrecondition, "%s is a READ handler and can call only READ handlers; %s is %s", m.desc.FullName(), callee.FullName(), callee.Mode)
}

// Call reads elsewhere, on a goroutine of its own, so that several calls take the time of one.
func (r *read) Call(ctx context.Context, call actor.CallRequest) (uint32, error) {
	if err := refuseCallInRead(r.method, call.Method); err != nil {
		return 0, err
	}
	if r.read.Call == nil {
		return 0, actor.Errorf(actor.Unimplemented, "%s: a READ handler cannot make calls here", call.Method.FullName())
	}
	invoke, err := NewInvoke(call, time.Now(), nil)
	if err != nil {
		return 0, err
	}
	invoke.Traceparent = r.invoker.traceparentOf(ctx, r.read.Traceparent)
	step := &readStep{done: make(chan struct{})}
	r.mu.Lock()
	r.mu.steps = append(r.mu.steps, step)
	index := uint32(len(r.mu.steps))
	id := stepID(call, r.read.ID, r.began, index)
	invoke.InvocationId = id[:]
	r.mu.Unlock()
	// The handler's result does not wait for a call that it did not await and that heeds no ctx.
	begun := r.invoker.pool.goAside(&aside{"call of " + call.Method.FullName(), r}, func() {
		defer close(step.done)
		step.result, step.err = r.read.Call(ctx, invoke)
	})
	if !begun {
		return 0, errClosed
	}
	return index, nil
}

func (r *read) step(index uint32) *readStep {
	r.mu.Lock()
	defer r.mu.Unlock()
	if index == 0 || int(index) > len(r.mu.steps) {
		return nil
	}
	return r.mu.steps[index-1]
}

func (r *read) Wait(ctx context.Context, indexes []uint32) (int, error) {
	waited := make([]*readStep, 0, len(indexes))
	for position, index := range indexes {
		step := r.step(index)
		if step == nil {
			return 0, actor.Errorf(actor.Internal, "no step %d was made", index)
		}
		select {
		case <-step.done:
			return position, nil
		default:
		}
		waited = append(waited, step)
	}
	if len(waited) == 1 {
		select {
		case <-waited[0].done:
			return 0, nil
		case <-ctx.Done():
			return 0, contextError(ctx)
		}
	}
	cases := make([]reflect.SelectCase, 0, len(waited)+1)
	for _, step := range waited {
		cases = append(cases, reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(step.done)})
	}
	cases = append(cases, reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(ctx.Done())})
	winner, _, _ := reflect.Select(cases)
	if winner == len(waited) {
		return 0, contextError(ctx)
	}
	return winner, nil
}

// WaitUntil waits for one step after the other.
func (r *read) WaitUntil(ctx context.Context, condition *actor.Condition) error {
	return waitUntil(ctx, condition, func(index uint32) (done, failure bool) {
		step := r.step(index)
		if step == nil {
			return true, true // Result says why
		}
		select {
		case <-step.done:
			return true, step.err != nil || step.result.GetError() != nil
		default:
			return false, false
		}
	}, r.Wait)
}

// contextError is why ctx ended, as an error that a handler can return as it is.
func contextError(ctx context.Context) error {
	return actor.Terminal(actor.CodeOf(ctx.Err()), fmt.Errorf("the ctx of the wait ended: %w", ctx.Err()))
}

func (r *read) Result(index uint32) ([]byte, error) {
	step := r.step(index)
	if step == nil {
		return nil, actor.Errorf(actor.Internal, "no step %d was made", index)
	}
	if step.err != nil {
		return resultParts(errorResult(errorRecord(step.err)))
	}
	return resultParts(step.result)
}

func (r *read) CompleteAwakeable(ctx context.Context, id string, value []byte, failure *actor.Error) error {
	entry, err := completeAwakeableEntry(id, value, failure)
	if err != nil {
		return err
	}
	return r.complete(ctx, "ResolveAwakeable", entry)
}

func (r *read) CompletePromise(ctx context.Context, name string, value []byte, failure *actor.Error) error {
	return r.complete(ctx, "Resolve of promise "+name, completePromiseEntry(name, value, failure))
}

func (r *read) complete(ctx context.Context, step string, entry *recordv1.Entry) error {
	if r.read.Complete == nil {
		return actor.Errorf(actor.Unimplemented, "%s: a READ handler cannot complete promises here", step)
	}
	if err := r.read.Complete(ctx, entry); err != nil {
		if isCoded(err) {
			return err
		}
		if refused, ok := errors.AsType[*routing.Error](err); ok {
			return actor.NewError(actor.Code(refused.Code), refused.Message, refused.Details...)
		}
		return actor.Terminal(actor.CodeOf(err), err)
	}
	return nil
}

func (r *read) PeekPromise(_ context.Context, name string) ([]byte, bool, error) {
	return peek(r.read.Promise, name)
}

// peek looks at a promise; a nil promise has none completed.
func peek(promise func(name string) (*recordv1.Result, error), name string) ([]byte, bool, error) {
	if promise == nil {
		return nil, false, nil
	}
	result, err := promise(name)
	if err != nil || result == nil {
		return nil, false, err
	}
	value, err := resultParts(result)
	return value, true, err
}

func (r *read) Send(context.Context, actor.CallRequest) (string, error) { return "", r.refuse("Send") }

func (r *read) Run(_ context.Context, name string, _ actor.RunPolicy, _ bool, _ func(context.Context) ([]byte, error)) (uint32, error) {
	return 0, r.refuse(fmt.Sprintf("Run %q", name))
}

func (r *read) Sleep(context.Context, time.Duration) (uint32, time.Time, error) {
	return 0, time.Time{}, r.refuse("Sleep")
}

func (r *read) StopTimer(context.Context, uint32) error { return r.refuse("Stop of a timer") }

func (r *read) Awakeable(context.Context) (string, uint32, error) {
	return "", 0, r.refuse("NewAwakeable")
}

func (r *read) AwaitPromise(_ context.Context, name string) (uint32, error) {
	return 0, refuseAwaitInRead(r.method, name)
}

func (r *read) Receive(_ context.Context, name string) (uint32, error) {
	return 0, r.refuse("Receive of " + name)
}

func (r *read) CancelInvocation(context.Context, string) error { return r.refuse("Cancel") }
