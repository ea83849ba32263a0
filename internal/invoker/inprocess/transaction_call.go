package inprocess

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/telemetry"
)

// calls are those that one attempt of a transaction has made. Most make none and have a nil *calls.
type calls struct {
	// wake is of one: something under mu has changed, or the attempt is stopped. Only the
	// handler's goroutine waits.
	wake  chan struct{}
	steps atomic.Uint64 // calls made, and calls completed

	mu struct {
		sync.Mutex
		results []*recordv1.Result        // of call index+1; nil: not completed
		open    int                       // how many are not
		spans   map[uint32]telemetry.Span // of those, if they are traced
	}
	few [4]*recordv1.Result // what mu.results begins with, here to save an allocation
}

func newCalls() *calls {
	c := &calls{wake: make(chan struct{}, 1)}
	c.mu.results = c.few[:0]
	return c
}

// begin adds a call and returns its index.
func (c *calls) begin(span telemetry.Span) uint32 {
	c.steps.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.results = append(c.mu.results, nil)
	c.mu.open++
	index := uint32(len(c.mu.results))
	if span.Recording() {
		if c.mu.spans == nil {
			c.mu.spans = make(map[uint32]telemetry.Span)
		}
		c.mu.spans[index] = span
	}
	return index
}

// complete takes in a result; the first for a call counts.
func (c *calls) complete(index uint32, result *recordv1.Result) {
	if result == nil {
		result = &recordv1.Result{}
	}
	c.mu.Lock()
	if index == 0 || int(index) > len(c.mu.results) || c.mu.results[index-1] != nil {
		c.mu.Unlock()
		return
	}
	c.mu.results[index-1] = result
	c.mu.open--
	span := c.mu.spans[index]
	delete(c.mu.spans, index)
	c.mu.Unlock()
	endSpan(span, result.GetError())
	c.steps.Add(1)
	c.awaken()
}

func (c *calls) awaken() {
	if c == nil {
		return
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *calls) progress() uint64 {
	if c == nil {
		return 0
	}
	return c.steps.Load()
}

// first is the position of the first index whose call has completed, or -1.
func (c *calls) first(indexes []uint32) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for position, index := range indexes {
		switch {
		case index == 0 || int(index) > len(c.mu.results):
			return -1, errNoCall(index)
		case c.mu.results[index-1] != nil:
			return position, nil
		}
	}
	return -1, nil
}

// result is nil if the call has not completed, or was not made.
func (c *calls) result(index uint32) *recordv1.Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	if index == 0 || int(index) > len(c.mu.results) {
		return nil
	}
	return c.mu.results[index-1]
}

func (c *calls) pending() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.open > 0
}

// endSpans ends the spans of calls whose result nobody will take.
func (c *calls) endSpans() {
	c.mu.Lock()
	spans := c.mu.spans
	c.mu.spans = nil
	c.mu.Unlock()
	for _, span := range spans {
		endSpan(span, nil)
	}
}

func errNoCall(index uint32) error {
	return actor.Errorf(actor.Internal, "Await: this handler has made no call %d", index)
}

// Call makes another handler part of the transaction. It has no id and no idempotency key: with
// the transaction it is done once, by the key of the handler that began the transaction, and
// nothing of it remains if that is rolled back.
func (t *transaction) Call(ctx context.Context, call actor.CallRequest) (uint32, error) {
	if err := t.enter("Call", ""); err != nil {
		return 0, err
	}
	defer t.leave()
	if err := t.refuseCall(call.Method); err != nil {
		return 0, err
	}
	invoke, err := NewInvoke(call, time.Now(), t.attempt.Flow)
	if err != nil {
		return 0, err
	}
	invoke.IdempotencyKey = ""
	var span telemetry.Span
	if t.invoker.tracer != nil {
		ctx, span = t.invoker.startStep(ctx, "Call ", call.Method.FullName())
	}
	invoke.Traceparent = t.invoker.traceparentOf(ctx, t.attempt.Traceparent)
	made := t.calls.Load()
	if made == nil {
		made = newCalls()
		t.calls.Store(made)
	}
	index := made.begin(span) // before the host has it: the result may come at once
	t.attempt.Host.Call(t.attempt, index, invoke)
	return index, nil
}

func (t *transaction) refuseCall(callee *actor.MethodDesc) error {
	switch {
	case t.attempt.Mode == invocation.ModeRead:
		return refuseCallInRead(t.method, callee)
	case callee.Mode == actor.ModeTransaction || callee.Mode == actor.ModeRead:
		return nil
	}
	return actor.Errorf(actor.FailedPrecondition, "%s is a TRANSACTION and can call only TRANSACTION and READ handlers, since what it calls may be rolled back; %s is %s: Send it, which takes effect with the transaction, or give the rpc of %s the option (perdure.v1.method) = {mode: DURABLE}", t.method.desc.FullName(), callee.FullName(), callee.Mode, t.method.desc.Name)
}

// Notify takes in the result of a call.
func (t *transaction) Notify(index uint32, completion *recordv1.Completion) {
	if made := t.calls.Load(); made != nil {
		made.complete(index, completion.GetResult())
	}
}

// Wait waits for the first of the calls to complete, or for the end of ctx.
func (t *transaction) Wait(ctx context.Context, indexes []uint32) (int, error) {
	for {
		// Not within the guard, which would blame whoever finds it taken.
		if err := t.enter("Await", ""); err != nil {
			return 0, err
		}
		t.leave()
		made := t.calls.Load()
		if made == nil {
			return 0, errNoCall(indexes[0])
		}
		winner, err := made.first(indexes)
		if err != nil || winner >= 0 {
			return winner, err
		}
		// An end of the attempt ends ctx too: enter unwinds then.
		if ctx.Err() != nil && !t.over.Load() {
			return 0, contextError(ctx)
		}
		select {
		case <-made.wake:
		case <-ctx.Done():
		}
	}
}

// WaitUntil waits for one call after the other.
func (t *transaction) WaitUntil(ctx context.Context, condition *actor.Condition) error {
	return waitUntil(ctx, condition, func(index uint32) (done, failure bool) {
		made := t.calls.Load()
		if made == nil {
			return true, true // Result says why
		}
		result := made.result(index)
		return result != nil, result.GetError() != nil
	}, t.Wait)
}

// Result is how a call that Wait named completed.
func (t *transaction) Result(index uint32) ([]byte, error) {
	if err := t.enter("Await", ""); err != nil {
		return nil, err
	}
	defer t.leave()
	if made := t.calls.Load(); made != nil {
		if result := made.result(index); result != nil {
			return resultParts(result)
		}
	}
	return nil, actor.Errorf(actor.Internal, "call %d was read before it completed", index)
}

// awaitCalls waits until the calls that the handler made are through, whatever their results: what
// they do is part of the transaction, and its end must not pass them.
func (t *transaction) awaitCalls() {
	made := t.calls.Load()
	if made == nil {
		return
	}
	for made.pending() && !t.over.Load() {
		<-made.wake
	}
	made.endSpans()
}
