package main

import (
	"errors"
	"slices"
	"time"

	"github.com/perdure/perdure/bench/internal/scale"
	"github.com/perdure/perdure/cluster/placement"
)

// plans is a cluster in which steps come to pass at once.
type plans struct {
	input   placement.Input
	slowest time.Duration
	copies  int
}

// settle carries steps out until none is left.
func (w *plans) settle() error {
	for range 200_000 {
		for i := range w.input.Partitions {
			p := &w.input.Partitions[i]
			p.CaughtUp = map[uint64]bool{}
			for _, id := range slices.Concat(p.Voters, p.Learners) {
				p.CaughtUp[id] = w.alive(id)
			}
			if !w.alive(p.Leader) {
				at := slices.IndexFunc(p.Voters, w.alive)
				if at < 0 {
					return errors.New("a partition has lost all of its voters")
				}
				p.Leader = p.Voters[at]
			}
		}
		began := time.Now()
		plan := placement.Next(w.input)
		w.slowest = max(w.slowest, time.Since(began))
		if len(plan.Steps) == 0 {
			return nil
		}
		for _, step := range plan.Steps {
			p := &w.input.Partitions[step.Partition]
			if step.Kind == placement.Transfer {
				p.Leader = step.To
				continue
			}
			add, _, _, _ := step.Changes()
			if step.Partition != 0 { // of which every node has a copy
				w.copies += len(add)
			}
			p.Voters, p.Learners = step.Want.Voters, step.Want.Learners
		}
	}
	return errors.New("placement does not come to rest")
}

func (w *plans) alive(id uint64) bool {
	return slices.ContainsFunc(w.input.Nodes, func(n placement.Node) bool { return n.ID == id && n.Health == placement.Alive })
}

func (w *plans) uneven() (copies, leaders int) {
	has, leads := map[uint64]int{}, map[uint64]int{}
	for _, p := range w.input.Partitions[1:] {
		leads[p.Leader]++
		for _, id := range slices.Concat(p.Voters, p.Learners) {
			has[id]++
		}
	}
	spread := func(count map[uint64]int) int {
		most, least := 0, len(w.input.Partitions)
		for _, n := range w.input.Nodes {
			if n.Health == placement.Alive {
				most, least = max(most, count[n.ID]), min(least, count[n.ID])
			}
		}
		return most - least
	}
	return spread(has), spread(leads)
}

func measurePlans(nodes, partitions int) (scale.Plan, error) {
	out := scale.Plan{Nodes: nodes, Partitions: partitions}
	w := &plans{input: placement.Input{Replicas: scale.Replicas, Limit: 64}} // more than a cluster does at once, to be quick
	for id := range nodes {
		w.input.Nodes = append(w.input.Nodes, placement.Node{ID: uint64(id) + 1})
	}
	for id := range partitions + 1 {
		at := func(i int) uint64 { return uint64((id+i)%nodes) + 1 }
		w.input.Partitions = append(w.input.Partitions, placement.Partition{ID: uint32(id), Leader: at(0), Voters: slices.Sorted(slices.Values([]uint64{at(0), at(1), at(2)}))})
	}
	if err := w.settle(); err != nil {
		return out, err
	}
	w.copies, w.slowest = 0, 0
	w.input.Nodes = append(w.input.Nodes, placement.Node{ID: uint64(nodes) + 1})
	if err := w.settle(); err != nil {
		return out, err
	}
	out.Joined = w.copies
	out.UnevenCopies, out.UnevenLeaders = w.uneven()
	w.copies = 0
	w.input.Nodes[0].Health = placement.Lost
	if err := w.settle(); err != nil {
		return out, err
	}
	out.Lost = w.copies
	copies, leaders := w.uneven()
	out.UnevenCopies, out.UnevenLeaders = max(out.UnevenCopies, copies), max(out.UnevenLeaders, leaders)
	out.Milliseconds = w.slowest.Seconds() * 1000
	return out, nil
}
