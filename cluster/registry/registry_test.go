package registry

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/cluster/placement"
)

func TestFounding(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1)
		defer c.close()
		m := c.members[0]
		if view := m.View(); view.Version != 0 || len(view.Nodes) != 0 {
			t.Errorf("before anything: %+v", view)
		}
		_, changed := m.Changed()
		c.elect(m)
		select {
		case <-changed:
		default:
			t.Error("nobody is told that this node leads")
		}
		c.settle()
		view := m.View()
		want := Settings{ClusterID: "c", Partitions: 4, ReplicationFactor: 3, FeatureLevel: 1, FoundedAt: view.Settings.FoundedAt}
		if view.Version != 1 || view.Settings != want || view.Leader != 1 || view.Epoch != 1 {
			t.Errorf("founded: %+v", view)
		}
		node, ok := view.Node(1)
		if self := m.self(1); !ok || node.Transport != self.Transport || node.Ingress != self.Ingress || node.Version != "v1" || node.State != placement.Active || node.AdmittedAt.UnixMilli() != time.Now().UnixMilli() {
			t.Errorf("its own row: %+v", node)
		}
		// Nothing is written a second time.
		c.elect(m)
		c.settle()
		if view := m.View(); view.Version != 1 || view.Epoch != 2 {
			t.Errorf("led again: %+v", view)
		}
		c.check()
	})
}

func TestAdmit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 1)
		defer c.close()
		first, second := c.members[0], c.members[1]
		ctx := context.Background()
		c.elect(first)
		c.settle()

		if err := second.Admit(ctx, second.self(1)); !errors.Is(err, ErrNotLeader) {
			t.Errorf("a follower: %v", err)
		}
		if other, ok := errors.AsType[*NotLeaderError](second.Admit(ctx, second.self(1))); !ok || other.Leader != 1 {
			t.Errorf("a follower knows of no leader: %v", other)
		}
		answer := begin(func() error { return first.Admit(ctx, second.self(1)) })
		if _, ok := answered(answer); ok {
			t.Error("answered before it is durable")
		}
		// Asked again, there is nothing to write; the answer waits all the same.
		again := begin(func() error { return first.Admit(ctx, second.self(1)) })
		if _, ok := answered(again); ok {
			t.Error("the second is answered before the first is durable")
		}
		c.commit(all)
		for _, answer := range []<-chan error{answer, again} {
			if err, ok := answered(answer); err != nil || !ok {
				t.Errorf("admitted: %v, %v", err, ok)
			}
		}
		if view := first.View(); len(view.Nodes) != 2 { // nothing is applied yet
			t.Errorf("who was answered does not find it: %+v", view)
		}
		c.settle()
		for _, m := range c.members {
			if view := m.View(); view.Version != 2 || len(view.Nodes) != 2 {
				t.Errorf("node %d: %+v", m.id, view)
			}
		}

		// It restarts elsewhere.
		moved := second.self(1)
		moved.Transport, moved.Zone = "elsewhere:1", "west"
		answer = begin(func() error { return first.Admit(ctx, moved) })
		c.settle()
		if err, ok := answered(answer); err != nil || !ok {
			t.Fatal(err, ok)
		}
		before, _ := first.View().Node(2)
		if before.Transport != "elsewhere:1" || before.Zone != "west" || before.State != placement.Active {
			t.Errorf("moved: %+v", before)
		}

		// Drained it stays so, wherever it is.
		for _, ask := range []func() error{
			func() error { return first.SetNodeState(ctx, 2, placement.Draining) },
			func() error { return first.Admit(ctx, second.self(1)) },
		} {
			answer := begin(ask)
			c.settle()
			if err, ok := answered(answer); err != nil || !ok {
				t.Fatal(err, ok)
			}
		}
		after, _ := first.View().Node(2)
		if after.State != placement.Draining || after.Transport != "node2:7374" || after.AdmittedAt != before.AdmittedAt {
			t.Errorf("drained and back: %+v", after)
		}

		// Removed it never comes back.
		answer = begin(func() error { return first.SetNodeState(ctx, 2, placement.Removed) })
		c.settle()
		if err, ok := answered(answer); err != nil || !ok {
			t.Fatal(err, ok)
		}
		for _, ask := range []func() error{
			func() error { return first.Admit(ctx, second.self(1)) },
			func() error { return first.SetNodeState(ctx, 2, placement.Active) },
			func() error { return first.SetNodeState(ctx, 2, placement.Draining) },
		} {
			if err := ask(); !errors.Is(err, ErrRemoved) || !strings.Contains(err.Error(), "empty data directory") {
				t.Errorf("a removed node: %v", err)
			}
		}
		if err := first.SetNodeState(ctx, 2, placement.Removed); err != nil {
			t.Errorf("removed twice: %v", err)
		}
		c.check()
	})
}

func TestRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 2)
		defer c.close()
		m := c.members[0]
		c.elect(m)
		c.settle()
		ctx := context.Background()
		for _, test := range []struct {
			err  error
			want error
			says string
		}{
			{m.Admit(ctx, Node{Transport: "a:1"}), ErrInvalid, "id is 0"},
			{m.Admit(ctx, Node{ID: 2, Transport: "a"}), ErrInvalid, "host:port"},
			{m.Admit(ctx, Node{ID: 2, Transport: "a:1", FeatureLevel: 1}), ErrTooOld, "level 2"},
			{m.SetNodeState(ctx, 9, placement.Draining), ErrNoSuchNode, "0000000000000009"},
			{m.SetNodeState(ctx, 1, placement.Draining), ErrInvalid, "only active one"},
			{m.SetNodeState(ctx, 1, placement.Removed), ErrInvalid, "only active one"},
			{m.SetNodeState(ctx, 1, 7), ErrInvalid, "state"},
			{m.SetSetting(ctx, "replication-factor", "2"), ErrInvalid, "1, 3, 5 or 7"},
			{m.SetSetting(ctx, "replication-factor", "three"), ErrInvalid, "number"},
			{m.SetSetting(ctx, "feature-level-limit", "1"), ErrInvalid, "level 2 already"},
			{m.SetSetting(ctx, "color", "1"), ErrInvalid, "feature-level-limit"},
			{m.Change(ctx, nil), ErrInvalid, "older"},
		} {
			if !errors.Is(test.err, test.want) || !strings.Contains(test.err.Error(), test.says) {
				t.Errorf("%v, want %v that says %q", test.err, test.want, test.says)
			}
		}
		if len(c.log) != 1 {
			t.Errorf("%d records", len(c.log))
		}
	})
}

// TestLeadershipLost takes the leadership away at each point of a change.
func TestLeadershipLost(t *testing.T) {
	for _, test := range []struct {
		name    string
		point   func(c *cluster)
		want    error
		version uint64
	}{
		{"proposed, and lost", func(c *cluster) { c.depose(0) }, ErrUnknownOutcome, 1},
		{"proposed, and survived", func(c *cluster) { c.depose(all) }, ErrUnknownOutcome, 2},
		{"committed", func(c *cluster) { c.commit(all); c.depose(0) }, nil, 2},
		{"applied", func(c *cluster) { c.commit(all); c.members[0].apply(all); c.depose(0) }, nil, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := newCluster(t, 1, 1)
				defer c.close()
				c.elect(c.members[0])
				c.settle()
				answer := begin(func() error { return c.members[0].Admit(context.Background(), c.members[1].self(1)) })
				test.point(c)
				if err, ok := answered(answer); !ok || !errors.Is(err, test.want) {
					t.Errorf("%v, %v, want %v", err, ok, test.want)
				}
				if view := c.members[0].View(); view.Epoch != 0 || view.Leader != 0 {
					t.Errorf("it thinks that it leads: %+v", view)
				}
				if err := c.members[0].Admit(context.Background(), c.members[1].self(1)); !errors.Is(err, ErrNotLeader) {
					t.Errorf("nobody leads: %v", err)
				}
				for _, m := range c.members {
					m.apply(all)
				}
				if view := c.members[0].View(); view.Version != test.version {
					t.Errorf("version %d, want %d", view.Version, test.version)
				}
				c.elect(c.members[1])
				c.settle()
				c.check()
			})
		})
	}
}

// TestBacklog: a change that the group has no room for is proposed later.
func TestBacklog(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1)
		defer c.close()
		m := c.members[0]
		c.elect(m)
		c.settle()
		c.setBacklog(true)
		answer := begin(func() error { return m.SetSetting(context.Background(), SettingReplicationFactor, "5") })
		lost := begin(func() error { return m.SetSetting(context.Background(), SettingReplicationFactor, "5") })
		c.setBacklog(false)
		if _, ok := answered(answer); ok {
			t.Error("answered without room")
		}
		m.Applied(1, 1)
		c.settle()
		for _, answer := range []<-chan error{answer, lost} {
			if err, ok := answered(answer); err != nil || !ok {
				t.Errorf("%v, %v", err, ok)
			}
		}
		if view := m.View(); view.Version != 2 || view.Settings.ReplicationFactor != 5 {
			t.Errorf("%+v", view)
		}
		c.setBacklog(true)
		answer = begin(func() error { return m.SetSetting(context.Background(), SettingReplicationFactor, "7") })
		c.depose(0)
		if err, ok := answered(answer); !errors.Is(err, ErrNotLeader) || !ok {
			t.Errorf("waiting for room, and the leadership is lost: %v, %v", err, ok)
		}
	})
}

// TestFeatureLevel: records of a level are written when every node reads them, and from then on
// nobody may be older.
func TestFeatureLevel(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 1, 2)
		defer c.close()
		first, second, third := c.members[0], c.members[1], c.members[2]
		ctx := context.Background()
		ask := func(f func() error) error {
			answer := begin(f)
			c.settle()
			err, ok := answered(answer)
			if !ok {
				t.Fatal("no answer")
			}
			return err
		}
		level := func(want uint32, when string) {
			t.Helper()
			if got := third.View().Settings.FeatureLevel; got != want {
				t.Errorf("%s: level %d, want %d", when, got, want)
			}
		}
		restart := func(m *member, to uint32) {
			m.stop()
			synctest.Wait()
			m.start(to)
		}
		c.elect(first)
		c.settle()
		for _, m := range []*member{second, third} {
			if err := ask(func() error { return first.Admit(ctx, m.self(m.config.Self.FeatureLevel)) }); err != nil {
				t.Fatal(err)
			}
		}
		level(1, "one of three is new")
		// The second is upgraded, and taken back.
		for _, version := range []uint32{2, 1, 2} {
			if err := ask(func() error { return first.Admit(ctx, second.self(version)) }); err != nil {
				t.Fatal(err)
			}
			level(1, "the first is not upgraded")
		}
		restart(second, 2)
		if err := ask(func() error { return first.SetSetting(ctx, SettingFeatureLevelLimit, "1") }); err != nil {
			t.Fatal(err)
		}
		// The first is, and leads as it is now.
		c.depose(0)
		restart(first, 2)
		c.elect(first)
		c.settle()
		level(1, "the operator wants to wait")
		if err := ask(func() error { return first.SetSetting(ctx, SettingFeatureLevelLimit, "0") }); err != nil {
			t.Fatal(err)
		}
		level(2, "all are new")
		if err := ask(func() error { return first.Admit(ctx, second.self(1)) }); !errors.Is(err, ErrTooOld) {
			t.Errorf("taken back too late: %v", err)
		}
		restart(third, 1)
		if err := third.Health(); !errors.Is(err, ErrTooOld) || !strings.Contains(err.Error(), "start it with the version") {
			t.Errorf("health of a node that can't read what is written: %v", err)
		}
		restart(third, 3)
		if err := third.Health(); err != nil {
			t.Error(err)
		}

		// Who is drained counts, who is removed doesn't.
		for _, m := range []*member{second, third} {
			if err := ask(func() error { return first.Admit(ctx, m.self(3)) }); err != nil {
				t.Fatal(err)
			}
		}
		if err := ask(func() error { return first.SetNodeState(ctx, 1, placement.Draining) }); err != nil {
			t.Fatal(err)
		}
		level(2, "the old one drains")
		if err := ask(func() error { return first.SetNodeState(ctx, 1, placement.Removed) }); err != nil {
			t.Fatal(err)
		}
		level(3, "the old one is removed")
		c.check()
	})
}

// TestForeignRows: a store of another cluster is of no use.
func TestForeignRows(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1)
		defer c.close()
		m := c.members[0]
		c.elect(m)
		c.settle()
		r, err := New(Config{Self: m.self(1), ClusterID: "other", Partitions: 4, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Attach(m); err == nil || !strings.Contains(err.Error(), "cluster c with 4 partitions") {
			t.Errorf("attached: %v", err)
		}
	})
}

func TestConfigProblems(t *testing.T) {
	_, err := New(Config{ReplicationFactor: 4, Self: Node{Transport: "x"}})
	for _, want := range []string{"Self.ID", "ClusterID", "Partitions", "replication factor is 4", "host:port"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: nothing of %q", err, want)
		}
	}
}
