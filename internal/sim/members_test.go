package sim

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"syscall"
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

	mu struct {
		sync.Mutex
		states []placement.State
	}
}

func newMembers(w *world) *members {
	m := &members{world: w, net: newNetwork(w, w.load.nodes)}
	m.nodes, m.upAt = make([]*node, w.load.nodes), make([]time.Time, w.load.nodes)
	m.mu.states = make([]placement.State, w.load.nodes)
	for range w.load.nodes {
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
	m.announce()
	m.world.trace("node %d is up", number+1)
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
	m.disks[n.number] = at
	m.upAt[n.number] = time.Now().Add(m.world.plan.between(0, 3*time.Second))
}

// drive runs the cluster and breaks it until the callers are done.
func (m *members) drive(done <-chan struct{}) {
	w := m.world
	for number := range m.nodes {
		m.start(number)
	}
	placing, stopPlacing := context.WithCancel(context.Background())
	var placed sync.WaitGroup
	placed.Go(func() { m.place(placing) })
	for busy := true; busy && w.failure() == ""; {
		select {
		case <-done:
			busy = false
		case <-time.After(w.plan.between(time.Millisecond, w.load.pause)):
			m.revive(time.Now())
			m.strike()
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
		if m.nodes[number] == nil && !now.Before(m.upAt[number]) {
			m.start(number)
		}
	}
}

// strike does something bad.
func (m *members) strike() {
	w := m.world
	up := m.up()
	if len(up) == 0 {
		return
	}
	n := up[w.plan.intn(len(up))]
	name := n.number + 1
	switch fault := w.plan.intn(20); fault {
	case 0, 1, 2:
		w.trace("power cut of node %d", name)
		m.end(n, func() disks { return n.crash(uint64(w.plan.intn(1 << 30))) })
	case 3:
		w.trace("restart of node %d", name)
		m.end(n, n.stop)
	case 4:
		w.trace("power cut of all")
		for _, n := range up {
			m.end(n, func() disks { return n.crash(uint64(w.plan.intn(1 << 30))) })
		}
	case 5, 6:
		w.trace("node %d is cut off", name)
		for other := range m.nodes {
			m.net.sever(n.number, other)
			m.net.sever(other, n.number)
		}
	case 7:
		to := w.plan.intn(len(m.nodes))
		w.trace("node %d is not heard by node %d", name, to+1)
		m.net.sever(n.number, to)
	case 8:
		w.trace("node %d hears nobody", name)
		for other := range m.nodes {
			m.net.sever(other, n.number)
		}
	case 9:
		w.trace("the cluster falls in two")
		side := w.plan.intn(1 << len(m.nodes))
		for a := range m.nodes {
			for b := range m.nodes {
				if side>>a&1 != side>>b&1 {
					m.net.sever(a, b)
				}
			}
		}
	case 10:
		w.trace("a sync fails on node %d", name)
		n.disks.log.Inject(vfs.Fault{Op: vfs.OpSync, After: w.plan.intn(4), Err: syscall.EIO, LosesDirty: w.plan.intn(2) == 0})
	case 11:
		w.trace("a commit fails on node %d", name)
		n.disks.store.FailCommit(1+w.plan.intn(3), memstore.Outcome(1+w.plan.intn(3)))
	case 12:
		partition := w.plan.intn(partitions)
		w.trace("partition %d loses its leader", partition+1)
		for _, n := range up {
			n.loseLeader(partition, w.plan)
		}
	case 13:
		m.mu.Lock()
		state := placement.Draining
		if m.mu.states[n.number] == state {
			state = placement.Active
		}
		m.mu.states[n.number] = state
		m.mu.Unlock()
		w.trace("node %d becomes %v", name, map[placement.State]string{placement.Draining: "draining", placement.Active: "active"}[state])
	default:
		m.net.heal()
	}
}

// calm ends all faults and brings all nodes up.
func (m *members) calm() {
	m.world.trace("calm")
	m.world.calm.Store(true)
	m.net.heal()
	m.mu.Lock()
	clear(m.mu.states)
	m.mu.Unlock()
	for _, n := range m.up() {
		m.end(n, n.stop) // with disks that have faults
	}
	for number := range m.nodes {
		m.disks[number].log.ClearFaults()
		m.start(number)
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
			return
		}
		if time.Now().After(deadline) {
			w.fail("replicas don't come to rest: %v %v", plan.Steps, plan.Waits)
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
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

func (m *members) running(id uint64) *node {
	m.net.mu.Lock()
	defer m.net.mu.Unlock()
	return m.net.mu.nodes[id-1]
}

// look is the cluster as placement sees it.
func (m *members) look() placement.Input {
	in := placement.Input{Replicas: copies, Limit: 4}
	m.mu.Lock()
	states := slices.Clone(m.mu.states)
	m.mu.Unlock()
	best := map[uint32]replica.GroupStatus{}
	for number := range m.disks {
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
	for id := uint32(1); id <= partitions; id++ {
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
