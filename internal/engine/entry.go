package engine

import (
	"fmt"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

func (ev *Append) evaluate(e *Engine, now int64) error {
	l := e.attempt(ev.ID, ev.Attempt)
	if l == nil {
		return nil
	}
	if ev.Index != l.entries+1 {
		return fmt.Errorf("invocation %s: entry %d after entry %d", ev.ID, ev.Index, l.entries)
	}
	l.entries++
	e.changed = true
	if err := e.putMessage(table.Journal(l.id, ev.Index), ev.Entry); err != nil {
		return err
	}
	if store := e.noteEntry(l, ev.Entry); store || l.row.Failures > 0 || l.moved {
		l.row.Failures, l.row.Divergence = 0, nil
		if err := e.store(l); err != nil {
			return err
		}
	}
	return e.apply(l, ev.Index, ev.Entry, now)
}

// apply does what an entry asks for. index is 0 for an entry of a TRANSACTION.
func (e *Engine) apply(l *live, index uint32, entry *recordv1.Entry, now int64) error {
	switch entry := entry.Entry.(type) {
	case *recordv1.Entry_Call:
		return e.applyCall(l, index, entry.Call, now)
	case *recordv1.Entry_Send:
		return e.invoke(entry.Send.GetInvoke(), now)
	case *recordv1.Entry_Sleep:
		e.armTimer(table.Timer{At: entry.Sleep.GetUntil(), Kind: table.TimerSleep, ID: l.id, Entry: index})
		return nil
	case *recordv1.Entry_SetState:
		e.overtakeReaders(l)
		e.setState(l, entry.SetState)
		return nil
	case *recordv1.Entry_TablePut:
		e.overtakeReaders(l)
		return e.putRow(l, entry.TablePut)
	case *recordv1.Entry_AwaitPromise:
		return e.awaitPromise(l, index, entry.AwaitPromise, now)
	case *recordv1.Entry_CompletePromise:
		return e.applyCompletePromise(l, entry.CompletePromise, now)
	case *recordv1.Entry_Receive:
		return e.receive(l, index, entry.Receive, now)
	case *recordv1.Entry_CompleteAwakeable:
		return e.applyCompleteAwakeable(entry.CompleteAwakeable, now)
	case *recordv1.Entry_CancelInvocation:
		return e.applyCancel(l, entry.CancelInvocation, now)
	case *recordv1.Entry_Wait:
		return e.applyWait(l, entry.Wait)
	case *recordv1.Entry_Attach:
		return e.applyAttach(l, index, entry.Attach, now)
	case *recordv1.Entry_StopTimer:
		return e.stopTimer(l, entry.StopTimer, now)
	case *recordv1.Entry_Run, *recordv1.Entry_Awakeable, *recordv1.Entry_Version:
		return nil // Their completion is all that comes of them.
	}
	return fmt.Errorf("invocation %s: entry %d is of a kind this version does not know: %T", l.id, index, entry.Entry)
}

// applyCall makes a call. That of a handler which has not heard yet that it was cancelled ends
// as the calls ended that it had made before.
func (e *Engine) applyCall(l *live, index uint32, call *recordv1.Call, now int64) error {
	if err := e.invoke(call.GetInvoke(), now); err != nil || !l.row.CancelRequested || l.row.CancelDelivered {
		return err
	}
	return e.cancelCalls([]*recordv1.CancelCall{cancelOf(l, index, &recordv1.Entry{Entry: &recordv1.Entry_Call{Call: call}})}, false, now)
}

// invoke starts an invocation, here or in the partition of its id.
func (e *Engine) invoke(in *recordv1.Invoke, now int64) error {
	id, ok := invocation.IDFromBytes(in.GetInvocationId())
	if !ok {
		return fmt.Errorf("call to %s: bad invocation id of %d bytes", targetOf(in.GetTarget()), len(in.GetInvocationId()))
	}
	if to := id.Partition(e.config.Partitions); to != e.config.Partition {
		return e.send(to, &recordv1.Message{Message: &recordv1.Message_Invoke{Invoke: in}})
	}
	return e.accept(in, 0, true, false, now)
}

func (e *Engine) applyWait(l *live, wait *recordv1.Wait) error {
	if wait.Outcome != recordv1.WaitOutcome_WAIT_OUTCOME_CANCELLED && !wait.CancelHeard {
		return nil
	}
	l.row.CancelDelivered = true
	return e.store(l)
}

func (e *Engine) applyCancel(l *live, c *recordv1.CancelInvocation, now int64) error {
	id, ok := invocation.IDFromBytes(c.GetInvocationId())
	if !ok {
		return nil
	}
	if id == l.id && !l.mode().Journaled() {
		return nil // Too late: this entry takes effect with the result.
	}
	if to := id.Partition(e.config.Partitions); to != e.config.Partition {
		return e.send(to, &recordv1.Message{Message: &recordv1.Message_Cancel{Cancel: &recordv1.Cancel{InvocationId: id[:]}}})
	}
	_, err := e.cancel(id, false, now)
	return err
}
