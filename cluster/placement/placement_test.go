package placement

import (
	"slices"
	"testing"
)

// TestFourthNode: a node that joins three takes its share and nothing else moves.
func TestFourthNode(t *testing.T) {
	w := newWorld(64, 3, 8)
	w.nodes = append(w.nodes, Node{ID: 2}, Node{ID: 3})
	w.rest(t)
	before := w.input()
	w.nodes = append(w.nodes, Node{ID: 4})
	w.added, w.moved = 0, 0
	w.rest(t)
	if w.added != 48+1 {
		t.Errorf("%d learners were added, want 48 and that of group 0", w.added)
	}
	if w.moved > 20 {
		t.Errorf("%d leaders were moved; 16 have to", w.moved)
	}
	for i, p := range w.partitions[1:] {
		for _, id := range without(p.Voters, before.Partitions[i+1].Voters) {
			if id != 4 {
				t.Errorf("partition %d came to node %d, which is not new", p.ID, id)
			}
		}
	}
	if copies, _, leads := w.counts(); copies[4] != 48 || leads[4] != 16 {
		t.Errorf("the new node has %d copies and leads %d, want 48 and 16", copies[4], leads[4])
	}
}

// TestStepFails: what could not be done is asked for again, and nothing else instead.
func TestStepFails(t *testing.T) {
	w := newWorld(4, 3, 2)
	w.nodes = append(w.nodes, Node{ID: 2})
	first, again := Next(w.input()), Next(w.input())
	if len(first.Steps) != 2 || !slices.EqualFunc(first.Steps, again.Steps, func(a, b Step) bool { return a.String() == b.String() }) {
		t.Errorf("first\n%v\nthen\n%v", first.Steps, again.Steps)
	}
}

// TestStepUnderway: a step counts as done, and against the limit.
func TestStepUnderway(t *testing.T) {
	w := newWorld(4, 3, 3)
	w.nodes = append(w.nodes, Node{ID: 2})
	plan := Next(w.input())
	for _, s := range plan.Steps[:2] {
		w.partitions[s.Partition].Underway = &s
	}
	next := Next(w.input())
	if len(next.Steps) != 1 || next.Steps[0].String() != plan.Steps[2].String() {
		t.Errorf("with two of\n%v\nunder way:\n%v", plan.Steps, next.Steps)
	}
}

// TestHeld: a partition that is held takes nobody's place.
func TestHeld(t *testing.T) {
	w := newWorld(4, 3, 2)
	w.nodes = append(w.nodes, Node{ID: 2})
	w.partitions[0].Held, w.partitions[1].Held = "its last step failed", "its last step failed"
	plan := Next(w.input())
	if len(plan.Steps) != 2 || plan.Steps[0].Partition != 2 || plan.Steps[1].Partition != 3 {
		t.Errorf("%v", plan.Steps)
	}
	if len(plan.Waits) == 0 || plan.Waits[0] != (Wait{0, "its last step failed"}) {
		t.Errorf("%v", plan.Waits)
	}
}

// TestUnknownMember: a member that is no node is left where it is.
func TestUnknownMember(t *testing.T) {
	in := Input{
		Nodes: []Node{{ID: 1}, {ID: 2}, {ID: 3}}, Replicas: 3, Limit: 3,
		Partitions: []Partition{{ID: 1, Leader: 1, Voters: []uint64{1, 2, 9}, CaughtUp: map[uint64]bool{2: true}}},
	}
	if plan := Next(in); len(plan.Steps) > 0 {
		t.Errorf("%v", plan.Steps)
	}
}

// TestNoQuorum: a change that could not commit, or leave voters that could not, is not asked for.
func TestNoQuorum(t *testing.T) {
	nodes := func(health ...Health) (out []Node) {
		for i, h := range health {
			out = append(out, Node{ID: uint64(i + 1), Health: h})
		}
		return out
	}
	removed := nodes(Alive, Lost, Alive, Alive)
	removed[0].State = Removed
	shrunk := nodes(Alive, Alive, Alive, Alive, Alive)
	shrunk[3].State, shrunk[4].State = Removed, Removed
	for _, test := range []struct {
		name      string
		nodes     []Node
		partition Partition
		want      string
	}{
		{
			"two of three are lost", nodes(Alive, Lost, Lost, Alive),
			Partition{Leader: 1, Voters: []uint64{1, 2, 3}, Learners: []uint64{4}, CaughtUp: map[uint64]bool{4: true}}, "",
		},
		{
			"the learner lags", nodes(Alive, Alive, Lost, Alive),
			Partition{Leader: 1, Voters: []uint64{1, 2, 3}, Learners: []uint64{4}, CaughtUp: map[uint64]bool{2: true}}, "",
		},
		{
			"a voter lags and another is lost", nodes(Alive, Alive, Lost, Alive),
			Partition{Leader: 1, Voters: []uint64{1, 2, 3}, Learners: []uint64{4}, CaughtUp: map[uint64]bool{4: true}},
			"partition 1: promote 0000000000000004, remove 0000000000000003",
		},
		{
			"the leader was removed, and who could follow lags", removed,
			Partition{Leader: 1, Voters: []uint64{1, 2, 3}, Learners: []uint64{4}, CaughtUp: map[uint64]bool{}}, "",
		},
		{
			"those who would remain lag", shrunk,
			Partition{Leader: 1, Voters: []uint64{1, 2, 3, 4, 5}, CaughtUp: map[uint64]bool{4: true, 5: true}}, "",
		},
		{
			"one of them has caught up", shrunk,
			Partition{Leader: 1, Voters: []uint64{1, 2, 3, 4, 5}, CaughtUp: map[uint64]bool{2: true, 4: true, 5: true}},
			"partition 1: remove 0000000000000004, 0000000000000005",
		},
		{
			"a change is under way", nodes(Alive, Alive, Alive),
			Partition{Leader: 1, Voters: []uint64{1, 2}, Outgoing: []uint64{1}, CaughtUp: map[uint64]bool{2: true}}, "",
		},
	} {
		test.partition.ID = 1
		plan := Next(Input{Nodes: test.nodes, Partitions: []Partition{test.partition}, Replicas: 3, Limit: 3})
		got := ""
		if len(plan.Steps) > 0 {
			got = plan.Steps[0].String()
		}
		if got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
		if got == "" && len(plan.Waits) == 0 {
			t.Errorf("%s: nobody is told why nothing happens", test.name)
		}
	}
}

func BenchmarkNext(b *testing.B) {
	w := newWorld(256, 3, 8)
	for id := range uint64(8) {
		w.nodes = append(w.nodes, Node{ID: id + 2})
	}
	in := w.input()
	for b.Loop() {
		Next(in)
	}
}
