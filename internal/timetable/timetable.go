// Package timetable says when a schedule is due: it makes recordv1.Timetable, which is kept, of
// what users write, and finds its next due time. It is the calendar of internal/schedule, which
// is pure and has none.
package timetable

import (
	"errors"
	"time"

	"github.com/perdure/perdure/internal/calendar"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// Spec is a timetable as users write it: Cron or Every must be set.
type Spec struct {
	// Cron is an expression as calendar.ParseCron reads it, in TimeZone, an IANA name; "" is UTC.
	Cron     string
	TimeZone string
	// Every is an interval: due at its multiples since 1970 UTC, and Offset after them.
	Every  time.Duration
	Offset time.Duration
	// StartAt and EndAt bound the due times; zero is no bound.
	StartAt time.Time
	EndAt   time.Time
}

// Timetable reads a Spec. All that is wrong with it is in the error.
func (s Spec) Timetable() (*recordv1.Timetable, error) {
	var problems []error
	t := &recordv1.Timetable{Cron: s.Cron, TimeZone: s.TimeZone, EveryMs: s.Every.Milliseconds(), OffsetMs: s.Offset.Milliseconds()}
	switch {
	case s.Cron != "" && s.Every != 0:
		problems = append(problems, errors.New("there are a cron expression and an interval: give one of them"))
	case s.Cron == "" && s.Every == 0:
		problems = append(problems, errors.New("there is neither a cron expression nor an interval: give one of them"))
	case s.Cron != "":
		c, err := calendar.ParseCron(s.Cron)
		if err != nil {
			problems = append(problems, err)
		}
		t.Minutes, t.Hours, t.Days, t.Months, t.Weekdays = c.Minutes, c.Hours, c.Days, c.Months, c.Weekdays
		t.FromEnd, t.Nth, t.AnyHour, t.EitherDay = c.FromEnd, c.Nth, c.AnyHour, c.EitherDay
		if s.Offset != 0 {
			problems = append(problems, errors.New("an offset goes with an interval: a cron expression says by itself when it is due"))
		}
	default:
		if err := calendar.CheckInterval(s.Every, s.Offset); err != nil {
			problems = append(problems, err)
		}
	}
	if s.Every != 0 && s.TimeZone != "" {
		problems = append(problems, errors.New("a time zone goes with a cron expression: an interval is counted from 1970 in UTC"))
	} else if _, err := calendar.Zone(s.TimeZone); err != nil {
		problems = append(problems, err)
	}
	if !s.StartAt.IsZero() {
		t.StartAt = s.StartAt.UnixMilli()
	}
	if !s.EndAt.IsZero() {
		t.EndAt = s.EndAt.UnixMilli()
	}
	if !s.StartAt.IsZero() && !s.EndAt.IsZero() && s.EndAt.Before(s.StartAt) {
		problems = append(problems, errors.New("it ends before it starts"))
	}
	return t, errors.Join(problems...)
}

// Next is when a timetable is due after an instant, both in milliseconds since 1970 UTC; 0 is
// never. It is a schedule.Next.
func Next(t *recordv1.Timetable, after int64) (int64, error) {
	if t.GetStartAt() != 0 {
		after = max(after, t.StartAt-1)
	}
	var due int64
	switch every := t.GetEveryMs(); {
	case every > 0:
		passed := after - t.OffsetMs
		count := passed / every
		if passed%every < 0 {
			count--
		}
		due = (count+1)*every + t.OffsetMs
	default:
		zone, err := calendar.Zone(t.GetTimeZone())
		if err != nil {
			return 0, err
		}
		cron := calendar.Cron{
			Minutes: t.GetMinutes(), Hours: t.GetHours(), Days: t.GetDays(), Months: t.GetMonths(), Weekdays: t.GetWeekdays(),
			FromEnd: t.GetFromEnd(), Nth: t.GetNth(), AnyHour: t.GetAnyHour(), EitherDay: t.GetEitherDay(),
		}
		at := cron.Next(time.UnixMilli(after), zone)
		if at.IsZero() {
			return 0, nil
		}
		due = at.UnixMilli()
	}
	if t.GetEndAt() != 0 && due > t.EndAt {
		return 0, nil
	}
	return due, nil
}
