package schedule

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

const (
	second = int64(1000)
	minute = 60 * second
	hour   = 60 * minute
)

// every is a calendar of intervals, which counts how often it is asked.
type every struct{ asked int }

func (c *every) next(t *recordv1.Timetable, after int64) (int64, error) {
	c.asked++
	due := (after/t.EveryMs + 1) * t.EveryMs
	if t.EndAt != 0 && due > t.EndAt {
		return 0, nil
	}
	return due, nil
}

// world is a schedule and what runs for it.
type world struct {
	t        *testing.T
	s        *Schedule
	calendar *every
	// running firings by number, and all that was fired: origin and due time.
	running   map[uint64]*recordv1.Firing
	fired     []string
	cancelled []string
}

func newWorld(t *testing.T, definition *recordv1.Schedule) *world {
	w := &world{t: t, calendar: &every{}, running: map[uint64]*recordv1.Firing{}}
	w.s = &Schedule{Name: "s", Next: w.calendar.next}
	definition.Name = "s"
	if definition.Timetable == nil {
		definition.Timetable = &recordv1.Timetable{EveryMs: hour}
	}
	definition.Invoke = &recordv1.Invoke{Target: &recordv1.Target{Service: "Svc", Key: "k", Handler: "H"}, Mode: uint32(invocation.ModeTransaction)}
	w.change(0, &recordv1.ScheduleChange{Change: &recordv1.ScheduleChange_Put{Put: &recordv1.PutSchedule{Schedule: definition}}})
	return w
}

var origins = map[recordv1.Origin]string{1: "due", 2: "misfire", 3: "trigger", 4: "backfill"}

func (w *world) took(step Step) {
	for _, f := range step.Fire {
		w.running[f.Number] = f
		w.fired = append(w.fired, fmt.Sprintf("%s %s", origins[f.Origin], time.Duration(f.DueAt)*time.Millisecond))
	}
	for _, id := range step.Cancel {
		w.cancelled = append(w.cancelled, id.String())
	}
	// The rows are all there is between two events.
	w.s.Definition, w.s.State = proto.CloneOf(w.s.Definition), proto.CloneOf(w.s.State)
}

func (w *world) change(now int64, change *recordv1.ScheduleChange) error {
	step, err := w.s.Change(change, 7, now)
	if err == nil {
		w.took(step)
	}
	return err
}

// to lets time pass, with the node up.
func (w *world) to(now int64) {
	w.t.Helper()
	for i := 0; w.s.State.WakeAt != 0 && w.s.State.WakeAt <= now; i++ {
		w.wake(w.s.State.WakeAt)
		if i > 100_000 {
			w.t.Fatal("the timer fires for ever")
		}
	}
}

// up is a node that comes up.
func (w *world) up(now int64) {
	w.t.Helper()
	for i := 0; w.s.State.WakeAt != 0 && w.s.State.WakeAt <= now; i++ {
		w.wake(now)
		if i > 100_000 {
			w.t.Fatal("the timer fires for ever")
		}
	}
}

func (w *world) wake(now int64) {
	w.t.Helper()
	step, err := w.s.Advance(now)
	if err != nil {
		w.t.Fatal(err)
	}
	if len(step.Fire) > maxStep {
		w.t.Fatalf("%d firings in one record", len(step.Fire))
	}
	w.took(step)
}

func (w *world) end(now int64, number uint64) {
	w.t.Helper()
	f := w.running[number]
	delete(w.running, number)
	end := &recordv1.ScheduledEnd{Call: w.s.Invoke(f).Scheduled, InvocationId: f.InvocationId, Status: recordv1.Status_STATUS_SUCCEEDED, At: now}
	if !w.s.Ended(end, now) {
		w.t.Fatalf("firing %d is not known", number)
	}
	w.took(Step{})
}

func (w *world) check(want string) {
	w.t.Helper()
	if got := strings.Join(w.fired, ", "); got != want {
		w.t.Errorf("fired %s\n want %s", got, want)
	}
	w.fired = nil
}

func (w *world) checkCounts(skipped, missed uint64, pending int) {
	w.t.Helper()
	st := w.s.State
	if st.Skipped != skipped || st.Missed != missed || len(st.Pending) != pending {
		w.t.Errorf("%d skipped, %d missed, %d pending; want %d, %d, %d", st.Skipped, st.Missed, len(st.Pending), skipped, missed, pending)
	}
}

func TestMisfires(t *testing.T) {
	for _, test := range []struct {
		name       string
		definition *recordv1.Schedule
		down       int64 // from 1h30m on
		want       string
		missed     uint64
		pending    int
	}{
		{"late by less than the grace", &recordv1.Schedule{Overlap: uint32(OverlapAllow)}, 30*minute + 50*second, "due 2h0m0s", 0, 0},
		{"of several the latest", &recordv1.Schedule{}, 72*hour + 5*minute, "misfire 73h0m0s", 71, 0},
		{"none", &recordv1.Schedule{Misfire: uint32(MisfireSkip)}, 72*hour + 5*minute, "", 72, 0},
		{"none but that within the grace", &recordv1.Schedule{Misfire: uint32(MisfireSkip), MisfireGraceMs: 2 * hour, Overlap: uint32(OverlapAllow)},
			4 * hour, "due 4h0m0s, due 5h0m0s", 2, 0},
		{"all, as they may overlap", &recordv1.Schedule{Misfire: uint32(MisfireAll), Overlap: uint32(OverlapAllow)}, 4 * hour,
			"misfire 2h0m0s, misfire 3h0m0s, misfire 4h0m0s, misfire 5h0m0s", 0, 0},
		{"all, one after the other", &recordv1.Schedule{Misfire: uint32(MisfireAll)}, 4 * hour, "misfire 2h0m0s", 0, 3},
		{"the latest of all", &recordv1.Schedule{Misfire: uint32(MisfireAll), MisfireLimit: 2}, 4 * hour, "misfire 4h0m0s", 2, 1},
		{"one is late and one is not", &recordv1.Schedule{Overlap: uint32(OverlapAllow)}, hour + 30*minute + 30*second, "misfire 2h0m0s, due 3h0m0s", 0, 0},
		{"after a misfire the overlap policy is not heeded", &recordv1.Schedule{}, hour + 30*minute + 30*second, "misfire 2h0m0s", 0, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, test.definition)
			w.to(hour + 30*minute)
			w.check("due 1h0m0s")
			w.end(hour+30*minute, 1)
			w.up(hour + 30*minute + test.down)
			w.check(test.want)
			w.checkCounts(0, test.missed, test.pending)
			if next := w.s.State.NextDue; next%hour != 0 || next <= hour+30*minute+test.down || next > 2*hour+30*minute+test.down {
				t.Errorf("next due at %s", time.Duration(next)*time.Millisecond)
			}
		})
	}
}

// TestChangeWithinJitter: a due time that has not fired yet, for its jitter, is not lost by a change,
// and a pause skips it.
func TestChangeWithinJitter(t *testing.T) {
	within := func() *world {
		w := newWorld(t, &recordv1.Schedule{JitterMs: hour})
		if at := w.s.State.NextAt; at <= hour+1 {
			t.Fatalf("no jitter: %d", at)
		}
		return w
	}
	w := within()
	changed := proto.CloneOf(w.s.Definition)
	changed.Timetable.EveryMs = 10 * hour
	if err := w.change(hour+1, &recordv1.ScheduleChange{Change: &recordv1.ScheduleChange_Put{Put: &recordv1.PutSchedule{Schedule: changed}}}); err != nil {
		t.Fatal(err)
	}
	w.to(hour + 1)
	w.check("due 1h0m0s")
	if w.s.State.NextDue != 10*hour {
		t.Errorf("next due at %d", w.s.State.NextDue)
	}
	w = within()
	if err := w.change(hour+1, &recordv1.ScheduleChange{Change: &recordv1.ScheduleChange_Pause{Pause: &recordv1.PauseSchedule{}}}); err != nil {
		t.Fatal(err)
	}
	w.to(3 * hour)
	w.check("")
	w.checkCounts(1, 0, 0)
}

// TestMissedForYears: however long a node was down, and however often a schedule was due, one
// event does not take long.
func TestMissedForYears(t *testing.T) {
	for policy, want := range map[Misfire]int{MisfireOnce: 1, MisfireAll: 1000, MisfireSkip: 0} {
		w := newWorld(t, &recordv1.Schedule{
			Timetable: &recordv1.Timetable{EveryMs: second}, Misfire: uint32(policy), MisfireLimit: MaxMisfires, Overlap: uint32(OverlapAllow), MisfireGraceMs: 1,
		})
		now := 10 * 365 * 24 * hour
		w.calendar.asked = 0
		w.wake(now)
		if w.calendar.asked > 60_000 {
			t.Errorf("policy %d: asked the calendar %d times in one event", policy, w.calendar.asked)
		}
		w.up(now)
		misfires := 0
		for i, fired := range w.fired {
			var origin, due string
			fmt.Sscan(fired, &origin, &due)
			if origin == "misfire" {
				misfires++
				if want := fmt.Sprint(time.Duration(now-int64(want-i)*second) * time.Millisecond); due != want {
					t.Fatalf("policy %d: misfire %d was due at %s, want %s", policy, i, due, want)
				}
			}
		}
		if misfires != want || w.s.State.NextDue <= now {
			t.Errorf("policy %d: %d misfires, want %d; next due at %d, now is %d", policy, misfires, want, w.s.State.NextDue, now)
		}
	}
}

func TestStoppedBackfill(t *testing.T) {
	w := newWorld(t, &recordv1.Schedule{})
	for w.s.State.Number < 10 {
		w.to(int64(w.s.State.Number+1) * hour)
		w.end(int64(w.s.State.Number)*hour, w.s.State.Number)
	}
	now, number := 10*hour+minute, w.s.State.Number
	w.fired = nil
	backfill := func(id string, from int64, stop bool) {
		t.Helper()
		change := &recordv1.BackfillSchedule{RequestId: id, From: from, Stop: stop}
		if !stop {
			change.Until = from + 2*hour
		}
		if err := w.change(now, &recordv1.ScheduleChange{Change: &recordv1.ScheduleChange_Backfill{Backfill: change}}); err != nil {
			t.Error(err)
		}
	}
	next := func() {
		number++
		w.end(now, number)
		w.to(now)
	}
	backfill("one", 2*hour, false)
	backfill("stop", 0, true)
	w.check("backfill 2h0m0s")
	next()
	w.check("")
	backfill("two", 5*hour, false)
	w.check("backfill 5h0m0s")
	backfill("stop", 0, true) // The answer was lost, so it comes again, too late.
	next()
	w.check("backfill 6h0m0s")
}

func TestBackfill(t *testing.T) {
	backfill := func(id string, from, until int64) *recordv1.ScheduleChange {
		return &recordv1.ScheduleChange{Change: &recordv1.ScheduleChange_Backfill{Backfill: &recordv1.BackfillSchedule{RequestId: id, From: from, Until: until}}}
	}
	w := newWorld(t, &recordv1.Schedule{})
	for w.s.State.Number < 10 {
		w.to(int64(w.s.State.Number+1) * hour)
		w.end(int64(w.s.State.Number)*hour, w.s.State.Number)
	}
	w.fired = nil
	now := 10*hour + minute
	for want, change := range map[string]*recordv1.ScheduleChange{
		"before it begins": backfill("x", 5, 4), "in the future": backfill("x", 5, now+1), "no due time": backfill("x", hour+1, 2*hour-1), "no request id": backfill("", 1, 2),
	} {
		if err := w.change(now, change); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
	if err := w.change(now, backfill("one", 2*hour, 4*hour)); err != nil {
		t.Fatal(err)
	}
	if err := w.change(now, backfill("two", 2*hour, 4*hour)); err == nil || !strings.Contains(err.Error(), "under way") {
		t.Errorf("a second one: %v", err)
	}
	if err := w.change(now, backfill("one", 2*hour, 4*hour)); err != nil {
		t.Errorf("the same again: %v", err)
	}
	w.check("backfill 2h0m0s")
	w.end(now, 11)
	w.to(now)
	// A due time goes before the rest of a backfill, and is not skipped because of it.
	w.to(11 * hour)
	w.check("backfill 3h0m0s")
	w.checkCounts(0, 0, 1)
	w.end(11*hour, 12)
	w.to(11 * hour)
	w.end(11*hour, 13)
	w.to(11 * hour)
	w.end(11*hour, 14)
	w.to(11*hour + minute)
	w.check("due 11h0m0s, backfill 4h0m0s")
	if w.s.State.Backfill != nil {
		t.Errorf("the backfill is not over: %v", w.s.State.Backfill)
	}
	if err := w.change(now, backfill("one", 2*hour, 4*hour)); err != nil || len(w.fired) > 0 {
		t.Errorf("the same when it is over: %v, %v", err, w.fired)
	}
}

// TestEveryDueTimeIsAccountedFor runs schedules of every policy through random days: whatever
// happens, each due time is once fired, waiting, skipped or missed.
func TestEveryDueTimeIsAccountedFor(t *testing.T) {
	for range 150 {
		seed := rand.Uint64()
		r := rand.New(rand.NewPCG(seed, 1))
		definition := &recordv1.Schedule{
			Overlap: uint32(r.IntN(6)), Misfire: uint32(r.IntN(4)), MisfireLimit: uint32(r.IntN(4)),
			Timetable: &recordv1.Timetable{EveryMs: []int64{second, 10 * second, hour}[r.IntN(3)]},
		}
		if r.IntN(2) == 0 {
			definition.JitterMs = r.Int64N(2 * definition.Timetable.EveryMs)
		}
		if r.IntN(2) == 0 {
			definition.MisfireGraceMs = r.Int64N(5*definition.Timetable.EveryMs) + 1
		}
		w := newWorld(t, definition)
		now := int64(1) // 0 is no instant
		seen := map[string]bool{}
		fired, backfilled := uint64(0), 0
		for step := range 200 {
			switch r.IntN(8) {
			case 0: // the node is down
				now += r.Int64N(30 * definition.Timetable.EveryMs)
				w.up(now)
			case 1, 2:
				now += r.Int64N(2 * definition.Timetable.EveryMs)
				w.to(now)
			case 3:
				w.wake(now) // a timer that fires for nothing
			case 4:
				_ = w.change(now, &recordv1.ScheduleChange{Change: &recordv1.ScheduleChange_Trigger{
					Trigger: &recordv1.TriggerSchedule{RequestId: fmt.Sprint(step), Overlaps: r.IntN(2) == 0}}})
			case 5:
				if until := now - r.Int64N(5*definition.Timetable.EveryMs+1); until > 0 {
					_ = w.change(now, &recordv1.ScheduleChange{Change: &recordv1.ScheduleChange_Backfill{
						Backfill: &recordv1.BackfillSchedule{RequestId: fmt.Sprint(step), From: max(until-3*definition.Timetable.EveryMs, 1), Until: until}}})
				}
			default:
				for number := range w.running {
					w.end(now, number)
					break
				}
			}
			w.to(now)
			for _, f := range w.fired {
				origin, _, _ := strings.Cut(f, " ")
				if origin == "due" || origin == "misfire" {
					fired++
					due := strings.TrimPrefix(strings.TrimPrefix(f, "due "), "misfire ")
					if seen[due] {
						t.Fatalf("seed %d: %s fired twice", seed, due)
					}
					seen[due] = true
				}
				if origin == "backfill" {
					backfilled++
				}
			}
			w.fired = nil
			st := w.s.State
			if policy := w.s.overlap(); policy != OverlapAllow && st.Running > 1 {
				triggered := 0
				for _, f := range w.running {
					if f.Overlaps {
						triggered++
					}
				}
				if int(st.Running)-triggered > 1 {
					t.Fatalf("seed %d: policy %d, and %d run", seed, policy, st.Running)
				}
			}
			if int(st.Running) != len(w.running) {
				t.Fatalf("seed %d: %d run, the schedule says %d", seed, len(w.running), st.Running)
			}
			pending := uint64(0)
			for _, f := range st.Pending {
				if f.Origin == recordv1.Origin_ORIGIN_DUE || f.Origin == recordv1.Origin_ORIGIN_MISFIRE {
					pending++
				}
			}
			passed := uint64(st.NextDue/definition.Timetable.EveryMs - 1)
			if got := fired + pending + st.Skipped + st.Missed; got != passed {
				t.Fatalf("seed %d, step %d, now %d: %d fired, %d pending, %d skipped, %d missed make %d of %d due times",
					seed, step, now, fired, pending, st.Skipped, st.Missed, got, passed)
			}
			if st.NextAt <= now {
				t.Fatalf("seed %d: at %d the next firing is at %d: %v %v", seed, now, st.NextAt, st, definition)
			}
		}
		// Whatever waits gets its turn.
		for len(w.running) > 0 {
			for number := range w.running {
				w.end(now, number)
			}
			w.to(now)
		}
		if len(w.s.State.Pending) > 0 || w.s.State.Backfill != nil {
			t.Fatalf("seed %d: nothing runs, and %d wait, %v", seed, len(w.s.State.Pending), w.s.State.Backfill)
		}
	}
}

func TestInvoke(t *testing.T) {
	s := &Schedule{Name: "s", Definition: &recordv1.Schedule{
		Generation: 3, DueField: 5, KeyField: 1, TimeoutMs: 1000,
		Invoke: &recordv1.Invoke{Target: &recordv1.Target{Service: "Svc", Key: "day {due}", Handler: "H"}, Input: []byte{0x10, 1}},
	}}
	due := time.Date(2024, 2, 29, 3, 0, 0, 5e6, time.UTC)
	f := &recordv1.Firing{DueAt: due.UnixMilli(), FiredAt: due.UnixMilli() + 20, Number: 9}
	in := s.Invoke(f)
	if want := "day 2024-02-29T03:00:00.005Z"; in.Target.Key != want {
		t.Errorf("key %q, want %q", in.Target.Key, want)
	}
	stamp, err := proto.Marshal(timestamppb.New(due))
	if err != nil {
		t.Fatal(err)
	}
	want := "\x10\x01" + "\x0a" + string(rune(len(in.Target.Key))) + in.Target.Key + "\x2a" + string(rune(len(stamp))) + string(stamp)
	if string(in.Input) != want {
		t.Errorf("input %q, want %q", in.Input, want)
	}
	if in.DeadlineAt != f.FiredAt+1000 || in.Scheduled.Number != 9 || in.Scheduled.Generation != 3 {
		t.Errorf("got %v", in)
	}
	if len(s.Definition.Invoke.Input) != 2 || s.Definition.Invoke.Target.Key != "day {due}" {
		t.Error("the schedule itself was changed")
	}
	// Names of invocations differ by all that makes them different, and by nothing else.
	ids := map[invocation.ID]string{}
	for _, f := range []*recordv1.Firing{
		{DueAt: 1, Origin: 1}, {DueAt: 2, Origin: 1}, {DueAt: 1, Origin: 3, RequestId: "1"}, {DueAt: 1, Origin: 4, RequestId: "1"}, {DueAt: 2, Origin: 4, RequestId: "1"},
	} {
		id := s.invocationID(f)
		if before, ok := ids[id]; ok {
			t.Errorf("%v has the id of %s", f, before)
		}
		ids[id] = f.String()
	}
	if s.invocationID(&recordv1.Firing{DueAt: 1, Origin: 2}) != s.invocationID(&recordv1.Firing{DueAt: 1, Origin: 1}) {
		t.Error("a due time that was made up for is another invocation than the one it made up for")
	}
}

func TestRFC3339(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		at := r.Int64N(300*365*24*hour) - 60*365*24*hour
		want := time.UnixMilli(at).UTC().Format("2006-01-02T15:04:05.999Z")
		if at%1000 != 0 {
			want = time.UnixMilli(at).UTC().Format("2006-01-02T15:04:05.000Z")
		}
		if got := rfc3339(at); got != want {
			t.Fatalf("%d: got %s, want %s", at, got, want)
		}
	}
}
