package engine

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

func (ev *Cancel) evaluate(e *Engine, now int64) error {
	found, err := e.cancel(ev.ID, ev.Kill, now)
	if err != nil || ev.Token == 0 {
		return err
	}
	if !found {
		e.effect(&Reply{Token: ev.Token, Refused: true, Result: noInvocation(ev.ID)})
		return nil
	}
	e.effect(&Reply{Token: ev.Token})
	return nil
}

func noInvocation(id invocation.ID) *recordv1.Result {
	return failure(codeNotFound, "no invocation %s: it never existed, or its retention is over", id)
}

// cancel ends what has not started, and what can't compensate; a handler with a journal is
// told at its next wait. The calls that it waits for are cancelled too, and one that waits for
// such a call is told by the end of that: the leaves of the tree hear of it first.
func (e *Engine) cancel(id invocation.ID, kill bool, now int64) (found bool, err error) {
	l, err := e.loadLive(id)
	if err != nil || l == nil || l.call != nil {
		return false, err
	}
	if completed(l.row.Status) {
		return true, nil
	}
	if l.root != nil && l.root.Alone {
		return true, nil // It is over: only the participant knows how, and it is about to say.
	}
	if kill {
		calls := e.openCalls(l) // Its journal may go with it.
		killed := failure(codeCanceled, "%s was killed", l.target)
		e.noteEnd(l, killed, now)
		if err := e.end(l, recordv1.Status_STATUS_KILLED, killed, now); err != nil {
			return true, err
		}
		return true, e.cancelCalls(calls, true, now)
	}
	if !l.mode().Journaled() || l.row.Attempt == 0 {
		return true, e.end(l, recordv1.Status_STATUS_CANCELLED, failure(codeCanceled, "%s was cancelled", l.target), now)
	}
	if l.row.CancelRequested && (l.row.CancelDelivered || l.row.Status != recordv1.Status_STATUS_PAUSED) {
		return true, nil
	}
	l.row.CancelRequested = true
	calls := e.openCalls(l)
	switch {
	case l.running:
		e.effect(&CancelAttempt{ID: id})
		err = e.store(l)
	case l.row.Status == recordv1.Status_STATUS_SUSPENDED && awaited(calls, l.row.WaitingFor):
		err = e.store(l) // The call's end wakes it.
	case l.row.Status == recordv1.Status_STATUS_QUEUED:
		err = e.store(l) // It has begun, and hears of it as soon as it has its permits again.
	default:
		e.dropTimers(l)
		err = e.start(l, now)
	}
	if err != nil {
		return true, err
	}
	return true, e.cancelCalls(calls, false, now)
}

// openCalls are the calls of a handler with a journal that have no result yet. A journal that
// can't be read has none that anybody could find.
func (e *Engine) openCalls(l *live) (calls []*recordv1.CancelCall) {
	if !l.mode().Journaled() || l.row.Attempt == 0 {
		return nil
	}
	_, upper := table.JournalOf(l.id)
	_ = e.scan(table.Journal(l.id, l.row.JournalStart), upper, func(key, value []byte) bool {
		entry := &recordv1.Entry{}
		index, err := table.ParseEntry(key)
		if err == nil && proto.Unmarshal(value, entry) == nil && entry.GetCall() != nil {
			calls = append(calls, cancelOf(l, index, entry))
		}
		return true
	})
	open := calls[:0]
	for _, call := range calls {
		if _, done, err := e.get(table.Completion(l.id, call.Caller.Entry)); err == nil && !done {
			open = append(open, call)
		}
	}
	return open
}

func cancelOf(l *live, index uint32, call *recordv1.Entry) *recordv1.CancelCall {
	return &recordv1.CancelCall{
		InvocationId: call.GetCall().GetInvoke().GetInvocationId(),
		Caller:       &recordv1.Caller{InvocationId: l.id[:], Entry: index},
	}
}

// awaited reports whether one of the calls is among the entries.
func awaited(calls []*recordv1.CancelCall, entries []uint32) bool {
	return slices.ContainsFunc(calls, func(call *recordv1.CancelCall) bool { return slices.Contains(entries, call.Caller.Entry) })
}

// cancelCalls tells callees that their caller was cancelled or killed.
func (e *Engine) cancelCalls(calls []*recordv1.CancelCall, kill bool, now int64) error {
	for _, call := range calls {
		call.Kill = kill
		id, ok := invocation.IDFromBytes(call.InvocationId)
		if !ok {
			continue
		}
		to := id.Partition(e.config.Partitions)
		var err error
		if to == e.config.Partition {
			err = e.cancelCall(call, now)
		} else {
			err = e.send(to, &recordv1.Message{Message: &recordv1.Message_CancelCall{CancelCall: call}})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// cancelCall ends a call of a caller that was cancelled or killed. A callee that others wait for
// too, or that somebody else has started, goes on: the caller waits for it no longer.
func (e *Engine) cancelCall(call *recordv1.CancelCall, now int64) error {
	id, ok := invocation.IDFromBytes(call.GetInvocationId())
	if !ok {
		return nil
	}
	l, err := e.loadLive(id)
	if err != nil || l == nil || completed(l.row.Status) {
		return err // Its result is on the way.
	}
	if own := sameCaller(l.row.Caller, call.Caller); own && len(l.row.Waiters) == 0 {
		_, err := e.cancel(id, call.Kill, now)
		return err
	}
	if call.Kill {
		return nil
	}
	return e.completeCaller(call.Caller, id[:], failure(codeCanceled, "the call to %s was cancelled; others wait for it too, and it goes on", l.target), now)
}

func sameCaller(a, b *recordv1.Caller) bool {
	return a != nil && string(a.GetInvocationId()) == string(b.GetInvocationId()) && a.GetEntry() == b.GetEntry()
}

// abandon ends an invocation whose handler has no say in it, so that nobody waits for its calls any more.
func (e *Engine) abandon(l *live, result *recordv1.Result, now int64) error {
	calls := e.openCalls(l) // Its journal may go with it.
	if err := e.end(l, recordv1.Status_STATUS_FAILED, result, now); err != nil {
		return err
	}
	return e.cancelCalls(calls, false, now)
}

// end completes an invocation wherever it is in its life.
func (e *Engine) end(l *live, status recordv1.Status, result *recordv1.Result, now int64) error {
	e.changed = true
	e.dropTimers(l)
	return e.complete(l, status, result, now)
}

// dropTimers forgets the timer that would move an invocation on.
func (e *Engine) dropTimers(l *live) {
	e.forgetWake(l)
	switch l.row.Status {
	case recordv1.Status_STATUS_SCHEDULED:
		e.delete(table.Timer{At: l.row.DueAt, Kind: table.TimerDue, ID: l.id}.Key())
	case recordv1.Status_STATUS_BACKING_OFF:
		e.delete(table.Timer{At: l.row.RetryAt, Kind: table.TimerRetry, ID: l.id}.Key())
	}
}
