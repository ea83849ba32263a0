package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/apipb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// The fake clock begins on Saturday, 1 January 2000, 00:00 UTC.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// runs are when a handler ran, by what the fake clock says.
type runs struct {
	sync.Mutex
	at []time.Duration // since epoch
}

func (r *runs) note() {
	r.Lock()
	defer r.Unlock()
	r.at = append(r.at, time.Since(epoch).Truncate(time.Second))
}

func (r *runs) String() string {
	r.Lock()
	defer r.Unlock()
	return strings.Trim(fmt.Sprint(r.at), "[]")
}

func (s *stage) put(schedule *perdurev1.Schedule, script string) {
	s.t.Helper()
	if schedule.Service == "" {
		schedule.Service, schedule.Handler = s.things.Name, "HTRANSACTION"
		if schedule.Key == "" {
			schedule.Key = "k"
		}
	}
	if _, err := s.client.Schedules().Put(s.t.Context(), schedule, &apipb.Mixin{Root: script}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) schedule(name string) *perdurev1.GetScheduleResponse {
	s.t.Helper()
	got, err := s.client.Schedules().Get(s.t.Context(), name)
	if err != nil {
		s.t.Fatal(err)
	}
	return got
}

// clockAt sleeps until so long after epoch, and until everything is done that was due by then.
func clockAt(d time.Duration) {
	time.Sleep(time.Until(epoch.Add(d)))
	synctest.Wait()
}

// counts are fired, succeeded, failed, skipped, missed and running.
func counts(st *perdurev1.ScheduleState) string {
	return fmt.Sprint(st.Fired, st.Succeeded, st.Failed, st.Skipped, st.Missed, st.Running)
}

func TestSchedules(t *testing.T) {
	eachWay(t, func(s *stage) {
		s.put(&perdurev1.Schedule{Name: "nightly", Cron: "0 3 * * *", TimeZone: "Europe/Berlin", Key: "a"}, "add 1")
		s.put(&perdurev1.Schedule{Name: "often", Every: durationpb.New(6 * time.Hour), Offset: durationpb.New(time.Hour), Key: "b"}, "add 1")
		clockAt(3*24*time.Hour + time.Minute)
		s.values("a=3 b=12")
		got := s.schedule("nightly")
		if c := counts(got.State); c != "3 3 0 0 0 0" {
			t.Errorf("counts are %s", c)
		}
		var due []string
		for _, at := range got.DueTimes {
			due = append(due, at.AsTime().Format(time.RFC3339))
		}
		want := "[2000-01-04T02:00:00Z 2000-01-05T02:00:00Z 2000-01-06T02:00:00Z 2000-01-07T02:00:00Z 2000-01-08T02:00:00Z]"
		if fmt.Sprint(due) != want {
			t.Errorf("due at %v, want %s", due, want)
		}
		latest := got.State.Recent[0]
		if !latest.DueAt.AsTime().Equal(epoch.Add(50*time.Hour)) || latest.Status != perdurev1.FiringStatus_FIRING_STATUS_SUCCEEDED || latest.FiredAt.AsTime().Before(latest.DueAt.AsTime()) {
			t.Errorf("the latest firing is %v", latest)
		}
		if err := s.client.Schedules().Delete(s.t.Context(), "nightly"); err != nil {
			t.Error(err)
		}
		if err := s.client.Schedules().Delete(s.t.Context(), "nightly"); err != nil {
			t.Error("deleting it again:", err)
		}
		clockAt(5 * 24 * time.Hour)
		s.values("a=3 b=20")
		list, err := s.client.Schedules().List(s.t.Context(), &perdurev1.ListSchedulesRequest{})
		if err != nil || len(list.Schedules) != 1 || list.Schedules[0].Schedule.Name != "often" {
			t.Errorf("list: %v %v", list, err)
		}
	})
}

// TestScheduleOverlap has a handler that takes three and a half hours, due every hour.
func TestScheduleOverlap(t *testing.T) {
	for policy, want := range map[perdurev1.Overlap]struct{ started, counts string }{
		perdurev1.Overlap_OVERLAP_UNSPECIFIED: {"1h0m0s 5h0m0s 9h0m0s", "3 2 0 7 0 1"},
		perdurev1.Overlap_OVERLAP_SKIP:        {"1h0m0s 5h0m0s 9h0m0s", "3 2 0 7 0 1"},
		// The next begins as the one before ends, with the latest that was due.
		perdurev1.Overlap_OVERLAP_QUEUE_ONE: {"1h0m0s 4h30m0s 8h0m0s", "3 2 0 6 0 1"},
		perdurev1.Overlap_OVERLAP_QUEUE_ALL: {"1h0m0s 4h30m0s 8h0m0s", "3 2 0 0 0 1"},
		perdurev1.Overlap_OVERLAP_CANCEL: {"1h0m0s 2h0m0s 3h0m0s 4h0m0s 5h0m0s 6h0m0s 7h0m0s 8h0m0s 9h0m0s 10h0m0s",
			"10 0 9 0 0 1"},
		perdurev1.Overlap_OVERLAP_ALLOW: {"1h0m0s 2h0m0s 3h0m0s 4h0m0s 5h0m0s 6h0m0s 7h0m0s 8h0m0s 9h0m0s 10h0m0s",
			"10 6 0 0 0 4"},
	} {
		t.Run(policy.String(), func(t *testing.T) {
			inMemory(t, func(s *stage) {
				var started runs
				slow := s.on("slow", func(ctx actor.Context) (string, error) {
					if err := actor.Do(ctx, "note", func(context.Context) error { started.note(); return nil }); err != nil {
						return "", err
					}
					return "", actor.Sleep(ctx, 3*time.Hour+30*time.Minute)
				})
				s.put(&perdurev1.Schedule{Name: "hourly", Cron: "@hourly", Overlap: policy, Service: s.batches.Name, Handler: "HDURABLE"}, slow)
				clockAt(10*time.Hour + time.Minute)
				if got := started.String(); got != want.started {
					t.Errorf("started at %s, want %s", got, want.started)
				}
				got := s.schedule("hourly").State
				if c := counts(got); c != want.counts {
					t.Errorf("counts are %s, want %s", c, want.counts)
				}
				waiting := 0
				switch policy {
				case perdurev1.Overlap_OVERLAP_QUEUE_ONE:
					waiting = 1
					if at := got.Pending[0].DueAt.AsTime(); !at.Equal(epoch.Add(10 * time.Hour)) {
						t.Errorf("%s waits, want the latest", at)
					}
				case perdurev1.Overlap_OVERLAP_QUEUE_ALL:
					waiting = 7
				case perdurev1.Overlap_OVERLAP_CANCEL:
					if before := got.Recent[1]; before.Status != perdurev1.FiringStatus_FIRING_STATUS_CANCELLED {
						t.Errorf("the one before is %v", before)
					}
				}
				if len(got.Pending) != waiting {
					t.Errorf("%d wait, want %d", len(got.Pending), waiting)
				}
			}, cluster.WithPartitions(8))
		})
	}
}

func TestPausedSchedule(t *testing.T) {
	eachWay(t, func(s *stage) {
		schedules := s.client.Schedules()
		s.put(&perdurev1.Schedule{Name: "hourly", Every: durationpb.New(time.Hour)}, "add 1")
		clockAt(2*time.Hour + time.Minute)
		s.must(nil, schedules.Pause(s.t.Context(), "hourly", "the bank is closed"))
		clockAt(10*time.Hour + time.Minute)
		s.values("k=2")
		got := s.schedule("hourly")
		if st := got.State; !st.Paused || st.Note != "the bank is closed" || st.NextDue != nil || len(got.DueTimes) != 0 {
			t.Errorf("paused it is %v, due at %v", st, got.DueTimes)
		}
		// The same definition again, as at a restart, leaves it paused; so does another one.
		s.put(&perdurev1.Schedule{Name: "hourly", Every: durationpb.New(time.Hour)}, "add 1")
		s.put(&perdurev1.Schedule{Name: "hourly", Every: durationpb.New(2 * time.Hour)}, "add 10")
		clockAt(13 * time.Hour)
		s.values("k=2")
		if _, err := schedules.Trigger(s.t.Context(), &perdurev1.TriggerScheduleRequest{Name: "hourly"}); err != nil {
			t.Error("triggered while paused:", err)
		}
		s.must(nil, schedules.Resume(s.t.Context(), "hourly"))
		clockAt(13*time.Hour + time.Minute)
		s.values("k=12")
		clockAt(16*time.Hour + time.Minute)
		s.values("k=32") // 14:00 and 16:00
		s.must(nil, schedules.Backfill(s.t.Context(), &perdurev1.BackfillScheduleRequest{
			Name: "hourly", From: timestamppb.New(epoch.Add(4 * time.Hour)), Until: timestamppb.New(epoch.Add(12 * time.Hour))}))
		clockAt(16*time.Hour + 2*time.Minute)
		s.values("k=82") // 4, 6, 8, 10, 12
		stop := &perdurev1.BackfillScheduleRequest{Name: "hourly", Stop: true}
		s.must(nil, schedules.Backfill(s.t.Context(), stop)) // which there is none of
		stop.Until = timestamppb.New(epoch)
		if err := schedules.Backfill(s.t.Context(), stop); actor.CodeOf(err) != actor.InvalidArgument || !strings.Contains(err.Error(), "until is set") {
			t.Errorf("stop with a range: %v", err)
		}
	})
}

func TestTriggeredSchedule(t *testing.T) {
	inMemory(t, func(s *stage) {
		schedules := s.client.Schedules()
		slow := s.on("slow", func(ctx actor.Context) (string, error) { return "", actor.Sleep(ctx, time.Hour) })
		s.put(&perdurev1.Schedule{Name: "x", Cron: "0 0 1 6 *", Service: s.batches.Name, Handler: "HDURABLE"}, slow)
		trigger := func(id string, overlaps bool) (*perdurev1.Firing, error) {
			return schedules.Trigger(s.t.Context(), &perdurev1.TriggerScheduleRequest{Name: "x", RequestId: id, Overlaps: overlaps})
		}
		first, err := trigger("one", false)
		if err != nil || first.Status != perdurev1.FiringStatus_FIRING_STATUS_RUNNING {
			t.Fatal(first, err)
		}
		again, err := trigger("one", false)
		if err != nil || again.InvocationId != first.InvocationId {
			t.Errorf("the same request again: %v %v, want %s", again, err, first.InvocationId)
		}
		if _, err := trigger("two", false); actor.CodeOf(err) != actor.FailedPrecondition || !strings.Contains(err.Error(), "overlaps") {
			t.Errorf("while one is under way: %v", err)
		}
		synctest.Wait() // The invocation may be another partition's.
		if fired := s.look(first.InvocationId).GetInvocation().GetFiredBy(); fired.GetSchedule() != "x" || fired.GetNumber() != 1 || !fired.GetDueAt().AsTime().Equal(epoch) {
			t.Error(fired)
		}
		if other, err := trigger("three", true); err != nil || other.InvocationId == first.InvocationId {
			t.Errorf("overlapping: %v %v", other, err)
		}
		if _, err := schedules.Trigger(s.t.Context(), &perdurev1.TriggerScheduleRequest{Name: "y"}); actor.CodeOf(err) != actor.NotFound {
			t.Errorf("one that is not there: %v", err)
		}
		if c := counts(s.schedule("x").State); c != "2 0 0 0 0 2" {
			t.Errorf("counts are %s", c)
		}
		clockAt(2 * time.Hour)
		if c := counts(s.schedule("x").State); c != "2 2 0 0 0 0" {
			t.Errorf("counts are %s", c)
		}
	})
}

func TestScheduleFailuresAreCounted(t *testing.T) {
	eachWay(t, func(s *stage) {
		s.put(&perdurev1.Schedule{Name: "bad", Every: durationpb.New(time.Hour)}, "fail")
		clockAt(2*time.Hour + time.Minute)
		st := s.schedule("bad").State
		if c := counts(st); c != "2 0 2 0 0 0" || st.Recent[0].Code != perdurev1.Code_CODE_ABORTED || st.Recent[0].Error != "on purpose" {
			t.Errorf("counts are %s, the latest %v", c, st.Recent[0])
		}
	})
}

// TestScheduleJitter: firings are spread over the jitter, each at its own place, and never move
// past the next due time.
func TestScheduleJitter(t *testing.T) {
	countsAttempts(t)
	inMemory(t, func(s *stage) {
		var mu sync.Mutex
		at := map[string][]time.Duration{}
		note := s.on("note", func(ctx actor.Context) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			key := actor.KeyOf[string](ctx)
			at[key] = append(at[key], time.Since(epoch))
			return "", nil
		})
		for i := range 20 {
			name := fmt.Sprint("s", i)
			s.put(&perdurev1.Schedule{Name: name, Key: name, Every: durationpb.New(time.Hour), Jitter: durationpb.New(2 * time.Hour)}, note)
		}
		clockAt(6 * time.Hour)
		distinct := map[time.Duration]bool{}
		for key, times := range at {
			for i, when := range times {
				hour := time.Duration(i+1) * time.Hour
				if when < hour || when >= hour+time.Hour {
					t.Errorf("firing %d of %s was at %s", i, key, when)
				}
				distinct[(when - hour).Truncate(time.Minute)] = true
			}
		}
		if len(at) != 20 || len(distinct) < 20 {
			t.Errorf("%d schedules fired, %d different minutes after the hour: %v", len(at), len(distinct), slices.Sorted(maps.Keys(distinct)))
		}
	})
}

func TestScheduleOfWorkflow(t *testing.T) {
	inMemory(t, func(s *stage) {
		var keys sync.Map
		run := s.on("run", func(ctx actor.Context) (string, error) {
			keys.Store(actor.KeyOf[string](ctx), true)
			return "", nil
		})
		flow := &perdurev1.Schedule{Name: "daily", Cron: "@daily", Service: s.flows.Name, Handler: "HRUN", Key: "report"}
		_, err := s.client.Schedules().Put(s.t.Context(), flow, nil)
		if actor.CodeOf(err) != actor.InvalidArgument || !strings.Contains(err.Error(), "{due}") {
			t.Errorf("a run with one key: %v", err)
		}
		flow.Key = "report {due}"
		s.put(flow, run)
		clockAt(2*24*time.Hour + time.Minute)
		var got []string
		for key := range keys.Range {
			got = append(got, key.(string))
		}
		slices.Sort(got)
		if want := "[report 2000-01-02T00:00:00Z report 2000-01-03T00:00:00Z]"; fmt.Sprint(got) != want {
			t.Errorf("ran %v, want %s", got, want)
		}
		if c := counts(s.schedule("daily").State); c != "2 2 0 0 0 0" {
			t.Errorf("counts are %s", c)
		}
	})
}

func TestBadSchedules(t *testing.T) {
	inMemory(t, func(s *stage) {
		good := func() *perdurev1.Schedule {
			return &perdurev1.Schedule{Name: "x", Cron: "@daily", Service: s.things.Name, Handler: "HTRANSACTION", Key: "k"}
		}
		for want, change := range map[string]func(*perdurev1.Schedule){
			"name of the schedule is empty":  func(x *perdurev1.Schedule) { x.Name = "" },
			"without control characters":     func(x *perdurev1.Schedule) { x.Name = "a\nb" },
			"at most 255":                    func(x *perdurev1.Schedule) { x.Name = strings.Repeat("x", 256) },
			"neither a cron expression":      func(x *perdurev1.Schedule) { x.Cron = "" },
			"never due":                      func(x *perdurev1.Schedule) { x.Cron = "0 0 31 2 *" },
			"time zone":                      func(x *perdurev1.Schedule) { x.TimeZone = "Nowhere" },
			"is not registered":              func(x *perdurev1.Schedule) { x.Service = "stage.v1.Thing" },
			"did you mean HTRANSACTION":      func(x *perdurev1.Schedule) { x.Handler = "HTRANSACTIO" },
			"is a READ handler":              func(x *perdurev1.Schedule) { x.Handler = "HREAD" },
			"is empty: it names the object":  func(x *perdurev1.Schedule) { x.Key = "" },
			"which has no key":               func(x *perdurev1.Schedule) { x.Service, x.Handler = s.batches.Name, "HDURABLE" },
			"there is no such field":         func(x *perdurev1.Schedule) { x.DueField = "due" },
			"not a single google":            func(x *perdurev1.Schedule) { x.DueField = "root" },
			"has the key field name set":     func(x *perdurev1.Schedule) { x.Request = &perdurev1.Schedule_Raw{Raw: []byte("\x0a\x01k")} },
			"is not a google.protobuf.Mixin": func(x *perdurev1.Schedule) { x.Request = &perdurev1.Schedule_Raw{Raw: []byte("\xff")} },
			"the jitter is -1s":              func(x *perdurev1.Schedule) { x.Jitter = durationpb.New(-time.Second) },
			"overlap policy 9":               func(x *perdurev1.Schedule) { x.Overlap = 9 },
			"misfire policy 9":               func(x *perdurev1.Schedule) { x.Misfire = 9 },
			"the misfire limit is 1001":      func(x *perdurev1.Schedule) { x.MisfireLimit = 1001 },
			"would never be due":             func(x *perdurev1.Schedule) { x.EndAt = timestamppb.New(epoch.Add(time.Hour)) },
			"in the year 9999":               func(x *perdurev1.Schedule) { x.EndAt = timestamppb.New(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)) },
		} {
			bad := good()
			change(bad)
			_, err := s.client.Schedules().Put(s.t.Context(), bad, nil)
			if coded, ok := errors.AsType[*actor.Error](err); !ok || coded.Code() != actor.InvalidArgument || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want one with %q", err, want)
			}
		}
		s.put(good(), "get")
		s.put(good(), "add 1") // another definition
		if _, err := s.client.Schedules().Put(s.t.Context(), nil, nil); actor.CodeOf(err) != actor.InvalidArgument {
			t.Errorf("nothing at all: %v", err)
		}
	})
}
