package sim

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/perdure/perdure/cluster/balance/remote"
	"github.com/perdure/perdure/cluster/placement"
	"github.com/perdure/perdure/cluster/replica"
	"github.com/perdure/perdure/storage/memstore"
	"github.com/perdure/perdure/storage/vfs"
)

// copies is how many replicas of a partition there should be.
const copies = 3

// members are the nodes of a cluster, and what drives them.
type members struct {
	world *world
	net   *network
	disks []disks
	nodes []*node // by number; nil while it is down
	// upAt is when a node that is down is started again.
	upAt []time.Time
	// away are those that there is no process for: it has not joined yet, or its disks were lost.
	away []bool
	// leaving is the id of a node that was removed and has replicas still; 0 is none.
	leaving uint64
	// lifts end faults that last for a while, by node.
	lifts []lift

	mu struct {
		sync.Mutex
		states []placement.State
		joined int // seats that have had a node
	}
}

func newMembers(w *world) *members {
	m := &members{world: w, net: newNetwork(w, w.load.nodes+spares)}
	seats := len(m.net.mu.nodes)
	m.nodes, m.upAt, m.away = make([]*node, seats), make([]time.Time, seats), make([]bool, seats)
	m.mu.states, m.mu.joined = make([]placement.State, seats), w.load.nodes
	for number := range seats {
		m.away[number] = number >= w.load.nodes
		m.disks = append(m.disks, disks{vfs.NewMem(), memstore.New(memstore.Options{})})
	}
	return m
}

// start brings a node up.
func (m *members) start(number int) {
	n, err := m.world.open(number, m.disks[number], m.net)
	if err != nil {
		m.world.trace("node %d: %v", number+1, err)
		m.disks[number].log.ClearFaults()
		n, err = m.world.open(number, m.disks[number], m.net)
	}
	if err != nil {
		m.world.fail("node %d does not open: %v", number+1, err)
		return
	}
	n.local.ReleaseSchedules()
	m.nodes[number] = n
	m.net.join(n)
	m.connect()
	m.announce()
	m.world.trace("node %d is up", number+1)
}

// connect tells all nodes of new connections to all others.
func (m *members) connect() {
	for _, n := range m.up() {
		for _, other := range m.up() {
			if there, _ := m.net.reach(n, other.id()); there == other && other != n {
				n.Connected(other.id())
			}
		}
	}
}

// announce tells callers which nodes there are.
func (m *members) announce() {
	m.world.setNodes(m.up()...)
}

func (m *members) up() []*node {
	return slices.DeleteFunc(slices.Clone(m.nodes), func(n *node) bool { return n == nil })
}

// end takes a node down: how returns its disks.
func (m *members) end(n *node, how func() disks) {
	m.nodes[n.number] = nil
	m.announce()
	at := how()
	m.net.leave(n)
	m.lift(func(l lift) bool { return l.node == n })
	// Of a process that ended with a full disk, what is left has space.
	at.log.SetCapacity(-1)
	at.store.NoSpace(false)
	m.disks[n.number] = at
	m.upAt[n.number] = time.Now().Add(m.world.back.between(0, m.world.load.brief(3*time.Second)))
}

// drive runs the cluster and breaks it until the callers are done.
func (m *members) drive(done <-chan struct{}) {
	w := m.world
	for number := range w.load.nodes {
		m.start(number)
	}
	placing, stopPlacing := context.WithCancel(context.Background())
	var placed sync.WaitGroup
	placed.Go(func() { m.place(placing) })
	next := w.nextStrike()
	for busy := true; busy && w.failure() == ""; {
		select {
		case <-done:
			busy = false
		case <-time.After(next.wait):
			now := time.Now()
			m.revive(now)
			m.part()
			m.lift(func(l lift) bool { return !now.Before(l.at) })
			m.strike(next)
			next = w.nextStrike()
		}
	}
	m.calm()
	if w.failure() == "" {
		m.settle()
	}
	stopPlacing()
	placed.Wait()
	for _, n := range m.up() {
		m.end(n, n.stop)
	}
	m.net.postman.close()
}

// revive restarts nodes that ended by themselves, and those whose time has come.
func (m *members) revive(now time.Time) {
	for number, n := range m.nodes {
		if n != nil {
			select {
			case <-n.ended:
				m.world.trace("node %d ended by itself", number+1)
				m.end(n, n.stop)
			default:
			}
		}
		if m.nodes[number] == nil && !m.away[number] && !now.Before(m.upAt[number]) {
			m.start(number)
		}
	}
}

// calm ends all faults and brings all nodes up.
func (m *members) calm() {
	m.world.trace("calm")
	m.world.calm.Store(true)
	m.net.heal()
	m.setClocks()
	m.lift(func(lift) bool { return true })
	m.mu.Lock()
	for number, state := range m.mu.states {
		if state == placement.Draining {
			m.mu.states[number] = placement.Active
		}
	}
	m.mu.Unlock()
	for _, n := range m.up() {
		m.end(n, n.stop) // with disks that have faults
	}
	for number := range m.nodes {
		if !m.away[number] {
			m.disks[number].log.ClearFaults()
			m.start(number)
		}
	}
}

// settle waits until nothing is left to do, and checks what there is.
func (m *members) settle() {
	w := m.world
	for _, n := range m.up() {
		ready, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		err := n.Ready(ready)
		cancel()
		if err != nil {
			w.fail("on good disks and links node %d is not ready after 20 s: %v", n.id(), err)
			return
		}
	}
	n, _ := w.pick()
	w.checkExecuted(n)
	w.settle(n)
	deadline := time.Now().Add(time.Minute)
	for w.failure() == "" {
		plan := placement.Next(m.look())
		if len(plan.Steps) == 0 && len(plan.Waits) == 0 {
			break
		}
		if time.Now().After(deadline) {
			w.fail("replicas don't come to rest: %v %v", plan.Steps, plan.Waits)
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	m.checkReplicas()
	w.trace("all is checked")
}

// place does what whoever leads group 0 does: it looks and carries out steps, over the network of
// nobody, since all that it does is compare-and-set.
func (m *members) place(ctx context.Context) {
	var steps sync.WaitGroup
	defer steps.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(50 * time.Millisecond):
		}
		m.gossip()
		plan := placement.Next(m.look())
		for _, step := range plan.Steps {
			n := m.running(step.Leader)
			if n == nil {
				continue
			}
			m.world.trace("%s: %s", step.Describe(func(id uint64) string { return fmt.Sprint("node ", id) }), step.Reason)
			trying, cancel := context.WithTimeout(ctx, time.Second)
			if err := n.carryOut(trying, step); err != nil {
				m.world.trace("%v", err)
			}
			cancel()
		}
	}
}

// gossip lets nodes that reach each other know who leads what: those without a replica of a
// partition hear of it in no other way.
func (m *members) gossip() {
	for number := range m.disks {
		from := m.running(uint64(number + 1))
		if from == nil {
			continue
		}
		for i, g := range from.groups {
			status := g.raft.Status()
			if status.Epoch == 0 {
				continue
			}
			for other := range m.disks {
				if to, _ := m.net.reach(from, uint64(other+1)); to != nil && to != from {
					to.Learned(uint32(i+1), from.id(), status.Term)
				}
			}
		}
	}
}

// running is the process of a node that answers, or nil. A paused one would keep whoever asks waiting.
func (m *members) running(id uint64) *node {
	m.net.mu.Lock()
	defer m.net.mu.Unlock()
	if n := m.net.mu.nodes[id-1]; n != nil && n.paused.Load() == nil {
		return n
	}
	return nil
}

// look is the cluster as placement sees it.
func (m *members) look() placement.Input {
	in := placement.Input{Replicas: copies, Limit: 4}
	m.mu.Lock()
	states := slices.Clone(m.mu.states[:m.mu.joined])
	m.mu.Unlock()
	best := map[uint32]replica.GroupStatus{}
	for number := range states {
		node := placement.Node{ID: uint64(number + 1), State: states[number]}
		n := m.running(node.ID)
		if n == nil {
			node.Health = placement.Silent
		} else {
			for i, g := range n.groups {
				status := g.raft.Status()
				if id := uint32(i + 1); status.Epoch > best[id].Epoch {
					best[id] = status
				}
			}
		}
		in.Nodes = append(in.Nodes, node)
	}
	for id := uint32(1); id <= uint32(m.world.load.partitions); id++ {
		status, ok := best[id]
		if !ok {
			continue
		}
		p := placement.Partition{ID: id, Leader: status.Leader, Voters: status.Voters, Learners: status.Learners, Outgoing: status.Outgoing, CaughtUp: map[uint64]bool{status.Leader: true}}
		for _, other := range status.Peers {
			p.CaughtUp[other.Node] = other.CaughtUp
		}
		in.Partitions = append(in.Partitions, p)
	}
	return in
}

// carryOut does a step that this node's partition is asked for.
func (n *node) carryOut(ctx context.Context, step placement.Step) error {
	g := n.groups[step.Partition-1].raft
	if step.Kind == placement.Transfer {
		return g.TransferLeadership(step.To)
	}
	return g.Reconfigure(ctx, remote.ChangeTo(
		replica.Members{Voters: step.Expect.Voters, Learners: step.Expect.Learners}, replica.Members{Voters: step.Want.Voters, Learners: step.Want.Learners}))
}
