package ingress

import (
	"context"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/timestamppb"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/timetable"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

const (
	maxScheduleNameBytes = 255
	maxNoteBytes         = 1024
	defaultSchedules     = 100
	defaultDueTimes      = 10
)

// scheduleMethods is perdure.v1.ScheduleService, which every node has.
func (i *Ingress) scheduleMethods() []connect.Method {
	schema := perdurev1.File_perdure_v1_schedule_proto.Services().ByName("ScheduleService")
	return []connect.Method{
		unary(i, schema, "PutSchedule", i.limited, i.putSchedule),
		unary(i, schema, "GetSchedule", i.limited, i.getSchedule),
		unary(i, schema, "ListSchedules", i.limited, i.listSchedules),
		unary(i, schema, "DeleteSchedule", i.limited, i.deleteSchedule),
		unary(i, schema, "PauseSchedule", i.limited, i.pauseSchedule),
		unary(i, schema, "ResumeSchedule", i.limited, i.resumeSchedule),
		unary(i, schema, "TriggerSchedule", i.limited, i.triggerSchedule),
		unary(i, schema, "BackfillSchedule", i.limited, i.backfillSchedule),
		unary(i, schema, "ListDueTimes", i.limited, i.listDueTimes),
	}
}

func (i *Ingress) putSchedule(ctx context.Context, request *perdurev1.PutScheduleRequest) (*perdurev1.PutScheduleResponse, error) {
	wanted, err := i.newSchedule(request.GetSchedule())
	if err != nil {
		return nil, err
	}
	reply, err := i.config.Router.ChangeSchedule(ctx, wanted.Name, &recordv1.ScheduleChange{
		Change: &recordv1.ScheduleChange_Put{Put: &recordv1.PutSchedule{Schedule: wanted, Create: request.GetCreate()}},
	})
	if err != nil {
		return nil, err
	}
	return &perdurev1.PutScheduleResponse{Schedule: i.scheduleMessage(reply.Schedule), State: stateMessage(reply), Changed: reply.Changed}, nil
}

func (i *Ingress) getSchedule(ctx context.Context, request *perdurev1.GetScheduleRequest) (*perdurev1.GetScheduleResponse, error) {
	if err := checkScheduleName(request.GetName()); err != nil {
		return nil, err
	}
	count, err := pageOf("dueTimes", request.GetDueTimes(), 5)
	if err != nil {
		return nil, err
	}
	reply, err := i.config.Router.Schedule(ctx, request.GetName())
	if err != nil {
		return nil, err
	}
	response := &perdurev1.GetScheduleResponse{Schedule: i.scheduleMessage(reply.Schedule), State: stateMessage(reply)}
	if !reply.State.Paused && reply.State.NextDue != 0 {
		response.DueTimes, err = dueTimes(ctx, reply.Schedule.Timetable, reply.State.NextDue-1, count)
	}
	return response, err
}

func (i *Ingress) listSchedules(ctx context.Context, request *perdurev1.ListSchedulesRequest) (*perdurev1.ListSchedulesResponse, error) {
	limit, err := pageOf("pageSize", request.GetPageSize(), defaultSchedules)
	if err != nil {
		return nil, err
	}
	page, err := i.config.Router.SchedulesPage(ctx, routing.ScheduleQuery{Prefix: request.GetPrefix(), After: request.GetPageToken(), Limit: limit})
	if err != nil {
		return nil, err
	}
	response := &perdurev1.ListSchedulesResponse{NextPageToken: page.Next}
	for _, found := range page.Found {
		response.Schedules = append(response.Schedules, &perdurev1.ListedSchedule{Schedule: i.scheduleMessage(found.Schedule), State: stateMessage(found)})
	}
	return response, nil
}

// change makes a change of a schedule that exists.
func (i *Ingress) change(ctx context.Context, name string, change *recordv1.ScheduleChange) (*recordv1.ScheduleReply, error) {
	if err := checkScheduleName(name); err != nil {
		return nil, err
	}
	return i.config.Router.ChangeSchedule(ctx, name, change)
}

func (i *Ingress) deleteSchedule(ctx context.Context, request *perdurev1.DeleteScheduleRequest) (*perdurev1.DeleteScheduleResponse, error) {
	_, err := i.change(ctx, request.GetName(), &recordv1.ScheduleChange{
		Change: &recordv1.ScheduleChange_Delete{Delete: &recordv1.DeleteSchedule{}},
	})
	return &perdurev1.DeleteScheduleResponse{}, err
}

func (i *Ingress) pauseSchedule(ctx context.Context, request *perdurev1.PauseScheduleRequest) (*perdurev1.PauseScheduleResponse, error) {
	note := request.GetNote()
	if len(note) > maxNoteBytes {
		return nil, invalid("the note has %d bytes; at most %d are allowed", len(note), maxNoteBytes)
	}
	reply, err := i.change(ctx, request.GetName(), &recordv1.ScheduleChange{
		Change: &recordv1.ScheduleChange_Pause{Pause: &recordv1.PauseSchedule{Note: note}},
	})
	return &perdurev1.PauseScheduleResponse{Changed: reply.GetChanged()}, err
}

func (i *Ingress) resumeSchedule(ctx context.Context, request *perdurev1.ResumeScheduleRequest) (*perdurev1.ResumeScheduleResponse, error) {
	reply, err := i.change(ctx, request.GetName(), &recordv1.ScheduleChange{
		Change: &recordv1.ScheduleChange_Resume{Resume: &recordv1.ResumeSchedule{}},
	})
	return &perdurev1.ResumeScheduleResponse{Changed: reply.GetChanged()}, err
}

// requestID is what a caller gave, or a new one.
func requestID(given string) (string, error) {
	if len(given) > maxIdempotencyKeyBytes || !utf8.ValidString(given) {
		return "", invalid("requestId must have at most %d bytes of valid utf-8", maxIdempotencyKeyBytes)
	}
	if given == "" {
		given = uuid.NewString()
	}
	return given, nil
}

func (i *Ingress) triggerSchedule(ctx context.Context, request *perdurev1.TriggerScheduleRequest) (*perdurev1.TriggerScheduleResponse, error) {
	id, err := requestID(request.GetRequestId())
	if err != nil {
		return nil, err
	}
	reply, err := i.change(ctx, request.GetName(), &recordv1.ScheduleChange{
		Change: &recordv1.ScheduleChange_Trigger{Trigger: &recordv1.TriggerSchedule{RequestId: id, Overlaps: request.GetOverlaps()}},
	})
	if err != nil {
		return nil, err
	}
	response := &perdurev1.TriggerScheduleResponse{}
	if reply.Firing != nil {
		response.Firing = firingMessage(reply.Firing)
	}
	return response, nil
}

func (i *Ingress) backfillSchedule(ctx context.Context, request *perdurev1.BackfillScheduleRequest) (*perdurev1.BackfillScheduleResponse, error) {
	id, err := requestID(request.GetRequestId())
	if err != nil {
		return nil, err
	}
	for name, at := range map[string]*timestamppb.Timestamp{"from": request.GetFrom(), "until": request.GetUntil()} {
		if request.GetStop() {
			if at != nil {
				return nil, invalid("%s is set, and stop ends whatever backfill there is: leave it out, or stop", name)
			}
			continue
		}
		if err := checkInstant(name, at); err != nil {
			return nil, err
		}
		if at == nil {
			return nil, invalid("%s is not set: a backfill goes from an instant until another, both included", name)
		}
	}
	backfill := &recordv1.BackfillSchedule{RequestId: id, Stop: request.GetStop()}
	if !backfill.Stop {
		backfill.From, backfill.Until = request.GetFrom().AsTime().UnixMilli(), request.GetUntil().AsTime().UnixMilli()
	}
	_, err = i.change(ctx, request.GetName(), &recordv1.ScheduleChange{Change: &recordv1.ScheduleChange_Backfill{Backfill: backfill}})
	return &perdurev1.BackfillScheduleResponse{}, err
}

func (i *Ingress) listDueTimes(ctx context.Context, request *perdurev1.ListDueTimesRequest) (*perdurev1.ListDueTimesResponse, error) {
	count, err := pageOf("count", request.GetCount(), defaultDueTimes)
	if err != nil {
		return nil, err
	}
	if err := checkInstant("after", request.GetAfter()); err != nil {
		return nil, err
	}
	var of *recordv1.Timetable
	switch what := request.GetOf().(type) {
	case *perdurev1.ListDueTimesRequest_Name:
		if err := checkScheduleName(what.Name); err != nil {
			return nil, err
		}
		reply, err := i.config.Router.Schedule(ctx, what.Name)
		if err != nil {
			return nil, err
		}
		of = reply.Schedule.Timetable
	case *perdurev1.ListDueTimesRequest_Schedule:
		if of, err = newTimetable(what.Schedule); err != nil {
			return nil, err
		}
	default:
		return nil, invalid("neither name nor schedule is set: give the one of a schedule that exists, or one that may come to be")
	}
	after := time.Now()
	if request.GetAfter() != nil {
		after = request.GetAfter().AsTime()
	}
	times, err := dueTimes(ctx, of, after.UnixMilli(), count)
	return &perdurev1.ListDueTimesResponse{DueTimes: times}, err
}

func dueTimes(ctx context.Context, of *recordv1.Timetable, after int64, count int) ([]*timestamppb.Timestamp, error) {
	var times []*timestamppb.Timestamp
	for range count {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		due, err := timetable.Next(of, after)
		if err != nil || due == 0 {
			return times, err
		}
		times = append(times, instant(due))
		after = due
	}
	return times, nil
}

// pageOf checks how many a request asks for.
func pageOf(name string, asked uint32, or int) (int, error) {
	switch {
	case asked == 0:
		return or, nil
	case asked > routing.MaxPage:
		return 0, invalid("%s is %d; it must be at most %d", name, asked, routing.MaxPage)
	}
	return int(asked), nil
}

func checkScheduleName(name string) error {
	switch {
	case name == "":
		return invalid("the name of the schedule is empty")
	case len(name) > maxScheduleNameBytes:
		return invalid("the name of the schedule has %d bytes; at most %d are allowed", len(name), maxScheduleNameBytes)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return invalid("the name of the schedule, %q, must be valid utf-8 without control characters", clip(name))
	}
	return nil
}

// checkInstant refuses what is no instant, or none that a schedule could be due at.
func checkInstant(name string, at *timestamppb.Timestamp) error {
	if at == nil {
		return nil
	}
	if err := at.CheckValid(); err != nil {
		return invalid("%s: %v", name, err)
	}
	if year := at.AsTime().Year(); year < 1970 || year > 9000 {
		return invalid("%s is in the year %d; it must be from 1970 to 9000", name, year)
	}
	return nil
}

// instant is nil for 0.
func instant(at int64) *timestamppb.Timestamp {
	if at == 0 {
		return nil
	}
	return timestamppb.New(time.UnixMilli(at))
}
