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
	// FeatureLevel is up to which level the caller's program reads records, and WrittenLevel up to
	// which they may be written as far as it knows. 0 are 1 and nothing known.
	FeatureLevel, WrittenLevel uint32
	// Log is what the caller's disk has.
	Log LogClaim
}

// LogClaim is what a process says of its node's log. The zero value says nothing.
type LogClaim struct {
	// Process tells processes of one node apart; it is not 0.
	Process uint64
	// Opened is how many frames the log had when the process began, Durable how many it has now.
	Opened, Durable uint64
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
	if c.Admit != nil && !open {
		if err := c.Admit(hello.From); err != nil {
			if errors.Is(err, ErrRemoved) {
				return refuse(ReasonRemoved, "node %016x was removed from the cluster and can't come back under this id: start it with an empty data directory to join as a new node (%s)", hello.From, err)
			}
			return refuse(ReasonNotMember, "node %016x is not a member: it is let in once the cluster has admitted it (%s)", hello.From, err)
		}
	}
	if c.CheckLog != nil {
		if err := c.CheckLog(hello.From, hello.Log); err != nil {
			return refuse(ReasonStale, "%s", err)
		}
	}
	if reads, written := max(hello.FeatureLevel, 1), c.writtenLevel(); reads < written {
		return refuse(ReasonCallerTooOld, "node %016x (build %s) reads records up to feature level %d, and this cluster may write level %d: start it with the version that the other nodes have (this node is build %s); nothing of its data was changed",
			hello.From, hello.Build, reads, written, c.Build)
	}
	if reads := max(c.FeatureLevel, 1); reads < hello.WrittenLevel {
		return refuse(ReasonCalleeTooOld, "node %016x (build %s) reads records up to feature level %d, and the cluster may write level %d: start it with the version that the other nodes have (node %016x is build %s); nothing of its data was changed",
			c.NodeID, c.Build, reads, hello.WrittenLevel, hello.From, hello.Build)
	}
	return version, nil
}

// writtenLevel is 0 while the node doesn't know.
func (c *Config) writtenLevel() uint32 {
	if c.WrittenLevel == nil {
		return 0
	}
	return c.WrittenLevel()
}

// claim is what this node says of its log now.
func (c *Config) claim() LogClaim {
	if c.Log == nil {
		return LogClaim{}
	}
	return c.Log()
}

// Hello is what this node says when it calls another.
func (c *Config) Hello(clusterID string, to uint64) Hello {
	return Hello{
		ClusterID: clusterID, From: c.NodeID, To: to, Versions: c.Versions, Build: c.Build,
		FeatureLevel: c.FeatureLevel, WrittenLevel: c.writtenLevel(), Log: c.claim(),
	}
}
