package schedule

import recordv1 "github.com/perdure/perdure/internal/record/v1"

// Standing is what is compared of a schedule before and after a step.
type Standing struct {
	// WakeAt is the instant of its timer, 0 for none.
	WakeAt          int64
	skipped, missed uint64
}

// StandingOf is that of a state, which may be nil.
func StandingOf(st *recordv1.ScheduleState) Standing {
	return Standing{st.GetWakeAt(), st.GetSkipped(), st.GetMissed()}
}

// Moved is what became of due times in a step.
type Moved struct {
	// Fired counts those by hand and by a backfill too.
	Fired int
	// Skipped and Missed will never fire.
	Skipped, Missed uint64
	// Late is how many milliseconds after its due time, jitter included, each of those fired that
	// were due or make up for a due time that was missed.
	Late []int64
}

// Moved compares the schedule with how it stood before a step; nil if no due time is concerned.
func (s *Schedule) Moved(step Step, before Standing) *Moved {
	m := &Moved{Fired: len(step.Fire)}
	if s.State.Skipped > before.skipped { // else it was made anew, or nothing has changed
		m.Skipped = s.State.Skipped - before.skipped
	}
	if s.State.Missed > before.missed {
		m.Missed = s.State.Missed - before.missed
	}
	for _, f := range step.Fire {
		if f.Origin == recordv1.Origin_ORIGIN_DUE || f.Origin == recordv1.Origin_ORIGIN_MISFIRE {
			m.Late = append(m.Late, max(f.FiredAt-f.DueAt, 0))
		}
	}
	if m.Fired == 0 && m.Skipped == 0 && m.Missed == 0 {
		return nil
	}
	return m
}
