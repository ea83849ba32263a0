package engine

import (
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/journal/renew"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// sliceBytes is about what is copied of a journal at a time. A row more, which is MaxWriteBytes at
// most, still fits a record.
func (e *Engine) sliceBytes() int { return min(e.config.CopyBytes, e.config.MaxWriteBytes/2) }

// copyJournal gives the new invocation its request and as many of the entries that it keeps as there is
// room for; the others follow, record by record.
func (e *Engine) copyJournal(from *live, ev *RestartAsNew, request *recordv1.Entry, bytes int, now int64) error {
	start := uint32(0)
	if ev.From > 0 {
		start = from.row.JournalStart // Entries speak of one another by their indexes.
	}
	request.At = now
	if err := e.putMessage(table.Journal(ev.New, start), request); err != nil || ev.From == 0 {
		return err
	}
	_, err := e.copySlice(ev.New, table.Copy{Source: from.id, Through: ev.From, Next: start + 1}, bytes)
	return err
}

// copySlice copies the next entries, and leaves in a row what is left to copy.
func (e *Engine) copySlice(to invocation.ID, at table.Copy, bytes int) (done bool, err error) {
	at, timers, err := renew.Slice(&e.draft, to, at, bytes)
	if err != nil {
		return false, err
	}
	for _, timer := range timers {
		e.armTimer(timer)
	}
	if at.Done() {
		e.endCopy(to)
		return true, nil
	}
	e.changed = true
	e.copies[to] = at
	e.put(table.CopyKey(to), at.Append(nil))
	e.effect(&CopyOn{CopyEntries{ID: to, At: at}})
	return false, nil
}

func (ev *CopyEntries) evaluate(e *Engine, now int64) error {
	if at, copying := e.copies[ev.ID]; !copying || at != ev.At {
		return nil // It has ended, or an earlier leadership asks.
	}
	l, err := e.loadLive(ev.ID)
	if err != nil || l == nil {
		return err
	}
	done, err := e.copySlice(ev.ID, ev.At, e.sliceBytes())
	switch {
	case err != nil:
		e.draft.Reset() // It may hold half of an entry.
		return e.end(l, recordv1.Status_STATUS_FAILED, e.damagedJournal(l, err), now)
	case done && l.row.Status == recordv1.Status_STATUS_SUSPENDED:
		return e.start(l, now)
	}
	return nil
}

// awaitCopy makes an invocation whose turn it is, and which has not all of its entries yet, wait for
// them with its key.
func (e *Engine) awaitCopy(l *live) error {
	// It waits for its request, which is no result that could come: completions of its sleeps don't
	// wake it.
	l.row.Status, l.row.WaitingFor = recordv1.Status_STATUS_SUSPENDED, []uint32{l.row.JournalStart}
	delete(e.live, l.id)
	return e.store(l)
}

// endCopy forgets what is left to copy to an invocation.
func (e *Engine) endCopy(to invocation.ID) {
	if _, copying := e.copies[to]; copying {
		e.changed = true
		delete(e.copies, to)
		e.delete(table.CopyKey(to))
	}
}

// recoverCopies finds those that an earlier leadership has begun and not ended, and goes on.
func (e *Engine) recoverCopies() (err error) {
	e.copies, err = renew.Copies(e.view, func(damaged error) { e.out.Damaged = append(e.out.Damaged, damaged) })
	for _, id := range e.copies.IDs() {
		e.effect(&CopyOn{CopyEntries{ID: id, At: e.copies[id]}})
	}
	return err
}
