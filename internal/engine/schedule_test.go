package engine

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/schedule"
	"github.com/perdure/perdure/internal/table"
)

// firings is a world of a few partitions with schedules, in which messages are lost, doubled and
// late, attempts are lost, and leaders crash between any two events.
type firings struct {
	r       *rand.Rand
	now     int64
	engines map[uint32]*Engine
	rows    map[uint32]mapView
	epochs  map[uint32]uint64
	letters []firingLetter
	// running attempts by id, in the partition of the id.
	running map[invocation.ID]uint32
	// started: how often each invocation was accepted, told by its first attempt.
	started map[invocation.ID]*recordv1.ScheduledCall
	ended   map[invocation.ID]bool
}

type firingLetter struct {
	to    uint32
	event Event
}

func (w *firings) engine(partition uint32) *Engine {
	if w.engines[partition] == nil {
		w.epochs[partition]++
		e := New(Config{Partition: partition, Partitions: 3, Next: intervals}, w.rows[partition], w.epochs[partition])
		w.engines[partition] = e
		out, err := e.Recover(w.now)
		if err != nil {
			panic(err)
		}
		w.take(partition, out)
	}
	return w.engines[partition]
}

func (w *firings) evaluate(partition uint32, event Event) {
	out, err := w.engine(partition).Evaluate(event, w.now)
	if err != nil {
		panic(err)
	}
	w.take(partition, out)
}

func (w *firings) take(partition uint32, out *Output) {
	for _, m := range out.Mutations {
		if m.Delete {
			delete(w.rows[partition], string(m.Key))
		} else {
			w.rows[partition][string(m.Key)] = slices.Clone(m.Value)
		}
	}
	for _, effect := range slices.Clone(out.Effects) {
		switch effect := effect.(type) {
		case *StartAttempt:
			w.running[effect.ID] = effect.Row.Attempt
			call := effect.Row.Scheduled
			if before, ok := w.started[effect.ID]; ok && !proto.Equal(before, call) || w.ended[effect.ID] {
				panic(fmt.Sprintf("%s was %v and is %v, ended: %v", effect.ID, before, call, w.ended[effect.ID]))
			}
			w.started[effect.ID] = proto.CloneOf(call)
		case *AbortAttempt:
			delete(w.running, effect.ID)
		case *SendMessage:
			w.letters = append(w.letters, firingLetter{effect.To, &Deliver{From: partition, Sequence: effect.Sequence, Message: effect.Message}})
		case *Ack:
			w.letters = append(w.letters, firingLetter{effect.To, &Acked{By: partition, Sequence: effect.Sequence}})
		}
	}
}

// due fires the timers of a partition whose time has come.
func (w *firings) due(partition uint32) {
	lower, upper := table.TimersFrom(0)
	var timers []table.Timer
	_ = w.rows[partition].Scan(lower, upper, func(key, _ []byte) bool {
		timer, _ := table.ParseTimer(key)
		if timer.At <= w.now {
			timers = append(timers, timer)
		}
		return true
	})
	for _, timer := range timers {
		w.evaluate(partition, &Fire{Timer: timer})
	}
}

func (w *firings) finish(id invocation.ID) {
	attempt := w.running[id]
	delete(w.running, id)
	w.ended[id] = true
	result := &recordv1.Result{}
	if w.r.IntN(3) == 0 {
		result = failure(codeInternal, "on purpose")
	}
	w.evaluate(id.Partition(3), &Finish{ID: id, Attempt: attempt, Result: result})
}

func (w *firings) crash(partition uint32) {
	delete(w.engines, partition)
	for id := range w.running {
		if id.Partition(3) == partition {
			delete(w.running, id)
		}
	}
	w.engine(partition)
}

func (w *firings) deliver(i int) {
	l := w.letters[i]
	if w.r.IntN(4) > 0 { // else it comes again
		w.letters = slices.Delete(w.letters, i, i+1)
	}
	w.evaluate(l.to, l.event)
}

func (w *firings) state(name string) *recordv1.ScheduleState {
	id := schedule.ID(name)
	state := &recordv1.ScheduleState{}
	if err := proto.Unmarshal(w.rows[id.Partition(3)][string(table.Scheduling(id))], state); err != nil {
		panic(err)
	}
	return state
}

// TestFiringsSurviveEverything: however leaders crash and messages are lost, each firing of a
// schedule is one invocation, each due time is one firing or counted as skipped or missed, and
// the schedule hears of each end once.
func TestFiringsSurviveEverything(t *testing.T) {
	for range 60 {
		seed := rand.Uint64()
		w := &firings{
			r: rand.New(rand.NewPCG(seed, 2)), now: 1000, engines: map[uint32]*Engine{}, rows: map[uint32]mapView{}, epochs: map[uint32]uint64{},
			running: map[invocation.ID]uint32{}, started: map[invocation.ID]*recordv1.ScheduledCall{}, ended: map[invocation.ID]bool{},
		}
		for p := uint32(1); p <= 3; p++ {
			w.rows[p] = mapView{}
		}
		names := []string{"a", "b", "c", "d"}
		for i, name := range names {
			mode := []invocation.Mode{invocation.ModeTransaction, invocation.ModeDurable}[w.r.IntN(2)]
			key := fmt.Sprint("key", w.r.IntN(2))
			if i == 0 {
				mode, key = invocation.ModeDurable, "" // of a SERVICE
			}
			w.evaluate(schedule.ID(name).Partition(3), &ChangeSchedule{Name: name, Change: &recordv1.ScheduleChange{
				Change: &recordv1.ScheduleChange_Put{Put: &recordv1.PutSchedule{Schedule: &recordv1.Schedule{
					Name: name, Timetable: &recordv1.Timetable{EveryMs: 1000}, Overlap: uint32(1 + w.r.IntN(5)), Misfire: uint32(1 + w.r.IntN(3)),
					MisfireGraceMs: 1500,
					Invoke:         &recordv1.Invoke{Target: &recordv1.Target{Service: "Svc", Key: key, Handler: "H"}, Mode: uint32(mode), RetentionMs: 3_600_000},
				}}},
			}})
		}
		for range 400 {
			switch p := uint32(1 + w.r.IntN(3)); w.r.IntN(10) {
			case 0, 1:
				w.now += w.r.Int64N(1200)
			case 2:
				if w.r.IntN(4) == 0 {
					w.now += w.r.Int64N(20_000) // nobody was there
				}
			case 3, 4:
				w.due(p)
			case 5:
				if w.r.IntN(3) == 0 {
					w.crash(p)
				}
			case 6, 7:
				if len(w.letters) > 0 {
					w.deliver(w.r.IntN(len(w.letters)))
				}
			default:
				if len(w.running) > 0 {
					ids := slices.SortedFunc(maps.Keys(w.running), func(a, b invocation.ID) int { return slices.Compare(a[:], b[:]) })
					w.finish(ids[w.r.IntN(len(ids))])
				}
			}
		}
		// Whatever was lost is sent again by the next leaders, until all is quiet.
		for _, name := range names {
			w.evaluate(schedule.ID(name).Partition(3), &ChangeSchedule{Name: name, Change: &recordv1.ScheduleChange{
				Change: &recordv1.ScheduleChange_Pause{Pause: &recordv1.PauseSchedule{}}}})
		}
		for round := 0; ; round++ {
			if round == 3000 {
				t.Fatalf("seed %d: it never comes to rest: %d run, %d letters", seed, len(w.running), len(w.letters))
			}
			quiet := true
			for p := uint32(1); p <= 3; p++ {
				if round%50 == 0 {
					w.crash(p)
				}
				w.due(p)
			}
			for len(w.letters) > 0 {
				quiet = false
				w.deliver(0)
			}
			for id := range w.running {
				quiet = false
				w.finish(id)
				break
			}
			if quiet && round%50 == 49 {
				break
			}
		}
		fired := map[string]map[uint64]bool{}
		due := map[string]map[int64]bool{}
		for id, call := range w.started {
			if fired[call.Schedule] == nil {
				fired[call.Schedule], due[call.Schedule] = map[uint64]bool{}, map[int64]bool{}
			}
			if fired[call.Schedule][call.Number] || due[call.Schedule][call.DueAt] {
				t.Fatalf("seed %d: %v fired twice, as %s too", seed, call, id)
			}
			fired[call.Schedule][call.Number], due[call.Schedule][call.DueAt] = true, true
		}
		for _, name := range names {
			st := w.state(name)
			// A firing may have been cancelled before it began.
			unborn := 0
			for id, row := range w.kept() {
				if row.Scheduled.GetSchedule() == name && w.started[id] == nil {
					unborn++
				}
			}
			if got := len(fired[name]) + unborn; uint64(got) != st.Fired || st.Running != 0 || st.Succeeded+st.Failed != st.Fired || len(st.Pending) > 0 {
				t.Fatalf("seed %d: schedule %s says %v; %d ran and %d did not begin", seed, name, st, len(fired[name]), unborn)
			}
			if passed := uint64(st.NextDue/1000 - 2); st.Fired+st.Skipped+st.Missed != passed {
				t.Fatalf("seed %d: schedule %s says %v of %d due times", seed, name, st, passed)
			}
		}
	}
}

// kept are the rows of invocations.
func (w *firings) kept() map[invocation.ID]*recordv1.Invocation {
	kept := map[invocation.ID]*recordv1.Invocation{}
	for _, rows := range w.rows {
		lower, upper := table.Invocations()
		_ = rows.Scan(lower, upper, func(key, value []byte) bool {
			id, _ := table.ParseID(key)
			row := &recordv1.Invocation{}
			if err := proto.Unmarshal(value, row); err != nil {
				panic(err)
			}
			kept[id] = row
			return true
		})
	}
	return kept
}
