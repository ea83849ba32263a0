package engine

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/schedule"
	"github.com/perdure/perdure/internal/table"
)

// What scripts have for schedules. Schedules daily and clean live in partition 1, sync in 2. A
// firing is known as daily#1.
//
//	schedule daily every=100 key=ann overlap=2 misfire=1 grace=10   make it or change it
//	due daily                                                       its timer fires
//	trigger daily request=r, pause daily, resume daily, unschedule daily
//	backfill daily request=r from=100 until=300
var scheduleVerbs = map[string]bool{
	"schedule": true, "due": true, "trigger": true, "pause": true, "resume": true, "unschedule": true, "backfill": true,
}

// intervals is a calendar that knows nothing else.
func intervals(t *recordv1.Timetable, after int64) (int64, error) {
	if t.GetEveryMs() <= 0 {
		return 0, errors.New("this calendar knows intervals only")
	}
	return (after/t.EveryMs + 1) * t.EveryMs, nil
}

func (s *script) scheduleEvent(t *testing.T, verb string, a args) Event {
	t.Helper()
	ev := &ChangeSchedule{Name: a["id"], Token: Token(a.number("token"))}
	switch verb {
	case "schedule":
		ev.Change = &recordv1.ScheduleChange{Change: &recordv1.ScheduleChange_Put{Put: &recordv1.PutSchedule{Schedule: &recordv1.Schedule{
			Name: a["id"], Timetable: &recordv1.Timetable{EveryMs: a.number("every")}, Overlap: uint32(a.number("overlap")),
			Misfire: uint32(a.number("misfire")), MisfireGraceMs: a.number("grace"),
			Invoke: &recordv1.Invoke{Target: &recordv1.Target{Service: "Svc", Key: a["key"], Handler: "H"}, Mode: s.invoke(a).Mode, Input: []byte(a["input"])},
		}}}}
	case "due":
		id := schedule.ID(a["id"])
		state := &recordv1.ScheduleState{}
		if err := proto.Unmarshal(s.rows[id.Partition(4)][string(table.Scheduling(id))], state); err != nil {
			t.Fatal(err)
		}
		at := state.WakeAt
		if a["at"] != "" {
			at = a.number("at")
		}
		return &Fire{Timer: table.Timer{At: at, Kind: table.TimerSchedule, ID: id}}
	case "trigger":
		ev.Change = &recordv1.ScheduleChange{Change: &recordv1.ScheduleChange_Trigger{Trigger: &recordv1.TriggerSchedule{RequestId: a["request"]}}}
	case "pause":
		ev.Change = &recordv1.ScheduleChange{Change: &recordv1.ScheduleChange_Pause{Pause: &recordv1.PauseSchedule{}}}
	case "resume":
		ev.Change = &recordv1.ScheduleChange{Change: &recordv1.ScheduleChange_Resume{Resume: &recordv1.ResumeSchedule{}}}
	case "unschedule":
		ev.Change = &recordv1.ScheduleChange{Change: &recordv1.ScheduleChange_Delete{Delete: &recordv1.DeleteSchedule{}}}
	case "backfill":
		ev.Change = &recordv1.ScheduleChange{Change: &recordv1.ScheduleChange_Backfill{Backfill: &recordv1.BackfillSchedule{
			RequestId: a["request"], From: a.number("from"), Until: a.number("until")}}}
	}
	return ev
}

// meetFiring names the invocation of a firing.
func (s *script) meetFiring(e *StartAttempt) {
	if of := e.Row.GetScheduled(); of != nil {
		name := fmt.Sprintf("%s#%d", of.Schedule, of.Number)
		s.names[e.ID], s.ids[name] = name, e.ID
	}
}

// scheduleRow prints the key of a row of a schedule, or of its timer.
func (s *script) scheduleRow(key []byte) string {
	switch key[0] {
	case 'h':
		return fmt.Sprintf("schedule %s", key[1:])
	case 'z':
		return "state"
	case 'w':
		if timer, err := table.ParseTimer(key); err == nil && timer.Kind == table.TimerSchedule {
			return fmt.Sprintf("timer of schedule at %d", timer.At)
		}
	}
	return ""
}

func scheduleValue(key, value []byte) string {
	if key[0] == 'h' {
		return ""
	}
	st := &recordv1.ScheduleState{}
	_ = proto.Unmarshal(value, st)
	text := fmt.Sprintf("of %s due=%d fired=%d running=%d ended=%d", st.Name, st.NextDue, st.Fired, st.Running, st.Succeeded+st.Failed)
	if st.Paused {
		text += " paused"
	}
	if st.Skipped+st.Missed > 0 {
		text += fmt.Sprintf(" skipped=%d missed=%d", st.Skipped, st.Missed)
	}
	var pending []string
	for _, f := range st.Pending {
		pending = append(pending, fmt.Sprint(f.DueAt))
	}
	if len(pending) > 0 {
		text += " pending=" + strings.Join(pending, ",")
	}
	return text
}
