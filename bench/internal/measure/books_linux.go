package measure

import (
	"context"
	"fmt"

	"github.com/perdure/perdure/bench/internal/load"
	"github.com/perdure/perdure/bench/internal/system"
	"github.com/perdure/perdure/bench/internal/workload"
)

// bookkeepers is how many connections fill a ledger and read it back.
const bookkeepers = 64

// books hold what the ledgers of one server must add up to, so that a benchmark cannot be fast and wrong.
type books map[*workload.Ledger]*account

// account is what is known of one ledger.
type account struct {
	sum int64
	// unknown is how many calls failed that may have changed the sum. With any, it can't be checked.
	unknown uint64
}

// open fills the ledger unless that is done. A nil ledger needs nothing.
func (b books) open(ctx context.Context, instance *system.Instance, ledger *workload.Ledger) error {
	if ledger == nil || b[ledger] != nil {
		return nil
	}
	b[ledger] = &account{}
	if ledger.Fill == nil {
		return nil
	}
	sum, err := once(ctx, instance, ledger.Fill(instance), ledger.Change)
	b[ledger].sum = sum
	return err
}

// enter adds what the calls of a window changed.
func (b books) enter(cell Cell, result load.Result) {
	if cell.Ledger == nil {
		return
	}
	a := b[cell.Ledger]
	a.sum += result.Changed
	switch {
	case cell.Change == nil: // nothing that can have happened changes the sum
	case cell.Partial:
		a.unknown += result.Failed
	default:
		a.unknown += result.Failed - result.Rejected
	}
}

// check reads every ledger back. What does not add up is a note that begins with WRONG.
func (b books) check(ctx context.Context, name string, instance *system.Instance, note func(format string, args ...any)) error {
	for ledger, a := range b {
		if ledger.Read == nil || ledger.System != "" && ledger.System != name {
			continue
		}
		if a.unknown > 0 {
			note("%s: not checked: what %s must be, since %d calls have an unknown outcome", name, ledger.Name, a.unknown)
			continue
		}
		sum, err := once(ctx, instance, ledger.Read(instance), ledger.Number)
		if err != nil {
			return fmt.Errorf("reading %s: %w", ledger.Name, err)
		}
		if sum != a.sum {
			note("WRONG: %s: %s: %d, and %d by what was acknowledged", name, ledger.Name, sum, a.sum)
		}
	}
	return nil
}

// once makes every call once and returns the sum of what the answers say.
func once(ctx context.Context, instance *system.Instance, calls []load.Call, number func([]byte) (int64, error)) (int64, error) {
	generator, err := load.Start(load.Plan{
		Addr: instance.Addr, Calls: calls, Callers: min(len(calls), bookkeepers), Limit: len(calls), Change: number,
	})
	if err != nil {
		return 0, err
	}
	result := generator.Wait(ctx)
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if result.Completed != uint64(len(calls)) {
		return 0, fmt.Errorf("%d of %d calls succeeded: %w", result.Completed, len(calls), result.FirstError)
	}
	return result.Changed, nil
}
