package sim

import (
	"context"
	"fmt"
	"time"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// scheduled is a schedule that adds one to a counter of its own.
type scheduled struct {
	name    string
	everyMs int64
}

func (w *world) schedules() []scheduled {
	var all []scheduled
	for i := range w.load.schedules {
		all = append(all, scheduled{fmt.Sprint("scheduled", i), int64(300 + 200*i)})
	}
	return all
}

// fundSchedules makes the schedules, of policies that the seed decides.
func (w *world) fundSchedules() {
	random := newChance(w.seed, 60)
	for _, s := range w.schedules() {
		t := invocation.Target{Service: "sim.Counter", Key: s.name, Handler: "Add"}
		in := invoke(t, invocation.ModeTransaction, value(1), "")
		in.InvocationId, in.RetentionMs = nil, 60_000
		definition := &recordv1.Schedule{
			Name: s.name, Timetable: &recordv1.Timetable{EveryMs: s.everyMs}, Invoke: in,
			Overlap: uint32(1 + random.intn(5)), Misfire: uint32(1 + random.intn(3)), MisfireGraceMs: int64(1 + random.intn(600)),
		}
		w.call(func(ctx context.Context, n *node) (*recordv1.Result, error) {
			_, err := n.ChangeSchedule(ctx, s.name, &recordv1.ScheduleChange{Change: &recordv1.ScheduleChange_Put{Put: &recordv1.PutSchedule{Schedule: definition}}})
			return nil, err
		})
	}
}

// pauseSchedules ends the firing, between two due times.
func (w *world) pauseSchedules(n *node) {
	for _, s := range w.schedules() {
		for deadline := time.Now().Add(time.Minute); ; {
			every := time.Duration(s.everyMs) * time.Millisecond
			time.Sleep(time.Now().Truncate(every).Add(3 * every / 2).Sub(time.Now()))
			_, err := n.ChangeSchedule(context.Background(), s.name, &recordv1.ScheduleChange{Change: &recordv1.ScheduleChange_Pause{Pause: &recordv1.PauseSchedule{}}})
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				w.fail("%s can't be paused: %v", s.name, err)
				return
			}
		}
	}
}

// checkSchedules: each due time fired once, or was counted as skipped or missed, and each firing took
// effect once unless it was cancelled.
func (w *world) checkSchedules(n *node) {
	for _, s := range w.schedules() {
		found, err := n.Schedule(context.Background(), s.name)
		if err != nil {
			w.fail("%s: %v", s.name, err)
			return
		}
		counter, err := n.State(context.Background(), invocation.Object{Service: "sim.Counter", Key: s.name})
		if err != nil {
			w.fail("state of the counter of %s: %v", s.name, err)
			return
		}
		st := found.GetState()
		passed := uint64(st.GetPausedAt()/s.everyMs - found.GetSchedule().GetCreatedAt()/s.everyMs)
		if sum := st.GetFired() + st.GetSkipped() + st.GetMissed(); sum != passed || st.GetRunning() != 0 || len(st.GetPending()) != 0 {
			w.fail("%s: %d fired, %d skipped, %d missed make %d of %d due times; %d run, %d wait", s.name, st.GetFired(), st.GetSkipped(), st.GetMissed(), sum, passed, st.GetRunning(), len(st.GetPending()))
		}
		if added := number(counter.State); uint64(added) != st.GetSucceeded() || st.GetSucceeded()+st.GetFailed() != st.GetFired() {
			w.fail("%s fired %d times, %d succeeded, %d failed, and it has added %d", s.name, st.GetFired(), st.GetSucceeded(), st.GetFailed(), added)
		}
	}
}
