package engine

import (
	"slices"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/journal"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

func (ev *Suspend) evaluate(e *Engine, now int64) error {
	l := e.attempt(ev.ID, ev.Attempt)
	if l == nil {
		return nil
	}
	l.running, e.changed = false, true
	e.effect(&EndAttempt{ID: l.id})
	// What came while the handler was being unwound wakes it at once.
	wake := l.row.CancelRequested && !l.row.CancelDelivered && !awaited(e.openCalls(l), ev.WaitingFor)
	if ev.WaitingUntil != nil {
		decided, err := journal.Decided(ev.WaitingUntil, 0, e.endedEntries(l.id))
		if err != nil {
			return err
		}
		wake = wake || decided
	} else {
		for _, index := range ev.WaitingFor {
			_, ok, err := e.get(table.Completion(l.id, index))
			if err != nil {
				return err
			}
			wake = wake || ok
		}
	}
	if wake || ev.WakeAt != 0 && ev.WakeAt <= now {
		return e.start(l, now)
	}
	if l.row.WakeAt = ev.WakeAt; ev.WakeAt != 0 {
		e.armTimer(table.Timer{At: ev.WakeAt, Kind: table.TimerWake, ID: l.id})
	}
	l.row.Status = recordv1.Status_STATUS_SUSPENDED
	l.row.WaitingFor, l.row.WaitingUntil = ev.WaitingFor, ev.WaitingUntil
	l.row.Entries = l.entries - l.row.JournalStart
	delete(e.live, l.id)
	return e.store(l)
}

// completeCaller takes a result to the entry that waits for it, wherever that lives. callee is
// the invocation whose result it is, nil for what is not a call's.
func (e *Engine) completeCaller(caller *recordv1.Caller, callee []byte, result *recordv1.Result, now int64) error {
	id, ok := invocation.IDFromBytes(caller.GetInvocationId())
	if !ok {
		return nil
	}
	completion := &recordv1.Completion{Entry: caller.Entry, Result: result, At: now}
	if to := id.Partition(e.config.Partitions); to != e.config.Partition {
		return e.send(to, &recordv1.Message{Message: &recordv1.Message_Complete{
			Complete: &recordv1.Complete{InvocationId: id[:], Completion: completion, Callee: callee},
		}})
	}
	return e.callCompletion(id, callee, completion, now)
}

// callCompletion is completion for the result of a call: the caller's entry must be that call, or
// attach to the same invocation. An
// invocation that was started anew after its retention has the same id and other calls.
func (e *Engine) callCompletion(id invocation.ID, callee []byte, completion *recordv1.Completion, now int64) error {
	if len(callee) > 0 {
		entry := &recordv1.Entry{}
		if ok, err := e.getMessage(table.Journal(id, completion.Entry), entry); err != nil || !ok {
			return err
		}
		if string(entry.GetCall().GetInvoke().GetInvocationId()) != string(callee) && string(entry.GetAttach().GetInvocationId()) != string(callee) {
			return nil
		}
	}
	return e.completion(id, completion, now)
}

// completion records the result of an entry and wakes its invocation. The first result
// counts; one for an invocation that has ended is dropped.
func (e *Engine) completion(id invocation.ID, completion *recordv1.Completion, now int64) error {
	l, err := e.loadLive(id)
	if err != nil || l == nil || completed(l.row.Status) {
		return err
	}
	if completion.Entry <= l.row.JournalStart {
		return nil // Of a run that has continued as new.
	}
	key := table.Completion(id, completion.Entry)
	if _, ok, err := e.get(key); err != nil || ok {
		return err
	}
	if err := e.putMessage(key, completion); err != nil {
		return err
	}
	switch {
	case l.running:
		e.effect(&Notify{ID: id, Completion: completion})
	case l.row.Status != recordv1.Status_STATUS_SUSPENDED:
	case l.row.CancelRequested && !l.row.CancelDelivered && slices.Contains(l.row.WaitingFor, completion.Entry):
		return e.start(l, now) // It has not been told while it waited for a call: perhaps for this one.
	case l.row.WaitingUntil != nil:
		decided, err := journal.Decided(l.row.WaitingUntil, completion.Entry, e.endedEntries(id))
		if err != nil || !decided {
			return err
		}
		return e.start(l, now)
	case len(l.row.WaitingFor) == 0 || slices.Contains(l.row.WaitingFor, completion.Entry):
		return e.start(l, now)
	}
	return nil
}

// endedEntries is how entries of an invocation have completed. It reads none of the results but
// those that it is asked for.
func (e *Engine) endedEntries(id invocation.ID) journal.Ended {
	return func(entry uint32) (done, failure bool, err error) {
		completion := &recordv1.Completion{}
		done, err = e.getMessage(table.Completion(id, entry), completion)
		return done, completion.GetResult().GetError() != nil, err
	}
}
