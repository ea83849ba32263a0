package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/cluster/replica/wire"
)

// fakeNet carries frames and snapshots between the hosts of a world, badly.
type fakeNet struct {
	world *world
	// spoil, if set, changes chunks of snapshots. refusals is what became of those.
	spoil    func(chunk []byte, err error) ([]byte, error)
	refusals []error
	// asked, if set, is told what nodes have when they are asked where a snapshot goes on.
	asked func(to uint64, at wire.Position)

	mu struct {
		sync.Mutex
		rand  *rand.Rand
		calm  bool               // nothing is lost, repeated or late
		cut   map[[2]uint64]bool // from, to
		loss  float64
		delay time.Duration // at most

		noSnapshots bool
		seen        func(wire.Item) // of what is sent
	}
}

func newFakeNet(w *world, seed uint64) *fakeNet {
	n := &fakeNet{world: w}
	n.mu.rand = rand.New(rand.NewPCG(seed, 77))
	n.mu.cut = make(map[[2]uint64]bool)
	n.mu.calm = true
	return n
}

// fate decides how often something arrives, and when.
func (n *fakeNet) fate(from, to uint64) (copies int, delays [2]time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.cut[[2]uint64{from, to}] {
		return 0, delays
	}
	if n.mu.calm {
		return 1, [2]time.Duration{time.Millisecond}
	}
	if n.mu.rand.Float64() < n.mu.loss {
		return 0, delays
	}
	copies = 1
	if n.mu.rand.IntN(20) == 0 {
		copies = 2
	}
	for i := range delays {
		delays[i] = time.Duration(n.mu.rand.Int64N(int64(n.mu.delay) + 1))
		if n.mu.rand.IntN(50) == 0 {
			delays[i] *= 20
		}
	}
	return copies, delays
}

func (n *fakeNet) isCut(from, to uint64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.cut[[2]uint64{from, to}]
}

func (n *fakeNet) change(fn func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fn()
}

// endpoint is the Peers of one run of a host.
type endpoint struct {
	net  *fakeNet
	from *worldNode
	run  *worldRun
}

func (e endpoint) Send(to uint64, frame []byte) {
	if e.run.isDead() {
		return
	}
	e.net.change(func() {
		if e.net.mu.seen != nil {
			_ = wire.DecodeFrame(frame, func(item wire.Item) error { e.net.mu.seen(item); return nil })
		}
	})
	copies, delays := e.net.fate(e.from.id, to)
	if told := e.net.world.voters.Load(); told != nil && hasVote(frame) {
		defer (*told)(e.from)
	}
	for i := range copies {
		time.AfterFunc(delays[i], func() {
			run := e.net.world.current(to)
			if run == nil || e.net.isCut(e.from.id, to) {
				return
			}
			if err := run.host.Receive(e.from.id, frame); err != nil {
				e.net.world.t.Errorf("node %d: receive: %v", to, err)
			}
		})
	}
}

// hasVote is whether a frame grants a vote.
func hasVote(frame []byte) (found bool) {
	_ = wire.DecodeFrame(frame, func(item wire.Item) error {
		m := &pb.Message{}
		if item.Kind == wire.KindRaft && proto.Unmarshal(item.Data, m) == nil {
			found = found || m.GetType() == pb.MsgVoteResp && !m.GetReject()
		}
		return nil
	})
	return found
}

var errLost = fmt.Errorf("%w: the connection is lost", ErrLost)

func (e endpoint) SendSnapshot(to uint64, group uint32, header []byte, source SnapshotSource, done func([]byte, error)) {
	e.net.world.streams.Add(1)
	go func() {
		defer e.net.world.streams.Done()
		defer source.Close()
		time.Sleep(time.Millisecond)
		run := e.net.world.current(to)
		e.net.mu.Lock()
		refuse := e.net.mu.noSnapshots
		e.net.mu.Unlock()
		if run == nil || refuse || e.run.isDead() {
			done(nil, errLost)
			return
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		answer, err := run.host.ReceiveSnapshot(ctx, e.from.id, group, header, func() ([]byte, error) {
			copies, delays := e.net.fate(e.from.id, to)
			time.Sleep(delays[0])
			if copies == 0 || e.run.isDead() || run.isDead() {
				return nil, errLost
			}
			chunk, err := source.Next()
			if err != nil && !errors.Is(err, io.EOF) {
				return nil, err
			}
			if e.net.spoil != nil {
				return e.net.spoil(chunk, err)
			}
			return chunk, err
		})
		if e.net.spoil != nil && err != nil {
			e.net.refusals = append(e.net.refusals, err)
		}
		if at, failed := wire.DecodePosition(answer); err == nil && failed == nil {
			if e.net.asked != nil {
				e.net.asked(to, at)
			}
		} else if err == nil && answer == nil {
			e.net.world.noteSnapshot()
		}
		done(answer, err)
	}()
}
