package engine

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

func (ev *RetryRun) evaluate(e *Engine, _ int64) error {
	l := e.attempt(ev.ID, ev.Attempt)
	if l == nil {
		return nil
	}
	tries := ev.Tries
	if parts := l.tried[ev.Index]; parts > 0 { // of an attempt that got as far as a value
		tries = proto.CloneOf(tries) // The attempt reads it.
		tries.Parts = parts
	}
	e.noteTries(l, ev.Index, tries.Parts)
	return e.putMessage(table.Tries(l.id, ev.Index), tries)
}

func (e *Engine) noteTries(l *live, index, parts uint32) {
	if l.tried == nil {
		l.tried = map[uint32]uint32{}
	}
	l.tried[index], e.changed = parts, true
}

// A part is written over that of an earlier attempt. The row of the entry's tries says how many
// there may be, so that none is left when the entry completes or goes.
func (ev *RunPart) evaluate(e *Engine, _ int64) error {
	l := e.attempt(ev.ID, ev.Attempt)
	if l == nil {
		return nil
	}
	if parts, known := l.tried[ev.Index]; ev.Number >= parts {
		tries := &recordv1.RunTries{}
		if known {
			if _, err := e.getMessage(table.Tries(l.id, ev.Index), tries); err != nil {
				return err
			}
		}
		tries.Parts = ev.Number + 1
		e.noteTries(l, ev.Index, tries.Parts)
		if err := e.putMessage(table.Tries(l.id, ev.Index), tries); err != nil {
			return err
		}
	}
	e.put(table.Part(l.id, ev.Index, ev.Number), ev.Value)
	return nil
}

// settledParts is how many parts that an earlier attempt has left one event removes.
const settledParts = 1000

// settleTries removes what was kept of a Run until it completed, and the parts that an earlier
// attempt wrote and this one did not. If those are more than an event should remove, they stay with the
// row that counts them, and go when the entry does.
func (e *Engine) settleTries(l *live, ev *CompleteRun) error {
	parts, known := l.tried[ev.Index]
	if ev.Parts.GetCount() > parts {
		return fmt.Errorf("invocation %s: the result of entry %d is in %d parts, of which %d came", ev.ID, ev.Index, ev.Parts.GetCount(), parts)
	}
	if !known {
		return nil
	}
	e.changed = true
	delete(l.tried, ev.Index)
	if parts > ev.Parts.GetCount()+settledParts {
		return nil
	}
	e.delete(table.Tries(l.id, ev.Index))
	for number := ev.Parts.GetCount(); number < parts; number++ {
		e.delete(table.Part(l.id, ev.Index, number))
	}
	return nil
}

// loadTries reads how often Runs of a journal have failed that have no result yet.
func (e *Engine) loadTries(l *live) (map[uint32]*recordv1.RunTries, error) {
	var all map[uint32]*recordv1.RunTries
	var decodeErr error
	l.tried = nil
	lower, upper := table.TriesOf(l.id)
	err := e.scan(lower, upper, func(key, value []byte) bool {
		tries := &recordv1.RunTries{}
		index, err := table.ParseEntry(key)
		if err == nil {
			err = proto.Unmarshal(value, tries)
		}
		if err != nil {
			decodeErr = fmt.Errorf("decode row %q: %w", key, err)
			return false
		}
		if all == nil {
			all, l.tried = map[uint32]*recordv1.RunTries{}, map[uint32]uint32{}
		}
		all[index], l.tried[index] = tries, tries.Parts
		return true
	})
	if err == nil {
		err = decodeErr
	}
	return all, err
}

// forgetWake removes the timer that would wake a suspended invocation.
func (e *Engine) forgetWake(l *live) {
	if l.row.WakeAt != 0 {
		e.delete(table.Timer{At: l.row.WakeAt, Kind: table.TimerWake, ID: l.id}.Key())
		l.row.WakeAt = 0
	}
}
