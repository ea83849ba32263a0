package partition

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/perdure/perdure/internal/partition/status"
	"github.com/perdure/perdure/internal/routing"
)

// transactionsWait is how long the partitions have to say what they know. They do so between two
// events, so one that does not is stuck in one, or far behind.
const transactionsWait = 5 * time.Second

// Transactions implements routing.Router. Partitions that nobody leads here contribute nothing.
// Fails with unavailable, naming them, if some do not answer within 5 s: a list that leaves out
// what they hold would say that nothing is in doubt.
func (r *Router) Transactions(ctx context.Context) ([]routing.Transaction, error) {
	return r.TransactionsOf(ctx, nil)
}

// TransactionsOf is Transactions of some partitions, all of which must be led here; nil: of all.
func (r *Router) TransactionsOf(ctx context.Context, ids []uint32) ([]routing.Transaction, error) {
	all, err := collect(ctx, r, ids, func(p *Partition, l *leadership) []routing.Transaction {
		return status.Transactions(p.id, l.engine)
	})
	return routing.SortTransactions(all), err
}

// some are the partitions with these ids; nil: all.
func (r *Router) some(ids []uint32) ([]*Partition, error) {
	if ids == nil {
		return r.partitions, nil
	}
	if len(ids) > len(r.partitions) {
		return nil, routing.Errorf(routing.CodeInvalidArgument, "%d partitions are asked for; there are %d", len(ids), len(r.partitions))
	}
	partitions := make([]*Partition, 0, len(ids))
	for _, id := range ids {
		if id < 1 || id > uint32(len(r.partitions)) {
			return nil, routing.Errorf(routing.CodeInvalidArgument, "there is no partition %d; they are 1 to %d", id, len(r.partitions))
		}
		partitions = append(partitions, r.partitions[id-1])
	}
	return partitions, nil
}

// collect asks partitions on their goroutines, between two events. What about returns belongs to
// the caller.
func collect[T any](ctx context.Context, r *Router, ids []uint32, about func(*Partition, *leadership) []T) ([]T, error) {
	partitions, err := r.some(ids)
	if err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, transactionsWait)
	defer cancel()
	type answer struct {
		from  *Partition
		led   bool
		found []T
	}
	answers := make(chan answer, len(partitions))
	missing := map[uint32]bool{}
	for _, p := range partitions {
		missing[p.id] = true
		p.post(item{control: controlMeasure, granted: func() {
			l := p.leading.Load()
			a := answer{from: p, led: l != nil}
			if a.led {
				a.found = about(p, l)
			}
			answers <- a
		}})
	}
	var all []T
	for len(missing) > 0 {
		select {
		case a := <-answers:
			if !a.led && ids != nil {
				return nil, a.from.elsewhere(nil)
			}
			delete(missing, a.from.id)
			all = append(all, a.found...)
		case <-bounded.Done():
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			return nil, routing.Errorf(routing.CodeUnavailable, "%s did not answer within %s: try again", routing.PartitionNames(slices.Collect(maps.Keys(missing))), transactionsWait)
		}
	}
	return all, nil
}
