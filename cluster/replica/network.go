package replica

import (
	"fmt"
	"slices"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/cluster/replica/election"
	"github.com/perdure/perdure/cluster/replica/wire"
)

// Peers is the way to other nodes, and what it gives to them arrives at Receive and ReceiveSnapshot
// of their hosts. Its methods never block and may be called concurrently. Messages may be
// lost, repeated, delayed and change places, but not change.
type Peers interface {
	// Send takes a frame: messages of several groups. It keeps frame. What cannot be sent now is
	// lost, and Raft copes.
	Send(to uint64, frame []byte)
	// SendSnapshot begins to stream a snapshot of a group to a node and calls done exactly once
	// with what its Host.ReceiveSnapshot returned there, or with an error that wraps ErrLost if that is
	// not known. source is read on a goroutine of the transport's, which closes it in any case. done may
	// be called on any goroutine, and before SendSnapshot returns.
	SendSnapshot(to uint64, group uint32, header []byte, source SnapshotSource, done func(answer []byte, err error))
}

// SnapshotSource gives the chunks of a snapshot. It is used by one goroutine.
type SnapshotSource interface {
	// Next returns the next chunk, at most about 1 MiB unless a single row is larger, or io.EOF. It
	// waits to keep to Config.SnapshotBytesPerSecond.
	Next() (chunk []byte, err error)
	// Close releases the snapshot. A second call does nothing.
	Close()
}

// maxFrameBytes is where a frame ends and the next one begins. A message that is larger alone, since
// it has a large record, is a frame of its own.
const maxFrameBytes = 1 << 20

// maxUnheardBytes bounds the messages that arrived and wait for the loop; more are lost.
const maxUnheardBytes = 64 << 20

// incoming is an item of a frame.
type incoming struct {
	group   *Group
	from    uint64
	life    uint64
	kind    wire.Kind
	opinion wire.Opinion
	message *pb.Message // of KindRaft
	beat    wire.Beat
	echo    wire.Echo
}

// Receive takes a frame from another node. It never blocks: what is more than the host can take is
// lost. The error says that the frame is not one, or is for another node; all of it is ignored. It
// keeps frame.
func (h *Host) Receive(from uint64, frame []byte) error {
	var items []incoming
	err := wire.DecodeFrame(frame, func(item wire.Item) error {
		g := h.groups[GroupID(item.Group)]
		if g == nil {
			return fmt.Errorf("partition %d: this cluster has none", item.Group)
		}
		in := incoming{group: g, from: from, life: item.Life, kind: item.Kind}
		var err error
		switch item.Kind {
		case wire.KindRaft:
			in.message, err = h.decodeMessage(from, item.Data)
		case wire.KindQuestion:
		case wire.KindBeat:
			in.beat, err = wire.DecodeBeat(item.Data)
		case wire.KindEcho:
			in.echo, err = wire.DecodeEcho(item.Data)
		case wire.KindStranger, wire.KindVerdict:
			in.opinion, err = wire.DecodeOpinion(item.Data)
		default:
			return nil // of a newer build; whoever sends it must be able to do without
		}
		if err != nil {
			return fmt.Errorf("partition %d: %w", item.Group, err)
		}
		items = append(items, in)
		return nil
	})
	if err != nil {
		return fmt.Errorf("replica: receive from node %x: %w", from, err)
	}
	in := &h.intake
	in.mu.Lock()
	if !in.mu.started || h.hasEnded() || in.mu.messageBytes+len(frame) > maxUnheardBytes {
		in.mu.Unlock()
		return nil
	}
	in.mu.messages = append(in.mu.messages, items...)
	in.mu.messageBytes += len(frame)
	in.mu.Unlock()
	in.signal()
	return nil
}

// remote are the kinds of messages that another node may send in a frame.
var remote = map[pb.MessageType]bool{
	pb.MsgApp: true, pb.MsgAppResp: true, pb.MsgHeartbeat: true, pb.MsgHeartbeatResp: true,
	pb.MsgVote: true, pb.MsgVoteResp: true, pb.MsgPreVote: true, pb.MsgPreVoteResp: true, pb.MsgTimeoutNow: true,
}

func (h *Host) decodeMessage(from uint64, data []byte) (*pb.Message, error) {
	m := &pb.Message{}
	if err := proto.Unmarshal(data, m); err != nil {
		return nil, fmt.Errorf("raft message: %w", err)
	}
	switch {
	case !remote[m.GetType()]:
		return nil, fmt.Errorf("raft message: %w: a node does not send %s", wire.ErrMalformed, m.GetType())
	case m.GetFrom() != from:
		return nil, fmt.Errorf("raft message: %w: it is from node %x", wire.ErrMalformed, m.GetFrom())
	case m.GetTo() != h.cfg.NodeID:
		return nil, fmt.Errorf("raft message: %w: it is for node %x, this is node %x", wire.ErrMalformed, m.GetTo(), h.cfg.NodeID)
	case m.GetTerm() == 0:
		return nil, fmt.Errorf("raft message: %w: it has no term", wire.ErrMalformed)
	}
	for i, entry := range m.GetEntries() {
		if entry.GetIndex() != m.GetIndex()+1+uint64(i) {
			return nil, fmt.Errorf("raft message: %w: entry %d where %d follows", wire.ErrMalformed, entry.GetIndex(), m.GetIndex()+1+uint64(i))
		}
	}
	return m, nil
}

// receive deals with what another node says.
func (l *loop) receive(in *incoming) {
	g := in.group
	ls := &g.loopState
	switch in.kind { // of many groups
	case wire.KindBeat:
		l.beaten(g, in.from, in.beat)
		return
	case wire.KindEcho:
		l.echoed(in.from, in.echo)
		return
	}
	if ls.halted != nil || ls.dropping || in.life < ls.lives[in.from] {
		return
	}
	switch in.kind {
	case wire.KindRaft:
		l.receiveMessage(g, in)
	case wire.KindStranger:
		l.doubted(g, in.opinion)
	case wire.KindQuestion:
		l.asked(g, in.from)
	case wire.KindVerdict:
		l.judged(g, in.opinion)
	}
}

func (l *loop) receiveMessage(g *Group, in *incoming) {
	ls, m := &g.loopState, in.message
	fromLeader := m.GetType() == pb.MsgApp || m.GetType() == pb.MsgHeartbeat
	if ls.node == nil {
		if !fromLeader || m.GetTerm() < ls.term {
			return
		}
		l.create(g)
		if ls.node == nil {
			return
		}
	}
	if fromLeader && m.GetTerm() >= ls.term {
		ls.silent, ls.doubt = 0, false
	}
	if in.life > ls.lives[in.from] && !l.reborn(g, in.from, in.life) {
		return
	}
	if m.GetType() == pb.MsgHeartbeat && (len(ls.conf.Voters) == 0 || m.GetCommit() > ls.log.last) {
		// The leader may take, or have taken, what an earlier replica here had for what this one has.
		m.Commit = new(uint64(0))
	}
	switch m.GetType() {
	case pb.MsgPreVote, pb.MsgVote:
		candidate := raftLog{last: m.GetIndex(), lastTerm: m.GetLogTerm()}
		if ls.log.belowFloor(ls.past) && candidate.belowFloor(ls.past) {
			return // an earlier replica here would have refused
		}
	case pb.MsgTimeoutNow:
		if ls.log.belowFloor(ls.past) {
			return
		}
	}
	if t := m.GetType(); (t == pb.MsgPreVote || t == pb.MsgVote) && len(ls.conf.Voters) > 0 && !isMember(ls.conf, in.from) {
		l.say(g, in.from, wire.KindStranger, wire.AppendOpinion(nil, wire.Opinion{Leader: ls.lead}))
	}
	_ = l.step(g, m) // what the node does not want, it says; what breaks it, halts the group
}

// send puts a message into the frame for its node. A snapshot goes its own way.
func (l *loop) send(g *Group, m *pb.Message) {
	switch {
	case l.host.cfg.Peers == nil:
		l.host.cfg.Logger.Error("raft message to another node, and no transport to send it", "partition", uint32(g.id),
			"to", m.GetTo(), "type", m.GetType().String())
	case m.GetType() == pb.MsgSnap:
		l.sendSnapshot(g, m)
	default:
		data, err := proto.Marshal(m)
		if err != nil {
			l.halt(g, fmt.Errorf("encode a raft message: %w", err))
			return
		}
		l.say(g, m.GetTo(), wire.KindRaft, data)
	}
}

func (l *loop) say(g *Group, to uint64, kind wire.Kind, data []byte) {
	frame := l.out[to]
	if len(frame) > 0 && len(frame)+len(data)+wire.ItemBytes > maxFrameBytes {
		l.host.cfg.Peers.Send(to, frame)
		frame = nil
	}
	if l.out == nil {
		l.out = make(map[uint64][]byte)
	}
	l.out[to] = wire.AppendItem(frame, wire.Item{Group: uint32(g.id), Kind: kind, Life: g.loopState.past.Life, Data: data})
}

// sendHeld lets go what waited for the vote to be durable.
func (l *loop) sendHeld(g *Group) {
	ls := &g.loopState
	ls.voteBatch = 0
	for _, m := range ls.outbox {
		l.send(g, m)
	}
	ls.outbox = nil
}

// sendFrames ends a round: one frame for each node, of all groups.
func (l *loop) sendFrames() {
	for to, frame := range l.out {
		l.host.cfg.Peers.Send(to, frame)
	}
	clear(l.out)
}

// watchMembers follows a group's configuration: whether it needs ticks and a log for members that
// lag, and whether this node's vote is all it needs.
func (l *loop) watchMembers(g *Group) {
	ls := &g.loopState
	solo := g.isSolo()
	// A group that only this node has, and it does not lead, ticks until it does: a configuration with
	// one voter may also be one that the group had long ago, in a log that is being caught up with.
	others := l.host.cfg.Peers != nil && (!solo || len(ls.conf.Learners) > 0 || ls.epoch == 0)
	g.keepsLog.Store(others)
	if others && !ls.ticking {
		ls.ticking = true
		l.ticking = append(l.ticking, g)
	}
	in := &l.host.intake
	in.mu.Lock()
	g.mu.solo = solo
	in.mu.Unlock()
	if solo && ls.leading { // nobody else is left who could answer, or be elected
		ls.flying, ls.barriers, ls.round = confirm(ls.flying), confirm(ls.barriers), 0
	}
}

// isSolo is whether this node's vote is all that the group needs.
func (g *Group) isSolo() bool {
	conf := g.loopState.conf
	return len(conf.Voters) == 1 && conf.Voters[0] == g.host.cfg.NodeID && len(conf.VotersOutgoing) == 0
}

func isMember(conf *pb.ConfState, node uint64) bool {
	return slices.Contains(conf.Voters, node) || slices.Contains(conf.VotersOutgoing, node) || slices.Contains(conf.Learners, node)
}

// tick lets time pass for the groups that have members on other nodes. A tick that comes late, as
// after a pause of the process, is one tick.
func (l *loop) tick() {
	l.ticks++
	if l.deaf {
		return
	}
	kept := l.ticking[:0]
	for _, g := range l.ticking {
		ls := &g.loopState
		if ls.halted != nil || !g.keepsLog.Load() && !ls.redrop {
			ls.ticking = false
			continue
		}
		kept = append(kept, g)
		switch {
		case ls.redrop:
			ls.redrop = false
			l.writeDrop(g)
		case ls.node != nil && ls.asleep:
			l.doze(g)
		case ls.node != nil:
			ls.idle++
			ls.silent++
			if ls.epoch != 0 {
				ls.silent = 0
			}
			if ls.epoch != 0 || !ls.log.belowFloor(ls.past) {
				ls.turn = ls.turn || election.Due(uint32(g.id), ls.conf.Voters, l.host.cfg.NodeID, ls.heard, ls.silent)
				ls.node.Tick()
				l.touch(g)
			}
			l.wonder(g)
			l.hurry(g)
			if ls.epoch != 0 && l.ticks%ElectionTicks == 0 {
				l.trim(g)
			}
		}
	}
	clear(l.ticking[len(kept):])
	l.ticking = kept
	if l.ticks%HeartbeatTicks == 0 {
		l.beat()
	}
}

// ask runs fn on the loop's goroutine and waits for it. It returns ErrNotLeader if the host does
// not run.
func (h *Host) ask(fn func(*loop)) error {
	done := make(chan struct{})
	in := &h.intake
	in.mu.Lock()
	if !in.mu.started {
		in.mu.Unlock()
		return fmt.Errorf("%w: the host does not run", ErrNotLeader)
	}
	in.mu.calls = append(in.mu.calls, func(l *loop) { fn(l); close(done) })
	in.mu.Unlock()
	in.signal()
	select {
	case <-done:
		return nil
	case <-h.ended:
		return fmt.Errorf("%w: the host has stopped", ErrNotLeader)
	}
}
