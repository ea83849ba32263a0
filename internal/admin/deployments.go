package admin

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/perdure/perdure/codegen/schema"
	"github.com/perdure/perdure/internal/deployment"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// inFlight counts the invocations that have not ended, by deployment. It gives up, with more, when
// half of the time is over that the call has.
func (s *Service) inFlight(ctx context.Context) (counts map[string]uint64, more bool, err error) {
	counts = map[string]uint64{}
	until := time.Now().Add(s.config.Timeout / 2)
	filter := routing.Filter{Statuses: unfinished, Limit: routing.MaxPage}
	for {
		page, err := s.config.Router.InvocationsPage(ctx, filter)
		if err != nil {
			return nil, false, err
		}
		for _, found := range page.Found {
			counts[s.tiedTo(found.Row)]++
		}
		if filter.After = page.Next; filter.After.IsZero() {
			return counts, false, nil
		}
		if time.Now().After(until) {
			return counts, true, nil
		}
	}
}

// tiedTo is the deployment that an invocation goes on with: the one its journal is of or, without
// one, that of the nodes that host its service, as for what runs at this instant.
func (s *Service) tiedTo(row *recordv1.Invocation) string {
	journaled := invocation.Mode(row.GetMode()).Journaled()
	if journaled && row.GetDeployment() != "" && (row.GetStatus() != recordv1.Status_STATUS_RUNNING ||
		s.config.Cluster != nil && len(s.config.Cluster.Runners()[row.GetDeployment()]) > 0) {
		return row.GetDeployment()
	}
	if s.config.Cluster != nil {
		if hosting := s.config.Cluster.DeploymentOf(row.GetTarget().GetService()); hosting != "" {
			return hosting
		}
		if journaled && row.GetDeployment() != "" {
			return row.GetDeployment() // no node has its service: it waits
		}
	}
	return s.config.Deployment
}

// runners are the nodes that run each deployment.
func (s *Service) runners() map[string][]string {
	if s.config.Cluster != nil {
		return s.config.Cluster.Runners()
	}
	if own := s.config.Node().NodeID; own != "" {
		return map[string][]string{s.config.Deployment: {own}}
	}
	return nil
}

func (s *Service) deployment(d *recordv1.Deployment, counts map[string]uint64) *adminv1.Deployment {
	return &adminv1.Deployment{
		Id: d.GetId(), Status: adminv1.DeploymentStatus(d.GetStatus()), Current: d.GetId() == s.config.Deployment,
		Nodes:       s.runners()[d.GetId()],
		Fingerprint: d.GetFingerprint(), Build: d.GetBuild(), PerdureVersion: d.GetPerdureVersion(),
		FirstSeenAt: instant(d.GetFirstSeenAt()), LastSeenAt: instant(d.GetLastSeenAt()),
		Services: d.GetServices(), AcceptedChanges: d.GetAccepted(), InFlight: counts[d.GetId()],
	}
}

func (s *Service) listDeployments(ctx context.Context, request *adminv1.ListDeploymentsRequest) (*adminv1.ListDeploymentsResponse, error) {
	counts, more, err := s.inFlight(ctx)
	if err != nil {
		return nil, err
	}
	response := &adminv1.ListDeploymentsResponse{MoreInFlight: more}
	for _, d := range s.config.Deployments.List() {
		if d.GetStatus() != recordv1.DeploymentStatus_DEPLOYMENT_STATUS_REMOVED || request.GetRemoved() || counts[d.GetId()] > 0 {
			response.Deployments = append(response.Deployments, s.deployment(d, counts))
		}
		delete(counts, d.GetId())
	}
	delete(counts, "")
	for _, id := range slices.Sorted(maps.Keys(counts)) { // what is in flight has a line, whatever it is tied to
		response.Deployments = append(response.Deployments, s.deployment(&recordv1.Deployment{Id: id}, counts))
	}
	return response, nil
}

func (s *Service) findDeployment(id string) (*recordv1.Deployment, error) {
	found, err := s.config.Deployments.Get(id)
	if errors.Is(err, deployment.ErrUnknown) {
		var ids []string
		for _, d := range s.config.Deployments.List() {
			ids = append(ids, d.GetId())
		}
		return nil, routing.Errorf(routing.CodeNotFound, "no deployment %q; there are: %s", clip(id), list(ids))
	}
	return found, err
}

func (s *Service) describeDeployment(ctx context.Context, request *adminv1.DescribeDeploymentRequest) (*adminv1.DescribeDeploymentResponse, error) {
	found, err := s.findDeployment(request.GetId())
	if err != nil {
		return nil, err
	}
	counts, more, err := s.inFlight(ctx)
	if err != nil {
		return nil, err
	}
	response := &adminv1.DescribeDeploymentResponse{Deployment: s.deployment(found, counts), MoreInFlight: more}
	if response.Services, err = s.servicesOf(found); err != nil {
		return nil, err
	}
	previous := s.config.Deployments.Before(found.GetId())
	if previous == nil {
		return response, nil
	}
	response.Previous = previous.GetId()
	changes, err := s.config.Deployments.Compare(previous.GetId(), found.GetId())
	if err != nil {
		return nil, routing.Errorf(routing.CodeDataLoss, "%v", err)
	}
	for _, change := range changes {
		response.Changes = append(response.Changes, &adminv1.DeploymentChange{
			Severity: change.Severity.String(), Symbol: string(change.Symbol), Message: change.Message,
		})
	}
	return response, nil
}

// servicesOf reads the services of any deployment out of its descriptors.
func (s *Service) servicesOf(d *recordv1.Deployment) ([]*adminv1.Service, error) {
	set, err := s.config.Deployments.Schema(d.GetId())
	if err != nil {
		return nil, routing.Errorf(routing.CodeDataLoss, "%v", err)
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		return nil, routing.Errorf(routing.CodeDataLoss, "the descriptors of deployment %s do not hold together: %v", d.GetId(), err)
	}
	var services []*adminv1.Service
	for _, file := range set.GetFile() {
		described, err := files.FindFileByPath(file.GetName())
		if err != nil {
			return nil, err
		}
		read, _ := schema.Read(described) // what a newer build declares may not be understood here
		for _, service := range read {
			if slices.Contains(d.GetServices(), string(service.Desc.FullName())) {
				services = append(services, describeSchema(service))
			}
		}
	}
	slices.SortFunc(services, func(a, b *adminv1.Service) int { return strings.Compare(a.GetName(), b.GetName()) })
	return services, nil
}

func describeSchema(service *schema.Service) *adminv1.Service {
	out := &adminv1.Service{Name: string(service.Desc.FullName()), Kind: service.Kind}
	if service.State != nil {
		out.StateType = string(service.State.FullName())
	}
	for _, table := range service.Tables {
		out.Tables = append(out.Tables, &perdurev1.Table{Name: table.Name, Value: string(table.Message.FullName())})
	}
	for _, promise := range service.Promises {
		out.Promises = append(out.Promises, &perdurev1.Promise{Name: promise.Name, Type: string(promise.Message.FullName())})
	}
	name := func(field protoreflect.FieldDescriptor) string {
		if field == nil {
			return ""
		}
		return string(field.Name())
	}
	for _, method := range service.Methods {
		out.Methods = append(out.Methods, &adminv1.Method{
			Name: string(method.Desc.Name()), Mode: method.Mode, KeyField: name(method.Key), IdempotencyKeyField: name(method.IdempotencyKey),
			RequestType: string(method.Desc.Input().FullName()), ResponseType: string(method.Desc.Output().FullName()),
		})
	}
	return out
}

func (s *Service) drainDeployment(ctx context.Context, request *adminv1.DrainDeploymentRequest) (*adminv1.DrainDeploymentResponse, error) {
	s.deploying.Lock()
	defer s.deploying.Unlock()
	found, err := s.findDeployment(request.GetId())
	if err != nil {
		return nil, err
	}
	wanted := recordv1.DeploymentStatus_DEPLOYMENT_STATUS_DRAINING
	if request.GetUndo() {
		wanted = recordv1.DeploymentStatus_DEPLOYMENT_STATUS_ACTIVE
	}
	switch found.GetStatus() {
	case wanted:
	case recordv1.DeploymentStatus_DEPLOYMENT_STATUS_REMOVED:
		return nil, routing.Errorf(routing.CodeFailedPrecondition, "deployment %s is removed: starting it makes it active again", found.GetId())
	default:
		if err := s.setStatus(ctx, found.GetId(), wanted); err != nil {
			return nil, err
		}
		found.Status = wanted
	}
	counts, more, err := s.inFlight(ctx)
	if err != nil {
		return nil, err
	}
	return &adminv1.DrainDeploymentResponse{Deployment: s.deployment(found, counts), MoreInFlight: more}, nil
}

func (s *Service) removeDeployment(ctx context.Context, request *adminv1.RemoveDeploymentRequest) (*adminv1.RemoveDeploymentResponse, error) {
	s.deploying.Lock()
	defer s.deploying.Unlock()
	found, err := s.findDeployment(request.GetId())
	if err != nil {
		return nil, err
	}
	id := found.GetId()
	if id == s.config.Deployment {
		return nil, routing.Errorf(routing.CodeFailedPrecondition, "deployment %s is what this node runs: start another one first", id)
	}
	if nodes := s.runners()[id]; len(nodes) > 0 {
		return nil, routing.Errorf(routing.CodeFailedPrecondition, "deployment %s is what node %s runs: start another one there first", id, list(nodes))
	}
	counts, more, err := s.inFlight(ctx)
	switch {
	case err != nil:
		return nil, err
	case counts[id] > 0:
		return nil, routing.Errorf(routing.CodeFailedPrecondition,
			"deployment %s has begun %d invocations that have not gone on with another yet: wait until they have, or end them; perdure deployments drain %s shows how many are left", id, counts[id], id)
	case more:
		return nil, routing.Errorf(routing.CodeFailedPrecondition, "whether deployment %s is still needed can't be told: there are too many invocations in flight to look at all", id)
	}
	return &adminv1.RemoveDeploymentResponse{}, s.setStatus(ctx, id, recordv1.DeploymentStatus_DEPLOYMENT_STATUS_REMOVED)
}

func (s *Service) setStatus(ctx context.Context, id string, to recordv1.DeploymentStatus) error {
	if s.config.Cluster != nil {
		return s.config.Cluster.SetDeployment(ctx, id, to)
	}
	return s.config.Deployments.SetStatus(id, to)
}
