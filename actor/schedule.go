package actor

import (
	"context"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// Schedules makes and steers schedules, which call a handler again and again; see [Client.Schedules].
// Its methods are those of perdure.v1.ScheduleService and try again while the answer is
// unavailable, as calls do. In a handler use them in the closure of a [Run]: each may be repeated.
type Schedules struct{ client *Client }

// Schedules returns what makes and steers schedules.
func (c *Client) Schedules() Schedules { return Schedules{c} }

// do makes tries at an rpc until one ends otherwise than with unavailable.
func (s Schedules) do(ctx context.Context, method string, request, response proto.Message) error {
	if handler, _ := lookup(ctx); handler != nil {
		return Errorf(FailedPrecondition, "%s was called with a handler's ctx outside Run: make it a step, with Run or Do, and use the closure's ctx", method)
	}
	return s.client.retry(ctx, func(ctx context.Context) error {
		proto.Reset(response)
		return s.client.transport.BuiltIn(ctx, "perdure.v1.ScheduleService/"+method, request, response)
	})
}

// Put makes a schedule, or gives the one of that name another definition. request, without its
// key, is what the handler gets; nil leaves schedule.Request as it is. changed is false if the
// schedule was like this already.
func (s Schedules) Put(ctx context.Context, schedule *perdurev1.Schedule, request proto.Message) (changed bool, err error) {
	if request != nil {
		raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(request)
		if err != nil {
			return false, Errorf(InvalidArgument, "schedule %q: the request can't be encoded: %w", schedule.GetName(), err)
		}
		schedule = proto.CloneOf(schedule)
		schedule.Request = &perdurev1.Schedule_Raw{Raw: raw}
	}
	response := &perdurev1.PutScheduleResponse{}
	err = s.do(ctx, "PutSchedule", &perdurev1.PutScheduleRequest{Schedule: schedule}, response)
	return response.GetChanged(), err
}

// Get returns a schedule with its next due times. Its code is NotFound if there is none.
func (s Schedules) Get(ctx context.Context, name string) (*perdurev1.GetScheduleResponse, error) {
	response := &perdurev1.GetScheduleResponse{}
	if err := s.do(ctx, "GetSchedule", &perdurev1.GetScheduleRequest{Name: name}, response); err != nil {
		return nil, err
	}
	return response, nil
}

// List returns a page of schedules in the order of their names.
func (s Schedules) List(ctx context.Context, request *perdurev1.ListSchedulesRequest) (*perdurev1.ListSchedulesResponse, error) {
	response := &perdurev1.ListSchedulesResponse{}
	if err := s.do(ctx, "ListSchedules", request, response); err != nil {
		return nil, err
	}
	return response, nil
}

// Delete removes a schedule; it is no error if there is none. What it has fired goes on.
func (s Schedules) Delete(ctx context.Context, name string) error {
	err := s.do(ctx, "DeleteSchedule", &perdurev1.DeleteScheduleRequest{Name: name}, &perdurev1.DeleteScheduleResponse{})
	if err != nil && CodeOf(err) == NotFound {
		return nil
	}
	return err
}

// Pause keeps a schedule's due times from firing until Resume. note says why, to people.
func (s Schedules) Pause(ctx context.Context, name, note string) error {
	return s.do(ctx, "PauseSchedule", &perdurev1.PauseScheduleRequest{Name: name, Note: note}, &perdurev1.PauseScheduleResponse{})
}

// Resume goes on with the next due time.
func (s Schedules) Resume(ctx context.Context, name string) error {
	return s.do(ctx, "ResumeSchedule", &perdurev1.ResumeScheduleRequest{Name: name}, &perdurev1.ResumeScheduleResponse{})
}

// Trigger fires a schedule now. Requests with the same RequestId fire once; an empty one is
// filled in, and then each call of Trigger fires once.
func (s Schedules) Trigger(ctx context.Context, request *perdurev1.TriggerScheduleRequest) (*perdurev1.Firing, error) {
	if request.GetRequestId() == "" {
		request = proto.CloneOf(request)
		request.RequestId = uuid.NewString()
	}
	response := &perdurev1.TriggerScheduleResponse{}
	if err := s.do(ctx, "TriggerSchedule", request, response); err != nil {
		return nil, err
	}
	return response.GetFiring(), nil
}

// Backfill fires the due times of a range of the past, or with Stop ends doing so. Its RequestId is as that of a trigger.
func (s Schedules) Backfill(ctx context.Context, request *perdurev1.BackfillScheduleRequest) error {
	if request.GetRequestId() == "" {
		request = proto.CloneOf(request)
		request.RequestId = uuid.NewString()
	}
	return s.do(ctx, "BackfillSchedule", request, &perdurev1.BackfillScheduleResponse{})
}
