package placement

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestSettles lets nodes come, go and fall silent in any order while steps come to pass in any
// order or not at all. Every step is checked when it is taken (world.check); once nothing happens
// any more, all comes to rest, and is as it should be.
func TestSettles(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(rapid.IntRange(1, 12).Draw(rt, "partitions"), rapid.SampledFrom([]int{1, 2, 3, 3, 3, 4, 5}).Draw(rt, "replicas"), rapid.IntRange(1, 5).Draw(rt, "limit"))
		w.random = rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1))
		zones := []string{""}
		if rapid.IntRange(0, 2).Draw(rt, "zones") == 0 {
			zones = []string{"x", "y", "z", ""}
		}
		for range rapid.IntRange(0, 60).Draw(rt, "events") {
			w.happen(rt, zones)
			w.elect()
			for range rapid.IntRange(0, 6).Draw(rt, "rounds") {
				w.catchUp(false)
				w.round(rt)
				w.elect()
			}
		}
		w.rest(rt)
	})
}

func (w *world) happen(rt *rapid.T, zones []string) {
	id := uint64(rapid.IntRange(1, len(w.nodes)).Draw(rt, "node"))
	n := w.node(id)
	switch event := rapid.SampledFrom([]string{"join", "join", "silent", "lost", "alive", "alive", "drain", "undrain", "remove"}).Draw(rt, "event"); event {
	case "join":
		if len(w.nodes) < 9 {
			w.nodes = append(w.nodes, Node{ID: uint64(len(w.nodes) + 1), Zone: rapid.SampledFrom(zones).Draw(rt, "zone")})
		}
	case "silent":
		n.Health = Silent
	case "lost":
		n.Health = Lost
	case "alive":
		n.Health = Alive
	case "drain", "undrain":
		if n.State != Removed {
			n.State = map[string]State{"drain": Draining, "undrain": Active}[event]
		}
	case "remove":
		// Some node has to remain.
		if rapid.IntRange(0, 3).Draw(rt, "really") == 0 && slices.ContainsFunc(w.nodes, func(other Node) bool { return other.ID != id && other.State != Removed }) {
			n.State = Removed
		}
	}
	for i := range w.partitions {
		if n.Health != Alive {
			delete(w.partitions[i].CaughtUp, id)
		}
	}
}

// rest runs on without news until there is nothing left to do.
func (w *world) rest(t failer) {
	// What begun steps come to may be news.
	for len(w.underway) > 0 {
		w.take(t, w.underway[0])
		w.underway = w.underway[1:]
	}
	w.elect()
	w.catchUp(true)
	began := w.String()
	added, led := map[string]int{}, map[string]int{}
	var plan Plan
	quiet := 0
	var steps strings.Builder
	for round := 0; ; round++ {
		if round > 3000 {
			t.Fatalf("does not come to rest. From\n%s\nit came to\n%s\n%s", began, w, steps.String()[max(0, steps.Len()-2000):])
		}
		plan = w.round(t)
		for _, s := range plan.Steps {
			fmt.Fprintf(&steps, "%d. %s (%s)\n", round, s.Describe(name), s.Reason)
		}
		for _, s := range plan.Steps {
			if s.Kind == Transfer {
				led[fmt.Sprintf("%d to %s", s.Partition, name(s.To))]++
			}
			for _, id := range without(s.Want.Learners, slices.Concat(s.Expect.Voters, s.Expect.Learners)) {
				added[fmt.Sprintf("%d at %s", s.Partition, name(id))]++
			}
		}
		if len(plan.Steps) == 0 && len(w.underway) == 0 {
			if quiet++; quiet > 1 {
				break
			}
		} else {
			quiet = 0
		}
		w.elect()
		w.catchUp(quiet > 0)
	}
	for what, times := range added {
		if times > 1 {
			t.Fatalf("a learner of %s was added %d times. From\n%s\nit came to\n%s\n%s", what, times, began, w, &steps)
		}
	}
	// A leader may come back to where it was sent from when others had to lead there.
	for what, times := range led {
		if times > 2 {
			t.Fatalf("the leader of %s was moved %d times. From\n%s\nit came to\n%s\n%s", what, times, began, w, &steps)
		}
	}
	w.catchUp(true)
	if plan = Next(w.input()); len(plan.Steps) > 0 {
		t.Fatalf("at rest, and then %v\n%s", plan, w)
	}
	w.verify(t, plan)
}

// verify checks a cluster at rest.
func (w *world) verify(t failer, plan Plan) {
	complain := func(format string, args ...any) {
		t.Helper()
		t.Fatalf("%s\n%s%v", fmt.Sprintf(format, args...), w, plan.Waits)
	}
	waits := map[uint32]bool{}
	for _, wait := range plan.Waits {
		waits[wait.Partition] = true
	}
	active, all, zoned, silent := 0, 0, false, false
	for _, n := range w.nodes {
		active += one(n.State == Active && n.Health == Alive)
		all += one(n.State != Removed)
		zoned = zoned || n.Zone != ""
		silent = silent || n.Health == Silent
	}
	led := true
	for _, p := range w.partitions {
		if p.Leader == 0 {
			led = false
			if !waits[p.ID] {
				complain("partition %d has no leader and does not wait", p.ID)
			}
			continue
		}
		on := func(ids []uint64, is func(*Node) bool) (number int) {
			for _, id := range ids {
				number += one(is(w.node(id)))
			}
			return number
		}
		want := odd(min(w.replicas, active))
		if p.ID == 0 {
			want = map[bool]int{true: 1, false: 3}[active < 3]
			if active >= 7 {
				want = 5
			}
			if number := len(p.Voters) + len(p.Learners); number < all-on(idsOf(w.nodes), func(n *Node) bool { return n.State != Removed && n.Health != Alive }) {
				complain("group 0 has %d copies of %d nodes", number, all)
			}
		}
		if len(p.Voters)%2 == 0 && !waits[p.ID] {
			complain("partition %d has %d voters", p.ID, len(p.Voters))
		}
		gone := on(p.Voters, func(n *Node) bool { return n.State != Active || n.Health == Lost })
		if waits[p.ID] {
			continue
		}
		if active > 0 && (len(p.Voters) < min(want, active) || w.node(p.Leader).State != Active || gone > 0) {
			complain("partition %d could have %d voters on %d active nodes, and an active leader", p.ID, want, active)
		}
		if number := on(slices.Concat(p.Voters, p.Learners), func(n *Node) bool { return n.State == Removed }); number > 0 {
			complain("partition %d is on nodes that were removed", p.ID)
		}
	}
	if zoned || silent || len(waits) > 0 || !led || active == 0 {
		return
	}
	copies, _, leads := w.counts()
	for what, counts := range map[string]map[uint64]int{"leaders": leads, "copies": copies} {
		most, least := 0, len(w.partitions)
		for _, n := range w.nodes {
			if n.State == Active && n.Health == Alive {
				most, least = max(most, counts[n.ID]), min(least, counts[n.ID])
			}
		}
		// With a learner too many for everybody, votes move straight only.
		if most-least > 1 && (what == "copies" || w.replicas%2 == 1 || active <= w.replicas) {
			complain("%s are uneven", what)
		}
	}
}

func idsOf(nodes []Node) (out []uint64) {
	for _, n := range nodes {
		out = append(out, n.ID)
	}
	return out
}
