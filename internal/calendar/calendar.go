// Package calendar knows when a cron expression is due: it reads expressions and finds the next
// instant in a time zone, over days that have 23 or 25 hours. It is the only package that
// knows the cron library, of which it takes the parser and nothing else; what it parses is a
// handful of bit masks, which are what is kept, so that a later version of the library can't
// change a schedule that exists.
//
// # Local times that come twice, or not at all
//
// An expression whose hour field begins with * ("*", "*/2") follows elapsed time: it is due
// whenever a clock on the wall shows a time that matches, so an hour that comes twice is due
// twice, and one that is skipped is not due. Any other expression names times of a day: each is
// due once a day, at its first occurrence, and one that the clocks skip is due as long after
// the change as it would have been after the hour before it (02:30 is due at 03:30).
package calendar

import (
	"fmt"
	"math/bits"
	"strings"
	"sync"
	"time"
	_ "time/tzdata" // the zones, for machines that have none installed

	"github.com/netresearch/go-cron"
)

// Cron is an expression that was read. Bit n of a mask is the value n. The zero value is never
// due.
type Cron struct {
	Minutes  uint64
	Hours    uint64
	Days     uint64
	Months   uint64
	Weekdays uint64 // 0 is Sunday
	// FromEnd: bit n is the day n days before the last of its month.
	FromEnd uint64
	// Nth: bit 7*(n-1)+w is the n-th weekday w of a month, n = 6 the last.
	Nth uint64
	// AnyHour: the hour field begins with *, see the package comment.
	AnyHour bool
	// EitherDay: days and weekdays are both restricted, and one of them is enough.
	EitherDay bool
}

// lastNth is the n of Nth that means the last of the month.
const lastNth = 6

var parser = cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor |
	cron.DomL | cron.DowNth | cron.DowLast | cron.DowOrDom)

// MaxExpressionBytes bounds a cron expression.
const MaxExpressionBytes = 255

const form = `five fields "minute hour day-of-month month weekday", or one of @hourly, @daily, @weekly, @monthly, @yearly`

// ParseCron reads an expression: five fields, or one of @hourly, @daily, @midnight, @weekly,
// @monthly, @yearly and @annually. Beside lists, ranges and steps it knows L and L-3 as a day
// (the last, three before it) and mon#2 and fri#L as a weekday (the second Monday, the last
// Friday). If both day and weekday are restricted, one of them is enough. An expression that is
// never due is an error.
func ParseCron(expression string) (Cron, error) {
	switch {
	case strings.TrimSpace(expression) == "":
		return Cron{}, fmt.Errorf("the cron expression is empty: it has %s", form)
	case len(expression) > MaxExpressionBytes:
		return Cron{}, fmt.Errorf("the cron expression has %d bytes; at most %d are allowed", len(expression), MaxExpressionBytes)
	case strings.Contains(expression, "TZ="):
		return Cron{}, fmt.Errorf("cron expression %q: the time zone has a field of its own; leave TZ= out", expression)
	case strings.HasPrefix(strings.TrimSpace(expression), "@every"):
		return Cron{}, fmt.Errorf("cron expression %q: an interval has a field of its own; leave the expression out and say every", expression)
	}
	// In lower case: the library takes the H of THU for Jenkins' hash.
	fields := strings.Fields(strings.ToLower(expression))
	parsed, err := parser.Parse(strings.Join(fields, " "))
	if err != nil {
		return Cron{}, fmt.Errorf("cron expression %q: %w; it has %s", expression, err, form)
	}
	spec, ok := parsed.(*cron.SpecSchedule)
	if !ok {
		return Cron{}, fmt.Errorf("cron expression %q is of a kind that is not supported; it has %s", expression, form)
	}
	const values = 1<<60 - 1 // without the library's own marks
	c := Cron{
		Minutes: spec.Minute & values, Hours: spec.Hour & values, Days: spec.Dom & values,
		Months: spec.Month & values, Weekdays: spec.Dow & 0x7f,
	}
	for _, day := range spec.DomConstraints {
		switch {
		case day.Type == cron.DomLast:
			c.FromEnd |= 1
		case day.Type == cron.DomLastOffset && day.N >= 0 && day.N < 31:
			c.FromEnd |= 1 << day.N
		default:
			return Cron{}, fmt.Errorf("cron expression %q: of the days counted from the end only L and L-n are supported", expression)
		}
	}
	for _, weekday := range spec.DowConstraints {
		n := weekday.N
		if n < 0 {
			n = lastNth
		}
		c.Nth |= 1 << (7*(n-1) + weekday.Weekday%7)
	}
	c.AnyHour = fields[0] == "@hourly"
	if len(fields) == 5 {
		c.AnyHour = strings.HasPrefix(fields[1], "*")
		c.EitherDay = restricts(fields[2]) && restricts(fields[4])
	}
	if c.Next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC), time.UTC).IsZero() {
		return Cron{}, fmt.Errorf("cron expression %q is never due: no month it names has such a day", expression)
	}
	return c, nil
}

// restricts is false for a day field that begins with *, by crontab(5) even with a step.
func restricts(field string) bool {
	return !strings.HasPrefix(field, "*") && !strings.HasPrefix(field, "?")
}

// The bounds of an interval.
const (
	MinEvery = time.Second
	MaxEvery = 10 * 365 * 24 * time.Hour
)

// CheckInterval says what is wrong with an interval whose due times are so long after its
// multiples.
func CheckInterval(every, offset time.Duration) error {
	switch {
	case every < MinEvery || every > MaxEvery || every%time.Millisecond != 0:
		return fmt.Errorf("the interval is %s; it must be whole milliseconds, from %s to %s", every, MinEvery, MaxEvery)
	case offset < 0 || offset >= every || offset%time.Millisecond != 0:
		return fmt.Errorf("the offset is %s; it must be whole milliseconds, not negative and less than the interval, %s", offset, every)
	}
	return nil
}

var zones sync.Map // name → *time.Location

// Zone finds a time zone by its IANA name; "" is UTC.
func Zone(name string) (*time.Location, error) {
	if known, ok := zones.Load(name); ok {
		return known.(*time.Location), nil
	}
	if name == "Local" {
		return nil, fmt.Errorf("time zone %q means another one on each machine; name it, for example Europe/Berlin", name)
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("time zone %q is not known; it is an IANA name such as Europe/Berlin, or empty for UTC", name)
	}
	zones.Store(name, zone)
	return zone, nil
}

// slack is more than any time zone ever moves its clocks for the season.
const slack = 3 * time.Hour

// Next is the first instant after another at which c is due in a zone; the zero time if there
// is none.
func (c Cron) Next(after time.Time, zone *time.Location) time.Time {
	// Wall times are counted in minutes as if they were UTC's. From one to the next the instants
	// increase, but for the hours around a change.
	start := wall(after.In(zone))
	if steady(after, zone) {
		start += 1
	} else {
		start -= int64(slack / time.Minute)
	}
	var best time.Time
	var last int64 // no wall time beyond it is earlier than best
	for minute := c.match(start); minute >= 0; minute = c.match(minute + 1) {
		if !best.IsZero() && minute > last {
			break
		}
		for _, at := range c.instants(minute, zone) {
			if !at.After(after) || !best.IsZero() && !at.Before(best) {
				continue
			}
			if steady(at, zone) {
				if best.IsZero() {
					return at
				}
			}
			best, last = at, minute+int64(slack/time.Minute)
		}
	}
	return best
}

// wall is the minute that a clock on the wall shows.
func wall(local time.Time) int64 {
	_, offset := local.Zone()
	seconds := local.Unix() + int64(offset)
	if seconds < 0 {
		seconds -= 59
	}
	return seconds / 60
}

// steady reports whether the clocks of a zone are not moved around an instant.
func steady(at time.Time, zone *time.Location) bool {
	_, before := at.Add(-slack).In(zone).Zone()
	_, behind := at.Add(slack).In(zone).Zone()
	_, now := at.In(zone).Zone()
	return before == behind && before == now
}

// instants are when a wall time is due: once as a rule.
func (c Cron) instants(minute int64, zone *time.Location) []time.Time {
	// What the clock would show with the offsets before and after a change around it.
	naive := time.Unix(minute*60, 0)
	_, before := naive.Add(-24 * time.Hour).In(zone).Zone()
	_, behind := naive.Add(24 * time.Hour).In(zone).Zone()
	first := naive.Add(-time.Duration(before) * time.Second)
	second := naive.Add(-time.Duration(behind) * time.Second)
	shown := func(at time.Time) bool { return wall(at.In(zone)) == minute }
	switch {
	case first.Equal(second):
		return []time.Time{first}
	case shown(first) && shown(second) && c.AnyHour:
		return []time.Time{first, second}
	case shown(first): // also where it comes twice: the offset before the change is the earlier
		return []time.Time{first}
	case shown(second):
		return []time.Time{second}
	case c.AnyHour:
		return nil
	}
	return []time.Time{first} // skipped: as the hour before it went on
}

// horizon is how many days Next looks ahead: from one 29 February over a year without one to the
// next that falls on a given weekday.
const horizon = 41 * 366

// match is the first wall time at or after another that the expression names; -1 if there is
// none.
func (c Cron) match(minute int64) int64 {
	if c.Minutes == 0 || c.Hours == 0 {
		return -1
	}
	minute = max(minute, 0)
	day := time.Unix(minute*60, 0).UTC()
	hour, min := day.Hour(), day.Minute()
	day = time.Date(day.Year(), day.Month(), day.Day(), 0, 0, 0, 0, time.UTC)
	for range horizon {
		if c.Months&(1<<int(day.Month())) == 0 {
			day = time.Date(day.Year(), day.Month()+1, 1, 0, 0, 0, 0, time.UTC)
			hour, min = 0, 0
			continue
		}
		if c.onDay(day) {
			for ; hour < 24; hour, min = hour+1, 0 {
				if c.Hours&(1<<hour) == 0 {
					continue
				}
				if rest := c.Minutes >> min << min; rest != 0 {
					return day.Unix()/60 + int64(hour*60+bits.TrailingZeros64(rest))
				}
			}
		}
		day = day.AddDate(0, 0, 1)
		hour, min = 0, 0
	}
	return -1
}

// onDay reports whether the expression names a day.
func (c Cron) onDay(day time.Time) bool {
	number, weekday := day.Day(), int(day.Weekday())
	length := time.Date(day.Year(), day.Month()+1, 0, 0, 0, 0, 0, time.UTC).Day()
	byDate := c.Days&(1<<number) != 0 || c.FromEnd&(1<<(length-number)) != 0
	nth := (number - 1) / 7
	byWeekday := c.Weekdays&(1<<weekday) != 0 || c.Nth&(1<<(7*nth+weekday)) != 0 ||
		number+7 > length && c.Nth&(1<<(7*(lastNth-1)+weekday)) != 0
	if c.EitherDay {
		return byDate || byWeekday
	}
	return byDate && byWeekday
}
