package engine

import (
	"github.com/perdure/perdure/internal/journal/pages"
	"github.com/perdure/perdure/internal/journal/tries"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// loadJournal gives an attempt the beginning of its journal: all of it, if it is short.
func (e *Engine) loadJournal(l *live, attempt *StartAttempt) error {
	start := l.row.JournalStart
	b, err := pages.Load(&e.draft, l.id, start, start+l.row.Entries, e.config.JournalPage)
	if err != nil {
		return err
	}
	attempt.Input, attempt.Journal, attempt.Completions = b.Input, b.Entries, b.Completions
	attempt.Known, attempt.Entries = b.Known, b.Last
	attempt.LookAhead = b.More && l.row.JournalWrites != pages.WritesOf(false)
	l.receives, l.writes = b.Receives || b.More, b.Writes || attempt.LookAhead
	if l.tried = nil; b.Runs || b.More {
		l.tried, attempt.Tries, err = tries.Load(&e.draft, l.id)
	}
	return err
}

// noteEntry keeps what the next attempt has to know of a journal that it is not started with as
// a whole. store: the row has changed.
func (e *Engine) noteEntry(l *live, entry *recordv1.Entry) (store bool) {
	l.writes = l.writes || pages.Writes(entry)
	now := pages.WritesOf(l.writes)
	if l.entries-l.row.JournalStart < uint32(e.config.JournalPage) || l.row.JournalWrites == now {
		return false
	}
	l.row.JournalWrites = now
	return true
}
