// Package registry keeps the cluster's own truth, which is group 0: which nodes there are and were,
// which builds of the handlers they were started with, and a few settings. Every node has a replica of group 0 and reads it from its own store; one
// writes, the leader. Where partitions are is not among it: each partition's configuration is
// the truth about that.
//
// # Model
//
// A change is evaluated by the leader against its rows with all that it has proposed, becomes one
// record, and is answered when that record is on the disks of a majority. Every change may be
// asked for again and again: it says what should be, not what to do. A replica that applied
// something reads the rows, a few hundred at most, and publishes them as a View.
//
//	Change ──► leader: evaluate ──► Propose ──► Committed ──► answer
//	                                    └─────► Applied (every node) ──► View
//
// The first leader writes the settings, and every leader its own row if that is not as it
// should be; all others are told in Announce and Admit.
//
// # Feature levels
//
// A level stands for all record formats of a version of perdure. A node's row says which level its
// program reads; the settings say up to which level records may be written. That goes up by itself,
// in the record that lets the last older node be of the new version or removes it, and never
// down; a node that reads less is refused. So at no point of the log is there a node, not removed,
// that could not read what may be written then, and an upgrade can be taken back as long as
// one node has not had it, or as long as the operator sets a limit. A node whose program is replaced
// by an older one while it is down has a row that says too much: the transport's handshake refuses
// it (transport.Config.WrittenLevel), and Health does once it has the rows; it stops in either case.
//
// # Goroutines
//
// Run owns everything but the View. The host's goroutines, which call the Listener's methods, and
// callers of Change leave their word in the intake and wake it.
//
// # Failures
//
// A leader that loses group 0 does not know what became of what it had proposed: ErrUnknownOutcome.
// Rows that can't be read make Health say so; the last View stays, and changes are refused.
package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/cluster/placement"
	"github.com/perdure/perdure/cluster/transport"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/telemetry"
	"github.com/perdure/perdure/storage"
)

// DefaultReplicationFactor is how many replicas a partition gets, once there are as many nodes.
const DefaultReplicationFactor = 3

// Group is what a Registry needs of group 0; *replica.Group is one.
type Group interface {
	Propose(epoch, sequence uint64, payload []byte) error
	Snapshot() storage.Snapshot
}

// Node is a node of the cluster.
type Node struct {
	// ID is its Raft identity, never 0 and never that of another node, be it gone.
	ID uint64
	// Transport and Ingress are where other nodes and callers reach it, host:port.
	Transport, Ingress string
	// Zone is what it shares with those that fail with it; may be empty.
	Zone string
	// Version of the perdure module, such as "v0.3.0".
	Version string
	// FeatureLevel is the highest level of records that it reads. 0 in Config.Self and Admit is
	// FeatureLevel.
	FeatureLevel uint32
	// State is what the operator wants of it. Admit leaves it as it is.
	State placement.State
	// Deployment is the id of the one that it was started with last; "" if it never said so. Admit
	// leaves it as it is.
	Deployment string
	// AdmittedAt and StateAt are when it was added and when its state was set last; to the
	// millisecond, by the clock of the leader of then. Admit does not look at them.
	AdmittedAt, StateAt time.Time
	// Log is what Recall noted: see package recall. Admit does not look at it.
	Log transport.LogClaim
}

// Settings are the cluster's.
type Settings struct {
	ClusterID  string
	Partitions uint32
	FoundedAt  time.Time
	// ReplicationFactor is how many replicas a partition should have: odd, 1 to 7.
	ReplicationFactor int
	// FeatureLevel is up to which level records may be written.
	FeatureLevel uint32
	// FeatureLevelLimit keeps FeatureLevel from rising above it; 0: no limit.
	FeatureLevelLimit uint32
}

// View is what one node knows. It is never changed: another one takes its place.
type View struct {
	// Version counts changes: of two views that with the higher one is newer, on any node. 0 is
	// before the cluster was founded.
	Version  uint64
	Settings Settings
	// Nodes are all that were ever admitted, ascending by id.
	Nodes []Node
	// Catalog counts the changes of Deployments, and of which node was started with which.
	Catalog uint64
	// Deployments are all that are known, the one that was started last first.
	Deployments []*recordv1.Deployment
	files       map[string]*recordv1.ClusterFile
	// Leader of group 0 as far as this node knows; 0: nobody.
	Leader uint64
	// Epoch is that of this node's leadership; 0 while it does not lead. The view of a leader has all
	// that was committed before its epoch.
	Epoch uint64
}

// Node returns the row of a node.
func (v *View) Node(id uint64) (Node, bool) {
	for _, node := range v.Nodes {
		if node.ID == id {
			return node, true
		}
	}
	return Node{}, false
}

// Config says what a Registry is for.
type Config struct {
	// Self is this node. If it leads and its row says anything else, the row is changed.
	Self Node
	// ClusterID and Partitions are what the first leader writes into the settings, and what must
	// be there already otherwise.
	ClusterID  string
	Partitions uint32
	// ReplicationFactor is what the first leader writes. Defaults to DefaultReplicationFactor.
	ReplicationFactor int
	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// Now defaults to time.Now.
	Now func() time.Time
}

// Registry is one node's part of group 0: a replica.Listener. It is safe for concurrent use.
type Registry struct {
	config Config
	group  Group // of Attach; not changed after
	view   atomic.Pointer[View]

	intake struct {
		sync.Mutex
		wake     chan struct{} // has room for one
		news     []news
		applied  bool
		requests []*request
		ended    bool // Run takes no more
	}
	watch struct {
		sync.Mutex
		changed chan struct{} // closed at the next change of the view
		health  error
	}

	// Owned by Run.
	lead   *leadership // nil while another node leads
	leader uint64
	rows   state // as applied
}

// New makes a registry. All that is wrong with config is in the error.
func New(config Config) (*Registry, error) {
	var problems []error
	if config.Self.ID == 0 {
		problems = append(problems, errors.New("Self.ID is 0"))
	}
	if config.ClusterID == "" {
		problems = append(problems, errors.New("ClusterID is empty"))
	}
	if config.Partitions == 0 {
		problems = append(problems, errors.New("Partitions is 0"))
	}
	if config.ReplicationFactor == 0 {
		config.ReplicationFactor = DefaultReplicationFactor
	}
	if err := checkReplicationFactor(config.ReplicationFactor); err != nil {
		problems = append(problems, err)
	}
	if err := checkAddresses(config.Self); err != nil {
		problems = append(problems, err)
	}
	if err := errors.Join(problems...); err != nil {
		return nil, fmt.Errorf("registry: configuration: %w", err)
	}
	if config.Self.FeatureLevel == 0 {
		config.Self.FeatureLevel = FeatureLevel
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	r := &Registry{config: config, rows: newState()}
	r.intake.wake, r.watch.changed = make(chan struct{}, 1), make(chan struct{})
	r.view.Store(&View{})
	return r, nil
}

// Attach says which group it is about, and reads what is in the store. It must be called once,
// after Host.Attach and before Host.Run and Run. An error is that of Health.
func (r *Registry) Attach(group Group) error {
	r.group = group
	r.reload()
	r.publish()
	return r.Health()
}

// View is what this node knows now. It must not be changed.
func (r *Registry) View() *View { return r.view.Load() }

// Changed returns the view, and a channel that is closed when there is another one.
func (r *Registry) Changed() (*View, <-chan struct{}) {
	r.watch.Lock()
	defer r.watch.Unlock()
	return r.view.Load(), r.watch.changed
}

// Health is nil, or why this node can make no use of what group 0 says: rows that are damaged, or
// of a cluster or a version that is not this node's.
func (r *Registry) Health() error {
	r.watch.Lock()
	defer r.watch.Unlock()
	return r.watch.health
}

// Run does the work until ctx ends; then changes that are asked for are refused. It runs once.
func (r *Registry) Run(ctx context.Context) error {
	defer r.end()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.intake.wake:
		}
		in := &r.intake
		in.Lock()
		events, applied, requests := in.news, in.applied, in.requests
		in.news, in.applied, in.requests = nil, false, nil
		in.Unlock()
		// First what is known, for a new leader starts with it.
		if applied {
			r.reload()
		}
		for _, n := range events {
			r.take(n)
		}
		if applied && r.lead != nil {
			requests = append(r.lead.waiting, requests...)
			r.lead.waiting = nil
		}
		for _, q := range requests {
			r.serve(q)
		}
		r.publish()
	}
}

// end answers everybody.
func (r *Registry) end() {
	r.intake.Lock()
	r.intake.ended = true
	requests := r.intake.requests
	r.intake.requests = nil
	r.intake.Unlock()
	r.resign(errors.New("the node is stopping"))
	for _, q := range requests {
		q.answer(&NotLeaderError{})
	}
	r.publish()
}

// reload reads the rows of the store.
func (r *Registry) reload() {
	snapshot := r.group.Snapshot()
	defer snapshot.Release()
	rows, err := load(snapshot)
	if err == nil {
		r.know(rows)
		err = r.fits(rows)
	}
	r.setHealth(err)
}

// know takes rows that are committed, unless newer ones are known: the store is behind what this
// node as leader saw committed.
func (r *Registry) know(rows state) {
	if rows.settings.GetVersion() >= r.rows.settings.GetVersion() {
		r.rows = rows
	}
}

// fits says whether the rows are of this node's cluster, and readable for it.
func (r *Registry) fits(rows state) error {
	switch settings := rows.settings; {
	case settings == nil:
		return nil
	case settings.ClusterId != r.config.ClusterID || settings.Partitions != r.config.Partitions:
		return fmt.Errorf("registry: group 0 is of cluster %s with %d partitions, and this node of cluster %s with %d: its data directory has parts of two nodes; restore it from one backup",
			settings.ClusterId, settings.Partitions, r.config.ClusterID, r.config.Partitions)
	case settings.FeatureLevel > r.config.Self.FeatureLevel:
		return fmt.Errorf("registry: %w", tooOld(r.config.Self, settings.FeatureLevel))
	}
	return nil
}

func (r *Registry) setHealth(err error) {
	r.watch.Lock()
	changed := (err == nil) != (r.watch.health == nil)
	r.watch.health = err
	r.watch.Unlock()
	if changed && err != nil {
		r.config.Logger.Error("the cluster's own group is of no use to this node", telemetry.KeyError, err)
	}
}

// publish makes a view of what Run knows, if that is news.
func (r *Registry) publish() {
	view := r.rows.view()
	view.Leader = r.leader
	if r.lead != nil {
		view.Epoch = r.lead.epoch
	}
	old := r.view.Load()
	if old.Version == view.Version && old.Leader == view.Leader && old.Epoch == view.Epoch {
		return
	}
	r.watch.Lock()
	defer r.watch.Unlock()
	r.view.Store(view)
	close(r.watch.changed)
	r.watch.changed = make(chan struct{})
}
