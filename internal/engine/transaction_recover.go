package engine

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
	"github.com/perdure/perdure/internal/transaction"
)

// recoverTransactions takes the keys that participants have promised to keep, before anybody
// else can, and asks their coordinators what became of them.
func (e *Engine) recoverTransactions() error {
	if bugPrepared {
		return nil
	}
	lower, upper := table.PreparedAll()
	err := e.view.Scan(lower, upper, func(key, value []byte) bool {
		row := &recordv1.Prepared{}
		err := proto.Unmarshal(value, row)
		p, ok := transaction.Restore(row)
		if err == nil && !ok {
			err = fmt.Errorf("it names no transaction or no object")
		}
		if err != nil {
			e.out.Damaged = append(e.out.Damaged, fmt.Errorf("row %s: a promise that can't be read: its objects stand open: %w", table.Describe(key), err))
			if root, sequence, err := table.ParsePrepared(key); err == nil {
				e.unreadable[transaction.ID{Root: root, Sequence: sequence}] = true
			}
			return true
		}
		b := &branch{Participant: p, coordinator: p.Coordinator(e.config.Partitions), calls: map[transaction.Path]*live{}}
		e.branches[p.ID] = b
		for _, hold := range p.Holds {
			if !hold.Request.Shared {
				e.keepPromised(b, hold)
			}
			e.hide(hold)
		}
		e.tell(b.coordinator, b.ID, false, &recordv1.Peer{Message: &recordv1.Peer_Inquire{Inquire: &recordv1.Inquire{From: e.config.Partition, Part: p.Decider.GetEpoch()}}})
		return true
	})
	if err != nil {
		return err
	}
	lower, upper = table.DecisionAll()
	return e.view.Scan(lower, upper, func(key, value []byte) bool {
		row := &recordv1.Decision{}
		err := proto.Unmarshal(value, row)
		id, ok := transaction.IDOf(row.GetId())
		if err != nil || !ok {
			// Its key says which it is: it has committed, and whoever asks is told so.
			e.out.Damaged = append(e.out.Damaged, fmt.Errorf("row %s: a decision that can't be read; its participants ask for it: %w", table.Describe(key), err))
			root, sequence, keyErr := table.ParsePrepared(key)
			if keyErr != nil {
				return true
			}
			id = transaction.ID{Root: root, Sequence: sequence}
		}
		e.decisions[id] = &decision{at: row.At, waiting: row.Participants, damaged: err != nil || !ok}
		e.tellCommit(id, row.Participants)
		return true
	})
}

// keepPromised takes a key that a participant has promised to keep.
func (e *Engine) keepPromised(b *branch, hold *transaction.Hold) {
	if hold.Request.Object.Key != "" && e.locks.Acquire(&hold.Request) != transaction.Has {
		e.out.Damaged = append(e.out.Damaged, fmt.Errorf("row %s: something else holds %s, which the transaction has promised to keep",
			table.Describe(table.Prepared(b.ID.Root, b.ID.Sequence)), hold.Request.Object))
	}
}

// recoverReads takes the keys of objects that participants have only read: after the DURABLE
// handlers beside which they did have theirs, which would otherwise wait for them.
func (e *Engine) recoverReads() {
	for _, b := range e.sortedBranches() {
		for _, hold := range b.Holds {
			if hold.Request.Shared {
				e.keepPromised(b, hold)
			}
		}
	}
}

// holdFor keeps an object's key for an invocation that is not in memory.
func (e *Engine) holdFor(o invocation.Object, id invocation.ID) {
	e.locks.Acquire(&transaction.Request{Owner: id, Object: o, Kind: transaction.Durable})
}
