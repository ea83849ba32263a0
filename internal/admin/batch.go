package admin

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

const (
	// batchAtOnce is how many invocations of a page are dealt with together: each waits for its
	// record, and those of one partition share one.
	batchAtOnce = 64
	// batchFailures is how many a page names.
	batchFailures = 20
)

var (
	unfinished = []recordv1.Status{recordv1.Status_STATUS_SCHEDULED, recordv1.Status_STATUS_QUEUED, recordv1.Status_STATUS_RUNNING,
		recordv1.Status_STATUS_SUSPENDED, recordv1.Status_STATUS_BACKING_OFF, recordv1.Status_STATUS_PAUSED}
	unsuccessful = []recordv1.Status{recordv1.Status_STATUS_FAILED, recordv1.Status_STATUS_CANCELLED, recordv1.Status_STATUS_KILLED}
)

// operation is what a batch may do.
type operation struct {
	// statuses are those it is for if the request names none.
	statuses []recordv1.Status
	do       func(s *Service, ctx context.Context, id invocation.ID, request *adminv1.BatchInvocationsRequest) error
}

var operations = map[adminv1.InvocationOperation]operation{
	adminv1.InvocationOperation_INVOCATION_OPERATION_CANCEL: {unfinished, func(s *Service, ctx context.Context, id invocation.ID, _ *adminv1.BatchInvocationsRequest) error {
		return s.config.Router.Cancel(ctx, id, false)
	}},
	adminv1.InvocationOperation_INVOCATION_OPERATION_KILL: {unfinished, func(s *Service, ctx context.Context, id invocation.ID, _ *adminv1.BatchInvocationsRequest) error {
		return s.config.Router.Cancel(ctx, id, true)
	}},
	adminv1.InvocationOperation_INVOCATION_OPERATION_PAUSE: {unfinished[:len(unfinished)-1], func(s *Service, ctx context.Context, id invocation.ID, _ *adminv1.BatchInvocationsRequest) error {
		return s.config.Router.Pause(ctx, id)
	}},
	adminv1.InvocationOperation_INVOCATION_OPERATION_RESUME: {unfinished[len(unfinished)-1:], func(s *Service, ctx context.Context, id invocation.ID, request *adminv1.BatchInvocationsRequest) error {
		return s.resume(ctx, id, request.GetResumeDeployment())
	}},
	adminv1.InvocationOperation_INVOCATION_OPERATION_RESTART: {unsuccessful, func(s *Service, ctx context.Context, id invocation.ID, request *adminv1.BatchInvocationsRequest) error {
		_, err := s.config.Router.RestartAsNew(ctx, id, 0, request.GetRequestId())
		return err
	}},
	adminv1.InvocationOperation_INVOCATION_OPERATION_PURGE: {append([]recordv1.Status{recordv1.Status_STATUS_SUCCEEDED}, unsuccessful...), func(s *Service, ctx context.Context, id invocation.ID, _ *adminv1.BatchInvocationsRequest) error {
		return s.config.Router.Purge(ctx, id)
	}},
}

// batchInvocations does one page of a batch. Where it stands is in the token alone, and each
// operation may be done twice: a batch goes on from any token, after any interruption.
func (s *Service) batchInvocations(ctx context.Context, request *adminv1.BatchInvocationsRequest) (*adminv1.BatchInvocationsResponse, error) {
	op, ok := operations[request.GetOperation()]
	if !ok {
		return nil, invalid("operation %d is not one of INVOCATION_OPERATION_CANCEL (1) to INVOCATION_OPERATION_PURGE (6)", request.GetOperation())
	}
	which := request.GetInvocations()
	wanted, err := filter(which)
	if err != nil {
		return nil, err
	}
	if wanted.Limit, err = pageSize(which.GetPageSize()); err != nil {
		return nil, err
	}
	at, err := parseCursor(which.GetPageToken())
	if err != nil {
		return nil, err
	}
	switch {
	case at.inside:
		return nil, invalid("pageToken %q is one of a list: a batch has its own", clip(which.GetPageToken()))
	case request.GetOperation() == adminv1.InvocationOperation_INVOCATION_OPERATION_RESTART && request.GetRequestId() == "" && !request.GetDryRun():
		return nil, invalid("requestId is empty: without it, a page that is asked for again would restart its invocations again")
	case request.GetOperation() != adminv1.InvocationOperation_INVOCATION_OPERATION_RESUME && request.GetResumeDeployment() != "":
		return nil, invalid("resumeDeployment is %q: only what is resumed goes on with a deployment", clip(request.GetResumeDeployment()))
	case which.GetCreatedBefore() == nil && which.GetPageToken() != "":
		return nil, invalid("createdBefore is unset: set what the first page returned, or the batch would go on with what was created since")
	}
	if err := s.canRun(request.GetResumeDeployment()); err != nil {
		return nil, err
	}
	if wanted.CreatedBefore == 0 {
		wanted.CreatedBefore = s.config.Now().UnixMilli()
	}
	if len(wanted.Statuses) == 0 {
		wanted.Statuses = op.statuses
	}
	wanted.After = at.after
	page, err := s.config.Router.InvocationsPage(ctx, wanted)
	if err != nil {
		return nil, err
	}
	response := &adminv1.BatchInvocationsResponse{
		Matched: uint64(len(page.Found)), Scanned: uint64(page.Scanned),
		CreatedBefore: timestamppb.New(milliseconds(wanted.CreatedBefore)),
	}
	if !page.Next.IsZero() {
		response.NextPageToken = cursor{after: page.Next}.token()
	}
	if request.GetDryRun() {
		return response, nil
	}
	return response, s.each(ctx, page.Found, response, func(id invocation.ID) error { return op.do(s, ctx, id, request) })
}

// each does the same with all invocations of a page. What the node refuses is counted; anything
// else ends the page, which is then asked for again.
func (s *Service) each(ctx context.Context, found []routing.InvocationDetail, response *adminv1.BatchInvocationsResponse, do func(invocation.ID) error) error {
	errs := make([]error, len(found))
	var all sync.WaitGroup
	places := make(chan struct{}, batchAtOnce)
	for i, detail := range found {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			errs[i] = do(detail.ID)
		})
	}
	all.Wait()
	for i, err := range errs {
		refused, ok := errors.AsType[*routing.Error](err)
		switch {
		case err == nil:
			response.Done++
		case !ok, refused.Code == routing.CodeUnavailable:
			return cmp.Or(ctx.Err(), err)
		case refused.Code == routing.CodeNotFound: // It is gone since.
			response.Matched--
		default:
			response.Failed++
			response.Failures = append(response.Failures, &adminv1.BatchFailure{
				InvocationId: found[i].ID.String(), Error: failure(&recordv1.Error{Code: uint32(refused.Code), Message: refused.Message}),
			})
		}
	}
	response.Failures = slices.Clip(response.Failures[:min(len(response.Failures), batchFailures)])
	return nil
}
