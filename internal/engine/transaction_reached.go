package engine

import (
	"maps"
	"slices"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/transaction"
)

func (ev *Reached) evaluate(e *Engine, now int64) error {
	from := ev.Partition
	for _, l := range e.sortedRoots() {
		e.repeatTo(l.root.ID, l, from, now)
		if l.root.Phase == transaction.Preparing || l.root.Phase == transaction.RollingBack {
			e.askToPrepare(l, from)
		}
	}
	for _, id := range slices.SortedFunc(maps.Keys(e.decisions), transaction.ID.Compare) {
		if slices.Contains(e.decisions[id].waiting, from) {
			e.tellCommit(id, []uint32{from})
		}
	}
	for _, b := range e.sortedBranches() {
		for _, path := range sortedPaths(b.calls) {
			e.repeatTo(b.ID, b.calls[path], from, now)
		}
		switch {
		case b.coordinator != from:
		case b.Broken != "":
			e.tellDied(b)
		default:
			e.inquire(b)
		}
	}
	return e.settle(now)
}

// repeatTo makes the calls of a handler to a partition again.
func (e *Engine) repeatTo(id transaction.ID, l *live, to uint32, now int64) {
	for _, index := range slices.Sorted(maps.Keys(l.calls)) {
		if call := l.calls[index]; call.to == to {
			call.at = now
			e.tell(to, id, false, call.peer)
		}
	}
}

// inquire asks a coordinator what became of a transaction.
func (e *Engine) inquire(b *branch) {
	e.tell(b.coordinator, b.ID, false, &recordv1.Peer{Message: &recordv1.Peer_Inquire{
		Inquire: &recordv1.Inquire{From: e.config.Partition, Waits: b.selfWaits(), Part: b.Decider.GetEpoch()},
	}})
}
