package admin

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/perdure/perdure/codegen/compat"
	"github.com/perdure/perdure/internal/deployment"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// What stands for a deployment where one is asked for to go on with.
const (
	deploymentKeep   = "keep"
	deploymentLatest = "latest"
)

func (s *Service) resumeInvocation(ctx context.Context, request *adminv1.ResumeInvocationRequest) (*adminv1.ResumeInvocationResponse, error) {
	id, err := parseID(request.GetInvocationId())
	if err == nil {
		err = s.canRun(request.GetDeployment())
	}
	if err == nil {
		err = s.resume(ctx, id, request.GetDeployment())
	}
	if err != nil {
		return nil, err
	}
	return &adminv1.ResumeInvocationResponse{Status: s.statusOf(ctx, id)}, nil
}

// resume lets an invocation go on, if it can go on with the deployment that is asked for, which canRun.
func (s *Service) resume(ctx context.Context, id invocation.ID, wanted string) error {
	if wanted != "" && wanted != deploymentKeep {
		detail, err := s.config.Router.Journal(ctx, id, 0, 0)
		if err != nil {
			return err
		}
		if wanted == deploymentLatest {
			wanted = s.config.Deployment
		}
		if err := s.canGoOn(detail.Row, wanted); err != nil {
			return err
		}
		return s.config.Router.Resume(ctx, id, wanted)
	}
	return s.config.Router.Resume(ctx, id, "")
}

// canRun says why nothing can go on with a deployment.
func (s *Service) canRun(wanted string) error {
	own := s.config.Deployment
	switch wanted {
	case "", deploymentKeep, deploymentLatest, own:
		return nil
	}
	if s.config.Runs != nil && s.config.Runs(wanted) {
		return nil
	}
	found, err := s.findDeployment(wanted)
	if err != nil {
		return err
	}
	if found.GetStatus() == recordv1.DeploymentStatus_DEPLOYMENT_STATUS_REMOVED {
		return routing.Errorf(routing.CodeFailedPrecondition, "deployment %s is removed, and this node runs %s: start the build of %s, or resume on %s", wanted, own, wanted, own)
	}
	return routing.Errorf(routing.CodeFailedPrecondition, "deployment %s does not run: this node runs %s. Start the build of %s and resume then, or resume on %s (or latest)", wanted, own, wanted, own)
}

// canGoOn says what of an invocation a deployment could not read. A build that was started in spite of
// breaking changes has those still.
func (s *Service) canGoOn(row *recordv1.Invocation, wanted string) error {
	from := row.GetDeployment()
	if from == "" || from == wanted || !invocation.Mode(row.GetMode()).Journaled() {
		return nil
	}
	changes, err := s.config.Deployments.Compare(from, wanted)
	if errors.Is(err, deployment.ErrUnknown) {
		return routing.Errorf(routing.CodeFailedPrecondition,
			"deployment %s, which the invocation is tied to, is not known any more: whether %s can read its journal can't be told; resume without naming a deployment to have it try", from, wanted)
	}
	if err != nil {
		return routing.Errorf(routing.CodeDataLoss, "%v", err)
	}
	var text strings.Builder
	for _, change := range deployment.Breaking(changes) {
		if breaks(change, row.GetTarget()) {
			text.WriteString("\n  " + change.String())
		}
	}
	if text.Len() == 0 {
		return nil
	}
	return routing.Errorf(routing.CodeFailedPrecondition, "deployment %s can't read what the invocation left when it ran on %s:%s\nStart a build that can, or resume without naming a deployment to have this one try", wanted, from, text.String())
}

// breaks reports whether a change is about what an invocation of the handler has in its journal:
// its own request and result, and its object's state, rows and promises.
func breaks(change deployment.Difference, target *recordv1.Target) bool {
	for _, affected := range change.Affected {
		if affected.Service == protoreflect.FullName(target.GetService()) &&
			(affected.Kept != compat.KeptInvocations || affected.Handler == protoreflect.Name(target.GetHandler())) {
			return true
		}
	}
	return false
}
