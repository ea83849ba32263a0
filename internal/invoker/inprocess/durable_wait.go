package inprocess

import (
	"context"
	"runtime"
	"slices"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// Wait waits for the first of the entries to complete, for a cancel, or for the end of a derived
// ctx.
func (d *durable) Wait(ctx context.Context, indexes []uint32) (int, error) {
	if err := d.enter("Await", ""); err != nil {
		return 0, err
	}
	if recorded := d.cursor.Next(); recorded != nil {
		return d.replayWait(ctx, indexes, recorded)
	}
	return d.wait(ctx, indexes)
}

// replayWait ends a wait as an earlier attempt saw it end.
func (d *durable) replayWait(ctx context.Context, indexes []uint32, recorded *recordv1.Entry) (int, error) {
	// A wait for one future that completed left no entry. It is told from one that did by what is
	// ahead: had this wait completed, so would have every later one for the same future alone, and
	// the entry could be of none.
	ofThis := recorded.GetWait() != nil && slices.Equal(recorded.GetWait().GetFutures(), indexes)
	if !ofThis && len(indexes) == 1 && d.completion(indexes[0]) != nil {
		d.settle(indexes[0])
		return 0, nil
	}
	made := &recordv1.Entry{Entry: &recordv1.Entry_Wait{Wait: &recordv1.Wait{Futures: indexes}}}
	if divergence := d.cursor.Match(made, nil); divergence != nil {
		made.Site = callSite()
		d.stop(divergence, d.diverged(divergence))
		runtime.Goexit()
	}
	d.pass(recorded)
	switch wait := recorded.GetWait(); wait.GetOutcome() {
	case recordv1.WaitOutcome_WAIT_OUTCOME_CANCELLED:
		d.told()
		return 0, actor.ErrCanceled
	case recordv1.WaitOutcome_WAIT_OUTCOME_DEADLINE:
		return 0, replayedContextError(ctx)
	default:
		winner := int(wait.GetWinner())
		if winner >= len(indexes) || d.completion(indexes[winner]) == nil {
			d.Fail(actor.Errorf(actor.DataLoss, "journal entry %d says that entry %d completed, but its completion is missing", d.cursor.Passed(), wait.GetWinner()))
		}
		d.settle(indexes[winner])
		return winner, nil
	}
}

// replayedContextError is the recorded end of a derived ctx. Its own error tells a deadline from a
// cancel if it has ended again; a deadline that starts anew with each attempt may not have.
func replayedContextError(ctx context.Context) error {
	if ctx.Err() != nil {
		return contextError(ctx)
	}
	ended, cancel := context.WithTimeout(ctx, 0)
	defer cancel()
	return contextError(ended)
}

// settle takes over the instant at which a future that was awaited has completed.
func (d *durable) settle(index uint32) {
	// The result of a Run has no instant while its attempt lives, so it gets none on replay.
	position := int(index-d.attempt.Start) - 1
	if position >= len(d.attempt.Journal) || d.attempt.Journal[position].GetRun() == nil {
		d.advance(d.completion(index).GetAt())
	}
}

// wait is Wait at the end of the journal.
func (d *durable) wait(ctx context.Context, indexes []uint32) (int, error) {
	mayTire, tired := d.suspendable(ctx), false
	var inactive <-chan time.Time
	for {
		d.mu.Lock()
		canceled, closures := d.mu.canceled, d.mu.closures
		winner := -1
		for position, index := range indexes {
			if d.mu.completions[index] != nil {
				winner = position
				break
			}
		}
		d.mu.Unlock()
		d.unwindIfStopped()
		switch {
		// Before a cancel and before the end of ctx: what completed has had its effect, and a
		// handler that were told of the cancel instead would not undo it. Nor may a wait that an
		// earlier attempt saw complete end otherwise; replayWait relies on that.
		case winner >= 0:
			if len(indexes) > 1 {
				d.recordWait(indexes, recordv1.WaitOutcome_WAIT_OUTCOME_COMPLETED, winner)
			}
			d.settle(indexes[winner])
			return winner, nil
		case canceled:
			return 0, d.deliverCancel(indexes)
		case ctx.Err() != nil:
			d.recordWait(indexes, recordv1.WaitOutcome_WAIT_OUTCOME_DEADLINE, 0)
			return 0, contextError(ctx)
		case mayTire && closures == 0 && (tired || d.invoker.config.InactivityTimeout <= SuspendAtOnce):
			d.stop(errSuspended, &invoker.Outcome{Suspended: true, WaitingFor: indexes})
			runtime.Goexit()
		}
		if mayTire && inactive == nil && d.invoker.config.InactivityTimeout > SuspendAtOnce {
			timer := time.NewTimer(d.invoker.config.InactivityTimeout)
			defer timer.Stop()
			inactive = timer.C
		}
		d.busy.Add(-1)
		select {
		case <-d.wake:
		case <-d.over:
		case <-ctx.Done():
		case <-inactive:
			tired = true
		}
		d.busy.Add(1)
		d.steps.Add(1)
	}
}

var errSuspended = actor.NewError(actor.Canceled, "the attempt was suspended")

// suspendable reports whether an unwound handler would be woken by all that can end the wait: a
// deadline of a derived ctx lives in this process only.
func (d *durable) suspendable(ctx context.Context) bool {
	if d.invoker.config.InactivityTimeout < 0 {
		return false
	}
	deadline, ok := ctx.Deadline()
	return !ok || deadline.Equal(d.attempt.Deadline)
}

func (d *durable) recordWait(indexes []uint32, outcome recordv1.WaitOutcome, winner int) {
	d.record(&recordv1.Entry{Entry: &recordv1.Entry_Wait{Wait: &recordv1.Wait{
		Futures: indexes, Outcome: outcome, Winner: uint32(winner),
	}}}, nil)
}

// deliverCancel tells the handler, once, that it was cancelled.
func (d *durable) deliverCancel(indexes []uint32) error {
	d.told()
	d.recordWait(indexes, recordv1.WaitOutcome_WAIT_OUTCOME_CANCELLED, 0)
	return actor.ErrCanceled
}

func (d *durable) told() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.canceled, d.mu.told = false, true
}

// Result is the completion of an entry that Wait returned, or of a Run.
func (d *durable) Result(index uint32) ([]byte, error) {
	if err := d.enter("Await", ""); err != nil {
		return nil, err
	}
	completion := d.completion(index)
	if completion == nil {
		d.Fail(actor.Errorf(actor.Internal, "entry %d was read before it completed", index))
	}
	return resultParts(completion.GetResult())
}
