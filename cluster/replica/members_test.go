package replica

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/cluster/replica/rows"
	"github.com/perdure/perdure/cluster/replica/stream"
	"github.com/perdure/perdure/cluster/replica/wire"
	"github.com/perdure/perdure/storage/memstore"
)

// three starts a world of nodes with one partition that has the first three as voters.
func three(t testing.TB, nodes int, adjust func(*Config)) *world {
	t.Helper()
	w := newWorld(t, 1, nodes, 1)
	w.adjust = adjust
	for _, n := range w.nodes {
		n.start()
	}
	w.grow(1, 1, 2, 3)
	w.proposing(1, 20)
	return w
}

func (w *world) reconfigure(change Change) error {
	r := w.waitLeader(1)
	change.Expect = r.groups[1].Status().Members
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return r.groups[1].Reconfigure(ctx, change)
}

func TestReconfigureRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := three(t, 5, nil)
		defer w.stopAll()
		r := w.waitLeader(1)
		leader := r.node.id
		for name, c := range map[string]struct {
			change Change
			want   error
		}{
			"nothing":            {Change{}, ErrInvalid},
			"add a member":       {Change{AddLearners: []uint64{leader}}, ErrInvalid},
			"add nobody":         {Change{AddLearners: []uint64{0}}, ErrInvalid},
			"promote a stranger": {Change{Promote: []uint64{4}}, ErrInvalid},
			"remove a stranger":  {Change{Remove: []uint64{4}}, ErrInvalid},
			"remove the leader":  {Change{Remove: []uint64{leader}}, ErrInvalid},
			"demote the leader":  {Change{Demote: []uint64{leader}}, ErrInvalid},
			"twice":              {Change{AddLearners: []uint64{4, 4}}, ErrInvalid},
		} {
			if err := w.reconfigure(c.change); !errors.Is(err, c.want) || !strings.Contains(err.Error(), "partition 1") {
				t.Errorf("%s: %v", name, err)
			}
		}
		err := r.groups[1].Reconfigure(t.Context(), Change{Expect: Members{Voters: []uint64{1, 2}}, AddLearners: []uint64{4}})
		if !errors.Is(err, ErrChanged) {
			t.Errorf("another configuration: %v", err)
		}
		follower := w.current(leader%3 + 1)
		if err := follower.groups[1].Reconfigure(t.Context(), Change{}); !errors.Is(err, ErrNotLeader) {
			t.Errorf("on a follower: %v", err)
		}
		// Node 4 is dead: it is a learner and stays one.
		w.node(4).crash()
		if err := w.reconfigure(Change{AddLearners: []uint64{4}}); err != nil {
			t.Error(err)
		}
		if err := w.reconfigure(Change{Promote: []uint64{4}}); !errors.Is(err, ErrBehind) {
			t.Errorf("promote a dead node: %v", err)
		}
		if err := follower.groups[1].TransferLeadership(leader); !errors.Is(err, ErrNotLeader) {
			t.Errorf("transfer by a follower: %v", err)
		}
		if err := r.groups[1].TransferLeadership(4); !errors.Is(err, ErrInvalid) {
			t.Errorf("transfer to a learner: %v", err)
		}
	})
}

// More than one voter at once goes through a joint configuration, which the group leaves by itself.
func TestReplaceTwoVotersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := three(t, 5, nil)
		defer w.stopAll()
		if err := w.reconfigure(Change{AddLearners: []uint64{4, 5}}); err != nil {
			t.Fatal(err)
		}
		r := w.waitLeader(1)
		w.until("4 and 5 to catch up", time.Minute, func() bool {
			for _, p := range r.groups[1].Status().Peers {
				if !p.CaughtUp {
					return false
				}
			}
			return true
		})
		others := slices.DeleteFunc([]uint64{1, 2, 3}, func(n uint64) bool { return n == r.node.id })
		if err := w.reconfigure(Change{Promote: []uint64{4, 5}, Remove: others[:1], Demote: others[1:]}); err != nil {
			t.Fatal(err)
		}
		s := r.groups[1].Status()
		if want := (Members{Voters: []uint64{r.node.id, 4, 5}, Learners: others[1:]}); !s.Members.Equal(want) {
			t.Errorf("members are %+v, want %+v", s.Members, want)
		}
		w.proposing(1, 20)
		w.agree()
	})
}

// A node that is removed deletes its rows and keeps its term and vote, and can be added again.
func TestRemovedNode(t *testing.T) {
	for name, heard := range map[string]bool{"hears of it": true, "hears of it later": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := three(t, 3, nil)
				defer w.stopAll()
				leader := w.waitLeader(1).node.id
				gone := leader%3 + 1
				if !heard {
					w.node(gone).crash()
				}
				if err := w.reconfigure(Change{Remove: []uint64{gone}}); err != nil {
					t.Fatal(err)
				}
				w.proposing(1, 20)
				if !heard {
					w.node(gone).start()
				}
				r := w.current(gone)
				w.until("the replica to be dropped", time.Minute, func() bool {
					s := r.groups[1].Status()
					return s.Term > 0 && !s.Replica && len(r.node.store.Keys()) == 0 // the store has it last
				})
				if known := r.listeners[1].leader(); known != w.waitLeader(1).node.id {
					t.Errorf("who has no replica any more believes that node %d leads", known)
				}
				log, err := openRaftLog(w.node(gone).log, 1)
				if err != nil || log.last != 0 || log.hard.GetTerm() == 0 || log.past.Life != 1 {
					t.Errorf("kept is %+v, life %d, %d entries, %v", log.hard, log.past.Life, log.last, err)
				}
				w.grow(1, 1, 2, 3)
				w.proposing(1, 5)
				w.agree()
				w.node(gone).crash() // the new life is on its disks
				w.node(gone).start()
				w.proposing(1, 5)
				w.agree()
			})
		})
	}
}

// What an earlier life of a replica had acknowledged does not make a leader believe that this one has it.
func TestLateWordOfAnEarlierLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := three(t, 3, nil)
		defer w.stopAll()
		r := w.waitLeader(1)
		gone := r.node.id%3 + 1
		if err := w.reconfigure(Change{Remove: []uint64{gone}}); err != nil {
			t.Fatal(err)
		}
		w.until("the replica to be dropped", time.Minute, func() bool { return !w.current(gone).groups[1].Status().Replica })
		s := r.groups[1].Status()
		w.net.change(func() { w.net.mu.cut[[2]uint64{r.node.id, gone}] = true })
		if err := w.reconfigure(Change{AddLearners: []uint64{gone}}); err != nil {
			t.Fatal(err)
		}
		late := &pb.Message{Type: pb.MsgAppResp.Enum(), From: new(gone), To: new(r.node.id), Term: new(s.Term), Index: new(s.Commit)}
		data, err := proto.Marshal(late)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.host.Receive(gone, wire.AppendItem(nil, wire.Item{Group: 1, Kind: wire.KindRaft, Data: data})); err != nil {
			t.Fatal(err)
		}
		if p := r.groups[1].Status().Peers; !slices.ContainsFunc(p, func(p PeerStatus) bool { return p.Node == gone && p.Match == s.Commit }) {
			t.Fatalf("the late word was not heard: %+v", p)
		}
		w.net.change(func() { clear(w.net.mu.cut) })
		w.grow(1, 1, 2, 3)
		w.proposing(1, 5)
		w.agree()
		if w.leader(1) != r {
			t.Error("the leadership was lost over a learner")
		}
	})
}

// A replica that was dropped, and is there again with nothing in it, does not help a member that does
// not know of its removal to lead: that one lacks what the earlier replica had helped to commit.
func TestEarlierLifeBindsVotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 4, 1)
		for _, n := range w.nodes {
			n.start()
		}
		defer w.stopAll()
		w.grow(1, 1, 2, 3)
		r := w.waitLeader(1)
		if r.node.id != 1 {
			t.Fatalf("node %d leads", r.node.id)
		}
		alone := func(nodes ...uint64) {
			w.net.change(func() {
				clear(w.net.mu.cut)
				for a := uint64(1); a <= 4; a++ {
					for b := uint64(1); b <= 4; b++ {
						w.net.mu.cut[[2]uint64{a, b}] = slices.Contains(nodes, a) != slices.Contains(nodes, b)
					}
				}
			})
		}
		alone(3) // which from now on knows nothing
		w.proposing(1, 20)
		if err := w.reconfigure(Change{AddLearners: []uint64{4}}); err != nil {
			t.Fatal(err)
		}
		w.until("4 to catch up", time.Minute, func() bool {
			return slices.ContainsFunc(r.groups[1].Status().Peers, func(p PeerStatus) bool { return p.Node == 4 && p.CaughtUp })
		})
		if err := w.reconfigure(Change{Promote: []uint64{4}, Remove: []uint64{2}}); err != nil {
			t.Fatal(err)
		}
		w.until("the replica of 2 to be dropped", time.Minute, func() bool {
			s := w.current(2).groups[1].Status()
			return s.Term > 0 && !s.Replica
		})
		w.net.change(func() { w.net.mu.noSnapshots = true })
		if err := w.reconfigure(Change{AddLearners: []uint64{2}}); err != nil {
			t.Fatal(err)
		}
		w.until("2 to be there again", time.Minute, func() bool { return w.current(2).groups[1].Status().Replica })
		alone(2, 3)
		time.Sleep(20 * time.Second)
		for _, node := range []uint64{2, 3} {
			if s := w.current(node).groups[1].Status(); s.Epoch != 0 || s.Leader != 0 && s.Leader != 1 && s.Leader != 4 {
				t.Errorf("node %d: %+v", node, s)
			}
		}
		w.net.change(func() { w.net.mu.noSnapshots = false; clear(w.net.mu.cut) })
		w.proposing(1, 5)
		w.agree()
	})
}

// A node is not told that it may forget what only it and the leader have.
func TestRemovedNodeKeepsWhatOthersLack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := three(t, 3, nil)
		defer w.stopAll()
		r := w.waitLeader(1)
		gone, away := r.node.id%3+1, (r.node.id+1)%3+1
		w.node(away).crash()
		w.proposing(1, 20)
		// It has no majority then, and finds out within two timeouts.
		if err := w.reconfigure(Change{Remove: []uint64{gone}}); !errors.Is(err, ErrUnknown) {
			t.Errorf("the change is over, though one voter of two knows it: %v", err)
		}
		if !w.current(gone).groups[1].Status().Replica {
			t.Error("the replica is dropped, and one node has what was acknowledged")
		}
		w.node(away).start()
		w.proposing(1, 5)
		w.until("the replica to be dropped", time.Minute, func() bool { return !w.current(gone).groups[1].Status().Replica })
		w.agree()
	})
}

func TestTransferLeadership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := three(t, 3, nil)
		defer w.stopAll()
		r := w.waitLeader(1)
		to := r.node.id%3 + 1
		began := time.Now()
		if err := r.groups[1].TransferLeadership(to); err != nil {
			t.Fatal(err)
		}
		w.until("the other node to lead", time.Minute, func() bool { l := w.leader(1); return l != nil && l.node.id == to })
		if took := time.Since(began); took > 500*time.Millisecond {
			t.Errorf("it took %v", took)
		}
		w.proposing(1, 5)
		// A target that cannot be reached: this node steps down, and somebody leads again.
		r = w.waitLeader(1)
		to = r.node.id%3 + 1
		w.net.change(func() { w.net.mu.cut[[2]uint64{r.node.id, to}] = true })
		if err := r.groups[1].TransferLeadership(to); err != nil {
			t.Fatal(err)
		}
		w.proposing(1, 5)
		w.net.change(func() { clear(w.net.mu.cut) })
		w.agree()
	})
}

// A node that stops hands its leaderships over: nobody waits for an election.
func TestStoppingNodeHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := three(t, 3, nil)
		defer w.stopAll()
		r := w.waitLeader(1)
		began := time.Now()
		r.node.stop()
		w.waitLeader(1)
		if took := time.Since(began); took > 500*time.Millisecond {
			t.Errorf("the others were without a leader for %v", took)
		}
		w.proposing(1, 5)
	})
}

// A node with a slow disk stops, although others never stop to send it what it would have to append.
func TestSlowDiskStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := three(t, 3, nil)
		defer w.stopAll()
		r := w.waitLeader(1)
		slow := w.node(r.node.id%3 + 1)
		gate := slow.log.gate
		slow.log.setGate(func(written bool) error {
			time.Sleep(50 * time.Millisecond) // what a write of the slow disk takes, on the fake clock
			return gate(written)
		})
		for range 20 { // it is never without something to append
			r.listeners[1].propose()
			time.Sleep(time.Millisecond) // of the fake clock: faster than the slow disk
		}
		stopped := make(chan time.Duration)
		go func() {
			began := time.Now()
			slow.stop()
			stopped <- time.Since(began)
		}()
		for range 10_000 {
			select {
			case took := <-stopped:
				if took > 2*time.Second {
					t.Errorf("it took %v", took)
				}
				return
			case <-time.After(time.Millisecond):
				r.listeners[1].propose()
			}
		}
		t.Errorf("it has not stopped after %d proposals of others", 10_000)
		<-stopped
	})
}

// A leader whose disk hangs gives way, although its heartbeats need no disk.
func TestHungDiskHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := three(t, 3, func(c *Config) { c.StallAfter = 3 * time.Second })
		defer w.stopAll()
		r := w.waitLeader(1)
		gate := r.node.log.gate
		hang := make(chan struct{})
		r.node.log.setGate(func(written bool) error {
			<-hang
			return gate(written)
		})
		r.listeners[1].propose()
		w.until("another node to lead", 20*time.Second, func() bool { l := w.leader(1); return l != nil && l != r })
		w.proposing(1, 5)
		close(hang)
		w.agree()
	})
}

func TestReadBarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := three(t, 3, nil)
		defer w.stopAll()
		r := w.waitLeader(1)
		began := time.Now()
		for range 3 {
			if err := r.groups[1].ReadBarrier(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(began); took < 6*time.Millisecond || took > 50*time.Millisecond {
			t.Errorf("three barriers took %v, a round trip is 2ms", took)
		}
		if err := w.current(r.node.id%3 + 1).groups[1].ReadBarrier(t.Context()); !errors.Is(err, ErrNotLeader) {
			t.Errorf("on a follower: %v", err)
		}
		w.net.change(func() {
			for n := range uint64(3) {
				w.net.mu.cut[[2]uint64{r.node.id, n + 1}] = true
			}
		})
		if err := r.groups[1].ReadBarrier(t.Context()); !errors.Is(err, ErrNotLeader) {
			t.Errorf("alone: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		w.net.change(func() { clear(w.net.mu.cut) })
		r = w.waitLeader(1)
		if err := r.groups[1].ReadBarrier(ctx); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, ErrNotLeader) {
			t.Errorf("in a hurry: %v", err)
		}
	})
}

// A follower that was away for little gets what it lacks from the log, one that was away for much
// gets a snapshot.
func TestLogIsKeptForWhoeverLags(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := three(t, 3, func(c *Config) { c.RetainBytes = 64 << 10 })
		defer w.stopAll()
		w.agree()
		before := w.snapshots()
		away := w.waitLeader(1).node.id%3 + 1
		w.node(away).crash()
		w.proposing(1, 200) // some 20 KiB
		w.node(away).start()
		w.agree()
		if n := w.snapshots(); n != before {
			t.Errorf("%d snapshots were sent", n-before)
		}
		w.node(away).crash()
		w.proposing(1, 3000)
		w.until("the log to be cut", time.Minute, func() bool {
			first, last := w.waitLeader(1).node.log.Bounds(1)
			return last-first < 2000
		})
		w.node(away).start()
		w.agree()
		if n := w.snapshots(); n != before+1 {
			t.Errorf("%d snapshots were sent, want 1", n-before)
		}
	})
}

// A cut of the power anywhere in the course of a snapshot leaves the replica as it was or with
// all of the snapshot, and no rubbish.
func TestSnapshotPowerCuts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 2, 1)
		w.adjust = func(c *Config) { c.MaxApplyBytes = 2 << 10 } // many batches
		for _, n := range w.nodes {
			n.start()
		}
		defer w.stopAll()
		w.proposing(1, 300)
		n := w.node(2)
		type image struct {
			log   *memLog
			store *memstore.Store
		}
		var images []image
		var looking sync.Mutex // the log's and the store's goroutine come here
		observe := func(node *worldNode) {
			looking.Lock()
			defer looking.Unlock()
			if node == n && len(images) < 2000 {
				node.log.frozen(func(log *memLog) {
					images = append(images, image{log, node.store.Clone(uint64(len(images)))})
				})
			}
		}
		w.observe.Store(&observe)
		n.crash()
		n.start()
		w.grow(1, 1, 2)
		w.proposing(1, 20)
		// Once more, over what is there.
		n.crash()
		w.node(1).crash()
		w.adjust = func(c *Config) { c.MaxApplyBytes, c.RetainBytes = 2<<10, 1 }
		w.node(1).start()
		w.node(1).stop()
		w.observe.Store(nil)
		stages := map[string]int{}
		for i, im := range images {
			what := ""
			if _, ok, _ := im.store.Snapshot().Get(rows.Staged.Key(1)); ok {
				what += "staged "
			}
			first, last := im.log.Bounds(1)
			at := storedAt(t, im.store, 1)
			if at.index+1 < first {
				what += "log first "
			}
			stages[what]++
			cfg := config(im.log, im.store, 1)
			cfg.NodeID, cfg.Found, cfg.Peers = 2, false, nobody{}
			host, err := Open(cfg)
			if err != nil {
				t.Errorf("image %d, %slog %d to %d, store at %d: %v", i, what, first, last, at.index, err)
				continue
			}
			g := host.Attach(1, silent{})
			ctx, cancel := context.WithCancel(t.Context())
			result := make(chan error, 1)
			go func() { result <- host.Run(ctx) }()
			time.Sleep(stream.ReceiverPatience + time.Second) // on the fake clock: for who sent what there is of a snapshot
			at = storedAt(t, im.store, 1)
			rows := rowsOf(t, g.Snapshot())
			if n := len(rows); n > 0 && n-1 != int(at.sequence) || n == 0 && at.index > 2 {
				t.Errorf("image %d, %s: %d rows at sequence %d, index %d", i, what, n, at.sequence, at.index)
			}
			for _, key := range im.store.Keys() {
				if key[0] == 0xff && (key[2] == 's' || key[2] == 'p') || key[0] != 0xff && key[2] != at.generation {
					t.Errorf("image %d, %s: rubbish %x", i, what, key)
					break
				}
			}
			cancel()
			if err := <-result; err != nil {
				t.Errorf("image %d: %v", i, err)
			}
		}
		if stages[""] == 0 || stages["staged "] == 0 || stages["staged log first "] == 0 {
			t.Errorf("of %d images not every stage is there: %v", len(images), stages)
		}
	})
}

// nobody is a network with no other node.
type nobody struct{}

func (nobody) Send(uint64, []byte) {}
func (nobody) SendSnapshot(_ uint64, _ uint32, _ []byte, s SnapshotSource, done func([]byte, error)) {
	s.Close()
	done(nil, errLost)
}

// A snapshot whose bytes changed on the way, or that ends early, is refused and nothing is left of it.
func TestDamagedSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 2, 1)
		for _, n := range w.nodes {
			n.start()
		}
		defer w.stopAll()
		w.proposing(1, 100)
		chunks := 0
		w.net.spoil = func(chunk []byte, err error) ([]byte, error) {
			switch chunks++; chunks {
			case 1:
				chunk = slices.Clone(chunk)
				chunk[len(chunk)/2] ^= 1
			case 3:
				return nil, io.EOF
			}
			return chunk, err
		}
		w.grow(1, 1, 2)
		w.proposing(1, 5)
		w.agree()
		if len(w.net.refusals) < 2 || !errors.Is(w.net.refusals[0], wire.ErrChecksum) || !errors.Is(w.net.refusals[1], wire.ErrMalformed) {
			t.Errorf("refusals: %v", w.net.refusals)
		}
		w.until("rubbish to be deleted", time.Minute, w.clean)
	})
}

func TestReceiveRefuses(t *testing.T) {
	host, err := Open(config(newMemLog(), newStore(), 1))
	if err != nil {
		t.Fatal(err)
	}
	raftItem := func(group uint32, m *pb.Message) []byte {
		data, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return wire.AppendItem(nil, wire.Item{Group: group, Kind: wire.KindRaft, Data: data})
	}
	good := func() *pb.Message {
		return &pb.Message{Type: pb.MsgHeartbeat.Enum(), From: new(uint64(2)), To: new(uint64(7)), Term: new(uint64(3))}
	}
	if err := host.Receive(2, raftItem(1, good())); err != nil {
		t.Errorf("a heartbeat: %v", err)
	}
	local, other, forged, termless, gap := good(), good(), good(), good(), good()
	local.Type, other.To, forged.From, termless.Term = pb.MsgHup.Enum(), new(uint64(8)), new(uint64(3)), nil
	gap.Type, gap.Index, gap.Entries = pb.MsgApp.Enum(), new(uint64(4)), []*pb.Entry{{Index: new(uint64(6))}}
	for name, frame := range map[string][]byte{
		"nothing": nil, "another format": {9}, "cut short": raftItem(1, good())[:4], "an unknown partition": raftItem(5, good()),
		"a local message": raftItem(1, local), "for another node": raftItem(1, other), "from another node": raftItem(1, forged),
		"without a term": raftItem(1, termless), "a gap": raftItem(1, gap),
		"a verdict cut short": wire.AppendItem(nil, wire.Item{Group: 1, Kind: wire.KindVerdict}),
	} {
		if err := host.Receive(2, frame); err == nil {
			t.Errorf("%s: received", name)
		}
	}
}
