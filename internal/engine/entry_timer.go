package engine

import (
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// endSleep completes the Sleep that a timer is of. An invocation that ends leaves its timers, and one
// that is started anew has the same id and other entries.
func (e *Engine) endSleep(timer table.Timer, now int64) error {
	entry := &recordv1.Entry{}
	ok, err := e.getMessage(table.Journal(timer.ID, timer.Entry), entry)
	// What can't be read is for the next attempt to report.
	if err == nil && (!ok || entry.GetSleep() == nil || entry.GetSleep().GetUntil() != timer.At) {
		return nil
	}
	return e.completion(timer.ID, &recordv1.Completion{Entry: timer.Entry, Result: &recordv1.Result{}, At: now}, now)
}

// stopTimer ends a Sleep of the invocation that has not fired. What it names is the handler's: an
// entry that is no Sleep changes nothing.
func (e *Engine) stopTimer(l *live, stop *recordv1.StopTimer, now int64) error {
	entry := &recordv1.Entry{}
	if ok, err := e.getMessage(table.Journal(l.id, stop.Entry), entry); err != nil || !ok || entry.GetSleep() == nil {
		return err
	}
	if _, fired, err := e.get(table.Completion(l.id, stop.Entry)); err != nil || fired {
		return err
	}
	e.delete(table.Timer{At: entry.GetSleep().GetUntil(), Kind: table.TimerSleep, ID: l.id, Entry: stop.Entry}.Key())
	return e.completion(l.id, &recordv1.Completion{Entry: stop.Entry, At: now, Result: failure(codeCanceled, "the timer was stopped")}, now)
}
