package replica

import (
	"fmt"

	raft "go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/cluster/replica/bug"
	"github.com/perdure/perdure/cluster/replica/rows"
	"github.com/perdure/perdure/cluster/replica/stream"
	"github.com/perdure/perdure/cluster/replica/wire"
	"github.com/perdure/perdure/storage"
)

// chunkBytes is about what a chunk of a snapshot holds.
const chunkBytes = 512 << 10

// sendable is a snapshot that the library was told of.
type sendable struct {
	applied applied
	store   storage.Snapshot
	message *pb.Snapshot
}

func (s *sendable) release() {
	if s != nil {
		s.store.Release()
	}
}

// sendableSnapshot answers the library when a member needs one. The library asks in the middle of
// a step, and puts the answer into a message that sendSnapshot gets at the end of it. What the
// snapshot has is what the store says in the same view.
func (g *Group) sendableSnapshot() (*pb.Snapshot, error) {
	ls, h := &g.loopState, g.host
	if ls.sendable != nil {
		return ls.sendable.message, nil
	}
	if !h.lanes.Send(h.cfg.MaxSnapshots) {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	h.lanes.EndSend() // only a look: sendSnapshot takes it
	view := h.cfg.Store.Snapshot()
	at, err := readApplied(view, g.id)
	if err != nil || at.index == 0 {
		view.Release()
		if err != nil {
			h.cfg.Logger.Error("no snapshot to send", "partition", uint32(g.id), "error", err)
		}
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	conf, err := at.confState()
	if err != nil {
		view.Release()
		return nil, err
	}
	if bug.Snapshot {
		at.index, at.term = ls.commit, ls.term
	}
	ls.sendable = &sendable{applied: at, store: view, message: &pb.Snapshot{
		Metadata: &pb.SnapshotMetadata{ConfState: conf, Index: new(at.index), Term: new(at.term)},
	}}
	return ls.sendable.message, nil
}

func readApplied(view storage.Snapshot, id GroupID) (applied, error) {
	value, ok, err := view.Get(rows.Applied.Key(uint32(id)))
	if err != nil || !ok {
		return applied{}, err
	}
	return decodeApplied(value)
}

// sendSnapshot begins the stream that the message stands for.
func (l *loop) sendSnapshot(g *Group, m *pb.Message) {
	ls, h := &g.loopState, l.host
	s := ls.sendable
	ls.sendable = nil
	to, incarnation := m.GetTo(), ls.incarnation
	report := func(err error) {
		_ = h.ask(func(l *loop) {
			if ls.node == nil || ls.incarnation != incarnation {
				return
			}
			status := raft.SnapshotFinish
			if err != nil {
				status = raft.SnapshotFailure
				h.cfg.Logger.Info("a snapshot did not get there; it will be tried again", "partition", uint32(g.id), "to", to, "error", err)
			}
			ls.node.ReportSnapshot(to, status)
			l.mark(g)
		})
	}
	fail := func() {
		if ls.node != nil {
			ls.node.ReportSnapshot(to, raft.SnapshotFailure)
			l.mark(g)
		}
	}
	if s == nil || !isMember(s.message.GetMetadata().GetConfState(), to) {
		// Its store has not got to where the node became a member, or another message took it.
		s.release()
		fail()
		return
	}
	if !h.lanes.Send(h.cfg.MaxSnapshots) {
		s.release()
		fail()
		return
	}
	message, err := proto.Marshal(m)
	if err != nil {
		h.lanes.EndSend()
		s.release()
		l.halt(g, fmt.Errorf("encode a raft message: %w", err))
		return
	}
	l.snapshots++
	header := wire.Header{Life: ls.past.Life, Applied: s.applied.appendEncoded(nil), Message: message, Number: l.snapshots}
	h.cfg.Logger.Info("sending a snapshot", "partition", uint32(g.id), "to", fmt.Sprintf("%016x", to), "index", s.applied.index)
	term, index := m.GetTerm(), s.applied.index
	sending := &stream.Sending{
		Lanes: &h.lanes, Most: h.cfg.MaxSnapshots, Header: header, Ended: h.ended,
		Source: h.lanes.Open(rows.NewView(s.store, rows.Prefix(uint32(g.id), s.applied.generation)),
			stream.Limits{ChunkBytes: h.cfg.snapshotChunkBytes, BytesPerSecond: h.cfg.SnapshotBytesPerSecond}, h.ended),
		Start: func(header []byte, reader *stream.Reader, done func([]byte, error)) {
			h.cfg.Peers.SendSnapshot(to, uint32(g.id), header, reader, done)
		},
		Wanted: func() (wanted bool) {
			_ = h.ask(func(*loop) { wanted = ls.incarnation == incarnation && ls.epoch == term && g.awaits(to, index) })
			return wanted
		},
		Resumed: func(at wire.Position) {
			h.cfg.Logger.Info("a snapshot goes on", "partition", uint32(g.id), "to", fmt.Sprintf("%016x", to), "index", index, "chunk", at.Chunks, "bytes", at.Bytes)
		},
	}
	go func() { report(sending.Run()) }()
}

// awaits is whether a member is waited for to get the snapshot of an index.
func (g *Group) awaits(to, index uint64) (yes bool) {
	if g.loopState.node == nil {
		return false
	}
	g.loopState.node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if id == to {
			yes = pr.State == tracker.StateSnapshot && pr.PendingSnapshot == index
		}
	})
	return yes
}
