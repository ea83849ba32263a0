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
	if l.tried == nil {
		l.tried, e.changed = map[uint32]bool{}, true
	}
	l.tried[ev.Index] = true
	return e.putMessage(table.Tries(l.id, ev.Index), ev.Tries)
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
			all, l.tried = map[uint32]*recordv1.RunTries{}, map[uint32]bool{}
		}
		all[index], l.tried[index] = tries, true
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
