package engine

import (
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

func (ev *RetryRun) evaluate(e *Engine, _ int64) error {
	l := e.attempt(ev.ID, ev.Attempt)
	if l == nil {
		return nil
	}
	e.changed = true
	return l.tried.Failed(&e.draft, l.id, ev.Index, ev.Tries)
}

func (ev *RunPart) evaluate(e *Engine, _ int64) error {
	l := e.attempt(ev.ID, ev.Attempt)
	if l == nil {
		return nil
	}
	err := l.tried.Part(&e.draft, l.id, ev.Index, ev.Number, ev.Value)
	e.changed = err == nil
	return err
}

func (ev *CompleteRun) evaluate(e *Engine, now int64) error {
	l := e.attempt(ev.ID, ev.Attempt)
	if l == nil {
		return nil
	}
	var err error
	if e.changed, err = l.tried.Settle(&e.draft, l.id, ev.Index, ev.Parts.GetCount()); err != nil {
		return err
	}
	// The attempt has the result already: it is told nothing.
	return e.putMessage(table.Completion(l.id, ev.Index), &recordv1.Completion{Entry: ev.Index, Result: ev.Result, Parts: ev.Parts, At: now})
}
