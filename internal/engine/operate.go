package engine

import (
	"cmp"
	"strings"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/journal"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// operate finds the invocation that an operator speaks of, does as they say and answers.
func (e *Engine) operate(id invocation.ID, token Token, do func(l *live) (refused *recordv1.Result, err error)) error {
	l, err := e.loadLive(id)
	if err != nil {
		return err
	}
	refused := noInvocation(id)
	if l != nil && l.call == nil && !l.row.Purging {
		if refused, err = do(l); err != nil {
			return err
		}
	}
	if token != 0 {
		e.effect(&Reply{Token: token, Result: refused, Refused: refused != nil})
	}
	return nil
}

func (ev *Pause) evaluate(e *Engine, now int64) error {
	return e.operate(ev.ID, ev.Token, func(l *live) (*recordv1.Result, error) { return e.pause(l, now) })
}

// pause makes an invocation stand still until an operator resumes it.
func (e *Engine) pause(l *live, now int64) (refused *recordv1.Result, err error) {
	switch {
	case completed(l.row.Status):
		return failure(codeFailedPrecondition, "%s has ended (%s): there is nothing to pause", l.target, l.mark()), nil
	case l.row.Status == recordv1.Status_STATUS_PAUSED:
		return nil, nil
	case !l.stored, !l.mode().Journaled() && l.row.Attempt > 0:
		return failure(codeFailedPrecondition,
			"%s is a %s handler, which runs to its end in one go: only DURABLE handlers can be paused, and what has not started and nobody waits for. Cancel it instead", l.target, l.mode()), nil
	}
	e.changed = true
	if l.running {
		l.running = false
		e.effect(&AbortAttempt{ID: l.id, Reason: "the invocation is paused"})
	}
	e.dropTimers(l)
	e.taken(l)
	l.row.WaitingFor, l.row.WaitingUntil, l.row.RetryAt = nil, nil, 0
	if l.row.Attempt > 0 {
		return nil, e.park(l)
	}
	if l.row.Flow != nil {
		if err := e.asker.GiveBack(l.row.Flow, l.id, true, now); err != nil {
			return nil, err
		}
	}
	// It holds no key, and must not keep those behind it from theirs.
	if err := e.park(l); err != nil {
		return nil, err
	}
	return nil, e.unlock(l, now)
}

// park makes an invocation wait for an operator. One with a journal is not kept in memory: there
// may be as many as of suspended ones.
func (e *Engine) park(l *live) error {
	l.row.Status = recordv1.Status_STATUS_PAUSED
	l.row.Entries = max(l.row.Entries, l.entries-min(l.row.JournalStart, l.entries))
	if l.mode().Journaled() || l.row.Attempt == 0 {
		delete(e.live, l.id)
	} else {
		e.live[l.id] = l
	}
	return e.store(l)
}

func (ev *Resume) evaluate(e *Engine, now int64) error {
	return e.operate(ev.ID, ev.Token, func(l *live) (*recordv1.Result, error) {
		if refused := e.tie(l, ev.Deployment); refused != nil {
			return refused, nil
		}
		defer func() { e.resumed = invocation.ID{} }()
		return e.resume(l, now)
	})
}

// tie has an invocation that stands still go on with another deployment, if that can be reached.
func (e *Engine) tie(l *live, deployment string) (refused *recordv1.Result) {
	on := e.config.Deployment
	if deployment == "" || on == nil || !l.mode().Journaled() || l.row.Attempt == 0 || l.running || completed(l.row.Status) {
		return nil
	}
	if runs := on(l.target, deployment); runs != deployment {
		return failure(codeFailedPrecondition, "%s can't go on with deployment %s: no node that the leader of its object reaches, and that is not about to stop, has the handler in that build. Start one, or resume without naming a deployment: it goes on with %s",
			l.target, deployment, cmp.Or(runs, "none that is known"))
	}
	e.changed, e.resumed = true, l.id
	journal.Pin(l.row, deployment, l.row.JournalStart+1) // If the journal is empty, the start finds that.
	return nil
}

// resume starts the next attempt of one that is paused, backs off or is suspended.
func (e *Engine) resume(l *live, now int64) (refused *recordv1.Result, err error) {
	switch l.row.Status {
	case recordv1.Status_STATUS_QUEUED, recordv1.Status_STATUS_RUNNING, recordv1.Status_STATUS_SCHEDULED:
		return nil, nil
	case recordv1.Status_STATUS_BACKING_OFF:
		e.dropTimers(l)
		return nil, e.start(l, now)
	case recordv1.Status_STATUS_SUSPENDED:
		return nil, e.start(l, now)
	case recordv1.Status_STATUS_PAUSED:
		l.row.Failures = 0 // It has all its attempts before it again.
		switch {
		case l.row.Attempt == 0 && l.row.DueAt > now:
			l.row.Status = recordv1.Status_STATUS_SCHEDULED
			e.armTimer(table.Timer{At: l.row.DueAt, Kind: table.TimerDue, ID: l.id})
			return nil, e.store(l)
		case l.mode().Journaled() && l.row.Attempt > 0:
			return nil, e.start(l, now)
		}
		// A TRANSACTION has done nothing yet, wherever it stood: its turn comes again.
		if l.lock != nil {
			e.locks.Release(l.lock)
			l.lock = nil
		}
		if err := e.enter(l, true, now); err != nil {
			return nil, err
		}
		return nil, e.settle(now)
	}
	return failure(codeFailedPrecondition, "%s has ended (%s): there is nothing to resume. A DURABLE one can be restarted, which makes a new invocation of it", l.target, l.mark()), nil
}

// mark is the status in a word, for people.
func (l *live) mark() string {
	return strings.ToLower(strings.TrimPrefix(l.row.Status.String(), "STATUS_"))
}

func (ev *Purge) evaluate(e *Engine, now int64) error {
	return e.operate(ev.ID, ev.Token, func(l *live) (*recordv1.Result, error) {
		if !completed(l.row.Status) {
			return failure(codeFailedPrecondition, "%s has not ended: cancel or kill it before it is purged", l.target), nil
		}
		if len(l.row.Waiters) > 0 {
			return failure(codeFailedPrecondition, "%s has ended, and %d that wait for its result are told of it: purge it in a moment", l.target, len(l.row.Waiters)), nil
		}
		if to, copied := e.copies.Of(l.id); copied {
			return failure(codeFailedPrecondition, "%s is being copied to %s, which it was restarted as: purge it once that has begun, or kill that first", l.target, to), nil
		}
		e.delete(table.Timer{At: l.row.CompletedAt + l.row.RetentionMs, Kind: table.TimerExpire, ID: l.id}.Key())
		if l.row.JournalRetentionMs > 0 {
			e.delete(table.Timer{At: l.row.CompletedAt + l.row.JournalRetentionMs, Kind: table.TimerExpireJournal, ID: l.id}.Key())
		}
		next, err := e.purge(l, 0)
		if err != nil || next == 0 {
			return nil, err
		}
		return nil, e.goOnPurging(l, next, now)
	})
}
