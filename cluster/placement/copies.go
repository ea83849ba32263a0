package placement

import (
	"fmt"
	"slices"
)

// chooseCopies decides which sites hold each group. Copies are added before others are let go
// of, so that both look at the same loads as whoever decided that a copy should move.
func (pl *planner) chooseCopies() {
	for _, g := range pl.groups {
		for _, n := range slices.Concat(g.voters, g.learners) {
			if pl.sites[n].stays() || g.frozen {
				g.stay = append(g.stay, n)
			} else if g.ID != 0 {
				pl.sites[n].copies--
			}
		}
	}
	for _, g := range pl.groups {
		if !g.frozen {
			pl.addCopies(g)
		}
	}
	pl.dropCopies()
	room := pl.moves
	for _, g := range pl.groups {
		if !g.frozen {
			pl.fill(g)
		}
		if len(without(g.stay, slices.Concat(g.voters, g.learners))) > 0 {
			room-- // repairs come first
		}
	}
	room = pl.spreadZones(room)
	pl.evenOut(room)
}

// dropCopies lets go of those that are too many: first where zones are crowded, then on the site
// that has the most.
func (pl *planner) dropCopies() {
	pl.drop(func(g *group) []int {
		if g.ID == 0 || g.frozen || len(g.stay) <= pl.in.Replicas {
			return nil
		}
		return g.stay
	}, func(g *group, n int) []int {
		return []int{
			pl.crowding(without(g.stay, []int{n})) - pl.crowding(g.stay), -pl.sites[n].copies,
			one(slices.Contains(g.voters, n)), one(pl.caughtUp(g, n)), one(n == g.leader),
		}
	}, func(g *group, n int) {
		g.stay = without(g.stay, []int{n})
		pl.sites[n].copies--
	})
}

// drop takes what costs least, again and again, of all groups that have too many.
func (pl *planner) drop(from func(*group) []int, cost func(*group, int) []int, take func(*group, int)) {
	for {
		var chosen *group
		worst, least := -1, []int(nil)
		for _, g := range pl.groups {
			for _, n := range from(g) {
				if c := cost(g, n); chosen == nil || slices.Compare(c, least) < 0 {
					chosen, worst, least = g, n, c
				}
			}
		}
		if chosen == nil {
			return
		}
		take(chosen, worst)
	}
}

// addCopies finds sites for those that are missing.
func (pl *planner) addCopies(g *group) {
	taking := pl.every((*site).takes)
	if g.ID == 0 {
		g.stay = append(g.stay, without(taking, g.stay)...)
		g.reason = "every node has a copy of the cluster's own group"
		return
	}
	had := len(g.stay)
	for len(g.stay) < pl.in.Replicas {
		next := best(taking, func(n int) []int {
			if slices.Contains(g.stay, n) {
				return nil
			}
			return []int{pl.crowding(append(slices.Clone(g.stay), n)), pl.sites[n].copies}
		})
		if next < 0 {
			break
		}
		g.stay = append(g.stay, next)
		pl.sites[next].copies++
	}
	if len(g.stay) == had {
		return
	}
	g.reason = fmt.Sprintf("%d of %d copies", had, pl.in.Replicas)
	for _, n := range slices.Concat(g.voters, g.learners) {
		switch s := pl.sites[n]; {
		case s.State == Removed:
			g.reason = "one was on a node that was removed"
		case s.State == Draining:
			g.reason = "one is on a node that is draining"
		case s.Health == Lost:
			g.reason = "one is on a node that is lost"
		}
	}
}

// fill keeps voters on sites that should be left, if there would be fewer voters without them
// though there are nodes enough: nodes come back, or others come. One that was removed stays only
// until another comes back, and not for a node that is leaving itself.
func (pl *planner) fill(g *group) {
	number := pl.votersOf(g, len(g.stay))
	leaving := slices.DeleteFunc(slices.Clone(g.voters), func(n int) bool { return pl.sites[n].stays() })
	for _, kind := range []struct{ from, of func(*site) bool }{
		{func(s *site) bool { return s.State != Removed }, func(s *site) bool { return s.State != Removed }},
		{func(*site) bool { return true }, func(s *site) bool { return s.State == Active }},
	} {
		possible := slices.DeleteFunc(slices.Clone(leaving), func(n int) bool { return !kind.from(pl.sites[n]) })
		number = max(number, min(odd(len(g.voters)), pl.votersOf(g, len(pl.every(kind.of))), odd(len(g.stay)+len(possible))))
		for len(g.stay)+len(g.fill) < number {
			g.fill = append(g.fill, best(without(possible, g.fill), func(n int) []int {
				return []int{one(pl.sites[n].Health != Alive), one(n != g.leader)}
			}))
		}
	}
}

// votersOf is how many voters a group should have that could have copies on so many sites.
func (pl *planner) votersOf(g *group, copies int) int {
	if g.ID != 0 {
		return odd(min(pl.in.Replicas, copies))
	}
	switch {
	case copies < 3:
		return min(copies, 1)
	case copies < 7:
		return 3
	default:
		return 5
	}
}

// movable: its copies may be moved though nothing is wrong with them. Not while a voter is silent,
// for then one more that has trouble would be too many.
func (pl *planner) movable(g *group) bool {
	return g.ID != 0 && g.settled() && len(g.fill) == 0 &&
		!slices.ContainsFunc(g.stay, func(n int) bool { return pl.sites[n].Health != Alive || !pl.caughtUp(g, n) })
}

func (pl *planner) move(g *group, from, to int, reason string) {
	g.stay[slices.Index(g.stay, from)] = to
	pl.sites[from].copies--
	pl.sites[to].copies++
	g.reason = reason
	pl.improve(g)
}

// improve notes that a group is changed though nothing is wrong with it. Each of these changes
// was chosen with those before it in mind, so they are begun in this order.
func (pl *planner) improve(g *group) {
	pl.improvements++
	g.improvement = pl.improvements
}

// spreadZones moves copies out of zones with several.
func (pl *planner) spreadZones(room int) int {
	taking := pl.every((*site).takes)
	for _, g := range pl.groups {
		crowded := pl.crowding(g.stay)
		if room <= 0 || crowded == 0 || !pl.movable(g) {
			continue
		}
		from, to, least := -1, -1, []int(nil)
		for _, n := range g.stay {
			for _, m := range taking {
				rest := append(without(g.stay, []int{n}), m)
				after := pl.crowding(rest)
				if slices.Contains(g.stay, m) || after >= crowded {
					continue
				}
				cost := []int{after, pl.sites[m].copies - pl.sites[n].copies, one(n == g.leader)}
				if from < 0 || slices.Compare(cost, least) < 0 {
					from, to, least = n, m, cost
				}
			}
		}
		if from >= 0 {
			pl.move(g, from, to, "copies share a zone")
			room--
		}
	}
	return room
}

// evenOut moves copies from sites with many to sites with few.
func (pl *planner) evenOut(room int) {
	taking := pl.every((*site).takes)
	for ; room > 0; room-- {
		var chosen *group
		var from, to int
		least := []int(nil)
		for _, g := range pl.groups {
			if !pl.movable(g) {
				continue
			}
			crowded := pl.crowding(g.stay)
			for _, n := range g.stay {
				for _, m := range taking {
					gap := pl.sites[n].copies - pl.sites[m].copies
					if gap < 2 || slices.Contains(g.stay, m) {
						continue
					}
					cost := []int{-gap, one(n == g.leader)}
					if chosen != nil && slices.Compare(cost, least) >= 0 ||
						pl.crowding(append(without(g.stay, []int{n}), m)) > crowded {
						continue
					}
					chosen, from, to, least = g, n, m, cost
				}
			}
		}
		if chosen == nil {
			return
		}
		pl.move(chosen, from, to, fmt.Sprintf("evens out replicas: %d there, %d here", pl.sites[from].copies, pl.sites[to].copies))
	}
}
