package routing

import (
	"context"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// Schedules takes requests about schedules to the partitions that own them.
type Schedules interface {
	// ChangeSchedule makes, changes, fires or removes a schedule, and returns it once that is
	// durable. Fails with what the change is refused for, or with unavailable.
	ChangeSchedule(ctx context.Context, name string, change *recordv1.ScheduleChange) (*recordv1.ScheduleReply, error)
	// Schedule reads a schedule. Fails with not_found.
	Schedule(ctx context.Context, name string) (*recordv1.ScheduleReply, error)
	// SchedulesPage lists schedules in the order of their names.
	SchedulesPage(ctx context.Context, query ScheduleQuery) (*SchedulesPage, error)
}

// ScheduleQuery picks schedules.
type ScheduleQuery struct {
	// Prefix of their names.
	Prefix string
	// After is where the page before ended: its Next.
	After string
	// Limit; 0, or more than MaxPage, is MaxPage.
	Limit int
}

// SchedulesPage is a part of a list.
type SchedulesPage struct {
	Found []*recordv1.ScheduleReply
	// Next is the After of the next page. Empty: this was the last.
	Next string
}
