package placement

import (
	"slices"
)

// chooseVoters decides which copies vote; as with copies, those that are missing first.
func (pl *planner) chooseVoters() {
	number := map[*group]int{}
	for _, g := range pl.groups {
		g.wantVoters = both(g.voters, g.stay)
		if g.frozen {
			continue
		}
		for _, n := range without(g.voters, g.stay) {
			pl.votes(g, n, -1)
		}
		number[g] = len(g.stay) // if somebody has to fill up, all others vote
		if len(g.fill) == 0 {
			number[g] = pl.votersOf(g, len(g.stay))
		}
	}
	for _, g := range pl.groups {
		for len(g.wantVoters) < number[g] {
			next := best(without(g.stay, g.wantVoters), func(n int) []int {
				return []int{
					one(pl.sites[n].Health != Alive), one(!g.holds(n)),
					pl.crowding(append(slices.Clone(g.wantVoters), n)), pl.sites[n].voters,
				}
			})
			g.wantVoters = append(g.wantVoters, next)
			pl.votes(g, next, 1)
		}
	}
	pl.drop(func(g *group) []int {
		if g.frozen || len(g.wantVoters) <= number[g] {
			return nil
		}
		return g.wantVoters
	}, func(g *group, n int) []int {
		return []int{
			pl.crowding(without(g.wantVoters, []int{n})) - pl.crowding(g.wantVoters),
			-pl.sites[n].voters, one(n == g.leader),
		}
	}, func(g *group, n int) {
		g.wantVoters = without(g.wantVoters, []int{n})
		pl.votes(g, n, -1)
	})
	pl.evenOutVotes()
	for _, g := range pl.groups {
		g.wantVoters = append(g.wantVoters, g.fill...)
	}
}

func (pl *planner) votes(g *group, n, more int) {
	if g.ID != 0 {
		pl.sites[n].voters += more
	}
}

// evenOutVotes lets learners that are there for want of an odd number of nodes vote instead of
// others: two nodes with one voter for each partition have half of them each.
func (pl *planner) evenOutVotes() {
	for range pl.steps {
		var chosen *group
		from, to, widest := -1, -1, 1
		for _, g := range pl.groups {
			if !pl.movable(g) || len(g.wantVoters) != len(g.voters) || len(without(g.wantVoters, g.voters)) > 0 {
				continue
			}
			for _, n := range g.wantVoters {
				for _, m := range without(g.stay, g.wantVoters) {
					gap := pl.sites[n].voters - pl.sites[m].voters
					if gap > widest && pl.crowding(append(without(g.wantVoters, []int{n}), m)) <= pl.crowding(g.wantVoters) {
						chosen, from, to, widest = g, n, m, gap
					}
				}
			}
		}
		if chosen == nil {
			return
		}
		chosen.wantVoters[slices.Index(chosen.wantVoters, from)] = to
		pl.sites[from].voters--
		pl.sites[to].voters++
		pl.improve(chosen)
	}
}
