package replica

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	raft "go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/cluster/replica/wire"
	"github.com/perdure/perdure/storage"
)

// chunkBytes is about what a chunk of a snapshot holds.
const chunkBytes = 512 << 10

// streams counts the snapshots that are on their way.
type streams struct {
	mu struct {
		sync.Mutex
		sending   int
		receiving int
		// free is when the next chunk may be sent.
		free time.Time
	}
}

// begin takes a place for a snapshot, if there is one.
func (s *streams) begin(count *int, most int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if *count >= most {
		return false
	}
	*count++
	return true
}

func (s *streams) end(count *int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*count--
}

// pause returns how long to wait before so many bytes are sent.
func (s *streams) pause(bytes, perSecond int) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.mu.free.Before(now) {
		s.mu.free = now
	}
	wait := s.mu.free.Sub(now)
	s.mu.free = s.mu.free.Add(time.Duration(float64(bytes) / float64(perSecond) * float64(time.Second)))
	return wait
}

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
	if !h.streams.begin(&h.streams.mu.sending, h.cfg.MaxSnapshots) {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	h.streams.end(&h.streams.mu.sending) // only a look: sendSnapshot takes it
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
	if bugSnapshot {
		at.index, at.term = ls.commit, ls.term
	}
	ls.sendable = &sendable{applied: at, store: view, message: &pb.Snapshot{
		Metadata: &pb.SnapshotMetadata{ConfState: conf, Index: new(at.index), Term: new(at.term)},
	}}
	return ls.sendable.message, nil
}

func readApplied(view storage.Snapshot, id GroupID) (applied, error) {
	value, ok, err := view.Get(appliedKey(id))
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
	if s == nil || !isMemberOf(s.message, to) {
		// Its store has not got to where the node became a member, or another message took it.
		s.release()
		fail()
		return
	}
	if !h.streams.begin(&h.streams.mu.sending, h.cfg.MaxSnapshots) {
		s.release()
		fail()
		return
	}
	message, err := proto.Marshal(m)
	if err != nil {
		h.streams.end(&h.streams.mu.sending)
		s.release()
		l.halt(g, fmt.Errorf("encode a raft message: %w", err))
		return
	}
	header := wire.AppendHeader(nil, wire.Header{Life: ls.past.life, Applied: s.applied.appendEncoded(nil), Message: message})
	h.cfg.Logger.Info("sending a snapshot", "partition", uint32(g.id), "to", to, "index", s.applied.index)
	source := &source{host: h, rows: newPartitionSnapshot(s.store, keyPrefix(g.id, s.applied.generation))}
	var once sync.Once
	h.cfg.Peers.SendSnapshot(to, uint32(g.id), header, source, func(err error) {
		once.Do(func() {
			h.streams.end(&h.streams.mu.sending)
			go report(err) // whoever calls may be the loop
		})
	})
}

func isMemberOf(s *pb.Snapshot, node uint64) bool {
	return isMember(s.GetMetadata().GetConfState(), node)
}

// source reads a snapshot in chunks.
type source struct {
	host   *Host
	rows   storage.Snapshot // nil once closed
	from   []byte           // the next key is not before
	read   bool             // all rows were
	totals wire.Totals
}

// Next implements SnapshotSource.
func (s *source) Next() ([]byte, error) {
	if s.rows == nil || s.totals.Ended() {
		return nil, io.EOF
	}
	if s.read {
		return s.totals.End(), nil
	}
	var chunk wire.Chunk
	s.read = true
	err := s.rows.Scan(s.from, nil, func(key, value []byte) bool {
		if n := chunk.Bytes(); n >= chunkBytes || n > 0 && n+len(key)+len(value) > 2*chunkBytes {
			s.read = false
			return false
		}
		chunk.Add(key, value)
		s.from = append(append(s.from[:0], key...), 0)
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("replica: read the store for a snapshot: %w", err)
	}
	if chunk.Bytes() == 0 {
		return s.totals.End(), nil
	}
	if wait := s.host.streams.pause(chunk.Bytes(), s.host.cfg.SnapshotBytesPerSecond); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.host.ended:
			return nil, errors.New("replica: the host has stopped")
		}
	}
	return s.totals.Take(&chunk), nil
}

// Close implements SnapshotSource.
func (s *source) Close() {
	if s.rows != nil {
		s.rows.Release()
		s.rows = nil
	}
}
