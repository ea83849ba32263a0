package transport

import (
	"errors"
	"fmt"
	"slices"
)

// Hello is who calls whom.
type Hello struct {
	// ClusterID is the caller's; empty if it has joined none yet.
	ClusterID string
	// From and To are node ids.
	From, To uint64
	// Versions are what the caller speaks.
	Versions Versions
	// Build is the caller's.
	Build string
}

// Check decides whether a node that says hello is let in by one with this configuration, which is
// of the given cluster, for method, or for frames and streams if that is empty. It returns the
// newest version of the protocol that both speak.
func (c *Config) Check(clusterID string, hello Hello, method string) (version uint32, refused *Refused) {
	refuse := func(reason Reason, format string, args ...any) (uint32, *Refused) {
		return 0, &Refused{Node: c.NodeID, Reason: reason, Message: fmt.Sprintf(format, args...)}
	}
	open := method != "" && slices.Contains(c.OpenMethods, method)
	if clusterID == "" {
		return refuse(ReasonNotReady, "this node has not joined a cluster yet; it serves once it has")
	}
	if hello.ClusterID != clusterID && (hello.ClusterID != "" || !open) {
		if hello.ClusterID == "" {
			return refuse(ReasonNotMember, "node %016x has not joined cluster %s; it must be admitted before it speaks for itself", hello.From, clusterID)
		}
		return refuse(ReasonWrongCluster, "this is a node of cluster %s and the caller is of cluster %s: two clusters share an address; correct the seeds and addresses of one of them", clusterID, hello.ClusterID)
	}
	if hello.To != c.NodeID {
		return refuse(ReasonWrongNode, "this is node %016x and the caller means node %016x: the address is out of date; it is corrected by the next gossip, or else an advertised address is wrong", c.NodeID, hello.To)
	}
	if hello.From == c.NodeID || hello.From == 0 {
		return refuse(ReasonWrongNode, "the caller's node id is %016x, which can't be another node's: was a data directory copied? Give each node its own", hello.From)
	}
	version = c.Versions.common(hello.Versions)
	if version == 0 {
		return refuse(ReasonVersion, "this node (build %s) speaks transport %s and the caller (build %s) %s: upgrade by one minor version at a time, so that nodes of adjacent versions meet",
			c.Build, c.Versions, hello.Build, hello.Versions)
	}
	if c.Admit == nil || open {
		return version, nil
	}
	if err := c.Admit(hello.From); err != nil {
		if errors.Is(err, ErrRemoved) {
			return refuse(ReasonRemoved, "node %016x was removed from the cluster and can't come back under this id: start it with an empty data directory to join as a new node (%s)", hello.From, err)
		}
		return refuse(ReasonNotMember, "node %016x is not a member: it is let in once the cluster has admitted it (%s)", hello.From, err)
	}
	return version, nil
}
