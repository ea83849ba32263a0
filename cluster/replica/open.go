package replica

import (
	"errors"
	"fmt"
	"slices"

	raft "go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/cluster/replica/hardstate"
	"github.com/perdure/perdure/cluster/replica/raftlog"
	"github.com/perdure/perdure/cluster/replica/rows"
	"github.com/perdure/perdure/storage"
	"github.com/perdure/perdure/storage/nodelog"
)

// load reads all groups from the log and the store.
func (h *Host) load() error {
	stored, err := h.loadRows(rows.Applied, "applied index")
	if err != nil {
		return err
	}
	staged, err := h.loadRows(rows.Staged, "snapshot")
	if err != nil {
		return err
	}
	var problems []error
	var writes []nodelog.GroupWrite
	known := h.cfg.Log.Groups()
	for _, id := range known {
		if !slices.Contains(h.cfg.Groups, GroupID(id)) {
			problems = append(problems, fmt.Errorf("partition %d: the log has it, the configuration does not: add it to Groups", id))
		}
	}
	for id := range stored {
		if !slices.Contains(h.cfg.Groups, id) {
			problems = append(problems, fmt.Errorf("partition %d: the store has it, the configuration does not: add it to Groups", id))
		}
	}
	for _, id := range h.cfg.Groups {
		if slices.Contains(known, uint32(id)) {
			continue
		}
		if at, ok := stored[id]; ok {
			problems = append(problems, fmt.Errorf("partition %d: %w: the store has applied index %d, the log does not know the partition; restore the log", id, ErrDataLoss, at.index))
			continue
		}
		if !h.cfg.Found {
			continue
		}
		write, err := h.founding(id)
		if err != nil {
			return err
		}
		writes = append(writes, write)
	}
	if err := joinFew(problems); err != nil {
		return err
	}
	if len(writes) > 0 {
		if err := h.cfg.Log.Append(writes); err != nil {
			return fmt.Errorf("create %d partitions: append: %w", len(writes), err)
		}
	}
	for _, id := range h.cfg.Groups {
		g := &Group{host: h, id: id, listener: silent{}}
		if err := g.load(stored[id], staged[id]); err != nil {
			problems = append(problems, fmt.Errorf("partition %d: %w", id, err))
		}
		h.groups[id] = g
		h.order = append(h.order, g)
	}
	if err := joinFew(problems); err != nil {
		return err
	}
	if err := h.loadPartials(); err != nil {
		return err
	}
	return h.cleaner.find()
}

// joinFew is errors.Join, but what one lost directory does to each of a thousand partitions is
// said of the first few.
func joinFew(problems []error) error {
	const few = 3
	if len(problems) > few+1 {
		problems = append(problems[:few:few], fmt.Errorf("and %d more partitions", len(problems)-few))
	}
	return errors.Join(problems...)
}

// loadRows reads the host's own records of a kind, per group.
func (h *Host) loadRows(kind rows.Own, what string) (map[GroupID]applied, error) {
	snapshot := h.cfg.Store.Snapshot()
	defer snapshot.Release()
	stored := make(map[GroupID]applied)
	var problem error
	err := kind.Scan(snapshot, func(key, value []byte) bool {
		id, ok := kind.Group(key)
		if !ok {
			problem = fmt.Errorf("%s: malformed key %x", what, key)
			return false
		}
		at, err := decodeApplied(value)
		if err != nil {
			problem = fmt.Errorf("partition %d: %s: %w", id, what, err)
			return false
		}
		stored[GroupID(id)] = at
		return true
	})
	if err == nil {
		err = problem
	}
	if err != nil {
		return nil, fmt.Errorf("read the store: %w", err)
	}
	return stored, nil
}

// founding is the first write of a new group: an entry, committed by definition, that makes this
// node its only voter. Membership is in the log from the first entry on, rather than only in the
// store, so that a group whose store is empty can be replayed in full.
func (h *Host) founding(id GroupID) (nodelog.GroupWrite, error) {
	change := &pb.ConfChange{Type: pb.ConfChangeAddNode.Enum(), NodeId: new(h.cfg.NodeID)}
	data, err := proto.Marshal(change)
	if err != nil {
		return nodelog.GroupWrite{}, fmt.Errorf("partition %d: create: %w", id, err)
	}
	hard := &pb.HardState{Term: new(uint64(foundingTerm)), Commit: new(uint64(foundingIndex))}
	return nodelog.GroupWrite{
		Group: uint32(id),
		Entries: []nodelog.Entry{{
			Index: foundingIndex, Term: foundingTerm, Kind: uint8(pb.EntryConfChange), Data: data,
		}},
		State: hardstate.Append(nil, hard, hardstate.Past{}),
	}, nil
}

// load checks that store and log meet, and sets the group up for its first restart. staged is
// a snapshot that was received as a whole and may not be in use yet.
func (g *Group) load(at, staged applied) error {
	log, err := openRaftLog(g.host.cfg.Log, g.id)
	if err != nil {
		return err
	}
	ls := &g.loopState
	ls.past = log.past
	if staged.index > 0 || log.past.Dropped && at.index > 0 {
		if at, err = g.settle(log, at, staged); err != nil {
			return err
		}
	}
	ls.past.Dropped = false // the store knows of it now
	g.generation.Store(uint32(at.generation))
	g.applyState.applied = at
	if log.last == 0 && at.index == 0 { // absent: all there is, if anything, is the state
		ls.hard, ls.conf = log.hard, &pb.ConfState{}
		ls.term = log.hard.GetTerm()
		return nil
	}
	loss := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrDataLoss, fmt.Sprintf(format, args...))
	}
	switch {
	case at.index+1 < log.first:
		return loss("the store has applied index %d, the log begins at index %d, so entries %d to %d are in neither; restore the store from a backup",
			at.index, log.first, at.index+1, log.first-1)
	case at.index > log.last:
		return loss("the store has applied index %d, the log ends at index %d; restore the log", at.index, log.last)
	case log.hard.GetCommit() > log.last:
		return loss("index %d is committed, the log ends at index %d; restore the log", log.hard.GetCommit(), log.last)
	}
	if term, err := log.termAt(at.index); err != nil {
		return err
	} else if term != at.term {
		return loss("index %d has term %d in the store and term %d in the log; they are not of one partition", at.index, at.term, term)
	}
	conf, err := at.confState()
	if err != nil {
		return err
	}
	members := slices.Concat(conf.Voters, conf.VotersOutgoing, conf.Learners)
	if len(members) > 0 && !slices.Contains(members, g.host.cfg.NodeID) && g.host.cfg.Peers == nil {
		return fmt.Errorf("its members are nodes %d, this is node %d: start it with the identity its data was written with", members, g.host.cfg.NodeID)
	}
	ls.handed, ls.stored = at.index, at.index
	return g.restart(log, conf)
}

// settle finishes what a crash left between the log and the store: the log was started anew for
// a snapshot, or the replica was dropped, and the store does not know. A snapshot that the log was
// not started anew for is rubbish.
func (g *Group) settle(log *raftLog, at, staged applied) (applied, error) {
	var batch storage.Batch
	batch.Delete(rows.Staged.Key(uint32(g.id)))
	switch {
	case log.past.Dropped:
		at = applied{}
		batch.Delete(rows.Applied.Key(uint32(g.id)))
	case staged.index > at.index && staged.index == log.first-1 && staged.term == log.firstTerm:
		at = staged
		batch.Put(rows.Applied.Key(uint32(g.id)), at.appendEncoded(nil))
	}
	if err := g.host.write(&batch); err != nil {
		return at, fmt.Errorf("finish what a crash interrupted: %w", err)
	}
	return at, nil
}

// restart makes the group's node anew from the log, as a new process would. It is also how a
// leader steps down: the library has no call for that, and after a refused append the node
// believes in entries that the log does not have. The applier keeps what it was handed.
func (g *Group) restart(log *raftLog, conf *pb.ConfState) (err error) {
	defer raftlog.Recover(&err, &log.err)
	ls := &g.loopState
	log.conf, log.snapshot = conf, nil
	if g.host.cfg.Peers != nil {
		log.snapshot = func() (*pb.Snapshot, error) { return g.sendableSnapshot() }
	}
	// What the applier was handed was committed and stable, whatever the last appended state says.
	commit := max(log.hard.GetCommit(), ls.handed)
	log.hard.Commit = new(commit)
	ls.log = log
	ls.hard, ls.hardDirty, ls.voteDirty, ls.conf = log.hard, false, false, conf
	ls.voteBatch, ls.outbox = 0, nil
	ls.sendable.release()
	ls.sendable = nil
	ls.term, ls.commit = log.hard.GetTerm(), commit
	ls.incarnation++
	ls.heldBack = nil
	ls.quietState = quietState{}
	ls.node, err = raft.NewRawNode(&raft.Config{
		ID:                       g.host.cfg.NodeID,
		ElectionTick:             ElectionTicks,
		HeartbeatTick:            HeartbeatTicks,
		Storage:                  log,
		Applied:                  ls.handed,
		AsyncStorageWrites:       true,
		MaxSizePerMsg:            1 << 20,
		MaxCommittedSizePerReady: maxHandBytes,
		MaxInflightMsgs:          256,
		MaxInflightBytes:         16 << 20,
		CheckQuorum:              true,
		PreVote:                  true,
		// A follower's records are void in the leader's term anyway.
		DisableProposalForwarding: true,
		StepDownOnRemoval:         true,
		Logger:                    raftlog.Logger{Logger: g.host.cfg.Logger, Group: uint32(g.id)},
	})
	return err
}

// ElectionTicks is how many ticks without a leader make a follower campaign, at least; at most twice
// as many do. HeartbeatTicks is how many are between heartbeats.
const (
	ElectionTicks  = 10
	HeartbeatTicks = 2
)

// maxHandBytes bounds the entries that are read back from the log at once.
const maxHandBytes = 1 << 20
