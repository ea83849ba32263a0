package registry

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/cluster/placement"
	"github.com/perdure/perdure/cluster/transport"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/storage"
)

// The keys of group 0. Frozen: they are on disk.
const (
	rowNode     = 'N' // id, 8 bytes big endian → recordv1.ClusterNode
	rowSettings = 'S' // → recordv1.ClusterSettings
	// Of feature level 2.
	rowDeployment = 'D' // id → recordv1.Deployment
	rowFile       = 'F' // hash, 32 bytes → recordv1.ClusterFile
	rowPart       = 'P' // hash, where the part begins, 4 bytes big endian → part of an encoded FileDescriptorProto
)

func nodeKey(id uint64) []byte { return binary.BigEndian.AppendUint64([]byte{rowNode}, id) }

var settingsKey = []byte{rowSettings}

// state is the rows. The messages in it are not changed but replaced: they may have fields of
// newer versions, which stay.
type state struct {
	settings *recordv1.ClusterSettings // nil: not founded
	nodes    map[uint64]*recordv1.ClusterNode
	// deployments by id, and files by hash in hexadecimal, whose contents are in the store only.
	deployments map[string]*recordv1.Deployment
	files       map[string]*recordv1.ClusterFile
	// parts are those of files that the change adds, by key; nil once it is proposed.
	parts map[string][]byte
}

func newState() state {
	return state{nodes: map[uint64]*recordv1.ClusterNode{}, deployments: map[string]*recordv1.Deployment{}, files: map[string]*recordv1.ClusterFile{}}
}

func (s state) clone() state {
	return state{s.settings, maps.Clone(s.nodes), maps.Clone(s.deployments), maps.Clone(s.files), nil}
}

// load reads all rows.
func load(snapshot storage.Snapshot) (state, error) {
	s := newState()
	var damage error
	err := snapshot.Scan([]byte{rowNode}, []byte{rowNode + 1}, func(key, value []byte) bool {
		node := &recordv1.ClusterNode{}
		if damage = proto.Unmarshal(value, node); damage == nil && (len(key) != 9 || binary.BigEndian.Uint64(key[1:]) != node.Id) {
			damage = errors.New("it is another node's")
		}
		if damage != nil {
			damage = fmt.Errorf("the row of a node is damaged: key %x: %w", key, damage)
			return false
		}
		s.nodes[node.Id] = node
		return true
	})
	if err == nil && damage == nil {
		err = snapshot.Scan([]byte{rowDeployment}, []byte{rowFile + 1}, func(key, value []byte) bool {
			switch name := string(key[1:]); key[0] {
			case rowDeployment:
				row := &recordv1.Deployment{}
				if damage = proto.Unmarshal(value, row); damage == nil && row.Id != name {
					damage = errors.New("it is another one's")
				}
				s.deployments[name] = row
			case rowFile:
				file := &recordv1.ClusterFile{}
				damage = proto.Unmarshal(value, file)
				s.files[hex.EncodeToString(key[1:])] = file
			}
			if damage != nil {
				damage = fmt.Errorf("the row of a deployment is damaged: key %x: %w", key, damage)
			}
			return damage == nil
		})
	}
	if err = errors.Join(err, damage); err != nil {
		return state{}, fmt.Errorf("registry: %w", err)
	}
	value, ok, err := snapshot.Get(settingsKey)
	if err != nil {
		return state{}, fmt.Errorf("registry: %w", err)
	}
	if ok {
		s.settings = &recordv1.ClusterSettings{}
		if err := proto.Unmarshal(value, s.settings); err != nil {
			return state{}, fmt.Errorf("registry: the settings are damaged: %w", err)
		}
	}
	return s, nil
}

// record is the payload that makes of one state the other; nil if they are the same.
func record(from, to state) ([]byte, error) {
	var batch storage.Batch
	put := func(key []byte, m proto.Message) error {
		value, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		batch.Put(key, value)
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(to.nodes)) {
		if from.nodes[id] != to.nodes[id] && !proto.Equal(from.nodes[id], to.nodes[id]) {
			if err := put(nodeKey(id), to.nodes[id]); err != nil {
				return nil, err
			}
		}
	}
	if err := recordDeployments(&batch, from, to, put); err != nil {
		return nil, err
	}
	if batch.Len() == 0 && proto.Equal(from.settings, to.settings) {
		return nil, nil
	}
	if err := put(settingsKey, to.settings); err != nil {
		return nil, err
	}
	return batch.AppendEncoded(nil), nil
}

func (s state) view() *View {
	v := &View{Deployments: newestFirst(s.deployments), files: s.files}
	if settings := s.settings; settings != nil {
		v.Version, v.Catalog = settings.Version, settings.Catalog
		v.Settings = Settings{
			ClusterID: settings.ClusterId, Partitions: settings.Partitions, FoundedAt: time.UnixMilli(settings.FoundedAt),
			ReplicationFactor: int(settings.ReplicationFactor), FeatureLevel: settings.FeatureLevel,
			FeatureLevelLimit: settings.FeatureLevelLimit,
		}
	}
	for _, id := range slices.Sorted(maps.Keys(s.nodes)) {
		v.Nodes = append(v.Nodes, nodeOf(s.nodes[id]))
	}
	return v
}

var states = map[recordv1.NodeState]placement.State{
	recordv1.NodeState_NODE_STATE_ACTIVE:   placement.Active,
	recordv1.NodeState_NODE_STATE_DRAINING: placement.Draining,
	recordv1.NodeState_NODE_STATE_REMOVED:  placement.Removed,
}

func recorded(s placement.State) recordv1.NodeState { return recordv1.NodeState(s + 1) }

func nodeOf(row *recordv1.ClusterNode) Node {
	return Node{
		ID: row.Id, Transport: row.TransportAddress, Ingress: row.IngressAddress, Zone: row.Zone,
		Version: row.Version, FeatureLevel: row.FeatureLevel, State: states[row.State], Deployment: row.Deployment,
		AdmittedAt: time.UnixMilli(row.AdmittedAt), StateAt: time.UnixMilli(row.StateAt),
		Log: claimOf(row),
	}
}

// claimOf is what is noted of a node's log.
func claimOf(row *recordv1.ClusterNode) transport.LogClaim {
	return transport.LogClaim{Process: row.LogProcess, Opened: row.LogOpened, Durable: row.LogFrames}
}

// introduction is what a node says of itself.
func introduction(n Node) *recordv1.ClusterNode {
	return &recordv1.ClusterNode{
		Id: n.ID, TransportAddress: n.Transport, IngressAddress: n.Ingress, Zone: n.Zone, Version: n.Version, FeatureLevel: n.FeatureLevel,
	}
}

// says is whether a row says what the node says of itself.
func says(row *recordv1.ClusterNode, self *recordv1.ClusterNode) bool {
	return row.GetTransportAddress() == self.TransportAddress && row.GetIngressAddress() == self.IngressAddress &&
		row.GetZone() == self.Zone && row.GetVersion() == self.Version && row.GetFeatureLevel() == self.FeatureLevel
}
