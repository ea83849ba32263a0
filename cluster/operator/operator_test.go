package operator

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/cluster/balance"
	"github.com/perdure/perdure/cluster/placement"
	"github.com/perdure/perdure/cluster/registry"
	"github.com/perdure/perdure/internal/admin"
	"github.com/perdure/perdure/internal/routing"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
	"github.com/perdure/perdure/storage"
	"github.com/perdure/perdure/storage/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var _ admin.Cluster = (*Operator)(nil)

// group commits and applies whatever is proposed at once.
type group struct {
	*memstore.Store
	registry *registry.Registry
	calls    sync.WaitGroup
	told     chan struct{} // closed when the record before was told of; nil: there is none
}

// Propose implements registry.Group.
func (g *group) Propose(epoch, sequence uint64, payload []byte) error {
	var batch storage.Batch
	if err := storage.DecodeBatch(payload, func(op storage.Op) { batch.Put(op.Key, op.Value) }); err != nil {
		return err
	}
	if err := g.Commit(&batch); err != nil {
		return err
	}
	before, told := g.told, make(chan struct{})
	g.told = told
	g.calls.Go(func() {
		defer close(told)
		if before != nil {
			<-before // a host tells of records in their order
		}
		g.registry.Committed(epoch, sequence)
		g.registry.Applied(epoch, sequence)
	})
	return nil
}

// world is node 1 of a cluster, which leads group 0, and what it hears from the others.
type world struct {
	*Operator
	group    *group
	mu       sync.Mutex
	statuses map[uint64][]balance.Status // nil: it does not answer
	taken    []placement.Step
	failure  error
}

// Ask implements balance.Statuses.
func (w *world) Ask(_ context.Context, node uint64) ([]balance.Status, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.statuses[node] == nil {
		return nil, errors.New("connection refused")
	}
	return w.statuses[node], nil
}

// Take implements balance.Steps.
func (w *world) Take(_ context.Context, step placement.Step) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.taken = append(w.taken, step)
	return w.failure
}

// start makes a cluster of nodes 1 to 3 with two partitions. Partition 1 has voters on all of them
// and is led by 1, partition 2 is on node 2 alone.
func start(t *testing.T) *world {
	t.Helper()
	w := &world{group: &group{Store: memstore.New(memstore.Options{})}, failure: errors.New("not now")}
	everywhere := []uint64{1, 2, 3}
	w.statuses = map[uint64][]balance.Status{
		1: {
			{Partition: 0, Leader: 1, Term: 1, Leading: true, Voters: everywhere, CaughtUp: []uint64{2, 3}},
			{Partition: 1, Leader: 1, Term: 1, Leading: true, Voters: everywhere, CaughtUp: []uint64{2}},
		},
		2: {{Partition: 2, Leader: 2, Term: 1, Leading: true, Voters: []uint64{2}}},
		3: {},
	}
	quiet := slog.New(slog.DiscardHandler)
	r, err := registry.New(registry.Config{Self: registry.Node{ID: 1, Transport: "one:1", Version: "v1"}, ClusterID: "c", Partitions: 2, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	w.group.registry = r
	if err := r.Attach(w.group); err != nil {
		t.Fatal(err)
	}
	b, err := balance.New(balance.Config{Registry: r, Statuses: w, Steps: w, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	client := &registry.Client{Registry: r}
	w.Operator = New(Config{Registry: r, Client: client, Balancer: b, Steps: w})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = r.Run(ctx) })
	running.Go(func() { _ = b.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		w.group.calls.Wait()
	})
	r.LeaderChanged(1, 1)
	r.Lead(1)
	for id, address := range map[uint64]string{2: "two:1", 3: "three:1"} {
		if err := client.Admit(ctx, registry.Node{ID: id, Transport: address, Version: "v1"}); err != nil {
			t.Fatal(err)
		}
	}
	pass(10 * time.Second)
	return w
}

func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func bubble(t *testing.T, f func(*testing.T)) { t.Helper(); synctest.Test(t, f) }

func (w *world) describeNow(t *testing.T) *adminv1.GetClusterResponse {
	t.Helper()
	cluster, err := w.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return cluster
}

// refused checks the code and the words of an error.
func refused(t *testing.T, what string, err error, code routing.Code, words string) {
	t.Helper()
	if routed, ok := errors.AsType[*routing.Error](err); !ok || routed.Code != code || !strings.Contains(routed.Message, words) {
		t.Errorf("%s: %v, want code %d and %q", what, err, code, words)
	}
}

func TestDescribe(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := start(t)
		w.mu.Lock()
		w.statuses[3] = nil
		w.mu.Unlock()
		pass(10 * time.Second)
		cluster := w.describeNow(t)
		if cluster.ClusterId != "c" || cluster.PartitionCount != 2 || cluster.ReplicationFactor != 3 || cluster.FeatureLevel != registry.FeatureLevel ||
			cluster.Leader != "0000000000000001" || cluster.Problem != "" || cluster.FoundedAt == nil || cluster.AskedAt == nil {
			t.Errorf("%v", cluster)
		}
		if len(cluster.Nodes) != 3 || len(cluster.Partitions) != 3 {
			t.Fatalf("%d nodes, %d partitions", len(cluster.Nodes), len(cluster.Partitions))
		}
		one, two, three := cluster.Nodes[0], cluster.Nodes[1], cluster.Nodes[2]
		if one.TransportAddress != "one:1" || one.State != adminv1.NodeState_NODE_STATE_ACTIVE || one.Health != adminv1.NodeHealth_NODE_HEALTH_ALIVE || one.Leads != 1 || one.Votes != 1 || one.Copies != 1 {
			t.Errorf("node 1: %v", one)
		}
		if two.Leads != 1 || two.Votes != 2 {
			t.Errorf("node 2: %v", two)
		}
		if three.Health != adminv1.NodeHealth_NODE_HEALTH_SILENT || three.Failure != "connection refused" || three.AnsweredAt == nil {
			t.Errorf("node 3: %v", three)
		}
		if p := cluster.Partitions[1]; p.Leader != one.Id || len(p.Voters) != 3 || len(p.Lagging) != 1 || p.Lagging[0] != three.Id {
			t.Errorf("partition 1: %v", p)
		}
		// Node 2 alone has partition 2, and whatever is tried with it fails.
		if p := cluster.Partitions[2]; !strings.Contains(p.WaitsFor, "not now") {
			t.Errorf("partition 2: %v", p)
		}
		if len(cluster.Steps) == 0 || cluster.Steps[0].Partition != 2 || cluster.Steps[0].Failure != "not now" || cluster.Steps[0].EndedAt == nil || !strings.HasPrefix(cluster.Steps[0].Action, "add learner 0000000000000001") {
			t.Errorf("steps: %v", cluster.Steps)
		}
	})
}

// TestElsewhere: what only the leader knows it is asked for; if it does not answer, the node says
// what it has, and that.
func TestElsewhere(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := start(t)
		w.config.Call = func(context.Context, uint64, []byte) ([]byte, error) {
			return proto.Marshal(&adminv1.GetClusterResponse{ClusterId: "theirs"})
		}
		if cluster := w.describeNow(t); cluster.ClusterId != "c" {
			t.Errorf("it leads, and asked another: %v", cluster)
		}
		w.config.Registry.StepDown(1, errors.New("over"))
		pass(time.Second)
		if cluster := w.describeNow(t); !strings.Contains(cluster.Problem, "no leader that is known") || len(cluster.Nodes) != 3 || len(cluster.Partitions) != 0 {
			t.Errorf("without a leader: %v", cluster)
		}
		w.config.Registry.LeaderChanged(2, 2)
		pass(time.Second)
		if cluster := w.describeNow(t); cluster.ClusterId != "theirs" {
			t.Errorf("of the leader: %v", cluster)
		}
		w.config.Call = func(_ context.Context, to uint64, _ []byte) ([]byte, error) { return nil, errors.New("unreachable") }
		if cluster := w.describeNow(t); !strings.Contains(cluster.Problem, "node 0000000000000002") || !strings.Contains(cluster.Problem, "unreachable") || len(cluster.Nodes) != 3 {
			t.Errorf("the leader does not answer: %v", cluster)
		}
		// One that is taken for the leader says that it is not.
		answer, err := w.Serve(t.Context(), nil)
		theirs := &adminv1.GetClusterResponse{}
		if err != nil || proto.Unmarshal(answer, theirs) != nil || !strings.Contains(theirs.Problem, "does not lead") {
			t.Errorf("%v, %v", theirs, err)
		}
		// What might be lost is not known.
		refused(t, "remove", w.SetNodeState(t.Context(), 3, adminv1.NodeState_NODE_STATE_REMOVED, true), routing.CodeUnavailable, "not known")
	})
}

func TestSetNodeState(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := start(t)
		ctx := t.Context()
		const draining, removed, active = adminv1.NodeState_NODE_STATE_DRAINING, adminv1.NodeState_NODE_STATE_REMOVED, adminv1.NodeState_NODE_STATE_ACTIVE
		if err := w.SetNodeState(ctx, 2, draining, false); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		if node := w.describeNow(t).Nodes[1]; node.State != draining {
			t.Errorf("%v", node)
		}
		refused(t, "no such node", w.SetNodeState(ctx, 9, draining, false), routing.CodeNotFound, "0000000000000009")
		refused(t, "no such node to remove", w.SetNodeState(ctx, 9, removed, false), routing.CodeNotFound, "0000000000000009")
		refused(t, "one of two that have everything, and the only one with partition 2", w.SetNodeState(ctx, 2, removed, true), routing.CodeFailedPrecondition, "no majority of partition 1 answers (1 of its 3")
		refused(t, "one of three", w.SetNodeState(ctx, 3, removed, false), routing.CodeFailedPrecondition, "still votes in 2 partitions")

		// Node 3 has caught up with partition 1.
		w.mu.Lock()
		w.statuses[1][1].CaughtUp = []uint64{2, 3}
		w.mu.Unlock()
		pass(10 * time.Second)
		refused(t, "the only one with partition 2", w.SetNodeState(ctx, 2, removed, true), routing.CodeFailedPrecondition, "no majority of partition 2 answers (0 of its 1")
		if err := w.SetNodeState(ctx, 3, removed, true); err != nil {
			t.Errorf("by force: %v", err)
		}
		refused(t, "back", w.SetNodeState(ctx, 3, active, false), routing.CodeFailedPrecondition, "never used again")
		refused(t, "the last active one", w.SetNodeState(ctx, 1, draining, false), routing.CodeFailedPrecondition, "only active one")
	})
}

func TestTransfer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := start(t)
		ctx := t.Context()
		w.mu.Lock()
		w.taken, w.failure = nil, nil
		w.mu.Unlock()
		refused(t, "no such partition", w.Transfer(ctx, 7, 1), routing.CodeNotFound, "there are 2")
		refused(t, "not a voter", w.Transfer(ctx, 2, 1), routing.CodeFailedPrecondition, "its voters: 0000000000000002")
		if err := w.Transfer(ctx, 1, 1); err != nil {
			t.Errorf("to who leads: %v", err)
		}
		if err := w.Transfer(ctx, 1, 2); err != nil {
			t.Error(err)
		}
		w.mu.Lock()
		if got := w.taken[len(w.taken)-1]; got.Kind != placement.Transfer || got.Leader != 1 || got.To != 2 || got.Partition != 1 || len(got.Expect.Voters) != 3 {
			t.Errorf("%+v", got)
		}
		w.failure = errors.New("it lags")
		w.mu.Unlock()
		refused(t, "it fails", w.Transfer(ctx, 1, 2), routing.CodeUnavailable, "it lags")
	})
}

func TestSetSetting(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := start(t)
		refused(t, "an even number", w.SetSetting(t.Context(), registry.SettingReplicationFactor, "2"), routing.CodeInvalidArgument, "the replication factor is 2")
		if err := w.SetSetting(t.Context(), registry.SettingReplicationFactor, "5"); err != nil {
			t.Error(err)
		}
		pass(time.Second)
		if got := w.describeNow(t).ReplicationFactor; got != 5 {
			t.Errorf("%d", got)
		}
	})
}
