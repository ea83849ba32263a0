package replica

import (
	"errors"
	"slices"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/perdure/perdure/cluster/replica/wire"
)

// A node learns that it is no member of a group any more by applying the change, or, if it has not
// got that far when the leader stops talking to it, from members that wonder about its campaign.
// Either may be out of date: it may have been added again. So it asks, and drops its replica when
// a leader says that as of an index, which a majority without it has, the configuration lacks it,
// and nothing in its own log is from after that. What it acknowledged in that life then lies before
// the change that might add it again; a life that begins after the drop has another number, which
// leaders see. And it remembers where its log ended (past): somebody who does not know yet that it
// was removed may ask for its vote.

// wonderTicks are between two questions, and idleReplicaTicks are how long a replica without
// a configuration waits for its leader.
const (
	wonderTicks      = 10
	idleReplicaTicks = 100
)

// create makes the replica of an absent group, empty: a leader has it in its configuration.
func (l *loop) create(g *Group) {
	ls := &g.loopState
	log, err := openRaftLog(l.host.cfg.Log, g.id)
	if err == nil {
		ls.handed, ls.stored = 0, 0
		err = g.restart(log, &pb.ConfState{})
	}
	if err != nil {
		l.halt(g, err)
		return
	}
	ls.silent = 0
	l.watchMembers(g)
	l.host.cfg.Logger.Info("a replica begins", "partition", uint32(g.id), "life", ls.past.Life)
}

// wonder asks whether this node is a member, now and then, while there is cause to doubt it.
func (l *loop) wonder(g *Group) {
	ls := &g.loopState
	if ls.epoch != 0 || ls.silent%wonderTicks != 0 {
		return
	}
	switch {
	case len(ls.conf.Voters) == 0:
		// It has told nobody that it has anything. If it is a member, the leader speaks to it again.
		if ls.silent >= idleReplicaTicks && ls.appending == 0 && ls.install == nil && len(ls.settling) == 0 && !ls.receiving && ls.stored == 0 && ls.log.last == 0 {
			ls.hard = &pb.HardState{Term: new(ls.hard.GetTerm()), Vote: new(ls.hard.GetVote())}
			ls.node, ls.log = nil, nil
			ls.incarnation++
			g.keepsLog.Store(false)
		}
	case ls.doubt || !isMember(ls.conf, l.host.cfg.NodeID):
		for _, node := range ls.conf.Voters {
			if node != l.host.cfg.NodeID {
				l.say(g, node, wire.KindQuestion, nil)
			}
		}
	}
}

// doubted hears from a member that this node is none.
func (l *loop) doubted(g *Group, o wire.Opinion) {
	ls := &g.loopState
	if ls.node == nil || ls.epoch != 0 {
		return
	}
	ls.doubt = true
	if o.Leader != 0 && o.Leader != l.host.cfg.NodeID {
		l.say(g, o.Leader, wire.KindQuestion, nil)
	}
}

// asked answers a node that is not a member. Members are not answered: the log tells them. Nor is one whose vote could be
// needed still, or who has what the voters of now may lack: see unheard.
func (l *loop) asked(g *Group, from uint64) {
	ls := &g.loopState
	if ls.leading && !isMember(ls.conf, from) && ls.unheard == nil {
		l.say(g, from, wire.KindVerdict, wire.AppendOpinion(nil, wire.Opinion{Term: ls.epoch, Index: ls.handed, Leader: l.host.cfg.NodeID}))
	}
}

// judged drops the replica if the verdict is about all that is in its log. A leader has applied the
// first entry of its term, so whatever follows the index is of its term or a later one.
func (l *loop) judged(g *Group, o wire.Opinion) {
	ls := &g.loopState
	switch {
	case ls.node == nil || ls.epoch != 0 || ls.term > o.Term:
	case ls.log.lastTerm >= o.Term && ls.log.last > o.Index:
	case ls.appending > 0 || ls.dirty || ls.install != nil || len(ls.settling) > 0 || ls.receiving:
		// It asks again.
	default:
		l.remove(g, o)
	}
}

// remove ends the replica on a leader's word: first in the log, in one append, and then in the store. In
// the other order a crash in between would leave a log whose beginning is in no store.
func (l *loop) remove(g *Group, o wire.Opinion) {
	ls := &g.loopState
	l.stepDown(g, errors.New("this node is not a member any more"))
	if !ls.log.belowFloor(ls.past) {
		ls.past.FloorIndex, ls.past.FloorTerm = ls.log.last, ls.log.lastTerm
	}
	ls.past.Life++
	ls.past.Dropped = true
	ls.node, ls.log = nil, nil
	ls.incarnation++
	ls.dropping, ls.doubt = true, false
	ls.hard = &pb.HardState{Term: new(ls.term), Vote: new(ls.hard.GetVote())}
	ls.hardDirty, ls.voteDirty = false, false
	ls.conf = &pb.ConfState{}
	ls.commit = 0
	ls.outbox, ls.voteBatch, ls.heldBack = nil, 0, nil
	ls.marks, ls.retained = nil, 0
	ls.sendable.release()
	ls.sendable = nil
	// Nobody is left here who would hear of the next leader: to say that there is none would make this
	// node's requests wait for the next term.
	if o.Leader != 0 && (ls.lead != o.Leader || ls.leadTerm != o.Term) && ls.leadTerm <= o.Term {
		g.listener.LeaderChanged(o.Leader, o.Term)
	}
	ls.lead, ls.leadTerm = 0, max(ls.leadTerm, o.Term)
	l.writeDrop(g)
	l.host.cfg.Logger.Info("the replica is dropped: this node is not a member any more", "partition", uint32(g.id))
}

func (l *loop) writeDrop(g *Group) {
	ls := &g.loopState
	before := ls.appending
	l.host.appender.drop(g)
	l.appending += ls.appending - before
}

// dropped says that the store knows, too.
func (l *loop) dropped(g *Group) {
	ls := &g.loopState
	ls.dropping = false
	ls.past.Dropped = false
	ls.handed, ls.stored = 0, 0
	g.keepsLog.Store(false)
}

// reborn deals with a message of a replica that was dropped and began anew since it was last heard,
// and returns whether the message can be taken. What an earlier life had, and this leader counts on,
// is gone.
func (l *loop) reborn(g *Group, from, life uint64) bool {
	ls := &g.loopState
	if ls.lives == nil {
		ls.lives = make(map[uint64]uint64)
	}
	ls.lives[from] = life
	if ls.epoch == 0 {
		return true
	}
	progress, ok := ls.node.Status().Progress[from]
	if !ok || progress.Match == 0 {
		return true
	}
	if !progress.IsLearner || len(ls.conf.VotersOutgoing) > 0 {
		l.stop(g, errors.New("a voter lost its data"))
		return false
	}
	// Removed and added again, in the node and in nothing else: it starts to probe it from nothing.
	remove := &pb.ConfChangeV2{Changes: []*pb.ConfChangeSingle{{Type: pb.ConfChangeRemoveNode.Enum(), NodeId: new(from)}}}
	add := &pb.ConfChangeV2{Changes: []*pb.ConfChangeSingle{{Type: pb.ConfChangeAddLearnerNode.Enum(), NodeId: new(from)}}}
	ls.node.ApplyConfChange(remove)
	conf := ls.node.ApplyConfChange(add)
	if slices.Contains(conf.Learners, from) {
		l.host.cfg.Logger.Info("a learner began anew", "partition", uint32(g.id), "to", from)
	}
	l.mark(g)
	return false
}
