package peer

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/perdure/perdure/cluster/replica"
	"github.com/perdure/perdure/internal/partition"
	"github.com/perdure/perdure/storage"
	"github.com/perdure/perdure/storage/memstore"
)

// group is a partition's Raft group as it looks from above: what was proposed is durable after a
// while or lost, the leader changes, and the one before may be the last to hear of it. All its
// replicas share a store, of which each sees what it was told.
type group struct {
	world *world
	id    uint32
	store *memstore.Store
	// durable has what the committer is to make durable.
	durable chan proposal

	mu struct {
		sync.Mutex
		leader uint64
		epoch  uint64
	}
	replicas map[uint64]*replicated
	electing sync.Mutex
}

type proposal struct {
	by              *replicated
	epoch, sequence uint64
	payload         []byte
}

// replicated is the group on one node. It implements partition.Group.
type replicated struct {
	group     *group
	node      uint64
	partition *partition.Partition
	tell      chan func()
	telling   sync.Mutex

	mu struct {
		sync.Mutex
		epoch uint64 // in which it believes to lead, 0 for not
		next  uint64
	}
}

var errOutvoted = errors.New("another node was elected")

func (g *group) attach(node uint64, p *partition.Partition) *replicated {
	r := &replicated{group: g, node: node, partition: p, tell: make(chan func(), 10_000)}
	g.replicas[node] = r
	return r
}

// run tells the partition what happens, one thing after the other.
func (r *replicated) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case tell := <-r.tell:
			r.telling.Lock()
			tell()
			r.telling.Unlock()
		}
	}
}

// Propose implements partition.Group.
func (r *replicated) Propose(epoch, sequence uint64, payload []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.mu.epoch != epoch || epoch == 0:
		return replica.ErrNotLeader
	case sequence != r.mu.next:
		r.mu.epoch = 0
		r.tell <- func() { r.partition.StepDown(epoch, replica.ErrSequence) }
		go r.group.lead(r.node, 0)
		return replica.ErrSequence
	}
	r.mu.next++
	select {
	case r.group.durable <- proposal{r, epoch, sequence, payload}:
		return nil
	default:
		r.mu.next--
		return replica.ErrBacklog
	}
}

// Snapshot implements partition.Group.
func (r *replicated) Snapshot() storage.Snapshot { return r.group.store.Snapshot() }

// ReadBarrier implements partition.Group.
func (r *replicated) ReadBarrier(ctx context.Context) error {
	if len(r.group.replicas) == 1 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	r.mu.Lock()
	epoch := r.mu.epoch
	r.mu.Unlock()
	select {
	case <-time.After(r.group.world.chance.between(100*time.Microsecond, 2*time.Millisecond)):
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		r.group.mu.Lock()
		leads := r.group.mu.leader == r.node && r.group.mu.epoch == epoch
		r.group.mu.Unlock()
		if leads {
			return nil
		}
		r.mu.Lock()
		believes := r.mu.epoch == epoch
		r.mu.Unlock()
		if !believes || epoch == 0 {
			return replica.ErrNotLeader
		}
		select { // Its followers do not answer.
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// commit makes durable what still can be.
func (g *group) commit(ctx context.Context) {
	for {
		var p proposal
		select {
		case <-ctx.Done():
			return
		case p = <-g.durable:
		}
		time.Sleep(g.world.chance.between(100*time.Microsecond, 3*time.Millisecond))
		g.mu.Lock()
		if g.mu.epoch != p.epoch || g.mu.leader != p.by.node {
			g.mu.Unlock()
			continue
		}
		batch := &storage.Batch{}
		err := storage.DecodeBatch(p.payload, func(op storage.Op) {
			if op.Delete {
				batch.Delete(op.Key)
			} else {
				batch.Put(op.Key, op.Value)
			}
		})
		if err == nil {
			err = g.store.Commit(batch)
		}
		if err != nil {
			g.world.t.Errorf("partition %d: record %d.%d: %v", g.id, p.epoch, p.sequence, err)
		}
		// Under the lock: the next leader's store has exactly what was committed before.
		p.by.telling.Lock()
		p.by.partition.Committed(p.epoch, p.sequence)
		p.by.telling.Unlock()
		p.by.partition.Applied(p.epoch, p.sequence)
		g.mu.Unlock()
	}
}

// lead makes a node the leader. The one before hears of it after a while, in which it goes on.
func (g *group) lead(node uint64, unaware time.Duration) {
	g.electing.Lock()
	defer g.electing.Unlock()
	g.mu.Lock()
	g.mu.epoch++
	epoch, before := g.mu.epoch, g.replicas[g.mu.leader]
	g.mu.leader = node
	g.mu.Unlock()
	if before != nil && before.node == node {
		unaware = 0 // It can't lead twice at once.
	}
	if before != nil {
		stop := func() {
			before.mu.Lock()
			old := before.mu.epoch
			if old != 0 && old < epoch {
				before.mu.epoch = 0
			}
			before.mu.Unlock()
			if old != 0 && old < epoch {
				before.tell <- func() { before.partition.StepDown(old, errOutvoted) }
			}
			before.tell <- func() { before.partition.LeaderChanged(node, epoch) }
		}
		if unaware == 0 {
			stop()
		} else {
			g.world.after(unaware, stop)
		}
	}
	for _, r := range g.replicas {
		if r.node != node && g.world.chance.intn(2) == 0 { // It missed the old one before it hears of the new.
			r.tell <- func() { r.partition.LeaderChanged(0, epoch-1) }
		}
		if r != before || r.node == node {
			r.tell <- func() { r.partition.LeaderChanged(node, epoch) }
		}
	}
	r := g.replicas[node]
	begin := func() {
		r.mu.Lock()
		r.mu.epoch, r.mu.next = epoch, 1
		r.mu.Unlock()
		r.tell <- func() { r.partition.Lead(epoch) }
	}
	if late := time.Duration(g.world.leadAfter.Load()); late > 0 {
		g.world.after(late, begin)
	} else {
		begin()
	}
}

func (g *group) leader() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.leader
}
