package engine

import (
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
		e.effect(&Reply{Token: ev.Token, Refused: true, Result: failure(codeNotFound,
			"no invocation %s: it never existed, or its retention is over", ev.ID)})
		return nil
	}
	e.effect(&Reply{Token: ev.Token})
	return nil
}

// cancel ends what has not started, and what can't compensate; a handler with a journal is
// told at its next wait.
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
		return true, e.end(l, recordv1.Status_STATUS_KILLED, failure(codeCanceled, "%s was killed", l.target), now)
	}
	status := l.row.Status
	if !l.mode().Journaled() || status == recordv1.Status_STATUS_SCHEDULED || status == recordv1.Status_STATUS_QUEUED && l.row.StartedAt == 0 {
		return true, e.end(l, recordv1.Status_STATUS_CANCELLED, failure(codeCanceled, "%s was cancelled", l.target), now)
	}
	if l.row.CancelRequested {
		return true, nil
	}
	l.row.CancelRequested = true
	if l.running {
		e.effect(&CancelAttempt{ID: id})
		return true, e.store(l)
	}
	if status == recordv1.Status_STATUS_QUEUED {
		return true, e.store(l) // It has begun, and hears of it as soon as it has its permits again.
	}
	return true, e.start(l, now)
}

// end completes an invocation wherever it is in its life.
func (e *Engine) end(l *live, status recordv1.Status, result *recordv1.Result, now int64) error {
	e.changed = true
	switch l.row.Status {
	case recordv1.Status_STATUS_SCHEDULED:
		e.delete(table.Timer{At: l.row.DueAt, Kind: table.TimerDue, ID: l.id}.Key())
	case recordv1.Status_STATUS_BACKING_OFF:
		e.delete(table.Timer{At: l.row.RetryAt, Kind: table.TimerRetry, ID: l.id}.Key())
	}
	return e.complete(l, status, result, now)
}
