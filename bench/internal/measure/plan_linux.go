package measure

import (
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/perdure/perdure/bench/internal/workload"
)

// Cell is one call mix: what is called, and by how many callers at once.
type Cell struct {
	workload.Workload
	Callers int
}

// cells are one workload by different numbers of callers.
func cells(w workload.Workload, callers ...int) []Cell {
	all := make([]Cell, len(callers))
	for i, count := range callers {
		all[i] = Cell{w, count}
	}
	return all
}

// Plan says what one run measures and for how long.
type Plan struct {
	// Rounds is how often each system has its turn.
	Rounds int
	// Warmup runs before each window and is not counted; Window is.
	Warmup, Window time.Duration
	// Groups are cells that share a freshly started server on an empty directory.
	Groups [][]Cell
	// Idle is how long a system is watched without callers, in the first round; 0 is not at all.
	Idle time.Duration
	// Floor is the length of each series of synced appends; there is one before each round.
	Floor time.Duration
	// RecoveryRounds is how often each system is killed under load, each time after RecoveryLoad.
	RecoveryRounds int
	RecoveryLoad   time.Duration
}

// Full is what the tables in docs are made from. It takes about 20 minutes with three systems.
func Full() Plan {
	return Plan{
		Rounds: 3, Warmup: 1500 * time.Millisecond, Window: 4 * time.Second,
		Groups: [][]Cell{
			cells(workload.Adds(), 1, 64, 256),
			cells(workload.Hot(), 1, 64, 256),
			cells(workload.Gets(), 1, 64),
			slices.Concat(cells(workload.Steps(), 1, 64, 256), cells(workload.OneStep(), 1, 64, 256),
				cells(workload.ThreeSteps(), 64), cells(workload.NineSteps(), 64)),
			slices.Concat(cells(workload.Transfers(), 1, 64, 256), cells(workload.KeyedTransfers(), 64)),
			slices.Concat(cells(workload.FanOut(), 1, 16), cells(workload.FanOutAtomic(), 1, 16)),
		},
		Idle: 5 * time.Second, Floor: 2 * time.Second,
		RecoveryRounds: 3, RecoveryLoad: 3 * time.Second,
	}
}

// Quick takes about three minutes with three systems: fewer and shorter windows, one server for all of them.
func Quick() Plan {
	return Plan{
		Rounds: 2, Warmup: 500 * time.Millisecond, Window: 1200 * time.Millisecond,
		Groups: [][]Cell{slices.Concat(
			cells(workload.Adds(), 1, 64, 256),
			cells(workload.Hot(), 64),
			cells(workload.Gets(), 64),
			cells(workload.Steps(), 1, 64), cells(workload.OneStep(), 64),
			cells(workload.Transfers(), 64), cells(workload.KeyedTransfers(), 64),
			cells(workload.FanOut(), 16), cells(workload.FanOutAtomic(), 16),
		)},
		Idle: 2 * time.Second, Floor: 500 * time.Millisecond,
		RecoveryRounds: 1, RecoveryLoad: 1500 * time.Millisecond,
	}
}

// FullTransactions is SmallBank and mixes of 2 to 8 keys, each beside the same work by calls of single objects, and on
// Restate without atomicity. It takes about 25 minutes with three systems, and about 10 with Perdure alone.
func FullTransactions() Plan {
	return Plan{
		Rounds: 3, Warmup: 500 * time.Millisecond, Window: 2 * time.Second, Floor: time.Second,
		Groups: transactions([]workload.Choice{{}, {Zipf: 0.9}, {Zipf: 0.99}}, []int{2, 4, 8}, 1, 64, 256),
	}
}

// QuickTransactions is a part of it in less than three minutes with two systems: one round, short windows.
func QuickTransactions() Plan {
	return Plan{
		Rounds: 1, Warmup: 300 * time.Millisecond, Window: 1200 * time.Millisecond, Floor: 500 * time.Millisecond,
		Groups: transactions([]workload.Choice{{}, {Zipf: 0.99}}, []int{2, 8}, 1, 64, 256),
	}
}

// transactions has a group for SmallBank and one for all mixes: to fill a server with entries takes longer on Restate than
// to measure it. What is compared runs one after the other.
func transactions(choices []workload.Choice, sizes []int, callers ...int) [][]Cell {
	var bank, mixes []Cell
	for _, choice := range choices {
		for _, count := range callers {
			bank = append(bank, Cell{workload.SmallBank(choice), count}, Cell{workload.SmallBankOneByOne(choice), count})
		}
	}
	for _, size := range sizes {
		for _, choice := range choices {
			for _, count := range callers {
				mixes = append(mixes, Cell{workload.Mix(size, choice), count}, Cell{workload.MixOneByOne(size, choice), count})
			}
		}
	}
	return [][]Cell{bank, mixes}
}

// Only keeps the cells whose "workload/callers" matches, and recovery when "recovery" does.
func (p Plan) Only(pattern string) (Plan, error) {
	match, err := regexp.Compile(pattern)
	if err != nil {
		return p, fmt.Errorf("workloads: %w", err)
	}
	var groups [][]Cell
	for _, group := range p.Groups {
		var kept []Cell
		for _, cell := range group {
			if match.MatchString(fmt.Sprintf("%s/%d", cell.Name, cell.Callers)) {
				kept = append(kept, cell)
			}
		}
		if len(kept) > 0 {
			groups = append(groups, kept)
		}
	}
	p.Groups = groups
	if !match.MatchString("recovery") {
		p.RecoveryRounds = 0
	}
	if len(groups) == 0 && p.RecoveryRounds == 0 {
		return p, fmt.Errorf("workloads: %q matches neither a cell nor recovery", pattern)
	}
	return p, nil
}
