package placement

import (
	"fmt"
	"slices"
	"strings"
)

// begin finds the first step of each group on its way to what it should be.
func (pl *planner) begin() {
	order := slices.Clone(pl.groups)
	slices.SortStableFunc(order, func(a, b *group) int { return a.improvement - b.improvement })
	for _, g := range order {
		pl.advance(g)
	}
}

func (pl *planner) wait(g *group, format string, args ...any) {
	g.planned = true
	pl.plan.Waits = append(pl.plan.Waits, Wait{g.ID, fmt.Sprintf(format, args...)})
}

func (pl *planner) step(g *group, s Step) {
	g.planned = true
	if pl.steps <= 0 {
		pl.wait(g, "others are under way: %s", s.Reason)
		return
	}
	pl.steps--
	s.Partition, s.Leader, s.Expect = g.ID, pl.sites[g.leader].ID, g.current
	pl.plan.Steps = append(pl.plan.Steps, s)
}

func (pl *planner) reconfigure(g *group, voters, learners []int, reason string) {
	pl.step(g, Step{Kind: Reconfigure, Want: Configuration{Voters: pl.ids(voters), Learners: pl.ids(learners)}, Reason: reason})
}

// ready: it is alive and knows nearly everything.
func (pl *planner) ready(g *group, n int) bool {
	return pl.sites[n].Health == Alive && pl.caughtUp(g, n)
}

func (pl *planner) countReady(g *group, sites []int) (ready int) {
	for _, n := range sites {
		ready += one(pl.ready(g, n))
	}
	return ready
}

// heirs are the voters that may lead: what remains a voter, on a site that takes.
func (pl *planner) heirs(g *group) (out []int) {
	return slices.DeleteFunc(pl.remaining(g), func(n int) bool { return !pl.sites[n].takes() })
}

// remaining are the voters that will still be some, and could lead.
func (pl *planner) remaining(g *group) (out []int) {
	return slices.DeleteFunc(both(g.voters, g.wantVoters), func(n int) bool { return !pl.ready(g, n) })
}

// transfer makes the one with the fewest leaders lead, if there is one.
func (pl *planner) transfer(g *group, heirs []int, reason string) bool {
	to := best(heirs, func(n int) []int {
		if n == g.leader {
			return nil
		}
		return []int{one(!pl.sites[n].takes()), pl.sites[n].leads}
	})
	if to < 0 {
		return false
	}
	if g.ID != 0 {
		pl.sites[g.leader].leads--
		pl.sites[to].leads++
	}
	pl.step(g, Step{Kind: Transfer, To: pl.sites[to].ID, Reason: reason})
	return true
}

func (pl *planner) advance(g *group) {
	// Who is wanted as a learner; of the cluster's own group, everybody who does not vote.
	want := slices.Concat(g.stay, g.fill)
	holders := slices.Concat(g.voters, g.learners)
	if g.ID == 0 {
		want = append(want, without(pl.every(func(s *site) bool {
			n := pl.places[s.ID]
			return s.State != Removed && (slices.Contains(holders, n) || s.Health == Alive)
		}), want)...)
	}
	missing, extra := without(want, holders), without(g.learners, want)
	promote, demote := without(g.wantVoters, g.voters), without(g.voters, g.wantVoters)
	if g.blocked != "" {
		pl.wait(g, "%s", g.blocked)
		return
	}
	if pl.sites[g.leader].State != Active && pl.transfer(g, pl.heirs(g), "the leader is leaving") {
		return
	}
	if len(missing) > 0 {
		if pl.moves <= 0 {
			pl.wait(g, "others are being copied: %s", g.reason)
			return
		}
		pl.moves--
		pl.reconfigure(g, g.voters, append(slices.Clone(g.learners), missing...), g.reason)
		return
	}
	if len(promote)+len(demote) > 0 && pl.changeVoters(g, want, promote, demote) {
		return
	}
	if len(extra) > 0 {
		pl.reconfigure(g, g.voters, without(g.learners, extra), "it is not needed there")
		return
	}
	if len(g.fill) > 0 {
		pl.wait(g, "no other node can take its place: %s", pl.leaving(g))
	}
}

// leaving says what is wrong with the sites that fill up.
func (pl *planner) leaving(g *group) string {
	var all []string
	for _, n := range g.fill {
		s, word := pl.sites[n], "is lost"
		if s.State == Draining {
			word = "is draining"
		} else if s.State == Removed {
			word = "was removed"
		}
		all = append(all, fmt.Sprintf("node %016x %s", s.ID, word))
	}
	return strings.Join(all, ", ")
}

// changeVoters makes voters of those that are ready, in the same change in which others stop to
// vote, and keeps their number odd. It reports whether the group has got a step or waits.
func (pl *planner) changeVoters(g *group, want, promote, demote []int) bool {
	ready := slices.DeleteFunc(slices.Clone(promote), func(n int) bool { return !pl.ready(g, n) })
	reason := "it has caught up"
	switch {
	case len(promote) == 0:
		reason = "there are too many voters"
	case len(demote) > 0 && len(ready) < len(promote):
		// Some can be replaced already; the leader last.
		demote = append(without(demote, []int{g.leader}), both(demote, []int{g.leader})...)
		number := min(len(ready), len(demote))
		ready, demote = ready[:number], demote[:number]
	case len(demote) == 0 && (len(g.voters)+len(ready))%2 == 0 && len(ready) > 0:
		ready = ready[1:]
	}
	if len(ready)+len(demote) == 0 {
		var names []string
		for _, n := range promote {
			if !pl.ready(g, n) {
				names = append(names, fmt.Sprintf("%016x", pl.sites[n].ID))
			}
		}
		pl.wait(g, "node %s has to catch up", strings.Join(names, ", "))
		return len(without(g.learners, want)) == 0
	}
	if slices.Contains(demote, g.leader) {
		if pl.transfer(g, pl.remaining(g), "the leader will not vote any more") {
			return true
		}
		// Nobody else may lead yet: those who will vote first.
		demote = without(demote, []int{g.leader})
		if len(ready) == 0 {
			pl.wait(g, "nobody can take over from its leader")
			return true
		}
		if (len(g.voters)-len(demote)+len(ready))%2 == 0 {
			if len(ready) > 1 {
				ready = ready[1:]
			} else if len(demote) > 0 {
				demote = without(demote, []int{best(demote, func(n int) []int { return []int{one(!pl.ready(g, n))} })})
			}
		}
	}
	voters := append(without(g.voters, demote), ready...)
	if quorum := len(voters)/2 + 1; pl.countReady(g, voters) < quorum {
		pl.wait(g, "too few of its voters answer")
		return true
	}
	learners := append(without(g.learners, ready), both(demote, want)...)
	if len(ready) > 0 && len(demote) > 0 {
		reason = "it has caught up and takes the place of another"
	}
	pl.reconfigure(g, voters, learners, reason)
	return true
}
