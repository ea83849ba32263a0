package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"

	raft "go.etcd.io/raft/v3"

	"github.com/perdure/perdure/cluster/replica/fault"
	"github.com/perdure/perdure/cluster/replica/rows"
	"github.com/perdure/perdure/cluster/replica/stream"
	"github.com/perdure/perdure/storage"
)

// Errors that callers branch on.
var (
	// ErrNotLeader is returned by Propose when the group does not lead in that epoch: it was not
	// proposed and never will be.
	ErrNotLeader = errors.New("replica: not leading in this epoch")
	// ErrBacklog is returned by Propose while the store is too far behind the log. Nothing was
	// proposed; propose the same sequence again after the next Applied. A group that has nothing
	// unapplied is never refused, so there always is one.
	ErrBacklog = errors.New("replica: the store is too far behind the log; retry after the next Applied")
	// ErrTooLarge is returned by Propose for a payload that the store could not take. Nothing
	// was proposed and the sequence is still free.
	ErrTooLarge = rows.ErrTooLarge
	// ErrSequence is the cause of a StepDown after Propose was called with a sequence that is
	// not the next one, and what that Propose returns.
	ErrSequence = errors.New("replica: sequence is not the next one")
	// ErrDataLoss is returned by Open when store and log of a partition do not meet: entries
	// are in neither, or the log lacks what the store says it had.
	ErrDataLoss = errors.New("replica: data loss")
	// ErrNewerFormat says that data was written by a build newer than this one.
	ErrNewerFormat = rows.ErrNewerFormat
	// ErrChanged is returned by Reconfigure if the configuration is not the expected one, or is
	// about to change. Nothing was proposed.
	ErrChanged = errors.New("replica: the configuration is another one")
	// ErrBehind is returned for a node that does not have enough of the log to become a voter or
	// to lead. Nothing was done; try again when its status says that it is caught up.
	ErrBehind = errors.New("replica: the node is behind")
	// ErrInvalid is returned by Reconfigure and TransferLeadership for what can't be done to
	// any configuration, or not to this one, however often it is tried.
	ErrInvalid = errors.New("replica: impossible change")
	// ErrRefused is returned by ReceiveSnapshot if the snapshot is not needed, or not now.
	ErrRefused = errors.New("replica: snapshot refused")
	// ErrLost says that a stream to another node was cut, or could not begin. The snapshot may go on.
	ErrLost = stream.ErrLost
	// ErrStopped is the cause of the StepDown when Run's context ended.
	ErrStopped = errors.New("replica: host is stopping")
)

// GroupID identifies a Raft group: the number of the partition it replicates, at most 65,534.
type GroupID uint32

// Config says what a Host runs.
type Config struct {
	// Log is the node's log. The host is its only writer, and does not close it.
	Log Log
	// Store is the node's store. The host is its only writer, and does not close it.
	Store storage.Store
	// NodeID is this node's Raft identity, not 0. It must never be used by another node, nor by
	// this one after its data was lost.
	NodeID uint64
	// Groups are all groups of the cluster; those that the log or store knows and that are missing
	// here are an error. A group whose replica is not on this node is absent: it costs next to
	// nothing, and its replica comes into being when a leader that has it in its configuration
	// sends the first message.
	Groups []GroupID
	// Found creates the groups that the log does not know, with this node as only voter. It is for
	// the node that founds a cluster, and no other: the groups of two founders are two groups.
	Found bool
	// Peers is the way to other nodes. Nil is for a node that is alone: its groups then need no
	// ticks, and groups whose configuration has other voters get no leader.
	Peers Peers
	// TickInterval is Raft's unit of time: a leader that is silent for ElectionTicks to twice as
	// many is replaced, and leaders send heartbeats every HeartbeatTicks. All nodes of
	// a cluster should have about the same. Defaults to 100 ms.
	TickInterval time.Duration
	// RetainBytes is how much of a group's log is kept for members that lack it, beyond what is in
	// the store here; one that lacks more gets a snapshot. Defaults to 4 MiB.
	RetainBytes int
	// RetainTotalBytes bounds RetainBytes times the number of groups, by lowering the former; and it
	// is in the place of RetainBytes while a member is being sent a snapshot. Defaults to 64 MiB.
	RetainTotalBytes int
	// MaxSnapshots bounds how many snapshots are sent, and how many are received, at once. Defaults
	// to 2.
	MaxSnapshots int
	// SnapshotBytesPerSecond bounds how fast snapshots are sent, all together. Defaults to 64 MiB.
	SnapshotBytesPerSecond int
	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// MaxApplyDelay is how long a committed record may wait to be merged with later ones before
	// it goes to the store. Defaults to 100 ms.
	MaxApplyDelay time.Duration
	// MaxApplyBytes bounds one store batch, and so the size of one record. Defaults to 4 MiB; it is
	// lowered to what the store takes.
	MaxApplyBytes int
	// MaxBacklogBytes bounds what was proposed and is not yet in the store, of all groups. At most
	// 256 MiB, since as much may have to fit one append. Defaults to 64 MiB.
	MaxBacklogBytes int
	// StallAfter is how long an append or a commit may take before it is reported. Defaults to 10 s.
	StallAfter time.Duration
	// RetryDelay is the pause before groups that lost their leadership to a full disk, or to
	// a broken sequence, campaign again, and the longest one between attempts to commit to a full
	// store. Defaults to 1 s.
	RetryDelay time.Duration
	// Once, if set, names keys that are never put again before they are deleted: one that is put
	// and deleted within one store batch leaves nothing there, not even the mark of a deletion. It
	// is called on the host's goroutines.
	Once func(group GroupID, key []byte) bool
	// WrittenLevel says up to which feature level records may be written now: see package registry. It
	// must not block, nor go down. Nil is for a node that is alone: as high as this build knows.
	WrittenLevel func() uint32
	// OnAppend and OnCommit, if set, are told how long each append to the log and each commit
	// of the store took, failed ones too. They are called on the host's goroutines and must
	// not block.
	OnAppend, OnCommit func(took time.Duration)

	// snapshotChunkBytes and idleTicks are chunkBytes and idleTicks, but in tests.
	snapshotChunkBytes, idleTicks int
}

// validated returns the configuration with defaults filled in, or everything that is wrong.
func (c Config) validated() (Config, error) {
	var problems []error
	reject := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if c.Log == nil {
		reject("Log is nil")
	}
	if c.Store == nil {
		reject("Store is nil")
	}
	if c.NodeID == raft.None || raft.IsLocalMsgTarget(c.NodeID) {
		reject("NodeID is %d, which Raft reserves", c.NodeID)
	}
	c.Groups = slices.Clone(c.Groups)
	slices.Sort(c.Groups)
	for i, id := range c.Groups {
		if id > rows.MaxGroup {
			reject("Groups contains %d, at most %d", id, rows.MaxGroup)
		}
		if i > 0 && c.Groups[i-1] == id {
			reject("Groups contains %d twice", id)
		}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.WrittenLevel == nil {
		c.WrittenLevel = func() uint32 { return math.MaxUint32 }
	}
	defaultTo(&c.MaxApplyDelay, 100*time.Millisecond, "MaxApplyDelay", reject)
	defaultTo(&c.MaxApplyBytes, 4<<20, "MaxApplyBytes", reject)
	defaultTo(&c.MaxBacklogBytes, 64<<20, "MaxBacklogBytes", reject)
	defaultTo(&c.StallAfter, 10*time.Second, "StallAfter", reject)
	defaultTo(&c.RetryDelay, time.Second, "RetryDelay", reject)
	defaultTo(&c.TickInterval, 100*time.Millisecond, "TickInterval", reject)
	defaultTo(&c.RetainBytes, 4<<20, "RetainBytes", reject)
	defaultTo(&c.RetainTotalBytes, 64<<20, "RetainTotalBytes", reject)
	defaultTo(&c.MaxSnapshots, 2, "MaxSnapshots", reject)
	defaultTo(&c.idleTicks, idleTicks, "idleTicks", reject)
	defaultTo(&c.snapshotChunkBytes, chunkBytes, "snapshotChunkBytes", reject)
	defaultTo(&c.SnapshotBytesPerSecond, 64<<20, "SnapshotBytesPerSecond", reject)
	c.RetainBytes = min(c.RetainBytes, c.RetainTotalBytes/max(len(c.Groups), 1))
	if c.MaxBacklogBytes > 256<<20 {
		reject("MaxBacklogBytes is %d, at most %d", c.MaxBacklogBytes, 256<<20)
	}
	if err := errors.Join(problems...); err != nil {
		return c, fmt.Errorf("replica: configuration: %w", err)
	}
	return c, nil
}

func defaultTo[T int | time.Duration](field *T, value T, name string, reject func(string, ...any)) {
	if *field == 0 {
		*field = value
	}
	if *field < 0 {
		reject("%s is %v, must be positive", name, *field)
	}
}

// Listener is told what happens to a group. Its methods are called on the host's goroutines and
// must not block, nor call the group's methods other than Propose and Snapshot. All but Applied are
// called one after another; Applied may be called while one of them runs.
type Listener interface {
	// Lead says that this node leads the group. Everything before, including the first entry of
	// its own term, is in the store: evaluation may begin, and the next sequence is 1.
	Lead(epoch uint64)
	// StepDown says that no more Committed of this epoch will come. Whether a record above the
	// last one Committed survives is not known in general; the next Lead's snapshot tells.
	StepDown(epoch uint64, cause error)
	// Committed says that the record, and all of the epoch before it, are durable on a majority:
	// their effects may be released. Sequences in between may be skipped.
	Committed(epoch, sequence uint64)
	// Applied says that the store's snapshot contains the record and all of the epoch before it.
	// Sequences in between may be skipped, and one may be repeated. It also comes for records of
	// earlier epochs and other leaders; sequence 0 is none of the epoch. After a snapshot was
	// installed, it comes for what the snapshot has.
	Applied(epoch, sequence uint64)
	// LeaderChanged says that this node learned who leads in a term, itself perhaps, before Lead
	// says that it can be asked; leader 0 is nobody as far as this node knows. It is a hint:
	// the leader may have been replaced already. Terms never go down.
	LeaderChanged(leader, term uint64)
}

// Host runs the groups. Its methods may be called concurrently.
type Host struct {
	cfg      Config
	limits   rows.Limits
	groups   map[GroupID]*Group
	order    []*Group // ascending by id
	intake   intake
	appender appender
	applier  applier
	cleaner  cleaner
	lanes    stream.Lanes
	partials stream.Partials
	faults   fault.Set
	turn     chan struct{} // held by whoever commits to the store
	ended    chan struct{} // closed when Run is about to return
}

// Open loads the groups and creates those that are new, durably. It starts no goroutine. The
// error wraps ErrDataLoss, naming partition and indexes, if the store and the log do not meet.
func Open(cfg Config) (*Host, error) {
	cfg, err := cfg.validated()
	if err != nil {
		return nil, err
	}
	h := &Host{cfg: cfg, groups: make(map[GroupID]*Group, len(cfg.Groups)), turn: make(chan struct{}, 1), ended: make(chan struct{})}
	if h.limits, err = rows.LimitsOf(cfg.Store, cfg.MaxApplyBytes, len(cfg.Groups)); err != nil {
		return nil, err
	}
	h.intake.wake, h.intake.gather = make(chan struct{}, 1), gatherProposals
	h.appender.init(h)
	h.applier.init(h)
	h.cleaner.init(h)
	if err := h.load(); err != nil {
		return nil, fmt.Errorf("replica: open: %w", err)
	}
	return h, nil
}

// Attach sets who is told about a group, and returns the group. It must be called before Run,
// once per group; a group nobody attached to runs with no one to propose. It returns nil for a
// group that is not in Config.Groups.
func (h *Host) Attach(id GroupID, l Listener) *Group {
	g := h.groups[id]
	if g != nil {
		g.listener = l
	}
	return g
}

// Run runs the groups until ctx ends or the log or the store fails, and returns after all
// goroutines of the host have ended. When ctx ends, what Propose accepted is appended and, in groups
// with one voter, committed; groups with more are handed to another voter, without waiting for it.
// Every leader steps down with ErrStopped, what is committed is applied, and Run returns nil. Otherwise every leader steps down with the cause, and Run returns it: open log and
// store again before anything else. A host runs once.
func (h *Host) Run(ctx context.Context) error {
	if !h.intake.start() {
		return errors.New("replica: Run was called before; open a new host")
	}
	appended, applied := make(chan struct{}), make(chan struct{})
	go func() { defer close(appended); h.appender.run() }()
	go func() { defer close(applied); h.applier.run() }()
	cleaned := h.cleaner.start()

	l := loop{host: h}
	err := l.run(ctx)

	if err != nil {
		h.appender.abandon() // nobody would be told
	}
	h.appender.stop()
	<-appended
	h.applier.stop(err == nil)
	<-applied
	close(h.ended)
	<-cleaned
	h.turn <- struct{}{} // what is being written now is; a receiver that waits for the network writes no more
	<-h.turn
	h.lanes.Close()
	if err == nil {
		err = h.intake.failure()
	}
	if err != nil {
		err = fmt.Errorf("replica: %w", err)
		h.faults.Set(fault.Fatal, err)
	}
	return err
}

// BacklogBytes is what was proposed, or read back from the log, and is not in the store yet.
func (h *Host) BacklogBytes() int {
	h.intake.mu.Lock()
	defer h.intake.mu.Unlock()
	return h.intake.mu.backlogBytes
}

// Health returns what is wrong now, joined: a disk that hangs or is full, partitions that were
// halted, and after Run returned an error, that. Nil if nothing is.
func (h *Host) Health() error {
	return errors.Join(h.faults.All(), h.appender.stalled(), h.applier.stalled())
}
