package partition

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	"github.com/perdure/perdure/internal/partition/fit"
	"github.com/perdure/perdure/internal/partition/rows"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// act does what an effect says. Those on attempts, none of which is gated, are done in the order in which
// the engine has them: a second attempt of an invocation may follow the first in one event.
func (p *Partition) act(l *leadership, effect engine.Effect) {
	switch e := effect.(type) {
	case *engine.Reply:
		p.answer(e.Token, reply{result: e.Result, existed: e.Existed, refused: e.Refused})
	case *engine.StartAttempt:
		p.start(l, e)
	case *engine.Notify:
		if a := l.attempts[e.ID]; a != nil {
			a.touch()
			a.running.Notify(e.Completion.Entry, e.Completion)
		}
	case *engine.CancelAttempt:
		if a := l.attempts[e.ID]; a != nil {
			a.running.Cancel()
		}
	case *engine.AbortAttempt:
		p.abort(l, e.ID, errors.New(e.Reason))
	case *engine.EndAttempt:
		if a := l.attempts[e.ID]; a != nil {
			delete(l.attempts, e.ID)
			p.ended(l, e.ID, a)
		}
	case *engine.EndInvocation:
		p.record(l, e.ID, e.Row)
	case *engine.SendMessage:
		p.dispatch(l, e)
	case *engine.Ack:
		p.toPartition(e.To, &engine.Acked{By: p.id, Sequence: e.Sequence})
	case *engine.Tell:
		p.toPartition(e.To, e.Event())
		if !l.ticking {
			l.ticking = true
			l.checkAt(time.Now().Add(checkEvery))
		}
	case *engine.Hide:
		p.hidden.Hide(e.Object)
	case *engine.Show:
		p.hidden.Show(e.Object)
	case *engine.TransactionEnded:
		p.meter.TransactionEnded(e.Committed, time.Duration(e.Took)*time.Millisecond)
	case *engine.PermitGranted:
		p.meter.PermitGranted(e.Limit, time.Duration(e.Waited)*time.Millisecond)
	case *engine.PermitRefused:
		p.meter.PermitRefused(e.Limit)
	case *engine.TransactionRetried:
		p.meter.TransactionRetried(reasonOf(e.Reason))
	case *engine.ScheduleMoved:
		p.meter.ScheduleMoved(e.Fired, e.Skipped, e.Missed)
		for _, late := range e.Late {
			p.meter.ScheduleFired(time.Duration(late) * time.Millisecond)
		}
	case *engine.CopyOn:
		p.postEvent(&e.CopyEntries)
	case *engine.ArmTimer:
		l.nextTimer, l.timerFloor = min(l.nextTimer, e.At), min(l.timerFloor, e.At)
	}
}

func (p *Partition) abort(l *leadership, id invocation.ID, cause error) {
	if a := l.attempts[id]; a != nil {
		delete(l.attempts, id)
		a.running.Abort(cause)
		p.ended(l, id, a)
	}
}

// start hands an attempt to the invoker.
func (p *Partition) start(l *leadership, e *engine.StartAttempt) {
	if cause, condemned := p.poison.invocations[e.ID]; condemned {
		p.postEvent(&engine.Quarantine{ID: e.ID, Cause: cause}) // It would break this leadership too.
		return
	}
	row := e.Row
	target := invocation.Target{Service: row.Target.GetService(), Key: row.Target.GetKey(), Handler: row.Target.GetHandler()}
	mode := invocation.Mode(row.Mode)
	timeout := time.Duration(row.StepTimeoutMs) * time.Millisecond
	switch {
	case mode.Journaled():
		timeout = 0 // The invoker looks after it: it knows a handler that waits from one that hangs.
	case timeout <= 0 && mode == invocation.ModeTransaction:
		timeout = p.config.TransactionTimeout
	case timeout <= 0:
		timeout = p.config.StepTimeout
	}
	a := &attempt{
		partition: p, epoch: l.epoch, id: e.ID, number: row.Attempt,
		stored: e.Stored && !e.Joined, row: row, mode: mode, timeout: timeout,
	}
	a.touch()
	if mode == invocation.ModeTransaction && !e.Joined {
		// All tries of a transaction together. A clock that went back since the first makes it no longer.
		a.deadline = time.Now().Add(min(time.UnixMilli(e.Since).Add(timeout).Sub(p.config.Now()), timeout))
	}
	l.attempts[e.ID] = a
	if !a.deadline.IsZero() {
		l.checkAt(a.deadline)
	}
	if p.meter != nil {
		a.meter = p.meter.Handler(target.Service, target.Handler)
		a.meter.AttemptStarted()
	}
	if mode == invocation.ModeRead && !e.Joined {
		p.startRead(l, a, e, target)
		return
	}
	started := &invoker.Attempt{
		ID:              e.ID,
		Number:          row.Attempt,
		Target:          target,
		Mode:            mode,
		Input:           e.Input,
		State:           e.State,
		HasState:        e.HasState,
		Tables:          rows.Tables(l.view, target.Object()),
		Writes:          e.Writes,
		Journal:         e.Journal,
		Completions:     e.Completions,
		Entries:         e.Entries,
		Known:           e.Known,
		LookAhead:       e.LookAhead,
		EntryBytes:      min(p.config.MaxEntryBytes, fit.WholeBytes),
		ResultBytes:     p.config.MaxResultBytes,
		Tries:           e.Tries,
		CancelRequested: e.CancelRequested,
		Origins:         row.Origins,
		Traceparent:     p.traceparent(e),
		StartedAt:       time.UnixMilli(cmp.Or(row.ContinuedAt, row.StartedAt)),
		Start:           row.JournalStart,
		Flow:            row.Flow,
		Headers:         row.Headers,
		Deployment:      row.Deployment,
		Earlier:         slices.Clone(row.EarlierDeployments),
		Stored:          e.Stored && !e.Joined,
		Host:            a,
	}
	if mode == invocation.ModeRead {
		started.Promise = rows.Promise(l.view, target.Object())
	}
	if p.mayWrite(NonceLevel) {
		started.Nonce = e.ID.Nonce(started.StartedAt.UnixMilli())
	}
	if row.DeadlineAt != 0 {
		started.Deadline = time.UnixMilli(row.DeadlineAt)
	}
	started.Chain = row.Chain
	if mode.Exclusive() && target.Key != "" {
		started.Chain = append(row.Chain[:len(row.Chain):len(row.Chain)], row.Target)
	}
	a.running = p.config.Invoker.Start(started)
}

// startRead runs a READ handler that another handler called: it has an invocation, since the
// call came as a message.
func (p *Partition) startRead(l *leadership, a *attempt, e *engine.StartAttempt, target invocation.Target) {
	ctx, cancel := context.WithTimeout(context.Background(), a.timeout)
	a.running = readRunning{cancel}
	in := &recordv1.Invoke{InvocationId: e.ID[:], Target: e.Row.Target, Mode: e.Row.Mode, Input: e.Input, Traceparent: p.traceparent(e), Headers: e.Row.Headers}
	// Its snapshot is of what is durable: the caller's own writes, and all it was told, must be
	// in it.
	p.grant(l, func() { p.runRead(ctx, cancel, in, a) })
}

func (p *Partition) runRead(ctx context.Context, cancel context.CancelFunc, in *recordv1.Invoke, from *attempt) {
	p.reads.Go(func() {
		defer cancel()
		result, err := p.read(ctx, in)
		if _, none := errors.AsType[*invoker.Unhosted](err); none { // it waits, and sees what there is then
			from.say(item{event: &engine.Restart{ID: from.id, Attempt: from.number}})
			return
		}
		if err != nil {
			result = &recordv1.Result{Error: &recordv1.Error{Code: codeOf(err), Message: err.Error()}}
		} else if refused := p.config.record().Refuse(targetOf(in), "its response to another handler", proto.Size(result)); refused != nil {
			result = &recordv1.Result{Error: refused}
		}
		from.say(item{event: &engine.Finish{ID: from.id, Attempt: from.number, Result: result}})
	})
}

type readRunning struct{ cancel context.CancelFunc }

func (readRunning) Notify(uint32, *recordv1.Completion) {}
func (r readRunning) Cancel()                           { r.cancel() }
func (r readRunning) Abort(error)                       { r.cancel() }

// touch starts the attempt's time anew, if it has any.
func (a *attempt) touch() {
	if a.timeout > 0 {
		a.deadline = time.Now().Add(a.timeout)
	}
}

// touch notes that an attempt made a step.
func (p *Partition) touch(l *leadership, event engine.Event) {
	if id, ok := spokenFor(event); ok {
		if a := l.attempts[id]; a != nil {
			a.touch()
		}
	}
}
