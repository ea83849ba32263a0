package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"

	raft "go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"
)

// Members is a group's configuration: nodes, ascending. While it changes by more than one voter,
// Outgoing are the voters of before, and whatever is decided needs a majority of both.
type Members struct {
	Voters, Outgoing, Learners []uint64
}

func membersOf(conf *pb.ConfState) Members {
	sorted := func(nodes []uint64) []uint64 {
		nodes = slices.Clone(nodes)
		slices.Sort(nodes)
		return nodes
	}
	// Whoever is a learner once the change is over has a vote until then.
	return Members{Voters: sorted(conf.Voters), Outgoing: sorted(conf.VotersOutgoing), Learners: sorted(append(slices.Clone(conf.Learners), conf.LearnersNext...))}
}

// Equal compares configurations; the order of nodes does not matter.
func (m Members) Equal(other Members) bool {
	same := func(a, b []uint64) bool {
		a, b = slices.Clone(a), slices.Clone(b)
		slices.Sort(a)
		slices.Sort(b)
		return slices.Equal(a, b)
	}
	return same(m.Voters, other.Voters) && same(m.Outgoing, other.Outgoing) && same(m.Learners, other.Learners)
}

// Change says what a configuration becomes. All of it happens together; each node is in one of the
// lists at most.
type Change struct {
	// Expect is what the configuration must be for the change to happen.
	Expect Members
	// AddLearners become members without a vote.
	AddLearners []uint64
	// Promote are learners that get a vote. Each must be caught up: see PeerStatus.
	Promote []uint64
	// Demote are voters that become learners.
	Demote []uint64
	// Remove are voters or learners that are members no more; they delete what they have of
	// the group once they learn it.
	Remove []uint64
}

// change is a Change under way.
type change struct {
	index    uint64 // of its entry, or 0 until the node took it
	inEffect bool   // for this node
	done     chan error
}

// unheard is a change of voters that this node, which leads, knows to be committed. For another node it is over once that hears so too,
// and until then it counts on the voters of before. A majority has heard of it, and remembers, when an entry is committed that
// was proposed later: with that went to each how much is committed. Before, a voter that is none any more must keep its vote, and whoever
// asks must not be told that the next voters are enough.
type unheard struct {
	before []uint64 // voters
	index  uint64   // of the first entry proposed since, or 0 until the node took one
}

// ErrUnknown is returned by Reconfigure if the node lost its leadership before it knew what became
// of the change: look at the configuration.
var ErrUnknown = fmt.Errorf("replica: outcome of the change is unknown; look at the configuration")

// Reconfigure changes the group's members and returns once the change is in effect, joint
// configurations behind it included, and a majority of the voters knows it durably: from then on each may lose its disks that they can spare. Only the leader can, and it neither demotes nor removes
// itself: TransferLeadership first. Errors: ErrNotLeader, ErrChanged (look again), ErrBehind,
// ErrInvalid; then nothing happened. ErrUnknown and that of ctx: it may yet happen.
func (g *Group) Reconfigure(ctx context.Context, c Change) error {
	done := make(chan error, 1)
	if err := g.host.ask(func(l *loop) { l.reconfigureTo(g, c, done) }); err != nil {
		return fmt.Errorf("partition %d: reconfigure: %w", g.id, err)
	}
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-g.host.ended:
		err = ErrUnknown
	}
	if err != nil {
		return fmt.Errorf("partition %d: reconfigure: %w", g.id, err)
	}
	return nil
}

func (l *loop) reconfigureTo(g *Group, c Change, done chan error) {
	ls := &g.loopState
	if !ls.leading || ls.stopping != nil {
		done <- ErrNotLeader
		return
	}
	if err := l.checkChange(g, c); err != nil {
		done <- err
		return
	}
	cc := &pb.ConfChangeV2{}
	add := func(kind pb.ConfChangeType, nodes []uint64) {
		for _, node := range nodes {
			cc.Changes = append(cc.Changes, &pb.ConfChangeSingle{Type: kind.Enum(), NodeId: new(node)})
		}
	}
	add(pb.ConfChangeAddLearnerNode, c.AddLearners)
	add(pb.ConfChangeAddNode, c.Promote)
	add(pb.ConfChangeAddLearnerNode, c.Demote)
	add(pb.ConfChangeRemoveNode, c.Remove)
	data, err := proto.Marshal(cc)
	if err != nil {
		done <- err
		return
	}
	ls.change = &change{done: done}
	err = l.step(g, &pb.Message{
		Type: pb.MsgProp.Enum(), From: new(l.host.cfg.NodeID),
		Entries: []*pb.Entry{{Type: pb.EntryConfChangeV2.Enum(), Data: data}},
	})
	if err == nil {
		err = l.ready(g)
	}
	if ls.change != nil && (err != nil || ls.change.index == 0) {
		// The node puts an empty entry in the place of a change that cannot follow the last one yet.
		ls.change = nil
		done <- fmt.Errorf("%w: another change is not over, or the leadership is handed over", ErrChanged)
	}
}

// checkChange refuses what the library would panic on, and what would make the group worse.
func (l *loop) checkChange(g *Group, c Change) error {
	ls := &g.loopState
	now := ls.members()
	switch {
	case !now.Equal(c.Expect):
		return fmt.Errorf("%w: voters %x, outgoing %x, learners %x", ErrChanged, now.Voters, now.Outgoing, now.Learners)
	case len(now.Outgoing) > 0 || ls.change != nil:
		return fmt.Errorf("%w: another change is not over", ErrChanged)
	case ls.transfer != nil:
		return fmt.Errorf("%w: the leadership is handed over", ErrChanged)
	}
	seen := map[uint64]bool{}
	for _, list := range []struct {
		verb  string
		nodes []uint64
		ok    func(uint64) bool
		must  string
	}{
		{"add", c.AddLearners, func(node uint64) bool {
			return node != raft.None && !raft.IsLocalMsgTarget(node) && !isMember(ls.conf, node)
		}, "not be a member"},
		{"promote", c.Promote, func(node uint64) bool { return slices.Contains(now.Learners, node) }, "be a learner"},
		{"demote", c.Demote, func(node uint64) bool { return slices.Contains(now.Voters, node) && node != l.host.cfg.NodeID },
			"be a voter, and not the leader: transfer the leadership first"},
		{"remove", c.Remove, func(node uint64) bool { return isMember(ls.conf, node) && node != l.host.cfg.NodeID },
			"be a member, and not the leader: transfer the leadership first"},
	} {
		for _, node := range list.nodes {
			if !list.ok(node) {
				return fmt.Errorf("%w: to %s node %x, it must %s", ErrInvalid, list.verb, node, list.must)
			}
			if seen[node] {
				return fmt.Errorf("%w: node %x is named twice", ErrInvalid, node)
			}
			seen[node] = true
		}
	}
	if len(seen) == 0 {
		return fmt.Errorf("%w: nothing is to change", ErrInvalid)
	}
	if l.host.cfg.Peers == nil {
		return fmt.Errorf("%w: this node has no way to others (Config.Peers is nil)", ErrInvalid)
	}
	peers := l.peers(g)
	for _, node := range c.Promote {
		if i := slices.IndexFunc(peers, func(p PeerStatus) bool { return p.Node == node }); i < 0 || !peers[i].CaughtUp {
			return fmt.Errorf("%w: node %x is not caught up and would be a voter that cannot vote for anything new", ErrBehind, node)
		}
	}
	return nil
}

// inEffect follows what the log says of the configuration, which was another one before.
func (l *loop) inEffect(g *Group, before *pb.ConfState, index uint64) error {
	ls := &g.loopState
	if len(ls.conf.VotersOutgoing) > 0 {
		return nil
	}
	if c := ls.change; c != nil && c.index != 0 && index >= c.index {
		c.inEffect = true
	}
	voters := before.Voters
	if len(before.VotersOutgoing) > 0 {
		voters = before.VotersOutgoing
	}
	if was := (Members{Voters: voters}); ls.epoch == 0 || was.Equal(Members{Voters: ls.conf.Voters}) {
		l.changed(g)
		return nil
	}
	ls.unheard = &unheard{before: voters}
	// Refused only while the leadership is handed over, with which this node's part is over.
	if err := ls.node.Propose(nil); err != nil && !errors.Is(err, raft.ErrProposalDropped) {
		return err
	}
	return nil
}

// changed ends a change that is in effect and was heard of.
func (l *loop) changed(g *Group) {
	ls := &g.loopState
	if u := ls.unheard; u != nil && u.index != 0 && ls.commit >= u.index {
		ls.unheard = nil
	}
	if c := ls.change; c != nil && c.inEffect && ls.unheard == nil {
		ls.change = nil
		c.done <- nil
	}
}

// members is the configuration as those must see it who rely on it.
func (ls *groupLoopState) members() Members {
	m := membersOf(ls.conf)
	if ls.unheard != nil && len(m.Outgoing) == 0 {
		m.Outgoing = slices.Sorted(slices.Values(ls.unheard.before))
	}
	return m
}

// GroupStatus is what a node knows of a group.
type GroupStatus struct {
	// Replica is whether this node has one, be it one that waits for its first snapshot.
	Replica bool
	// Leader is who leads in Term as far as the node knows; 0 is nobody.
	Leader, Term uint64
	// Epoch is that of Listener.Lead while this node leads, else 0.
	Epoch uint64
	// Members is the configuration as of the last entry known to be committed. Whoever leads names voters of before as Outgoing until
	// the others know that they are none.
	Members
	// Commit and Applied are the last index known to be committed, and the last one in the store.
	Commit, Applied uint64
	// Peers are the other members; only while this node leads.
	Peers []PeerStatus
}

// PeerStatus is what a leader knows of another member.
type PeerStatus struct {
	Node uint64
	// Match is how much of the log the node has on its disk.
	Match uint64
	// Active is whether it was heard of within the last one or two election timeouts.
	Active bool
	// CaughtUp is whether it is active and what it lacks of the log is on its way to it.
	CaughtUp bool
	// Snapshot is whether it is being sent one.
	Snapshot bool
}

// Status says how the group stands. It waits for the host's loop; a host that does not run has
// nothing to say, and the zero status is returned. Not to be called by a Listener.
func (g *Group) Status() GroupStatus {
	var s GroupStatus
	_ = g.host.ask(func(l *loop) { s = l.status(g) })
	return s
}

func (l *loop) status(g *Group) GroupStatus {
	ls := &g.loopState
	s := GroupStatus{
		Replica: ls.node != nil || ls.halted != nil, Leader: ls.lead, Term: ls.term, Members: ls.members(),
		Commit: ls.commit, Applied: ls.stored,
	}
	if ls.leading && ls.stopping == nil && ls.transfer == nil {
		s.Epoch = ls.epoch
		s.Peers = l.peers(g)
	}
	return s
}

// peers is what the node of a leader knows of the others.
func (l *loop) peers(g *Group) []PeerStatus {
	ls := &g.loopState
	if ls.node == nil || ls.epoch == 0 {
		return nil
	}
	// A busy group always has something on its way, at most what MaxInflightMsgs lets be.
	const onItsWay = 256
	var peers []PeerStatus
	for id, pr := range ls.node.Status().Progress {
		if id == l.host.cfg.NodeID {
			continue
		}
		peers = append(peers, PeerStatus{
			Node: id, Match: pr.Match, Active: pr.RecentActive, Snapshot: pr.State == tracker.StateSnapshot,
			CaughtUp: pr.RecentActive && pr.State == tracker.StateReplicate && pr.Match+onItsWay >= ls.commit,
		})
	}
	slices.SortFunc(peers, func(a, b PeerStatus) int {
		if a.Node < b.Node {
			return -1
		}
		return 1
	})
	return peers
}
