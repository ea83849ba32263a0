package inprocess

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/telemetry"
)

// Defaults of the policy of a Run.
const (
	defaultInitialInterval = 100 * time.Millisecond
	defaultMaxInterval     = 10 * time.Second
	defaultFactor          = 2
	defaultMaxAttempts     = 30
)

func resolveRun(policy actor.RunPolicy) actor.RunPolicy {
	if policy.InitialInterval <= 0 {
		policy.InitialInterval = defaultInitialInterval
	}
	if policy.MaxInterval <= 0 {
		policy.MaxInterval = max(defaultMaxInterval, policy.InitialInterval)
	}
	if !(policy.Factor >= 1) { // also for NaN
		policy.Factor = defaultFactor
	}
	if policy.MaxAttempts <= 0 {
		policy.MaxAttempts = defaultMaxAttempts
	}
	if policy.Retryable == nil {
		policy.Retryable = func(err error) bool { return !isCoded(err) }
	}
	return policy
}

// interval is the wait after so many failed tries.
func interval(policy actor.RunPolicy, failed uint32) time.Duration {
	wait := math.Min(float64(policy.InitialInterval)*math.Pow(policy.Factor, float64(failed-1)), float64(policy.MaxInterval))
	if policy.Jitter > 0 {
		wait -= wait * math.Min(policy.Jitter, 1) * rand.Float64()
	}
	return time.Duration(wait)
}

// retryAfter is the wait that an error has of its own; 0 is that of the policy.
func retryAfter(err error) (wait time.Duration, ok bool) {
	var asks interface{ RetryAfter() time.Duration }
	if !errors.As(err, &asks) {
		return 0, false
	}
	return max(asks.RetryAfter(), 0), true
}

// try calls the closure until it succeeds, fails for good or has used up its tries. It returns nil
// if ctx ended first.
func (d *durable) try(ctx context.Context, c *closure) *recordv1.Result {
	if c.first {
		traced, span := d.invoker.startStep(ctx, "Run ", c.name)
		result := errorResult(errorRecord(errExited)) // unless tryAll returns
		defer func() { endSpan(span, result.GetError()) }()
		result = d.tryAll(traced, c)
		return result
	}
	return d.tryAll(ctx, c)
}

func (d *durable) tryAll(ctx context.Context, c *closure) *recordv1.Result {
	timed := ctx
	if c.policy.MaxElapsed > 0 {
		var cancel context.CancelFunc
		timed, cancel = context.WithDeadline(ctx, c.began.Add(c.policy.MaxElapsed))
		defer cancel()
	}
	if next := c.tries.GetNextAt(); next != 0 && !d.pause(ctx, c, time.UnixMilli(next)) {
		return nil
	}
	for {
		if ctx.Err() == nil && timed.Err() != nil {
			return c.outOfTime(nil)
		}
		value, err := c.fn(timed)
		if err == nil {
			return &recordv1.Result{Value: value}
		}
		wait, asked := retryAfter(err)
		retryable := asked || c.policy.Retryable(err)
		switch {
		case !retryable && isCoded(err): // even if ctx has ended
			return errorResult(errorRecord(err))
		case ctx.Err() != nil:
			return nil
		case !retryable:
			return errorResult(errorRecord(err))
		case timed.Err() != nil:
			return c.outOfTime(err)
		}
		failed := c.tries.GetFailed() + 1
		d.invoker.config.Logger.Warn("run failed", telemetry.KeyInvocationID, d.attempt.ID.String(), telemetry.KeyService, d.attempt.Target.Service,
			telemetry.KeyHandler, d.attempt.Target.Handler, "run", c.name, "try", failed, telemetry.KeyError, err)
		if int64(failed) >= int64(c.policy.MaxAttempts) {
			last := errorRecord(err)
			if failed > 1 {
				last.Message = fmt.Sprintf("the last of %d tries: %s", failed, last.Message)
			}
			return errorResult(last)
		}
		if wait == 0 {
			wait = interval(c.policy, failed)
		}
		next := time.Now().Add(wait)
		c.tries = &recordv1.RunTries{Failed: failed, NextAt: next.UnixMilli(), LastFailure: brief(errorRecord(err))}
		if c.policy.MaxElapsed > 0 && !next.Before(c.began.Add(c.policy.MaxElapsed)) {
			return c.outOfTime(nil)
		}
		// So that tries are counted across a crash, and the rest of the wait is all that is waited.
		d.attempt.Host.Retry(d.attempt, c.index, c.tries)
		d.steps.Add(1) // Each try has the step timeout for itself.
		if !d.pause(ctx, c, next) || !d.gate() {
			return nil
		}
	}
}

// maxFailureBytes bounds what is kept of a failure between two tries.
const maxFailureBytes = 4 << 10

func brief(failure *recordv1.Error) *recordv1.Error {
	if len(failure.Message) > maxFailureBytes {
		failure.Message = strings.ToValidUTF8(failure.Message[:maxFailureBytes], "") + "…"
	}
	if proto.Size(failure) > 2*maxFailureBytes {
		failure.Details = nil
	}
	return failure
}

// outOfTime is the result of a closure that has used up MaxElapsed; err is how its last try failed,
// nil for one that is counted already or never ended.
func (c *closure) outOfTime(err error) *recordv1.Result {
	last, failed := c.tries.GetLastFailure(), c.tries.GetFailed()
	if err != nil {
		last, failed = errorRecord(err), failed+1
	}
	if last == nil {
		return errorResult(&recordv1.Error{Code: uint32(actor.DeadlineExceeded), Message: fmt.Sprintf("no try ended within %s", c.policy.MaxElapsed)})
	}
	return errorResult(&recordv1.Error{Code: last.Code, Details: last.Details, Message: fmt.Sprintf("given up after %d tries in %s: %s", failed, c.policy.MaxElapsed, last.Message)})
}

// pause waits until the next try of a closure. It reports false if ctx or the attempt has ended
// instead. A handler that waits so is suspended like one that waits for a future.
func (d *durable) pause(ctx context.Context, c *closure, until time.Time) bool {
	if wait := time.Until(until); wait > 0 {
		d.doze(ctx, c, until, wait)
	}
	// Only now: a closure that is counted as running keeps the handler from being suspended.
	return ctx.Err() == nil && !d.isStopped()
}

func (d *durable) doze(ctx context.Context, c *closure, until time.Time, wait time.Duration) {
	if c.async {
		d.mu.Lock()
		d.mu.closures--
		if d.mu.pauses == nil {
			d.mu.pauses = make(map[uint32]time.Time)
		}
		d.mu.pauses[c.index] = until
		d.mu.Unlock()
		d.awaken() // it may be all that kept the handler from being suspended
		defer func() {
			d.mu.Lock()
			d.mu.closures++
			delete(d.mu.pauses, c.index)
			d.mu.Unlock()
		}()
	}
	d.busy.Add(-1)
	defer d.busy.Add(1)
	var inactive <-chan time.Time
	if !c.async && d.suspendable(c.ctx) {
		timer := time.NewTimer(max(d.method.inactivity, 0))
		defer timer.Stop()
		inactive = timer.C
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		case <-d.over:
			return
		case <-inactive:
			inactive = nil
			if d.suspendIdle(&invoker.Outcome{Suspended: true, WaitingFor: []uint32{c.index}, WakeAt: until}, false) {
				runtime.Goexit()
			}
		}
	}
}

// suspendIdle stops the attempt as suspended unless a closure is at work, whose result would be
// lost, or a cancel has come that the caller has not seen. Closures that wait for their next try
// wake it in time.
func (d *durable) suspendIdle(outcome *invoker.Outcome, canceled bool) bool {
	d.mu.Lock()
	if d.mu.stopped || d.mu.finished || d.mu.closures > 0 || d.mu.canceled != canceled {
		d.mu.Unlock()
		return false
	}
	for _, until := range d.mu.pauses {
		if outcome.WakeAt.IsZero() || until.Before(outcome.WakeAt) {
			outcome.WakeAt = until
		}
	}
	d.mu.stopped, d.mu.outcome = true, outcome
	close(d.over)
	d.mu.Unlock()
	d.life.end(errSuspended)
	return true
}
