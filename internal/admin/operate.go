package admin

import (
	"context"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

func (s *Service) cancelInvocation(ctx context.Context, request *adminv1.CancelInvocationRequest) (*adminv1.CancelInvocationResponse, error) {
	id, err := parseID(request.GetInvocationId())
	if err == nil {
		err = s.config.Router.Cancel(ctx, id, false)
	}
	if err != nil {
		return nil, err
	}
	return &adminv1.CancelInvocationResponse{Status: s.statusOf(ctx, id)}, nil
}

func (s *Service) killInvocation(ctx context.Context, request *adminv1.KillInvocationRequest) (*adminv1.KillInvocationResponse, error) {
	id, err := parseID(request.GetInvocationId())
	if err == nil {
		err = s.config.Router.Cancel(ctx, id, true)
	}
	if err != nil {
		return nil, err
	}
	return &adminv1.KillInvocationResponse{Status: s.statusOf(ctx, id)}, nil
}

func (s *Service) pauseInvocation(ctx context.Context, request *adminv1.PauseInvocationRequest) (*adminv1.PauseInvocationResponse, error) {
	id, err := parseID(request.GetInvocationId())
	if err == nil {
		err = s.config.Router.Pause(ctx, id)
	}
	if err != nil {
		return nil, err
	}
	return &adminv1.PauseInvocationResponse{Status: s.statusOf(ctx, id)}, nil
}

func (s *Service) restartInvocation(ctx context.Context, request *adminv1.RestartInvocationRequest) (*adminv1.RestartInvocationResponse, error) {
	id, err := parseID(request.GetInvocationId())
	if err != nil {
		return nil, err
	}
	renewed, err := s.config.Router.RestartAsNew(ctx, id, request.GetFrom(), request.GetRequestId())
	if err != nil {
		return nil, err
	}
	return &adminv1.RestartInvocationResponse{InvocationId: renewed.String(), Status: s.statusOf(ctx, renewed)}, nil
}

func (s *Service) purgeInvocation(ctx context.Context, request *adminv1.PurgeInvocationRequest) (*adminv1.PurgeInvocationResponse, error) {
	id, err := parseID(request.GetInvocationId())
	if err == nil {
		err = s.config.Router.Purge(ctx, id)
	}
	if err != nil {
		return nil, err
	}
	return &adminv1.PurgeInvocationResponse{}, nil
}

// statusOf is unspecified if the invocation cannot be read: what was asked for is done, so
// that is no failure.
func (s *Service) statusOf(ctx context.Context, id invocation.ID) adminv1.InvocationStatus {
	detail, err := s.config.Router.Journal(ctx, id, 0, 0)
	if err != nil {
		return adminv1.InvocationStatus_INVOCATION_STATUS_UNSPECIFIED
	}
	return adminv1.InvocationStatus(detail.Row.GetStatus())
}

// failures are for people; a list is shorter without their stacks.
func failures(row *recordv1.Invocation, stacks bool) []*adminv1.Failure {
	var out []*adminv1.Failure
	for _, failed := range row.GetFailed() {
		one := &adminv1.Failure{
			Error: failure(failed.GetError()), At: instant(failed.GetAt()), Attempt: failed.GetAttempt(),
			Entry: failed.GetEntry(), Step: failed.GetStep(), Site: failed.GetSite(), Terminal: failed.GetTerminal(),
		}
		if stacks {
			one.Stack = failed.GetStack()
		}
		out = append(out, one)
	}
	return out
}
