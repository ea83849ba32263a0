package registry

import (
	"errors"
	"testing"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// TestRecall: a node's row has the newest claim, and what the node says of itself leaves it.
func TestRecall(t *testing.T) {
	s := newState()
	s.settings = founding(Config{ClusterID: "c", Partitions: 1, ReplicationFactor: 3}, 1)
	change := func(c *recordv1.ClusterChange) error { return s.change(c, 1) }
	recall := func(node, process, opened, frames uint64) error {
		return change(&recordv1.ClusterChange{Change: &recordv1.ClusterChange_Recall_{
			Recall: &recordv1.ClusterChange_Recall{Node: node, Process: process, Opened: opened, Frames: frames},
		}})
	}
	if err := recall(7, 1, 0, 1); !errors.Is(err, ErrNoSuchNode) {
		t.Errorf("a node that was never admitted: %v", err)
	}
	if err := change(Admission(Node{ID: 7, Version: "v1"})); err != nil {
		t.Fatal(err)
	}
	if err := recall(7, 0, 0, 1); !errors.Is(err, ErrInvalid) {
		t.Errorf("no process: %v", err)
	}
	for _, step := range []struct{ process, opened, frames, want uint64 }{
		{1, 30, 68, 68}, {1, 30, 60, 68}, {2, 46, 90, 68}, {3, 68, 70, 70}, {1, 30, 68, 70},
	} {
		if err := recall(7, step.process, step.opened, step.frames); err != nil {
			t.Fatal(err)
		}
		if err := change(Admission(Node{ID: 7, Version: "v2"})); err != nil {
			t.Fatal(err)
		}
		if got := nodeOf(s.nodes[7]); got.Log.Durable != step.want || got.Version != "v2" {
			t.Errorf("after %+v the row has %+v", step, got)
		}
	}
}
