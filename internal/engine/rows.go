package engine

import (
	"fmt"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// completed reports whether an invocation has its result.
func completed(status recordv1.Status) bool { return status >= recordv1.Status_STATUS_SUCCEEDED }

// holdsKey reports whether an invocation holds its object's key while it runs.
func holdsKey(target invocation.Target, mode invocation.Mode) bool {
	return target.Key != "" && mode.Exclusive()
}

func (l *live) mode() invocation.Mode { return invocation.Mode(l.row.GetMode()) }

func (l *live) holdsKey() bool { return holdsKey(l.target, l.mode()) }

// loadRow reads the row of an invocation; nil if there is none.
func (e *Engine) loadRow(id invocation.ID) (*recordv1.Invocation, error) {
	row := &recordv1.Invocation{}
	ok, err := e.getMessage(table.Invocation(id), row)
	if err != nil {
		return nil, fmt.Errorf("invocation %s: %w", id, err)
	}
	if !ok {
		return nil, nil
	}
	return row, nil
}

// store writes the row of an invocation that has not completed, and what a new leader needs
// to find it.
func (e *Engine) store(l *live) error {
	if l.row.Flow != nil {
		if err := e.rest(l); err != nil {
			return err
		}
	}
	active := table.Active{Status: l.row.Status, InboxSequence: l.row.InboxSeq}
	// One that was paused before it started is in no inbox.
	if l.holdsKey() && (l.row.Attempt > 0 || l.row.Status != recordv1.Status_STATUS_PAUSED) {
		active.Object = l.target.Object()
	}
	e.put(table.ActiveKey(l.id), active.Append(nil))
	l.stored, l.moved = true, false
	return e.putMessage(table.Invocation(l.id), l.row)
}

// loadLive makes a suspended, paused or scheduled invocation live again, or finds it live.
func (e *Engine) loadLive(id invocation.ID) (*live, error) {
	if l := e.live[id]; l != nil {
		return l, nil
	}
	row, err := e.loadRow(id)
	if err != nil || row == nil {
		return nil, err
	}
	l := &live{id: id, target: targetOf(row.Target), row: row, stored: true, receives: true}
	l.lock = e.heldBy(l)
	return l, nil
}

func (e *Engine) armTimer(t table.Timer) {
	e.put(t.Key(), []byte{})
	e.effect(&ArmTimer{At: t.At})
}
