package partition

import (
	"context"
	"time"

	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/telemetry"
)

// count notes what an event was; metrics are on.
func (p *Partition) count(event engine.Event, out *engine.Output) {
	switch ev := event.(type) {
	case *engine.Append:
		if len(out.Mutations) > 0 { // else the attempt was superseded
			p.meter.Entry(kindOf(ev.Entry))
		}
	case *engine.Deliver:
		switch {
		case len(out.Mutations) > 0:
			p.meter.MessageReceived(false)
		case len(out.Effects) > 0: // nothing but the acknowledgement, once more
			p.meter.MessageReceived(true)
		}
	}
}

func kindOf(entry *recordv1.Entry) telemetry.EntryKind {
	switch entry.GetEntry().(type) {
	case *recordv1.Entry_Call:
		return telemetry.EntryCall
	case *recordv1.Entry_Send:
		return telemetry.EntrySend
	case *recordv1.Entry_Sleep:
		return telemetry.EntrySleep
	case *recordv1.Entry_Run:
		return telemetry.EntryRun
	case *recordv1.Entry_SetState:
		return telemetry.EntrySetState
	case *recordv1.Entry_TablePut:
		return telemetry.EntryTablePut
	case *recordv1.Entry_Awakeable:
		return telemetry.EntryAwakeable
	case *recordv1.Entry_AwaitPromise:
		return telemetry.EntryAwaitPromise
	case *recordv1.Entry_CompletePromise:
		return telemetry.EntryCompletePromise
	case *recordv1.Entry_Receive:
		return telemetry.EntryReceive
	case *recordv1.Entry_CompleteAwakeable:
		return telemetry.EntryCompleteAwakeable
	case *recordv1.Entry_Wait:
		return telemetry.EntryWait
	case *recordv1.Entry_CancelInvocation:
		return telemetry.EntryCancelInvocation
	case *recordv1.Entry_Version:
		return telemetry.EntryVersion
	case *recordv1.Entry_Attach:
		return telemetry.EntryAttach
	case *recordv1.Entry_StopTimer:
		return telemetry.EntryStopTimer
	}
	return telemetry.EntryOther
}

// traceparent is what an attempt continues: the span of its invocation. A call that is part of a
// transaction has no invocation of its own: its attempt continues the span of the call.
func (p *Partition) traceparent(e *engine.StartAttempt) string {
	if p.config.Tracer == nil || e.Row.Traceparent == "" || e.Joined {
		return e.Row.Traceparent
	}
	return p.config.Tracer.InvocationTraceparent(e.ID.String(), e.Row.Traceparent)
}

// ended notes the end of an attempt and, if the invocation ended with it, exports its span once
// that is durable: otherwise a crash would lead to a second one. An invocation that ends while
// no attempt runs (killed in its inbox, or suspended) has none.
func (p *Partition) ended(l *leadership, id invocation.ID, a *attempt) {
	if a.meter != nil {
		a.meter.AttemptEnded(outcomeOf(l.event))
	}
	p.record(l, id, a.row)
}

// record exports the span of an invocation that has ended.
func (p *Partition) record(l *leadership, id invocation.ID, row *recordv1.Invocation) {
	if p.config.Tracer == nil || row.Traceparent == "" || row.CompletedAt == 0 {
		return
	}
	span := telemetry.Invocation{
		Procedure: row.Target.GetService() + "/" + row.Target.GetHandler(), Mode: invocation.Mode(row.Mode).String(),
		ID: id.String(), Key: row.Target.GetKey(), Attempts: row.Attempt, Traceparent: row.Traceparent,
		CreatedAt: time.UnixMilli(row.CreatedAt), CompletedAt: time.UnixMilli(row.CompletedAt), Code: "ok",
	}
	if failure := row.Result.GetError(); failure != nil {
		span.Code, span.Message = telemetry.CodeName(failure.GetCode()), failure.GetMessage()
	}
	p.grant(l, func() { p.config.Tracer.RecordInvocation(span) })
}

// outcomeOf is how the attempt ended that an event ended.
func outcomeOf(event engine.Event) telemetry.Outcome {
	switch ev := event.(type) {
	case *engine.Finish:
		if ev.Result.GetError() != nil {
			return telemetry.OutcomeFailed
		}
		return telemetry.OutcomeSucceeded
	case *engine.ContinueAsNew:
		return telemetry.OutcomeSucceeded
	case *engine.Suspend:
		return telemetry.OutcomeSuspended
	case *engine.Fail, *engine.TimeOut, *engine.Restart:
		return telemetry.OutcomeRetried
	}
	return telemetry.OutcomeAborted
}

func reasonOf(reason engine.RetryReason) telemetry.RetryReason {
	switch reason {
	case engine.RetryWound:
		return telemetry.RetryWound
	case engine.RetryBlocked:
		return telemetry.RetryBlocked
	case engine.RetryLost:
		return telemetry.RetryLost
	}
	return telemetry.RetryOther
}

// Levels sums up what all partitions hold, for the metrics. It waits for each partition's
// goroutine, at most a second; false if that was not enough.
func (r *Router) Levels(ctx context.Context) (telemetry.Levels, bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	answers := make(chan telemetry.Levels, len(r.partitions))
	for _, p := range r.partitions {
		p.post(item{control: controlMeasure, granted: func() { answers <- p.levels() }})
	}
	var sum telemetry.Levels
	for range r.partitions {
		select {
		case one := <-answers:
			sum.PartitionsLed += one.PartitionsLed
			sum.LiveInvocations += one.LiveInvocations
			sum.HeldKeys += one.HeldKeys
			sum.InboxDepth += one.InboxDepth
			sum.RunningAttempts += one.RunningAttempts
			sum.OutboxMessages += one.OutboxMessages
			sum.OverlayBytes += one.OverlayBytes
			sum.Transactions += one.Transactions
			sum.PreparedTransactions += one.PreparedTransactions
			sum.PermitsHeld += one.PermitsHeld
			sum.LimitsWaiting += one.LimitsWaiting
		case <-ctx.Done():
			return telemetry.Levels{}, false
		}
	}
	return sum, true
}

// levels is called on the partition's goroutine.
func (p *Partition) levels() telemetry.Levels {
	l := p.leading.Load()
	if l == nil {
		return telemetry.Levels{}
	}
	live, held := l.engine.Live()
	levels := telemetry.Levels{
		PartitionsLed: 1, LiveInvocations: int64(live), HeldKeys: int64(held), InboxDepth: int64(l.engine.Queued()),
		RunningAttempts: int64(len(l.attempts)), OverlayBytes: int64(l.view.Bytes()),
	}
	coordinated, prepared := l.engine.Underway()
	levels.Transactions, levels.PreparedTransactions = int64(coordinated), int64(prepared)
	_, permits, waiting := l.engine.Limits().Counts()
	levels.PermitsHeld, levels.LimitsWaiting = int64(permits), int64(waiting)
	for _, o := range l.outbox {
		levels.OutboxMessages += int64(o.sent - min(o.acked, o.sent))
	}
	return levels
}
