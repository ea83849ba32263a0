package admin

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"maps"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/perdure/perdure/internal/header"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// cursor is a place in a list: in the window after an id, after an invocation of that age. A
// window is a page of the router's, whose order by id means nothing to people: ids start with a
// hash. Ordering all matches by age would mean to read them all for each page.
type cursor struct {
	after invocation.ID
	// until is the last id of the window, zero if it ends with the list.
	until invocation.ID
	// inside is false at the start of a window, which has no until yet.
	inside    bool
	createdAt int64
	id        invocation.ID
}

const cursorBytes = 2*invocation.IDBytes + 1 + 8 + invocation.IDBytes

func (c cursor) token() string {
	data := append(make([]byte, 0, cursorBytes), c.after[:]...)
	data = append(append(data, c.until[:]...), 0)
	if c.inside {
		data[2*invocation.IDBytes] = 1
	}
	data = binary.BigEndian.AppendUint64(data, uint64(c.createdAt))
	return base64.RawURLEncoding.EncodeToString(append(data, c.id[:]...))
}

func parseCursor(token string) (c cursor, err error) {
	if token == "" {
		return c, nil
	}
	data, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(data) != cursorBytes {
		return c, badToken(token)
	}
	c.after, data = invocation.ID(data[:invocation.IDBytes]), data[invocation.IDBytes:]
	c.until, data = invocation.ID(data[:invocation.IDBytes]), data[invocation.IDBytes:]
	c.inside = data[0] == 1
	c.createdAt = int64(binary.BigEndian.Uint64(data[1:]))
	c.id = invocation.ID(data[9:])
	return c, nil
}

func badToken(token string) error {
	return invalid("pageToken %q is not one that this service gave out; leave it out for the first page", clip(token))
}

// newestFirst orders a window.
func newestFirst(a, b routing.InvocationDetail) int {
	return cmp.Or(cmp.Compare(b.Row.GetCreatedAt(), a.Row.GetCreatedAt()), bytes.Compare(a.ID[:], b.ID[:]))
}

// passed reports whether d comes before what the cursor points at.
func (c cursor) passed(d routing.InvocationDetail) bool {
	if !c.inside {
		return false
	}
	at := routing.InvocationDetail{ID: c.id, Row: &recordv1.Invocation{CreatedAt: c.createdAt}}
	return newestFirst(d, at) <= 0
}

func filter(request *adminv1.ListInvocationsRequest) (routing.Filter, error) {
	f := routing.Filter{Service: request.GetService(), Key: request.GetKey(), Handler: request.GetHandler(), KeyPrefix: request.GetKeyPrefix(), Deployment: request.GetDeployment()}
	if f.Service == "" && (f.Key != "" || f.Handler != "" || f.KeyPrefix != "") {
		return f, invalid("key, keyPrefix and handler are names within a service: set service too")
	}
	for _, bound := range []struct {
		name string
		at   *timestamppb.Timestamp
		into *int64
	}{{"createdAfter", request.GetCreatedAfter(), &f.CreatedFrom}, {"createdBefore", request.GetCreatedBefore(), &f.CreatedBefore}} {
		if bound.at == nil {
			continue
		}
		if err := bound.at.CheckValid(); err != nil {
			return f, invalid("%s: %v", bound.name, err)
		}
		// A bound before 1970 is one that nothing or everything is behind.
		*bound.into = max(bound.at.AsTime().UnixMilli(), 1)
	}
	for _, status := range request.GetStatus() {
		if _, ok := adminv1.InvocationStatus_name[int32(status)]; !ok || status == 0 {
			return f, invalid("status %d is not one of INVOCATION_STATUS_SCHEDULED (1) to INVOCATION_STATUS_KILLED (10)", status)
		}
		// The numbers are those of the record, which a test makes sure of.
		f.Statuses = append(f.Statuses, recordv1.Status(status))
	}
	return f, nil
}

func (s *Service) listInvocations(ctx context.Context, request *adminv1.ListInvocationsRequest) (*adminv1.ListInvocationsResponse, error) {
	wanted, err := filter(request)
	if err != nil {
		return nil, err
	}
	limit, err := pageSize(request.GetPageSize())
	if err != nil {
		return nil, err
	}
	at, err := parseCursor(request.GetPageToken())
	if err != nil {
		return nil, err
	}
	wanted.After, wanted.Until = at.after, at.until
	window, err := s.config.Router.InvocationsPage(ctx, wanted)
	if err != nil {
		return nil, err
	}
	response := &adminv1.ListInvocationsResponse{Scanned: uint64(window.Scanned)}
	// The window ends where it ended when its first page was asked for, or earlier if it has
	// grown since: then what was shown of its end is shown again, and nothing is left out.
	until := at.until
	if !window.Next.IsZero() {
		until = window.Next
	}
	found := window.Found
	slices.SortFunc(found, newestFirst)
	found = slices.DeleteFunc(found, at.passed)
	if len(found) > limit {
		end := found[limit-1]
		found = found[:limit]
		response.NextPageToken = cursor{after: at.after, until: until, inside: true, createdAt: end.Row.GetCreatedAt(), id: end.ID}.token()
	} else if !until.IsZero() {
		response.NextPageToken = cursor{after: until}.token()
	}
	for _, detail := range found {
		response.Invocations = append(response.Invocations, summary(detail, false))
	}
	return response, nil
}

// summary is an invocation without its journal.
func summary(detail routing.InvocationDetail, stacks bool) *adminv1.Invocation {
	row := detail.Row
	target := row.GetTarget()
	out := &adminv1.Invocation{
		Id:     detail.ID.String(),
		Target: &adminv1.Target{Service: target.GetService(), Key: target.GetKey(), Handler: target.GetHandler()},
		Mode:   perdurev1.Mode(row.GetMode()), Status: adminv1.InvocationStatus(row.GetStatus()),
		CreatedAt: instant(row.GetCreatedAt()), StartedAt: instant(row.GetStartedAt()),
		CompletedAt: instant(row.GetCompletedAt()), DueAt: instant(row.GetDueAt()),
		Attempt: row.GetAttempt(), LastFailure: failure(row.GetLastFailure()),
		CancelRequested: row.GetCancelRequested(), IdempotencyKey: row.GetIdempotencyKey(),
		Traceparent: row.GetTraceparent(), Entries: max(row.GetEntries(), detail.After+uint32(len(detail.Journal))-min(row.GetJournalStart(), detail.After)),
		Continuations: row.GetContinuations(),
		Error:         failure(row.GetResult().GetError()),
		Failures:      failures(row, stacks), FailedAttempts: row.GetFailedAttempts(), FailuresInRow: row.GetFailures(),
		WaitingFor: row.GetWaitingFor(), Deadline: instant(row.GetDeadlineAt()),
		Deployment: row.GetDeployment(), EarlierDeployments: row.GetEarlierDeployments(),
	}
	if mode := out.Mode; row.GetCompletedAt() == 0 && (mode == perdurev1.Mode_DURABLE || mode == perdurev1.Mode_RUN) {
		out.MaxAttempts = cmp.Or(row.GetRetry().GetMaxAttempts(), routing.DefaultMaxAttempts)
	}
	if origins := row.GetOrigins(); len(origins) > 0 {
		newest := origins[len(origins)-1]
		if id, ok := invocation.IDFromBytes(newest.GetInvocationId()); ok {
			out.RestartedFromInvocationId, out.RestartedEntries = id.String(), newest.GetEntries()
		}
	}
	if row.GetStatus() == recordv1.Status_STATUS_BACKING_OFF {
		out.RetryAt = instant(row.GetRetryAt())
	}
	if flow := row.GetFlow(); flow != nil {
		out.Tenant, out.LimitKey, out.Priority = flow.GetTenant(), flow.GetLimitKey(), flow.GetPriority()
		if held := int(flow.GetHeld()); flow.GetAsk() != 0 && held < len(flow.GetLimits()) {
			out.WaitsForLimit, out.WaitingSince = flow.GetLimits()[held].GetName(), instant(flow.GetAskedAt())
		}
	}
	if scheduled := row.GetScheduled(); scheduled != nil {
		out.FiredBy = &adminv1.FiredBy{Schedule: scheduled.GetSchedule(), Number: scheduled.GetNumber(), DueAt: instant(scheduled.GetDueAt())}
	}
	if row.GetRetentionMs() > 0 {
		out.Retention = durationpb.New(time.Duration(row.GetRetentionMs()) * time.Millisecond)
	}
	if caller, ok := invocation.IDFromBytes(row.GetCaller().GetInvocationId()); ok {
		out.CallerInvocationId = caller.String()
	}
	return out
}

// instant is unset for "not yet".
func instant(at int64) *timestamppb.Timestamp {
	if at == 0 {
		return nil
	}
	return timestamppb.New(milliseconds(at))
}

func milliseconds(at int64) time.Time { return time.UnixMilli(at) }

func (s *Service) getInvocation(ctx context.Context, request *adminv1.GetInvocationRequest) (*adminv1.GetInvocationResponse, error) {
	id, err := parseID(request.GetInvocationId())
	if err != nil {
		return nil, err
	}
	limit, err := pageSize(request.GetPageSize())
	if err != nil {
		return nil, err
	}
	passed := uint64(0)
	if token := request.GetPageToken(); token != "" {
		if passed, err = strconv.ParseUint(token, 10, 32); err != nil {
			return nil, badToken(token)
		}
	}
	detail, err := s.config.Router.Journal(ctx, id, uint32(passed), limit)
	if err != nil {
		return nil, err
	}
	out := &adminv1.GetInvocationResponse{Invocation: summary(*detail, true)}
	row := detail.Row
	out.Invocation.Divergence = divergence(row.GetDivergence())
	out.Invocation.Headers = maps.Collect(header.All(row.GetHeaders()))
	method := s.method(row.GetTarget().GetService(), row.GetTarget().GetHandler())
	if len(row.GetInput()) > 0 {
		out.Input = payload(row.GetInput(), requestOf(method), maxPayloadBytes)
	}
	if row.GetStatus() == recordv1.Status_STATUS_SUCCEEDED && row.GetResult() != nil {
		out.Response = payload(row.GetResult().GetValue(), responseOf(method), maxPayloadBytes)
	}
	for i, entry := range detail.Journal {
		index := detail.After + uint32(i) + 1
		step := s.entry(row.GetTarget(), index, entry, detail.Completions[index])
		if tries := detail.Tries[index]; tries != nil {
			step.FailedTries, step.LastFailure, step.NextTryAt = tries.GetFailed(), failure(tries.GetLastFailure()), instant(tries.GetNextAt())
		}
		out.Journal = append(out.Journal, step)
	}
	if detail.More {
		out.NextPageToken = strconv.FormatUint(uint64(detail.After)+uint64(len(detail.Journal)), 10)
	}
	return out, nil
}

// GetInvocation is the rpc for callers in this process; pages are theirs to ask for.
func (s *Service) GetInvocation(ctx context.Context, request *adminv1.GetInvocationRequest) (*adminv1.GetInvocationResponse, error) {
	return s.getInvocation(ctx, request)
}

func parseID(text string) (invocation.ID, error) {
	if text == "" {
		return invocation.ID{}, invalid("invocationId is empty: it is what the response header Perdure-Invocation-Id says")
	}
	id, err := invocation.ParseID(text)
	if err != nil {
		return id, invalid("%v", err)
	}
	return id, nil
}
