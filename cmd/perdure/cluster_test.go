package main

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/perdure/perdure/internal/deployment"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// four is a cluster of four nodes, of which one is silent and one was removed. A node that drains
// has less each time somebody looks; b3 keeps what it has.
type four struct {
	mu       sync.Mutex
	states   map[string]adminv1.NodeState
	looks    int // since somebody drains
	replicas uint32

	deployments *deployment.Catalog
}

const (
	nodeA1 = "00000000000000a1"
	nodeA2 = "00000000000000a2"
	nodeB3 = "00000000000000b3"
	nodeC4 = "00000000000000c4"
)

func newFour(deployments *deployment.Catalog) *four {
	return &four{deployments: deployments, replicas: 3, states: map[string]adminv1.NodeState{nodeA1: 1, nodeA2: 1, nodeB3: 1, nodeC4: 3}}
}

// Describe implements admin.Cluster.
func (f *four) Describe(context.Context) (*adminv1.GetClusterResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := func(seconds int64) *timestamppb.Timestamp {
		return timestamppb.New(time.UnixMilli(noon + 1000*seconds))
	}
	one := &adminv1.ClusterPartition{Id: 1, Leader: nodeA2, Voters: []string{nodeA1, nodeA2, nodeB3}, Lagging: []string{nodeB3}}
	two := &adminv1.ClusterPartition{Id: 2, Leader: nodeA1, Voters: []string{nodeA1, nodeB3}, Outgoing: []string{nodeA1}, Learners: []string{nodeA2}}
	three := &adminv1.ClusterPartition{Id: 3, Voters: []string{nodeB3}, WaitsFor: "it has no leader that\x1b is known"}
	known := f.states[nodeA2]
	if known == adminv1.NodeState_NODE_STATE_DRAINING {
		f.looks++
		if f.looks == 1 { // which a node answers that has not heard of it yet
			known = adminv1.NodeState_NODE_STATE_ACTIVE
		}
		if f.looks > 2 {
			one.Leader = nodeA1
		}
		if f.looks > 3 {
			one.Voters = []string{nodeA1, nodeB3}
		}
		if f.looks > 4 {
			two.Learners = nil
		}
	}
	return &adminv1.GetClusterResponse{
		ClusterId: "9a7c", FoundedAt: at(0), PartitionCount: 3, ReplicationFactor: f.replicas, FeatureLevel: 2, FeatureLevelLimit: 2, Leader: nodeA1,
		Nodes: []*adminv1.ClusterNode{
			{Id: nodeA1, State: f.states[nodeA1], Health: 1, TransportAddress: "one:7374", IngressAddress: "one:7373", Zone: "east", Version: "v0.2.0", Leads: 1, Votes: 2, Copies: 2, Deployment: "v1", Services: []string{"bank.v1.AccountService", "bank.v1.TransferService", "shop.v1.InventoryService", "shop.v1.OrderService", "shop.v1.ReturnService"}},
			{Id: nodeA2, State: known, Health: 1, TransportAddress: "two:7374", Version: "v0.2.0", Leads: 1, Votes: 1, Copies: 2, Deployment: "v2"},
			{Id: nodeB3, State: f.states[nodeB3], Health: 2, TransportAddress: "three:7374", Version: "v0.1.0", Votes: 3, Copies: 3, Failure: "connection\x1b refused"},
			{Id: nodeC4, State: f.states[nodeC4], TransportAddress: "four:7374", Version: "v0.1.0"},
		},
		Partitions: []*adminv1.ClusterPartition{{Id: 0, Leader: nodeA1, Voters: []string{nodeA1}, Learners: []string{nodeA2, nodeB3}}, one, two, three},
		Steps: []*adminv1.PlacementStep{
			{Partition: 2, Action: "add learner " + nodeA2, Reason: "1 of 3 copies", BeganAt: at(3)},
			{Partition: 1, Action: "transfer " + nodeA1 + " -> " + nodeA2, Reason: "evens out leaders: 2 there, 0 here", BeganAt: at(1), EndedAt: at(2)},
			{Partition: 1, Action: "promote " + nodeB3, Reason: "it has caught up", BeganAt: at(0), EndedAt: at(1), Failure: "it lags"},
		},
	}, nil
}

// SetNodeState implements admin.Cluster.
func (f *four) SetNodeState(_ context.Context, node uint64, to adminv1.NodeState, force bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := map[uint64]string{0xa1: nodeA1, 0xa2: nodeA2, 0xb3: nodeB3, 0xc4: nodeC4}[node]
	switch {
	case f.states[id] == adminv1.NodeState_NODE_STATE_REMOVED:
		return routing.Errorf(routing.CodeFailedPrecondition, "the node was removed from the cluster")
	case to == adminv1.NodeState_NODE_STATE_REMOVED && !force:
		return routing.Errorf(routing.CodeFailedPrecondition, "node %s still votes in 3 partitions", id)
	}
	f.states[id], f.looks = to, 0
	return nil
}

// Transfer implements admin.Cluster.
func (f *four) Transfer(_ context.Context, partition uint32, _ uint64) error {
	if partition != 1 {
		return routing.Errorf(routing.CodeNotFound, "there is no partition %d; there are 3", partition)
	}
	return nil
}

// SetSetting implements admin.Cluster.
func (f *four) SetSetting(_ context.Context, name, value string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if name != "replication-factor" || value != "5" {
		return routing.Errorf(routing.CodeInvalidArgument, "%s can't be %s", name, value)
	}
	f.replicas = 5
	return nil
}

// DeploymentOf implements admin.Cluster.
func (*four) DeploymentOf(string) string { return "v2" }

// Runners implements admin.Cluster.
func (*four) Runners() map[string][]string { return map[string][]string{"v2": {nodeA1, nodeA2}} }

// SetDeployment implements admin.Cluster.
func (f *four) SetDeployment(_ context.Context, id string, to recordv1.DeploymentStatus) error {
	return f.deployments.SetStatus(id, to)
}

// forward has another server answer.
func forward(t *testing.T, addr string, w http.ResponseWriter, r *http.Request) {
	request, err := http.NewRequestWithContext(context.WithoutCancel(r.Context()), r.Method, addr+r.URL.Path, r.Body)
	if err != nil {
		t.Error(err)
		return
	}
	request.Header = r.Header
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Error(err)
		return
	}
	defer response.Body.Close()
	maps.Copy(w.Header(), response.Header)
	w.WriteHeader(response.StatusCode)
	_, _ = io.Copy(w, response.Body)
}

// TestWatch: it is shown again and again, and to interrupt it is no failure.
func TestWatch(t *testing.T) {
	addr, stop, err := startFake(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	for _, terminal := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		looks := 0
		var stdout, stderr bytes.Buffer
		c := &cli{in: strings.NewReader(""), out: &stdout, err: &stderr, bold: terminal}
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if looks++; looks == 4 {
				cancel()
				return
			}
			forward(t, addr, w, r)
		}))
		code := c.run(ctx, []string{"--addr", proxy.URL, "cluster", "nodes", "--watch", "--every", "1ms"})
		proxy.Close()
		cancel()
		if shown := strings.Count(stdout.String(), nodeC4); code != exitOK || stderr.Len() > 0 || shown != 3 {
			t.Errorf("exit code %d, shown %d times: %q", code, shown, stderr.String())
		}
		if cleared := strings.Count(stdout.String(), "\x1b[2J"); cleared != map[bool]int{false: 0, true: 2}[terminal] {
			t.Errorf("cleared %d times; on a terminal: %v", cleared, terminal)
		}
	}
}

// TestDrainInterrupted says that draining goes on.
func TestDrainInterrupted(t *testing.T) {
	addr, stop, err := startFake(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var looks []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		looks = append(looks, r.URL.Path)
		forward(t, addr, w, r)
		if len(looks) == 5 {
			cancel()
		}
	}))
	defer proxy.Close()
	code, _, stderr := runCLI(ctx, "--addr", proxy.URL, "cluster", "drain", "00000000000000b", "--every", "1ms")
	if code != exitFailed || !strings.Contains(stderr, "leads 0 and has copies of 3 partitions; partition 3 waits: it has no leader") || !strings.Contains(stderr, "interrupted") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
	if !slices.Contains(looks, "/perdure.admin.v1.ClusterService/SetNodeState") {
		t.Errorf("it asked for %q", looks)
	}
}

// TestStatusWithoutLeader: what nobody knows is not shown as nothing.
func TestStatusWithoutLeader(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		body, err := protojson.Marshal(&adminv1.GetClusterResponse{
			ClusterId: "9a7c", PartitionCount: 3, ReplicationFactor: 3, Problem: "the cluster's own group has no leader that is known",
			Nodes: []*adminv1.ClusterNode{{Id: nodeA1, State: adminv1.NodeState_NODE_STATE_ACTIVE, Version: "v0.2.0"}},
		})
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	}))
	defer server.Close()
	code, stdout, stderr := runCLI(t.Context(), "--addr", server.URL, "cluster", "status")
	words := strings.Join(strings.Fields(stdout), " ")
	if code != exitOK || !strings.Contains(words, "partitions 3, how they are is not known") || !strings.Contains(words, nodeA1+" active, not asked - - - ") {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
}
