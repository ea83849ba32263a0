package engine

import (
	"math"

	"github.com/perdure/perdure/internal/inbox"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/journal/pages"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// A long journal goes in slices, each of which fits a record and lets other events have their
// turn: what one event removes is bounded in rows, and in bytes, since values that were written
// in parts are removed part by part.
const (
	purgeRows  = 2000
	purgeBytes = 4 << 20
)

// purgedJournal as an entry to go on from says that the journal is gone and an object is left.
const purgedJournal = math.MaxUint32

// purge removes what is kept of an invocation from an entry on, of a WORKFLOW's run also the
// object, and the invocation's own row last. next is where another event goes on, 0 when nothing
// is left. Going on from there, instead of from the start, spares each slice the traces of all
// those before it.
func (e *Engine) purge(l *live, from uint32) (next uint32, err error) {
	left := e.config.PurgeRows
	if l.mode().Journaled() {
		if from != purgedJournal {
			if next, left, err = e.dropEntries(l.id, from, purgedJournal, left); next != 0 || err != nil {
				return next, err
			}
		}
		if l.mode() == invocation.ModeRun {
			for _, prefix := range table.ObjectPrefixes(l.target.Object()) {
				deleted, err := e.draft.DeleteRange(prefix, table.Successor(prefix), left)
				if left -= deleted; err != nil || left <= 0 {
					return purgedJournal, err
				}
			}
			if err := inbox.Forget(&e.draft, l.target.Object()); err != nil {
				return purgedJournal, err
			}
		}
	}
	e.delete(table.Invocation(l.id))
	return 0, nil
}

// purgeJournal removes the journal of a completed invocation, from an entry on, and keeps its
// result.
func (e *Engine) purgeJournal(l *live, from uint32, now int64) error {
	next, _, err := e.dropEntries(l.id, from, purgedJournal, e.config.PurgeRows)
	if err == nil && next != 0 {
		e.armTimer(table.Timer{At: now, Kind: table.TimerExpireJournal, ID: l.id, Entry: next})
	}
	return err
}

// goOnPurging lets a timer continue the removal.
func (e *Engine) goOnPurging(l *live, next uint32, now int64) error {
	e.armTimer(table.Timer{At: now, Kind: table.TimerExpire, ID: l.id, Entry: next})
	if l.row.Purging {
		return nil
	}
	l.row.Purging = true
	return e.putEnded(l)
}

// dropEntries removes the entries lower ≤ index < upper with their completions, parts of values and
// tries, about so many rows at most. next is the first of which something is left, 0 if nothing is.
func (e *Engine) dropEntries(id invocation.ID, lower, upper uint32, most int) (next uint32, left int, err error) {
	keys, next, err := pages.Keys(&e.draft, id, lower, upper, most/2, purgeBytes)
	for _, key := range keys {
		e.delete(key)
	}
	return next, most - len(keys), err
}

func (ev *ContinueAsNew) evaluate(e *Engine, now int64) error {
	l := e.attempt(ev.ID, ev.Attempt)
	if l == nil {
		return nil
	}
	l.running, e.changed = false, true
	e.effect(&EndAttempt{ID: l.id})
	if l.receives {
		if err := e.dropReceives(l); err != nil {
			return err
		}
	}
	// The input goes at once, for it may be large; the entries after it in slices.
	e.delete(table.Journal(l.id, l.row.JournalStart))
	if l.entries > l.row.JournalStart {
		e.armTimer(table.Timer{At: now, Kind: table.TimerTrim, ID: l.id, Entry: l.row.JournalStart + 1})
	}
	l.row.Continuations++
	l.row.JournalStart, l.row.ContinuedAt = l.entries+1, max(now, l.row.ContinuedAt)
	l.row.Failures, l.row.LastFailure, l.row.Divergence = 0, nil, nil
	l.row.Entries, l.row.JournalWrites, l.tried = 0, 0, nil
	if l.row.CancelDelivered { // It went with the run that heard it. Another may come.
		l.row.CancelRequested, l.row.CancelDelivered = false, false
	}
	l.input = &recordv1.Input{Value: ev.Input}
	entry := &recordv1.Entry{At: now, Entry: &recordv1.Entry_Input{Input: l.input}}
	if err := e.putMessage(table.Journal(l.id, l.row.JournalStart), entry); err != nil {
		return err
	}
	return e.start(l, now)
}

// trim removes what earlier runs of an invocation that has continued as new left.
func (e *Engine) trim(l *live, from uint32, now int64) error {
	e.out.Lazy = true
	if from >= l.row.JournalStart {
		return nil
	}
	next, _, err := e.dropEntries(l.id, from, l.row.JournalStart, e.config.PurgeRows)
	if err != nil || next == 0 {
		return err
	}
	e.armTimer(table.Timer{At: now, Kind: table.TimerTrim, ID: l.id, Entry: next})
	return nil
}
