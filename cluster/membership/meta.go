package membership

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	membershipv1 "github.com/perdure/perdure/internal/membership/v1"
)

// Meta is what a node says of itself.
type Meta struct {
	// ClusterID is empty for a node that joins; it is then set when a cluster is found.
	ClusterID string
	// Joining says that the node is not admitted to the cluster yet.
	Joining bool
	// Starting says that the node can't be asked anything yet.
	Starting bool
	// Draining says that the node is about to stop.
	Draining bool
	// Partitions is how many the cluster has.
	Partitions uint32
	// Transport and Ingress are where they are reached, host:port.
	Transport, Ingress string
	// Version is the node's build, for people.
	Version string
	// FeatureLevel is up to which level the node's program reads records: see package registry. 0 in
	// what another node says is 1.
	FeatureLevel uint32
	// Zone is where the node is, in words of whoever runs it.
	Zone string
}

// State is what a node seems to be.
type State uint8

// The states of a Member.
const (
	// Alive members answer.
	Alive State = iota
	// Left members said that they stop.
	Left
	// Dead members don't answer, and didn't say why.
	Dead
)

// String is the state in a word.
func (s State) String() string { return [...]string{"alive", "left", "dead"}[min(s, Dead)] }

// Member is what is known of a node.
type Member struct {
	NodeID uint64
	Meta
	// Gossip is where it gossips, host:port.
	Gossip string
	// State is what it seems to be, Since when this node first thought so.
	State State
	Since time.Time
	// Self is set for the node that is asked.
	Self bool
	// Generation is larger for a later process of the node.
	Generation uint64
}

// formatVersion is the first byte of what is gossiped. What nodes of adjacent versions must both
// understand changes by protobuf's rules; this byte changes if that is not enough.
const formatVersion = 1

// metaBytes is what the library takes.
const metaBytes = 512

func encodeMeta(meta Meta, node, generation uint64) ([]byte, error) {
	message := &membershipv1.Meta{
		ClusterId: meta.ClusterID, Node: node, Generation: generation, Partitions: meta.Partitions, Transport: meta.Transport,
		Ingress: meta.Ingress, Version: meta.Version, Zone: meta.Zone, Joining: meta.Joining, Draining: meta.Draining,
		FeatureLevel: meta.FeatureLevel, Starting: meta.Starting,
	}
	encoded, err := proto.MarshalOptions{}.MarshalAppend([]byte{formatVersion}, message)
	if err != nil {
		return nil, fmt.Errorf("membership: what the node says of itself: %w", err)
	}
	if len(encoded) > metaBytes {
		return nil, fmt.Errorf("membership: what the node says of itself is %d bytes, and gossip takes %d: shorten version (%d bytes), zone (%d), transport (%d) or ingress address (%d)",
			len(encoded), metaBytes, len(meta.Version), len(meta.Zone), len(meta.Transport), len(meta.Ingress))
	}
	return encoded, nil
}

func decodeMeta(encoded []byte) (meta Meta, node, generation uint64, err error) {
	if len(encoded) == 0 || encoded[0] != formatVersion {
		return Meta{}, 0, 0, errors.New("it gossips in another format: it is another program, or of a version that doesn't run together with this one")
	}
	var message membershipv1.Meta
	if err := proto.Unmarshal(encoded[1:], &message); err != nil {
		return Meta{}, 0, 0, fmt.Errorf("what it says of itself: %w", err)
	}
	if message.Node == 0 {
		return Meta{}, 0, 0, errors.New("it has no node id")
	}
	return Meta{
		ClusterID: message.ClusterId, Joining: message.Joining, Draining: message.Draining, Partitions: message.Partitions,
		Transport: message.Transport, Ingress: message.Ingress, Version: message.Version, Zone: message.Zone,
		FeatureLevel: message.FeatureLevel, Starting: message.Starting,
	}, message.Node, message.Generation, nil
}
