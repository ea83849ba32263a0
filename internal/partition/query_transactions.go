package partition

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/routing"
)

// transactionsWait is how long the partitions have to say what they know. They do so between two
// events, so one that does not is stuck in one, or far behind.
const transactionsWait = 5 * time.Second

// Transactions implements routing.Router. Partitions that nobody leads here contribute nothing.
// Fails with unavailable, naming them, if some do not answer within 5 s: a list that leaves out
// what they hold would say that nothing is in doubt.
func (r *Router) Transactions(ctx context.Context) ([]routing.Transaction, error) {
	bounded, cancel := context.WithTimeout(ctx, transactionsWait)
	defer cancel()
	type answer struct {
		partition uint32
		statuses  []engine.TransactionStatus
	}
	answers := make(chan answer, len(r.partitions))
	missing := map[uint32]bool{}
	for _, p := range r.partitions {
		missing[p.id] = true
		p.post(item{control: controlMeasure, granted: func() { answers <- answer{p.id, p.transactions()} }})
	}
	var all []routing.Transaction
	for len(missing) > 0 {
		select {
		case a := <-answers:
			delete(missing, a.partition)
			for _, status := range a.statuses {
				all = append(all, transactionOf(a.partition, status))
			}
		case <-bounded.Done():
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			return nil, routing.Errorf(routing.CodeUnavailable, "%s did not answer within %s: try again", partitionNames(missing), transactionsWait)
		}
	}
	slices.SortFunc(all, transactionOrder)
	return all[:min(len(all), routing.MaxPage)], nil
}

// transactions is called on the partition's goroutine. What it returns belongs to the caller.
func (p *Partition) transactions() []engine.TransactionStatus {
	l := p.leading.Load()
	if l == nil {
		return nil
	}
	return l.engine.Transactions()
}

// transactionOrder has the oldest first, and of each transaction the coordinator.
func transactionOrder(a, b routing.Transaction) int {
	if a.Coordinator != b.Coordinator && a.Root == b.Root && a.At.Equal(b.At) {
		if a.Coordinator {
			return -1
		}
		return 1
	}
	return cmp.Or(a.At.Compare(b.At), bytes.Compare(a.Root[:], b.Root[:]),
		cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Sequence, b.Sequence))
}

func transactionOf(partition uint32, status engine.TransactionStatus) routing.Transaction {
	return routing.Transaction{
		Root: status.ID.Root, Sequence: status.ID.Sequence, Partition: partition, Coordinator: status.Coordinator,
		// The numbers are the same, which a test makes sure of.
		Phase: routing.TransactionPhase(status.Phase), Target: status.Target,
		At: time.UnixMilli(status.At), Since: time.UnixMilli(status.Since), Try: status.Try, Members: status.Members,
		Held: transactionLocks(status.Held), Waiting: transactionLocks(status.Waiting), Reason: status.Reason,
	}
}

func transactionLocks(locks []engine.LockStatus) []routing.TransactionLock {
	var all []routing.TransactionLock
	for _, lock := range locks {
		all = append(all, routing.TransactionLock{Object: lock.Object, Shared: lock.Shared, By: lock.By})
	}
	return all
}

// partitionNames is "partition 3" or "partitions 3, 4, 5", for an error.
func partitionNames(ids map[uint32]bool) string {
	const most = 10
	var names []string
	for id := range ids {
		names = append(names, fmt.Sprint(id))
	}
	if len(names) == 1 {
		return "partition " + names[0]
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) })
	if len(names) > most {
		names = append(names[:most], fmt.Sprintf("%d more", len(names)-most))
	}
	return "partitions " + strings.Join(names, ", ")
}
