package placement

import (
	"cmp"
	"slices"
)

// Next returns the steps that may be taken now. The same input has the same steps. With no steps
// and no waits all is as it should be.
func Next(in Input) Plan {
	pl := newPlanner(in)
	pl.chooseCopies()
	pl.chooseVoters()
	pl.begin()
	pl.balanceLeaders()
	slices.SortFunc(pl.plan.Waits, func(a, b Wait) int { return cmp.Compare(a.Partition, b.Partition) })
	return pl.plan
}

// site is a node; sites are referred to by their place in planner.sites.
type site struct {
	Node
	zone int // equal for sites of the same zone
	// unknown: not in Input.Nodes.
	unknown bool
	// How many partitions, without group 0, it will have a copy of, vote in, and leads.
	copies, voters, leads int
}

// stays: what is there may remain.
func (s *site) stays() bool { return s.State == Active && s.Health != Lost }

// takes: more may come.
func (s *site) takes() bool { return s.State == Active && s.Health == Alive && !s.unknown }

// group is a partition with what is to become of it. Members are places in planner.sites.
type group struct {
	Partition
	// What it is once the step under way is done. The leader is -1 if there is none.
	leader           int
	voters, learners []int
	// current is what it is now.
	current Configuration

	// stay are the copies it will have on sites that stay or take, and fill the voters on others,
	// which remain because nobody can take their place.
	stay, fill []int
	wantVoters []int
	blocked    string // why no step may be taken
	frozen     bool   // nor can it be said what it should become
	reason     string // of the copies that are added
	// improvement is its place among those that are only made better; 0: not among them.
	improvement int
	planned     bool // has a step, or a wait
	catching    bool // a learner that can is catching up
}

func (g *group) holds(n int) bool {
	return slices.Contains(g.voters, n) || slices.Contains(g.learners, n)
}

// caughtUp: of a leader it need not be said.
func (pl *planner) caughtUp(g *group, n int) bool { return n == g.leader || g.CaughtUp[pl.sites[n].ID] }

// settled: it has the copies that it should have.
func (g *group) settled() bool {
	return g.blocked == "" && !g.catching && len(g.voters)+len(g.learners) == len(g.stay)+len(g.fill) &&
		len(without(g.stay, append(slices.Clone(g.voters), g.learners...))) == 0
}

type planner struct {
	in     Input
	sites  []*site
	groups []*group // ascending by id
	places map[uint64]int
	// steps and moves that may be begun.
	steps, moves int
	improvements int
	plan         Plan
}

func newPlanner(in Input) *planner {
	in.Replicas, in.Limit = max(in.Replicas, 1), max(in.Limit, 1)
	pl := &planner{in: in, places: map[uint64]int{}, steps: in.Limit, moves: in.Limit}
	for _, node := range in.Nodes {
		pl.sites = append(pl.sites, &site{Node: node})
	}
	known := map[uint64]bool{0: true}
	for _, node := range in.Nodes {
		known[node.ID] = true
	}
	for _, p := range in.Partitions {
		for _, id := range slices.Concat(p.Voters, p.Learners) {
			if !known[id] {
				known[id] = true
				pl.sites = append(pl.sites, &site{Node: Node{ID: id, Health: Silent}, unknown: true})
			}
		}
	}
	slices.SortFunc(pl.sites, func(a, b *site) int { return cmp.Compare(a.ID, b.ID) })
	zones := map[string]int{}
	for n, s := range pl.sites {
		pl.places[s.ID] = n
		if s.zone = -1 - n; s.Zone != "" {
			if _, ok := zones[s.Zone]; !ok {
				zones[s.Zone] = len(zones)
			}
			s.zone = zones[s.Zone]
		}
	}
	for _, p := range in.Partitions {
		pl.groups = append(pl.groups, pl.group(p))
	}
	slices.SortFunc(pl.groups, func(a, b *group) int { return cmp.Compare(a.ID, b.ID) })
	return pl
}

func (pl *planner) group(p Partition) *group {
	voters, learners := pl.sitesOf(p.Voters), pl.sitesOf(p.Learners)
	learners = without(learners, voters)
	g := &group{Partition: p, leader: -1, voters: voters, learners: learners}
	g.current = Configuration{Voters: pl.ids(voters), Learners: pl.ids(learners)}
	if n, ok := pl.places[p.Leader]; ok {
		g.leader = n
	}
	led := g.leader >= 0 && pl.sites[g.leader].Health == Alive
	// Without a leader nothing is copied.
	g.catching = led && slices.ContainsFunc(learners, func(n int) bool { return pl.sites[n].Health == Alive && !p.CaughtUp[pl.sites[n].ID] })
	if g.catching {
		pl.moves--
	}
	switch step := p.Underway; {
	case step != nil && step.Kind == Reconfigure:
		g.blocked = "a step is under way"
		g.voters, g.learners = pl.sitesOf(step.Want.Voters), pl.sitesOf(step.Want.Learners)
		if !g.catching && len(without(g.learners, slices.Concat(voters, learners))) > 0 {
			pl.moves--
		}
	case step != nil:
		g.blocked = "a step is under way"
		if n, ok := pl.places[step.To]; ok {
			g.leader = n
		}
	case len(p.Outgoing) > 0:
		g.blocked = "a change of its voters is under way"
	case g.leader < 0:
		g.blocked, g.frozen = "it has no leader that is known", true
	case !led:
		g.blocked, g.frozen = "its leader does not answer", true
	case !slices.Contains(voters, g.leader):
		g.blocked, g.frozen = "its leader is no voter", true
	case pl.countAlive(voters) <= len(voters)/2:
		g.blocked, g.frozen = "too few of its voters answer", true
	case p.Held != "":
		g.blocked = p.Held
	}
	if p.Underway != nil || len(p.Outgoing) > 0 {
		pl.steps--
	}
	if g.ID == 0 {
		return g
	}
	for _, n := range g.voters {
		pl.sites[n].copies++
		pl.sites[n].voters++
	}
	for _, n := range g.learners {
		pl.sites[n].copies++
	}
	if g.leader >= 0 {
		pl.sites[g.leader].leads++
	}
	return g
}

func (pl *planner) sitesOf(ids []uint64) (out []int) {
	for _, id := range ids {
		if n, ok := pl.places[id]; ok {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// ids of sites, ascending because sites are.
func (pl *planner) ids(sites []int) []uint64 {
	sites = slices.Sorted(slices.Values(sites))
	var out []uint64
	for _, n := range sites {
		out = append(out, pl.sites[n].ID)
	}
	return out
}

func (pl *planner) countAlive(sites []int) (alive int) {
	for _, n := range sites {
		alive += one(pl.sites[n].Health == Alive)
	}
	return alive
}

// crowding counts pairs that share a zone.
func (pl *planner) crowding(sites []int) int {
	pairs := 0
	for i, n := range sites {
		for _, m := range sites[:i] {
			if pl.sites[n].zone == pl.sites[m].zone {
				pairs++
			}
		}
	}
	return pairs
}

// best returns the candidate with the smallest cost, compared number by number, and the first
// of equals; -1 if there is none. A nil cost leaves a candidate out.
func best(candidates []int, cost func(int) []int) int {
	found, least := -1, []int(nil)
	for _, n := range candidates {
		if c := cost(n); c != nil && (found < 0 || slices.Compare(c, least) < 0) {
			found, least = n, c
		}
	}
	return found
}

// one is 1 if it is so.
func one(is bool) int {
	if is {
		return 1
	}
	return 0
}

func (pl *planner) every(is func(*site) bool) (out []int) {
	for n, s := range pl.sites {
		if is(s) {
			out = append(out, n)
		}
	}
	return out
}
