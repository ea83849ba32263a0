package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/perdure/perdure/cluster/placement"
	"github.com/perdure/perdure/cluster/replica"
	"github.com/perdure/perdure/storage"
	"github.com/perdure/perdure/storage/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// failer is a test, or one case of a property.
type failer interface {
	Helper()
	Errorf(string, ...any)
	Fatalf(string, ...any)
}

// cluster is group 0 of several nodes, in memory: a log that the test moves forward by hand.
type cluster struct {
	t     failer
	mu    sync.Mutex
	log   []entry // committed
	epoch uint64
	lead  *member // nil: nobody
	// proposed by the leader and not committed.
	proposed []entry
	backlog  bool // Propose refuses
	// owed is a StepDown that was not said yet.
	owed    func()
	members []*member
}

type entry struct {
	epoch, sequence uint64
	payload         []byte
}

// member is one node's replica of group 0, and its registry.
type member struct {
	*Registry
	cluster *cluster
	id      uint64
	store   *memstore.Store
	applied int // how much of the log
	stop    context.CancelFunc
	down    bool // calls to it fail
}

// newCluster must be called in a synctest bubble; the test calls close at its end.
func newCluster(t failer, levels ...uint32) *cluster {
	c := &cluster{t: t}
	for i, level := range levels {
		m := &member{cluster: c, id: uint64(i + 1), store: memstore.New(memstore.Options{})}
		c.members = append(c.members, m)
		m.start(level)
	}
	return c
}

func (m *member) self(level uint32) Node {
	return Node{ID: m.id, Transport: fmt.Sprintf("node%d:7374", m.id), Ingress: fmt.Sprintf("node%d:7373", m.id), Version: fmt.Sprintf("v%d", level), FeatureLevel: level}
}

// start begins with what is in the store.
func (m *member) start(level uint32) {
	r, err := New(Config{Self: m.self(level), ClusterID: "c", Partitions: 4, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		m.cluster.t.Fatalf("%v", err)
	}
	m.Registry = r
	_ = r.Attach(m) // Health says so again
	ctx, cancel := context.WithCancel(context.Background())
	m.stop = cancel
	go func() { _ = r.Run(ctx) }()
	synctest.Wait()
}

func (c *cluster) close() {
	for _, m := range c.members {
		m.stop()
	}
	synctest.Wait()
}

// Propose implements Group.
func (m *member) Propose(epoch, sequence uint64, payload []byte) error {
	c := m.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.lead != m || epoch != c.epoch:
		return replica.ErrNotLeader
	case c.backlog:
		return replica.ErrBacklog
	}
	next := uint64(1)
	if n := len(c.proposed); n > 0 {
		next = c.proposed[n-1].sequence + 1
	} else if n := len(c.log); n > 0 && c.log[n-1].epoch == epoch {
		next = c.log[n-1].sequence + 1
	}
	if sequence != next {
		c.t.Errorf("Propose(%d, %d), next is %d", epoch, sequence, next)
	}
	c.proposed = append(c.proposed, entry{epoch, sequence, slices.Clone(payload)})
	return nil
}

// setBacklog makes Propose refuse what it could take later.
func (c *cluster) setBacklog(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.backlog = on
}

// Snapshot implements Group.
func (m *member) Snapshot() storage.Snapshot { return m.store.Snapshot() }

// commit commits the first n of what is proposed, or all.
func (c *cluster) commit(n int) {
	c.mu.Lock()
	n = min(n, len(c.proposed))
	c.log = append(c.log, c.proposed[:n]...)
	c.proposed = c.proposed[n:]
	lead, last := c.lead, entry{}
	if len(c.log) > 0 {
		last = c.log[len(c.log)-1]
	}
	c.mu.Unlock()
	if n > 0 && lead != nil {
		lead.Committed(last.epoch, last.sequence)
	}
	synctest.Wait()
}

// apply lets a replica have n more records in its store.
func (m *member) apply(n int) {
	for _, e := range m.write(n) {
		m.Applied(e.epoch, e.sequence)
	}
	synctest.Wait()
}

// write does so, and says nothing yet.
func (m *member) write(n int) []entry {
	c := m.cluster
	c.mu.Lock()
	from, to := m.applied, min(m.applied+n, len(c.log))
	entries := c.log[from:to]
	m.applied = to
	c.mu.Unlock()
	for _, e := range entries {
		var batch storage.Batch
		if err := storage.DecodeBatch(e.payload, func(op storage.Op) {
			if op.Delete {
				batch.Delete(slices.Clone(op.Key))
				return
			}
			batch.Put(slices.Clone(op.Key), slices.Clone(op.Value))
		}); err != nil {
			c.t.Fatalf("%v", err)
		}
		if err := m.store.Commit(&batch); err != nil {
			c.t.Fatalf("%v", err)
		}
	}
	return entries
}

const all = 1 << 30

// elect makes a member the leader, after depose. That its store has everything may be said later
// than that it leads.
func (c *cluster) elect(m *member) {
	c.depose(0)
	written := m.write(all)
	c.mu.Lock()
	c.epoch++
	c.lead = m
	epoch := c.epoch
	c.mu.Unlock()
	for _, other := range c.members {
		other.LeaderChanged(m.id, epoch)
	}
	m.Lead(epoch)
	synctest.Wait()
	for _, e := range written {
		m.Applied(e.epoch, e.sequence)
	}
	synctest.Wait()
}

// depose takes the leadership away; the first n records that were proposed survive it.
func (c *cluster) depose(survive int) {
	c.overthrow(survive)
	c.owed()
	synctest.Wait()
}

// overthrow is depose, and nobody tells the leader yet.
func (c *cluster) overthrow(survive int) {
	if c.owed != nil {
		c.owed()
	}
	c.mu.Lock()
	lead, epoch := c.lead, c.epoch
	c.log = append(c.log, c.proposed[:min(survive, len(c.proposed))]...)
	c.proposed, c.lead = nil, nil
	c.mu.Unlock()
	c.owed = func() {
		if lead != nil {
			lead.StepDown(epoch, errors.New("deposed"))
		}
		c.owed = func() {}
	}
}

// settle commits and applies everything.
func (c *cluster) settle() {
	for range 3 {
		c.commit(all)
		for _, m := range c.members {
			m.apply(all)
		}
	}
}

// client calls the other members directly.
func (m *member) client() *Client {
	return &Client{Registry: m.Registry, Call: func(ctx context.Context, to uint64, request []byte) ([]byte, error) {
		other := m.cluster.members[to-1]
		if other.down {
			return nil, errors.New("unreachable")
		}
		return other.Serve(ctx, request)
	}}
}

// begin asks in the background.
func begin(ask func() error) <-chan error {
	answer := make(chan error, 1)
	go func() { answer <- ask() }()
	synctest.Wait()
	return answer
}

func answered(answer <-chan error) (err error, ok bool) {
	synctest.Wait()
	select {
	case err = <-answer:
		return err, true
	default:
		return nil, false
	}
}

// check is what must be true of every prefix of the log.
func (c *cluster) check() {
	s := newState()
	gone := map[uint64]bool{}
	level, page := uint32(0), uint64(0)
	store := memstore.New(memstore.Options{})
	for i, e := range c.log {
		var batch storage.Batch
		_ = storage.DecodeBatch(e.payload, func(op storage.Op) {
			if op.Delete {
				batch.Delete(op.Key)
				return
			}
			batch.Put(op.Key, op.Value)
		})
		if err := store.Commit(&batch); err != nil {
			c.t.Fatalf("%v", err)
		}
		snapshot := store.Snapshot()
		var err error
		s, err = load(snapshot)
		snapshot.Release()
		if err != nil {
			c.t.Fatalf("after record %d: %v", i+1, err)
		}
		view := s.view()
		if view.Version != uint64(i+1) || view.Settings.ClusterID != "c" || view.Settings.Partitions != 4 {
			c.t.Fatalf("after record %d: %+v", i+1, view)
		}
		if view.Settings.FeatureLevel < level {
			c.t.Fatalf("record %d lowers the feature level from %d to %d", i+1, level, view.Settings.FeatureLevel)
		}
		level = view.Settings.FeatureLevel
		if view.Catalog < page {
			c.t.Fatalf("record %d lowers the catalog's number from %d to %d", i+1, page, view.Catalog)
		}
		page = view.Catalog
		for _, d := range view.Deployments {
			for _, hash := range d.Files {
				if stored, bytes := view.Stored(hash); bytes == 0 || stored != bytes {
					c.t.Fatalf("record %d: of file %s of deployment %s there are %d of %d bytes", i+1, hash, d.Id, stored, bytes)
				}
			}
		}
		for _, node := range view.Nodes {
			if node.Deployment != "" && node.State != placement.Removed && s.deployments[node.Deployment] == nil {
				c.t.Fatalf("record %d: node %d was started with %q, which is not known", i+1, node.ID, node.Deployment)
			}
		}
		active := 0
		for _, node := range view.Nodes {
			if node.State == placement.Active {
				active++
			}
			if gone[node.ID] && node.State != placement.Removed {
				c.t.Fatalf("record %d: node %d is back", i+1, node.ID)
			}
			gone[node.ID] = node.State == placement.Removed
			if !gone[node.ID] && node.FeatureLevel < level {
				c.t.Fatalf("record %d: level %d, which node %d does not read: %+v", i+1, level, node.ID, node)
			}
		}
		if active == 0 {
			c.t.Fatalf("record %d: no node is active", i+1)
		}
	}
	for _, m := range c.members {
		if view := m.View(); view.Version != uint64(m.applied) {
			c.t.Fatalf("node %d: the view has version %d after %d records", m.id, view.Version, m.applied)
		}
	}
}

func bubble(t *testing.T, f func(*testing.T)) { synctest.Test(t, f) }
