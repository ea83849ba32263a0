package replica

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/cluster/replica/wire"
	"github.com/perdure/perdure/storage"
)

// A leadership that is on its way to a node which stops to be a voter meanwhile: the group goes on, though nothing
// is left that ticks.
func TestTransferToWhoIsRemoved(t *testing.T) {
	for name, change := range map[string]func(other uint64) Change{
		"removed": func(other uint64) Change { return Change{Remove: []uint64{other}} },
		"demoted": func(other uint64) Change { return Change{Demote: []uint64{other}} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1, 2, 1)
				for _, n := range w.nodes {
					n.start()
				}
				defer w.stopAll()
				w.grow(1, 1, 2)
				w.proposing(1, 5)
				r := w.waitLeader(1)
				g, other := r.groups[1], 3-r.node.id
				c := change(other)
				c.Expect = g.Status().Members
				changed := make(chan error, 1)
				var transferred error
				if err := r.host.ask(func(l *loop) {
					l.reconfigureTo(g, c, changed)
					transferred = l.transferTo(g, other)
				}); err != nil || transferred != nil {
					t.Fatal(err, transferred)
				}
				began := time.Now()
				w.proposing(1, 50) // more than were on their way before
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("nobody led for %v", took)
				}
				if err := <-changed; err != nil && !errors.Is(err, ErrUnknown) {
					t.Error(err)
				}
			})
		})
	}
}

// fullStore has no space while full.
type fullStore struct {
	storage.Store
	full *atomic.Bool
}

func (s fullStore) Commit(batch *storage.Batch) error {
	if s.full.Load() {
		return storage.ErrNoSpace
	}
	return s.Store.Commit(batch)
}

// A voter that is left alone, and loses its power once the other has dropped its replica and before its own store
// knows, leads again: it has no vote to ask for.
func TestLeftAlone(t *testing.T) {
	testLeftAlone(t, func(t *testing.T, w *world, left, other *worldNode) {
		if err := w.reconfigure(Change{Remove: []uint64{other.id}}); err != nil {
			t.Fatal(err)
		}
		w.until("the other to drop its replica", time.Minute, func() bool { return !w.current(other.id).groups[1].Status().Replica })
	})
}

// The same with a change that was in a log at a start, and is committed only then: as long as the store does not have it, the
// other keeps its replica, and its vote.
func TestLeftAloneByAnEarlierChange(t *testing.T) {
	testLeftAlone(t, func(t *testing.T, w *world, left, other *worldNode) {
		w.net.change(func() { w.net.mu.cut[[2]uint64{left.id, other.id}] = true })
		r := w.current(left.id)
		g := r.groups[1]
		change := Change{Expect: g.Status().Members, Remove: []uint64{other.id}}
		var before uint64
		if err := r.host.ask(func(l *loop) {
			before = g.loopState.log.last
			l.reconfigureTo(g, change, make(chan error, 1))
		}); err != nil {
			t.Fatal(err)
		}
		w.until("the change to be durable where it was made", 10*time.Second, func() bool {
			_, last := left.log.Bounds(1)
			return last > before
		})
		left.crash()
		w.net.change(func() { clear(w.net.mu.cut) })
		left.start()
		w.until("the other to know that it is no member", time.Minute, func() bool {
			return slices.Equal(w.current(other.id).groups[1].Status().Voters, []uint64{left.id})
		})
		time.Sleep(time.Minute) // on the fake clock: it asks, and has no answer
		if !w.current(other.id).groups[1].Status().Replica {
			t.Error("the other has dropped its replica")
		}
	})
}

// testLeftAlone takes power from the node that is left of two, after a change that its store, which is full, does not have.
func testLeftAlone(t *testing.T, remove func(t *testing.T, w *world, left, other *worldNode)) {
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, seed, 2, 1)
			full := map[uint64]*atomic.Bool{1: {}, 2: {}}
			w.adjust = func(c *Config) { c.Store = fullStore{c.Store, full[c.NodeID]} }
			for _, n := range w.nodes {
				n.start()
			}
			defer w.stopAll()
			w.grow(1, 1, 2)
			left := w.waitLeader(1).node
			full[left.id].Store(true)
			remove(t, w, left, w.node(3-left.id))
			left.crash()
			full[left.id].Store(false)
			left.start()
			w.until("the one that is left to lead", time.Minute, func() bool { return w.current(left.id).groups[1].Status().Epoch != 0 })
			w.proposing(1, 5)
		})
	}
}

// TestGrown: once a leader says that a group has three voters, two are enough, even if they lose their power in that moment.
func TestGrown(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, seed, 3, 1)
			for _, n := range w.nodes {
				n.start()
			}
			defer w.stopAll()
			r := w.waitLeader(1)
			founder, g := r.node, r.groups[1]
			if err := w.reconfigure(Change{AddLearners: []uint64{2, 3}}); err != nil {
				t.Fatal(err)
			}
			w.until("the learners to be caught up", time.Minute, func() bool {
				peers := g.Status().Peers
				return len(peers) == 2 && peers[0].CaughtUp && peers[1].CaughtUp
			})
			change := Change{Expect: g.Status().Members, Promote: []uint64{2, 3}}
			grown := make(chan struct{})
			go func() {
				defer close(grown)
				_ = g.Reconfigure(context.Background(), change) // it may not be told before the end
			}()
			for s := g.Status(); len(s.Voters) < 3 || len(s.Outgoing) > 0; s = g.Status() {
				time.Sleep(100 * time.Microsecond) // on the fake clock: a tenth of what a message takes
			}
			for _, n := range w.nodes {
				n.crash()
			}
			<-grown
			for _, n := range w.nodes {
				if n != founder {
					n.start()
				}
			}
			w.waitLeader(1)
			w.proposing(1, 5)
		})
	}
}

// TestRemovedVoterIsNeeded: while a leader alone knows that a voter was replaced, that one keeps its replica. The others
// need its vote if the leader is lost.
func TestRemovedVoterIsNeeded(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, seed, 4, 1)
			for _, n := range w.nodes {
				n.start()
			}
			defer w.stopAll()
			w.grow(1, 1, 2, 3)
			r := w.waitLeader(1)
			leader, g := r.node, r.groups[1]
			gone := w.node(leader.id%3 + 1)
			if err := w.reconfigure(Change{AddLearners: []uint64{4}}); err != nil {
				t.Fatal(err)
			}
			w.until("the learner to be caught up", time.Minute, func() bool {
				return slices.ContainsFunc(g.Status().Peers, func(p PeerStatus) bool { return p.Node == 4 && p.CaughtUp })
			})
			// Two entries: into the joint configuration, and out of it. Who has the second one hears nothing of the leader from then on.
			before := g.Status()
			w.net.change(func() {
				w.net.mu.seen = func(item wire.Item) {
					m := &pb.Message{}
					if item.Kind == wire.KindRaft && proto.Unmarshal(item.Data, m) == nil && m.GetType() == pb.MsgAppResp && m.GetIndex() == before.Commit+2 && m.GetFrom() != gone.id {
						w.net.mu.cut[[2]uint64{leader.id, m.GetFrom()}] = true
					}
				}
			})
			if err := w.reconfigure(Change{Promote: []uint64{4}, Remove: []uint64{gone.id}}); err != nil && !errors.Is(err, ErrUnknown) {
				t.Fatal(err) // nil is right when the one that was late heard of it
			}
			leader.crash()
			w.net.change(func() { w.net.mu.seen = nil; clear(w.net.mu.cut) })
			w.waitLeader(1)
			w.proposing(1, 5)
		})
	}
}
