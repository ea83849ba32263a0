// Package operator answers what operators ask of a cluster: it is the admin.Cluster of a node. What
// the leader of group 0 alone knows it asks that node for, and what is to change it has the registry
// or a partition's leader change. It keeps nothing.
package operator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/perdure/perdure/cluster/balance"
	"github.com/perdure/perdure/cluster/placement"
	"github.com/perdure/perdure/cluster/registry"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// Config is what an Operator needs. All of it must be set.
type Config struct {
	// Registry is that of the node, and Client changes what it keeps.
	Registry *registry.Registry
	Client   *registry.Client
	// Balancer is the node's.
	Balancer *balance.Balancer
	// Steps has partitions' leaders do things.
	Steps balance.Steps
	// Call sends a request to another node's Operator.Serve, and returns its answer.
	Call func(ctx context.Context, to uint64, request []byte) ([]byte, error)
	// Hosting says which build a node runs, and which services it has handlers of; empty if that is
	// not known. Nil: it never is.
	Hosting func(node uint64) (deployment string, services []string)
	// DeploymentOf is the deployment that runs a service's handlers, "" if none is known, and Runners are
	// the nodes that run each. SetDeployment changes one for all nodes.
	DeploymentOf  func(service string) string
	Runners       func() map[string][]string
	SetDeployment func(ctx context.Context, id string, to recordv1.DeploymentStatus) error
}

// Operator is one node's. It is safe for concurrent use.
type Operator struct{ config Config }

// New makes an operator.
func New(config Config) *Operator { return &Operator{config} }

func name(id uint64) string {
	if id == 0 {
		return ""
	}
	return fmt.Sprintf("%016x", id)
}

func names(ids []uint64) (out []string) {
	for _, id := range ids {
		out = append(out, name(id))
	}
	return out
}

func instant(at time.Time) *timestamppb.Timestamp {
	if at.IsZero() {
		return nil
	}
	return timestamppb.New(at)
}

// Serve answers the Operator of another node that takes this one for the leader of group 0.
func (o *Operator) Serve(context.Context, []byte) ([]byte, error) {
	return proto.Marshal(o.describe())
}

// Describe implements admin.Cluster.
func (o *Operator) Describe(ctx context.Context) (*adminv1.GetClusterResponse, error) {
	view := o.config.Registry.View()
	if view.Epoch != 0 || view.Leader == 0 {
		return o.describe(), nil
	}
	answer, err := o.config.Call(ctx, view.Leader, nil)
	if err == nil {
		theirs := &adminv1.GetClusterResponse{}
		if err = proto.Unmarshal(answer, theirs); err == nil {
			return theirs, nil
		}
	}
	own := o.describe()
	own.Problem = fmt.Sprintf("node %s, which leads the cluster's own group as far as this one knows, does not say how partitions are: %v", name(view.Leader), err)
	return own, nil
}

// describe says what this node knows, which is all if it leads.
func (o *Operator) describe() *adminv1.GetClusterResponse {
	view, report := o.config.Registry.View(), o.config.Balancer.Report()
	out := &adminv1.GetClusterResponse{
		ClusterId: view.Settings.ClusterID, PartitionCount: view.Settings.Partitions,
		ReplicationFactor: uint32(view.Settings.ReplicationFactor),
		FeatureLevel:      view.Settings.FeatureLevel, FeatureLevelLimit: view.Settings.FeatureLevelLimit,
		Leader: name(view.Leader), AskedAt: instant(report.At),
	}
	if view.Version > 0 {
		out.FoundedAt = timestamppb.New(view.Settings.FoundedAt)
	}
	switch {
	case report.Problem != nil:
		out.Problem = report.Problem.Error()
	case view.Epoch != 0 && report.Epoch != view.Epoch:
		out.Problem = "the leader of the cluster's own group has just begun, and has not asked the nodes yet"
	case view.Epoch == 0 && view.Leader != 0:
		out.Problem = fmt.Sprintf("the node that was asked does not lead the cluster's own group; node %s does", name(view.Leader))
	case view.Epoch == 0:
		out.Problem = "the cluster's own group has no leader that is known: nodes are as this one knew them last, and how partitions are is not known"
	}
	leads, votes, copies := map[uint64]uint32{}, map[uint64]uint32{}, map[uint64]uint32{}
	waits := map[uint32]string{}
	for _, wait := range report.Waits {
		waits[wait.Partition] = wait.Reason
	}
	for _, p := range report.Partitions {
		out.Partitions = append(out.Partitions, &adminv1.ClusterPartition{
			Id: p.ID, Leader: name(p.Leader), Voters: names(p.Voters), Outgoing: names(p.Outgoing), Learners: names(p.Learners),
			Lagging: names(p.Lagging), WaitsFor: waits[p.ID],
		})
		if p.ID == 0 {
			continue
		}
		leads[p.Leader]++
		for _, id := range p.Voters {
			votes[id]++
			copies[id]++
		}
		for _, id := range p.Learners {
			copies[id]++
		}
	}
	for _, node := range view.Nodes {
		row := &adminv1.ClusterNode{
			Id: name(node.ID), State: adminv1.NodeState(node.State + 1), TransportAddress: node.Transport, IngressAddress: node.Ingress,
			Zone: node.Zone, Version: node.Version, FeatureLevel: node.FeatureLevel,
			Leads: leads[node.ID], Votes: votes[node.ID], Copies: copies[node.ID], AdmittedAt: instant(node.AdmittedAt),
		}
		if o.config.Hosting != nil {
			row.Deployment, row.Services = o.config.Hosting(node.ID)
		}
		for _, n := range report.Nodes {
			if n.ID != node.ID {
				continue
			}
			row.Health, row.AnsweredAt = adminv1.NodeHealth(n.Health+1), instant(n.AnsweredAt)
			if n.Failure != nil {
				row.Failure = n.Failure.Error()
			}
		}
		out.Nodes = append(out.Nodes, row)
	}
	for _, step := range report.Underway {
		out.Steps = append(out.Steps, described(step.Step, step.BeganAt))
	}
	for _, step := range report.Recent {
		row := described(step.Step, step.EndedAt.Add(-step.Took))
		row.EndedAt = instant(step.EndedAt)
		if step.Err != nil {
			row.Failure = step.Err.Error()
		}
		out.Steps = append(out.Steps, row)
	}
	return out
}

func described(step placement.Step, began time.Time) *adminv1.PlacementStep {
	_, action, _ := strings.Cut(step.String(), ": ")
	return &adminv1.PlacementStep{Partition: step.Partition, Action: action, Reason: step.Reason, BeganAt: instant(began)}
}

// SetNodeState implements admin.Cluster.
func (o *Operator) SetNodeState(ctx context.Context, node uint64, to adminv1.NodeState, force bool) error {
	if to == adminv1.NodeState_NODE_STATE_REMOVED {
		if err := o.removable(ctx, node, force); err != nil {
			return err
		}
	}
	return refusal(o.config.Client.SetNodeState(ctx, node, placement.State(to-1)), routing.CodeFailedPrecondition)
}

// removable says why a node can't be removed. A node that was removed is not listened to any
// more: what only it has would be lost, so that is refused even if forced.
func (o *Operator) removable(ctx context.Context, node uint64, force bool) error {
	cluster, err := o.Describe(ctx)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(cluster.Nodes, func(n *adminv1.ClusterNode) bool { return n.Id == name(node) })
	if at < 0 || cluster.Nodes[at].State == adminv1.NodeState_NODE_STATE_REMOVED {
		return nil // the registry says what is to be said
	}
	if cluster.Problem != "" || uint32(len(cluster.Partitions)) != cluster.PartitionCount+1 {
		problem := cluster.Problem
		if problem == "" {
			problem = fmt.Sprintf("only %d of %d partitions, with the cluster's own group, are known", len(cluster.Partitions), cluster.PartitionCount+1)
		}
		return routing.Errorf(routing.CodeUnavailable, "whether node %s can be removed is not known: %s", name(node), problem)
	}
	alive := map[string]bool{}
	for _, n := range cluster.Nodes {
		alive[n.Id] = n.Health == adminv1.NodeHealth_NODE_HEALTH_ALIVE && n.State != adminv1.NodeState_NODE_STATE_REMOVED && n.Id != name(node)
	}
	votes := 0
	for _, p := range cluster.Partitions {
		if !slices.Contains(p.Voters, name(node)) && !slices.Contains(p.Outgoing, name(node)) {
			continue
		}
		votes++
		for _, voters := range [][]string{p.Voters, p.Outgoing} {
			remaining := 0
			for _, voter := range voters {
				if alive[voter] && !slices.Contains(p.Lagging, voter) {
					remaining++
				}
			}
			if len(voters) > 0 && remaining <= len(voters)/2 {
				return routing.Errorf(routing.CodeFailedPrecondition,
					"node %s can't be removed: without it no majority of partition %d answers (%d of its %d voters do), and what only it has would be lost; drain it and wait until it votes in no partition",
					name(node), p.Id, remaining, len(voters))
			}
		}
	}
	if votes > 0 && !force {
		return routing.Errorf(routing.CodeFailedPrecondition,
			"node %s still votes in %d partitions: drain it and wait until it votes in none; if it is gone for good, or no other node can take its place, remove it by force",
			name(node), votes)
	}
	return nil
}

// Transfer implements admin.Cluster.
func (o *Operator) Transfer(ctx context.Context, partition uint32, to uint64) error {
	cluster, err := o.Describe(ctx)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(cluster.Partitions, func(p *adminv1.ClusterPartition) bool { return p.Id == partition })
	if at < 0 {
		if partition > cluster.PartitionCount {
			return routing.Errorf(routing.CodeNotFound, "there is no partition %d; there are %d", partition, cluster.PartitionCount)
		}
		return routing.Errorf(routing.CodeUnavailable, "how partition %d is, is not known: %s", partition, cluster.Problem)
	}
	p := cluster.Partitions[at]
	switch {
	case p.Leader == "":
		return routing.Errorf(routing.CodeUnavailable, "partition %d has no leader that could hand over", partition)
	case p.Leader == name(to):
		return nil
	case !slices.Contains(p.Voters, name(to)):
		return routing.Errorf(routing.CodeFailedPrecondition, "node %s does not vote in partition %d, so it can't lead; its voters: %s", name(to), partition, strings.Join(p.Voters, ", "))
	}
	step := placement.Step{
		Kind: placement.Transfer, Partition: partition, Leader: parse(p.Leader), To: to,
		Expect: placement.Configuration{Voters: parseAll(p.Voters), Learners: parseAll(p.Learners)}, Reason: "an operator asked for it",
	}
	if err := o.config.Steps.Take(ctx, step); err != nil {
		return routing.Errorf(routing.CodeUnavailable, "partition %d was not handed over: %v", partition, err)
	}
	return nil
}

func parse(text string) (id uint64) {
	_, _ = fmt.Sscanf(text, "%x", &id)
	return id
}

func parseAll(texts []string) (ids []uint64) {
	for _, text := range texts {
		ids = append(ids, parse(text))
	}
	return ids
}

// SetSetting implements admin.Cluster.
func (o *Operator) SetSetting(ctx context.Context, name, value string) error {
	return refusal(o.config.Client.SetSetting(ctx, name, value), routing.CodeInvalidArgument)
}

// DeploymentOf implements admin.Cluster.
func (o *Operator) DeploymentOf(service string) string { return o.config.DeploymentOf(service) }

// Runners implements admin.Cluster.
func (o *Operator) Runners() map[string][]string { return o.config.Runners() }

// SetDeployment implements admin.Cluster.
func (o *Operator) SetDeployment(ctx context.Context, id string, to recordv1.DeploymentStatus) error {
	return o.config.SetDeployment(ctx, id, to)
}

// refusal gives what the registry says a code.
func refusal(err error, invalid routing.Code) error {
	if err == nil {
		return nil
	}
	code := routing.CodeUnavailable
	switch {
	case errors.Is(err, registry.ErrNoSuchNode):
		code = routing.CodeNotFound
	case errors.Is(err, registry.ErrRemoved), errors.Is(err, registry.ErrTooOld):
		code = routing.CodeFailedPrecondition
	case errors.Is(err, registry.ErrInvalid):
		code = invalid
	}
	return routing.Errorf(code, "%s", strings.TrimPrefix(err.Error(), registry.ErrInvalid.Error()+": "))
}
