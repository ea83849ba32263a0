package ingress

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/calendar"
	"github.com/perdure/perdure/internal/flow"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/schedule"
	"github.com/perdure/perdure/internal/timetable"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// maxScheduleRequestBytes bounds the request of a schedule, of which each firing makes copies.
const maxScheduleRequestBytes = 256 << 10

// newTimetable reads what says when a schedule is due.
func newTimetable(s *perdurev1.Schedule) (*recordv1.Timetable, error) {
	if s == nil {
		return nil, invalid("schedule is not set")
	}
	for name, at := range map[string]*timestamppb.Timestamp{"startAt": s.GetStartAt(), "endAt": s.GetEndAt()} {
		if err := checkInstant(name, at); err != nil {
			return nil, err
		}
	}
	spec := timetable.Spec{Cron: s.GetCron(), TimeZone: s.GetTimeZone()}
	var err error
	if spec.Every, err = durationOf("every", s.GetEvery()); err != nil {
		return nil, err
	}
	if spec.Offset, err = durationOf("offset", s.GetOffset()); err != nil {
		return nil, err
	}
	if s.GetStartAt() != nil {
		spec.StartAt = s.GetStartAt().AsTime()
	}
	if s.GetEndAt() != nil {
		spec.EndAt = s.GetEndAt().AsTime()
	}
	t, err := spec.Timetable()
	if err != nil {
		return nil, invalid("schedule %q: %s", clip(s.GetName()), strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return t, nil
}

func durationOf(name string, d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	if err := d.CheckValid(); err != nil {
		return 0, invalid("%s: %v", name, err)
	}
	// AsDuration stops at its largest value, which is beyond what any of these may be.
	return d.AsDuration(), nil
}

// newSchedule checks a schedule and makes the router's form of it.
func (i *Ingress) newSchedule(s *perdurev1.Schedule) (*recordv1.Schedule, error) {
	if err := checkScheduleName(s.GetName()); err != nil {
		return nil, err
	}
	table, err := newTimetable(s)
	if err != nil {
		return nil, err
	}
	jitter, err := durationOf("jitter", s.GetJitter())
	if err != nil {
		return nil, err
	}
	grace, err := durationOf("misfireGrace", s.GetMisfireGrace())
	if err != nil {
		return nil, err
	}
	_, overlapKnown := perdurev1.Overlap_name[int32(s.GetOverlap())]
	_, misfireKnown := perdurev1.Misfire_name[int32(s.GetMisfire())]
	switch {
	case jitter < 0 || jitter > calendar.MaxEvery:
		return nil, invalid("schedule %q: the jitter is %s; it must be from 0s to %s", s.GetName(), jitter, calendar.MaxEvery)
	case grace < 0 || grace > calendar.MaxEvery:
		return nil, invalid("schedule %q: the misfire grace is %s; it must be from 0s to %s", s.GetName(), grace, calendar.MaxEvery)
	case !overlapKnown:
		return nil, invalid("schedule %q: overlap policy %d is not known", s.GetName(), s.GetOverlap())
	case !misfireKnown:
		return nil, invalid("schedule %q: misfire policy %d is not known", s.GetName(), s.GetMisfire())
	case s.GetMisfireLimit() > schedule.MaxMisfires:
		return nil, invalid("schedule %q: the misfire limit is %d; it must be at most %d", s.GetName(), s.GetMisfireLimit(), schedule.MaxMisfires)
	}
	made := &recordv1.Schedule{
		Name: s.GetName(), Timetable: table, JitterMs: jitter.Milliseconds(), Overlap: uint32(s.GetOverlap()),
		Misfire: uint32(s.GetMisfire()), MisfireLimit: s.GetMisfireLimit(), MisfireGraceMs: grace.Milliseconds(), Paused: s.GetPaused(),
	}
	if err := i.aim(made, s); err != nil {
		return nil, fmt.Errorf("schedule %q: %w", s.GetName(), err)
	}
	return made, nil
}

// aim finds the handler that s calls and makes the request that is kept for it.
func (i *Ingress) aim(made *recordv1.Schedule, s *perdurev1.Schedule) error {
	m, err := i.scheduled(s)
	if err != nil {
		return err
	}
	request, err := requestOf(m.desc, s)
	if err != nil {
		return err
	}
	template := strings.Contains(s.GetKey(), schedule.DuePlaceholder)
	if m.desc.Mode == actor.ModeRun && !template {
		return invalid("%s runs once for each key, so the key must have %s in it, which stands for the due time; it is %q", m.name, schedule.DuePlaceholder, s.GetKey())
	}
	// A request as a firing will make it, for the checks.
	sampleKey := strings.ReplaceAll(s.GetKey(), schedule.DuePlaceholder, "2026-11-28T03:00:00.000Z")
	if m.desc.KeyField == 0 && s.GetKey() != "" {
		return invalid("%s is of a SERVICE, which has no key; leave key %q out", m.name, s.GetKey())
	}
	sample, err := m.desc.WithKey(request, sampleKey)
	if err != nil {
		return err
	}
	if s.GetDueField() != "" {
		field := request.ProtoReflect().Descriptor().Fields().ByTextName(s.GetDueField())
		if problem := dueFieldProblem(field); problem != "" {
			return invalid("due field %q of %s: %s", s.GetDueField(), request.ProtoReflect().Descriptor().FullName(), problem)
		}
		if request.ProtoReflect().Has(field) {
			return invalid("due field %q is set in the request; leave it empty, each firing gets its own due time", s.GetDueField())
		}
		made.DueField = uint32(field.Number())
		sample = proto.Clone(sample)
		sample.ProtoReflect().Set(field, protoreflect.ValueOfMessage(timestamppb.Now().ProtoReflect()))
	}
	if validate := i.config.Validate; validate != nil {
		if err := validate(sample); err != nil {
			return &validationError{m.name, err}
		}
	}
	if template {
		made.KeyField = uint32(m.desc.KeyField)
	} else if request, err = m.desc.WithKey(request, s.GetKey()); err != nil {
		return err
	}
	input, err := proto.MarshalOptions{Deterministic: true}.Marshal(request)
	if err != nil {
		return invalid("the request cannot be encoded: %v", err)
	}
	if most := min(maxScheduleRequestBytes, i.config.MaxMessageBytes); len(input) > most {
		return invalid("the request has %d bytes; of a schedule's, at most %d are allowed", len(input), most)
	}
	made.TimeoutMs = m.stamps.timeout.Milliseconds()
	made.Invoke = &recordv1.Invoke{
		Target: &recordv1.Target{Service: m.desc.Service, Key: s.GetKey(), Handler: m.desc.Name},
		Mode:   uint32(m.desc.Mode), Input: input, Retry: m.stamps.retry, StepTimeoutMs: m.stamps.stepTimeoutMs,
		RetentionMs: i.config.Retention.of(m.desc, "", false, true).Milliseconds(),
		Flow:        flow.Of(m.desc, s.GetKey(), flow.Given{}, nil), MaxInbox: m.stamps.maxInbox,
	}
	return nil
}

// scheduled finds the handler of a schedule.
func (i *Ingress) scheduled(s *perdurev1.Schedule) (*method, error) {
	services := i.table.Load().services
	service := services[s.GetService()]
	if service == nil {
		names := make([]string, 0, len(services))
		for name := range services {
			names = append(names, name)
		}
		slices.Sort(names)
		return nil, invalid("service %q is not registered%s; registered: %s", clip(s.GetService()), suggest(s.GetService(), names), list(names))
	}
	m := service.methods[s.GetHandler()]
	if m == nil {
		names := make([]string, 0, len(service.methods))
		for name := range service.methods {
			names = append(names, name)
		}
		slices.Sort(names)
		return nil, invalid("service %s has no handler %q%s; it has: %s", s.GetService(), clip(s.GetHandler()), suggest(s.GetHandler(), names), list(names))
	}
	if m.desc.Mode == actor.ModeRead {
		return nil, invalid("%s is a READ handler: it changes nothing, so there is no use in calling it again and again", m.name)
	}
	return m, nil
}

// requestOf is the request of a schedule, without its key.
func requestOf(desc *actor.MethodDesc, s *perdurev1.Schedule) (proto.Message, error) {
	request := desc.NewRequest()
	name := request.ProtoReflect().Descriptor().FullName()
	switch given := s.GetRequest().(type) {
	case *perdurev1.Schedule_Raw:
		if err := proto.Unmarshal(given.Raw, request); err != nil {
			return nil, invalid("the raw request is not a %s: %v", name, err)
		}
	case *perdurev1.Schedule_Json:
		text, err := protojson.Marshal(given.Json)
		if err == nil {
			err = protojson.Unmarshal(text, request)
		}
		if err != nil {
			return nil, invalid("the request is not a %s: %s", name, jsonProblem(err))
		}
	}
	if field := request.ProtoReflect().Descriptor().Fields().ByNumber(desc.KeyField); field != nil && request.ProtoReflect().Has(field) {
		return nil, invalid("the request has the key field %s set; leave it empty, the schedule has a key of its own", field.JSONName())
	}
	return request, nil
}

// jsonProblem is a text of protojson's without its marks, which are there to keep programs from
// reading it and differ from build to build.
func jsonProblem(err error) string {
	return strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\u00a0", " "), "proto: ")
}

// dueFieldProblem says what keeps a field from getting the due time; "" if nothing does.
func dueFieldProblem(field protoreflect.FieldDescriptor) string {
	const timestamp = "google.protobuf.Timestamp"
	switch {
	case field == nil:
		return "there is no such field"
	case field.IsList() || field.IsMap() || field.Message() == nil || field.Message().FullName() != timestamp:
		return "it is not a single " + timestamp
	case field.ContainingOneof() != nil && !field.ContainingOneof().IsSynthetic():
		return "it is part of a oneof"
	}
	return ""
}

// scheduleMessage is a schedule as it was asked for.
func (i *Ingress) scheduleMessage(s *recordv1.Schedule) *perdurev1.Schedule {
	t, target := s.GetTimetable(), s.GetInvoke().GetTarget()
	out := &perdurev1.Schedule{
		Name: s.GetName(), Cron: t.GetCron(), TimeZone: t.GetTimeZone(), Every: span(t.GetEveryMs()), Offset: span(t.GetOffsetMs()),
		StartAt: instant(t.GetStartAt()), EndAt: instant(t.GetEndAt()), Jitter: span(s.GetJitterMs()),
		Overlap: perdurev1.Overlap(s.GetOverlap()), Misfire: perdurev1.Misfire(s.GetMisfire()), MisfireLimit: s.GetMisfireLimit(),
		MisfireGrace: span(s.GetMisfireGraceMs()), Service: target.GetService(), Handler: target.GetHandler(), Key: target.GetKey(),
		Paused: s.GetPaused(),
	}
	if len(s.GetInvoke().GetInput()) > 0 {
		out.Request = &perdurev1.Schedule_Raw{Raw: s.Invoke.Input}
	}
	desc := i.Method(invocation.Target{Service: target.GetService(), Handler: target.GetHandler()})
	if desc == nil {
		return out
	}
	request := desc.NewRequest()
	if err := proto.Unmarshal(s.GetInvoke().GetInput(), request); err != nil {
		return out // as it is: the handler's request is another today
	}
	fields := request.ProtoReflect().Descriptor().Fields()
	if field := fields.ByNumber(protoreflect.FieldNumber(s.GetDueField())); field != nil {
		out.DueField = field.TextName()
	}
	if field := fields.ByNumber(desc.KeyField); field != nil {
		request.ProtoReflect().Clear(field)
	}
	text, err := protojson.Marshal(request)
	if err != nil {
		return out
	}
	if shown := new(structpb.Struct); protojson.Unmarshal(text, shown) == nil {
		out.Request = nil
		if len(shown.GetFields()) > 0 {
			out.Request = &perdurev1.Schedule_Json{Json: shown}
		}
	}
	return out
}

func span(milliseconds int64) *durationpb.Duration {
	if milliseconds == 0 {
		return nil
	}
	return durationpb.New(time.Duration(milliseconds) * time.Millisecond)
}

func stateMessage(reply *recordv1.ScheduleReply) *perdurev1.ScheduleState {
	s, st := reply.GetSchedule(), reply.GetState()
	out := &perdurev1.ScheduleState{
		Declared: s.GetDeclared(), CreatedAt: instant(s.GetCreatedAt()), UpdatedAt: instant(s.GetUpdatedAt()),
		Paused: st.GetPaused(), Note: st.GetNote(), PausedAt: instant(st.GetPausedAt()), Running: st.GetRunning(), Fired: st.GetFired(),
		Succeeded: st.GetSucceeded(), Failed: st.GetFailed(), Skipped: st.GetSkipped(), Missed: st.GetMissed(),
	}
	if !st.GetPaused() {
		out.NextDue = instant(st.GetNextDue())
	}
	for _, f := range st.GetPending() {
		out.Pending = append(out.Pending, firingMessage(f))
	}
	for _, f := range st.GetRecent() {
		out.Recent = append(out.Recent, firingMessage(f))
	}
	if b := st.GetBackfill(); b != nil {
		out.Backfill = &perdurev1.Backfill{NextDue: instant(b.NextDue), Until: instant(b.Until)}
	}
	return out
}

func firingMessage(f *recordv1.Firing) *perdurev1.Firing {
	out := &perdurev1.Firing{
		DueAt: instant(f.DueAt), Origin: perdurev1.FiringOrigin(f.Origin), FiredAt: instant(f.FiredAt), EndedAt: instant(f.EndedAt),
		Code: perdurev1.Code(f.GetError().GetCode()), Error: f.GetError().GetMessage(),
	}
	if id, ok := invocation.IDFromBytes(f.InvocationId); ok {
		out.InvocationId = id.String()
	}
	switch {
	case f.FiredAt == 0:
		out.Status = perdurev1.FiringStatus_FIRING_STATUS_PENDING
	case f.Status == recordv1.Status_STATUS_SUCCEEDED:
		out.Status = perdurev1.FiringStatus_FIRING_STATUS_SUCCEEDED
	case f.Status == recordv1.Status_STATUS_FAILED:
		out.Status = perdurev1.FiringStatus_FIRING_STATUS_FAILED
	case f.Status == recordv1.Status_STATUS_CANCELLED:
		out.Status = perdurev1.FiringStatus_FIRING_STATUS_CANCELLED
	case f.Status == recordv1.Status_STATUS_KILLED:
		out.Status = perdurev1.FiringStatus_FIRING_STATUS_KILLED
	default:
		out.Status = perdurev1.FiringStatus_FIRING_STATUS_RUNNING
	}
	return out
}
