package replica

import (
	"fmt"
	"sync/atomic"

	raft "go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/perdure/perdure/cluster/replica/hardstate"
	"github.com/perdure/perdure/cluster/replica/rows"
	"github.com/perdure/perdure/storage"
)

// Group is one partition's Raft group on this node.
type Group struct {
	host     *Host
	id       GroupID
	listener Listener
	// generation is the one in use. The applier changes it once what it is to be is in the store.
	generation atomic.Uint32
	// keepsLog is whether the loop truncates the log, for the sake of members that lag, and not the
	// applier.
	keepsLog atomic.Bool

	// Guarded by Host.intake.mu.
	mu struct {
		lead         uint64 // the epoch in which Propose is open, or 0
		solo         bool   // the group has one voter, this node
		nextSequence uint64
		backlogBytes int
	}

	loopState  groupLoopState  // owned by the loop
	applyState groupApplyState // owned by the applier
}

// groupLoopState is what the loop knows of a group.
//
// Invariant: stored ≤ handed ≤ commit ≤ last index of the log.
type groupLoopState struct {
	node *raft.RawNode // nil while the group is absent, or halted
	log  *raftLog      // nil while the group is absent

	// incarnation counts the nodes of this group: what an append answers to an older one is void.
	incarnation uint64
	// appending is in how many append batches, gathering or running, the group takes part.
	appending int
	batch     uint64 // id of the last append batch the group took part in
	part      int    // its part there

	hard         *pb.HardState // the newest the node said, on disk or not
	hardDirty    bool          // it was not given to the appender yet
	voteDirty    bool          // nor was its term or vote, which must be durable
	conf         *pb.ConfState // as of handed
	reconfigured bool          // conf changed in this Ready
	term         uint64
	commit       uint64
	handed       uint64 // the applier has everything up to here
	stored       uint64 // the store has everything up to here

	epoch     uint64 // the term this node was elected for, or 0
	leadIndex uint64 // of that term's first entry, or 0 until it was seen
	leading   bool   // Lead was called
	sequence  uint64 // the last one given to the node
	committed uint64 // the last one told to the listener

	lead     uint64 // who leads, as LeaderChanged was told
	leadTerm uint64

	// voteBatch is the last append batch with a term or vote that is not durable yet, or 0;
	// outbox are the messages to other nodes that wait for it.
	voteBatch uint64
	outbox    []*pb.Message

	replicaLoopState
	quietState

	flights     []flight // proposed and not handed to the applier, ascending
	indexed     int      // flights[:indexed] have an index
	acked       int      // flights[:acked] were told to the listener
	flightBytes int

	stopping error         // why the group steps down once its appends are back
	halted   error         // why the group does nothing any more
	campaign bool          // campaign once everything known to be committed was handed over
	retry    bool          // in loop.retries
	heldBack []*pb.Message // answers the node gets when the applier has room again
	dirty    bool          // in loop.dirty
	entries  []*pb.Entry   // proposals of this round; the node clones them, so they are reused
	proposed int           // entries in use
}

// replicaLoopState is what the loop knows of a group because of other nodes.
type replicaLoopState struct {
	past     hardstate.Past
	lives    map[uint64]uint64 // of other nodes' replicas, the highest heard of
	dropping bool              // the replica is being dropped: nothing is heard until it is
	redrop   bool              // the log had no space for that; try again
	doubt    bool              // a node said that this one is not a member
	silent   int               // ticks since a leader was heard; 0 while this node leads
	heard    uint64            // the node that led last, or 0
	turn     bool              // it is this node's turn to campaign
	ticking  bool              // in loop.ticking

	barriers []*barrier // that the next round of heartbeats is for
	flying   []*barrier // that this round is for
	round    uint64     // its number, or 0
	change   *change    // under way
	unheard  *unheard   // of the voters, that others may not have heard of
	transfer *transfer  // under way

	receiving bool       // a snapshot for the group is being received
	install   *install   // the snapshot that the node was given and the log has not; nil if none
	settling  []*install // those that the log has and the store has not
	sendable  *sendable  // what raftLog.Snapshot answered last, until it is sent
	marks     []mark     // of what the log keeps though the store has it, ascending
	retained  int        // bytes of marks
}

// flight is a record between Propose and the applier.
type flight struct {
	index, sequence uint64
	bytes           int
}

// ID returns the group's id.
func (g *Group) ID() GroupID { return g.id }

// Propose hands a record to the group's log, and never blocks. payload is the encoding of a
// storage.Batch whose keys lack the partition's prefix, and becomes the group's. The sequence must
// be the one after that of the last Propose of the epoch which returned nil, or 1; any other
// makes the group step down. Nil means that the record will be committed or the group steps down.
// Errors: ErrNotLeader, ErrBacklog, ErrTooLarge, ErrSequence, storage.ErrMalformed.
func (g *Group) Propose(epoch, sequence uint64, payload []byte) error {
	if err := g.host.limits.Check(payload); err != nil {
		return fmt.Errorf("partition %d: propose: %w", g.id, err)
	}
	data := rows.EncodeRecord(g.host.cfg.WrittenLevel(), epoch, sequence, payload)
	in := &g.host.intake
	in.mu.Lock()
	switch {
	case g.mu.lead != epoch || epoch == 0 || in.mu.closed:
		in.mu.Unlock()
		return ErrNotLeader
	case sequence != g.mu.nextSequence:
		next := g.mu.nextSequence
		g.mu.lead = 0
		in.mu.broken = append(in.mu.broken, g)
		in.mu.Unlock()
		in.signal()
		return fmt.Errorf("partition %d: propose: %w: got %d, next is %d", g.id, ErrSequence, sequence, next)
	case g.mu.backlogBytes > 0 && in.mu.backlogBytes+len(data) > g.host.cfg.MaxBacklogBytes:
		in.mu.Unlock()
		return ErrBacklog
	}
	g.mu.nextSequence++
	g.mu.backlogBytes += len(data)
	in.mu.backlogBytes += len(data)
	in.mu.proposals = append(in.mu.proposals, proposal{group: g, epoch: epoch, sequence: sequence, data: data})
	due := 1 // later ones are taken in the same round
	if in.mu.appending {
		due = in.gather
	}
	wake := len(in.mu.proposals) == due
	in.mu.Unlock()
	if wake {
		in.signal()
	}
	return nil
}

// Snapshot returns the store's current snapshot, bounded to the partition and with its prefix
// stripped. The caller must Release it.
func (g *Group) Snapshot() storage.Snapshot {
	for {
		generation := g.generation.Load()
		snapshot := g.host.cfg.Store.Snapshot()
		// A generation is deleted only after the next one is in use, so that this one is whole.
		if g.generation.Load() == generation {
			return rows.NewView(snapshot, rows.Prefix(uint32(g.id), uint8(generation)))
		}
		snapshot.Release()
	}
}

// silent is the listener of a group that nobody attached to.
type silent struct{}

func (silent) Lead(uint64)                  {}
func (silent) StepDown(uint64, error)       {}
func (silent) Committed(uint64, uint64)     {}
func (silent) Applied(uint64, uint64)       {}
func (silent) LeaderChanged(uint64, uint64) {}
