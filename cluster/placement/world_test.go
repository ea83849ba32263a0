package placement

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
)

// failer is a test, or one case of a property.
type failer interface {
	Helper()
	Logf(string, ...any)
	Fatalf(format string, args ...any)
}

// world is a cluster that does what it is told: steps come to pass, copying takes a round, and
// a partition whose leader dies elects another if a majority is alive.
type world struct {
	nodes      []Node
	partitions []Partition
	replicas   int
	limit      int
	random     *rand.Rand // nil: steps come to pass in order, at once

	underway []Step
	added    int // learners
	moved    int // leaders
}

func newWorld(partitions, replicas, limit int) *world {
	w := &world{replicas: replicas, limit: limit, nodes: []Node{{ID: 1}}}
	for id := range partitions + 1 {
		w.partitions = append(w.partitions, Partition{ID: uint32(id), Leader: 1, Voters: []uint64{1}, CaughtUp: map[uint64]bool{}})
	}
	return w
}

func (w *world) input() Input {
	in := Input{Nodes: slices.Clone(w.nodes), Replicas: w.replicas, Limit: w.limit}
	for _, p := range w.partitions {
		p.Voters, p.Learners, p.CaughtUp = slices.Clone(p.Voters), slices.Clone(p.Learners), maps.Clone(p.CaughtUp)
		in.Partitions = append(in.Partitions, p)
	}
	return in
}

func (w *world) node(id uint64) *Node {
	for i := range w.nodes {
		if w.nodes[i].ID == id {
			return &w.nodes[i]
		}
	}
	return nil
}

func (w *world) alive(id uint64) bool { n := w.node(id); return n != nil && n.Health == Alive }

func (w *world) majority(p *Partition, voters []uint64) bool {
	ready := 0
	for _, id := range voters {
		if w.alive(id) && (id == p.Leader || p.CaughtUp[id]) {
			ready++
		}
	}
	return ready > len(voters)/2
}

// elect is what Raft does when time passes: the leader is gone, or somebody hears of one again.
func (w *world) elect() {
	for i := range w.partitions {
		p := &w.partitions[i]
		alive := 0
		var candidates []uint64
		for _, id := range p.Voters {
			if w.alive(id) {
				alive++
				if p.CaughtUp[id] {
					candidates = append(candidates, id)
				}
			}
		}
		led := w.alive(p.Leader) && slices.Contains(p.Voters, p.Leader)
		if led && alive > len(p.Voters)/2 {
			continue
		}
		p.Leader = 0
		if len(candidates) == 0 {
			for _, id := range p.Voters {
				if w.alive(id) {
					candidates = append(candidates, id)
				}
			}
		}
		if alive > len(p.Voters)/2 && len(candidates) > 0 {
			n := 0
			if w.random != nil {
				n = w.random.IntN(len(candidates))
			}
			p.Leader = candidates[n]
		}
	}
}

// catchUp lets the alive members have everything; with chance, some.
func (w *world) catchUp(all bool) {
	for i := range w.partitions {
		p := &w.partitions[i]
		if p.Leader == 0 {
			continue
		}
		for _, id := range slices.Concat(p.Voters, p.Learners) {
			if w.alive(id) && (all || w.random == nil || w.random.IntN(2) == 0) {
				p.CaughtUp[id] = true
			}
		}
	}
}

// take does a step, if it still applies.
func (w *world) take(t failer, s Step) {
	p := &w.partitions[s.Partition]
	p.Underway = nil
	now := Configuration{Voters: slices.Sorted(slices.Values(p.Voters)), Learners: slices.Sorted(slices.Values(p.Learners))}
	if p.Leader != s.Leader || !now.Equal(s.Expect) {
		return
	}
	if s.Kind == Transfer {
		if w.alive(s.To) && p.CaughtUp[s.To] {
			p.Leader = s.To
			w.moved++
		}
		return
	}
	for _, voters := range [][]uint64{p.Voters, s.Want.Voters} {
		if len(slices.DeleteFunc(slices.Clone(voters), w.alive)) > (len(voters)-1)/2 {
			return // does not commit
		}
	}
	for _, id := range s.Want.Learners {
		if !slices.Contains(now.Voters, id) && !slices.Contains(now.Learners, id) {
			w.added++
			delete(p.CaughtUp, id)
		}
	}
	p.Voters, p.Learners = slices.Clone(s.Want.Voters), slices.Clone(s.Want.Learners)
	maps.DeleteFunc(p.CaughtUp, func(id uint64, _ bool) bool {
		return !slices.Contains(p.Voters, id) && !slices.Contains(p.Learners, id)
	})
	if !slices.Contains(p.Voters, p.Leader) {
		t.Fatalf("%s removed the leader", s)
	}
}

// check says what is wrong with a step that is about to be taken.
func (w *world) check(in Input, steps []Step) error {
	busy, copying := 0, 0
	for _, p := range in.Partitions {
		if p.Underway != nil {
			busy++
		}
		if w.alive(p.Leader) && slices.ContainsFunc(p.Learners, func(id uint64) bool { return w.alive(id) && !p.CaughtUp[id] }) {
			copying++
		}
	}
	seen := map[uint32]bool{}
	for _, s := range steps {
		p := in.Partitions[s.Partition]
		switch {
		case s.Reason == "":
			return fmt.Errorf("%s has no reason", s)
		case seen[s.Partition] || p.Underway != nil:
			return fmt.Errorf("%s: a second step of this partition", s)
		case p.Leader != s.Leader || !w.alive(p.Leader):
			return fmt.Errorf("%s: the leader is %d", s, p.Leader)
		case s.Kind == Transfer && (!slices.Contains(p.Voters, s.To) || !w.alive(s.To) || !p.CaughtUp[s.To] || w.node(s.To).State > w.node(p.Leader).State):
			return fmt.Errorf("%s: it cannot lead", s)
		}
		seen[s.Partition] = true
		if s.Kind == Transfer {
			continue
		}
		for _, id := range s.Want.Voters {
			if !slices.Contains(p.Voters, id) && (!slices.Contains(p.Learners, id) || !w.alive(id) || !p.CaughtUp[id]) {
				return fmt.Errorf("%s: %d votes and has not caught up", s, id)
			}
		}
		changed := !slices.Equal(s.Want.Voters, s.Expect.Voters)
		if changed && !w.majority(&p, s.Want.Voters) {
			return fmt.Errorf("%s: no majority of %d is alive", s, s.Want.Voters)
		}
		// Two voters are a stage on the way to one elsewhere, and nothing else may be even.
		if changed && len(s.Want.Voters)%2 == 0 && !(len(s.Expect.Voters) == 1 && len(s.Want.Voters) == 2) && len(s.Expect.Voters)%2 == 1 {
			return fmt.Errorf("%s: %d voters", s, len(s.Want.Voters))
		}
		if len(s.Want.Learners) > len(s.Expect.Learners) && len(s.Want.Voters) == len(s.Expect.Voters) && !changed {
			copying++
			for _, id := range without(s.Want.Learners, s.Expect.Learners) {
				if !w.alive(id) || w.node(id).State == Removed || s.Partition != 0 && w.node(id).State != Active {
					return fmt.Errorf("%s: nothing should come there", s)
				}
			}
		}
	}
	if len(steps) > 0 && busy+len(steps) > w.limit {
		return fmt.Errorf("%d steps and %d under way, the limit is %d", len(steps), busy, w.limit)
	}
	if copying > w.limit && slices.ContainsFunc(steps, func(s Step) bool {
		return len(s.Want.Learners) > len(s.Expect.Learners) && slices.Equal(s.Want.Voters, s.Expect.Voters)
	}) {
		return fmt.Errorf("%d partitions are being copied, the limit is %d", copying, w.limit)
	}
	return nil
}

// round is one call of Next and what follows. It returns the plan.
func (w *world) round(t failer) Plan {
	in := w.input()
	plan := Next(in)
	if err := w.check(in, plan.Steps); err != nil {
		t.Fatalf("%v\n%s", err, w)
	}
	for _, s := range plan.Steps {
		w.partitions[s.Partition].Underway = &s
		w.underway = append(w.underway, s)
	}
	if w.random == nil {
		for _, s := range w.underway {
			w.take(t, s)
		}
		w.underway = nil
		return plan
	}
	w.random.Shuffle(len(w.underway), func(i, j int) { w.underway[i], w.underway[j] = w.underway[j], w.underway[i] })
	for n := w.random.IntN(len(w.underway) + 1); n > 0; n-- {
		s := w.underway[0]
		w.underway = w.underway[1:]
		w.take(t, s)
	}
	return plan
}

func name(id uint64) string { return string(rune('a' + id - 1)) }

func names(ids []uint64) string {
	var out []string
	for _, id := range ids {
		out = append(out, name(id))
	}
	slices.Sort(out)
	return strings.Join(out, "")
}

func (w *world) counts() (copies, voters, leads map[uint64]int) {
	copies, voters, leads = map[uint64]int{}, map[uint64]int{}, map[uint64]int{}
	for _, p := range w.partitions[1:] {
		leads[p.Leader]++
		for _, id := range p.Voters {
			voters[id]++
			copies[id]++
		}
		for _, id := range p.Learners {
			copies[id]++
		}
	}
	return copies, voters, leads
}

func (w *world) String() string {
	var out strings.Builder
	copies, voters, leads := w.counts()
	for _, n := range w.nodes {
		fmt.Fprintf(&out, "%s:", name(n.ID))
		if n.State != Active {
			fmt.Fprintf(&out, " %s", []string{"", "draining", "removed"}[n.State])
		}
		if n.Health != Alive {
			fmt.Fprintf(&out, " %s", []string{"", "silent", "lost"}[n.Health])
		}
		if n.Zone != "" {
			fmt.Fprintf(&out, " in %s", n.Zone)
		}
		fmt.Fprintf(&out, " leads %d, votes in %d, has %d\n", leads[n.ID], voters[n.ID], copies[n.ID])
	}
	for _, p := range w.partitions {
		leader := "nobody"
		if p.Leader != 0 {
			leader = name(p.Leader)
		}
		fmt.Fprintf(&out, "%d: %s leads", p.ID, leader)
		fmt.Fprintf(&out, " %s", names(p.Voters))
		if len(p.Learners) > 0 {
			fmt.Fprintf(&out, " (%s)", names(p.Learners))
		}
		out.WriteString("\n")
	}
	return out.String()
}
