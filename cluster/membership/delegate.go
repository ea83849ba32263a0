package membership

import (
	"fmt"
	"time"

	"github.com/hashicorp/memberlist"
)

// delegate is what the library calls, some of it while it holds its locks.
type delegate struct{ m *Membership }

var (
	_ memberlist.Delegate      = delegate{}
	_ memberlist.EventDelegate = delegate{}
	_ memberlist.AliveDelegate = delegate{}
	_ memberlist.MergeDelegate = delegate{}
)

// NodeMeta is what this node says of itself.
func (d delegate) NodeMeta(int) []byte {
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	return d.m.mu.encoded
}

// NotifyMsg brings facts.
func (d delegate) NotifyMsg(message []byte) { d.m.received(decodeFacts(message), true) }

// GetBroadcasts has facts to pass on.
func (d delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.m.queue.GetBroadcasts(overhead, limit)
}

// LocalState and MergeRemoteState are an exchange.
func (d delegate) LocalState(bool) []byte { return encodeFacts(d.m.allFacts()) }

func (d delegate) MergeRemoteState(state []byte, _ bool) { d.m.received(decodeFacts(state), false) }

// NotifyAlive ignores members of other clusters. A node without a cluster takes the first it hears of.
func (d delegate) NotifyAlive(peer *memberlist.Node) error {
	meta, node, _, err := decodeMeta(peer.Meta)
	if err != nil {
		return err
	}
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	if err := d.m.foreignLocked(meta, node, peer); err != nil {
		return err
	}
	if ours := d.m.mu.meta; ours.ClusterID == "" && meta.ClusterID != "" {
		ours.ClusterID = meta.ClusterID
		return d.m.setMetaLocked(ours)
	}
	return nil
}

// foreignLocked is why a member does not belong to this node's cluster.
func (m *Membership) foreignLocked(meta Meta, node uint64, peer *memberlist.Node) error {
	ours := m.mu.meta.ClusterID
	if ours == "" || meta.ClusterID == "" || ours == meta.ClusterID {
		return nil
	}
	return fmt.Errorf("node %s at %s is of cluster %s and this node of cluster %s: two clusters share a seed or an address; correct the seeds of one of them",
		nodeName(node), peer.Address(), meta.ClusterID, ours)
}

// NotifyMerge refuses an exchange with another cluster as a whole.
func (d delegate) NotifyMerge(peers []*memberlist.Node) error {
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	for _, peer := range peers {
		meta, node, _, err := decodeMeta(peer.Meta)
		if err != nil {
			return fmt.Errorf("%s at %s: %w", peer.Name, peer.Address(), err)
		}
		if err := d.m.foreignLocked(meta, node, peer); err != nil {
			return err
		}
	}
	return nil
}

// NotifyJoin and those below are called in the order of what happened.
func (d delegate) NotifyJoin(node *memberlist.Node) { d.m.note(node, Alive) }

// NotifyUpdate tells of a new meta.
func (d delegate) NotifyUpdate(node *memberlist.Node) { d.m.note(node, Alive) }

// NotifyLeave tells of a node that left or died; the library doesn't say which.
func (d delegate) NotifyLeave(node *memberlist.Node) { d.m.note(node, Dead) }

// relabelLocked takes those for left of which it became known after they were found dead.
func (m *Membership) relabelLocked() {
	for _, i := range m.mu.table {
		if i.State == Dead && m.leftLocked(i.NodeID, i.Generation) {
			i.State = Left
		}
	}
}

func (m *Membership) note(node *memberlist.Node, state State) {
	meta, id, generation, err := decodeMeta(node.Meta)
	if err != nil {
		return // NotifyAlive has refused it
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if state == Dead && m.leftLocked(id, generation) {
		state = Left
	}
	i := m.mu.table[node.Name]
	if i == nil {
		i = &instance{name: node.Name}
		i.State = state + 1 // so that Since is set
		m.mu.table[node.Name] = i
	}
	if i.State != state {
		i.State, i.Since = state, time.Now()
	}
	i.NodeID, i.Generation, i.Meta, i.Gossip, i.Self = id, generation, meta, node.Address(), node.Name == m.name
	m.mu.stale = true
	m.mu.table.forget(time.Time{}) // the earlier processes
	alive := 0
	for _, i := range m.mu.table {
		if i.State == Alive {
			alive++
		}
	}
	m.alive.Store(int64(alive))
	signal(m.changes)
}
