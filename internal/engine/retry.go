package engine

import (
	"github.com/perdure/perdure/internal/journal"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/retry"
	"github.com/perdure/perdure/internal/table"
)

func (ev *Fail) evaluate(e *Engine, now int64) error {
	l := e.attempt(ev.ID, ev.Attempt)
	if l == nil {
		return nil
	}
	l.running, e.changed = false, true
	e.effect(&EndAttempt{ID: l.id})
	l.row.Divergence = ev.Divergence
	e.note(l, &recordv1.Failure{Error: ev.Error, At: now, Entry: ev.Entry, Stack: ev.Stack})
	if ev.Pause {
		l.row.LastFailure = ev.Error
		return e.park(l)
	}
	return e.backOff(l, ev.Error, ev.RetryAfter, now)
}

func (ev *TimeOut) evaluate(e *Engine, now int64) error {
	l := e.attempt(ev.ID, ev.Attempt)
	if l == nil {
		return nil
	}
	failed := failure(codeDeadlineExceeded, "%s did not end within %d ms, the most a %s handler may take here; nothing of it took effect", l.target, ev.After, l.mode())
	if l.call != nil {
		l.running = false
		e.effect(&AbortAttempt{ID: l.id, Reason: "step timeout"})
		return e.finishCall(l, failed, nil, now)
	}
	if !l.mode().Journaled() {
		return e.complete(l, recordv1.Status_STATUS_FAILED, failed, now)
	}
	l.running, e.changed = false, true
	e.effect(&AbortAttempt{ID: l.id, Reason: "step timeout"})
	e.note(l, &recordv1.Failure{Error: failed.Error, At: now})
	return e.backOff(l, failed.Error, 0, now)
}

// note adds to the failures that are kept of an invocation. One whose row will not outlive the
// next event, which a TRANSACTION's seldom does, has none.
func (e *Engine) note(l *live, failed *recordv1.Failure) {
	if !l.mode().Journaled() {
		return
	}
	l.row.FailedAttempts++
	failed.Attempt = l.row.Attempt
	if failed.Entry == 0 || failed.Entry > l.entries {
		failed.Entry = l.entries
	}
	at := &recordv1.Entry{}
	if ok, err := e.getMessage(table.Journal(l.id, failed.Entry), at); err == nil && ok && failed.Entry > 0 {
		failed.Step, failed.Site = journal.Describe(at), at.Site
	}
	l.row.Failed = journal.AddFailure(l.row.Failed, failed)
}

// backOff waits before the next attempt, or gives up by the handler's policy.
func (e *Engine) backOff(l *live, cause *recordv1.Error, retryAfter, now int64) error {
	l.row.Failures++
	l.row.LastFailure = cause
	policy := retry.Resolve(l.row.Retry)
	if l.row.Failures >= policy.MaxAttempts {
		if policy.PauseOnExhausted {
			return e.park(l)
		}
		return e.abandon(l, failure(codeInternal,
			"%s failed %d times; the last error: %s", l.target, l.row.Failures, cause.GetMessage()), now)
	}
	wait := retryAfter
	if wait <= 0 {
		wait = retry.Interval(policy, l.row.Failures)
	}
	l.row.Status = recordv1.Status_STATUS_BACKING_OFF
	l.row.RetryAt, l.row.Entries = now+wait, l.entries-min(l.row.JournalStart, l.entries)
	e.armTimer(table.Timer{At: l.row.RetryAt, Kind: table.TimerRetry, ID: l.id})
	return e.store(l)
}
