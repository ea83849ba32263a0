package replica

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/cluster/replica/wire"
	"github.com/perdure/perdure/storage/nodelog"
)

// TestRefusedSnapshotLeavesTheMembers: a snapshot that the log had no space for did not happen, nor did
// the changes of members that it had in it.
func TestRefusedSnapshotLeavesTheMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := resuming(t)
		defer w.stopAll()
		n := w.node(2)
		refused := make(chan struct{})
		w.net.spoil = func(chunk []byte, err error) ([]byte, error) {
			if errors.Is(err, io.EOF) {
				w.net.change(func() { w.net.mu.noSnapshots = true })
				var once sync.Once
				n.log.setGate(func(bool) (err error) {
					once.Do(func() { err = nodelog.ErrNoSpace; close(refused) })
					return err
				})
			}
			return chunk, err
		}
		go w.grow(1, 1, 2)
		<-refused
		time.Sleep(time.Second) // of the fake clock: whatever it does about it is done then
		if s := w.current(2).groups[1].Status(); s.Applied != 0 || len(s.Voters)+len(s.Learners) != 0 {
			t.Errorf("after a snapshot that was not written: %+v", s)
		}
		w.net.change(func() { w.net.mu.noSnapshots = false })
		w.net.spoil = nil
		w.finish()
	})
}

// TestHeartbeatForAnEarlierLife: a heartbeat on its way while a node was removed and added again says that more
// is committed than the new replica has.
func TestHeartbeatForAnEarlierLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := resuming(t)
		defer w.stopAll()
		w.finish()
		s := w.current(2).groups[1].Status()
		data, err := proto.Marshal(&pb.Message{
			Type: pb.MsgHeartbeat.Enum(), From: new(s.Leader), To: new(uint64(2)), Term: new(s.Term), Commit: new(s.Commit + 1000),
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.current(2).host.Receive(s.Leader, wire.AppendItem(nil, wire.Item{Group: 1, Kind: wire.KindRaft, Data: data})); err != nil {
			t.Fatal(err)
		}
		w.proposing(1, 5)
		w.agree()
	})
}

// TestReadBarrierOfWhoIsLeftAlone: a round of heartbeats that the last other voter does not answer any more
// is over when it is removed.
func TestReadBarrierOfWhoIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := resuming(t)
		defer w.stopAll()
		w.finish()
		r := w.leader(1)
		if r.node.id != 1 {
			t.Fatalf("node %d leads", r.node.id)
		}
		g := r.groups[1]
		var wg sync.WaitGroup
		removed := make(chan struct{})
		for range 20 {
			wg.Go(func() {
				for {
					ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
					err := g.ReadBarrier(ctx)
					cancel()
					if err != nil {
						t.Errorf("a barrier: %v", err)
						return
					}
					select {
					case <-removed:
						return
					case <-time.After(100 * time.Microsecond):
					}
				}
			})
		}
		time.Sleep(10 * time.Millisecond) // of the fake clock: rounds are under way
		if err := g.Reconfigure(t.Context(), Change{Expect: g.Status().Members, Remove: []uint64{2}}); err != nil {
			t.Error(err)
		}
		close(removed)
		wg.Wait()
	})
}

// TestReadBarrierInTheRoundThatLosesTheLeadership: the question must not go to the new leader, as it did once in
// the simulation.
func TestReadBarrierInTheRoundThatLosesTheLeadership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := three(t, 3, nil)
		defer w.stopAll()
		w.agree() // with a proposal on its way the leader would stop before it asks
		r := w.waitLeader(1)
		other := r.node.id%3 + 1
		b := &barrier{group: r.groups[1], done: make(chan error, 1)}
		if err := r.host.ask(func(l *loop) {
			b.epoch = b.group.loopState.epoch
			if err := l.step(b.group, &pb.Message{
				Type: pb.MsgHeartbeat.Enum(), From: new(other), To: new(r.node.id), Term: new(b.epoch + 1), Commit: new(uint64(0)),
			}); err != nil {
				t.Errorf("a heartbeat of the next term: %v", err)
			}
			l.in.barriers = append(l.in.barriers, b)
		}); err != nil {
			t.Fatal(err)
		}
		if err := <-b.done; !errors.Is(err, ErrNotLeader) {
			t.Errorf("got %v, want %v", err, ErrNotLeader)
		}
		w.agree() // Whoever gets a frame that it does not understand has failed the test by then.
	})
}
