package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	raft "go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/cluster/replica/bug"
	"github.com/perdure/perdure/cluster/replica/fault"
	"github.com/perdure/perdure/cluster/replica/raftlog"
	"github.com/perdure/perdure/storage/nodelog"
)

// loop drives the nodes of all groups. Each round takes everything that arrived, steps the
// groups concerned, and puts all they have to write into the one gathering append.
type loop struct {
	host *Host
	in   arrivals

	dirty     []*Group          // may have something ready
	proposing []*Group          // have entries of this round
	stopping  []*Group          // step down once their appends are back
	retries   []*Group          // campaign at retryAt
	held      []*Group          // have answers held back
	ticking   []*Group          // have members on other nodes
	out       map[uint64][]byte // frames of this round, by node
	ticks     uint64
	closeBy   uint64 // the tick at which a host that stops waits no longer for transfers
	beats     beats
	rounds    uint64 // of heartbeats that barriers asked for
	snapshots uint64 // that were begun to be sent
	retryAt   time.Time
	appending int // sum of groupLoopState.appending
	closing   bool
	deaf      bool // it waits for its appends only: more from others could keep a slow disk for ever

	timer *time.Timer // for retryAt and the watchdog; armed only while one of them has cause
	armed bool
	stall bool // reported
}

// run returns nil after ctx ended and what was accepted is committed, or the error that ends
// the host.
func (l *loop) run(ctx context.Context) error {
	in := &l.host.intake
	l.timer = time.NewTimer(time.Hour)
	l.timer.Stop()
	defer l.timer.Stop()
	for _, g := range l.host.order {
		if g.loopState.node == nil {
			continue
		}
		l.mark(g)
		l.watchMembers(g)
		g.loopState.campaign = true // if it has the only vote, once it has read its log
	}
	var ticks <-chan time.Time
	if l.host.cfg.Peers != nil {
		ticker := time.NewTicker(l.host.cfg.TickInterval)
		defer ticker.Stop()
		ticks = ticker.C
	}
	done := ctx.Done()
	for {
		if err := l.round(); err != nil {
			in.close()
			l.stepDownAll(err)
			return err
		}
		if l.closing && !l.handingOver() {
			l.deaf = true
			if l.appending == 0 {
				l.stepDownAll(ErrStopped)
				return nil
			}
		}
		l.arm()
		select {
		case <-in.wake:
		case <-l.timer.C:
			l.armed = false
			l.watch()
		case <-ticks:
			l.tick()
		case <-done:
			done = nil
			in.close()
			l.closing = true
			if l.host.cfg.Peers == nil {
				continue
			}
			if err := l.round(); err != nil { // what was accepted goes into the log before the leaders leave
				l.stepDownAll(err)
				return err
			}
			l.closeBy = l.ticks + closingTicks
			l.handOver()
		}
	}
}

// round deals with everything that arrived.
func (l *loop) round() error {
	in := &l.host.intake
	in.take(&l.in)
	if l.in.failure != nil {
		return l.in.failure
	}
	for _, batch := range l.in.appends {
		if err := l.appended(batch); err != nil {
			return err
		}
	}
	for i := range l.in.applies {
		l.applied(&l.in.applies[i])
	}
	if !l.deaf {
		for i := range l.in.messages {
			l.receive(&l.in.messages[i])
		}
	}
	for _, call := range l.in.calls {
		call(l)
	}
	if len(l.in.applies) > 0 && len(l.held) > 0 && !l.host.applier.full() {
		l.release()
	}
	l.propose()
	for _, g := range l.in.broken {
		l.stop(g, ErrSequence)
	}
	l.bar()
	for len(l.dirty) > 0 {
		l.work()
		l.settle()
	}
	l.settle()
	l.sendFrames()
	l.host.appender.flush()
	return nil
}

// touch makes this round look at the group, and does not wake it.
func (l *loop) touch(g *Group) {
	if !g.loopState.dirty {
		g.loopState.dirty = true
		l.dirty = append(l.dirty, g)
	}
}

// propose gives the nodes this round's proposals, one step per group.
func (l *loop) propose() {
	for i := range l.in.proposals {
		p := &l.in.proposals[i]
		ls := &p.group.loopState
		if !ls.leading || ls.epoch != p.epoch || ls.stopping != nil || p.sequence != ls.sequence+1 {
			l.host.intake.adjust(p.group, -len(p.data)) // came before its group stepped down
			continue
		}
		ls.sequence++
		if ls.proposed == 0 {
			l.proposing = append(l.proposing, p.group)
		}
		if ls.proposed == len(ls.entries) {
			ls.entries = append(ls.entries, &pb.Entry{})
		}
		ls.entries[ls.proposed].Data = p.data
		ls.proposed++
		ls.flights = append(ls.flights, flight{sequence: p.sequence, bytes: len(p.data)})
		ls.flightBytes += len(p.data)
	}
	for _, g := range l.proposing {
		ls := &g.loopState
		err := l.step(g, &pb.Message{
			Type: pb.MsgProp.Enum(), From: new(l.host.cfg.NodeID), Entries: ls.entries[:ls.proposed],
		})
		if err != nil && ls.halted == nil {
			// All or none of a step's entries are taken, and sequences after a lost one are void.
			l.drop(g, ls.proposed)
			l.stop(g, fmt.Errorf("%d records lost: %w", ls.proposed, err))
		}
		for _, entry := range ls.entries[:ls.proposed] {
			entry.Data = nil
		}
		ls.proposed = 0
	}
	clear(l.proposing)
	l.proposing = l.proposing[:0]
}

// drop forgets the last n flights.
func (l *loop) drop(g *Group, n int) {
	ls := &g.loopState
	bytes := 0
	keep := len(ls.flights) - n
	for _, f := range ls.flights[keep:] {
		bytes += f.bytes
	}
	ls.flights = ls.flights[:keep]
	ls.flightBytes -= bytes
	l.host.intake.adjust(g, -bytes)
}

// step gives a node a message.
func (l *loop) step(g *Group, m *pb.Message) (err error) {
	ls := &g.loopState
	if ls.node == nil {
		return raft.ErrStopped
	}
	defer func() {
		if err != nil && !errors.Is(err, raft.ErrProposalDropped) && !errors.Is(err, raft.ErrStepPeerNotFound) {
			l.halt(g, err)
		}
	}()
	defer raftlog.Recover(&err, &ls.log.err)
	if m.GetType() == pb.MsgHeartbeatResp {
		l.touch(g) // those that were sent before a leader sleeps are answered after
	} else {
		l.mark(g)
	}
	return ls.node.Step(m)
}

// work handles what the dirty groups have ready.
func (l *loop) work() {
	for i := 0; i < len(l.dirty); i++ {
		g := l.dirty[i]
		g.loopState.dirty = false
		if g.loopState.node == nil {
			continue
		}
		if err := l.ready(g); err != nil {
			l.halt(g, err)
		}
	}
	clear(l.dirty)
	l.dirty = l.dirty[:0]
}

func (l *loop) ready(g *Group) (err error) {
	ls := &g.loopState
	defer raftlog.Recover(&err, &ls.log.err)
	for ls.node != nil {
		// Asking the node is not free. Only when it was told that entries are applied can it have
		// something ready again right away.
		for again := true; again && ls.node != nil && ls.node.HasReady(); {
			rd := ls.node.Ready()
			if err := l.handle(g, rd); err != nil {
				return err
			}
			again = len(rd.CommittedEntries) > 0 && (ls.handed < ls.commit || ls.reconfigured)
			ls.reconfigured = false
		}
		if ls.node == nil {
			return nil
		}
		if !ls.campaign && !ls.turn || len(ls.heldBack) > 0 {
			return nil
		}
		// Not before: what is committed may contain the change that makes this node a voter, or
		// others beside it.
		due := ls.turn || g.isSolo()
		ls.campaign, ls.turn = false, false
		if !due || ls.epoch != 0 || ls.log.belowFloor(ls.past) {
			return nil
		}
		if err := ls.node.Campaign(); err != nil {
			return fmt.Errorf("campaign: %w", err)
		}
	}
	return nil
}

// handle deals with one Ready. Roles come before entries, so that the first entry of a term is
// recognised; commits before the entries to apply, so that Committed comes before Applied.
func (l *loop) handle(g *Group, rd raft.Ready) error {
	ls := &g.loopState
	newTerm := false
	if rd.HardState != nil {
		newTerm = rd.HardState.GetTerm() != ls.term
		ls.voteDirty = !bug.Vote && (ls.voteDirty || newTerm || rd.HardState.GetVote() != ls.hard.GetVote())
		ls.hard, ls.hardDirty = rd.HardState, true
		ls.term, ls.commit = rd.HardState.GetTerm(), rd.HardState.GetCommit()
	}
	if newTerm || rd.SoftState != nil {
		l.changeRole(g)
	}
	if rd.HardState != nil {
		l.committed(g)
		l.changed(g)
	}
	for i := range rd.ReadStates {
		l.confirmed(g, rd.ReadStates[i].RequestCtx)
	}
	if rd.Snapshot != nil {
		ls.install.before = ls.conf
		ls.conf = pb.EnsureConfState(rd.Snapshot.GetMetadata().GetConfState())
		l.watchMembers(g)
	}
	// The library hands out a candidate's requests at once. If they left before its own vote was
	// durable it could, after a crash, lead the same term twice.
	hold := ls.voteDirty || ls.voteBatch != 0
	for _, m := range rd.Messages {
		switch m.GetTo() {
		case raft.LocalAppendThread:
			l.append(g, m)
		case raft.LocalApplyThread:
			if err := l.hand(g, m); err != nil {
				return err
			}
		default:
			if hold {
				ls.outbox = append(ls.outbox, m)
			} else {
				l.send(g, m)
			}
		}
	}
	return nil
}

// changeRole follows the node's election or loss.
func (l *loop) changeRole(g *Group) {
	ls := &g.loopState
	status := ls.node.BasicStatus()
	elected := status.RaftState == raft.StateLeader
	if ls.epoch != 0 && (!elected || ls.epoch != ls.term) {
		l.stepDown(g, fmt.Errorf("lost the leadership of epoch %d to term %d", ls.epoch, ls.term))
	}
	if elected && ls.epoch == 0 {
		ls.epoch, ls.leadIndex, ls.sequence, ls.committed = ls.term, 0, 0, 0
		l.watchMembers(g)
	}
	lead, term := status.Lead, ls.term
	if term < ls.leadTerm {
		lead, term = raft.None, ls.leadTerm // the log refused the later term, which others have all the same
	}
	if lead != raft.None {
		ls.heard = lead
	}
	if lead != ls.lead || term != ls.leadTerm {
		ls.lead, ls.leadTerm = lead, term
		g.listener.LeaderChanged(lead, term)
	}
}

// append notes the indexes that this node's records got, and passes the message to the appender.
func (l *loop) append(g *Group, m *pb.Message) {
	ls := &g.loopState
	if ls.epoch != 0 {
		for _, entry := range m.GetEntries() {
			if u := ls.unheard; u != nil && u.index == 0 {
				u.index = entry.GetIndex()
			}
			switch {
			case entry.GetTerm() != ls.epoch:
			case entry.GetType() != pb.EntryNormal:
				if ls.change != nil && ls.change.index == 0 {
					ls.change.index = entry.GetIndex()
				}
			case ls.leadIndex == 0:
				ls.leadIndex = entry.GetIndex()
			case len(entry.Data) > 0 && ls.indexed < len(ls.flights):
				ls.flights[ls.indexed].index = entry.GetIndex()
				ls.indexed++
			}
		}
	}
	before := ls.appending
	l.host.appender.add(g, m)
	l.appending += ls.appending - before
}

// committed tells the listener how far the epoch's records are committed.
func (l *loop) committed(g *Group) {
	ls := &g.loopState
	before := ls.committed
	for ls.acked < ls.indexed && ls.flights[ls.acked].index <= ls.commit {
		ls.committed = ls.flights[ls.acked].sequence
		ls.acked++
	}
	if ls.committed > before {
		g.listener.Committed(ls.epoch, ls.committed)
		l.advance(g)
	}
}

// hand gives committed entries to the applier.
func (l *loop) hand(g *Group, m *pb.Message) error {
	ls := &g.loopState
	entries := m.GetEntries()
	item := applyItem{group: g, entries: entries}
	bytes := 0
	for _, entry := range entries {
		bytes += len(entry.Data)
		if entry.GetType() == pb.EntryNormal {
			continue
		}
		conf, err := l.reconfigure(g, entry)
		if err != nil {
			return fmt.Errorf("log index %d: %w", entry.GetIndex(), err)
		}
		item.confs = append(item.confs, confAt{index: entry.GetIndex(), conf: conf})
	}
	last := entries[len(entries)-1].GetIndex()
	n := 0
	for n < ls.acked && ls.flights[n].index <= last {
		bytes -= ls.flights[n].bytes
		ls.flightBytes -= ls.flights[n].bytes
		n++
	}
	if n > 0 {
		ls.flights = append(ls.flights[:0], ls.flights[n:]...)
		ls.indexed -= n
		ls.acked -= n
	}
	// What this node proposed is in the backlog already; count what was read back from the log.
	l.host.intake.adjust(g, bytes)
	ls.handed = last
	ls.log.handed(last)
	l.note(g, entries)
	l.host.applier.push(item, ls.epoch != 0 && !ls.leading)

	// The node may forget about applying as soon as the applier has the entries: what is in the
	// store is tracked here. It is held back only to bound the memory of a long replay.
	if l.host.applier.full() {
		if len(ls.heldBack) == 0 {
			l.held = append(l.held, g)
		}
		ls.heldBack = append(ls.heldBack, m.GetResponses()...)
		return nil
	}
	for _, answer := range m.GetResponses() {
		if err := ls.node.Step(answer); err != nil {
			return err
		}
	}
	return nil
}

// reconfigure applies a membership change to the node and returns the new configuration.
func (l *loop) reconfigure(g *Group, entry *pb.Entry) ([]byte, error) {
	ls := &g.loopState
	before := ls.conf
	switch entry.GetType() {
	case pb.EntryConfChange:
		change := &pb.ConfChange{}
		if err := proto.Unmarshal(entry.Data, change); err != nil {
			return nil, fmt.Errorf("membership change: %w", err)
		}
		ls.conf = ls.node.ApplyConfChange(change)
	case pb.EntryConfChangeV2:
		change := &pb.ConfChangeV2{}
		if err := proto.Unmarshal(entry.Data, change); err != nil {
			return nil, fmt.Errorf("membership change: %w", err)
		}
		ls.conf = ls.node.ApplyConfChange(change)
	default:
		return nil, fmt.Errorf("%w: entry kind %d", ErrNewerFormat, entry.GetType())
	}
	ls.reconfigured = true
	l.watchMembers(g)
	if err := l.inEffect(g, before, entry.GetIndex()); err != nil {
		return nil, err
	}
	l.checkTransfer(g)
	return proto.Marshal(ls.conf)
}

// release gives the nodes the answers that were held back.
func (l *loop) release() {
	held := l.held
	l.held = nil
	for _, g := range held {
		answers := g.loopState.heldBack
		g.loopState.heldBack = nil
		for _, answer := range answers {
			_ = l.step(g, answer) // a failure halts the group
		}
	}
}

// appended deals with an append that came back.
func (l *loop) appended(batch *appendBatch) error {
	if batch.err != nil {
		if !errors.Is(batch.err, nodelog.ErrNoSpace) {
			return fmt.Errorf("append to the log: %w", batch.err)
		}
		l.refused(batch)
		return nil
	}
	if l.stall {
		l.stall = false
		l.host.cfg.Logger.Info("the disk responds again")
	}
	if batch.durable && l.host.faults.Clear(fault.LogSpace) {
		l.host.cfg.Logger.Info("the log has space again")
	}
	for i := range batch.parts {
		part := &batch.parts[i]
		ls := &part.group.loopState
		ls.appending--
		l.appending--
		for _, in := range part.install {
			l.installing(part.group, in) // even if it halted: the log begins behind the snapshot now
		}
		if part.incarnation != ls.incarnation || ls.node == nil {
			if part.drop && part.incarnation == ls.incarnation {
				l.host.applier.push(applyItem{group: part.group, drop: true}, true)
			}
			continue
		}
		ls.log.stabilized(part.entries)
		if ls.voteBatch == batch.id {
			l.sendHeld(part.group)
		}
		if bug.Majority {
			l.acknowledge(part.group, part.entries)
		}
		for _, answer := range part.answers {
			if answer.GetTo() != l.host.cfg.NodeID {
				l.send(part.group, answer)
			} else if err := l.step(part.group, answer); err != nil {
				break // halted
			}
		}
	}
	l.host.appender.recycle(batch)
	return nil
}
