package timetable

import (
	"strings"
	"testing"
	"time"
)

func TestNext(t *testing.T) {
	day := time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name  string
		spec  Spec
		after time.Time
		want  []time.Duration // since day
	}{
		{"an interval", Spec{Every: 6 * time.Hour}, day, []time.Duration{6 * time.Hour, 12 * time.Hour}},
		{"right before it is due", Spec{Every: 6 * time.Hour}, day.Add(6*time.Hour - time.Millisecond), []time.Duration{6 * time.Hour}},
		{"with an offset", Spec{Every: 24 * time.Hour, Offset: 90 * time.Minute}, day, []time.Duration{90 * time.Minute, 25*time.Hour + 30*time.Minute}},
		{"from a start on", Spec{Every: time.Hour, StartAt: day.Add(3 * time.Hour)}, day, []time.Duration{3 * time.Hour, 4 * time.Hour}},
		{"to an end", Spec{Every: time.Hour, EndAt: day.Add(2 * time.Hour)}, day, []time.Duration{time.Hour, 2 * time.Hour, -1}},
		{"a cron expression within bounds", Spec{Cron: "0 * * * *", TimeZone: "Asia/Kathmandu", StartAt: day, EndAt: day.Add(2 * time.Hour)},
			day.Add(-1000 * time.Hour), []time.Duration{15 * time.Minute, 75 * time.Minute, -1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			table, err := test.spec.Timetable()
			if err != nil {
				t.Fatal(err)
			}
			at := test.after.UnixMilli()
			for _, want := range test.want {
				got, err := Next(table, at)
				if err != nil {
					t.Fatal(err)
				}
				if want < 0 {
					if got != 0 {
						t.Fatalf("got %s, want never", time.UnixMilli(got).UTC())
					}
					break
				}
				if !time.UnixMilli(got).Equal(day.Add(want)) {
					t.Fatalf("got %s, want %s", time.UnixMilli(got).UTC(), day.Add(want))
				}
				at = got
			}
		})
	}
}

func TestSpecProblems(t *testing.T) {
	now := time.Now()
	for want, spec := range map[string]Spec{
		"neither a cron expression nor": {},
		"give one of them":              {Cron: "0 0 * * *", Every: time.Hour},
		"never due":                     {Cron: "0 0 30 2 *"},
		"is not known":                  {Cron: "0 0 * * *", TimeZone: "Berlin"},
		"from 1s to":                    {Every: time.Millisecond},
		"whole milliseconds, from":      {Every: time.Second + time.Nanosecond},
		"less than the interval":        {Every: time.Hour, Offset: time.Hour},
		"goes with an interval":         {Cron: "0 0 * * *", Offset: time.Hour},
		"goes with a cron expression":   {Every: time.Hour, TimeZone: "Asia/Tokyo"},
		"ends before it starts":         {Every: time.Hour, StartAt: now, EndAt: now.Add(-time.Hour)},
	} {
		if _, err := spec.Timetable(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want an error with %q", spec, err, want)
		}
	}
}
