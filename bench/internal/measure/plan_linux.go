package measure

import (
	"fmt"
	"regexp"
	"time"

	"github.com/perdure/perdure/bench/internal/system"
)

// Cell is one call mix: what is called, on how many keys, by how many callers at once.
type Cell struct {
	Workload string
	Op       system.Op
	Keys     int
	Callers  int
}

// manyKeys is over how many counters the callers spread.
const manyKeys = 1000

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

// Full is what the tables in docs are made from. It takes about 12 minutes with three systems.
func Full() Plan {
	return Plan{
		Rounds: 3, Warmup: 1500 * time.Millisecond, Window: 4 * time.Second,
		Groups: [][]Cell{
			{{WorkloadAdd, system.Add, manyKeys, 1}, {WorkloadAdd, system.Add, manyKeys, 64}, {WorkloadAdd, system.Add, manyKeys, 256}},
			{{WorkloadHot, system.Add, 1, 1}, {WorkloadHot, system.Add, 1, 64}, {WorkloadHot, system.Add, 1, 256}},
			{{WorkloadGet, system.Get, manyKeys, 1}, {WorkloadGet, system.Get, manyKeys, 64}},
			{{WorkloadSteps, system.Run10, 1, 1}, {WorkloadSteps, system.Run10, 1, 64}},
		},
		Idle: 5 * time.Second, Floor: 2 * time.Second,
		RecoveryRounds: 3, RecoveryLoad: 3 * time.Second,
	}
}

// Quick takes about two minutes with three systems: fewer and shorter windows, one server for all of them.
func Quick() Plan {
	return Plan{
		Rounds: 2, Warmup: 500 * time.Millisecond, Window: 1200 * time.Millisecond,
		Groups: [][]Cell{{
			{WorkloadAdd, system.Add, manyKeys, 1}, {WorkloadAdd, system.Add, manyKeys, 64}, {WorkloadAdd, system.Add, manyKeys, 256},
			{WorkloadHot, system.Add, 1, 64},
			{WorkloadGet, system.Get, manyKeys, 64},
			{WorkloadSteps, system.Run10, 1, 1}, {WorkloadSteps, system.Run10, 1, 64},
		}},
		Idle: 2 * time.Second, Floor: 500 * time.Millisecond,
		RecoveryRounds: 1, RecoveryLoad: 1500 * time.Millisecond,
	}
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
			if match.MatchString(fmt.Sprintf("%s/%d", cell.Workload, cell.Callers)) {
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
