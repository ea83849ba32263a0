package ingress

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/actor"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/telemetry"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// DeclareSchedules makes the schedules that there are those that the registered services
// declare, beside those that were made at run time: those it gives what their handlers' options
// are today. err is a declaration that can't be, and then nothing was done; undone is what could
// not be brought up to date, because its partition is not served or its handler is another now.
func (i *Ingress) DeclareSchedules(ctx context.Context) (undone, err error) {
	declared, err := i.declaredSchedules()
	if err != nil {
		return nil, err
	}
	var problems []error
	query := routing.ScheduleQuery{}
	for {
		page, err := i.config.Router.SchedulesPage(ctx, query)
		if err != nil {
			problems = append(problems, fmt.Errorf("schedules that are declared no more are not removed: %w", err))
			break
		}
		for _, found := range page.Found {
			problems = append(problems, i.bringUpToDate(ctx, found.Schedule, declared))
		}
		if query.After = page.Next; query.After == "" {
			break
		}
	}
	for _, name := range slices.Sorted(maps.Keys(declared)) {
		problems = append(problems, i.put(ctx, declared[name]))
	}
	return errors.Join(problems...), nil
}

// bringUpToDate sees to a schedule that exists. Those of services that this node does not host are
// other nodes' business, if there are others.
func (i *Ingress) bringUpToDate(ctx context.Context, old *recordv1.Schedule, declared map[string]*recordv1.Schedule) error {
	if i.config.Clustered && i.own[old.GetInvoke().GetTarget().GetService()] == nil {
		return nil
	}
	if wanted := declared[old.Name]; wanted != nil {
		keepTimetable(wanted, old)
		return nil
	}
	if old.Declared {
		_, err := i.config.Router.ChangeSchedule(ctx, old.Name, &recordv1.ScheduleChange{
			Change: &recordv1.ScheduleChange_Delete{Delete: &recordv1.DeleteSchedule{Undeclared: true}},
		})
		if err != nil {
			return fmt.Errorf("schedule %q is declared no more and was not removed: %w", old.Name, err)
		}
		i.log.InfoContext(ctx, "a schedule is declared no more, and is removed", telemetry.KeySchedule, old.Name)
		return nil
	}
	now, err := i.newSchedule(i.scheduleMessage(old))
	if err != nil {
		return fmt.Errorf("schedule %q does not fit its handler any more and stays as it is: %w", old.Name, err)
	}
	keepTimetable(now, old)
	return i.put(ctx, now)
}

// keepTimetable keeps what an expression was read into, if it is the same one.
func keepTimetable(wanted, old *recordv1.Schedule) {
	a, b := wanted.Timetable, old.GetTimetable()
	if a.Cron != "" && a.Cron == b.GetCron() && a.TimeZone == b.GetTimeZone() && a.StartAt == b.GetStartAt() && a.EndAt == b.GetEndAt() {
		wanted.Timetable = b
	}
}

func (i *Ingress) put(ctx context.Context, wanted *recordv1.Schedule) error {
	reply, err := i.config.Router.ChangeSchedule(ctx, wanted.Name, &recordv1.ScheduleChange{
		Change: &recordv1.ScheduleChange_Put{Put: &recordv1.PutSchedule{Schedule: wanted}},
	})
	if err != nil {
		return fmt.Errorf("schedule %q is not brought up to date: %w", wanted.Name, err)
	}
	if reply.Changed {
		i.log.InfoContext(ctx, "a schedule was made or changed", telemetry.KeySchedule, wanted.Name)
	}
	return nil
}

// declaredSchedules are those that the options of the registered services have, by name.
func (i *Ingress) declaredSchedules() (map[string]*recordv1.Schedule, error) {
	declared := map[string]*recordv1.Schedule{}
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(i.own)) {
		for _, desc := range i.own[name].desc.Methods {
			for _, d := range declarations(desc) {
				s, err := i.declare(desc, d)
				switch {
				case err != nil:
					problems = append(problems, fmt.Errorf("%s declares a schedule that can't be: %w", desc.FullName(), err))
				case declared[s.Name] != nil:
					problems = append(problems, fmt.Errorf("%s declares schedule %q, and so does another handler of the service", desc.FullName(), d.GetName()))
				default:
					declared[s.Name] = s
				}
			}
		}
	}
	return declared, errors.Join(problems...)
}

// DeclaresSchedules reports whether a registered service declares any.
func (i *Ingress) DeclaresSchedules() bool {
	declared, err := i.declaredSchedules()
	return err != nil || len(declared) > 0
}

func declarations(desc *actor.MethodDesc) []*perdurev1.DeclaredSchedule {
	if desc.Schema == nil || desc.Schema() == nil {
		return nil
	}
	options, _ := proto.GetExtension(desc.Schema().Options(), perdurev1.E_Method).(*perdurev1.MethodOptions)
	return options.GetSchedules()
}

func (i *Ingress) declare(desc *actor.MethodDesc, d *perdurev1.DeclaredSchedule) (*recordv1.Schedule, error) {
	wanted := &perdurev1.Schedule{
		Name: desc.Service + "/" + d.GetName(), Cron: d.GetCron(), TimeZone: d.GetTimeZone(), Every: d.GetEvery(), Offset: d.GetOffset(),
		Jitter: d.GetJitter(), Overlap: d.GetOverlap(), Misfire: d.GetMisfire(), MisfireLimit: d.GetMisfireLimit(),
		MisfireGrace: d.GetMisfireGrace(), Service: desc.Service, Handler: desc.Name, Key: d.GetKey(), DueField: d.GetDueField(), Paused: d.GetPaused(),
	}
	if d.GetRequest() != "" {
		request := desc.NewRequest()
		if err := protojson.Unmarshal([]byte(d.GetRequest()), request); err != nil {
			return nil, fmt.Errorf("the request is not a %s: %s", request.ProtoReflect().Descriptor().FullName(), jsonProblem(err))
		}
		raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(request)
		if err != nil {
			return nil, err
		}
		wanted.Request = &perdurev1.Schedule_Raw{Raw: raw}
	}
	made, err := i.newSchedule(wanted)
	if err != nil {
		return nil, err
	}
	made.Declared = true
	return made, nil
}
