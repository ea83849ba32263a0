package registry

import (
	"errors"
	"fmt"
	"net"
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/cluster/recall"
	"github.com/perdure/perdure/cluster/transport"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// Errors that callers branch on. All but ErrNotLeader and ErrUnknownOutcome are about what was
// asked for: to ask again, or another node, is of no use.
var (
	// ErrNotLeader says that nothing was done, for another node leads group 0 or nobody does. It
	// is a *NotLeaderError.
	ErrNotLeader = errors.New("registry: this node does not lead the cluster's own group")
	// ErrUnknownOutcome says that the leadership was lost meanwhile: ask again.
	ErrUnknownOutcome = errors.New("registry: the leader was lost before the outcome was known; ask again")
	// ErrRemoved says that a node was removed from the cluster, which is for ever.
	ErrRemoved = errors.New("the node was removed from the cluster")
	// ErrTooOld says that the cluster may use records that the node's program does not read.
	ErrTooOld = errors.New("the node's program is too old for the cluster")
	// ErrNoSuchNode says that no node with this id was ever admitted.
	ErrNoSuchNode = errors.New("no such node in the cluster")
	// ErrNoSuchDeployment says that no deployment has this id.
	ErrNoSuchDeployment = errors.New("no such deployment in the cluster")
	// ErrStale says that something has changed since whoever asks looked: look again.
	ErrStale = errors.New("what is asked for is out of date")
	// ErrInvalid says that something else is wrong with what was asked for.
	ErrInvalid = errors.New("invalid")
)

// NotLeaderError is ErrNotLeader, with who leads as far as the node that was asked knows; 0: nobody.
type NotLeaderError struct{ Leader uint64 }

// Error implements error.
func (e *NotLeaderError) Error() string {
	if e.Leader == 0 {
		return ErrNotLeader.Error() + ", and knows of no leader; try again"
	}
	return fmt.Sprintf("%s: node %016x does", ErrNotLeader, e.Leader)
}

// Is makes it ErrNotLeader.
func (e *NotLeaderError) Is(target error) bool { return target == ErrNotLeader }

func removed(id uint64) error {
	return fmt.Errorf("%w: node %016x; its id is never used again, so start it with an empty data directory to let it join as another node", ErrRemoved, id)
}

func tooOld(node Node, level uint32) error {
	return fmt.Errorf("%w: node %016x (version %s) reads records up to feature level %d, the cluster may write level %d: start it with the version that the other nodes have",
		ErrTooOld, node.ID, node.Version, node.FeatureLevel, level)
}

func checkAddresses(node Node) error {
	for _, address := range []struct{ name, value string }{{"transport", node.Transport}, {"ingress", node.Ingress}} {
		if address.value == "" {
			continue
		}
		if host, port, err := net.SplitHostPort(address.value); err != nil || host == "" || port == "" {
			return fmt.Errorf("%w: the %s address of node %016x is %q; it must be host:port", ErrInvalid, address.name, node.ID, address.value)
		}
	}
	return nil
}

func checkReplicationFactor(n int) error {
	if n < 1 || n > 7 || n%2 == 0 {
		return fmt.Errorf("%w: the replication factor is %d; it must be 1, 3, 5 or 7: an even number tolerates no more failures than the odd one below it", ErrInvalid, n)
	}
	return nil
}

// The names of settings.
const (
	SettingReplicationFactor = "replication-factor"
	SettingFeatureLevelLimit = "feature-level-limit"
)

// SettingNames are all settings that SetSetting knows.
var SettingNames = []string{SettingFeatureLevelLimit, SettingReplicationFactor}

// founding is what the first leader writes.
func founding(config Config, now int64) *recordv1.ClusterSettings {
	return &recordv1.ClusterSettings{
		ClusterId: config.ClusterID, Partitions: config.Partitions, FoundedAt: now,
		ReplicationFactor: uint32(config.ReplicationFactor), FeatureLevel: 1,
	}
}

// change, for a state that was founded, evaluates what is asked for: it changes s, a clone, or returns why not.
func (s *state) change(c *recordv1.ClusterChange, now int64) error {
	if s.settings == nil {
		return errors.New("registry: the settings could not be written; the log says why")
	}
	var err error
	switch c := c.GetChange().(type) {
	case *recordv1.ClusterChange_Admit:
		err = s.admit(c.Admit, now)
	case *recordv1.ClusterChange_State:
		err = s.setState(c.State.GetNode(), c.State.GetState(), now)
	case *recordv1.ClusterChange_Setting:
		err = s.set(c.Setting.GetName(), c.Setting.GetValue())
	case *recordv1.ClusterChange_Recall_:
		err = s.recall(c.Recall)
	case *recordv1.ClusterChange_File:
		err = s.storeFile(c.File)
	case *recordv1.ClusterChange_Register_:
		err = s.register(c.Register, now)
	case *recordv1.ClusterChange_Deployment:
		err = s.setDeployment(c.Deployment.GetId(), c.Deployment.GetStatus())
	default:
		err = fmt.Errorf("%w: this node does not know what is asked for: its program is older than that of the node that asks", ErrInvalid)
	}
	if err == nil {
		s.raise()
	}
	return err
}

func (s *state) admit(self *recordv1.ClusterNode, now int64) error {
	node := nodeOf(self)
	if node.ID == 0 {
		return fmt.Errorf("%w: the node's id is 0", ErrInvalid)
	}
	if err := checkAddresses(node); err != nil {
		return err
	}
	row := s.nodes[node.ID]
	if row.GetState() == recordv1.NodeState_NODE_STATE_REMOVED {
		return removed(node.ID)
	}
	if node.FeatureLevel < s.settings.FeatureLevel {
		return tooOld(node, s.settings.FeatureLevel)
	}
	if row == nil {
		row = &recordv1.ClusterNode{Id: node.ID, State: recordv1.NodeState_NODE_STATE_ACTIVE, AdmittedAt: now, StateAt: now}
	} else {
		row = proto.CloneOf(row)
	}
	row.TransportAddress, row.IngressAddress, row.Zone = self.TransportAddress, self.IngressAddress, self.Zone
	row.Version, row.FeatureLevel = self.Version, self.FeatureLevel
	s.nodes[node.ID] = row
	return nil
}

func (s *state) setState(id uint64, to recordv1.NodeState, now int64) error {
	row := s.nodes[id]
	switch _, known := states[to]; {
	case !known:
		return fmt.Errorf("%w: state %d", ErrInvalid, to)
	case row == nil:
		return fmt.Errorf("%w: %016x", ErrNoSuchNode, id)
	case row.State == to:
		return nil
	case row.State == recordv1.NodeState_NODE_STATE_REMOVED:
		return removed(id)
	}
	if to != recordv1.NodeState_NODE_STATE_ACTIVE && row.State == recordv1.NodeState_NODE_STATE_ACTIVE {
		others := 0
		for other, row := range s.nodes {
			if other != id && row.State == recordv1.NodeState_NODE_STATE_ACTIVE {
				others++
			}
		}
		if others == 0 {
			return fmt.Errorf("%w: node %016x is the only active one, so nobody could take over from it: let another join first", ErrInvalid, id)
		}
	}
	row = proto.CloneOf(row)
	row.State, row.StateAt = to, now
	s.nodes[id] = row
	return nil
}

// recall notes what a node's log had, unless more is noted.
func (s *state) recall(c *recordv1.ClusterChange_Recall) error {
	row := s.nodes[c.GetNode()]
	if row == nil {
		return fmt.Errorf("%w: %016x", ErrNoSuchNode, c.GetNode())
	}
	if c.GetProcess() == 0 {
		return fmt.Errorf("%w: process 0 of node %016x says nothing of its log", ErrInvalid, c.GetNode())
	}
	newest := recall.Newest(claimOf(row), transport.LogClaim{Process: c.GetProcess(), Opened: c.GetOpened(), Durable: c.GetFrames()})
	if newest == claimOf(row) {
		return nil
	}
	row = proto.CloneOf(row)
	row.LogProcess, row.LogOpened, row.LogFrames = newest.Process, newest.Opened, newest.Durable
	s.nodes[c.GetNode()] = row
	return nil
}

func (s *state) set(name, value string) error {
	number, err := strconv.ParseUint(value, 10, 31)
	if err != nil {
		return fmt.Errorf("%w: setting %s is %q; it must be a number", ErrInvalid, name, value)
	}
	settings := proto.CloneOf(s.settings)
	switch name {
	case SettingReplicationFactor:
		if err := checkReplicationFactor(int(number)); err != nil {
			return err
		}
		settings.ReplicationFactor = uint32(number)
	case SettingFeatureLevelLimit:
		if number != 0 && uint32(number) < settings.FeatureLevel {
			return fmt.Errorf("%w: the cluster may write records of feature level %d already, which can't be taken back; the limit must be at least that, or 0 for none", ErrInvalid, settings.FeatureLevel)
		}
		settings.FeatureLevelLimit = uint32(number)
	default:
		return fmt.Errorf("%w: there is no setting %q; there are %q", ErrInvalid, name, SettingNames)
	}
	s.settings = settings
	return nil
}

// raise lets records of a higher level be written if every node that is not removed reads them.
func (s *state) raise() {
	level := s.settings.FeatureLevelLimit
	for _, node := range s.nodes {
		if node.State != recordv1.NodeState_NODE_STATE_REMOVED && (level == 0 || node.FeatureLevel < level) {
			level = node.FeatureLevel
		}
	}
	if level > s.settings.FeatureLevel {
		s.settings = proto.CloneOf(s.settings)
		s.settings.FeatureLevel = level
	}
}
