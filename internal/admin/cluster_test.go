package admin

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/ingress"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// asked is a Cluster that remembers what it was asked for.
type asked struct{ last string }

func (a *asked) Describe(context.Context) (*adminv1.GetClusterResponse, error) {
	return &adminv1.GetClusterResponse{ClusterId: "c"}, nil
}

func (a *asked) SetNodeState(_ context.Context, node uint64, to adminv1.NodeState, force bool) error {
	a.last = fmt.Sprintf("state %x %d %v", node, to, force)
	return nil
}

func (a *asked) Transfer(_ context.Context, partition uint32, to uint64) error {
	a.last = fmt.Sprintf("transfer %d %x", partition, to)
	return nil
}

func (a *asked) SetSetting(_ context.Context, name, value string) error {
	a.last = "set " + name + " " + value
	return routing.Errorf(routing.CodeInvalidArgument, "no %s", name)
}

func (a *asked) DeploymentOf(string) string { return "" }

func (a *asked) Runners() map[string][]string { return nil }

func (a *asked) SetDeployment(_ context.Context, id string, to recordv1.DeploymentStatus) error {
	a.last = fmt.Sprintf("deployment %s %d", id, to)
	return nil
}

// TestCluster asks for everything over the wire, of a node that has a cluster and of one that has
// none.
func TestCluster(t *testing.T) {
	cluster := &asked{}
	calls := map[string]func(rpc string, request, response proto.Message) error{}
	for name, config := range map[string]Config{"with": {Cluster: cluster}, "without": {}} {
		r := &router{}
		config.Router, config.Logger = r, slog.New(slog.DiscardHandler)
		s, err := New(config)
		if err != nil {
			t.Fatal(err)
		}
		edge, err := ingress.New(ingress.Config{Router: r, Services: services(), Others: []ingress.Other{s}})
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewServer(edge)
		defer server.Close()
		client := connect.NewClient(connecthttp.NewTransport(http.DefaultClient, server.URL))
		calls[name] = func(rpc string, request, response proto.Message) error {
			return client.CallUnary(t.Context(), connect.Spec{Procedure: "/perdure.admin.v1.ClusterService/" + rpc, StreamType: connect.StreamTypeUnary}, request, response)
		}
	}
	described := &adminv1.GetClusterResponse{}
	if err := calls["with"]("GetCluster", &adminv1.GetClusterRequest{}, described); err != nil || described.ClusterId != "c" {
		t.Errorf("%v, %v", described, err)
	}
	draining := adminv1.NodeState_NODE_STATE_DRAINING
	for _, test := range []struct {
		rpc               string
		request, response proto.Message
		want              string
		code              connect.Code
		says              string
	}{
		{"SetNodeState", &adminv1.SetNodeStateRequest{NodeId: "00000000000000Ab", State: draining, Force: true}, &adminv1.SetNodeStateResponse{}, "state ab 2 true", 0, ""},
		{"SetNodeState", &adminv1.SetNodeStateRequest{NodeId: "ab", State: draining}, &adminv1.SetNodeStateResponse{}, "", connect.CodeInvalidArgument, "16 hexadecimal digits"},
		{"SetNodeState", &adminv1.SetNodeStateRequest{NodeId: "00000000000000ab"}, &adminv1.SetNodeStateResponse{}, "", connect.CodeInvalidArgument, "NODE_STATE_DRAINING"},
		{"SetNodeState", &adminv1.SetNodeStateRequest{NodeId: "00000000000000ab", State: 9}, &adminv1.SetNodeStateResponse{}, "", connect.CodeInvalidArgument, "state is 9"},
		{"TransferLeadership", &adminv1.TransferLeadershipRequest{Partition: 7, NodeId: "00000000000000ab"}, &adminv1.TransferLeadershipResponse{}, "transfer 7 ab", 0, ""},
		{"TransferLeadership", &adminv1.TransferLeadershipRequest{NodeId: "x"}, &adminv1.TransferLeadershipResponse{}, "", connect.CodeInvalidArgument, `nodeId is "x"`},
		{"SetClusterSetting", &adminv1.SetClusterSettingRequest{Name: "a", Value: "1"}, &adminv1.SetClusterSettingResponse{}, "set a 1", connect.CodeInvalidArgument, "no a"},
	} {
		cluster.last = ""
		err := calls["with"](test.rpc, test.request, test.response)
		if cluster.last != test.want {
			t.Errorf("%s %v: asked for %q, want %q", test.rpc, test.request, cluster.last, test.want)
		}
		if (err == nil) != (test.code == 0) || err != nil && (connect.CodeOf(err) != test.code || !strings.Contains(err.Error(), test.says)) {
			t.Errorf("%s %v: %v", test.rpc, test.request, err)
		}
		if err := calls["without"](test.rpc, test.request, test.response); connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "alone") {
			t.Errorf("%s without a cluster: %v", test.rpc, err)
		}
	}
}
