package admin

import (
	"context"
	"strconv"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// Cluster is what ClusterService shows and steers: see there what each does. Its methods may be
// called concurrently. Errors that callers are to be told are *routing.Error.
type Cluster interface {
	Describe(ctx context.Context) (*adminv1.GetClusterResponse, error)
	// SetNodeState is given a state that is specified.
	SetNodeState(ctx context.Context, node uint64, to adminv1.NodeState, force bool) error
	Transfer(ctx context.Context, partition uint32, to uint64) error
	SetSetting(ctx context.Context, name, value string) error
	// DeploymentOf is the deployment that runs a service's handlers; "" if no node is known to have them.
	DeploymentOf(service string) string
	// Runners are the ids of the live nodes that run each deployment.
	Runners() map[string][]string
	// SetDeployment changes the status of a deployment for all nodes, and returns once Config.Deployments
	// has it.
	SetDeployment(ctx context.Context, id string, to recordv1.DeploymentStatus) error
}

func clusterUnary[Req any, ReqPtr interface {
	*Req
	proto.Message
}, Res proto.Message](s *Service, name string, serve func(context.Context, Cluster, ReqPtr) (Res, error)) connect.Method {
	schema := adminv1.File_perdure_admin_v1_cluster_proto.Services().ByName("ClusterService")
	return unaryOf(s, schema, name, func(ctx context.Context, request ReqPtr) (Res, error) {
		if s.config.Cluster == nil {
			var none Res
			return none, routing.Errorf(routing.CodeFailedPrecondition, "this node is alone: it was started without a cluster; ask it with GetNode")
		}
		return serve(ctx, s.config.Cluster, request)
	})
}

func (*Service) getCluster(ctx context.Context, cluster Cluster, _ *adminv1.GetClusterRequest) (*adminv1.GetClusterResponse, error) {
	return cluster.Describe(ctx)
}

func (*Service) setNodeState(ctx context.Context, cluster Cluster, request *adminv1.SetNodeStateRequest) (*adminv1.SetNodeStateResponse, error) {
	node, err := parseNode(request.GetNodeId())
	if err != nil {
		return nil, err
	}
	if _, ok := adminv1.NodeState_name[int32(request.GetState())]; !ok || request.GetState() == adminv1.NodeState_NODE_STATE_UNSPECIFIED {
		return nil, invalid("state is %s: it must be NODE_STATE_ACTIVE, NODE_STATE_DRAINING or NODE_STATE_REMOVED", request.GetState())
	}
	return &adminv1.SetNodeStateResponse{}, cluster.SetNodeState(ctx, node, request.GetState(), request.GetForce())
}

func (*Service) transferLeadership(ctx context.Context, cluster Cluster, request *adminv1.TransferLeadershipRequest) (*adminv1.TransferLeadershipResponse, error) {
	node, err := parseNode(request.GetNodeId())
	if err != nil {
		return nil, err
	}
	return &adminv1.TransferLeadershipResponse{}, cluster.Transfer(ctx, request.GetPartition(), node)
}

func (*Service) setClusterSetting(ctx context.Context, cluster Cluster, request *adminv1.SetClusterSettingRequest) (*adminv1.SetClusterSettingResponse, error) {
	return &adminv1.SetClusterSettingResponse{}, cluster.SetSetting(ctx, request.GetName(), request.GetValue())
}

func parseNode(id string) (uint64, error) {
	node, err := strconv.ParseUint(id, 16, 64)
	if err != nil || len(id) != 16 {
		return 0, invalid("nodeId is %q: it must be 16 hexadecimal digits, as GetCluster has it", clip(id))
	}
	return node, nil
}
