package engine

import (
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/retry"
	"github.com/perdure/perdure/internal/table"
)

func (ev *Fire) evaluate(e *Engine, now int64) error {
	timer := ev.Timer
	if _, ok, err := e.get(timer.Key()); err != nil || !ok {
		return err
	}
	if timer.At > now { // the clock was set back
		e.effect(&ArmTimer{At: timer.At})
		return nil
	}
	if timer.Kind == table.TimerSchedule {
		return e.fireSchedule(timer, now)
	}
	e.delete(timer.Key())
	if timer.Kind == table.TimerLimit {
		found, err := e.limits.Fire(timer, now)
		e.out.Lazy = !found
		return err
	}
	if timer.Kind == table.TimerInbox {
		return e.expireSignals(timer.ID, now)
	}
	if timer.Kind == table.TimerSleep {
		if bugTimer && e.live[timer.ID] == nil {
			return nil
		}
		return e.endSleep(timer, now)
	}
	if timer.Kind == table.TimerExpire || timer.Kind == table.TimerExpireJournal {
		if _, copied := e.copies.Of(timer.ID); copied { // What it was restarted as still needs it.
			timer.At = now + 60_000
			e.armTimer(timer)
			return nil
		}
	}
	l, err := e.loadLive(timer.ID)
	if err != nil || l == nil {
		return err
	}
	switch timer.Kind {
	case table.TimerDue:
		if l.row.Status == recordv1.Status_STATUS_SCHEDULED {
			return e.enter(l, true, now)
		}
	case table.TimerRetry:
		if l.row.Status == recordv1.Status_STATUS_BACKING_OFF && l.row.RetryAt == timer.At {
			return e.start(l, now)
		}
	case table.TimerWake:
		if l.row.Status == recordv1.Status_STATUS_SUSPENDED && l.row.WakeAt == timer.At {
			return e.start(l, now)
		}
	case table.TimerDeadline:
		if !completed(l.row.Status) {
			timeout := retry.Lasting(timer.At - max(l.row.CreatedAt, l.row.DueAt))
			over := failure(codeDeadlineExceeded, "%s did not end within its timeout of %s", l.target, timeout)
			e.noteEnd(l, over, now)
			return e.abandon(l, over, now)
		}
	case table.TimerExpireJournal:
		e.out.Lazy = true
		// An invocation of the same id that was started since has its own.
		if completed(l.row.Status) && l.row.CompletedAt+l.row.JournalRetentionMs <= now {
			return e.purgeJournal(l, timer.Entry, now)
		}
	case table.TimerTell:
		return e.tellMore(l, timer.Entry, now)
	case table.TimerExpire:
		e.out.Lazy = true
		if len(l.row.Waiters) > 0 && completed(l.row.Status) { // Somebody has not been told yet.
			timer.At = now + 60_000
			e.armTimer(timer)
			return nil
		}
		if completed(l.row.Status) && (l.row.Purging || l.row.CompletedAt+l.row.RetentionMs <= now) {
			next, err := e.purge(l, timer.Entry)
			if err != nil || next == 0 {
				return err
			}
			return e.goOnPurging(l, next, now)
		}
	case table.TimerTrim:
		return e.trim(l, timer.Entry, now)
	}
	return nil
}

// forgetWake removes the timer that would wake a suspended invocation.
func (e *Engine) forgetWake(l *live) {
	if l.row.WakeAt != 0 {
		e.delete(table.Timer{At: l.row.WakeAt, Kind: table.TimerWake, ID: l.id}.Key())
		l.row.WakeAt = 0
	}
}
