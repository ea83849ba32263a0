package engine

import (
	"slices"

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

// note adds the failure of an attempt to those that are kept of its invocation. One whose row will not
// outlive the next event, which a TRANSACTION's seldom does, has none.
func (e *Engine) note(l *live, failed *recordv1.Failure) {
	if l.mode().Journaled() {
		l.row.FailedAttempts++
		e.keepFailure(l, failed)
	}
}

// noteEnd adds to them why an invocation ends that has begun and whose handler has no say in it.
func (e *Engine) noteEnd(l *live, result *recordv1.Result, now int64) {
	if l.mode().Journaled() && l.row.Attempt > 0 && l.row.RetentionMs > 0 {
		l.entries = max(l.entries, l.row.JournalStart+l.row.Entries) // It may not be loaded.
		e.keepFailure(l, &recordv1.Failure{Error: result.Error, At: now, Entry: e.standsAt(l), Terminal: true})
	}
}

// standsAt is the entry at which an invocation without an attempt stands: where the last one failed, or
// the first that it waits for. 0 says no more than that the journal has ended.
func (e *Engine) standsAt(l *live) uint32 {
	if failed := l.row.Failed; len(failed) > 0 && failed[len(failed)-1].Attempt == l.row.Attempt {
		return failed[len(failed)-1].Entry
	}
	for _, entry := range slices.Sorted(slices.Values(l.row.WaitingFor)) {
		if _, done, err := e.get(table.Completion(l.id, entry)); err == nil && !done {
			return entry
		}
	}
	return 0
}

// keepFailure says at which entry it was, the newest if it is not known.
func (e *Engine) keepFailure(l *live, failed *recordv1.Failure) {
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
