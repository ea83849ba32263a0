package engine

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/perdure/perdure/internal/engine/outbox"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
	"github.com/perdure/perdure/internal/transaction"
)

// Recover rebuilds the engine's memory from the view and starts what was running: the first
// thing a new leader does. Suspended, paused and scheduled invocations cost no more than their row in
// one scan.
func (e *Engine) Recover(now int64) (*Output, error) {
	e.out = Output{}
	e.draft.Reset()
	e.recovering, e.now = true, now
	defer func() { e.recovering = false }()
	if err := e.recoverTransactions(); err != nil {
		return nil, fmt.Errorf("recover: %w", err)
	}
	if err := e.recoverCopies(); err != nil {
		return nil, fmt.Errorf("recover: %w", err)
	}
	damaged, err := e.limits.Recover(now)
	e.out.Damaged = append(e.out.Damaged, damaged...)
	if err != nil {
		return nil, fmt.Errorf("recover: %w", err)
	}
	var loaded []*live
	lower, upper := table.ActiveAll()
	err = e.view.Scan(lower, upper, func(key, value []byte) bool {
		var active table.Active
		id, err := table.ParseID(key)
		if err == nil {
			active, err = table.ParseActive(value)
		}
		if err != nil {
			e.out.Damaged = append(e.out.Damaged, fmt.Errorf("row %s: %w", table.Describe(key), err))
			return true
		}
		switch active.Status {
		case recordv1.Status_STATUS_SCHEDULED:
		case recordv1.Status_STATUS_SUSPENDED, recordv1.Status_STATUS_PAUSED:
			if active.Object != (invocation.Object{}) {
				e.holdFor(active.Object, id)
			}
		default:
			loaded = append(loaded, &live{id: id, stored: true, receives: true, target: invocation.Target{Service: active.Object.Service, Key: active.Object.Key}})
		}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("recover: %w", err)
	}
	loaded = slices.DeleteFunc(loaded, func(l *live) bool {
		var err error
		if l.row, err = e.loadRow(l.id); err == nil && l.row == nil {
			err = fmt.Errorf("invocation %s is active and has no row", l.id)
		}
		if err != nil {
			e.out.Damaged = append(e.out.Damaged, err)
			if l.target.Key != "" {
				e.holdFor(l.target.Object(), l.id) // Whether it held the key nobody knows.
			}
			return true
		}
		l.target = targetOf(l.row.Target)
		e.live[l.id] = l
		return false
	})
	slices.SortFunc(loaded, func(a, b *live) int {
		return cmp.Or(cmp.Compare(a.row.InboxSeq, b.row.InboxSeq), cmp.Compare(string(a.id[:]), string(b.id[:])))
	})
	for _, l := range loaded {
		if l.row.Status == recordv1.Status_STATUS_QUEUED && !l.waitsForPermit() {
			continue
		}
		if l.holdsKey() && e.lock(l) != transaction.Has {
			e.out.Damaged = append(e.out.Damaged, fmt.Errorf("invocation %s is %s, and something else holds %s", l.id, l.row.Status, l.target.Object()))
			continue
		}
		if l.row.Status == recordv1.Status_STATUS_RUNNING {
			if err := e.start(l, now); err != nil {
				return nil, fmt.Errorf("recover: %w", err)
			}
		}
	}
	e.recoverReads()
	for _, l := range loaded {
		if l.row.Status != recordv1.Status_STATUS_QUEUED || l.waitsForPermit() {
			continue
		}
		// A key that was held by a TRANSACTION nobody wrote down is free again.
		if l.holdsKey() && e.lock(l) == transaction.Waits {
			continue
		}
		if err := e.start(l, now); err != nil {
			return nil, fmt.Errorf("recover: %w", err)
		}
	}
	err = outbox.Scan(e.view, func(to uint32, sequence uint64, message *recordv1.Message) {
		if message.GetRules() != nil {
			e.outbox.Watch(to, sequence)
		}
		e.effect(&SendMessage{To: to, Sequence: sequence, Message: message})
	}, func(damaged error) { e.out.Damaged = append(e.out.Damaged, damaged) })
	if err != nil {
		return nil, fmt.Errorf("recover: %w", err)
	}
	e.out.Mutations = e.draft.Mutations()
	return &e.out, nil
}
