package actortest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/perdure/perdure/cluster/replica"
	"github.com/perdure/perdure/storage"
	"github.com/perdure/perdure/storage/memstore"
)

// group is the disk under one partition: what was proposed becomes durable when the driver makes
// that move, and a power cut leaves as much of it as the plan decides. It is a partition.Group.
type group struct {
	node     *Node
	id       uint32
	listener replica.Listener
	store    *memstore.Store

	mu struct {
		sync.Mutex
		epoch    uint64 // of the last leadership
		leads    bool
		next     uint64 // sequence
		proposed []proposal
	}
}

type proposal struct {
	epoch, sequence uint64
	payload         []byte
}

// Propose implements partition.Group.
func (g *group) Propose(epoch, sequence uint64, payload []byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case !g.mu.leads || g.mu.epoch != epoch:
		return replica.ErrNotLeader
	case sequence != g.mu.next:
		g.mu.leads = false
		g.postLead()
		return fmt.Errorf("partition %d: propose: %w: got %d, next is %d", g.id, replica.ErrSequence, sequence, g.mu.next)
	}
	g.mu.next++
	p := proposal{epoch, sequence, payload}
	g.mu.proposed = append(g.mu.proposed, p)
	g.node.agenda.post(&move{
		kind: kindRecord, lane: "record " + strconv.Itoa(int(g.id)),
		text: fmt.Sprintf("record %d.%d of partition %d is durable", epoch, sequence, g.id),
		do:   func() { g.commit(p) },
	})
	return nil
}

// ReadBarrier implements partition.Group: nobody else can lead.
func (*group) ReadBarrier(context.Context) error { return nil }

// Snapshot implements partition.Group.
func (g *group) Snapshot() storage.Snapshot { return g.store.Snapshot() }

// commit makes the oldest proposal durable.
func (g *group) commit(p proposal) {
	g.mu.Lock()
	if len(g.mu.proposed) == 0 || g.mu.proposed[0].epoch != p.epoch || g.mu.proposed[0].sequence != p.sequence {
		g.mu.Unlock()
		return // lost
	}
	g.mu.proposed = g.mu.proposed[1:]
	g.mu.Unlock()
	g.apply(p)
	g.node.records++
	g.listener.Committed(p.epoch, p.sequence)
	g.listener.Applied(p.epoch, p.sequence)
}

func (g *group) apply(p proposal) {
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
		g.node.t.Errorf("partition %d: record %d.%d: %v", g.id, p.epoch, p.sequence, err)
	}
}

// waiting is how many proposals are not durable.
func (g *group) waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.mu.proposed)
}

var errLeaderLost = errors.New("the test took the leadership away")

// lose ends the leadership; the oldest keep of the proposals turn out to be durable.
func (g *group) lose(keep int) {
	g.mu.Lock()
	led, epoch, proposed := g.mu.leads, g.mu.epoch, g.mu.proposed
	g.mu.leads, g.mu.proposed = false, nil
	g.mu.Unlock()
	if !led {
		return
	}
	for _, p := range proposed[:keep] {
		g.apply(p)
	}
	g.listener.StepDown(epoch, errLeaderLost)
	g.postLead()
}

// postLead makes the partition a leader again.
func (g *group) postLead() {
	g.node.agenda.post(&move{
		kind: kindLead, lane: "lead " + strconv.Itoa(int(g.id)),
		text: fmt.Sprintf("partition %d gets a leader", g.id), do: g.lead,
	})
}

func (g *group) lead() {
	g.mu.Lock()
	if g.mu.leads {
		g.mu.Unlock()
		return
	}
	g.mu.epoch++
	g.mu.leads, g.mu.next, g.mu.proposed = true, 1, nil
	epoch := g.mu.epoch
	g.mu.Unlock()
	g.listener.Lead(epoch)
}
