package engine

import (
	"cmp"

	"github.com/perdure/perdure/internal/journal"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// start begins the next attempt of an invocation that holds its key, if it needs one.
func (e *Engine) start(l *live, now int64) error {
	e.changed = true
	if _, copying := e.copies[l.id]; copying {
		return e.awaitCopy(l)
	}
	if l.row.Flow != nil && l.call == nil {
		if ok, err := e.admit(l, now); !ok || err != nil {
			return err
		}
	}
	if l.spread == 0 {
		e.fed(l) // It waited for no key but its own.
	}
	l.row.Status = recordv1.Status_STATUS_RUNNING
	l.row.Attempt++
	l.row.WaitingFor, l.row.WaitingUntil, l.row.RetryAt = nil, nil, 0
	e.forgetWake(l)
	l.row.StartedAt = cmp.Or(l.row.StartedAt, now)
	attempt := &StartAttempt{
		ID: l.id, Row: l.row, Input: l.row.Input, Joined: l.call != nil, Stored: l.stored,
		CancelRequested: l.row.CancelRequested && !l.row.CancelDelivered,
	}
	var err error
	switch {
	case l.input != nil:
		attempt.Input, attempt.Completions = l.input.Value, map[uint32]*recordv1.Completion{}
		l.input, l.entries, l.receives, l.writes = nil, l.row.JournalStart, false, false
		attempt.Known, attempt.Entries = l.entries, l.entries
	case l.mode().Journaled():
		if err = e.loadJournal(l, attempt); err != nil {
			return e.quarantine(l, err, now)
		}
		l.entries = attempt.Entries
	}
	var written bool
	if l.call != nil {
		attempt.State, attempt.HasState, written = l.call.hold.State()
		attempt.Writes = l.call.hold.Rows()
	}
	if l.target.Key != "" && !written {
		if attempt.State, attempt.HasState, err = e.get(table.State(l.target.Object())); err != nil {
			return e.quarantine(l, err, now)
		}
	}
	if on := e.config.Deployment; on != nil && l.mode().Journaled() && l.call == nil {
		tied := l.row.Deployment
		if l.entries == l.row.JournalStart && l.id != e.resumed {
			tied = "" // Nothing is recorded that another build could diverge from.
		}
		l.moved = journal.Pin(l.row, on(l.target, tied), l.entries) || l.moved
	}
	l.since = cmp.Or(l.since, now)
	attempt.Since = l.since
	e.live[l.id] = l
	l.running = true
	e.effect(attempt)
	if !l.stored || e.recovering {
		return nil // What recovery starts would be started again by the next one.
	}
	return e.store(l)
}

func (ev *Restart) evaluate(e *Engine, now int64) error {
	l := e.attempt(ev.ID, ev.Attempt)
	if l == nil {
		return nil
	}
	l.since = cmp.Or(ev.Since, l.since)
	switch {
	case l.call != nil:
		return e.breakOff(l.call.branch, "its leader was lost", &recordv1.Died{})
	case l.root != nil:
		return e.retry(l, RetryLost, nil, now)
	}
	e.effect(&AbortAttempt{ID: l.id, Reason: "another attempt takes its place"})
	return e.start(l, now)
}

func (ev *Quarantine) evaluate(e *Engine, now int64) error {
	l, err := e.loadLive(ev.ID)
	if err != nil || l == nil || completed(l.row.Status) {
		return err
	}
	if l.running {
		l.running, e.changed = false, true
		e.effect(&AbortAttempt{ID: l.id, Reason: "the invocation is paused"})
	}
	return e.quarantine(l, ev.Cause, now)
}

// quarantine keeps an invocation whose rows can't be read from stopping its partition: one
// that is stored waits for an operator and holds its key, another fails.
func (e *Engine) quarantine(l *live, cause error, now int64) error {
	failed := failure(codeDataLoss, "%s can't run, its data is damaged: %v", l.target, cause)
	if l.call != nil {
		return e.finishCall(l, failed, nil, now)
	}
	if !l.stored {
		return e.complete(l, recordv1.Status_STATUS_FAILED, failed, now)
	}
	l.row.LastFailure = failed.Error
	return e.park(l)
}
