package cluster

import (
	"fmt"

	"github.com/perdure/perdure/cluster/placement"
	"github.com/perdure/perdure/cluster/transport"
)

// refused notes that another node lets this one not in.
func (n *network) refused(refused *transport.Refused) {
	switch refused.Reason {
	case transport.ReasonRemoved:
		n.fail(fmt.Errorf("this node was removed from its cluster: %w; to have it back, give it an empty data directory, and it joins as a new node", refused))
	case transport.ReasonCallerTooOld:
		n.tooOld(refused)
	case transport.ReasonStale:
		n.stale(refused)
	}
}

// tooOld stops a node that could be given records that it can't read.
func (n *network) tooOld(refused *transport.Refused) {
	n.fail(fmt.Errorf("this node's program (%s) is too old for its cluster: %w", Version(), refused))
}

// writtenLevel is up to which feature level records may be written, as far as group 0's rows here say.
func (n *network) writtenLevel() uint32 {
	if n.ready.Load() == nil {
		return 0
	}
	return n.registry.View().Settings.FeatureLevel
}

// admit says whether a node may speak to this one: group 0 knows it, or this node knows nothing
// of group 0 yet, and has only the cluster's id to go by.
func (n *network) admit(node uint64) error {
	to := n.ready.Load()
	if to == nil || n.registry.View().Version == 0 {
		return nil
	}
	known, ok := n.registry.View().Node(node)
	switch {
	case !ok:
		return fmt.Errorf("node %016x is %w yet; it is admitted once gossip knows it", node, transport.ErrNotMember)
	case known.State == placement.Removed:
		return fmt.Errorf("node %016x was %w", node, transport.ErrRemoved)
	}
	return nil
}
