package sim

import (
	"errors"
	"sync"
	"time"

	"github.com/perdure/perdure/cluster/replica"
	"github.com/perdure/perdure/internal/partition"
)

// group stands between a partition and its Raft group, to take the leadership of this one
// partition away while the node goes on.
type group struct {
	partition.Group
	raft *replica.Group
	mu   struct {
		sync.Mutex
		epoch  uint64 // of the leadership, or 0
		refuse bool
	}
}

// listener hears what its partition hears.
type listener struct {
	replica.Listener
	group *group
	node  *node
	id    uint32
}

// Lead implements replica.Listener.
func (l listener) Lead(epoch uint64) {
	l.group.mu.Lock()
	l.group.mu.epoch = epoch
	l.group.mu.Unlock()
	l.Listener.Lead(epoch)
	l.node.led(int(l.id - 1))
}

// StepDown implements replica.Listener.
func (l listener) StepDown(epoch uint64, cause error) {
	l.group.mu.Lock()
	if l.group.mu.epoch == epoch {
		l.group.mu.epoch = 0
	}
	l.group.mu.Unlock()
	l.Listener.StepDown(epoch, cause)
}

func (n *node) attach(id uint32, p *partition.Partition) partition.Group {
	g := &group{}
	g.raft = n.host.Attach(replica.GroupID(id), listener{p, g, n, id})
	g.Group = g.raft
	n.groups = append(n.groups, g)
	return g
}

var errRefused = errors.New("the simulation refuses this record")

// Propose implements partition.Group.
func (g *group) Propose(epoch, sequence uint64, payload []byte) error {
	g.mu.Lock()
	refuse := g.mu.refuse
	g.mu.refuse = false
	g.mu.Unlock()
	if refuse {
		return errRefused
	}
	return g.Group.Propose(epoch, sequence, payload)
}

// refuseNext makes the partition give up with the next record it wants to write: what was
// proposed before takes effect, what was evaluated since does not.
func (g *group) refuseNext() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.refuse = true
}

// unseat makes the group step down now: whether the records on their way take effect is open.
func (g *group) unseat() {
	g.mu.Lock()
	epoch := g.mu.epoch
	g.mu.Unlock()
	_ = g.Group.Propose(epoch, 1<<64-1, nil) // which is never the next sequence
}

// loseLeader takes one partition's leadership away.
func (n *node) loseLeader(partition int, chance *chance) {
	if chance.intn(2) == 0 {
		n.groups[partition].refuseNext()
	} else {
		n.groups[partition].unseat()
	}
}

// between is the network between partitions: most messages arrive at once, some later than
// those sent after them, some twice, some never. Every so often one costs its receiver or its
// sender the leadership, so that this happens in the middle of what they talk about.
func (n *node) between(from, to uint32, deliver func()) {
	chance := n.world.network
	if n.world.calm.Load() {
		deliver()
		return
	}
	fate := chance.intn(1000)
	n.world.events.add("between", int(from), int(to), fate, uint64(n.number))
	switch {
	case fate < 15: // lost
		return
	case fate < 30:
		deliver()
		time.AfterFunc(chance.between(0, 20*time.Millisecond), deliver)
		return
	case fate < 150:
		time.AfterFunc(chance.between(0, 10*time.Millisecond), deliver)
		return
	case fate < 160:
		time.AfterFunc(chance.between(0, n.world.load.brief(3*time.Second)), deliver)
		return
	case fate < 163:
		n.loseLeader(int(to-1), chance)
	case fate < 166:
		n.loseLeader(int(from-1), chance)
	}
	deliver()
}
