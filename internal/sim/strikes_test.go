package sim

import (
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/perdure/perdure/cluster/placement"
	"github.com/perdure/perdure/storage/memstore"
	"github.com/perdure/perdure/storage/vfs"
)

// spares are seats for nodes that come back without their disks, as others.
const spares = 1

// maxWrong is by how much a clock may be wrong.
const maxWrong = 5 * time.Minute

// strike is a fault, after some time. All of it follows from the seed and from how many there
// were before, whatever the cluster does meanwhile.
type strike struct {
	wait  time.Duration
	fault int
	node  int     // that it strikes, if that is up
	fine  *chance // what is left to decide about it
	seed  int
}

func (s strike) String() string {
	return fmt.Sprintf("after %s fault %d of node %d, %d", s.wait, s.fault, s.node+1, s.seed)
}

// nextStrike draws as often each time.
func (w *world) nextStrike() strike {
	s := strike{wait: w.plan.between(time.Millisecond, w.load.pause), fault: w.plan.intn(32), node: w.plan.intn(w.load.nodes), seed: w.plan.intn(1 << 30)}
	s.fine = newChance(uint64(s.seed), 6)
	w.note("strikes", s.String())
	return s
}

// lift ends a fault of a process.
type lift struct {
	at   time.Time
	node *node
	do   func()
}

// later ends a fault after a while, or with the process.
func (m *members) later(n *node, after time.Duration, do func()) {
	m.lifts = append(m.lifts, lift{time.Now().Add(m.world.load.brief(after)), n, do})
}

// lift ends those faults that are chosen.
func (m *members) lift(chosen func(lift) bool) {
	var left []lift
	for _, l := range m.lifts {
		if chosen(l) {
			l.do()
		} else {
			left = append(left, l)
		}
	}
	m.lifts = left
}

// setClocks makes all wall clocks show the same, as late as any ever did: what waits for an instant
// that one of them was asked for does not wait long.
func (m *members) setClocks() {
	for i := range m.world.clocks {
		m.world.clocks[i].Store(m.world.latest)
	}
}

// split cuts the links between any two nodes that are not on one side.
func (m *members) split(side func(int) int) {
	for a := range m.nodes {
		for b := range m.nodes {
			if side(a) != side(b) {
				m.net.sever(a, b)
			}
		}
	}
}

// strike does something bad.
func (m *members) strike(s strike) {
	w, fine := m.world, s.fine
	n := m.nodes[s.node]
	if m.away[s.node] { // The node that came in its place is struck.
		n = m.nodes[w.load.nodes]
	}
	if n == nil {
		return
	}
	name := n.number + 1
	up := m.up()
	crash := func(n *node) { m.end(n, func() disks { return n.crash(uint64(fine.intn(1 << 30))) }) }
	switch s.fault {
	case 0, 1:
		w.trace("power cut of node %d", name)
		crash(n)
	case 2:
		w.trace("restart of node %d", name)
		m.end(n, n.stop)
	case 3:
		w.trace("power cut of all")
		for _, n := range up {
			crash(n)
		}
	case 4:
		m.two(n, up[fine.intn(len(up))], fine)
	case 5:
		w.trace("node %d is cut off", name)
		m.split(func(other int) int { return map[bool]int{true: 1}[other == n.number] })
	case 6:
		to := fine.intn(len(m.nodes))
		w.trace("node %d is not heard by node %d", name, to+1)
		m.net.sever(n.number, to)
	case 7:
		w.trace("node %d hears nobody", name)
		for other := range m.nodes {
			m.net.sever(other, n.number)
		}
	case 8:
		w.trace("nobody hears node %d", name)
		for other := range m.nodes {
			m.net.sever(n.number, other)
		}
	case 9:
		side := fine.intn(1 << len(m.nodes))
		w.trace("the cluster falls in two: %b", side)
		m.split(func(number int) int { return side >> number & 1 })
	case 10:
		var side []int
		for range m.nodes {
			side = append(side, fine.intn(3))
		}
		w.trace("the cluster falls in three: %d", side)
		m.split(func(number int) int { return side[number] })
	case 11:
		w.trace("a third of all directions is cut")
		for a := range m.nodes {
			for b := range m.nodes {
				if fine.intn(3) == 0 {
					m.net.sever(a, b)
				}
			}
		}
	case 12:
		w.trace("a sync fails on node %d", name)
		n.disks.log.Inject(vfs.Fault{Op: vfs.OpSync, After: fine.intn(4), Err: syscall.EIO, LosesDirty: fine.intn(2) == 0})
	case 13:
		w.trace("a write fails on node %d", name)
		n.disks.log.Inject(vfs.Fault{Op: vfs.OpWrite, After: fine.intn(4), Err: syscall.EIO, Written: fine.intn(64)})
	case 14:
		w.trace("a commit fails on node %d", name)
		n.disks.store.FailCommit(1+fine.intn(3), memstore.Outcome(1+fine.intn(3)))
	case 15:
		w.trace("the log's disk of node %d is full", name)
		n.disks.log.SetCapacity(1)
		m.later(n, fine.between(10*time.Millisecond, 3*time.Second), func() {
			n.disks.log.SetCapacity(-1)
			w.trace("the log's disk of node %d has space again", name)
		})
	case 16:
		w.trace("the store's disk of node %d is full", name)
		n.disks.store.NoSpace(true)
		m.later(n, fine.between(10*time.Millisecond, 3*time.Second), func() {
			n.disks.store.NoSpace(false)
			w.trace("the store's disk of node %d has space again", name)
		})
	case 17:
		drag := w.load.brief(fine.between(50*time.Millisecond, 3*time.Second))
		w.trace("each sync of node %d takes %s", name, drag)
		n.drag.Store(int64(drag))
		m.later(n, fine.between(100*time.Millisecond, 6*time.Second), func() {
			n.drag.Store(0)
			w.trace("the disk of node %d is fast again", name)
		})
	case 18, 19:
		wrong := int64(fine.between(0, 2*maxWrong) - maxWrong)
		w.trace("the clock of node %d jumps by %s", name, time.Duration(wrong-w.clocks[n.number].Swap(wrong)))
		w.latest = max(w.latest, wrong)
	case 20:
		w.trace("the clocks are set")
		m.setClocks()
	case 21:
		partition := fine.intn(w.load.partitions)
		w.trace("partition %d loses its leader", partition+1)
		for _, n := range up {
			n.loseLeader(partition, fine)
		}
	case 22:
		m.mu.Lock()
		state := m.mu.states[n.number]
		switch state {
		case placement.Draining:
			state = placement.Active
		case placement.Active:
			state = placement.Draining
		}
		m.mu.states[n.number] = state
		m.mu.Unlock()
		w.trace("node %d becomes %v", name, map[placement.State]string{placement.Draining: "draining", placement.Active: "active", placement.Removed: "removed, as it was"}[state])
	case 23:
		m.lose(n)
	case 24:
		w.trace("node %d stands still", name)
		n.pause()
		m.later(n, fine.between(20*time.Millisecond, 4*time.Second), func() {
			w.trace("node %d goes on", name)
			n.resume()
		})
	case 25:
		m.leave(n)
	default:
		m.net.heal()
		m.connect()
	}
}

// two ends two nodes at once, each in order or by a power cut.
func (m *members) two(a, b *node, fine *chance) {
	m.world.trace("nodes %d and %d end at once", a.number+1, b.number+1)
	for _, n := range slices.Compact([]*node{a, b}) {
		m.nodes[n.number] = nil // neither is called any more
		if seed := uint64(fine.intn(1 << 30)); seed%2 == 0 {
			m.end(n, func() disks { return n.crash(seed) })
		} else {
			stopped := make(chan disks, 1)
			go func() { stopped <- n.stop() }()
			defer m.end(n, func() disks { return <-stopped })
		}
	}
}

// lose takes a node and its disks away for ever. In its place comes one that has nothing, and is
// another, since what the lost one has promised nobody knows. It happens once: a second
// loss, before each partition has its copies again, is more than three replicas are for.
func (m *members) lose(n *node) {
	if !m.replace(n) {
		return
	}
	m.world.trace("node %d loses its disks", n.number+1)
	m.away[n.number] = true
	m.end(n, func() disks { return n.crash(0) })
}

// leave removes a node that is well, and has another one join. It goes once it has no replica any more.
func (m *members) leave(n *node) {
	if m.replace(n) {
		m.world.trace("node %d is removed", n.number+1)
		m.leaving = n.id()
	}
}

// replace has the spare node join in the place of another, if nothing speaks against it.
func (m *members) replace(n *node) bool {
	spare := m.world.load.nodes
	if n.number == spare || !m.away[spare] {
		return false
	}
	in := m.look()
	if len(in.Partitions) < m.world.load.partitions {
		return false
	}
	for _, p := range in.Partitions {
		if len(p.Voters) < copies || len(p.Outgoing) > 0 && len(p.Outgoing) < copies {
			return false // it still grows from its founder
		}
	}
	m.away[spare] = false
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.states[n.number], m.mu.joined = placement.Removed, spare+1
	return true
}

// part ends a node that was removed, for ever, once nobody counts on it.
func (m *members) part() {
	if m.leaving == 0 {
		return
	}
	n, in := m.nodes[m.leaving-1], m.look()
	if n == nil || len(in.Partitions) < m.world.load.partitions {
		return
	}
	for _, p := range in.Partitions {
		if slices.Contains(slices.Concat(p.Voters, p.Learners, p.Outgoing), m.leaving) {
			return
		}
	}
	m.world.trace("node %d has nothing any more, and goes", n.number+1)
	m.away[n.number], m.leaving = true, 0
	m.end(n, n.stop)
}
