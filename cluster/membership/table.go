package membership

import (
	"maps"
	"slices"
	"time"
)

// instance is one process of a node, a member for the library.
type instance struct {
	Member
	name string
}

// table is what is known of instances, by name. Its owner locks.
type table map[string]*instance

// better says which of two instances of a node speaks for it.
func better(a, b *instance) bool {
	if (a.State == Alive) != (b.State == Alive) {
		return a.State == Alive
	}
	return a.Generation > b.Generation
}

// best are the instances that speak for their nodes.
func (t table) best() map[uint64]*instance {
	nodes := map[uint64]*instance{}
	for _, i := range t {
		if other := nodes[i.NodeID]; other == nil || better(i, other) {
			nodes[i.NodeID] = i
		}
	}
	return nodes
}

// members has one entry for each node, by id.
func (t table) members() []Member {
	nodes := t.best()
	list := make([]Member, 0, len(nodes))
	for _, id := range slices.Sorted(maps.Keys(nodes)) {
		list = append(list, nodes[id].Member)
	}
	return list
}

// forget removes what is dead and either long so or replaced by a later process. It reports
// whether the members have changed.
func (t table) forget(before time.Time) bool {
	nodes := t.best()
	changed := false
	for name, i := range t {
		if i.State == Alive {
			continue
		}
		if nodes[i.NodeID] != i {
			delete(t, name)
		} else if i.Since.Before(before) {
			delete(t, name)
			changed = true
		}
	}
	return changed
}

// alive reports whether a node has an instance that is alive.
func (t table) alive(node uint64) bool {
	for _, i := range t {
		if i.NodeID == node && i.State == Alive {
			return true
		}
	}
	return false
}
