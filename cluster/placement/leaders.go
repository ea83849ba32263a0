package placement

import (
	"fmt"
	"slices"
)

// balanceLeaders hands leaderships over until the sites have equally many, within one. A
// leadership may go only to a voter, so it can take several to get one from the site with the
// most to one with few: partition 1 from a to b, then partition 2 from b to c. The last of such
// a chain is done first, so that no site has more than before at any time. While copies move,
// leaders go straight or not at all: with the copies there are other chains.
func (pl *planner) balanceLeaders() {
	heirs := map[*group][]int{}
	straight := false
	for _, g := range pl.groups {
		if g.ID == 0 || g.planned || !g.settled() {
			straight = straight || g.ID != 0
			continue
		}
		if possible := pl.heirs(g); slices.Contains(possible, g.leader) {
			heirs[g] = possible
		}
	}
	for pl.steps > 0 {
		g, to := pl.chain(heirs, straight)
		if g == nil {
			return
		}
		from := pl.sites[g.leader]
		delete(heirs, g)
		pl.step(g, Step{Kind: Transfer, To: pl.sites[to].ID, Reason: fmt.Sprintf("evens out leaders: %d there, %d here", from.leads, pl.sites[to].leads)})
		from.leads--
		pl.sites[to].leads++
	}
}

// chain finds the shortest chain of hand-overs from the site with the most leaders for which
// there is one, to a site with at least two fewer, and returns its last link.
func (pl *planner) chain(heirs map[*group][]int, straight bool) (*group, int) {
	starts := pl.every(func(s *site) bool { return s.leads > 1 })
	slices.SortStableFunc(starts, func(a, b int) int { return pl.sites[b].leads - pl.sites[a].leads })
	for _, start := range starts {
		seen := map[int]bool{start: true}
		for reached := []int{start}; len(reached) > 0; {
			n := reached[0]
			reached = reached[1:]
			var link *group
			end := -1
			for _, g := range pl.groups {
				if g.leader != n || heirs[g] == nil {
					continue
				}
				for _, m := range heirs[g] {
					if pl.sites[m].leads+2 <= pl.sites[start].leads && (end < 0 || pl.sites[m].leads < pl.sites[end].leads) {
						link, end = g, m
					}
					if !seen[m] && !straight {
						seen[m] = true
						reached = append(reached, m)
					}
				}
			}
			if end >= 0 {
				return link, end
			}
		}
	}
	return nil, -1
}
