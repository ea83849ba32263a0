package sim

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/perdure/perdure/cluster/replica/rows"
	"github.com/perdure/perdure/internal/table"
)

// checkReplicas compares what the voters of each partition have. A follower that lacks something shows it to
// nobody until it leads.
func (m *members) checkReplicas() {
	deadline := time.Now().Add(10 * time.Second)
	for id := uint32(1); id <= uint32(m.world.load.partitions) && m.world.failure() == ""; id++ {
		for {
			differ := m.differ(id)
			if differ == "" {
				break
			}
			if time.Now().After(deadline) {
				m.world.fail("replicas of partition %d don't become the same: %s", id, differ)
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// row is one of a store, without the generation that its replica keeps it under.
type row struct{ key, value []byte }

// differ says what two replicas of a partition do not have in common.
func (m *members) differ(id uint32) string {
	var voters []uint64
	for _, p := range m.look().Partitions {
		if p.ID == id {
			voters = p.Voters
		}
	}
	if len(voters) < copies {
		return fmt.Sprintf("its voters are %d", voters)
	}
	first := m.replica(voters[0], id)
	for _, other := range voters[1:] {
		got := m.replica(other, id)
		for i := range min(len(first), len(got)) {
			if a, b := first[i], got[i]; !bytes.Equal(a.key, b.key) || !bytes.Equal(a.value, b.value) {
				return fmt.Sprintf("node %d has %q: %q, node %d has %q: %q", voters[0], a.key, a.value, other, b.key, b.value)
			}
		}
		if len(first) != len(got) {
			return fmt.Sprintf("node %d has %d rows, node %d has %d", voters[0], len(first), other, len(got))
		}
	}
	return ""
}

// replica is all that a node has of a partition, as far as it is applied first.
func (m *members) replica(node uint64, id uint32) []row {
	n := m.running(node)
	if n == nil {
		return nil
	}
	return n.rows(id, nil, nil)
}

// rows are those that a node has of a partition, as far as it is applied first.
func (n *node) rows(id uint32, lower, upper []byte) (all []row) {
	view := n.disks.store.Snapshot()
	defer view.Release()
	applied, ok, err := view.Get(rows.Applied.Key(id))
	if err != nil || !ok {
		return nil
	}
	generation := applied[1]
	applied = slices.Clone(applied)
	applied[1] = 0
	all = append(all, row{[]byte("applied"), applied})
	partition := rows.NewView(view, rows.Prefix(id, generation))
	if err := partition.Scan(lower, upper, func(key, value []byte) bool {
		all = append(all, row{slices.Clone(key), slices.Clone(value)})
		return true
	}); err != nil {
		n.world.fail("node %d: rows of partition %d: %v", n.id(), id, err)
	}
	return all
}

// unacknowledged says what of messages between partitions has not arrived, as far as their senders know, and which transactions
// have not been told that they are over, or "". n is a node to ask.
func (w *world) unacknowledged(n *node) string {
	nodes := []*node{n}
	if w.load.nodes > 0 {
		w.mu.Lock()
		nodes = w.mu.nodes
		w.mu.Unlock()
	}
	for id := uint32(1); id <= uint32(w.load.partitions); id++ {
		at := slices.IndexFunc(nodes, func(n *node) bool { return n.groups[id-1].leads() != 0 })
		if at < 0 {
			return fmt.Sprintf("partition %d has no leader", id)
		}
		lower, upper := table.OutboxAll()
		if all := nodes[at].rows(id, lower, upper); len(all) > 1 { // what is applied comes first
			return fmt.Sprintf("%d messages of partition %d", len(all)-1, id)
		}
	}
	left, err := n.Transactions(context.Background())
	if err != nil {
		return err.Error()
	}
	if len(left) > 0 {
		return fmt.Sprintf("transaction %s/%d is %v in partition %d: %s", left[0].Root, left[0].Sequence, left[0].Phase, left[0].Partition, left[0].Reason)
	}
	return ""
}
