package inprocess

import (
	"context"
	"runtime"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// awaited is what one wait is for: the first of some entries, or, if it is set, a condition.
type awaited struct {
	entries   []uint32
	condition *actor.Condition
	// of a condition: how it is recorded. entries are then those in it that are not decided.
	record *recordv1.Condition
}

// awaitedOf must be made anew for each wait: what is decided is left out.
func awaitedOf(condition *actor.Condition) *awaited {
	a := &awaited{condition: condition, record: conditionRecord(condition)}
	condition.Undecided(func(entry uint32) { a.entries = append(a.entries, entry) })
	return a
}

// wait is the record of how it ended.
func (a *awaited) wait(outcome recordv1.WaitOutcome) *recordv1.Wait {
	if a.condition != nil {
		return &recordv1.Wait{Condition: a.record, Outcome: outcome}
	}
	return &recordv1.Wait{Futures: a.entries, Outcome: outcome}
}

// Wait waits for the first of the entries to complete, for a cancel, or for the end of a derived
// ctx.
func (d *durable) Wait(ctx context.Context, indexes []uint32) (int, error) {
	if err := d.enter("Await", ""); err != nil {
		return 0, err
	}
	// A wait that left no entry may stand before the Version that is ahead: to pass that here would
	// make ctx.Now run ahead.
	recorded := d.cursor.Ahead()
	if recorded == nil && d.cursor.Replaying() {
		if len(indexes) == 1 && d.completion(indexes[0]) != nil {
			d.settle(indexes[0])
			return 0, nil
		}
		d.next() // nobody asks for it any more
	}
	if recorded != nil {
		return d.replayWait(ctx, indexes, recorded)
	}
	return d.wait(ctx, &awaited{entries: indexes})
}

// WaitUntil is Wait for a condition. One that is the first of some entries leaves the same trace
// as a Wait for them.
func (d *durable) WaitUntil(ctx context.Context, condition *actor.Condition) error {
	if entries := firstOfEntries(condition); entries != nil {
		winner, err := d.Wait(ctx, entries)
		if err != nil {
			return err
		}
		condition.Decide(func(entry uint32) (bool, bool) { return entry == entries[winner], d.failed(entry) })
		return nil
	}
	if err := d.enter("Await", ""); err != nil {
		return err
	}
	a, recorded := awaitedOf(condition), d.cursor.Ahead()
	if recorded == nil && d.cursor.Replaying() { // as in Wait
		if condition.Evident(d.ended) {
			d.decideReplayed(a)
			return nil
		}
		d.next()
	}
	if recorded != nil {
		return d.replayCondition(ctx, a, recorded)
	}
	_, err := d.wait(ctx, a)
	return err
}

// replayWait ends a wait as an earlier attempt saw it end.
func (d *durable) replayWait(ctx context.Context, indexes []uint32, recorded *recordv1.Entry) (int, error) {
	// A wait for one future that completed left no entry. It is told from one that did by what is
	// ahead: had this wait completed, so would have every later one for the same future alone, and
	// the entry could be of none.
	ofThis := recorded.GetWait() != nil && recorded.GetWait().GetCondition() == nil && slices.Equal(recorded.GetWait().GetFutures(), indexes)
	if !ofThis && len(indexes) == 1 && d.completion(indexes[0]) != nil {
		d.settle(indexes[0])
		return 0, nil
	}
	d.matchWait(&awaited{entries: indexes}, recorded)
	wait := recorded.GetWait()
	if err := d.replayedEnd(ctx, wait); err != nil {
		return 0, err
	}
	winner := int(wait.GetWinner())
	if winner >= len(indexes) || d.completion(indexes[winner]) == nil {
		d.Fail(actor.Errorf(actor.DataLoss, "journal entry %d says that entry %d completed, but its completion is missing", d.cursor.Passed(), wait.GetWinner()))
	}
	d.hear(d.heardBy(wait.GetCancelHeard(), indexes[winner:winner+1]))
	d.settle(indexes[winner])
	return winner, nil
}

// replayCondition is replayWait for a condition.
func (d *durable) replayCondition(ctx context.Context, a *awaited, recorded *recordv1.Entry) error {
	ofThis := recorded.GetWait().GetCondition() != nil && proto.Equal(recorded.GetWait().GetCondition(), a.record)
	// One whose end is evident left no entry, and by now all of it has completed: as above.
	if !ofThis && a.condition.Decidable(d.ended) {
		d.decideReplayed(a)
		return nil
	}
	d.matchWait(a, recorded)
	wait := recorded.GetWait()
	if err := d.replayedEnd(ctx, wait); err != nil {
		return err
	}
	seen := map[uint32]bool{}
	for position, entry := range a.entries {
		if at := position / 8; at < len(wait.GetCompleted()) && wait.GetCompleted()[at]>>(position%8)&1 == 1 {
			seen[entry] = true
			if d.completion(entry) == nil {
				d.Fail(actor.Errorf(actor.DataLoss, "journal entry %d says that entry %d completed, but its completion is missing", d.cursor.Passed(), entry))
			}
			d.hear(d.heardBy(wait.GetCancelHeard(), []uint32{entry}))
		}
	}
	if !a.condition.Decide(func(entry uint32) (bool, bool) { return seen[entry], d.failed(entry) }) {
		d.Fail(actor.Errorf(actor.DataLoss, "journal entry %d says that a wait ended, but what it names as completed does not end it", d.cursor.Passed()))
	}
	return nil
}

// decideReplayed decides a condition by all that has completed since.
func (d *durable) decideReplayed(a *awaited) {
	a.condition.Decide(d.ended)
	for _, entry := range a.entries {
		if d.completion(entry) != nil {
			d.settle(entry)
		}
	}
}

// matchWait goes past the entry ahead, which must be of this wait.
func (d *durable) matchWait(a *awaited, recorded *recordv1.Entry) {
	d.next()
	made := &recordv1.Entry{Entry: &recordv1.Entry_Wait{Wait: a.wait(recordv1.WaitOutcome_WAIT_OUTCOME_UNSPECIFIED)}}
	if divergence := d.cursor.Match(made, nil); divergence != nil {
		made.Site = callSite()
		d.stop(divergence, d.diverged(divergence))
		runtime.Goexit()
	}
	d.pass(recorded)
}

// replayedEnd is nil for a wait that completed.
func (d *durable) replayedEnd(ctx context.Context, wait *recordv1.Wait) error {
	switch wait.GetOutcome() {
	case recordv1.WaitOutcome_WAIT_OUTCOME_CANCELLED:
		d.told()
		return actor.ErrCanceled
	case recordv1.WaitOutcome_WAIT_OUTCOME_DEADLINE:
		return replayedContextError(ctx)
	}
	return nil
}

// ended says for a condition how an entry has completed.
func (d *durable) ended(entry uint32) (done, failure bool) {
	completion := d.completion(entry)
	return completion != nil, completion.GetResult().GetError() != nil
}

func (d *durable) failed(entry uint32) bool {
	_, failure := d.ended(entry)
	return failure
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
	if !d.runs.has(index - d.attempt.Start) {
		d.advance(d.completion(index).GetAt())
	}
}

// wait is Wait, or WaitUntil, at the end of the journal.
func (d *durable) wait(ctx context.Context, a *awaited) (int, error) {
	mayTire, tired := d.suspendable(ctx), false
	var inactive <-chan time.Time
	d.recall(a.entries)
	d.park.tired.Store(false)
	for {
		d.mu.Lock()
		canceled, closures := d.mu.canceled, d.mu.closures
		winner, seen := a.lookLocked(d.mu.completions)
		d.mu.Unlock()
		d.unwindIfStopped()
		switch {
		// Before a cancel and before the end of ctx: what completed has had its effect, and a
		// handler that were told of the cancel instead would not undo it. Nor may a wait that an
		// earlier attempt saw complete end otherwise; replayWait relies on that.
		case seen != nil:
			d.completeCondition(a, seen, canceled)
			return 0, nil
		case winner >= 0:
			heard := d.heardBy(canceled, a.entries[winner:winner+1])
			if len(a.entries) > 1 || len(heard) > 0 {
				wait := a.wait(recordv1.WaitOutcome_WAIT_OUTCOME_COMPLETED)
				wait.Winner, wait.CancelHeard = uint32(winner), len(heard) > 0
				d.recordWait(wait)
			}
			d.hear(heard)
			d.settle(a.entries[winner])
			return winner, nil
		// A call that is waited for was cancelled too, before its caller hears of it: the leaves of
		// a tree of calls undo what they did first.
		case canceled && !d.awaitsCall(a.entries):
			return 0, d.deliverCancel(a)
		case ctx.Err() != nil:
			d.recordWait(a.wait(recordv1.WaitOutcome_WAIT_OUTCOME_DEADLINE))
			return 0, contextError(ctx)
		case mayTire && closures == 0 && (tired || d.park.tired.Load() || d.method.inactivity <= SuspendAtOnce):
			if d.suspendIdle(&invoker.Outcome{Suspended: true, WaitingFor: a.entries, WaitingUntil: a.record}, canceled) {
				runtime.Goexit()
			}
			continue // what kept it from that is there to be seen
		}
		if mayTire && inactive == nil && d.method.inactivity > SuspendAtOnce {
			timer := time.NewTimer(d.method.inactivity)
			defer timer.Stop()
			inactive = timer.C
		}
		mayPark := mayTire && closures == 0
		if mayPark {
			d.invoker.parked.enter(d)
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
		if mayPark {
			d.invoker.parked.leave(d)
		}
		d.steps.Add(1)
	}
}

// lookLocked is the position of the first entry that has completed, or -1; of a condition that can
// be decided, how its entries have ended: true for those that failed.
func (a *awaited) lookLocked(completions map[uint32]*recordv1.Completion) (winner int, seen map[uint32]bool) {
	if a.condition == nil {
		for position, entry := range a.entries {
			if completions[entry] != nil {
				return position, nil
			}
		}
		return -1, nil
	}
	decided := a.condition.Decidable(func(entry uint32) (bool, bool) {
		completion := completions[entry]
		return completion != nil, completion.GetResult().GetError() != nil
	})
	if !decided {
		return -1, nil
	}
	seen = make(map[uint32]bool, len(a.entries))
	for _, entry := range a.entries {
		if completion := completions[entry]; completion != nil {
			seen[entry] = completion.GetResult().GetError() != nil
		}
	}
	return -1, seen
}

// completeCondition decides the condition by what was seen, and records that unless it is evident.
func (d *durable) completeCondition(a *awaited, seen map[uint32]bool, canceled bool) {
	heard := d.heardBy(canceled, slices.DeleteFunc(slices.Clone(a.entries), func(entry uint32) bool { return !seen[entry] }))
	ended := func(entry uint32) (bool, bool) {
		failure, done := seen[entry]
		return done, failure
	}
	evident := a.condition.Evident(ended)
	a.condition.Decide(ended)
	if evident && len(heard) == 0 {
		for _, entry := range a.entries {
			d.settle(entry)
		}
		return
	}
	wait := a.wait(recordv1.WaitOutcome_WAIT_OUTCOME_COMPLETED)
	wait.CancelHeard = len(heard) > 0
	wait.Completed = make([]byte, (len(a.entries)+7)/8)
	for position, entry := range a.entries {
		if _, done := seen[entry]; done {
			wait.Completed[position/8] |= 1 << (position % 8)
		}
	}
	d.recordWait(wait)
	d.hear(heard)
}

// awaitsCall reports whether one of the entries is a call that is not complete.
func (d *durable) awaitsCall(entries []uint32) bool {
	return slices.ContainsFunc(entries, func(entry uint32) bool { return slices.Contains(d.calls, entry) && d.completion(entry) == nil })
}

// heardBy are those of the completed entries that are calls which ended cancelled, if the
// invocation was and has not been told.
func (d *durable) heardBy(canceled bool, entries []uint32) (calls []uint32) {
	if !canceled {
		return nil
	}
	for _, entry := range entries {
		if slices.Contains(d.calls, entry) && d.completion(entry).GetResult().GetError().GetCode() == uint32(actor.Canceled) {
			calls = append(calls, entry)
		}
	}
	return calls
}

// hear tells the handler of the cancel by the end of its calls.
func (d *durable) hear(calls []uint32) {
	if len(calls) > 0 {
		d.heard = append(d.heard, calls...)
		d.told()
	}
}

var errSuspended = actor.NewError(actor.Canceled, "the attempt was suspended")

// suspendable reports whether an unwound handler would be woken by all that can end the wait: a
// deadline of a derived ctx lives in this process only.
func (d *durable) suspendable(ctx context.Context) bool {
	if d.method.inactivity < 0 {
		return false
	}
	deadline, ok := ctx.Deadline()
	return !ok || deadline.Equal(d.attempt.Deadline)
}

func (d *durable) recordWait(wait *recordv1.Wait) {
	d.record(&recordv1.Entry{Entry: &recordv1.Entry_Wait{Wait: wait}}, nil)
}

// deliverCancel tells the handler, once, that it was cancelled.
func (d *durable) deliverCancel(a *awaited) error {
	d.told()
	d.recordWait(a.wait(recordv1.WaitOutcome_WAIT_OUTCOME_CANCELLED))
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
	if slices.Contains(d.heard, index) {
		return nil, actor.ErrCanceled
	}
	if completion.GetParts() != nil {
		return d.large(completion), nil
	}
	return resultParts(completion.GetResult())
}
