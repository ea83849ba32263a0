package engine

import (
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/schedule"
	"github.com/perdure/perdure/internal/table"
)

func (ev *Finish) evaluate(e *Engine, now int64) error {
	l := e.attempt(ev.ID, ev.Attempt)
	if l == nil {
		return nil
	}
	if ev.Unhosted && !l.stored && l.call == nil {
		// Kept, it would be the answer to whoever calls again with its key.
		l.row.RetentionMs = 0
		for _, token := range e.waiters[l.id] {
			e.effect(&Reply{Token: token, Result: ev.Result, Refused: true})
		}
		delete(e.waiters, l.id)
	}
	switch {
	case l.call != nil:
		return e.finishCall(l, ev.Result, ev.Entries, now)
	case l.root != nil:
		return e.finishRoot(l, ev.Result, ev.Entries, now)
	}
	if ev.Result.GetError() == nil {
		for _, entry := range ev.Entries {
			if err := e.apply(l, 0, entry, now); err != nil {
				return err
			}
		}
	}
	l.running, e.changed = false, true
	e.effect(&EndAttempt{ID: l.id})
	if failed := ev.Result.GetError(); failed != nil && l.row.RetentionMs > 0 {
		e.note(l, &recordv1.Failure{Error: failed, At: now, Entry: ev.Entry, Terminal: true})
	}
	return e.complete(l, statusOf(l, ev.Result), ev.Result, now)
}

func statusOf(l *live, result *recordv1.Result) recordv1.Status {
	switch {
	case result.GetError() == nil:
		return recordv1.Status_STATUS_SUCCEEDED
	case l.row.CancelRequested && result.Error.Code == codeCanceled:
		return recordv1.Status_STATUS_CANCELLED
	}
	return recordv1.Status_STATUS_FAILED
}

// attempt returns the invocation whose newest attempt this is, or nil: what a superseded
// attempt says does not count.
func (e *Engine) attempt(id invocation.ID, number uint32) *live {
	l := e.live[id]
	if l == nil || !l.running || l.row.Attempt != number && !bugAttempt {
		return nil
	}
	return l
}

// complete gives an invocation its result: everybody who waits hears of it, the key goes to
// the next, and the row stays for its retention.
func (e *Engine) complete(l *live, status recordv1.Status, result *recordv1.Result, now int64) error {
	e.changed = true
	e.fed(l)
	if l.root != nil {
		e.rollBack(l, now)
	}
	row := l.row
	if at, copying := e.copies[l.id]; copying {
		l.entries = at.Next - 1
		e.endCopy(l.id)
	}
	if row.Flow != nil {
		e.taken(l)
		if err := e.asker.GiveBack(l.row.Flow, l.id, true, now); err != nil {
			return err
		}
	}
	row.Status, row.CompletedAt, row.Result = status, now, result
	row.Entries = max(row.Entries, l.entries-min(row.JournalStart, l.entries)) // It may end while it is not loaded.
	if l.spread != 0 && !l.running {
		e.effect(&EndInvocation{ID: l.id, Row: row}) // Its last attempt ended before.
	}
	if l.running {
		l.running = false
		e.effect(&AbortAttempt{ID: l.id, Reason: "the invocation has ended"})
	}
	delete(e.live, l.id)
	for _, token := range e.waiters[l.id] {
		e.effect(&Reply{Token: token, Result: result, Durable: l.answered})
	}
	delete(e.waiters, l.id)
	waiting := row.Waiters
	if row.Caller != nil {
		waiting = append([]*recordv1.Caller{row.Caller}, waiting...)
	}
	if err := e.tellWaiting(l, waiting, now); err != nil {
		return err
	}
	if row.Scheduled != nil {
		if err := e.endScheduled(schedule.EndOf(row.Scheduled, l.id[:], status, result.GetError(), now), now); err != nil {
			return err
		}
	}
	if l.receives && l.mode().Journaled() {
		if err := e.dropReceives(l); err != nil {
			return err
		}
	}
	if l.stored {
		e.delete(table.ActiveKey(l.id))
		if row.DeadlineAt != 0 {
			e.delete(table.Timer{At: row.DeadlineAt, Kind: table.TimerDeadline, ID: l.id}.Key())
		}
	}
	if err := e.keep(l, now); err != nil {
		return err
	}
	return e.unlock(l, now)
}

// keep leaves a completed invocation's row for its retention, or removes all of it.
func (e *Engine) keep(l *live, now int64) error {
	row := l.row
	if row.RetentionMs <= 0 && len(row.Waiters) == 0 {
		if !l.stored {
			return nil
		}
		next, err := e.purge(l, 0)
		if next == 0 || err != nil {
			return err
		}
		return e.goOnPurging(l, next, now)
	}
	row.Purging = false
	if err := e.putEnded(l); err != nil {
		return err
	}
	e.armTimer(table.Timer{At: now + row.RetentionMs, Kind: table.TimerExpire, ID: l.id})
	if keep := row.JournalRetentionMs; keep > 0 && keep < row.RetentionMs && l.mode().Journaled() {
		e.armTimer(table.Timer{At: now + keep, Kind: table.TimerExpireJournal, ID: l.id})
	}
	return nil
}

// putEnded writes the row of an invocation that has ended. What only a running one needs is not
// kept.
func (e *Engine) putEnded(l *live) error {
	row := l.row
	row.Input, row.Chain, row.WaitingFor, row.WaitingUntil = nil, nil, nil, nil
	if !l.mode().Journaled() { // A restart needs them.
		row.Retry, row.Flow, row.Headers = nil, nil, nil
	}
	return e.putMessage(table.Invocation(l.id), row)
}
