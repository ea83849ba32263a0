package registry

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/cluster/placement"
)

func TestClient(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 1, 1)
		defer c.close()
		first, second, third := c.members[0], c.members[1], c.members[2]
		ctx := context.Background()

		// Nobody leads yet: it waits.
		announced := begin(func() error { return second.client().Announce(ctx) })
		if err, ok := answered(announced); ok {
			t.Fatalf("without a leader: %v", err)
		}
		c.elect(first)
		time.Sleep(time.Second)
		c.settle()
		if err, ok := answered(announced); err != nil || !ok {
			t.Fatalf("announced: %v, %v", err, ok)
		}
		if node, ok := second.View().Node(2); !ok || node.Transport != "node2:7374" {
			t.Errorf("its row: %+v", node)
		}
		// There is nothing new the second time.
		records := len(c.log)
		if err, ok := answered(begin(func() error { return second.client().Announce(ctx) })); err != nil || !ok || len(c.log) != records {
			t.Errorf("announced again: %v, %v, %d records more", err, ok, len(c.log)-records)
		}

		// The leader changes while somebody waits; who is asked still believes in the old one.
		answer := begin(func() error { return third.client().SetSetting(ctx, SettingReplicationFactor, "5") })
		c.elect(second)
		third.LeaderChanged(1, 9)
		time.Sleep(time.Second)
		c.settle()
		if err, ok := answered(answer); err != nil || !ok || third.View().Settings.ReplicationFactor != 5 {
			t.Errorf("over a change of leaders: %v, %v, %+v", err, ok, third.View().Settings)
		}

		// What is refused is refused at once, with the leader's words.
		if err := third.client().SetNodeState(ctx, 77, placement.Draining); !errors.Is(err, ErrNoSuchNode) || !strings.Contains(err.Error(), "000000000000004d") {
			t.Errorf("no such node: %v", err)
		}

		// The leader can't be reached: it tries until the context ends.
		second.down = true
		short, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		if err := third.client().SetSetting(short, SettingReplicationFactor, "3"); !errors.Is(err, ErrUnknownOutcome) || !strings.Contains(err.Error(), "node 0000000000000002: unreachable") && !strings.Contains(err.Error(), "node 0000000000000002 does") {
			t.Errorf("unreachable: %v", err)
		}
		c.check()
	})
}

func TestAnnounceRemoved(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 1)
		defer c.close()
		ctx := context.Background()
		c.elect(c.members[0])
		for _, ask := range []func() error{
			func() error { return c.members[1].client().Announce(ctx) },
			func() error { return c.members[0].SetNodeState(ctx, 2, placement.Removed) },
		} {
			answer := begin(ask)
			c.settle()
			time.Sleep(time.Second)
			if err, ok := answered(answer); err != nil || !ok {
				t.Fatal(err, ok)
			}
		}
		if err := c.members[1].client().Announce(ctx); !errors.Is(err, ErrRemoved) {
			t.Errorf("removed: %v", err)
		}
		// With an old copy it hears it from the leader.
		c.members[1].stop()
		synctest.Wait()
		c.members[1].Registry, _ = New(Config{Self: c.members[1].self(1), ClusterID: "c", Partitions: 4})
		c.members[1].Registry.view.Store(&View{Leader: 1})
		if err := c.members[1].client().Announce(ctx); !errors.Is(err, ErrRemoved) {
			t.Errorf("removed, with an old copy: %v", err)
		}
		c.members[1].stop = func() {}
	})
}

// TestStopped: who asks a node that stops is not left waiting.
func TestStopped(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1)
		m := c.members[0]
		c.elect(m)
		answer := begin(func() error { return m.SetSetting(context.Background(), SettingReplicationFactor, "5") })
		c.close()
		if err, ok := answered(answer); !errors.Is(err, ErrUnknownOutcome) || !ok {
			t.Errorf("%v, %v", err, ok)
		}
		if err := m.Admit(context.Background(), m.self(1)); !errors.Is(err, ErrNotLeader) {
			t.Errorf("after the end: %v", err)
		}
	})
}

func TestServeMalformed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1)
		defer c.close()
		if _, err := c.members[0].Serve(context.Background(), []byte{0xff}); err == nil {
			t.Error("no error")
		}
	})
}
