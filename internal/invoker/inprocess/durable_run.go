package inprocess

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// closure is the function of one Run whose result is not recorded.
type closure struct {
	name  string
	index uint32
	// ctx is the handler's, or derived from it.
	ctx    context.Context
	policy actor.RunPolicy
	fn     func(context.Context) ([]byte, error)
	// first: no earlier attempt has begun it.
	first bool
	async bool
	// began is when the first try did, or might have.
	began time.Time
	// tries that failed; nil: none.
	tries *recordv1.RunTries
}

// Run records that the closure begins, has that made durable, runs it and records what it returned.
func (d *durable) Run(ctx context.Context, name string, policy actor.RunPolicy, async bool, fn func(context.Context) ([]byte, error)) (uint32, error) {
	if err := d.enter("Run ", name); err != nil {
		return 0, err
	}
	first := d.next() == nil
	index, entry := d.record(&recordv1.Entry{Entry: &recordv1.Entry_Run{Run: &recordv1.Run{Name: name}}}, nil)
	d.runs.add(index - d.attempt.Start)
	begun := &closure{
		name: name, index: index, ctx: ctx, policy: resolveRun(policy), fn: fn, first: first, async: async,
		began: time.UnixMilli(entry.GetAt()), tries: d.attempt.Tries[index],
	}
	completed := d.completion(index) != nil
	switch {
	case async:
		if !completed {
			d.runAside(begun)
		}
		return index, nil
	case completed:
		d.settle(index)
		return index, nil
	case d.next() != nil: // it ended with a cancel or with ctx, or else diverges
		_, err := d.replayWait(ctx, []uint32{index}, d.next())
		return index, err
	}
	return index, d.runHere(begun)
}

// runHere runs the closure on the handler's goroutine.
func (d *durable) runHere(c *closure) error {
	d.mu.Lock()
	canceled := d.mu.canceled
	d.mu.Unlock()
	if canceled {
		return d.deliverCancel(&awaited{entries: []uint32{c.index}})
	}
	if !d.gate() {
		runtime.Goexit()
	}
	ctx, stop := context.WithCancelCause(c.ctx)
	defer stop(errFinished)
	d.mu.Lock()
	d.mu.stopRun = stop
	if d.mu.canceled {
		stop(actor.ErrCanceled)
	}
	d.mu.Unlock()
	d.inRun = c.name
	result := d.try(ctx, c)
	d.inRun = ""
	d.mu.Lock()
	d.mu.stopRun = nil
	canceled = d.mu.canceled
	d.mu.Unlock()
	d.unwindIfStopped()
	d.steps.Add(1)
	switch {
	case result != nil && !(canceled && actor.Code(result.GetError().GetCode()) == actor.Canceled):
		d.complete(c, result)
		d.unwindIfStopped()
		d.settle(c.index)
		return nil
	case canceled:
		return d.deliverCancel(&awaited{entries: []uint32{c.index}})
	default:
		d.recordWait(&recordv1.Wait{Futures: []uint32{c.index}, Outcome: recordv1.WaitOutcome_WAIT_OUTCOME_DEADLINE})
		return contextError(c.ctx)
	}
}

// runAside runs the closure on a goroutine of its own, which the pool waits for.
func (d *durable) runAside(c *closure) {
	d.mu.Lock()
	d.mu.closures++
	d.mu.Unlock()
	d.busy.Add(1)
	durable := d.askDurable() // here, so that closures ask in the order of the program
	started := d.invoker.pool.goAside(&aside{fmt.Sprintf("RunAsync %q", c.name), d}, func() {
		returned := false
		defer func() {
			d.mu.Lock()
			d.mu.closures--
			d.mu.Unlock()
			d.busy.Add(-1)
			d.steps.Add(1)
			if panicked := recover(); panicked != nil {
				failure := d.invoker.panicked(d.method, d.attempt.ID, panicked, debug.Stack()).GetError()
				failure.Message = fmt.Sprintf("Run %q panicked: %v", c.name, panicked)
				d.stop(errExited, &invoker.Outcome{Retry: failure})
			} else if !returned {
				d.stop(errExited, &invoker.Outcome{Retry: errorRecord(errExited)})
			}
			d.awaken()
		}()
		if d.awaitDurable(durable) {
			d.completeAside(c, d.try(c.ctx, c))
		}
		returned = true
	})
	if !started {
		d.stop(errClosed, nil)
		runtime.Goexit()
	}
}

func (d *durable) completeAside(c *closure, result *recordv1.Result) {
	d.mu.Lock()
	tooLate := d.mu.stopped || d.mu.finished
	d.mu.Unlock()
	if tooLate {
		return
	}
	if result == nil { // c.ctx has ended
		result = errorResult(errorRecord(contextError(c.ctx)))
	}
	d.complete(c, result)
}

// gate waits until all that was appended is durable: nothing happens outside that a crash could
// make unhappen here. It reports false if the attempt was stopped instead.
func (d *durable) gate() bool { return d.awaitDurable(d.askDurable()) }

// askDurable returns what is closed once all that was appended is durable.
func (d *durable) askDurable() <-chan struct{} {
	durable := make(chan struct{})
	d.attempt.Host.AwaitDurable(d.attempt, func() { close(durable) })
	return durable
}

func (d *durable) awaitDurable(durable <-chan struct{}) bool {
	d.busy.Add(-1)
	defer d.busy.Add(1)
	select {
	case <-durable:
		return !d.isStopped()
	case <-d.over:
		return false
	}
}
