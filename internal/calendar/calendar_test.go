package calendar

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func TestNext(t *testing.T) {
	for _, test := range []struct {
		name, cron, zone, after string
		want                    []string
	}{
		{"every day", "0 3 * * *", "", "2026-01-31T02:59:59Z",
			[]string{"2026-01-31T03:00:00Z", "2026-02-01T03:00:00Z"}},
		{"the instant itself is over", "0 3 * * *", "", "2026-01-31T03:00:00Z", []string{"2026-02-01T03:00:00Z"}},
		{"a leap day", "0 12 29 2 *", "", "2024-02-29T12:00:00Z", []string{"2028-02-29T12:00:00Z", "2032-02-29T12:00:00Z"}},
		{"a leap day over a century without one", "0 0 29 2 *", "", "2096-03-01T00:00:00Z", []string{"2104-02-29T00:00:00Z"}},
		{"the 31st skips shorter months", "0 0 31 * *", "", "2026-01-31T00:00:00Z",
			[]string{"2026-03-31T00:00:00Z", "2026-05-31T00:00:00Z"}},
		{"the last day", "0 0 L * *", "", "2024-01-31T00:00:00Z", []string{"2024-02-29T00:00:00Z", "2024-03-31T00:00:00Z"}},
		{"three before the last", "0 0 L-3 * *", "", "2026-02-01T00:00:00Z", []string{"2026-02-25T00:00:00Z"}},
		{"second Monday", "0 9 * * MON#2", "", "2026-11-01T00:00:00Z", []string{"2026-11-09T09:00:00Z", "2026-12-14T09:00:00Z"}},
		{"last Friday", "0 9 * * fri#L", "", "2026-11-01T00:00:00Z", []string{"2026-11-27T09:00:00Z", "2026-12-25T09:00:00Z"}},
		{"day or weekday", "0 0 13 * FRI", "", "2026-11-08T00:00:00Z",
			[]string{"2026-11-13T00:00:00Z", "2026-11-20T00:00:00Z", "2026-11-27T00:00:00Z", "2026-12-04T00:00:00Z", "2026-12-11T00:00:00Z", "2026-12-13T00:00:00Z"}},
		{"a starred day with a step restricts nothing by itself", "0 0 */2 * MON", "", "2026-11-08T00:00:00Z",
			[]string{"2026-11-09T00:00:00Z", "2026-11-23T00:00:00Z"}},
		{"Thursday in capitals", "30 6 * MAR THU", "", "2026-01-01T00:00:00Z", []string{"2026-03-05T06:30:00Z"}},
		{"Sunday is 7 too", "0 0 * * 7", "", "2026-11-28T00:00:00Z", []string{"2026-11-29T00:00:00Z"}},
		{"around midnight", "0 22-1 * * *", "", "2026-11-28T22:30:00Z",
			[]string{"2026-11-28T23:00:00Z", "2026-11-29T00:00:00Z", "2026-11-29T01:00:00Z", "2026-11-29T22:00:00Z"}},
		{"before 1970", "0 0 1 1 *", "", "1960-06-01T00:00:00Z", []string{"1970-01-01T00:00:00Z"}},

		{"spring forward in Berlin: as long after the change", "30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z",
			[]string{"2026-03-29T01:30:00Z" /* 03:30 CEST */, "2026-03-30T00:30:00Z"}},
		{"spring forward in New York", "30 2 * * *", "America/New_York", "2026-03-07T12:00:00Z",
			[]string{"2026-03-08T07:30:00Z" /* 03:30 EDT */, "2026-03-09T06:30:00Z"}},
		{"spring forward by half an hour on Lord Howe", "15 2 * * *", "Australia/Lord_Howe", "2026-10-02T16:00:00Z",
			[]string{"2026-10-03T15:45:00Z" /* 02:45 +11 */, "2026-10-04T15:15:00Z"}},
		{"a skipped midnight in Beirut", "0 0 * * *", "Asia/Beirut", "2026-03-28T12:00:00Z",
			[]string{"2026-03-28T22:00:00Z" /* 01:00 EEST */, "2026-03-29T21:00:00Z"}},
		{"a skipped time and a real one are one", "30 2,3 * * *", "Europe/Berlin", "2026-03-29T00:00:00Z",
			[]string{"2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"}},
		{"every hour, spring forward", "30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z",
			[]string{"2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z", "2026-03-29T02:30:00Z"}},

		{"fall back in Berlin: once", "30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z",
			[]string{"2026-10-25T00:30:00Z" /* 02:30 CEST */, "2026-10-26T01:30:00Z"}},
		{"fall back in New York: once", "30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z",
			[]string{"2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"}},
		{"fall back, asked between the two", "30 2 * * *", "Europe/Berlin", "2026-10-25T00:45:00Z", []string{"2026-10-26T01:30:00Z"}},
		{"fall back: those of the hour in their order", "0,30 2 * * *", "Europe/Berlin", "2026-10-25T00:00:00Z",
			[]string{"2026-10-25T00:30:00Z", "2026-10-26T01:00:00Z"}},
		{"every hour, fall back", "30 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z",
			[]string{"2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"}},
		{"every ten minutes, fall back", "*/10 */1 * * *", "Europe/Berlin", "2026-10-25T00:45:00Z",
			[]string{"2026-10-25T00:50:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:10:00Z"}},
		{"hourly by name, fall back", "@hourly", "Europe/Berlin", "2026-10-25T00:00:00Z",
			[]string{"2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"}},
		{"a zone that never changes", "0 9 * * *", "Asia/Kolkata", "2026-11-28T00:00:00Z", []string{"2026-11-28T03:30:00Z"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := ParseCron(test.cron)
			if err != nil {
				t.Fatal(err)
			}
			zone, err := Zone(test.zone)
			if err != nil {
				t.Fatal(err)
			}
			at, err := time.Parse(time.RFC3339, test.after)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range test.want {
				at = c.Next(at, zone)
				if got := at.UTC().Format(time.RFC3339); got != want {
					t.Fatalf("got %s (%s), want %s", got, at.In(zone), want)
				}
			}
		})
	}
}

func TestBadExpressions(t *testing.T) {
	for expression, want := range map[string]string{
		"":                                     "is empty",
		"   ":                                  "is empty",
		"0 3 * *":                              "five fields",
		"0 0 3 * * *":                          "five fields",
		"60 3 * * *":                           "60 3 * * *",
		"0 3 30 2 *":                           "never due",
		"0 3 31 4,6,9,11 *":                    "never due",
		"* * * * FUNDAY":                       "FUNDAY",
		"@every 1h":                            "say every",
		"@reboot":                              "five fields",
		"TZ=Asia/Tokyo 0 3 * *":                "leave TZ= out",
		"CRON_TZ=UTC 0 3 * * *":                "leave TZ= out",
		"0 3 15W * *":                          "15W",
		"H H * * *":                            "H H",
		"0 0 * * *" + strings.Repeat(" ", 300): "at most 255",
	} {
		if _, err := ParseCron(expression); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error with %q", expression, err, want)
		}
	}
	for _, zone := range []string{"Local", "Mars/Olympus", "../../etc/passwd"} {
		if _, err := Zone(zone); err == nil {
			t.Errorf("zone %q: want an error", zone)
		}
	}
}

// reference finds what is due in a range by looking at every minute of it: what a clock on the
// wall shows, whether it showed that before, and what it skipped.
func reference(c Cron, from, until time.Time, zone *time.Location) map[int64]bool {
	named := func(minute int64) bool {
		at := time.Unix(minute*60, 0).UTC()
		midnight := time.Date(at.Year(), at.Month(), at.Day(), 0, 0, 0, 0, time.UTC)
		return c.Minutes>>at.Minute()&1 == 1 && c.Hours>>at.Hour()&1 == 1 && c.Months>>int(at.Month())&1 == 1 && c.onDay(midnight)
	}
	due := map[int64]bool{}
	// Longer than any change before the range, so that first occurrences are known.
	at := from.Add(-48 * time.Hour).Truncate(time.Minute)
	highest := wall(at.In(zone)) - 1
	for ; !at.After(until); at = at.Add(time.Minute) {
		now := wall(at.In(zone))
		if !c.AnyHour {
			for skipped := highest + 1; skipped < now; skipped++ {
				if named(skipped) { // as long after the change as after the last minute before it
					due[at.Add(time.Duration(skipped-highest-1)*time.Minute).Unix()] = true
				}
			}
		}
		if named(now) && (c.AnyHour || now > highest) {
			due[at.Unix()] = true
		}
		highest = max(highest, now)
	}
	return due
}

func TestNextAgainstEveryMinute(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	names := []string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Beirut", "America/Santiago",
		"Asia/Kathmandu", "Africa/Casablanca", "America/St_Johns", "Antarctica/Troll"}
	fields := func() string {
		pick := func(choices ...string) string { return choices[r.IntN(len(choices))] }
		return strings.Join([]string{
			pick("*", "0", "30", "*/7", "15,45", "59", "10-20", fmt.Sprint(r.IntN(60))),
			pick("*", "*/2", "*/5", "0", "1-3", "2", "2,3", "23", "22-2", "*", fmt.Sprint(r.IntN(24))),
			pick("*", "*", "*", "1", "L", "31", "*/2", "L-2,5", "25-31"),
			pick("*", "*", "*", "3,4,10,11", "9", fmt.Sprint(1+r.IntN(12))),
			pick("*", "*", "*", "0", "1-5", "sun#L", "sun#2", "6,7"),
		}, " ")
	}
	for range 60 {
		expression, name := fields(), names[r.IntN(len(names))]
		c, err := ParseCron(expression)
		if err != nil && strings.Contains(err.Error(), "never due") {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		zone, err := Zone(name)
		if err != nil {
			t.Fatal(err)
		}
		// Where the clocks change is where it is hard.
		from := time.Date(2026, []time.Month{3, 4, 9, 10, 11, time.Month(1 + r.IntN(12))}[r.IntN(6)], 1+r.IntN(28), r.IntN(24), r.IntN(60), 0, 0, time.UTC)
		until := from.Add(40 * 24 * time.Hour)
		due := reference(c, from, until, zone)
		at := from
		for minute := from.Add(time.Minute); minute.Before(until.Add(-4 * time.Hour)); minute = minute.Add(time.Minute) {
			if !due[minute.Unix()] {
				continue
			}
			got := c.Next(at, zone)
			if !got.Equal(minute) {
				t.Fatalf("%q in %s after %s: got %s, want %s", expression, name, at.In(zone), got.In(zone), minute.In(zone))
			}
			if between := at.Add(time.Duration(r.Int64N(int64(minute.Sub(at))))); !c.Next(between, zone).Equal(minute) {
				t.Fatalf("%q in %s after %s: got %s, want %s", expression, name, between.In(zone), c.Next(between, zone).In(zone), minute.In(zone))
			}
			at = minute
		}
	}
}

func BenchmarkNext(b *testing.B) {
	for _, expression := range []string{"* * * * *", "0 3 * * *", "0 0 29 2 *"} {
		b.Run(expression, func(b *testing.B) {
			c, _ := ParseCron(expression)
			zone, _ := Zone("Europe/Berlin")
			after := time.Date(2026, 11, 28, 10, 0, 0, 0, time.UTC)
			for b.Loop() {
				c.Next(after, zone)
			}
		})
	}
}
