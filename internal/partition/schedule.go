package partition

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/partition/overlay"
	"github.com/perdure/perdure/internal/partition/rows"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/schedule"
	"github.com/perdure/perdure/internal/table"
)

// ReleaseSchedules lets schedules fire. Until then their timers wait, so that those which the
// code no longer has can be removed before they fire once more.
func (r *Router) ReleaseSchedules() {
	r.schedulesFire.Store(true)
	for _, p := range r.partitions {
		p.rouse()
	}
}

// ChangeSchedule implements routing.Router.
func (r *Router) ChangeSchedule(ctx context.Context, name string, change *recordv1.ScheduleChange) (*recordv1.ScheduleReply, error) {
	answer, err := r.of(schedule.ID(name)).ask(ctx, func(token engine.Token) engine.Event {
		return &engine.ChangeSchedule{Name: name, Change: change, Token: token}
	}, invocation.ID{})
	result, err := answer.resultOr(err)
	if err != nil {
		return nil, err
	}
	reply := &recordv1.ScheduleReply{}
	if err := proto.Unmarshal(result.GetValue(), reply); err != nil {
		return nil, fmt.Errorf("schedule %q: %w", name, err)
	}
	return reply, nil
}

// Schedule implements routing.Router.
func (r *Router) Schedule(ctx context.Context, name string) (*recordv1.ScheduleReply, error) {
	s, err := r.of(schedule.ID(name)).pinNow(ctx)
	if err != nil {
		return nil, err
	}
	defer s.Release()
	reply, err := readSchedule(s, name)
	if err != nil {
		return nil, routing.Errorf(routing.CodeDataLoss, "schedule %q can't be read: %v", name, err)
	}
	if reply == nil {
		return nil, routing.Errorf(routing.CodeNotFound, "no schedule is called %q", name)
	}
	return reply, nil
}

// readSchedule returns nil if there is none.
func readSchedule(s *overlay.Snapshot, name string) (*recordv1.ScheduleReply, error) {
	reply := &recordv1.ScheduleReply{Schedule: &recordv1.Schedule{}, State: &recordv1.ScheduleState{}}
	found, err := rows.Message(s, table.Schedule(name), reply.Schedule)
	if err != nil || !found {
		return nil, err
	}
	if _, err := rows.Message(s, table.Scheduling(schedule.ID(name)), reply.State); err != nil {
		return nil, err
	}
	return reply, nil
}

// SchedulesPage implements routing.Router.
func (r *Router) SchedulesPage(ctx context.Context, query routing.ScheduleQuery) (*routing.SchedulesPage, error) {
	return r.SchedulesOf(ctx, nil, query)
}

// SchedulesOf is SchedulesPage of some partitions, all of which must be led here; nil: of all.
func (r *Router) SchedulesOf(ctx context.Context, ids []uint32, query routing.ScheduleQuery) (*routing.SchedulesPage, error) {
	partitions, err := r.some(ids)
	if err != nil {
		return nil, err
	}
	limit := pageLimit(query.Limit)
	var names []string
	for _, p := range partitions {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		more, err := p.scheduleNames(query, limit+1)
		if err != nil {
			return nil, err
		}
		names = append(names, more...)
	}
	slices.Sort(names)
	page := &routing.SchedulesPage{}
	if len(names) > limit {
		names = names[:limit]
		page.Next = names[limit-1]
	}
	budget := rows.PageBytes
	for _, name := range names {
		if budget <= 0 {
			page.Next = page.Found[len(page.Found)-1].Schedule.Name
			break
		}
		reply, err := r.Schedule(ctx, name)
		if coded, ok := err.(*routing.Error); ok && coded.Code == routing.CodeNotFound {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		budget -= proto.Size(reply)
		page.Found = append(page.Found, reply)
	}
	return page, nil
}

// scheduleNames are the first names of a partition that a query picks.
func (p *Partition) scheduleNames(query routing.ScheduleQuery, most int) ([]string, error) {
	s, err := p.pin()
	if err != nil {
		return nil, err
	}
	defer s.Release()
	var names []string
	var parseErr error
	lower, upper := table.SchedulesAfter(query.Prefix, query.After)
	err = s.Scan(lower, upper, func(key, _ []byte) bool {
		name, err := table.ParseSchedule(key)
		if err != nil {
			parseErr = err
			return false
		}
		names = append(names, name)
		return len(names) < most
	})
	if err == nil {
		err = parseErr
	}
	if err != nil {
		return nil, fmt.Errorf("partition %d: schedules can't be listed: %w", p.id, err)
	}
	return names, nil
}
